"""The model: what a prediction may depend on, its loss, its card and its diagnostics."""

from __future__ import annotations

import copy
import inspect
import math
from typing import Any

import numpy as np
import pytest

from sorep.errors import UsageError
from sorep.structure import Structure

pytest.importorskip("torch")

import torch

from sorep.mat2spec.card import card_rows, card_text
from sorep.mat2spec.config import PRESETS, ModelConfig, TrainingConfig, preset
from sorep.mat2spec.diagnostics import LatentDiagnostics, latent_diagnostics
from sorep.mat2spec.encoders import Batch, SpectrumEncoder, make_encoder
from sorep.mat2spec.graph import build_graph, collate
from sorep.mat2spec.losses import cosine_loss, infonce_loss, spectrum_loss
from sorep.mat2spec.mixture import kl_bound
from sorep.mat2spec.model import TRAINING_ONLY, Mat2Spec

N_BINS, N_SOREP = 12, 9


def spectra(n: int) -> torch.Tensor:
    """Different smooth distributions of all materials."""
    bins = torch.arange(N_BINS, dtype=torch.get_default_dtype())
    y = torch.exp(-((bins - 1 - torch.arange(n)[:, None] * 10 / n) ** 2) / 4)
    return y / y.sum(dim=1, keepdim=True)


def inputs(structures) -> Batch:
    structures = list(structures)
    sorep = torch.tensor([[np.cos(s.numbers.mean() + k) for k in range(N_SOREP)] for s in structures])
    return Batch(collate([build_graph(s) for s in structures]), sorep.to(torch.get_default_dtype()))


SMALL: dict[str, Any] = {
    "channels": 16,
    "n_heads": 2,
    "n_components": 3,
    "latent_dim": 16,
    "dropout": 0.1,
    "translator_dropout": 0.0,
}


def trained(config: ModelConfig, structures, *, steps: int = 25) -> Mat2Spec:
    """A model that tells these structures apart, in evaluation mode."""
    key = (config, steps, torch.get_default_dtype())
    if key not in _trained:
        _trained[key] = train(config, structures, steps)
    return copy.deepcopy(_trained[key])


_trained: dict[tuple[Any, ...], Mat2Spec] = {}


@pytest.fixture(scope="module")
def few(crystals) -> list[Structure]:
    return [structure for structure in crystals.values() if structure.n_atoms < 10]


def train(config: ModelConfig, structures, steps: int) -> Mat2Spec:
    torch.manual_seed(0)
    model = Mat2Spec(config, N_BINS, make_encoder(config, N_SOREP))
    batch = inputs(structures)
    y = spectra(len(batch))
    for part in model.modules():
        if isinstance(part, SpectrumEncoder):
            part.fit_scaling(batch.sorep)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss(model.training_outputs(batch, y), y)["total"].backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(params=["graph", "sorep", "both"])
def model(request, double, few) -> Mat2Spec:
    return trained(ModelConfig(encoder=request.param, **SMALL), few)


def test_a_prediction_is_a_distribution_and_differs_between_crystals(model, few) -> None:
    predicted = model(inputs(few))
    assert predicted.shape == (len(few), N_BINS)
    assert (predicted >= 0).all()
    torch.testing.assert_close(predicted.sum(dim=1), torch.ones(len(few)))
    assert predicted.std(dim=0).max() > 5e-3


def test_two_predictions_are_equal_and_do_not_depend_on_the_batch(model, few) -> None:
    first = model(inputs(few))
    torch.manual_seed(99)
    assert torch.equal(model(inputs(few)), first)
    alone = torch.cat([model(inputs([structure])) for structure in few])
    torch.testing.assert_close(alone, first, rtol=1e-10, atol=1e-12)


def test_no_target_is_accepted_and_none_is_kept(model, few) -> None:
    assert list(inspect.signature(model.forward).parameters) == ["batch"]
    batch = inputs(few)
    before = model(batch)
    model.training_outputs(batch, spectra(len(batch)).flip(0))
    assert torch.equal(model(batch), before)


def test_the_parts_that_only_training_uses_can_be_deleted(model, few) -> None:
    batch = inputs(few)
    before = model(batch)
    for name in TRAINING_ONLY:
        parent, _, last = name.rpartition(".")
        delattr(model.get_submodule(parent), last)
    assert torch.equal(model(batch), before)
    rows = card_rows(model)
    assert all(row.at_inference for row in rows)


def test_everything_else_is_used(model, few) -> None:
    """Every parameter that the card calls used by a prediction changes it."""
    predicted = model(inputs(few))
    predicted.square().sum().backward()
    for name, parameter in model.named_parameters():
        is_used = parameter.grad is not None and bool(parameter.grad.any())
        assert is_used != name.startswith(TRAINING_ONLY), name


@pytest.mark.parametrize("supercell", [(1, 1, 1), (2, 1, 1), [[1, 1, 0], [-1, 1, 0], [0, 1, 2]]])
def test_any_description_of_a_crystal_gives_the_same_spectrum(double, few, redescribe, supercell) -> None:
    model = trained(ModelConfig(**SMALL), few)
    again = [redescribe(structure, supercell, seed=5) for structure in few]
    expected, found = model(inputs(few)), model(inputs(again))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    torch.set_default_dtype(torch.float32)
    single = model.float()
    torch.testing.assert_close(single(inputs(few)), expected.float(), rtol=0, atol=1e-4)
    torch.testing.assert_close(single(inputs(again)), single(inputs(few)), rtol=0, atol=1e-4)


def test_the_same_seed_gives_the_same_weights(few) -> None:
    config = ModelConfig(**SMALL)
    models = [train(config, few, 3) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*(m.state_dict().values() for m in models), strict=True))


@pytest.mark.parametrize("name", list(PRESETS))
def test_terms_of_the_loss(name, double, few) -> None:
    config = PRESETS[name].model.model_copy(update=SMALL)
    torch.manual_seed(0)
    model = Mat2Spec(config, N_BINS, make_encoder(config)).eval()
    batch, y = inputs(few), spectra(len(few))
    outputs = model.training_outputs(batch, y)
    terms = model.loss(outputs, y)
    feature, label = outputs.mixture, outputs.label_mixture
    one_way, other_way = kl_bound(feature, label).mean(), kl_bound(label, feature).mean()
    contrast = infonce_loss if name == "published" else cosine_loss
    expected = {
        "feature": spectrum_loss(outputs.raw, y, "kl", "sumnorm"),
        "label": spectrum_loss(outputs.label_raw, y, "kl", "sumnorm"),
        "kl": (one_way + other_way) / 2 if name == "published" else one_way,
        "contrast": contrast(outputs.projection, outputs.label_projection),
    }
    weights = (0.5, 0.5, 1.1, 1.0) if name == "paper" else (1.0, 1.0, 1.1, 0.1)
    expected["total"] = sum(w * term for w, term in zip(weights, expected.values(), strict=True))
    assert {k: v.item() for k, v in terms.items()} == pytest.approx({k: v.item() for k, v in expected.items()})
    # In evaluation the feature branch is the prediction.
    torch.testing.assert_close(torch.softmax(outputs.raw, dim=1), model(batch))


@pytest.mark.parametrize(
    ("without", "missing_parts"),
    [
        ({"contrast_weight": 0}, {"projector"}),
        ({"kl_weight": 0}, set()),
        ({"label_weight": 0}, set()),
        ({"label_weight": 0, "kl_weight": 0, "contrast_weight": 0}, {"projector", "label_encoder"}),
    ],
)
def test_a_term_of_weight_zero_is_left_out_with_its_parts(without, missing_parts, few) -> None:
    config = ModelConfig(**SMALL, **without)
    model = Mat2Spec(config, N_BINS, make_encoder(config))
    batch, y = inputs(few), spectra(len(few))
    terms = model.loss(model.training_outputs(batch, y), y)
    assert {"label", "kl", "contrast"} - terms.keys() == {name.removesuffix("_weight") for name in without}
    assert {"label_encoder", "projector"} - {name for name, _ in model.named_children()} == missing_parts
    terms["total"].backward()
    assert model.predictor[0].weight.grad.any()
    assert math.isfinite(latent_diagnostics(model, batch, y).z_sensitivity)


def test_sampling_in_training_only(few) -> None:
    config = ModelConfig(**SMALL | {"dropout": 0.0, "translator_dropout": 0.0})
    model = Mat2Spec(config, N_BINS, make_encoder(config))
    batch, y = inputs(few), spectra(len(few))
    sampled = [model.training_outputs(batch, y).raw for _ in range(2)]
    assert not torch.equal(*sampled)
    model.eval()
    means = [model.training_outputs(batch, y).raw for _ in range(2)]
    assert torch.equal(*means)


@pytest.mark.parametrize(("option", "part"), [("dropout", "head.body"), ("translator_dropout", "translator")])
def test_dropout_where_it_is_asked_for_and_in_training_only(few, option, part) -> None:
    for share in (0.0, 0.5):
        config = ModelConfig(**SMALL | {"dropout": 0.0, "translator_dropout": 0.0, option: share})
        layers = Mat2Spec(config, N_BINS, make_encoder(config)).get_submodule(part)
        x = torch.randn(4, next(layers.parameters()).shape[1])
        assert torch.equal(layers(x), layers(x)) == (share == 0.0)
        layers.eval()
        assert torch.equal(layers(x), layers(x))


def test_training_lowers_every_term(few) -> None:
    config = ModelConfig(encoder="sorep", **SMALL)
    batch, y = inputs(few), spectra(len(few))
    before, after = (
        {name: term.item() for name, term in model.loss(model.training_outputs(batch, y), y).items()}
        for model in (trained(config, few, steps=steps) for steps in (1, 40))
    )
    assert after["feature"] < 0.5 * before["feature"]
    assert after["label"] < 0.5 * before["label"]
    assert after["kl"] < before["kl"]


def test_paper_form_does_not_see_the_graph_behind_z(few) -> None:
    config = PRESETS["paper"].model
    model = Mat2Spec(config, N_BINS, make_encoder(config)).eval()
    z = torch.randn(4, config.latent_dim)
    h = torch.randn(4, 128)
    assert torch.equal(model.translate(h, z), model.translate(2 * h, z))


def test_size_of_the_default_model() -> None:
    model = Mat2Spec(ModelConfig(), 51, make_encoder(ModelConfig()))
    rows = card_rows(model)
    total = sum(row.parameters for row in rows)
    assert total == sum(parameter.numel() for parameter in model.parameters())
    assert total == pytest.approx(2.6e6, rel=0.03)
    used = sum(row.parameters for row in rows if row.at_inference)
    assert used + sum(p.numel() for p in model.head.log_variance.parameters()) == pytest.approx(1.8e6, rel=0.01)


@pytest.mark.parametrize("name", list(PRESETS))
@pytest.mark.parametrize("encoder", ["graph", "sorep", "both"])
def test_card_counts_every_parameter_once(name, encoder) -> None:
    config = PRESETS[name].model.model_copy(update={"encoder": encoder})
    model = Mat2Spec(config, 51, make_encoder(config, 513))
    rows = card_rows(model)
    for part, module in model.named_children():
        of_part = [row for row in rows if row.name.split(".")[0] == part]
        assert sum(row.parameters for row in of_part) == sum(parameter.numel() for parameter in module.parameters())
        assert {row.name: row.at_inference for row in of_part} == {
            row.name: part not in TRAINING_ONLY and row.name != "head.log_variance" for row in of_part
        }
    text = card_text(model)
    assert all(row.name in text and row.layers in text and f"{row.parameters:,}" in text for row in rows)
    assert f"{sum(row.parameters for row in rows):,} parameters" in text


def test_card_of_any_other_network() -> None:
    text = card_text(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)))
    assert "26 parameters; 26 used by a prediction" in text


def test_diagnostics_of_a_model_that_uses_its_latent_space_and_of_one_that_does_not(double, few) -> None:
    batch, y = inputs(few), spectra(len(few))
    model = trained(PRESETS["paper"].model.model_copy(update={**SMALL, "kl_weight": 0.01}), few)
    good = latent_diagnostics(model, batch, y)
    assert not model.training
    assert good.z_sensitivity > 0.3  # Z is all that this translator sees
    assert good.kl is not None
    assert good.kl > 1e-3
    torch.nn.init.zeros_(model.head.weights.weight)
    torch.nn.init.zeros_(model.head.weights.bias)
    mixed = latent_diagnostics(model, batch, y)
    assert mixed.mixing_entropy == pytest.approx(math.log(SMALL["n_components"]))
    assert any("mixed equally" in warning for warning in mixed.warnings())

    model = trained(ModelConfig(**SMALL), few)
    torch.nn.init.zeros_(model.translator[0][0].weight[:, -SMALL["latent_dim"] :])  # the columns of Z
    for part in (model.head, model.label_encoder):
        for layer in (part.mean, part.log_variance):
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
    collapsed = latent_diagnostics(model, batch, y)
    assert collapsed.z_sensitivity < 1e-12
    assert collapsed.kl == pytest.approx(0, abs=1e-9)
    assert len([w for w in collapsed.warnings() if "latent vector" in w or "same mixtures" in w]) == 2


def test_diagnostics_in_words() -> None:
    fine = LatentDiagnostics(mixing_entropy=1.0, largest_entropy=math.log(10), z_sensitivity=0.5, kl=0.3)
    assert fine.warnings() == []
    one_component = LatentDiagnostics(mixing_entropy=0.0, largest_entropy=0.0, z_sensitivity=0.5, kl=None)
    assert one_component.warnings() == []
    flat = LatentDiagnostics(mixing_entropy=1.0, largest_entropy=math.log(10), z_sensitivity=math.nan, kl=None)
    assert len(flat.warnings()) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "kl", "scaling": "maxnorm"},
        {"loss": "wd", "scaling": "standard"},
        {"loss": "huber"},
        {"dropout": 1.0},
        {"translator_dropout": 1.0},
        {"kl_weight": -1},
        {"feature_weight": 0},
        {"n_layers": 0},
        {"cutoff": 5.0},
    ],
)
def test_options_that_make_no_sense(options) -> None:
    with pytest.raises(UsageError) as caught:
        ModelConfig.checked(**options)
    assert caught.value.code == "bad-option"


def test_training_options_and_presets() -> None:
    with pytest.raises(UsageError):
        TrainingConfig.checked(batch_size=1)  # a batch of one has no variance
    assert preset("default").model == ModelConfig()
    with pytest.raises(UsageError, match="default, published, paper"):
        preset("best")


def test_losses_and_scalings_that_go_together() -> None:
    for loss, scaling in (("mae", "maxnorm"), ("mse", "standard"), ("wd", "sumnorm")):
        config = ModelConfig(loss=loss, scaling=scaling, channels=8)
        model = Mat2Spec(config, N_BINS, make_encoder(config))
        assert ModelConfig.model_validate_json(config.model_dump_json()) == model.config


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_same_spectra_on_cuda(few) -> None:
    model = trained(ModelConfig(**SMALL), few)
    batch, y = inputs(few), spectra(len(few))
    predicted, terms = model(batch), model.loss(model.training_outputs(batch, y), y)
    model.cuda()
    torch.testing.assert_close(model(batch.to("cuda")).cpu(), predicted, rtol=0, atol=1e-5)
    on_cuda = model.loss(model.training_outputs(batch.to("cuda"), y.cuda()), y.cuda())
    assert {k: v.item() for k, v in on_cuda.items()} == pytest.approx({k: v.item() for k, v in terms.items()}, rel=1e-3)

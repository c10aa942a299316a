"""Prediction: from inputs alone, the same each time and for a crystal alone, and from features of one identity only."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace

import numpy as np
import pytest

from sorep.errors import IdentityError, Mat2SpecError

pytest.importorskip("torch")

import torch

from sorep.identity import Identity
from sorep.mat2spec import predict as module
from sorep.mat2spec.checkpoint import Checkpoint, write_tensors
from sorep.mat2spec.config import ModelConfig, TrainingConfig
from sorep.mat2spec.predict import predict, write_predictions
from sorep.mat2spec.split import make_split
from sorep.mat2spec.sums import SizeModel, read_sizes
from sorep.mat2spec.targets import load_targets
from sorep.mat2spec.training import train

TRAINING = TrainingConfig(epochs=2, batch_size=8)
SMALL = {"n_layers": 1, "n_heads": 1, "channels": 8, "n_components": 2, "latent_dim": 4}


@pytest.fixture(scope="module")
def folder(small, tmp_path_factory):
    """A trained model of graphs and SOREPs."""
    folder = tmp_path_factory.mktemp("run")
    train(
        small,
        make_split(small.ids, small.formulas),
        folder,
        model=ModelConfig(encoder="both", **SMALL),
        training=TRAINING,
    )
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return Checkpoint.load(folder)


def test_nothing_that_predicts_takes_a_target():
    for name, function in inspect.getmembers(module, inspect.isfunction):
        if function.__module__ == module.__name__:
            assert not set(inspect.signature(function).parameters) & {"y", "target", "targets", "spectra", "data"}, name


def test_progress_ends_with_the_number_of_crystals(small, model, monkeypatch):
    monkeypatch.setattr("sorep.mat2spec.predict._BATCH", 16)
    done = []
    found = predict(model, small.inputs, on_predicted=done.append)
    assert done == [16, len(small)] and len(found.ids) == len(small)


def test_two_calls_give_the_same_and_a_crystal_alone_the_same_as_among_others(small, model):
    first, second = predict(model, small.inputs), predict(model, small.inputs)
    np.testing.assert_array_equal(first.spectra, second.spectra)
    alone = [predict(model, small.inputs.take(np.array([row]))).spectra[0] for row in range(len(small))]
    np.testing.assert_allclose(alone, first.spectra, rtol=1e-5, atol=1e-6)


def test_a_model_in_training_mode_predicts_as_in_evaluation_mode(small, model):
    first = predict(model, small.inputs)
    model.model.train()
    np.testing.assert_array_equal(predict(model, small.inputs).spectra, first.spectra)


def test_a_model_read_again_gives_the_same_to_the_last_bit(small, folder, model):
    np.testing.assert_array_equal(
        predict(Checkpoint.load(folder), small.inputs).spectra, predict(model, small.inputs).spectra
    )


def test_scaled_spectra_sum_to_one_and_sizes_come_from_the_composition(small, model):
    found = predict(model, small.inputs)
    np.testing.assert_allclose(found.scaled.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(
        found.spectra.sum(axis=1), model.size_model.predict(small.inputs.compositions), rtol=1e-6
    )
    by_formula = dict(zip(small.formulas, found.spectra.sum(axis=1), strict=True))
    assert len({round(size, 6) for size in by_formula.values()}) == len(by_formula)
    given = predict(model, small.inputs, sizes=np.full(len(small), 3.0))
    np.testing.assert_allclose(given.spectra.sum(axis=1), 3, rtol=1e-6)
    assert given.identity != found.identity


def test_features_of_another_identity_are_refused(small, model):
    part = replace(small.inputs.parts[0], identity=Identity.of({"descriptor": "made-up", "width": 2}))
    with pytest.raises(IdentityError, match="width: None against 2"):
        predict(model, replace(small.inputs, parts=(part,)))
    with pytest.raises(IdentityError) as error:
        predict(model, replace(small.inputs, parts=(), sorep=None))
    assert error.value.code == "other-features"


def test_inputs_without_graphs_are_refused(small, model):
    with pytest.raises(Mat2SpecError) as error:
        predict(model, replace(small.inputs, graphs=None))
    assert error.value.code == "missing-input"


def test_predictions_do_not_need_the_parts_of_training(small, folder, model):
    tensors = {name: t for name, t in model.model.state_dict().items() if name.split(".")[0] != "label_encoder"}
    stripped = Checkpoint.load(folder)
    stripped.model.load_state_dict({**tensors, **_zeros(stripped.model, "label_encoder")})
    np.testing.assert_array_equal(predict(stripped, small.inputs).spectra, predict(model, small.inputs).spectra)


def _zeros(model, name):
    return {key: torch.zeros_like(tensor) for key, tensor in model.state_dict().items() if key.startswith(name)}


def test_weights_of_another_run_are_refused(small, folder, model, tmp_path):
    for name in ("model.json", "split.csv"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    write_tensors(tmp_path / "model.safetensors", model.model.state_dict(), {"run": "another"})
    with pytest.raises(Mat2SpecError, match="belong to the run another"):
        Checkpoint.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(Mat2SpecError) as error:
        Checkpoint.load(tmp_path)
    assert error.value.code == "bad-model"


def test_unknown_words_in_a_model_file_are_refused(folder, tmp_path):
    about = json.loads((folder / "model.json").read_text()) | {"surprise": 1}
    (tmp_path / "model.json").write_text(json.dumps(about))
    with pytest.raises(Mat2SpecError) as error:
        Checkpoint.load(tmp_path)
    assert error.value.code == "bad-model"
    with pytest.raises(Mat2SpecError) as missing:
        Checkpoint.load(tmp_path / "nowhere")
    assert missing.value.code == "no-model"


def test_written_predictions_can_be_read_as_targets(small, model, tmp_path):
    found = predict(model, small.inputs)
    table, grid = write_predictions(found, tmp_path / "out.parquet", "dos")
    targets = load_targets(table, "id", "dos", grid)
    np.testing.assert_array_equal(targets.spectra, found.spectra)
    assert targets.unit == "cm^-1"


def test_sizes_follow_the_composition_of_the_training_part():
    rng = np.random.default_rng(0)
    compositions = rng.dirichlet(np.ones(5), size=200)
    sizes = np.exp(compositions @ [1.0, 2.0, 0.5, -1.0, 3.0] + 0.3)
    model = SizeModel.from_state(json.loads(json.dumps(SizeModel.fit(compositions[:150], sizes[:150]).state())))
    np.testing.assert_allclose(model.predict(compositions[150:]), sizes[150:], rtol=1e-3)
    with pytest.raises(Mat2SpecError) as error:
        SizeModel.fit(compositions, np.where(sizes > sizes[0], sizes, 0.0))
    assert error.value.code == "empty-spectrum"


def test_sizes_of_a_file_are_taken_by_id(tmp_path):
    (tmp_path / "s.csv").write_text("id,size\nb,2\na,1\nc,0\n")
    np.testing.assert_array_equal(read_sizes(tmp_path / "s.csv", "size", np.array(["a", "b"])), [1, 2])
    for ids in (["a", "x"], ["a", "c"]):
        with pytest.raises(Mat2SpecError) as error:
            read_sizes(tmp_path / "s.csv", "size", np.array(ids))
        assert error.value.code == "missing-size"

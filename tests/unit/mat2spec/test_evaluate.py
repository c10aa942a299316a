"""Evaluation: sizes that are honest, the true ones apart, formulas that are not unseen; and the report of it."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

pytest.importorskip("torch")

from sorep.mat2spec.config import ModelConfig, TrainingConfig
from sorep.mat2spec.evaluate import HONEST, MODEL, ORACLE, SCALED, evaluate
from sorep.mat2spec.report import write_report
from sorep.mat2spec.split import make_split
from sorep.mat2spec.training import read_log, train

SMALL = {"n_layers": 1, "n_heads": 1, "channels": 8, "n_components": 2, "latent_dim": 4}
TRAINING = TrainingConfig(epochs=2, batch_size=8)


@pytest.fixture(scope="module")
def split(small):
    return make_split(small.ids, small.formulas, test=0.4)


@pytest.fixture(scope="module")
def folder(small, split, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train(small, split, folder, model=ModelConfig(encoder="sorep", **SMALL), training=TRAINING)
    return folder


@pytest.fixture(scope="module")
def model(folder):
    from sorep.mat2spec.checkpoint import Checkpoint

    return Checkpoint.load(folder)


@pytest.fixture(scope="module")
def tested(small, split):
    return small.take(split.rows("test", small.ids))


@pytest.fixture(scope="module")
def evaluation(small, split, model, tested):
    return evaluate(model, tested, train=small.take(split.rows("train", small.ids)))


def score(evaluation, predictor, size):
    return next(s.metrics for s in evaluation.scores if (s.predictor, s.size) == (predictor, size))


def test_metrics_are_those_of_their_definitions(evaluation, tested):
    p, y = evaluation.prediction, tested.spectra
    honest, oracle, scaled = (score(evaluation, MODEL, size) for size in (HONEST, ORACLE, SCALED))
    rescaled = p.scaled * y.sum(axis=1, keepdims=True)
    assert honest["MAE"] == (pytest.approx(np.abs(p.spectra - y).mean()), "unit of spectrum")
    assert oracle["MAE"][0] == pytest.approx(np.abs(rescaled - y).mean())
    assert oracle["R2"][0] == pytest.approx(1 - ((rescaled - y) ** 2).sum() / ((y - y.mean()) ** 2).sum())
    assert scaled["MSE"] == (pytest.approx(((p.scaled - y / y.sum(axis=1, keepdims=True)) ** 2).mean()), "1")
    distances = [wasserstein_distance(tested.energies, tested.energies, a, b) for a, b in zip(p.scaled, y, strict=True)]
    assert honest["WD"] == (pytest.approx(np.mean(distances), rel=1e-6), "cm^-1")
    assert honest["WD"][0] == pytest.approx(oracle["WD"][0]) == pytest.approx(scaled["WD"][0])
    np.testing.assert_allclose(evaluation.wd, distances, rtol=1e-5)


def test_honest_spectra_do_not_know_the_true_size(model, tested, evaluation):
    larger = replace(tested, spectra=tested.spectra * 10)
    again = evaluate(model, larger)
    np.testing.assert_array_equal(again.prediction.spectra, evaluation.prediction.spectra)
    assert score(again, MODEL, ORACLE)["MAE"][0] == pytest.approx(10 * score(evaluation, MODEL, ORACLE)["MAE"][0])
    assert score(again, MODEL, ORACLE)["R2"][0] == pytest.approx(score(evaluation, MODEL, ORACLE)["R2"][0])
    assert score(again, MODEL, HONEST)["R2"][0] != pytest.approx(score(evaluation, MODEL, HONEST)["R2"][0])


def test_baselines_see_the_training_part_only(small, split, evaluation, tested):
    mean = small.spectra[split.rows("train", small.ids)].mean(axis=0)
    assert score(evaluation, "mean spectrum", HONEST)["MAE"][0] == pytest.approx(np.abs(tested.spectra - mean).mean())
    assert {s.predictor for s in evaluation.scores} == {MODEL, "mean spectrum", "nearest composition"}


def test_formulas_that_were_trained_on_are_told(small, split, model, evaluation):
    assert not evaluation.is_shared.any()
    assert evaluate(model, small.take(split.rows("train", small.ids))).is_shared.all()


def test_quintiles_go_from_best_to_worst(evaluation):
    rows = np.concatenate(evaluation.quintiles(1))
    assert len(rows) == 5
    assert (np.diff(evaluation.wd[rows]) >= 0).all()


def test_a_scaling_without_sizes_has_no_oracle(small, split, tmp_path, tested):
    config = ModelConfig(encoder="sorep", loss="mse", scaling="standard", **SMALL)
    made = train(small, split, tmp_path, model=config, training=TRAINING)
    found = evaluate(made, tested)
    assert {s.size for s in found.scores} == {SCALED, HONEST}
    assert "WD" not in score(found, MODEL, SCALED)
    assert np.isfinite(score(found, MODEL, HONEST)["WD"][0])


def test_a_prediction_of_nothing_has_no_distance(small, split, tmp_path, tested):
    import torch

    config = ModelConfig(encoder="sorep", loss="mse", scaling="maxnorm", **SMALL)
    made = train(small, split, tmp_path, model=config, training=TRAINING)
    with torch.no_grad():
        made.model.predictor[-1].weight.zero_()
        made.model.predictor[-1].bias.fill_(-1.0)
    found = evaluate(made, tested)
    assert np.isnan(score(found, MODEL, HONEST)["WD"][0])
    assert np.isfinite(score(found, MODEL, HONEST)["MAE"][0])


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.pictures, self.text = 0, ""

    def handle_starttag(self, tag, attrs):
        self.pictures += tag == "img" and dict(attrs)["src"].startswith("data:image/png;base64,iVBOR")

    def handle_data(self, data):
        self.text += data


def test_the_report_shows_losses_metrics_examples_and_the_latent_space(folder, model, evaluation, tmp_path):
    files = write_report(model, read_log(folder), evaluation, tmp_path / "r.html")
    assert [file.name for file in files] == ["r.html", "r-losses.png", "r-examples.png"]
    page = _Page()
    page.feed(files[0].read_text())
    assert page.pictures == 2
    for words in ("Oracle sizes", "Honest sizes", "Latent space", "nearest composition", "WD (cm^-1)", "made-up"):
        assert words in page.text
    assert f"{score(evaluation, MODEL, HONEST)['MAE'][0]:.4g}" in page.text
    for warning in model.about.result.warnings:
        assert warning in page.text


def test_the_report_warns_of_formulas_that_are_not_unseen(small, split, folder, model, tmp_path):
    seen = evaluate(model, small.take(split.rows("train", small.ids)))
    text = write_report(model, read_log(folder), seen, tmp_path / "r.html", part="train")[0].read_text()
    assert "not unseen" in text

"""Training: it learns, repeats itself, goes on after a kill as if nothing had been, and leaves the test part alone."""

from __future__ import annotations

import json
import pickle
import pickletools
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from sorep.errors import Mat2SpecError, UsageError

pytest.importorskip("torch")

import torch

from sorep.mat2spec.checkpoint import Checkpoint
from sorep.mat2spec.config import ModelConfig, TrainingConfig
from sorep.mat2spec.encoders import SpectrumEncoder
from sorep.mat2spec.fit import batches
from sorep.mat2spec.scaling import Scaling
from sorep.mat2spec.split import make_split
from sorep.mat2spec.training import read_log, train

MODEL = ModelConfig(n_layers=1, n_heads=1, channels=8, n_components=2, latent_dim=4)
TRAINING = TrainingConfig(epochs=4, batch_size=8, seed=3)


@pytest.fixture(scope="module")
def split(small):
    return make_split(small.ids, small.formulas, val=0.2, test=0.2)


def weights(checkpoint):
    return {name: tensor.clone() for name, tensor in checkpoint.model.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


@pytest.mark.parametrize("encoder", ["graph", "sorep", "both"])
def test_unseen_crystals_are_predicted_better_than_by_the_mean_spectrum(small, split, tmp_path, encoder):
    model = MODEL.model_copy(update={"encoder": encoder, "dropout": 0.0, "translator_dropout": 0.0})
    train(small, split, tmp_path, model=model, training=TrainingConfig(epochs=16, batch_size=8, learning_rate=4e-3))
    log = read_log(tmp_path)
    assert [line.epoch for line in log] == list(range(1, 17))
    assert {"feature", "label", "kl", "contrast", "total"} == set(log[0].train)
    y, mean = small.spectra[split.rows("val", small.ids)], small.spectra[split.rows("train", small.ids)].mean(axis=0)
    y, mean = y / y.sum(axis=1, keepdims=True), mean / mean.sum()
    kl_of_mean = (y * np.log(np.maximum(y, 1e-300) / mean)).sum(axis=1).mean()
    assert min(line.val for line in log) < 0.5 * kl_of_mean


def test_the_same_seed_gives_the_same_weights_whatever_the_random_state(small, split, tmp_path):
    first = train(small, split, tmp_path / "a", model=MODEL, training=TRAINING)
    torch.rand(5)
    before = torch.get_rng_state()
    second = train(small, split, tmp_path / "b", model=MODEL, training=TRAINING)
    assert torch.equal(before, torch.get_rng_state())  # and the caller's numbers are left alone
    assert_same(weights(first), weights(second))
    other = train(small, split, tmp_path / "c", model=MODEL, training=TRAINING.model_copy(update={"seed": 4}))
    assert not torch.equal(weights(first)["predictor.0.weight"], weights(other)["predictor.0.weight"])


SCRIPT = """
import os, pickle, signal, sys, torch
from pathlib import Path
torch.set_num_threads(1)
from sorep.mat2spec.training import train
folder = Path(sys.argv[1])
arguments = pickle.loads((folder / "arguments").read_bytes())
def on_epoch(epoch):
    if epoch.epoch == 2:
        os.kill(os.getpid(), signal.SIGKILL)
train(*arguments[:2], folder / "run", **arguments[2], on_epoch=on_epoch, save_seconds=0.0)
"""


def test_a_killed_run_ends_with_the_weights_of_one_that_was_left_alone(small, split, tmp_path):
    options = {"model": MODEL, "training": TRAINING}
    (tmp_path / "arguments").write_bytes(pickle.dumps((small, split, options)))
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert len(read_log(tmp_path / "run")) == 2  # killed before the state of the second epoch was saved
    assert Checkpoint.load(tmp_path / "run").about.result is None

    def interrupt(epoch):
        if epoch.epoch == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(small, split, tmp_path / "run", **options, on_epoch=interrupt, save_seconds=0.0)
    resumed = train(small, split, tmp_path / "run", **options)
    undisturbed = train(small, split, tmp_path / "other", **options)
    assert_same(weights(resumed), weights(undisturbed))
    assert resumed.about.result == undisturbed.about.result
    logs = [read_log(tmp_path / name) for name in ("run", "other")]
    assert [[replace(line, cpu_seconds=0.0) for line in log] for log in logs] == [
        [replace(line, cpu_seconds=0.0) for line in logs[1]]
    ] * 2
    assert not (tmp_path / "run" / "state.safetensors").exists()


def test_a_finished_run_is_not_trained_again(small, split, tmp_path):
    first = train(small, split, tmp_path, model=MODEL, training=TRAINING)
    seen = []
    again = train(small, split, tmp_path, model=MODEL, training=TRAINING, on_epoch=seen.append)
    assert seen == []
    assert_same(weights(first), weights(again))


def test_another_run_in_the_same_folder_is_refused_and_the_difference_told(small, split, tmp_path):
    train(small, split, tmp_path, model=MODEL, training=TRAINING)
    with pytest.raises(Mat2SpecError, match=r"training\.seed: 5 against 3"):
        train(small, split, tmp_path, model=MODEL, training=TRAINING.model_copy(update={"seed": 5}))
    changed = replace(small, spectra=small.spectra * 1.5)
    with pytest.raises(Mat2SpecError, match=r"data\.train") as error:
        train(changed, split, tmp_path, model=MODEL, training=TRAINING)
    assert error.value.code == "other-run"


def test_scalings_are_fitted_on_the_training_part_alone(small, split, tmp_path):
    """Whatever the other parts hold, model and scalings stay the same."""
    model = MODEL.model_copy(update={"encoder": "sorep", "scaling": "standard", "loss": "mse"})
    training = TRAINING.model_copy(update={"epochs": 1})
    first = train(small, split, tmp_path / "a", model=model, training=training)
    other = np.ones(len(small), dtype=bool)
    other[split.rows("train", small.ids)] = False
    spectra, sorep = small.spectra.copy(), small.inputs.sorep.copy()
    spectra[other] *= 7
    sorep[other] += 100
    changed = replace(small, spectra=spectra, inputs=replace(small.inputs, sorep=sorep))
    second = train(changed, split, tmp_path / "b", model=model, training=training)
    assert first.about.scaling == second.about.scaling
    assert_same(weights(first), weights(second))
    rows = split.rows("train", small.ids)
    expected = Scaling.fit(small.spectra[rows], "standard")
    np.testing.assert_array_equal(first.scaling.mean, expected.mean)
    encoder = next(part for part in first.model.modules() if isinstance(part, SpectrumEncoder))
    np.testing.assert_allclose(encoder.mean.numpy(), small.inputs.sorep[rows].mean(axis=0), rtol=1e-6)


def test_the_test_part_need_not_be_there(small, split, tmp_path):
    whole = train(small, split, tmp_path / "a", model=MODEL, training=TRAINING)
    rows = np.concatenate([split.rows("train", small.ids), split.rows("val", small.ids)])
    without = train(small.take(np.sort(rows)), split, tmp_path / "b", model=MODEL, training=TRAINING)
    assert_same(weights(whole), weights(without))


def test_the_order_of_rows_does_not_matter_where_parts_are_by_id(small, split, tmp_path):
    other = make_split(small.ids[::-1], small.formulas[::-1], val=0.2, test=0.2)
    assert other == split


def test_a_part_that_is_not_in_the_data_is_an_error(small, split, tmp_path):
    gone = replace(split, train=(*split.train, "missing"))
    with pytest.raises(Mat2SpecError, match="'missing'"):
        train(small, gone, tmp_path, model=MODEL, training=TRAINING)


@pytest.mark.parametrize(("n", "size"), [(9, 8), (17, 8), (3, 2), (2, 2), (16, 8), (5, 100), (25, 3)])
def test_no_batch_of_one(n, size):
    parts = batches(torch.randperm(n), size)
    assert min(map(len, parts)) > 1
    assert max(map(len, parts)) <= size + 1
    assert sorted(torch.cat(parts).tolist()) == list(range(n))


def test_training_ends_early_and_keeps_the_best_epoch(small, split, tmp_path):
    training = TrainingConfig(epochs=60, batch_size=8, learning_rate=0.02, patience=2)
    made = train(small, split, tmp_path, model=MODEL, training=training)
    log, result = read_log(tmp_path), made.about.result
    assert result.epochs == len(log) == result.best_epoch + 2 < 60
    assert result.loss == min(line.val for line in log) == log[result.best_epoch - 1].val


def test_the_learning_rate_is_halved_each_quarter(small, split, tmp_path):
    train(small, split, tmp_path, model=MODEL, training=TrainingConfig(epochs=8, batch_size=8, learning_rate=0.008))
    rates = [line.learning_rate for line in read_log(tmp_path)]
    assert rates == pytest.approx([8e-3, 8e-3, 4e-3, 4e-3, 2e-3, 2e-3, 1e-3, 1e-3])


def test_a_loss_that_is_not_finite_ends_training(small, split, tmp_path):
    model = ModelConfig(scaling="standard", loss="mse", channels=8, n_layers=1, n_heads=1)
    huge = replace(small, spectra=small.spectra.copy())
    huge.spectra[split.rows("val", small.ids)] = 1e300
    with pytest.raises(Mat2SpecError) as error:
        train(huge, split, tmp_path, model=model, training=TRAINING)
    assert error.value.code == "diverged"


def test_no_file_of_a_run_holds_a_pickle(small, split, tmp_path):
    train(small, split, tmp_path, model=MODEL, training=TRAINING, save_seconds=0.0)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["log.jsonl", "model.json", "model.safetensors", "split.csv"]
    for name in names:
        with pytest.raises(ValueError), (tmp_path / name).open("rb") as file:
            list(pickletools.genops(file))
    json.loads((tmp_path / "model.json").read_text())


def test_a_log_cut_off_by_a_kill_is_read_up_to_there(small, split, tmp_path):
    train(small, split, tmp_path, model=MODEL, training=TRAINING)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"epoch": 5, "lear')
    assert [line.epoch for line in read_log(tmp_path)] == [1, 2, 3, 4]


def test_training_goes_on_from_given_weights(small, split, tmp_path):
    first = train(small, split, tmp_path / "a", model=MODEL, training=TRAINING)
    short = TrainingConfig(epochs=1, batch_size=8, learning_rate=1e-12, weight_decay=0.0)
    again = train(small, split, tmp_path / "b", model=MODEL, training=short, initial=first)
    for one, other in zip(first.model.parameters(), again.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)
    assert again.about.scaling == first.about.scaling


@pytest.mark.parametrize("network", ["composition", "gatgnn"])
def test_networks_to_compare_with_are_trained_by_the_same_loop(small, split, tmp_path, network):
    made = train(small, split, tmp_path, model=MODEL, training=TRAINING, network=network)
    loaded = Checkpoint.load(tmp_path)
    assert_same(weights(made), weights(loaded))
    assert made.about.result.diagnostics == {}


def test_a_network_without_that_encoder_is_refused(small, split, tmp_path):
    model = MODEL.model_copy(update={"encoder": "sorep"})
    with pytest.raises(UsageError) as error:
        train(small, split, tmp_path, model=model, training=TRAINING, network="composition")
    assert error.value.code == "bad-encoder"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_gives_the_same_to_float_tolerance(small, split, tmp_path):
    no_chance = {"dropout": 0.0, "translator_dropout": 0.0}
    model = MODEL.model_copy(update={**no_chance, "kl_weight": 0.0, "label_weight": 0.0, "contrast_weight": 0.0})
    training = TRAINING.model_copy(update={"epochs": 1})
    losses = []
    for device in ("cpu", "cuda"):
        train(small, split, tmp_path / device, model=model, training=training, device=device)
        losses.append(read_log(tmp_path / device)[0].val)
    assert losses[0] == pytest.approx(losses[1], rel=0.05)

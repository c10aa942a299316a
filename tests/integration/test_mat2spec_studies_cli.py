"""Studies of `sorep mat2spec` as users type them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

pytest.importorskip("torch")

import torch

from sorep.cli import app

EXAMPLES = Path(__file__).parents[2] / "examples" / "structures"
CRYSTALS = ["si", "ge", "diamond", "al", "cu", "mgo", "nacl", "gaas", "cdte", "caf2", "aln", "zno"]
BINS = np.linspace(-3.5, 3.5, 8)
QUICK = ["--epochs", "1", "--device", "cpu", "--quiet"]


def invoke(*words: str | Path, status: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == status, (result.output, result.exception)
    return result


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("studies")
    (folder / "cifs").mkdir()
    for name in CRYSTALS:
        shutil.copy(EXAMPLES / f"{name}.cif", folder / "cifs")
    rng = np.random.default_rng(0)
    spectra = [3 * np.exp(-((BINS - rng.uniform(-2, 2)) ** 2)) + 2 for _ in CRYSTALS]
    spectra[0] = np.array([3.0, 0.2, 0.1, 4.0, 0.0, 1.0, 2.0, 2.0])  # silicon here has a gap from -3 to -1 eV
    pd.DataFrame({"id": CRYSTALS, "spectrum": spectra}).to_parquet(folder / "spectra.parquet")
    (folder / "grid.json").write_text(json.dumps({"unit": "eV", "grid": BINS.tolist()}))
    return folder


def data(place: Path) -> list[str | Path]:
    target = ["--target", place / "spectra.parquet", "--grid", place / "grid.json"]
    return [*target, "--structures", place / "cifs"]


def test_compare_prints_every_arm_and_keeps_tables(place):
    arms = ["--arm", "mean spectrum", "--arm", "composition"]
    result = invoke("mat2spec", "compare", *data(place), *arms, "--seeds", "1", "--out", place / "compare", *QUICK)
    assert "mean spectrum against composition" in result.output and "no statement" in result.output
    assert pd.read_csv(place / "compare" / "summary.csv")["arm"].tolist() == ["mean spectrum", "composition"]
    assert (place / "compare" / "arms.png").stat().st_size > 5000


def test_an_ablation_needs_seeds_and_makes_statements(place):
    refused = invoke("mat2spec", "ablate", *data(place), "--seeds", "2", *QUICK, status=2)
    assert "3 or more" in refused.output
    result = invoke("mat2spec", "ablate", *data(place), "--out", place / "ablation", *QUICK)
    for arm in ("no KL", "no contrast", "no label branch"):
        assert f"{arm} against full: wd" in result.output
    assert "the noise of seeds" in result.output


def test_a_learning_curve_has_a_row_for_each_size(place):
    words = ["--arm", "composition", "--size", "1", "--size", "0.5", "--seeds", "1", "--out", place / "curve"]
    invoke("mat2spec", "learning-curve", *data(place), *words, *QUICK)
    assert pd.read_csv(place / "curve" / "summary.csv")["n_train"].tolist() == [10, 5]
    assert (place / "curve" / "curves.png").is_file()
    refused = invoke("mat2spec", "learning-curve", *data(place), "--size", "7", *QUICK, status=2)
    assert "--size 7" in refused.output


def test_a_model_is_tuned_and_its_errors_are_explained(place):
    run = ["--network", "composition", "--test-share", "0.3", "--val-share", "0.2", "--out", place / "run"]
    invoke("mat2spec", "train", *data(place), *run, *QUICK)
    words = ["--model", place / "run", *data(place)]
    subclass = ["--subclass", "without Al", "--seeds", "1", "--out", place / "tuned"]
    result = invoke("mat2spec", "finetune", *words, *subclass, *QUICK)
    assert "10 of 12 crystals" in result.output and "tuned against global" in result.output
    predicted = ["--structures", place / "cifs", "--out", place / "predicted.parquet"]
    invoke("mat2spec", "predict", "--model", place / "tuned" / "tuned-0", *predicted)
    assert len(pd.read_parquet(place / "predicted.parquet")) == 12
    result = invoke("mat2spec", "trust", *words, "--out", place / "trust")
    assert "distance to the nearest training composition" in result.output
    table = pd.read_csv(place / "trust" / "crystals.csv").set_index("id")
    assert len(table) >= 3 and (table["wd"] > 0).all()
    assert (place / "trust" / "trust.png").is_file()


def test_gaps_ranks_materials(place):
    words = ["--grid", place / "grid.json", "--out", place / "gaps.csv"]
    result = invoke("mat2spec", "gaps", place / "spectra.parquet", *words)
    assert "1 of 12 have such a gap" in result.output and "-3.00 to -1.00" in result.output
    ranked = pd.read_csv(place / "gaps.csv")
    assert ranked["id"][0] == "si" and ranked["has_gap"].tolist() == [True] + 11 * [False]
    assert ranked["ceiling"][1:].is_monotonic_increasing
    stricter = invoke("mat2spec", "gaps", place / "spectra.parquet", "--grid", place / "grid.json", "--width", "2.5")
    assert "0 of 12" in stricter.output


def test_gaps_of_phonons_are_refused(place):
    (place / "phonons.json").write_text(json.dumps({"unit": "cm^-1", "grid": BINS.tolist()}))
    result = invoke("mat2spec", "gaps", place / "spectra.parquet", "--grid", place / "phonons.json", status=1)
    assert "eV" in result.output

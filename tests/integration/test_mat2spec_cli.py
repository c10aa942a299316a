"""`sorep mat2spec` as users type it: example crystals, their kinetic SOREPs, and made-up spectra."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.io import write
from typer.testing import CliRunner, Result

pytest.importorskip("torch")

import torch

from sorep.cli import app
from sorep.mat2spec.checkpoint import Checkpoint
from sorep.mat2spec.predict import predict
from sorep.store import FeatureStore

EXAMPLES = Path(__file__).parents[2] / "examples" / "structures"
CRYSTALS = ["si", "ge", "diamond", "al", "cu", "mgo", "nacl", "gaas", "cdte", "caf2", "aln", "zno"]
BINS = np.linspace(0.0, 9.0, 10)
QUICK = ["--epochs", "2", "--batch", "4", "--val-share", "0.2", "--test-share", "0.2", "--device", "cpu", "--quiet"]


def invoke(*words: str | Path, status: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == status, (result.output, result.exception)
    return result


@pytest.fixture(scope="module")
def place(sorep, tmp_path_factory) -> Path:
    """Structures, a store of them, and spectra with their grid."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("mat2spec")
    (folder / "cifs").mkdir()
    for name in CRYSTALS:
        shutil.copy(EXAMPLES / f"{name}.cif", folder / "cifs")
    result = sorep("featurize", folder / "cifs", "--store", folder / "store", "--k-spacing", "1.0", "--jobs", "1", "-q")
    assert result.returncode == 0, result.stderr
    rng = np.random.default_rng(0)
    spectra = [(n + 1) * np.exp(-((BINS - rng.uniform(2, 7)) ** 2)) for n in range(len(CRYSTALS))]
    pd.DataFrame({"id": CRYSTALS, "spectrum": spectra}).to_parquet(folder / "spectra.parquet")
    (folder / "grid.json").write_text(json.dumps({"unit": "cm^-1", "grid": BINS.tolist()}))
    return folder


def targets(place: Path) -> list[str | Path]:
    return ["--target", place / "spectra.parquet", "--grid", place / "grid.json"]


@pytest.fixture(scope="module")
def both(place) -> Path:
    """A model of graphs and kinetic SOREPs."""
    words = ["--store", place / "store", "--encoder", "both", "--feature", "kinetic", "--out", place / "both"]
    result = invoke("mat2spec", "train", *targets(place), *words, *QUICK)
    assert "honest" in result.output and "oracle" in result.output and "nearest composition" in result.output
    assert {"report.html", "report-losses.png", "report-examples.png", "log.jsonl"} <= {
        path.name for path in (place / "both").iterdir()
    }
    return place / "both"


@pytest.fixture(scope="module")
def graph(place) -> Path:
    """A model of graphs, from files."""
    words = ["--structures", place / "cifs", "--out", place / "graph", "--scaling", "maxnorm", "--loss", "mse"]
    invoke("mat2spec", "train", *targets(place), *words, *QUICK)
    return place / "graph"


def test_the_same_command_again_trains_nothing_and_prints_the_same(place, both):
    before = (both / "model.safetensors").read_bytes()
    words = ["--store", place / "store", "--encoder", "both", "--feature", "kinetic", "--out", both]
    result = invoke("mat2spec", "train", *targets(place), *words, *QUICK)
    assert (both / "model.safetensors").read_bytes() == before
    assert "honest" in result.output
    refused = invoke("mat2spec", "train", *targets(place), *words, *QUICK, "--seed", "1", status=1)
    assert "training.seed" in refused.output


def test_predictions_go_into_the_store_under_the_identity_of_the_model(place, both, tmp_path):
    store = shutil.copytree(place / "store", tmp_path / "store")
    result = invoke("mat2spec", "predict", "--model", both, "--store", store, "--out", tmp_path / "p.parquet")
    assert f"{len(CRYSTALS)} new vectors" in result.output
    matrix = FeatureStore(store).matrix("mat2spec")
    table = pd.read_parquet(tmp_path / "p.parquet").set_index("id")["spectrum"]
    for id, values in zip(matrix.ids.tolist(), matrix.values, strict=True):
        np.testing.assert_array_equal(values, table[id])
    kinetic = FeatureStore(store).matrix("kinetic").identity
    assert matrix.identity.words["predicted"]["inputs"] == {"kinetic": kinetic.hash}
    assert matrix.feature_names[:2] == ["+0 cm^-1", "+1 cm^-1"]
    assert matrix.identity.hash in invoke("list", "--store", store).output
    assert "kong2022" in invoke("cite", store).output
    invoke("export", "mat2spec", tmp_path / "e.npz", "--store", store)
    assert "0 new vectors" in invoke("mat2spec", "predict", "--model", both, "--store", store).output


def test_features_of_another_identity_are_refused(sorep, place, both, tmp_path):
    words = ["--store", tmp_path / "other", "--k-spacing", "0.9", "--jobs", "1", "-q"]
    assert sorep("featurize", place / "cifs" / "al.cif", *words).returncode == 0
    result = invoke("mat2spec", "predict", "--model", both, "--store", tmp_path / "other", status=1)
    assert "mixed-identity" in result.output and "0.9" in result.output


def test_no_target_is_taken_where_spectra_are_predicted(place, both):
    result = invoke("mat2spec", "predict", "--model", both, "--store", place / "store", *targets(place)[:2], status=2)
    assert "--target" in result.output


def test_evaluation_tells_units_and_both_kinds_of_sizes(place, both, tmp_path):
    words = ["--model", both, "--store", place / "store", *targets(place)]
    result = invoke("mat2spec", "evaluate", *words, "--report", tmp_path / "r.html")
    for text in ("scaled", "honest", "oracle", "WD (cm^-1)", "MAE (unit of spectrum)", "mean spectrum"):
        assert text in result.output
    assert (tmp_path / "r.html").exists()
    shared = invoke("mat2spec", "evaluate", *words, "--split", "train")
    assert "not unseen" in shared.output
    sizes = pd.DataFrame({"id": CRYSTALS, "size": [1.0] * len(CRYSTALS)})
    sizes.to_csv(tmp_path / "sizes.csv", index=False)
    assert invoke("mat2spec", "evaluate", *words, "--sizes", tmp_path / "sizes.csv").output != result.output


def test_spectra_of_files_are_predicted_and_bad_files_told(place, graph, tmp_path):
    (tmp_path / "new").mkdir()
    shutil.copy(EXAMPLES / "srtio3.cif", tmp_path / "new")
    (tmp_path / "new" / "bad.cif").write_text("nothing")
    write(tmp_path / "new" / "lonely.vasp", Atoms("He", cell=[30, 30, 30], pbc=True))
    words = ["--model", graph, "--structures", tmp_path / "new", "--out", tmp_path / "p.parquet"]
    result = invoke("mat2spec", "predict", *words, status=3)
    assert "bad  [" in result.output and "[isolated-atom]: lonely" in result.output
    table = pd.read_parquet(tmp_path / "p.parquet")
    assert table["id"].tolist() == ["srtio3"]
    assert json.loads((tmp_path / "p.grid.json").read_text())["unit"] == "cm^-1"


def test_what_is_missing_is_an_error_or_left_out(place, tmp_path):
    frame = pd.read_parquet(place / "spectra.parquet")
    frame.loc[0, "id"] = "unknown"
    frame.to_parquet(tmp_path / "s.parquet")
    words = ["--target", tmp_path / "s.parquet", "--grid", place / "grid.json", "--out", tmp_path / "run", *QUICK]
    words += ["--store", place / "store", "--encoder", "sorep", "--feature", "kinetic"]
    assert "missing-structure" in invoke("mat2spec", "train", *words, status=1).output
    assert "[missing-structure]: unknown" in invoke("mat2spec", "train", *words, "--missing", "skip").output


def test_a_split_of_ones_own(place, graph, tmp_path):
    parts = ["train"] * 8 + ["val"] * 2 + ["test"] * 2
    pd.DataFrame({"id": CRYSTALS, "split": parts}).to_csv(tmp_path / "split.csv", index=False)
    words = ["--structures", place / "cifs", "--split-file", tmp_path / "split.csv", "--out", tmp_path / "run"]
    invoke("mat2spec", "train", *targets(place), *words, *QUICK)
    made = pd.read_csv(tmp_path / "run" / "split.csv").set_index("id")["split"]
    assert made.to_dict() == dict(zip(CRYSTALS, parts, strict=True))


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--scaling", "standard"], "bad-option"),  # with the loss kl
        (["--encoder", "none"], "bad-option"),
        (["--feature", "kinetic"], "bad-option"),  # which nothing reads
        (["--preset", "mine"], "unknown-preset"),
        (["--network", "mine"], "unknown-network"),
        (["--missing", "guess"], "bad-option"),
        (["--device", "abacus"], "unknown-device"),
        (["--epochs", "0"], "bad-option"),
        (["--split", "rows"], "bad-option"),
    ],
)
def test_options_that_make_no_sense(place, tmp_path, words, code):
    base = ["--structures", place / "cifs", *targets(place), "--out", tmp_path / "run"]
    assert f"[{code}]" in invoke("mat2spec", "train", *base, *words, status=2).output
    assert not (tmp_path / "run").exists()


def test_the_python_of_the_page_runs(place, tmp_path, monkeypatch):
    page = (EXAMPLES.parents[1] / "docs" / "mat2spec.md").read_text()
    block = re.findall(r"(?s)```python\n(.*?)```", page)[0]
    shutil.copytree(place / "cifs", tmp_path / "cifs")
    shutil.copy(place / "grid.json", tmp_path)
    pd.read_parquet(place / "spectra.parquet").rename(columns={"spectrum": "phdos"}).to_parquet(
        tmp_path / "phdos.parquet"
    )
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(block, names)
    assert names["found"].spectra.shape == (len(names["split"].test), len(BINS))
    loaded = Checkpoint.load("run")
    np.testing.assert_array_equal(
        predict(loaded, names["data"].inputs).spectra, predict(names["model"], names["data"].inputs).spectra
    )


def test_the_card_of_presets_and_models(both):
    assert "parameters; " in invoke("mat2spec", "describe", "--preset", "paper").output
    text = invoke("mat2spec", "describe", "--model", both).output
    assert "kinetic" in text and "trained on" in text and "training only" in text


def test_the_command_line_starts_without_torch():
    code = "import sys, sorep, sorep.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_without_torch_the_error_names_the_extra():
    code = (
        "import importlib.util as u; found = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'torch' else found(name, *rest)\n"
        "import sys; sys.argv = ['sorep', 'mat2spec', 'describe']\n"
        "from sorep.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'sorep[mat2spec]'" in done.stderr

"""`sorep screen evaluate` as users type it, on kinetic features of rock salts; killed, interrupted and misused."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from ase.build import bulk
from ase.io import write
from typer.testing import CliRunner, Result

from sorep.cli import app
from sorep.screening.curves import PARTS, load_curves

CATIONS, ANIONS = ("Li", "Na", "Mg"), ("F", "Cl", "O", "S")
SALTS = [cation + anion for cation in CATIONS for anion in ANIONS]
QUICK = ["--features", "kinetic", "--sizes", "6,0.5", "--splits", "2", "--holdout", "0.3", "--jobs", "1"]
TREE = ["--model", "sklearn.tree:DecisionTreeClassifier"]
TIMES = ["seconds", "seconds_predict"]


@pytest.fixture(scope="module")
def folder(sorep, tmp_path_factory) -> Path:
    """A store of twelve rock salts, each relaxed and stretched, and a table that tells fluorides and oxides."""
    folder = tmp_path_factory.mktemp("evaluate")
    (folder / "salts").mkdir()
    for number, salt in enumerate(SALTS):
        for name, a in ((salt, 4.8 + 0.05 * (number % 7)), (f"{salt}-stretched", 5.2)):
            write(folder / "salts" / f"{name}.vasp", bulk(salt, "rocksalt", a=a))
    words = ("--store", folder / "store", "--k-spacing", "0.8", "--jobs", "1", "--quiet")
    result = sorep("featurize", folder / "salts", *words)
    assert result.returncode == 0, result.stderr
    ids = [name for salt in SALTS for name in (salt, f"{salt}-stretched")]
    light = [salt[-1] in "FO" for salt in SALTS for _ in range(2)]
    gaps = [gap for gap in range(12) for _ in range(2)]
    pd.DataFrame({"id": ids, "label": light, "gap": gaps}).to_csv(folder / "labels.csv", index=False)
    return folder


@pytest.fixture
def command(folder, tmp_path) -> list[str]:
    labels = ["--labels", str(folder / "labels.csv"), "--label-column", "label"]
    return ["screen", "evaluate", str(folder / "store"), *labels, "--out", str(tmp_path / "out"), *QUICK]


@pytest.fixture
def in_process() -> Callable[..., Result]:
    """The same without the seconds that starting Python takes."""

    def run(*words: str | Path) -> Result:
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert isinstance(result.exception, SystemExit | None), result.exception
        return result

    return run


def numbers(folder: Path) -> pd.DataFrame:
    return load_curves(folder).results.drop(columns=TIMES)


def test_from_store_to_report(sorep, command, tmp_path) -> None:
    result = sorep(*command, *TREE, "--within", "gap > 5.5", "--permutation", "0.5", "--table", "0.5")
    assert result.returncode == 0, result.stderr
    assert "`sorep featurize --descriptor composition`" in result.stderr
    assert re.search(r"12 fits, 12 of them missing: about [\d.e-]+ CPU hours", result.stderr)
    assert re.search(r"(?m)^\W+constant +\W+0\.500 ± 0\.000 +\W+0\.500 ± 0\.000 ", result.stdout)
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"report.html", "summary.csv", "results.parquet"}
    curves = load_curves(tmp_path / "out")
    assert curves.facts["structures"] == "24, 12 of them positive (50.0%), 12 reduced formulas"
    groups = curves.rows.groupby("formula")["held_out"].nunique()
    assert (groups == 1).all()
    assert set(curves.rows.query("within")["id"]) == {
        name for salt in SALTS[6:] for name in (salt, f"{salt}-stretched")
    }
    summary = pd.read_csv(tmp_path / "out" / "summary.csv").set_index(["arm", "n_rows"])
    assert summary.loc[("kinetic", 12), "roc_auc_mean"] == pytest.approx(curves.of("kinetic", 12)["roc_auc"].mean())
    again = sorep(*command, *TREE, "--within", "gap > 5.5", "--permutation", "0.5", "--table", "0.5")
    assert again.returncode == 0
    assert "12 fits, all finished" in again.stderr
    assert again.stdout == result.stdout


def test_a_killed_run_goes_on_and_ends_with_the_same_numbers(in_process, start_sorep, command, tmp_path) -> None:
    slow = ["--splits", "4", "--param", "n_estimators=150"]
    whole = [*command, *slow]
    whole[whole.index("--out") + 1] = str(tmp_path / "whole")
    assert in_process(*whole).exit_code == 0
    running = start_sorep(*command, *slow)
    parts = tmp_path / "out" / PARTS
    end = time.monotonic() + 120
    while len(list(parts.glob("*.parquet"))) < 3:
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    os.kill(running.process.pid, signal.SIGKILL)
    running.process.wait()
    running.wait_until_all_are_gone()
    kept = list(parts.glob("*.parquet"))
    assert 3 <= len(kept) < 24
    resumed = in_process(*command, *slow, "--jobs", "2")
    assert resumed.exit_code == 0
    assert f"24 fits, {24 - len(kept)} of them missing" in resumed.stderr
    pd.testing.assert_frame_equal(numbers(tmp_path / "whole"), numbers(tmp_path / "out"))


def test_a_run_that_is_terminated_says_where_it_was(start_sorep, command, tmp_path) -> None:
    running = start_sorep(*command, "--splits", "50", "--param", "n_estimators=150")
    end = time.monotonic() + 120
    while not list((tmp_path / "out" / PARTS).glob("*.parquet")):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    running.process.send_signal(signal.SIGTERM)
    result = running.finish()
    assert result.returncode == 130
    assert "the same command goes on from there" in result.stderr
    assert "Traceback" not in result.stderr
    running.wait_until_all_are_gone()


def test_a_dry_run_writes_nothing(sorep, command, tmp_path) -> None:
    result = sorep(*command, *TREE, "--dry-run")
    assert result.returncode == 0, result.stderr
    assert re.search(r"12 fits, 12 of them missing: about [\d.e-]+ CPU hours", result.stdout)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["--sizes", "0.1,much"], 2, "--sizes 0.1,much"),
        (["--sizes", "0.95"], 2, "[bad-size]"),
        (["--split", "shuffled"], 2, "split"),
        (["--holdout", "0"], 2, "holdout"),
        (["--permutation", "0.4"], 2, "none of the sizes"),
        (["--within", "gap = 1"], 2, "[bad-comparison]"),
        (["--within", "band_gap > 1"], 1, "[missing-column]"),
        (["--model", "sklearn.tree:Oak"], 2, "[unknown-model]"),
        (["--param", "n_estimators"], 2, "--param n_estimators"),
        (["--features", "vbm"], 1, "[no-such-feature]"),
        (["--label-column", "candidate"], 1, "[missing-column]"),
        (["--paper"], 2, "--paper fixes sizes, splits, features"),
    ],
)
def test_misuse_is_explained(in_process, command, tmp_path, words, status, told) -> None:
    result = in_process(*command, *words)
    assert (result.exit_code, told in result.stderr) == (status, True), result.stderr
    assert "Remedy" in result.stderr
    assert not (tmp_path / "out").exists()


def test_band_edges_are_the_default(in_process, command) -> None:
    start = command.index("--features")
    result = in_process(*command[:start], *command[start + 2 :])
    assert result.exit_code == 1  # of rock salts there are kinetic features only
    assert "holds no feature 'band-edges'" in result.stderr


def test_other_settings_are_refused_with_the_differences(in_process, sorep, command) -> None:
    assert sorep(*command, *TREE, "--quiet").returncode == 0
    result = in_process(*command, *TREE, "--seed", "5")
    assert result.exit_code == 2
    assert "protocol.seed: 0 against 5; structures: " in result.stderr

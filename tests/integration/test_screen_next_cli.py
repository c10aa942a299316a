"""`sorep screen next` and `sorep screen simulate` as users type them, on kinetic features of rock salts."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pandas as pd
import pytest
from ase.build import bulk
from ase.io import write

SALTS = [cation + anion for cation in ("Li", "Na", "K", "Mg", "Ca") for anion in ("F", "Cl", "O", "S")]
QUICK = ["--features", "kinetic", "--param", "n_estimators=20"]


def is_candidate(salt: str) -> bool:
    return salt.endswith(("F", "O"))


@pytest.fixture(scope="module")
def store(sorep: Callable[..., CompletedProcess[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("next")
    (folder / "salts").mkdir()
    for number, salt in enumerate(SALTS):
        write(folder / "salts" / f"{salt}.vasp", bulk(salt, "rocksalt", a=4.8 + 0.05 * (number % 7)))
    command = ["featurize", folder / "salts", "--store", folder / "store", "--k-spacing", "0.8", "--jobs", "1"]
    result = sorep(*command, "--quiet")
    assert result.returncode == 0, result.stderr
    return folder / "store"


def write_labels(path: Path, salts: list[str]) -> Path:
    pd.DataFrame({"id": salts, "label": [is_candidate(salt) for salt in salts]}).to_csv(path, index=False)
    return path


def test_a_search_from_nothing_to_the_end(sorep, store: Path, tmp_path: Path) -> None:
    """What is proposed is labelled and given back, until the budget has paid for half of all structures."""
    labels, out = tmp_path / "labels.csv", tmp_path / "next.csv"
    found: list[str] = []
    for step in range(3):
        given = ["--labels", write_labels(labels, found)] if found else []
        result = sorep("screen", "next", store, *given, *QUICK, "--budget", "4", "--out", out)
        assert result.returncode == 0, result.stderr
        proposed = pd.read_csv(out)
        assert list(proposed.columns) == ["id", "formula", "reason", "score", "probability", "cost"]
        assert len(proposed) == 4 and not set(proposed["id"]) & set(found)
        assert f"{len(found)} of 20 structures are labelled" in result.stdout
        assert set(proposed["reason"]) == {"diversity" if step == 0 else "yield"}
        found += proposed["id"].tolist()
    assert sum(map(is_candidate, found)) >= 8  # of ten; chance would find six
    expected = re.search(r"([\d.]+) candidates expected, ([\d.]+) in as many at random", result.stdout)
    assert expected and float(expected[1]) == pytest.approx(proposed["probability"].sum(), abs=0.06)
    assert float(expected[1]) > float(expected[2])


def test_labels_of_one_kind_are_a_beginning(sorep, store: Path, tmp_path: Path) -> None:
    labels = write_labels(tmp_path / "labels.csv", ["NaCl", "KCl"])
    result = sorep("screen", "next", store, "--labels", labels, *QUICK, "--budget", "3")
    assert result.returncode == 0, result.stderr
    assert "a model needs labels of both kinds" in result.stdout
    assert "NaCl" not in result.stdout


def test_budget_is_in_average_calculations(sorep, store: Path, tmp_path: Path) -> None:
    costs = tmp_path / "costs.csv"
    pd.DataFrame({"id": SALTS, "hours": [8.0 if "K" in salt or "Ca" in salt else 3.0 for salt in SALTS]}).to_csv(costs)
    labels = write_labels(tmp_path / "labels.csv", SALTS[::3])
    command = ["screen", "next", store, "--labels", labels, *QUICK, "--budget", "3", "--out", tmp_path / "next.csv"]
    result = sorep(*command, "--cost", f"{costs}:hours")
    assert result.returncode == 0, result.stderr
    assert f"hours of {costs}" in result.stdout
    proposed = pd.read_csv(tmp_path / "next.csv")
    assert set(proposed["cost"]) <= {1.6, 0.6} and proposed["cost"].sum() <= 3


def test_mistakes_are_told_with_their_remedy(sorep, store: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("id,label\nNaCl,1\nNaCi,0\n")
    for words, code, status in (
        (["--labels", labels, "--budget", "3"], "unknown-id", 1),
        (["--labels", tmp_path / "absent.csv", "--budget", "3"], "not-a-table", 1),
        (["--budget", "0.2"], "budget-too-small", 1),
        (["--budget", "3", "--strategy", "greedy"], "unknown-strategy", 2),
        (["--budget", "3", "--cost", "time"], "bad-option", 2),
        (["--budget", "3", "--out", tmp_path / "next.txt"], "unknown-format", 2),
    ):
        result = sorep("screen", "next", store, *QUICK, *words)
        assert result.returncode == status, (words, result.stderr)
        assert f"[{code}]" in result.stderr and "Remedy:" in result.stderr


def test_simulation_shows_every_procedure(sorep, store: Path, tmp_path: Path) -> None:
    labels = write_labels(tmp_path / "labels.csv", SALTS)
    table, figure = tmp_path / "search.csv", tmp_path / "search.png"
    command = ["screen", "simulate", store, "--labels", labels, *QUICK, "--batch", "0.1", "--train-size", "0.2"]
    shorter = [*command, "--strategy", "yield", "--strategy", "random", "--seeds", "2", "--jobs", "1"]
    plan = sorep(*shorter, "--dry-run")
    assert plan.returncode == 0 and "6 replays with up to 12 fits" in plan.stdout
    result = sorep(*shorter, "--table", table, "--figure", figure)
    assert result.returncode == 0, result.stderr
    assert "20 structures, 10 candidates (50.0%); every calculation counts the same" in result.stdout
    frame = pd.read_csv(table)
    assert frame["procedure"].tolist() == ["yield", "random", "published 0.2"]
    found = frame.set_index("procedure")["found at 0.5"]
    assert found["yield"] > found["random"] and found.between(0, 1).all()
    assert figure.read_bytes().startswith(b"\x89PNG")
    again = sorep(*shorter, "--table", tmp_path / "again.csv", "--quiet")
    assert again.returncode == 0 and (tmp_path / "again.csv").read_text() == table.read_text()

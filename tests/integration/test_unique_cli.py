"""`sorep unique` and `sorep similar` as users type them, on real crystals with known duplicates."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import typer.main
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.io import write
from typer.testing import CliRunner, Result

from sorep.cli import app
from sorep.similarity import Groups, Rule, condensed
from sorep.store import FeatureStore
from sorep.store.tables import Tables


def rotated(atoms: Atoms, angle: float) -> Atoms:
    turned = atoms.copy()
    turned.rotate(angle, (1, 2, 3), rotate_cell=True)
    return turned


def strained(atoms: Atoms, strain: float) -> Atoms:
    longer = atoms.copy()
    longer.set_cell(longer.cell * (1 + strain), scale_atoms=True)
    return longer


SI, MGO = bulk("Si"), bulk("MgO", "rocksalt", a=4.21)
FIRST = {
    "si": SI,
    "si-super": make_supercell(SI, [[1, 0, 0], [0, 1, 0], [0, 0, 2]]),
    "si-rotated": rotated(SI, 40.0),
    "si-bcc": bulk("Si", "bcc", a=3.1),
    "mgo": MGO,
    "al": bulk("Al"),
}
LATER = {
    "a-si-cubic": bulk("Si", cubic=True),
    "mgo-super": make_supercell(MGO, [[2, 0, 0], [0, 1, 0], [0, 0, 1]]),
    "mgo-strained": strained(MGO, 0.03),
    "ge": bulk("Ge"),
}
SAME = [{"si", "si-super", "si-rotated", "a-si-cubic"}, {"mgo", "mgo-super"}]


def add(sorep, folder: Path, crystals: dict[str, Atoms], store: Path) -> None:
    folder.mkdir()
    for name, crystal in crystals.items():
        write(folder / f"{name}.vasp", crystal)
    result = sorep("featurize", folder, "--store", store, "--k-spacing", "0.8", "--jobs", "1", "--quiet")
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def store(sorep, tmp_path_factory) -> Path:
    """Some structures grouped, others added later."""
    folder = tmp_path_factory.mktemp("unique")
    add(sorep, folder / "first", FIRST, folder / "store")
    result = sorep("unique", folder / "store")
    assert (result.returncode, result.stderr) == (0, "")
    add(sorep, folder / "later", LATER, folder / "store")
    return folder / "store"


@pytest.fixture
def copy(store, tmp_path) -> Path:
    return shutil.copytree(store, tmp_path / "store")


@pytest.fixture(scope="module")
def in_process() -> Callable[..., Result]:
    """The same without the seconds that starting Python takes."""

    def run(*words: str | Path) -> Result:
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert isinstance(result.exception, SystemExit | None), result.exception
        return result

    return run


def members(groups: pd.DataFrame) -> list[set[str]]:
    return sorted((set(part["id"]) for _, part in groups.groupby("group") if len(part) > 1), key=len, reverse=True)


def test_duplicates_are_found_and_kept_also_when_structures_are_added(sorep, copy):
    known = FeatureStore(copy).groups()
    assert members(known) == [SAME[0] & FIRST.keys()]
    result = sorep("unique", copy)
    assert (result.returncode, result.stderr) == (0, "")
    assert (
        "10 structures of 4 compositions, the largest with 5: 7 pairs to compare; 6 were grouped before"
        in result.stdout
    )
    for name, count in {"structures": 10, "compositions": 4, "groups": 6, "duplicates": 4}.items():
        assert re.search(rf"(?m)^\W+{name} +\W+{count}\W*$", result.stdout)
    assert re.search(r"(?m)^\W+a-si-cubic +\W+Si +\W+4 ", result.stdout)
    groups = FeatureStore(copy).groups()
    assert members(groups) == SAME
    assert (groups["distance"] < 1e-8)[groups["id"].isin(SAME[0] | SAME[1])].all()
    # As a store in which nothing was known gives it.
    shutil.rmtree(copy / "groups")
    assert ": 13 pairs to compare\n" in sorep("unique", copy).stdout
    assert FeatureStore(copy).groups().equals(groups)


def test_nothing_new_compares_nothing(sorep, copy):
    sorep("unique", copy)
    result = sorep("unique", copy, "--quiet")
    assert ": 0 pairs to compare; 10 were grouped before" in result.stdout
    assert FeatureStore(copy).tables.read("groups").num_rows == 6 + 10


def test_a_dry_run_stores_nothing(sorep, copy):
    before, runs = FeatureStore(copy).groups(), FeatureStore(copy).runs()
    result = sorep("unique", copy, "--across-compositions", "--dry-run")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "10 structures together: 45 pairs to compare\n"
    assert FeatureStore(copy).groups().equals(before)
    assert len(FeatureStore(copy).runs()) == len(runs)


@pytest.mark.parametrize(
    ("words", "rule", "n_groups"),
    [
        (["--epsilon", "0.9"], {"epsilon": 0.9}, 4),
        (["--metric", "wasserstein", "--epsilon", "0.01"], {"metric": "wasserstein", "epsilon": 0.01}, 6),
        (["--metric", "wasserstein", "--epsilon", "1e9"], {"metric": "wasserstein", "epsilon": 1e9}, 4),
        (["--n-min", "3"], {"n_min": 3}, 7),
        (["--across-compositions", "--epsilon", "1"], {"across_compositions": True, "epsilon": 1.0}, 1),
        (["--feature", "kinetic-methods"], {"feature": "kinetic-methods"}, 6),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, list) else "",
)
def test_every_option_of_the_rule_counts(in_process, copy, words, rule, n_groups):
    if "kinetic-methods" in words:
        assert in_process("refeaturize", "--store", copy, "--feature", "kinetic-methods").exit_code == 0
    assert in_process("unique", copy, *words).exit_code == 0
    groups = Groups.from_frame(FeatureStore(copy).groups())
    assert groups.n_groups == n_groups
    for name, value in rule.items():
        assert getattr(groups.rule, name) == value
    assert len(FeatureStore(copy).groups(epsilon=1e-3, metric="cosine", n_min=1, feature="kinetic")) == 6


def test_report_table_and_matcher(sorep, copy, tmp_path):
    files = ("--report", tmp_path / "out.html", "--table", tmp_path / "out.csv")
    result = sorep("unique", copy, "--confirm", "--formula", "OMg", *files)
    assert (result.returncode, result.stderr) == (0, "")
    assert re.search(r"(?m)^\W+structures +\W+3\W*$", result.stdout)
    assert re.search(r"(?m)^\W+confirmed +\W+1\W*$", result.stdout)
    assert f"{tmp_path / 'out.html'}, {tmp_path / 'out-nearest.png'}" in result.stdout
    text = (tmp_path / "out.html").read_text()
    assert "3 structures of MgO" in text
    assert "<td>si</td>" not in text
    table = pd.read_csv(tmp_path / "out.csv")  # of all compositions
    assert table["id"].tolist() == FeatureStore(copy).groups()["id"].tolist()
    is_alone = table["id"] == table["representative"]
    assert table["confirmed"].isna().tolist() == is_alone.tolist()
    assert table.loc[~is_alone, "confirmed"].all()
    assert sorep("unique", copy, "--table", tmp_path / "out.parquet").returncode == 0
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out.parquet"), FeatureStore(copy).groups())


def test_structures_without_the_feature_are_counted(in_process, copy):
    tables = Tables(copy)
    (row,) = tables.read("structures").slice(0, 1).to_pylist()
    tables.append("structures", [{**row, "id": "bare", "content_key": "none"}])
    result = in_process("unique", copy)
    assert "1 structures have no feature 'kinetic' and are left out" in result.stderr
    assert "bare" not in FeatureStore(copy).groups()["id"].tolist()


def test_the_nearest_structures(sorep, store):
    result = sorep("similar", store, "mgo", "-k", "3")
    assert (result.returncode, result.stderr) == (0, "")
    rows = re.findall(r"(?m)^\W*([\w-]+) +\W+([A-Z]\w*) +\W+([\d.e+-]+)\W*$", result.stdout)
    matrix = FeatureStore(store).matrix("kinetic")
    others = [id for id in matrix.ids.tolist() if id != "mgo"]
    distances = [condensed(FeatureStore(store).matrix("kinetic", ids=["mgo", id]).values)[0] for id in others]
    order = np.argsort(distances)[:3]
    assert [row[0] for row in rows] == [others[n] for n in order]
    assert [row[1] for row in rows][:2] == ["MgO", "MgO"]
    assert [row[2] for row in rows][1:] == [f"{distances[n]:.3g}" for n in order[1:]]
    everyone = sorep("similar", store, "mgo", "-k", "99", "--metric", "wasserstein").stdout
    assert all(id in everyone for id in others)
    assert "(eV)" in everyone


def test_one_structure(sorep, tmp_path):
    add(sorep, tmp_path / "in", {"si": SI}, tmp_path / "store")
    result = sorep("unique", tmp_path / "store", "--report", tmp_path / "out.html")
    assert result.returncode == 0, result.stderr
    assert re.search(r"(?m)^\W+groups +\W+1\W*$", result.stdout)
    assert "si is the only structure" in sorep("similar", tmp_path / "store", "si").stdout


# Wrong usage


@pytest.mark.parametrize(
    ("line", "status", "needles"),
    [
        ("unique nothing", 1, ["no-store"]),
        ("unique empty", 1, ["no-such-feature", "it holds none"]),
        ("unique {} --feature vbm", 1, ["no-such-feature", "kinetic (kinetic, "]),
        ("unique {} --metric cosinus", 2, ["unknown-metric", "wasserstein"]),
        ("unique {} --epsilon -1", 2, ["bad-option", "epsilon -1"]),
        ("unique {} --epsilon nan", 2, ["bad-option"]),
        ("unique {} --n-min 0", 2, ["bad-option", "N_min 0"]),
        ("unique {} --table out.xls", 2, ["unknown-format", ".parquet"]),
        ("unique {} --formula x!", 2, ["bad-formula"]),
        ("unique {} --identity ffff", 1, ["no-such-feature", "ffff"]),
        ("similar {} nobody", 1, ["no-such-id", "nobody"]),
        ("similar {} si -k 0", 2, ["-k"]),
        ("similar {} si --metric cosinus", 2, ["unknown-metric"]),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else "",
)
def test_wrong_usage(in_process, store, tmp_path, monkeypatch, line, status, needles):
    monkeypatch.chdir(tmp_path)
    Tables(Path("empty"), create=True)
    before = FeatureStore(store).tables.read("groups").num_rows
    result = in_process(*line.format(store).split())
    assert result.exit_code == status, result.output
    for needle in needles:
        assert needle in result.output
    assert FeatureStore(store).tables.read("groups").num_rows == before
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--table", "no/out.csv"], "unwritable-file"),
        (["--report", "no/out.html"], "unwritable-file"),
        (["--formula", "Fe"], "no-such-composition"),
    ],
    ids=lambda value: "" if isinstance(value, str) else value[0],
)
def test_what_goes_wrong_at_the_end_loses_no_groups(in_process, copy, words, code, monkeypatch):
    monkeypatch.chdir(copy.parent)
    result = in_process("unique", copy, *words)
    assert result.exit_code == 1
    assert f"[{code}]" in result.stderr
    assert len(FeatureStore(copy).groups()) == 10


def test_two_identities_of_one_name_are_told_apart(in_process, copy):
    words = ("--store", copy, "--feature", "kinetic", "--normalization", "atom")
    assert in_process("refeaturize", *words).exit_code == 0
    refused = in_process("unique", copy)
    assert refused.exit_code == 1
    assert "mixed-identity" in refused.stderr
    for identity in FeatureStore(copy).features()["identity"]:
        assert in_process("unique", copy, "--identity", identity).exit_code == 0
        assert FeatureStore(copy).groups().attrs["identity"] == identity


def test_an_interrupt_stores_nothing_and_says_so(in_process, store, monkeypatch):
    """Where a signal comes between two blocks."""

    def interrupted(*_):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("sorep.similarity.unique._Search.run", interrupted)
    before = FeatureStore(store).groups()
    result = in_process("unique", store)
    assert result.exit_code == 130
    assert "interrupted: no groups were stored" in result.output
    assert FeatureStore(store).groups().equals(before)


def test_progress_is_a_bar_on_a_terminal(store, start):
    words = [str(Path(sys.executable).with_name("sorep")), "unique", str(store), "--epsilon", "0.5"]
    script = f"import pty, sys; sys.exit(pty.spawn({words!r}) >> 8)"
    result = start(sys.executable, "-c", script).finish()
    assert result.returncode == 0, result.stdout
    assert "compared" in result.stdout


def test_the_defaults_of_the_command_are_those_of_python():
    command = cast(Any, typer.main.get_command(app)).commands["unique"]
    defaults = {parameter.name: parameter.default for parameter in command.params}
    rule = asdict(Rule())
    assert {name: defaults[name] for name in rule.keys() - {"feature", "identity"}} == {
        name: value for name, value in rule.items() if name not in ("feature", "identity")
    }

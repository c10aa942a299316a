"""`sorep label --run` with a real pw.x: from crystal files to labels, resumed, killed, and with what goes wrong."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ase.build import bulk
from ase.io import write
from typer.testing import CliRunner

from sorep.cli import app
from sorep.errors import OutputError, PwError, StoreError
from sorep.outputs.espresso import read_espresso
from sorep.single_shot.converged import OPERATOR, ConvergedBands
from sorep.single_shot.executable import PwX
from sorep.single_shot.inputs import CONVERGED, OUTPUT_FOLDER, PREFIX
from sorep.single_shot.method import SingleShot, SingleShotSettings
from sorep.single_shot.pseudos import DEFAULT_FAMILY
from sorep.single_shot.runner import PwRunner
from sorep.store import FeatureStore
from sorep.structure import Structure

pytestmark = [pytest.mark.pwx, pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING:DeprecationWarning")]

ROOT = Path(__file__).parents[2]
FAKE = ROOT / "tests" / "fake_pw_x.py"
SILICON = Structure.from_ase(bulk("Si", "diamond", a=5.43), id="si")
MESH, LINES = "0.9", "0.12"  # 1/Angstrom
QUICK = ("--k-spacing", MESH, "--line-spacing", LINES, "--jobs", "1")

# Commits after every structure; the command itself waits some seconds.
DRIVER = """\
from sorep.cli import main
from sorep.featurize import featurize

if __name__ == "__main__":
    featurize.__kwdefaults__["commit_seconds"] = 0.0
    main()
"""


@pytest.fixture(autouse=True)
def machine(pw_x: PwX, get_family, monkeypatch, tmp_path) -> None:
    """The pw.x and the pseudopotentials that the command finds by itself; tests run in a folder of their own."""
    monkeypatch.setenv("SOREP_PW_X", str(pw_x.path))
    monkeypatch.setenv("SOREP_DATA", str(get_family(DEFAULT_FAMILY).folder.parents[1]))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def inputs(tmp_path) -> Path:
    """A semiconductor under two names, a metal, and an element without a pseudopotential."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    write(folder / "si.vasp", bulk("Si", "diamond", a=5.43))
    write(folder / "silicon.vasp", bulk("Si", "diamond", a=5.43))
    write(folder / "al.vasp", bulk("Al", "fcc", a=4.05))
    write(folder / "pu.vasp", bulk("Pu", "fcc", a=4.6))
    return folder


@pytest.fixture
def method(pw_x, tmp_path, monkeypatch) -> Callable[..., ConvergedBands]:
    """The method by some pw.x, or by the fake with its faults; what fails is kept in ``failed``."""

    def made(by: PwX | str = pw_x, line_spacing: float = 0.1, **settings) -> ConvergedBands:
        if isinstance(by, str):
            monkeypatch.setenv("FAKE_PW_X", by)
            monkeypatch.setenv("FAKE_PW_X_REAL", str(pw_x.path))
            by = replace(pw_x, path=FAKE, launcher=(sys.executable,))
        chosen = SingleShotSettings(**{"k_spacing": float(MESH), "iterations": CONVERGED, **settings})
        (tmp_path / "scratch").mkdir(exist_ok=True)
        runner = PwRunner(by, tmp_path / "scratch", keep_failed=tmp_path / "failed")
        return ConvergedBands(SingleShot(chosen, runner), line_spacing)

    return made


# The command


def test_from_crystals_to_labels_and_again(sorep, inputs, tmp_path):
    words = ("label", inputs, "--run", *QUICK, "--out", "labels.csv")
    planned = sorep(*words, "--dry-run")
    assert planned.returncode == 3
    assert "4 structures: 3 would be computed" in planned.stdout
    assert "[missing-pseudopotential]" in planned.stdout
    assert not (tmp_path / "sorep-store").exists()
    assert not Path("labels.csv").exists()

    first = sorep(*words)
    assert first.returncode == 3, first.stderr
    assert "2 computed, 1 share another's, 0 were there" in first.stdout
    assert "1 failed: 1 missing-pseudopotential" in first.stderr
    assert "labels.csv: 2 true, 1 false, 0 undecided" in first.stdout
    table = pd.read_csv("labels.csv", index_col="id")
    assert table.index.tolist() == ["al", "si", "silicon"]
    assert table["label"].tolist() == [False, True, True]
    assert table.loc["al", "gap"] == 0
    assert table.loc["al", ["electron_mass", "hole_mass"]].isna().all()
    assert table.loc["al", "flags"].split(",")[0] == "metal"
    assert 0.5 < table.loc["si", "gap"] < 0.7
    assert 0.15 < table.loc["si", "hole_mass"] < 0.4

    again = sorep(*words)
    assert again.returncode == 3
    assert "0 computed, 0 share another's, 3 were there" in again.stdout
    assert "structures to compute" not in again.stderr
    assert pd.read_csv("labels.csv", index_col="id").equals(table)

    Path("narrow.toml").write_text('all = ["gap <= 0.5"]\n')
    stored = sorep("label", "sorep-store", "--criteria", "narrow.toml", "--ids", "si,al", "--out", "narrow.csv")
    assert (stored.returncode, stored.stderr) == (0, "")
    assert pd.read_csv("narrow.csv")["id"].tolist() == ["si", "al"]
    assert pd.read_csv("narrow.csv")["label"].tolist() == [False, True]
    listed = sorep("list")
    assert f"spectra of operator {OPERATOR}" in listed.stdout


def test_only_some_structures(sorep, inputs, tmp_path):
    Path("wanted").write_text("al\n\n")
    result = sorep("label", inputs, "--run", *QUICK, "--ids", "wanted")
    assert result.returncode == 0, result.stderr
    assert "1 structures in sorep-store: 1 computed" in result.stdout
    assert pd.read_parquet("labels.parquet")["id"].tolist() == ["al"]
    wrong = sorep("label", inputs, "--run", *QUICK, "--ids", "al,fe", "--store", "other")
    assert wrong.returncode == 2
    assert "'fe' [no-such-id]" in wrong.stderr
    assert len(FeatureStore("other").tables.read("spectra", ["content_key"])) == 0  # found before anything ran


@pytest.mark.parametrize(
    ("words", "code", "remedy"),
    [
        (["sorep-store", "--jobs", "2"], "bad-option", "add --run"),
        (["x.csv", "--min-distance", "0"], "bad-option", "add --run"),
        (["x.csv", "--identity", "ab"], "bad-option", "stores"),
        (["inputs", "--run", "--column", "gap=g"], "bad-option", "computed already"),
        (["inputs", "x", "--out", "y.csv"], "bad-option", "add --run"),
        (["inputs", "--run", "--line-spacing", "0"], "bad-option", "> 0"),
        (
            ["inputs", "--run", "--criteria", "tin.toml"],
            "bad-option",
            "calculations give gap, electron_mass, hole_mass",
        ),
        (["inputs", "--run", "--config", "scf.toml"], "bad-option", "leave them out"),
        (["inputs", "--run", "--ids", ","], "bad-option", "one a line"),
        (["inputs", "--run", "--pw-x", "/nowhere/pw.x"], "pw-x-not-found", "sorep pw build"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_makes_no_sense_is_refused_before_anything_runs(inputs, tmp_path, words, code, remedy):
    Path("tin.toml").write_text('all = ["tin > 0.5"]\n')
    Path("scf.toml").write_text("iterations = 3\n")
    (tmp_path / "sorep-store").mkdir()
    result = CliRunner().invoke(app, ["label", *words])
    assert result.exit_code in (1, 2)
    assert f"[{code}]" in result.stderr
    assert remedy in result.stderr
    assert list((tmp_path / "sorep-store").iterdir()) == []


def n_rows(store: Path, table: str) -> int:
    """How many rows there are, duplicates and all; none while there is no store yet."""
    try:
        return len(FeatureStore(store).tables.read(table, ["content_key"]))
    except StoreError:
        return 0


def test_a_killed_run_goes_on_and_ends_with_every_result_once(start, tmp_path):
    (tmp_path / "driver.py").write_text(DRIVER)
    write(tmp_path / "si.xyz", [bulk("Si", "diamond", a=5.3 + 0.1 * n) for n in range(3)], format="extxyz")
    words = (sys.executable, "driver.py", "label", "si.xyz", "--run", *QUICK, "--scratch", "scratch")
    killed = start(*words)
    end = time.monotonic() + 120
    while n_rows(tmp_path / "sorep-store", "spectra") < 1:
        assert time.monotonic() < end
        assert killed.process.poll() is None, killed.process.communicate()
        time.sleep(0.02)
    killed.process.kill()
    killed.process.wait()
    killed.wait_until_all_are_gone()
    before = n_rows(tmp_path / "sorep-store", "spectra")
    assert 1 <= before < 3
    assert not Path("labels.parquet").exists()
    result = start(*words).finish()
    assert result.returncode == 0, result.stderr
    assert f"{3 - before} computed, 0 share another's, {before} were there" in result.stdout
    assert n_rows(tmp_path / "sorep-store", "spectra") == n_rows(tmp_path / "sorep-store", "band_structures") == 3
    assert pd.read_parquet("labels.parquet")["id"].tolist() == ["si:0", "si:1", "si:2"]
    assert list((tmp_path / "scratch").iterdir()) == []


# The calculation


def test_lines_and_mesh_are_one_calculation(method):
    one = method(k_spacing=0.7)
    calculation = one.calculate(SILICON)
    bands, spectrum = calculation.bands, calculation.spectrum
    assert bands is not None
    assert bands.energies.shape == (1, len(bands.path), spectrum.eigenvalues.shape[2])
    assert bands.path.route == "GAMMA-X-U|K-GAMMA-L-W-X"
    assert (bands.n_electrons, bands.degeneracy, bands.flags) == (8, 2, ())
    assert bands.identity == one.identity()
    (gamma,) = np.flatnonzero((spectrum.kpoints == 0).all(axis=1))
    for index, label in bands.path.labels.items():
        if label == "GAMMA":
            off = np.abs(bands.energies[0, index, :6] - spectrum.eigenvalues[0, gamma, :6]).max()
            print(f"off by {off:.1e} eV")
            assert off < 1e-3  # an SCF ends with a looser diagonalisation
    ends = {label: [] for label in ("GAMMA", "X")}
    for index, label in bands.path.labels.items():
        if label in ends:
            ends[label].append(bands.energies[0, index])
    for values in ends.values():
        assert len(values) > 1
        assert np.ptp(values, axis=0).max() < 1e-5
    scf = one.scf.calculate(SILICON).spectrum
    assert np.abs(scf.energies - spectrum.energies).max() < 1e-5
    assert scf.flags == spectrum.flags


def test_an_unpatched_pw_x_gives_the_same(method, stock_pw_x):
    ours, stock = (method(by, 0.3).calculate(SILICON).bands for by in (method().scf.runner.pw_x, stock_pw_x))
    assert np.abs(ours.energies - stock.energies)[..., :6].max() < 1e-5


def test_a_magnetic_insulator_has_lines_of_both_spins(method):
    """Hydrogen far apart: one electron, one filled band of one channel."""
    hydrogen = Structure("h", 5.0 * np.eye(3), [1], [[0, 0, 0]])
    calculation = method(line_spacing=0.6, spin=True, moments={"H": 1.0}).calculate(hydrogen)
    bands, spectrum = calculation.bands, calculation.spectrum
    assert bands is not None
    assert (bands.n_spin, bands.degeneracy, bands.n_electrons) == (2, 1, 1)
    (gamma,) = np.flatnonzero((spectrum.kpoints == 0).all(axis=1))
    up, down = bands.energies[:, 0, 0]
    assert down - up > 1.0
    assert np.abs(bands.energies[:, 0, 0] - spectrum.eigenvalues[:, gamma, 0]).max() < 1e-3
    assert bands.levels.vbm == pytest.approx(bands.energies[0, :, 0].max(), abs=1e-3)
    assert bands.levels.cbm > bands.levels.vbm
    assert bands.flags == ("odd-electrons",)


def test_a_metal_has_no_lines(method):
    aluminium = Structure.from_ase(bulk("Al", "fcc", a=4.05), id="al")
    calculation = method().calculate(aluminium)
    assert calculation.bands is None
    assert calculation.spectrum.flags == ("odd-electrons",)


# pw.x that fails on the lines: the SCF before was real


def test_a_run_along_lines_that_computes_nothing_is_not_taken_for_the_scf(method, tmp_path):
    with pytest.raises(OutputError) as raised:
        method("none+stop-0", 0.3).calculate(SILICON)
    assert raised.value.code == "unexpected-output"
    assert "0 calculations of bands in place of 1" in raised.value.message
    xml = tmp_path / "failed" / "si" / OUTPUT_FOLDER / f"{PREFIX}.save" / "data-file-schema.xml"
    assert read_espresso(xml).calculation == "scf"
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_failure_on_the_lines_is_retried_from_the_same_density(method, tmp_path):
    calculation = method("none+bands+none", 0.3).calculate(SILICON)
    assert calculation.spectrum.flags == ()
    assert calculation.bands is not None
    assert calculation.bands.flags == ("retried:diagonalization",)
    undisturbed = method(line_spacing=0.3).calculate(SILICON).bands
    assert undisturbed is not None
    assert np.abs(calculation.bands.energies - undisturbed.energies)[..., :5].max() < 1e-4  # by another algorithm
    assert not (tmp_path / "failed").exists()


@pytest.mark.parametrize(("fault", "code"), [("segfault", "pw-x-crash"), ("disk-full", "disk-full")])
def test_a_failure_that_stays_costs_the_structure(method, tmp_path, fault, code):
    with pytest.raises(PwError) as raised:
        method(f"none+{fault}", 0.3).calculate(SILICON)
    assert raised.value.code == code
    assert (tmp_path / "failed" / "si" / "pw.in").read_text().count("'bands'") == 1

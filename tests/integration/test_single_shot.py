"""`sorep single-shot` with a real pw.x: from crystal files to a store, and what goes wrong on the way.

Features are compared by their largest difference over the largest value; polymorphs are told apart at about 1e-2.
Turning, renumbering and other lattice vectors change nothing (1e-9). Moving the atoms, which a supercell does too,
moves them against the grid on which pw.x evaluates exchange and correlation: at most 4e-4 eV of a level and 1.2e-3 of a
feature were measured, on eight crystals.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write
from numpy.typing import NDArray

import sorep as sorep_package
from sorep.errors import UsageError
from sorep.features import FEATURES, compute_feature
from sorep.levels import NO_EMPTY_BAND, ODD_ELECTRONS, TOP_BAND_OCCUPIED
from sorep.method import Calculation
from sorep.single_shot.executable import PwX
from sorep.single_shot.method import SingleShot, SingleShotSettings
from sorep.single_shot.pseudos import DEFAULT_FAMILY
from sorep.single_shot.runner import PwRunner
from sorep.store import FeatureStore
from sorep.structure import Structure

pytestmark = [pytest.mark.pwx, pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING:DeprecationWarning")]

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "structures"
FAKE = ROOT / "tests" / "fake_pw_x.py"
COARSE = 0.5  # 1/Angstrom
SAME, MOVED = 1e-9, 3e-3

Sorep = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module", autouse=True)
def machine(pw_x: PwX, get_family) -> Iterator[None]:
    """The pw.x and the pseudopotentials that the command finds by itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOREP_PW_X", str(pw_x.path))
        patch.setenv("SOREP_DATA", str(get_family(DEFAULT_FAMILY).folder.parents[1]))
        yield


@pytest.fixture
def method(pw_x: PwX, tmp_path) -> Callable[..., SingleShot]:
    """The method with some of its settings."""

    def made(*, by: PwX = pw_x, **settings: Any) -> SingleShot:
        return SingleShot(SingleShotSettings(**{"k_spacing": COARSE, **settings}), PwRunner(by, tmp_path))

    return made


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """An insulator, a semiconductor, three metals, and an element without a pseudopotential."""
    folder = tmp_path_factory.mktemp("inputs") / "crystals"
    folder.mkdir()
    for name in ("si", "al", "mgo", "cu"):
        shutil.copy(EXAMPLES / f"{name}.cif", folder)
    write(folder / "ba.vasp", bulk("Ba"))
    write(folder / "pu.vasp", bulk("Pu", "fcc", a=4.6))
    return folder


@pytest.fixture(scope="module")
def filled(sorep: Sorep, inputs: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A store of them, and what the command said."""
    store = inputs.with_name("store")
    return store, single_shot(sorep, inputs, store)


def single_shot(sorep: Sorep, paths: Path, store: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    features = ("--feature", "vbm", "--feature", "fermi")
    common = ("--store", store, "--k-spacing", str(COARSE), "--jobs", "1")
    return sorep("single-shot", paths, *common, *features, *words)


def feature(calculation: Calculation, name: str = "vbm") -> NDArray[np.float64]:
    return compute_feature(calculation.spectrum, FEATURES[name])


def difference(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    found = float(np.abs(one - other).max() / np.abs(one).max())
    print(f"difference {found:.1e}")
    return found


def example(name: str) -> Structure:
    from ase.io import read

    atoms = read(EXAMPLES / f"{name}.cif")
    assert isinstance(atoms, Atoms)
    return Structure.from_ase(atoms, id=name)


# The command


def test_everything_possible_is_computed_and_the_rest_named_first(filled, inputs: Path) -> None:
    store, result = filled
    assert result.returncode == 3
    assert "5 structures" in result.stdout
    assert "5 computed" in result.stdout
    assert "1 failed, 1 lack a feature: 1 missing-pseudopotential, 1 no-empty-band" in result.stderr
    refusal, outlook = (
        result.stderr.index("has no pseudopotential for Pu"),
        result.stderr.index("5 structures to compute"),
    )
    assert refusal < outlook
    reader = FeatureStore(store)
    assert sorted(reader.matrix("vbm", operator="single-shot").ids) == ["al", "ba", "cu", "mgo", "si"]
    assert sorted(reader.matrix("fermi", operator="single-shot").ids) == ["al", "cu", "mgo", "si"]


def test_a_second_run_computes_nothing(filled, sorep: Sorep, inputs: Path) -> None:
    store, _ = filled
    before = FeatureStore(store).matrix("vbm").values
    result = single_shot(sorep, inputs, store)
    assert result.returncode == 3
    assert "0 computed, 0 share another's, 5 were there" in result.stdout
    assert "structures to compute" not in result.stderr
    assert np.array_equal(FeatureStore(store).matrix("vbm").values, before)


def test_python_gives_the_same_numbers(filled, method) -> None:
    reader = FeatureStore(filled[0])
    for name in ("si", "al", "mgo"):
        calculation = method().calculate(reader.structure(name))
        stored = reader.spectrum(name, operator="single-shot")
        assert np.array_equal(calculation.spectrum.energies, stored.energies)
        assert calculation.spectrum.flags == stored.flags
        matrix = reader.matrix("vbm")
        assert np.array_equal(matrix.values[list(matrix.ids).index(name)], feature(calculation))
    assert method().identity() in reader.spectrum_identities("single-shot")


def test_stored_spectra_say_what_they_are(filled) -> None:
    reader = FeatureStore(filled[0])
    flags = {name: set(reader.spectrum(name).flags) for name in ("si", "al", "mgo", "cu", "ba")}
    assert flags["si"] == flags["mgo"] == set()
    assert flags["al"] == {ODD_ELECTRONS}
    assert flags["cu"] == {ODD_ELECTRONS, TOP_BAND_OCCUPIED}
    assert flags["ba"] == {NO_EMPTY_BAND}
    silicon = reader.spectrum("si")
    assert (silicon.n_electrons, silicon.degeneracy, silicon.n_atoms) == (8, 2, 2)
    assert silicon.eigenvalues.shape[2] == 8
    assert silicon.is_complete


def test_the_store_counts_flags(filled, sorep: Sorep) -> None:
    (line,) = [x for x in sorep("list", "--store", filled[0]).stdout.splitlines() if x.startswith("spectra")]
    assert "operator single-shot" in line
    assert "5 spectra" in line
    assert {"2 odd-electrons", "1 no-empty-band", "1 top-band-occupied"} <= set(line.split(", "))


def test_python_functions_find_everything_by_themselves(filled) -> None:
    silicon = example("si")
    matrix = FeatureStore(filled[0]).matrix("vbm", ids=["si"])
    found = sorep_package.single_shot_feature(silicon.to_ase(), "vbm", k_spacing=COARSE)
    np.testing.assert_allclose(found, matrix.values[0], rtol=0, atol=SAME * matrix.values.max())
    spectrum = sorep_package.single_shot_spectrum(silicon, k_spacing=COARSE, iterations=1)
    assert not spectrum.is_complete
    with pytest.raises(UsageError, match="k_spacing"):
        sorep_package.single_shot_spectrum(silicon, k_spacing=-1.0)


def test_without_an_empty_band_only_what_needs_one_is_refused(filled, sorep: Sorep) -> None:
    listed = sorep("failures", "--store", filled[0])
    assert "[no-empty-band]" in listed.stdout
    assert "ba" in listed.stdout
    assert "use a feature anchored at the VBM" in listed.stdout


def test_a_dry_run_computes_and_stores_nothing(sorep: Sorep, inputs: Path, tmp_path) -> None:
    store = tmp_path / "store"
    result = single_shot(sorep, inputs, store, "--dry-run")
    assert result.returncode == 3
    assert "6 structures: 5 would be computed" in result.stdout
    assert "[missing-pseudopotential]" in result.stdout
    assert not store.exists()


def test_scf_and_steps_are_kept_apart(filled, sorep: Sorep, tmp_path) -> None:
    store = tmp_path / "store"
    for words in (["--scf"], ["--scf-steps", "1"]):
        result = single_shot(sorep, EXAMPLES / "si.cif", store, *words)
        assert result.returncode == 0, result.stderr
        assert "1 computed" in result.stdout
    reader = FeatureStore(store)
    scf, one_step = (reader.matrix("vbm", operator=operator).values[0] for operator in ("scf", "scf-1"))
    before = FeatureStore(filled[0]).matrix("vbm")
    shot = before.values[list(before.ids).index("si")]
    assert min(difference(shot, scf), difference(shot, one_step)) > 0.05
    assert difference(scf, one_step) > 1e-3
    assert not reader.spectrum("si", operator="scf").is_complete


# Spin


def test_spin_changes_iron_and_leaves_magnesium_oxide_alone(sorep: Sorep, method, tmp_path) -> None:
    store = tmp_path / "store"
    crystals = [EXAMPLES / "fe.cif", EXAMPLES / "mgo.cif"]
    result = sorep("single-shot", *crystals, "--spin", "--store", store, "--k-spacing", "0.6", "--feature", "fermi")
    assert result.returncode == 0, result.stderr
    reader = FeatureStore(store)
    spectra = {name: reader.spectrum(name) for name in ("fe", "mgo")}
    unpolarised = {name: method(k_spacing=0.6).calculate(reader.structure(name)).spectrum for name in spectra}
    assert np.array_equal(spectra["mgo"].energies, unpolarised["mgo"].energies)
    assert (spectra["fe"].n_spin, spectra["fe"].degeneracy) == (2, 1)
    up, down = spectra["fe"].eigenvalues
    assert np.mean(down - up) > 0.5  # eV; the exchange splitting
    iron = method(k_spacing=0.6, spin=True, moments={"Fe": -4.0}).calculate(reader.structure("fe")).spectrum
    assert np.abs(iron.eigenvalues - [down, up]).max() < 1e-6


def test_descriptions_of_a_crystal_with_a_screw_axis(crystals, redescribe, method) -> None:
    """Simpler crystals are in test_operators.py."""
    one = method(k_spacing=0.9)
    reference = feature(one.calculate(crystals["anatase"]))
    for what in ("turn", "shuffle", "axes"):
        only = {option: option == what for option in ("turn", "shift", "shuffle", "axes")}
        again = redescribe(crystals["anatase"], seed=11, **only)
        assert difference(reference, feature(one.calculate(again))) < SAME, what
    again = redescribe(crystals["anatase"], (2, 1, 1), seed=5)
    assert difference(reference, feature(one.calculate(again))) < MOVED


# pw.x


def test_an_unpatched_pw_x_gives_the_same(method, stock_pw_x: PwX) -> None:
    for name, spin in (("si", False), ("al", False), ("mgo", False), ("fe", True)):
        settings = {"k_spacing": 0.7, "spin": spin}
        ours, stock = (method(**settings, **by).calculate(example(name)).spectrum for by in ({}, {"by": stock_pw_x}))
        deviation = np.abs(ours.energies - stock.energies).max()
        print(f"{name}: {deviation:.1e} eV")
        assert deviation < 1e-8
        assert ours.flags == stock.flags


def test_two_processes_for_one_structure(method, mpi_pw_x: PwX) -> None:
    ours, two = method().calculate(example("mgo")), method(by=mpi_pw_x).calculate(example("mgo"))
    assert np.abs(ours.spectrum.energies - two.spectrum.energies).max() < 1e-8


def test_atoms_too_close_cost_bands_and_no_more(method) -> None:
    close = Structure("close", 3 * np.eye(3), [1, 1], [[0, 0, 0], [2e-5, 0, 0]])
    spectrum = method(keep_cell=True, symprec=1e-6).calculate(close).spectrum
    assert spectrum.n_removed == len(spectrum.weights)
    assert "linear-dependence" in spectrum.flags
    assert (spectrum.band_counts == 1).all()


# What stops a run before it starts, or early


@pytest.mark.parametrize(
    ("words", "status", "code", "remedy"),
    [
        (["--pw-x", "/nowhere/pw.x"], 1, "pw-x-not-found", "sorep pw build"),
        (["--pw-x", "/bin/true"], 1, "not-pw-x", "sorep pw build"),
        (["--mpi", "no-such-mpirun -n 2"], 1, "launcher-not-found", "install MPI"),
        (["--family", "pseudo-dojo"], 1, "unknown-family", "did you mean pseudo-dojo-0.4"),
        (["--scf", "--scf-steps", "2"], 2, "bad-option", "give one of them"),
        (["--moment", "Fe"], 2, "bad-option", "Fe=2.2"),
        (["--moment", "Fe=2"], 2, "bad-option", "--spin"),
        (["--spin", "--moment", "Xx=2"], 2, "bad-option", "not an element"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_start_says_why(sorep: Sorep, tmp_path, words: list[str], status: int, code: str, remedy: str):
    result = single_shot(sorep, EXAMPLES / "si.cif", tmp_path / "store", *words)
    assert result.returncode == status
    assert f"[{code}]" in result.stderr
    assert remedy in result.stderr
    assert not (tmp_path / "store").exists()


def test_a_pw_x_that_does_not_start_is_found_at_once(sorep: Sorep, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("FAKE_PW_X", "missing-library")
    result = single_shot(sorep, EXAMPLES, tmp_path / "store", "--pw-x", FAKE)
    assert result.returncode == 1
    assert "libopenblas.so.0" in result.stderr
    assert "[missing-library]" in result.stderr
    assert not (tmp_path / "store").exists()


def test_a_run_stops_when_one_structure_after_the_other_fails_for_the_same_reason(
    sorep: Sorep, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("FAKE_PW_X", "disk-full")
    write(tmp_path / "silicon.xyz", [bulk("Si", a=5 + 0.05 * n) for n in range(14)], format="extxyz")
    result = single_shot(sorep, tmp_path / "silicon.xyz", tmp_path / "store", "--pw-x", FAKE)
    assert result.returncode == 1
    assert "10 structures in a row failed for one reason" in result.stderr
    assert "[disk-full]" in result.stderr
    assert "--scratch" in result.stderr
    assert len(FeatureStore(tmp_path / "store").failures()) == 10

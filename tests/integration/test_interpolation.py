"""Interpolated single shots with a real pw.x: unfolding, levels, bands, and what is computed directly after all."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from numpy.typing import NDArray

from sorep.errors import OutputError, UsageError
from sorep.interpolation import InterpolationError, half_mesh, level_difference
from sorep.levels import find_levels
from sorep.meshes import KMesh
from sorep.single_shot.coarse import coarse_divisions, coarse_mesh, unfold
from sorep.single_shot.executable import PwX
from sorep.single_shot.inputs import CONVERGED, Plan
from sorep.single_shot.method import SingleShot, SingleShotSettings
from sorep.single_shot.pseudos import DEFAULT_FAMILY
from sorep.single_shot.runner import PwRunner
from sorep.single_shot.symmetry import OrbitalSymmetry
from sorep.smearing import COLD
from sorep.sources import structures_from
from sorep.spectrum import Spectrum
from sorep.store import FeatureStore
from sorep.structure import Structure

pytestmark = [pytest.mark.pwx, pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING:DeprecationWarning")]

EXAMPLES = Path(__file__).parents[2] / "examples" / "structures"
SSSP = "sssp-1.3-pbe-efficiency"
GRID = 5e-4  # eV; pw.x's potential lives on a grid that lacks some symmetries: at most 2e-4 eV were seen

Method = Callable[..., SingleShot]


@pytest.fixture(scope="module", autouse=True)
def machine(pw_x: PwX, get_family) -> Iterator[None]:
    """The pw.x and the pseudopotentials that the command finds by itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOREP_PW_X", str(pw_x.path))
        patch.setenv("SOREP_DATA", str(get_family(DEFAULT_FAMILY).folder.parents[1]))
        yield


@pytest.fixture
def method(pw_x: PwX, get_family, tmp_path, monkeypatch) -> Method:
    """The method with some of its settings."""

    def made(*, by: PwX = pw_x, family: str = DEFAULT_FAMILY, **settings: Any) -> SingleShot:
        monkeypatch.setenv("SOREP_DATA", str(get_family(family).folder.parents[1]))
        return SingleShot(SingleShotSettings(family=family, **settings), PwRunner(by, tmp_path))

    return made


def example(name: str) -> Structure:
    (structure,) = structures_from(EXAMPLES / f"{name}.cif")
    assert isinstance(structure, Structure)
    return structure


def matrices(one: SingleShot, plan: Plan, kpoints: NDArray[np.float64]) -> NDArray[np.complex128]:
    """H and S as pw.x computes them, (n_spin, 2, n_k, n, n)."""
    mesh = KMesh(plan.mesh.divisions, kpoints, np.full(len(kpoints), 1 / len(kpoints)))
    found = one.runner.run(replace(plan, mesh=mesh, writes_matrices=True), "matrices").matrices
    pairs = np.array([[m.hamiltonian, m.overlap] for m in found])
    return pairs.reshape(plan.n_spin, len(kpoints), *pairs.shape[1:]).swapaxes(1, 2)


def rms(one: Spectrum, other: Spectrum) -> float:
    """Of the levels up to 5 eV above the CBM or Fermi energy, eV."""
    levels = find_levels(one, COLD, 0.1)
    assert levels.cbm is not None
    assert np.allclose(one.kpoints, other.kpoints, rtol=0, atol=1e-9)
    return level_difference(one.energies, other.energies, one.state_weights, levels.cbm + 5)


@pytest.mark.parametrize(
    ("name", "settings", "length"),
    [
        ("si", {}, 14.0),
        ("zno", {}, 9.0),  # a screw axis
        ("tio2_rutile", {}, 8.0),  # a grid without the fourfold screw axis
        ("batio3_rhombohedral", {}, 7.0),
        ("fe", {"spin": True}, 8.0),
        ("si", {"family": SSSP}, 9.0),  # ultrasoft
        ("al", {"family": SSSP}, 9.0),
        ("fe", {"family": SSSP, "spin": True}, 7.0),  # PAW
        ("mgo", {"family": SSSP}, 7.0),
    ],
    ids=str,
)
def test_irreducible_points_give_all(method: Method, name: str, settings: dict[str, Any], length: float) -> None:
    one = method(**settings)
    plan = one.plan(example(name))
    divisions = coarse_divisions(plan.cell, length)
    mesh = coarse_mesh(plan.cell, divisions)
    symmetry = OrbitalSymmetry(plan.cell, mesh.group, plan.shells)
    assert len(mesh.irreducible) <= len(mesh.source) / 2
    full = matrices(one, plan, half_mesh(divisions) / divisions)
    for of_spin, expected in zip(matrices(one, plan, mesh.irreducible.kpoints), full, strict=True):
        found = unfold(mesh, symmetry, of_spin)
        assert np.abs(found[1] - expected[1]).max() < 1e-12
        assert np.abs(found[0] - expected[0]).max() < (GRID if name == "tio2_rutile" else 1e-6)


@pytest.mark.parametrize(
    ("name", "family"),
    [("si", DEFAULT_FAMILY), ("cu", DEFAULT_FAMILY), ("al", DEFAULT_FAMILY), ("si", SSSP), ("mgo", SSSP)],
)
def test_levels_are_those_of_the_dense_mesh(method: Method, name: str, family: str) -> None:
    settings = {"k_spacing": 0.18, "family": family}
    found, direct = (method(**settings, interpolate=way).calculate(example(name)).spectrum for way in (True, False))
    assert 0 < rms(direct, found) < 1e-3
    assert found.flags == direct.flags
    assert np.allclose(found.weights, direct.weights)
    assert np.array_equal(found.band_counts, direct.band_counts)
    assert (found.n_electrons, found.degeneracy, found.is_complete) == (direct.n_electrons, direct.degeneracy, True)


def test_two_spins(method: Method) -> None:
    settings = {"k_spacing": 0.25, "spin": True}
    found, direct = (method(**settings, interpolate=way).calculate(example("fe")).spectrum for way in (True, False))
    up, down = found.eigenvalues
    assert np.mean(down - up) > 0.5
    assert found.degeneracy == 1
    assert 0 < rms(direct, found) < 1e-3


def test_a_grid_that_lacks_symmetries(method: Method, crystals) -> None:
    """The potential of hcp magnesium does not have the sixfold axis."""
    magnesium = crystals["magnesium"]
    found = method(k_spacing=0.3, supercell=19.0).calculate(magnesium).spectrum
    direct = method(k_spacing=0.3, interpolate=False).calculate(magnesium).spectrum
    assert found.flags == direct.flags
    assert 0 < np.abs(found.energies - direct.energies).max() < 2e-3
    turned = found.kpoints @ np.linalg.inv(np.array([[0, -1, 0], [1, -1, 0], [0, 0, 1]]))  # a threefold axis
    (operator,) = method(supercell=19.0).bloch_operators(magnesium).operators
    one, other = (np.array(operator.eigenvalues(kpoints)) for kpoints in (found.kpoints, turned))
    assert np.abs(one - other).max() < 1e-8


def test_bands_at_any_k_point(method: Method) -> None:
    one = method(spin=True)
    found = one.bloch_operators(example("fe"))
    kpoints = np.array([[0, 0, 0], [0.25, 0.25, 0.25], [0.137, -0.291, 0.402], [0.5, 0, 0]])
    assert (found.degeneracy, found.n_electrons, len(found.operators)) == (1, 16, 2)
    plan = one.plan(example("fe"))
    assert np.array_equal(found.cell.structure.lattice, plan.cell.structure.lattice)
    for operator, (h, s) in zip(found.operators, matrices(one, plan, kpoints), strict=True):
        expected = [scipy.linalg.eigvalsh(h_k, s_k) for h_k, s_k in zip(h, s, strict=True)]
        assert np.abs(operator.eigenvalues(kpoints) - np.array(expected)).max() < 1e-3


def test_the_error_is_estimated_from_a_larger_supercell(method: Method) -> None:
    one = method(supercell=19.0, k_spacing=0.3)
    direct = method(k_spacing=0.3, interpolate=False).calculate(example("si")).spectrum
    operators = one.bloch_operators(example("si")).operators
    energies = np.concatenate(operators[0].eigenvalues(direct.kpoints))
    error = rms(direct, replace(direct, energies=energies))
    assert one.interpolation_error(example("si")) == pytest.approx(error, rel=0.1)
    assert method(k_spacing=0.3).interpolation_error(example("si")) < 0.1 * error


# What is computed directly after all


def test_a_supercell_that_is_too_small(method: Method) -> None:
    small, direct = ({"supercell": 11.0, "k_spacing": 0.3}, {"interpolate": False, "k_spacing": 0.3})
    found, expected = (method(**settings).calculate(example("al")).spectrum for settings in (small, direct))
    assert np.array_equal(found.energies, expected.energies)
    assert set(found.flags) == {*expected.flags, "interpolation-refused:slow-decay"}
    with pytest.raises(InterpolationError) as caught:
        method(**small).bloch_operators(example("al"))
    assert caught.value.code == "slow-decay"
    assert "--supercell" in caught.value.remedy


def test_a_mesh_with_no_more_points_than_the_coarse_one(method: Method) -> None:
    found, direct = (method(k_spacing=0.4, interpolate=way).calculate(example("mgo")).spectrum for way in (True, False))
    assert np.array_equal(found.energies, direct.energies)
    assert found.flags == direct.flags


def test_linearly_dependent_orbitals(method: Method) -> None:
    close = Structure("close", 3 * np.eye(3), [1, 1], [[0, 0, 0], [2e-5, 0, 0]])
    spectrum = method(keep_cell=True, symprec=1e-6, k_spacing=0.5, supercell=9.0).calculate(close).spectrum
    assert {"linear-dependence", "interpolation-refused:linear-dependence"} <= set(spectrum.flags)
    assert spectrum.n_removed == len(spectrum.weights)


def test_a_stock_pw_x_writes_no_matrices(method: Method, stock_pw_x: PwX) -> None:
    one = method(by=stock_pw_x, k_spacing=0.25)
    found = one.calculate(example("si")).spectrum
    direct = method(interpolate=False, k_spacing=0.25).calculate(example("si")).spectrum
    assert np.abs(found.energies - direct.energies).max() < 1e-8
    assert found.flags == ("interpolation-refused:stock-pw-x",)
    with pytest.raises(InterpolationError) as caught:
        one.bloch_operators(example("si"))
    assert "sorep pw build" in caught.value.remedy
    with pytest.raises(OutputError) as unwritten:
        one.runner.run(replace(one.plan(example("si")), writes_matrices=True), "si")
    assert unwritten.value.code == "no-matrices"


def test_an_scf_has_no_operators(method: Method) -> None:
    with pytest.raises(UsageError) as caught:
        method(iterations=CONVERGED).bloch_operators(example("si"))
    assert caught.value.code == "bad-option"


# The command


def test_the_command_interpolates(sorep: Callable[..., subprocess.CompletedProcess[str]], tmp_path) -> None:
    common = (EXAMPLES / "si.cif", "--store", tmp_path / "store", "--feature", "vbm", "--jobs", "1")
    direct = sorep("single-shot", *common, "--direct", "--dry-run")
    assert "k mesh of 0.15 1/Angstrom, computed directly" in direct.stderr
    dry = direct.stdout.split()
    assert int(dry[dry.index("si") + 3]) == 104
    result = sorep("single-shot", *common, "--supercell", "22.5")
    assert result.returncode == 0, result.stderr
    assert "1 computed" in result.stdout
    assert "k mesh of 0.1 1/Angstrom, interpolated" in result.stderr
    (identity,) = FeatureStore(tmp_path / "store").spectrum_identities("single-shot")
    assert [identity.words[name] for name in ("interpolate", "supercell", "k_spacing")] == [True, 22.5, 0.1]
    assert len(FeatureStore(tmp_path / "store").spectrum("si").weights) == 286

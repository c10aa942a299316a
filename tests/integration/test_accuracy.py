"""Eigenvalues against PySCF's own periodic integrals and LAPACK, from the basis file to the spectrum.

The reference shares no code with the package: PySCF reads the basis file, sums over the lattice at a precision of 1e-12
and normalises the functions in its own way, which eigenvalues do not depend on. Both work in Bohr with one constant.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from numpy.typing import NDArray

from sorep.kinetic.basis import load_basis
from sorep.kinetic.method import KineticSettings
from sorep.kinetic.operators import DEFAULT_PRECISION, KINETIC, OVERLAP
from sorep.kinetic.orbitals import Orbitals
from sorep.structure import Structure
from sorep.units import BOHR_IN_ANGSTROM, HARTREE_IN_EV

BASIS_SETS = Path(__file__).parents[2] / "basis_sets"
KPOINTS = np.array([[0, 0, 0], [0.5, 0, 0.5], [0.13, -0.29, 0.41]])
FULL = "ano-ml-os"

CASES = [
    pytest.param("silicon", FULL, 0.0, id="silicon"),
    pytest.param("germanium", FULL, 0.0, id="germanium"),
    pytest.param("nacl", FULL, 0.0, id="nacl"),
    pytest.param("triclinic", FULL, 0.0, id="triclinic"),
    pytest.param("skewed-silicon", FULL, 0.0, id="skewed silicon"),
    pytest.param("nanotube", FULL, 0.0, id="nanotube"),
    pytest.param("batio3", FULL, 0.0, id="batio3"),
    pytest.param("distorted-batio3", FULL, 0.0, id="distorted batio3"),
    pytest.param("ceria", FULL, 0.0, id="ceria with f functions"),
    pytest.param("silicon", "ano-ml-ae", 0.0, id="silicon all electrons"),
    pytest.param("nacl", "ano-ml-ae", 0.0, id="nacl all electrons"),
    pytest.param("germanium", "ano-ml-ae", 0.1, id="germanium all electrons discarded"),
    pytest.param("batio3", FULL, 0.1, id="batio3 discarded"),
    pytest.param("nanotube", FULL, 0.1, id="nanotube discarded"),
    pytest.param("batio3", "ano-ml-os-published", 0.1, id="batio3 published"),
]


def kpoints_of(name: str) -> NDArray[np.float64]:
    return np.array([[0, 0, 0], [0.1, -0.2, 0.31]]) if name == "nanotube" else KPOINTS


@pytest.fixture(scope="module")
def structures(crystals) -> dict[str, Structure]:
    silicon = crystals["silicon"]
    # The same lattice by long, nearly parallel vectors: reduced ones are nobody's duty.
    skew = np.array([[1, 0, 0], [3, 1, 0], [-2, 4, 1]])
    skewed = Structure("skewed-silicon", skew @ silicon.lattice, [14, 14], silicon.positions @ np.linalg.inv(skew))
    fcc = 5.41 / 2 * (1 - np.eye(3))
    ceria = Structure("ceria", fcc, [58, 8, 8], [[0, 0, 0], [0.25] * 3, [0.75] * 3])
    return {**crystals, "skewed-silicon": skewed, "ceria": ceria}


@pytest.fixture(scope="module")
def reference(structures):
    """T(k) and S(k) by PySCF, computed once for each case and left as they are."""

    @cache
    def matrices(name: str, basis: str, discard_below: float) -> tuple[NDArray, NDArray]:
        cell = pyscf_cell(structures[name], basis, discard_below)
        absolute = cell.get_abs_kpts(kpoints_of(name))
        return tuple(np.array(cell.pbc_intor(i, kpts=absolute)) for i in ("int1e_kin", "int1e_ovlp"))

    return matrices


def pyscf_cell(structure: Structure, basis: str, discard_below: float):
    from pyscf.pbc.gto import Cell

    cell = Cell()
    # PySCF's own Bohr constant differs in the tenth digit; lengths in Bohr keep it out.
    cell.unit = "Bohr"
    cell.a = structure.lattice / BOHR_IN_ANGSTROM
    symbols = structure.to_ase().get_chemical_symbols()
    cell.atom = list(zip(symbols, structure.positions @ cell.a, strict=True))
    cell.basis = {symbol: pyscf_basis(basis, symbol, discard_below) for symbol in set(symbols)}
    cell.spin = None
    cell.precision = 1e-12
    cell.verbose = 0
    return cell.build(dump_input=False, parse_arg=False)


def pyscf_basis(name: str, symbol: str, discard_below: float) -> list[list[Any]]:
    from pyscf.gto.basis import parse_nwchem

    shells = []
    for momentum, *primitives in parse_nwchem.load(str(BASIS_SETS / f"{name}.nw"), symbol):
        kept = np.array([row for row in primitives if row[0] >= discard_below]).reshape(-1, len(primitives[0]))
        columns = kept[:, [True, *kept[:, 1:].any(axis=0)]]
        if columns.shape[1] > 1:
            shells.append([momentum, *columns.tolist()])
    return shells


@pytest.mark.parametrize(("name", "basis", "discard_below"), CASES)
class TestAgainstPyscf:
    def test_kinetic(self, structures, reference, name: str, basis: str, discard_below: float) -> None:
        kinetic, overlap = reference(name, basis, discard_below)
        expected = [scipy.linalg.eigh(t, s, eigvals_only=True) for t, s in zip(kinetic, overlap, strict=True)]
        orbitals = Orbitals.of(structures[name], load_basis(basis, discard_below=discard_below))
        assert orbitals.n_functions == kinetic.shape[1]
        found = KINETIC.bloch_operator(orbitals, n_kpoints=len(expected)).eigenvalues(kpoints_of(name))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)

    def test_overlap(self, structures, reference, name: str, basis: str, discard_below: float) -> None:
        _, overlap = reference(name, basis, discard_below)
        # Unlike that of the pencil, the spectrum of S depends on the functions' norms, which are one for both.
        orbitals = Orbitals.of(structures[name], load_basis(basis, discard_below=discard_below))
        found = OVERLAP.bloch_operator(orbitals).eigenvalues(kpoints_of(name))
        np.testing.assert_allclose(found, np.linalg.eigvalsh(overlap), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "basis", "splits"),
    [
        ("silicon", FULL, (0.05, 0.1, 0.2)),
        ("skewed-silicon", FULL, (0.05, 0.2)),
        ("triclinic", FULL, (0.05, 0.1, 0.2)),
        ("distorted-batio3", FULL, (0.05, 0.1, 0.2)),
        ("nacl", "ano-ml-ae", (0.05, 0.1, 0.2)),
        ("nanotube", FULL, (0.05,)),
    ],
)
@pytest.mark.parametrize(("precision", "tolerance"), [(1e-12, 1e-10), (DEFAULT_PRECISION, 1e-9)])
def test_the_split_exponent_changes_nothing(
    structures, name: str, basis: str, splits: tuple[float, ...], precision: float, tolerance: float
) -> None:
    orbitals = Orbitals.of(structures[name], load_basis(basis))
    kpoints = kpoints_of(name)
    for operator in (KINETIC, OVERLAP):
        whole = operator.bloch_operator(orbitals, split=0.0, precision=precision).eigenvalues(kpoints)
        for split in splits:
            found = operator.bloch_operator(orbitals, split=split, precision=precision).eigenvalues(kpoints)
            np.testing.assert_allclose(found, whole, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ["silicon", "germanium", "batio3"])
def test_chunks_change_nothing(structures, name: str) -> None:
    operator = KINETIC.bloch_operator(Orbitals.of(structures[name], load_basis(FULL)), split=0.1)
    kpoints = np.random.default_rng(0).uniform(-1, 1, (17, 3))
    at_once = operator.eigenvalues(kpoints)
    for chunk_bytes in (1, 100_000):
        np.testing.assert_allclose(operator.eigenvalues(kpoints, chunk_bytes=chunk_bytes), at_once, atol=1e-11)


@pytest.mark.parametrize("name", ["silicon", "distorted-batio3"])
def test_bands_are_periodic_and_reversible(structures, name: str) -> None:
    operator = KINETIC.bloch_operator(Orbitals.of(structures[name], load_basis(FULL)), split=0.1)
    bands = operator.eigenvalues(KPOINTS)
    np.testing.assert_allclose(operator.eigenvalues(KPOINTS + np.array([1, -2, 3])), bands, atol=1e-9)
    np.testing.assert_allclose(operator.eigenvalues(-KPOINTS), bands, atol=1e-10)


@pytest.mark.parametrize("operator", ["kinetic", "overlap"])
def test_the_spectrum_of_the_whole_method(structures, operator: str) -> None:
    """Settings to spectrum: the computed cell and its mesh given to PySCF, in electronvolts."""
    calculation = KineticSettings(k_spacing=0.8, operator=operator).calculate(structures["germanium"])
    spectrum = calculation.spectrum
    cell = pyscf_cell(calculation.cell.structure, FULL, 0.0)
    absolute = cell.get_abs_kpts(spectrum.kpoints)
    kinetic, overlap = (cell.pbc_intor(i, kpts=absolute) for i in ("int1e_kin", "int1e_ovlp"))
    if operator == "overlap":
        expected = [np.linalg.eigvalsh(s) for s in overlap]
    else:
        pencils = zip(kinetic, overlap, strict=True)
        expected = [HARTREE_IN_EV * scipy.linalg.eigh(t, s, eigvals_only=True) for t, s in pencils]
    np.testing.assert_allclose(spectrum.eigenvalues[0], expected, rtol=0, atol=1e-8 * HARTREE_IN_EV)

"""Operators: their traces, their spectra, and a new one made from its definition alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.constants import physical_constants

from sorep.errors import UsageError
from sorep.kinetic.basis import load_basis
from sorep.kinetic.operators import DEFAULT_PRECISION, KINETIC, OPERATORS, OVERLAP, OneElectronOperator, get_operator
from sorep.kinetic.orbitals import Orbitals
from sorep.kinetic.work import CostModel
from sorep.units import HARTREE_IN_EV

KPOINTS = np.array([[0, 0, 0], [0.5, 0, 0.5], [0.13, -0.29, 0.41]])
QUARTIC = OneElectronOperator("quartic", "int1e_p4_sph", lambda q2: q2**2, unit=1.0)


@pytest.fixture
def orbitals(crystals) -> Orbitals:
    return Orbitals.of(crystals["triclinic"], load_basis("ano-ml-os"))


def test_lookup() -> None:
    assert get_operator("kinetic") is KINETIC
    assert get_operator(QUARTIC) is QUARTIC
    assert all(name == operator.name for name, operator in OPERATORS.items())
    with pytest.raises(UsageError, match="momentum") as caught:
        get_operator("momentum")
    assert caught.value.code == "unknown-operator"
    assert "overlap" in caught.value.remedy


def test_units() -> None:
    assert KINETIC.unit == HARTREE_IN_EV == physical_constants["Hartree energy in eV"][0]
    assert OVERLAP.unit == 1.0


def test_sum_rules(orbitals: Orbitals) -> None:
    operator = KINETIC.bloch_operator(orbitals)
    kinetic, overlap = operator.matrices(KPOINTS)
    assert overlap is not None
    for e, t, s in zip(operator.eigenvalues(KPOINTS), kinetic, overlap, strict=True):
        product = np.linalg.solve(s, t)
        assert e.sum() == pytest.approx(np.trace(product).real, rel=1e-11)
        assert (e**2).sum() == pytest.approx(np.trace(product @ product).real, rel=1e-11)
    overlaps = OVERLAP.bloch_operator(orbitals).eigenvalues(KPOINTS)
    np.testing.assert_allclose([e.sum() for e in overlaps], np.trace(overlap, axis1=1, axis2=2).real, rtol=1e-12)


def test_the_overlap_is_the_same_matrix_for_both(orbitals: Orbitals) -> None:
    alone, nothing = OVERLAP.bloch_operator(orbitals, split=0.1).matrices(KPOINTS)
    assert nothing is None
    np.testing.assert_allclose(alone, KINETIC.bloch_operator(orbitals, split=0.1).matrices(KPOINTS)[1], atol=1e-14)


def test_the_mean_overlap_over_k_is_the_overlap_within_the_home_cell(orbitals: Orbitals) -> None:
    # The inverse transform at R = 0, whose diagonal elements are the norms.
    grid = (np.arange(12) + 0.5) / 12
    kpoints = np.stack(np.meshgrid(grid, grid, grid, indexing="ij"), -1).reshape(-1, 3)
    overlap = OVERLAP.bloch_operator(orbitals, n_kpoints=len(kpoints)).matrices(kpoints)[0].mean(axis=0)
    np.testing.assert_allclose(np.diag(overlap), 1.0, atol=1e-4)  # images 12 cells away still overlap a little


@pytest.mark.parametrize("operator", [KINETIC, OVERLAP, QUARTIC], ids=lambda o: o.name)
def test_the_split_and_the_number_of_k_points_change_nothing(operator: OneElectronOperator, orbitals: Orbitals) -> None:
    reference = operator.bloch_operator(orbitals, split=0.0).eigenvalues(KPOINTS)
    for options in ({"split": 0.1}, {"split": 0.2}, {"n_kpoints": 1}, {"n_kpoints": 10_000}):
        found = operator.bloch_operator(orbitals, **options).eigenvalues(KPOINTS)
        np.testing.assert_allclose(found, reference, atol=1e-10)


def test_a_new_operator_by_its_definition(orbitals: Orbitals) -> None:
    # <p^4> >= <p^2>^2 for every normalised function, and T = p^2 / 2.
    quartic, overlap = QUARTIC.bloch_operator(orbitals).matrices(KPOINTS)
    kinetic = KINETIC.bloch_operator(orbitals).matrices(KPOINTS)[0]
    assert overlap is not None
    norm = np.diagonal(overlap, axis1=1, axis2=2).real
    mean_square = 2 * np.diagonal(kinetic, axis1=1, axis2=2).real / norm
    assert (np.diagonal(quartic, axis1=1, axis2=2).real / norm >= mean_square**2).all()


def test_the_cheapest_split_is_the_default(orbitals: Orbitals) -> None:
    for n_kpoints in (1, 500):
        split = CostModel(orbitals, DEFAULT_PRECISION).cheapest_split(n_kpoints)
        chosen = KINETIC.bloch_operator(orbitals, n_kpoints=n_kpoints)
        assert len(chosen.terms) == (2 if split > orbitals.lowest_exponent else 1)
        expected = KINETIC.bloch_operator(orbitals, split=split).matrices(KPOINTS)[0]
        np.testing.assert_array_equal(chosen.matrices(KPOINTS)[0], expected)


def test_precision_is_what_is_neglected(orbitals: Orbitals) -> None:
    exact = KINETIC.bloch_operator(orbitals, precision=1e-14).matrices(KPOINTS)[0]
    errors = []
    for precision in (1e-6, 1e-8, 1e-10):
        found = KINETIC.bloch_operator(orbitals, precision=precision).matrices(KPOINTS)[0]
        errors.append(np.abs(found - exact).max())
        assert errors[-1] < 30 * precision
    assert errors[0] > errors[-1]

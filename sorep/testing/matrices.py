"""What A(k) and S(k) must be, for methods that have `bloch_operators`: the mathematics of A(k) c = e S(k) c."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sorep.bloch import BlochOperator, Operators
from sorep.method import Method
from sorep.structure import Structure
from sorep.testing.comparison import EXACT, not_applicable, require, require_same_levels, scale

_NAMED = np.array([[0, 0, 0], [0.5, 0, 0.5]])  # k points at which a matrix may be real
_N_RANDOM = 3


def check_hermiticity(method: Method, structure: Structure, rng: np.random.Generator, tolerance: float = EXACT) -> None:
    """A(k) and S(k) equal their conjugate transposes."""
    for name, matrices in _matrices(method, structure, _kpoints(rng)):
        found = np.abs(matrices - matrices.conj().transpose(0, 2, 1)).max() / np.abs(matrices).max()
        require(found <= tolerance, f"{name}(k) differs from its adjoint by {found:.1e} of its largest element")


def check_positive_overlap(method: Method, structure: Structure, rng: np.random.Generator) -> None:
    """No eigenvalue of S(k) is negative, but for rounding."""
    overlaps = [matrices for name, matrices in _matrices(method, structure, _kpoints(rng)) if name == "S"]
    if not overlaps:
        raise not_applicable("the operator has no overlap matrix")
    for overlap in overlaps:
        values = np.linalg.eigvalsh(overlap)
        require(values.min() > -1e-12 * values.max(), f"S(k) has the eigenvalue {values.min():.3g}")


def check_trace(method: Method, structure: Structure, rng: np.random.Generator, tolerance: float = EXACT) -> None:
    """The eigenvalues at each k add up to the trace of S^-1 A."""
    kpoints = _kpoints(rng)
    for operator in _operators(method, structure).operators:
        a, s = operator.matrices(kpoints)
        for k, found in enumerate(operator.eigenvalues(kpoints)):
            if len(found) < operator.n_functions:
                continue  # S is singular
            product = a[k] if s is None else np.linalg.solve(s[k], a[k])
            expected = float(np.trace(product).real)
            allowed = tolerance * float(np.abs(found).sum())
            require(
                abs(found.sum() - expected) <= allowed,
                f"eigenvalues at {kpoints[k].round(3)} add up to {found.sum():.10g}, and tr(S^-1 A) is {expected:.10g}",
            )


def check_time_reversal(
    method: Method, structure: Structure, rng: np.random.Generator, tolerance: float = EXACT
) -> None:
    """A(-k) = A(k)* and S(-k) = S(k)*."""
    kpoints = _kpoints(rng)
    there, back = _matrices(method, structure, kpoints), _matrices(method, structure, -kpoints)
    for (name, one), (_, other) in zip(there, back, strict=True):
        found = np.abs(one.conj() - other).max() / np.abs(one).max()
        require(found <= tolerance, f"{name}(-k) differs from {name}(k)* by {found:.1e} of its largest element")


def check_periodicity(method: Method, structure: Structure, rng: np.random.Generator, tolerance: float = EXACT) -> None:
    """The spectrum at k + G is that at k."""
    kpoints = _kpoints(rng)
    further = kpoints + rng.integers(-2, 3, kpoints.shape)
    for operator in _operators(method, structure).operators:
        _require_equal(operator, kpoints, further, tolerance, "k + G")


def check_point_group(method: Method, structure: Structure, rng: np.random.Generator, tolerance: float = EXACT) -> None:
    """The spectrum at a rotated k is that at k, for every rotation of the crystal."""
    found = _operators(method, structure)
    (kpoint,) = rng.uniform(-0.5, 0.5, (1, 3))
    star = kpoint @ found.cell.rotations
    for operator in found.operators:
        _require_equal(operator, np.tile(kpoint, (len(star), 1)), star, tolerance, "the rotated k point")


def check_operators(method: Method, structure: Structure, rng: np.random.Generator, tolerance: float = EXACT) -> None:
    """`bloch_operators` have the eigenvalues that `calculate` returns, at its k points and in its cell."""
    found = _operators(method, structure)
    calculation = method.calculate(structure)
    spectrum, cell = calculation.spectrum, calculation.cell
    for name in ("lattice", "positions", "numbers"):
        one, other = getattr(cell.structure, name), getattr(found.cell.structure, name)
        require(one.shape == other.shape and np.allclose(one, other), f"operators and spectrum differ in their {name}")
    require(found.degeneracy == spectrum.degeneracy, f"degeneracy {found.degeneracy} against {spectrum.degeneracy}")
    require(found.n_electrons == spectrum.n_electrons, f"{found.n_electrons} electrons against {spectrum.n_electrons}")
    levels = [e * found.unit for operator in found.operators for e in operator.eigenvalues(spectrum.kpoints)]
    require_same_levels(levels, spectrum.energies, tolerance, "the operators")


def _kpoints(rng: np.random.Generator) -> NDArray[np.float64]:
    return np.concatenate([_NAMED, rng.uniform(-0.5, 0.5, (_N_RANDOM, 3))])


def _operators(method: Method, structure: Structure) -> Operators:
    bloch_operators = getattr(method, "bloch_operators", None)
    if bloch_operators is None:
        raise not_applicable("the method has no bloch_operators")
    return bloch_operators(structure)


def _matrices(
    method: Method, structure: Structure, kpoints: NDArray[np.float64]
) -> Iterator[tuple[str, NDArray[np.complex128]]]:
    for operator in _operators(method, structure).operators:
        a, s = operator.matrices(kpoints)
        yield "A", a
        if s is not None:
            yield "S", s


def _require_equal(
    operator: BlochOperator, kpoints: NDArray[np.float64], others: NDArray[np.float64], tolerance: float, where: str
) -> None:
    both = zip(kpoints, others, operator.eigenvalues(kpoints), operator.eigenvalues(others), strict=True)
    for k, other, one, again in both:
        require(len(one) == len(again), f"{len(one)} levels at {k.round(3)}, {len(again)} at {where} {other.round(3)}")
        moved = np.abs(one - again).max(initial=0.0) / max(scale(one), np.finfo(float).tiny)
        require(moved <= tolerance, f"levels at {k.round(3)} and at {where} {other.round(3)} differ by {moved:.1e}")

"""The reciprocal-space share of a Bloch sum: everything in which a diffuse primitive takes part.

With phi = c + d and the Fourier transform phi(q) of a Gaussian known in closed form,

    A(k) -> (1/V) sum_q f(q) [ c* d + d* c + d* d ](q),     q = k + G,

where f = 1 for the overlap and q^2 / 2 for the kinetic energy. d(q) decays as exp(-q^2 / 4 a0), so few vectors suffice.
A primitive r^l exp(-a r^2) Y_lm has the transform (-i)^l (pi/a)^(3/2) (2a)^(-l) q^l Y_lm(q) exp(-q^2 / 4a).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pyscf import gto

from sorep.kinetic.orbitals import ElementShells, Orbitals

Multiplier = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""f of the docstring above: from q^2 (Bohr^-2) to the operator's value on a plane wave (Hartree)."""

_BATCH = 4096  # plane waves whose transforms are held at once


class ReciprocalTerm:
    """Matrices of plane-wave-diagonal operators between diffuse parts and whole functions.

    Parameters
    ----------
    orbitals : Orbitals
    multipliers : sequence of callables
        One for each operator.
    split : float
        The exponent a0, Bohr^-2.
    precision : float
        Plane waves whose share is below this are left out, Hartree.
    """

    def __init__(self, orbitals: Orbitals, multipliers: Sequence[Multiplier], split: float, precision: float) -> None:
        self._orbitals = orbitals
        self._multipliers = tuple(multipliers)
        self._diffuse = [e.diffuse(split) for e in orbitals.elements]
        self._radius = reciprocal_radius(split, precision)
        self._reciprocal = 2 * np.pi * np.linalg.inv(orbitals.lattice).T
        self._rows = np.concatenate(
            [
                offset + self._diffuse[e].function_indices
                for offset, e in zip(orbitals.offsets, orbitals.element_of, strict=True)
            ]
        )

    def matrices(self, kpoints: NDArray[np.float64]) -> NDArray[np.complex128]:
        n = self._orbitals.n_functions
        result = np.zeros((len(self._multipliers), len(kpoints), n, n), dtype=complex)
        for batch in _batches(self._vectors(kpoints)):
            self._accumulate(batch, result)
        result += result.conj().transpose(0, 1, 3, 2)
        result /= self._orbitals.volume
        return result

    def _vectors(self, kpoints: NDArray[np.float64]) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """For each k point its index and all k + G within the radius, fractional."""
        # |G_i| <= |G| |a_i| / 2 pi bounds each index; one box serves all k points.
        reach = self._radius * np.linalg.norm(self._orbitals.lattice, axis=1) / (2 * np.pi)
        reach = np.ceil(reach + np.abs(kpoints).max(axis=0)).astype(int)
        box = np.stack(np.meshgrid(*(np.arange(-m, m + 1) for m in reach), indexing="ij"), -1).reshape(-1, 3)
        farthest = self._radius + np.linalg.norm(kpoints @ self._reciprocal, axis=1).max()
        box = box[((box @ self._reciprocal) ** 2).sum(axis=1) <= farthest**2]
        for index, k in enumerate(kpoints):
            vectors = k + box
            yield index, vectors[((vectors @ self._reciprocal) ** 2).sum(axis=1) <= self._radius**2]

    def _accumulate(self, batch: Sequence[tuple[int, NDArray[np.float64]]], out: NDArray[np.complex128]) -> None:
        """Add d^dagger f (phi - d/2) to the rows of diffuse functions; its Hermitian part is the whole share."""
        vectors = np.concatenate([v for _, v in batch])
        cartesian = vectors @ self._reciprocal
        squares = (cartesian**2).sum(axis=1)
        harmonics = [solid_harmonics(degree, cartesian) for degree in range(self._l_max + 1)]
        phases = np.exp(-2j * np.pi * self._orbitals.positions @ vectors.T)
        transforms = []
        for element, diffuse in zip(self._orbitals.elements, self._diffuse, strict=True):
            of_diffuse = _transform(diffuse, squares, harmonics)
            half = _transform(element, squares, harmonics)
            half[diffuse.function_indices] -= 0.5 * of_diffuse
            transforms.append((half, of_diffuse))
        species = self._orbitals.element_of
        right = np.concatenate([transforms[e][0] * phase for e, phase in zip(species, phases, strict=True)])
        left = np.concatenate([transforms[e][1] * phase for e, phase in zip(species, phases, strict=True)]).conj()
        factors = [multiplier(squares) for multiplier in self._multipliers]
        start = 0
        for k, own in batch:
            part = slice(start, start := start + len(own))
            for matrices, factor in zip(out, factors, strict=True):
                matrices[k, self._rows] += (left[:, part] * factor[part]) @ right[:, part].T

    @property
    def _l_max(self) -> int:
        return max(s.angular_momentum for e in self._orbitals.elements for s in e.shells)


def _batches(
    vectors: Iterable[tuple[int, NDArray[np.float64]]],
) -> Iterator[list[tuple[int, NDArray[np.float64]]]]:
    """Group the plane waves of successive k points, cutting those of one k point where there are many."""
    batch: list[tuple[int, NDArray[np.float64]]] = []
    size = 0
    for k, all_vectors in vectors:
        for start in range(0, len(all_vectors), _BATCH):
            own = all_vectors[start : start + _BATCH]
            if size + len(own) > _BATCH:
                yield batch
                batch, size = [], 0
            batch.append((k, own))
            size += len(own)
    if batch:
        yield batch


def reciprocal_radius(split: float, precision: float) -> float:
    """Length (1/Bohr) beyond which plane waves no longer matter: sqrt(4 a0 ln(1/eps)), with a margin for q^2."""
    return float(np.sqrt(4 * split * (np.log(1 / precision) + 3.0)))


def _transform(
    element: ElementShells, squares: NDArray[np.float64], harmonics: Sequence[NDArray[np.float64]]
) -> NDArray[np.complex128]:
    """Fourier transforms of an element's functions about the origin, (n_functions, n_q)."""
    rows = []
    for shell in element.shells:
        degree = shell.angular_momentum
        prefactor = (np.pi / shell.exponents) ** 1.5 * (2 * shell.exponents) ** -float(degree)
        gaussians = np.exp(-squares / (4 * shell.exponents[:, None]))
        radial = (shell.coefficients * prefactor[:, None]).T @ gaussians
        rows.append(((-1j) ** degree * radial[:, None, :] * harmonics[degree]).reshape(-1, len(squares)))
    return np.concatenate(rows) if rows else np.empty((0, len(squares)), dtype=complex)


def solid_harmonics(degree: int, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Real solid harmonics r^l Y_lm of degree l in libcint's order of m, (2 l + 1, n), for vectors (n, 3)."""
    powers, coefficients = _cartesian_expansion(degree)
    table = np.ones((degree + 1, 3, len(vectors)))
    for power in range(1, degree + 1):
        np.multiply(table[power - 1], vectors.T, out=table[power])
    monomials = table[powers[:, 0], 0] * table[powers[:, 1], 1] * table[powers[:, 2], 2]
    return coefficients.T @ monomials


@lru_cache
def _cartesian_expansion(degree: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    powers = [(x, y, degree - x - y) for x in range(degree, -1, -1) for y in range(degree - x, -1, -1)]
    if degree <= 1:  # libcint leaves the angular factors of s and p to cart2sph's normalisation
        return np.array(powers), np.eye(2 * degree + 1) * np.sqrt((2 * degree + 1) / (4 * np.pi))
    return np.array(powers), np.asarray(gto.cart2sph(degree))

"""How much work a structure is, before any of it is done.

One cost model serves two purposes: it chooses the split exponent between real and reciprocal space that costs least,
and it tells a dry run what to expect. Its constants were fitted to one core of an ordinary server
(benchmarks/cost_model.py).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sorep.bloch import DEFAULT_CHUNK_BYTES
from sorep.kinetic.orbitals import Orbitals
from sorep.kinetic.reciprocal import reciprocal_radius
from sorep.method import Work

SPLITS = (0.015, 0.03, 0.05, 0.1)
"""Split exponents to choose from, Bohr^-2; each has its own tables of integrals."""

# Seconds: pair of atoms, matrix element; Gaussian, function, multiply-add of one plane wave.
_PAIR = 7e-7
_ELEMENT = 8e-9
_ELEMENT_OF_K_POINT = 2.6e-10
_GAUSSIAN = 8e-9
_FUNCTION = 1.2e-8
_MULTIPLY_ADD = 4.8e-11
REAL_EIGENPROBLEM_SECONDS = (5e-9, 1e-10)
"""Of one k point, times n^2 and n^3; the matrices of a crystal with an inversion centre are real."""

COMPLEX_EIGENPROBLEM_SECONDS = (7e-9, 2.7e-10)
"""The same for complex matrices."""

_SET_UP = 0.004
_MOST_ELEMENTS = 1.5e7  # of all blocks, 120 MB
_BYTES_PER_ELEMENT = 8
_BASE_MEMORY = 250 * 2**20  # Python with PySCF and pymatgen


def estimate_work(orbitals: Orbitals, n_kpoints: int, precision: float, *, has_inversion: bool = False) -> Work:
    """Functions, k points, seconds and memory of the whole calculation; the last two within a factor of a few."""
    n = orbitals.n_functions
    model = CostModel(orbitals, precision, has_inversion=has_inversion)
    split = model.cheapest_split(n_kpoints)
    constants = REAL_EIGENPROBLEM_SECONDS if has_inversion else COMPLEX_EIGENPROBLEM_SECONDS
    eigenproblem = np.array(constants) @ (n**2, n**3)
    seconds = _SET_UP + model.seconds(split, n_kpoints) + n_kpoints * eigenproblem
    matrices = 6 * 16 * n**2
    chunk = max(matrices, min(DEFAULT_CHUNK_BYTES, matrices * n_kpoints))
    memory = _BASE_MEMORY + chunk + _BYTES_PER_ELEMENT * model.real_space(split)[1] + 8 * n * n_kpoints
    return Work(n, n_kpoints, float(seconds), float(memory))


class CostModel:
    """Counts of elementary steps of the two sums, and the seconds that each step takes.

    Parameters
    ----------
    orbitals : Orbitals
    precision : float
        Hartree.
    has_inversion : bool
        Whether the matrices will be real.
    """

    REAL_SPACE_SECONDS = np.array([_PAIR, _ELEMENT])
    FOURIER_SECONDS = _ELEMENT_OF_K_POINT
    RECIPROCAL_SECONDS = np.array([_GAUSSIAN, _FUNCTION, _MULTIPLY_ADD])

    def __init__(self, orbitals: Orbitals, precision: float, *, has_inversion: bool = False) -> None:
        self._orbitals = orbitals
        self._precision = precision
        self._has_inversion = has_inversion
        self._counts = np.bincount(orbitals.element_of, minlength=len(orbitals.elements)).astype(float)
        self._functions = np.array([e.n_functions for e in orbitals.elements], dtype=float)
        self._edges = np.linalg.norm(orbitals.lattice, axis=1)

    def cheapest_split(self, n_kpoints: int) -> float:
        """The split exponent (Bohr^-2) with the least estimated work; 0 where no split pays.

        Real-space work falls with the split exponent, reciprocal work grows with it and with the number of k points.
        Splits that would store too many matrix elements are left out, as long as another one stores fewer.
        """
        candidates = [0.0, *(a for a in SPLITS if a > self._orbitals.lowest_exponent)]
        small = [split for split in candidates if self.real_space(split)[1] <= _MOST_ELEMENTS]
        return min(small or candidates[-1:], key=lambda split: self.seconds(split, n_kpoints))

    def seconds(self, split: float, n_kpoints: int) -> float:
        """Of both sums at ``n_kpoints`` k points."""
        counts = self.real_space(split)
        real = counts @ self.REAL_SPACE_SECONDS + n_kpoints * counts[1] * self.FOURIER_SECONDS
        return float(real + n_kpoints * self.reciprocal(split) @ self.RECIPROCAL_SECONDS)

    def real_space(self, split: float) -> NDArray[np.float64]:
        """Pairs of atoms and matrix elements (of two operators) within the cut-off of a sum of the compact part."""
        lowest = np.array([e.compact(split).lowest_exponent for e in self._orbitals.elements])
        cutoff = np.sqrt(np.log(1 / self._precision) * (1 / lowest[:, None] + 1 / lowest))
        # In a cell with vacuum the mean density misleads; then the lattice vectors within reach count.
        lattice_vectors = (1 + 2 * np.floor(cutoff[..., None] / self._edges)).prod(axis=-1)
        in_sphere = 1 + self._counts * 4 / 3 * np.pi * cutoff**3 / self._orbitals.volume
        neighbors = np.minimum(in_sphere, self._counts * lattice_vectors)
        pairs = 0.5 * self._counts[:, None] * neighbors * (cutoff > 0) * (0.5 if self._has_inversion else 1.0)
        return np.array([pairs.sum(), 2 * np.sum(pairs * np.outer(self._functions, self._functions))])

    def reciprocal(self, split: float) -> NDArray[np.float64]:
        """Gaussians, functions and real multiply-adds of all plane waves of one k point."""
        of_element = [len(e.diffuse(split).function_indices) for e in self._orbitals.elements]
        diffuse = float(self._counts @ of_element)
        if diffuse == 0:
            return np.zeros(3)
        radius = reciprocal_radius(split, self._precision)
        waves = self._orbitals.volume * radius**3 / (6 * np.pi**2) + 1
        n = self._orbitals.n_functions
        gaussians = sum(len(s.exponents) for e in self._orbitals.elements for s in e.shells)
        return waves * np.array([gaussians, n, 2 * diffuse * n * (1 if self._has_inversion else 4)])

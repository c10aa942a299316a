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

SPLITS = (0.03, 0.05, 0.07, 0.1, 0.14, 0.2)
"""Split exponents to choose from, Bohr^-2."""

# Seconds: shell pair, primitive pair; Gaussian, function, multiply-add of one plane wave; eigenproblem over n^3.
_SHELL_PAIR = 1.3e-6
_PRIMITIVE_PAIR = 3.2e-8
_GAUSSIAN = 1.4e-8
_FUNCTION = 3.3e-8
_MULTIPLY_ADD = 1.2e-10
_EIGENPROBLEM = 4e-9

_SET_UP = 0.02
_BASE_MEMORY = 250 * 2**20  # Python with PySCF and pymatgen


def estimate_work(orbitals: Orbitals, n_kpoints: int, precision: float) -> Work:
    """Functions, k points, seconds and memory of the whole calculation; the last two within a factor of a few."""
    n = orbitals.n_functions
    model = CostModel(orbitals, precision)
    split = cheapest_split(orbitals, n_kpoints, precision)
    lattice_sum = model.real_space(split) @ model.REAL_SPACE_SECONDS
    plane_waves = n_kpoints * model.reciprocal(split) @ model.RECIPROCAL_SECONDS
    seconds = _SET_UP + lattice_sum + plane_waves + n_kpoints * _EIGENPROBLEM * n**3
    matrices = 6 * 16 * n**2
    memory = _BASE_MEMORY + max(matrices, min(DEFAULT_CHUNK_BYTES, matrices * n_kpoints)) + 8 * n * n_kpoints
    return Work(n, n_kpoints, float(seconds), float(memory))


def cheapest_split(orbitals: Orbitals, n_kpoints: int, precision: float) -> float:
    """The split exponent (Bohr^-2) with the least estimated work; 0 where no split pays.

    Real-space work falls with the split exponent, reciprocal work grows with it and with the number of k points.
    """
    model = CostModel(orbitals, precision)
    candidates = [0.0, *(a for a in SPLITS if a > orbitals.exponents[0])]

    def seconds(split: float) -> float:
        real = model.real_space(split) @ model.REAL_SPACE_SECONDS
        return float(real + n_kpoints * model.reciprocal(split) @ model.RECIPROCAL_SECONDS)

    return min(candidates, key=seconds)


class CostModel:
    """Counts of elementary steps of the two sums, and the seconds that each step takes."""

    REAL_SPACE_SECONDS = np.array([_SHELL_PAIR, _PRIMITIVE_PAIR])
    RECIPROCAL_SECONDS = np.array([_GAUSSIAN, _FUNCTION, _MULTIPLY_ADD])

    def __init__(self, orbitals: Orbitals, precision: float) -> None:
        self._orbitals = orbitals
        self._precision = precision
        self._counts = np.bincount(orbitals.element_of, minlength=len(orbitals.elements))
        # Shells of all elements, one row each: element, lowest exponent kept, primitives kept.
        self._shells = [(e, s.exponents) for e, element in enumerate(orbitals.elements) for s in element.shells]

    def real_space(self, split: float) -> NDArray[np.float64]:
        """Shell pairs and primitive pairs within the cut-off of a lattice sum of the compact part."""
        kept = [(e, x[x >= split]) for e, x in self._shells if (x >= split).any()]
        if not kept:
            return np.zeros(2)
        atoms = self._counts[[e for e, _ in kept]].astype(float)
        lowest = np.array([x.min() for _, x in kept])
        primitives = np.array([len(x) for _, x in kept])
        reduced = lowest[:, None] * lowest / (lowest[:, None] + lowest)
        # Neighbours are listed by atom pair, so the most diffuse shells of two elements set the range of all.
        elements = np.array([e for e, _ in kept])
        reduced = np.array([[reduced[np.ix_(elements == e, elements == f)].min() for f in elements] for e in elements])
        cutoff = np.sqrt((np.log(1 / self._precision) + 5.0) / reduced)
        neighbors = np.minimum(
            1 + atoms * 4 / 3 * np.pi * cutoff**3 / self._orbitals.volume,
            # In a cell with vacuum the mean density misleads; count the lattice vectors instead.
            atoms * self._lattice_points(cutoff),
        )
        pairs = 0.5 * atoms[:, None] * neighbors
        return np.array([pairs.sum(), (pairs * np.outer(primitives, primitives)).sum()])

    def reciprocal(self, split: float) -> NDArray[np.float64]:
        """Gaussians, functions and multiply-adds of all plane waves of one k point."""
        diffuse = sum(
            n * len(e.diffuse(split).function_indices)
            for e, n in zip(self._orbitals.elements, self._counts, strict=True)
        )
        if diffuse == 0:
            return np.zeros(3)
        radius = reciprocal_radius(split, self._precision)
        waves = self._orbitals.volume * radius**3 / (6 * np.pi**2) + 1
        n = self._orbitals.n_functions
        return waves * np.array([sum(len(x) for _, x in self._shells), n, diffuse * n])

    def _lattice_points(self, cutoff: NDArray[np.float64]) -> NDArray[np.float64]:
        lattice = self._orbitals.lattice
        reach = np.minimum(np.floor(cutoff.max() * np.linalg.norm(np.linalg.inv(lattice), axis=0)), 12)
        axes = (np.arange(-m, m + 1) for m in reach)
        points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        lengths = np.sort(np.linalg.norm(points @ lattice, axis=1))
        return np.maximum(1, np.searchsorted(lengths, cutoff))

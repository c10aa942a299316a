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

# Seconds: shell pair, primitive pair; Gaussian, function, multiply-add of one plane wave.
_SHELL_PAIR = 2.1e-6
_PRIMITIVE_PAIR = 2.3e-8
_GAUSSIAN = 7e-9
_FUNCTION = 2.5e-8
_MULTIPLY_ADD = 2.8e-10
EIGENPROBLEM_SECONDS = (1e-7, 9e-10)
"""Of one k point, times n^2 and n^3."""

_SET_UP = 0.02
_BYTES_PER_ELEMENT = 40  # indices and values while blocks are assembled; about half of the elements are zero
_BASE_MEMORY = 250 * 2**20  # Python with PySCF and pymatgen


def estimate_work(orbitals: Orbitals, n_kpoints: int, precision: float) -> Work:
    """Functions, k points, seconds and memory of the whole calculation; the last two within a factor of a few."""
    n = orbitals.n_functions
    model = CostModel(orbitals, precision)
    split = cheapest_split(orbitals, n_kpoints, precision)
    eigenproblem = np.array(EIGENPROBLEM_SECONDS) @ (n**2, n**3)
    seconds = _SET_UP + model.seconds(split, n_kpoints) + n_kpoints * eigenproblem
    matrices = 6 * 16 * n**2
    chunk = max(matrices, min(DEFAULT_CHUNK_BYTES, matrices * n_kpoints))
    memory = _BASE_MEMORY + chunk + _BYTES_PER_ELEMENT * model.stored_elements(split) + 8 * n * n_kpoints
    return Work(n, n_kpoints, float(seconds), float(memory))


def cheapest_split(orbitals: Orbitals, n_kpoints: int, precision: float) -> float:
    """The split exponent (Bohr^-2) with the least estimated work; 0 where no split pays.

    Real-space work falls with the split exponent, reciprocal work grows with it and with the number of k points.
    """
    model = CostModel(orbitals, precision)
    candidates = [0.0, *(a for a in SPLITS if a > orbitals.exponents[0])]
    return min(candidates, key=lambda split: model.seconds(split, n_kpoints))


class CostModel:
    """Counts of elementary steps of the two sums, and the seconds that each step takes."""

    REAL_SPACE_SECONDS = np.array([_SHELL_PAIR, _PRIMITIVE_PAIR])
    RECIPROCAL_SECONDS = np.array([_GAUSSIAN, _FUNCTION, _MULTIPLY_ADD])

    def __init__(self, orbitals: Orbitals, precision: float) -> None:
        self._orbitals = orbitals
        self._precision = precision
        self._counts = np.bincount(orbitals.element_of, minlength=len(orbitals.elements)).astype(float)

    def seconds(self, split: float, n_kpoints: int) -> float:
        """Of both sums, the reciprocal one at ``n_kpoints`` k points."""
        real = self.real_space(split) @ self.REAL_SPACE_SECONDS
        return float(real + n_kpoints * self.reciprocal(split) @ self.RECIPROCAL_SECONDS)

    def real_space(self, split: float) -> NDArray[np.float64]:
        """Shell pairs and primitive pairs within the cut-off of a lattice sum of the compact part."""
        exponents = self._compact(split)
        shells = np.array([len(of_shells) for of_shells in exponents], dtype=float)
        primitives = np.array([sum(map(len, of_shells)) for of_shells in exponents], dtype=float)
        pairs = self._atom_pairs(split)
        return np.array([np.sum(pairs * np.outer(shells, shells)), np.sum(pairs * np.outer(primitives, primitives))])

    def stored_elements(self, split: float) -> float:
        """Matrix elements of all blocks that a lattice sum of the compact part keeps."""
        functions = np.array([len(e.compact(split).function_indices) for e in self._orbitals.elements], dtype=float)
        return float(np.sum(self._atom_pairs(split) * np.outer(functions, functions)))

    def _compact(self, split: float) -> list[list[NDArray[np.float64]]]:
        """Exponents that are kept, of each shell of each element."""
        return [[x for s in e.shells if len(x := s.exponents[s.exponents >= split])] for e in self._orbitals.elements]

    def _atom_pairs(self, split: float) -> NDArray[np.float64]:
        """About how many pairs of atoms of two elements lie within their cut-off, each pair once."""
        # Neighbours are listed by atom pair, so the most diffuse shells of two elements set the range of all.
        lowest = np.array([min((x.min() for x in shells), default=np.inf) for shells in self._compact(split)])
        cutoff = np.sqrt((np.log(1 / self._precision) + 5.0) * (1 / lowest[:, None] + 1 / lowest))
        neighbors = np.minimum(
            1 + self._counts * 4 / 3 * np.pi * cutoff**3 / self._orbitals.volume,
            # In a cell with vacuum the mean density misleads; count the lattice vectors instead.
            self._counts * self._lattice_points(cutoff),
        )
        return 0.5 * self._counts[:, None] * neighbors

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
        gaussians = sum(len(s.exponents) for e in self._orbitals.elements for s in e.shells)
        return waves * np.array([gaussians, n, diffuse * n])

    def _lattice_points(self, cutoff: NDArray[np.float64]) -> NDArray[np.float64]:
        lattice = self._orbitals.lattice
        reach = np.minimum(np.floor(cutoff.max() * np.linalg.norm(np.linalg.inv(lattice), axis=0)), 12)
        axes = (np.arange(-m, m + 1) for m in reach)
        points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        lengths = np.sort(np.linalg.norm(points @ lattice, axis=1))
        return np.maximum(1, np.searchsorted(lengths, cutoff))

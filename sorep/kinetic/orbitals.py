"""The Gaussian orbitals of a structure, and their exact split into a compact and a diffuse part.

Every contracted function is phi = c + d: c holds the primitives with exponent at or above the split exponent a0, d the
rest. Lattice sums over c alone are short in real space; whatever involves d is short in reciprocal space.
Atomic units (Bohr) from here on until eigenvalues leave the kinetic rooms.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sorep.kinetic.basis import BasisSet, Shell
from sorep.structure import Structure
from sorep.units import BOHR_IN_ANGSTROM


@dataclass(frozen=True, eq=False)
class ElementShells:
    """Shells of one element and the indices of their functions among that element's functions.

    Functions are ordered as libcint orders them: shell, contraction, m.
    """

    shells: tuple[Shell, ...]
    functions: tuple[NDArray[np.int64], ...]
    n_functions: int

    @cached_property
    def function_indices(self) -> NDArray[np.int64]:
        return np.concatenate([*self.functions, np.empty(0, dtype=np.int64)])

    def compact(self, split: float) -> ElementShells:
        """The part with exponents >= ``split``; shells without such primitives are left out."""
        return self._select(lambda exponents: exponents >= split)

    def diffuse(self, split: float) -> ElementShells:
        """The part with exponents < ``split``."""
        return self._select(lambda exponents: exponents < split)

    def _select(self, wanted) -> ElementShells:
        shells, functions = [], []
        for shell, index in zip(self.shells, self.functions, strict=True):
            keep = wanted(shell.exponents)
            if keep.any():
                shells.append(Shell(shell.angular_momentum, shell.exponents[keep], shell.coefficients[keep]))
                functions.append(index)
        return ElementShells(tuple(shells), tuple(functions), self.n_functions)


def element_shells(basis: BasisSet, number: int) -> ElementShells:
    """All shells of an element, with their function indices.

    Raises
    ------
    BasisError
        ``missing-element``.
    """
    shells = tuple(basis.shells_of(number))
    sizes = [s.coefficients.shape[1] * (2 * s.angular_momentum + 1) for s in shells]
    ends = np.cumsum(sizes)
    functions = tuple(np.arange(end - size, end) for end, size in zip(ends, sizes, strict=True))
    return ElementShells(shells, functions, int(ends[-1]))


@dataclass(frozen=True, eq=False)
class Orbitals:
    """All orbitals of one cell.

    Attributes
    ----------
    lattice : (3, 3) array
        Lattice vectors as rows, Bohr.
    positions : (n_atoms, 3) array
        Fractional coordinates.
    element_of : (n_atoms,) int array
        Index of each atom's element in `elements`.
    elements : tuple of ElementShells
    offsets : (n_atoms,) int array
        Index of each atom's first function.
    n_functions : int
        Functions per cell.
    """

    lattice: NDArray[np.float64]
    positions: NDArray[np.float64]
    element_of: NDArray[np.int64]
    elements: tuple[ElementShells, ...]
    offsets: NDArray[np.int64]
    n_functions: int

    @classmethod
    def of(cls, structure: Structure, basis: BasisSet) -> Orbitals:
        """Place the basis functions of every element on its atoms."""
        numbers, element_of = np.unique(structure.numbers, return_inverse=True)
        elements = tuple(element_shells(basis, int(z)) for z in numbers)
        sizes = np.array([e.n_functions for e in elements])[element_of]
        return cls(
            lattice=structure.lattice / BOHR_IN_ANGSTROM,
            positions=structure.positions,
            element_of=element_of,
            elements=elements,
            offsets=np.cumsum(sizes) - sizes,
            n_functions=int(sizes.sum()),
        )

    @property
    def volume(self) -> float:
        """Cubic Bohr."""
        return float(abs(np.linalg.det(self.lattice)))

    @property
    def exponents(self) -> NDArray[np.float64]:
        """All distinct exponents, ascending."""
        return np.unique(np.concatenate([s.exponents for e in self.elements for s in e.shells]))

"""The Gaussian orbitals of a structure, and their exact split into a compact and a diffuse part.

Every contracted function is phi = c + d: c holds the primitives with exponent at or above the split exponent a0, d the
rest. Lattice sums over c alone are short in real space; whatever involves d is short in reciprocal space.
Atomic units (Bohr) from here on until eigenvalues leave the kinetic rooms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from sorep.bloch import Inversion
from sorep.cells import Cell
from sorep.kinetic.basis import BasisSet, Shell
from sorep.structure import Structure
from sorep.units import BOHR_IN_ANGSTROM

_INVERSION_TOLERANCE = 1e-9  # Angstrom


@dataclass(frozen=True, eq=False)
class ElementShells:
    """Shells of one element and the indices of their functions among that element's functions.

    Functions are ordered as libcint orders them: shell, contraction, m.
    """

    shells: tuple[Shell, ...]
    functions: tuple[NDArray[np.int64], ...]
    n_functions: int

    @cached_property
    def angular_momenta(self) -> NDArray[np.int64]:
        """l of each function, (n_functions,); 0 for those without a shell."""
        momenta = np.zeros(self.n_functions, dtype=np.int64)
        for shell, index in zip(self.shells, self.functions, strict=True):
            momenta[index] = shell.angular_momentum
        return momenta

    @cached_property
    def function_indices(self) -> NDArray[np.int64]:
        return np.concatenate([*self.functions, np.empty(0, dtype=np.int64)])

    @cached_property
    def lowest_exponent(self) -> float:
        """Of the most diffuse primitive, Bohr^-2; infinite where there is none."""
        return min((float(s.exponents.min()) for s in self.shells), default=np.inf)

    def compact(self, split: float) -> ElementShells:
        """The part with exponents >= ``split``; shells without such primitives are left out."""
        return _parts(self, split)[0]

    def diffuse(self, split: float) -> ElementShells:
        """The part with exponents < ``split``."""
        return _parts(self, split)[1]


@lru_cache(maxsize=2048)
def _parts(element: ElementShells, split: float) -> tuple[ElementShells, ElementShells]:
    """Compact and diffuse part; the same objects every time, by which tables of integrals are known."""
    return _select(element, lambda exponents: exponents >= split), _select(element, lambda exponents: exponents < split)


def _select(element: ElementShells, wanted: Callable[[NDArray[np.float64]], NDArray[np.bool_]]) -> ElementShells:
    shells, functions = [], []
    for shell, index in zip(element.shells, element.functions, strict=True):
        keep = wanted(shell.exponents)
        if keep.any():
            shells.append(Shell(shell.angular_momentum, shell.exponents[keep], shell.coefficients[keep]))
            functions.append(index)
    return ElementShells(tuple(shells), tuple(functions), element.n_functions)


@lru_cache(maxsize=2048)
def element_shells(basis: BasisSet, number: int) -> ElementShells:
    """All shells of an element, with their function indices; the same object every time.

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
    def lowest_exponent(self) -> float:
        """Of the most diffuse primitive, Bohr^-2."""
        return min(e.lowest_exponent for e in self.elements)

    def inversion(self, cell: Cell) -> Inversion | None:
        """The inversion centre of the cell that these orbitals sit in, if it has one.

        Positions are taken as they are: one that inversion reproduces only within the tolerance of the symmetry search,
        and not to 1e-9 Angstrom, counts as none.
        """
        is_inversion = (cell.rotations == -np.eye(3, dtype=np.int64)).all(axis=(1, 2))
        if not is_inversion.any():
            return None
        translation = cell.translations[is_inversion.argmax()]
        difference = (translation - self.positions)[:, None] - self.positions
        difference -= np.rint(difference)
        opposite = np.linalg.norm(difference @ self.lattice, axis=2).argmin(axis=1)
        off = difference[np.arange(len(opposite)), opposite]
        centre = (translation - off.mean(axis=0)) / 2
        deviation = np.linalg.norm((off - off.mean(axis=0)) @ self.lattice, axis=1).max() * BOHR_IN_ANGSTROM
        if deviation > _INVERSION_TOLERANCE or (opposite[opposite] != np.arange(len(opposite))).any():
            return None
        sizes = np.diff(np.append(self.offsets, self.n_functions))
        within = np.arange(self.n_functions) - np.repeat(self.offsets, sizes)
        return Inversion(
            positions=np.repeat(self.positions - centre, sizes, axis=0),
            partner=np.repeat(self.offsets[opposite], sizes) + within,
            parity=np.concatenate([(-1.0) ** self.elements[e].angular_momenta for e in self.element_of]),
        )

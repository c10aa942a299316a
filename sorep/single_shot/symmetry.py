"""How the Bloch sums of pseudo-atomic orbitals turn under a space group.

An operation {W|t} takes atom a of cell 0 to atom b of cell L, W tau_a + t = tau_b + L, and an orbital of angular
momentum l into a combination of the 2l+1 of its shell, Y_lm(W^-1 r) = sum_m' D_m'm Y_lm'(r). A Bloch sum at k becomes
one at k' = k W^-1 (fractional, as a row), and what commutes with the operation turns with it:

    U_(b,m')(a,m) = exp(-i k'.L) D_m'm,          H(k') = U H(k) U^dagger.

Orbitals are real, so time reversal adds H(-k) = H(k)*. As in Quantum ESPRESSO (`ylmr2`) the real harmonics of a shell
are ordered m = 0, cos phi, sin phi, cos 2 phi, sin 2 phi, ..., with the sign (-1)^m of Condon and Shortley.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import factorial

import numpy as np
from numpy.typing import NDArray
from scipy.special import lpmv

from sorep.cells import Cell
from sorep.structure import Structure

_DIRECTIONS = np.random.default_rng(0).normal(size=(40, 3))  # any that tell the harmonics of a shell apart


@dataclass(frozen=True, eq=False)
class SpaceGroup:
    """``rotations`` : (n, 3, 3) int and ``translations`` : (n, 3), x' = W x + t in fractional coordinates."""

    rotations: NDArray[np.int64]
    translations: NDArray[np.float64]

    @classmethod
    def of(cls, cell: Cell) -> SpaceGroup:
        """The operations that map the crystal onto itself, one for each rotation."""
        return cls(cell.rotations, cell.translations)

    def __len__(self) -> int:
        return len(self.rotations)

    def subgroup(self, chosen: NDArray[np.bool_]) -> SpaceGroup:
        """The operations that ``chosen`` marks."""
        return SpaceGroup(self.rotations[chosen], self.translations[chosen])


def real_harmonics(l: int, directions: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: E741
    """Real spherical harmonics of one l in ``directions`` (..., 3), as (..., 2l+1)."""
    x, y, z = np.moveaxis(directions / np.linalg.norm(directions, axis=-1, keepdims=True), -1, 0)
    phi = np.arctan2(y, x)
    columns = []
    for m in range(l + 1):
        norm = np.sqrt((2 * l + 1) / (4 * np.pi) * factorial(l - m) / factorial(l + m))
        legendre = norm * lpmv(m, l, z)
        columns += [legendre] if m == 0 else [np.sqrt(2) * legendre * f(m * phi) for f in (np.cos, np.sin)]
    return np.stack(columns, axis=-1)


def harmonic_rotations(l: int, rotations: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: E741
    """D of one l for Cartesian (n, 3, 3) orthogonal matrices, proper or not: (n, 2l+1, 2l+1), orthogonal."""
    turned_back = _DIRECTIONS @ rotations  # W^-1 r for each r, W^-1 = W^T
    return np.linalg.pinv(real_harmonics(l, _DIRECTIONS)) @ real_harmonics(l, turned_back)


class OrbitalSymmetry:
    """The matrices U of a cell's pseudo-atomic orbitals.

    Parameters
    ----------
    cell : Cell
    group : SpaceGroup
    shells : sequence of sequences of int
        Angular momenta of the orbitals of each atom, in the order of the basis.

    Attributes
    ----------
    atoms : (n,) int array
        Atom of each orbital.
    """

    def __init__(self, cell: Cell, group: SpaceGroup, shells: Sequence[Sequence[int]]) -> None:
        self._image, self._cells = _moved(cell.structure, group)
        sizes = [sum(2 * l + 1 for l in of_atom) for of_atom in shells]  # noqa: E741
        self.atoms = np.repeat(np.arange(len(sizes)), sizes)
        self._first = np.cumsum([0, *sizes])  # orbital of each atom

        momentum = np.concatenate([np.asarray(of_atom, dtype=int) for of_atom in shells])
        shell = np.cumsum([0, *(2 * momentum + 1)])[:-1]  # first orbital of each shell
        self._shells = {int(l): shell[momentum == l] for l in np.unique(momentum)}  # noqa: E741
        lattice = cell.structure.lattice.T
        left, _, right = np.linalg.svd(lattice @ group.rotations @ np.linalg.inv(lattice))
        cartesian = left @ right  # orthogonal to rounding, whatever the tolerance of the search
        self._harmonics = {l: harmonic_rotations(l, cartesian) for l in self._shells}  # noqa: E741

    def rotate(
        self, operations: NDArray[np.int64], kpoints: NDArray[np.float64], matrices: NDArray[np.complex128]
    ) -> NDArray[np.complex128]:
        """Matrices at k' from those at k.

        Parameters
        ----------
        operations : (n_k,) int array
            Index of each operation in the group.
        kpoints : (n_k, 3) array
            Fractional k' = k W^-1.
        matrices : (..., n_k, n, n) array
            Hermitian, at k.
        """
        turn = self._turns(operations)
        phase = np.exp(-2j * np.pi * np.einsum("ki,kai->ka", kpoints, self._cells[operations]))[:, self.atoms]
        half_turned = _product(turn, phase[:, :, None] * matrices * phase.conj()[:, None, :])
        return _product(turn, half_turned.conj().swapaxes(-1, -2))

    def _turns(self, operations: NDArray[np.int64]) -> NDArray[np.float64]:
        """D of all shells, from the orbitals of each atom to those of its image: (n_k, n, n)."""
        turns = np.zeros((len(operations), *(len(self.atoms),) * 2))
        which = np.arange(len(operations))[:, None, None, None]
        for l, shell in self._shells.items():  # noqa: E741
            atom = self.atoms[shell]
            m = np.arange(2 * l + 1)
            row = self._first[self._image[operations][:, atom]] + shell - self._first[atom]
            turns[which, row[:, :, None, None] + m[:, None], shell[:, None, None] + m] = self._harmonics[l][
                operations, None
            ]
        return turns


def _moved(structure: Structure, group: SpaceGroup) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Atom b and cell L to which each operation takes each atom: (n, n_atoms) and (n, n_atoms, 3)."""
    moved = structure.positions @ group.rotations.swapaxes(1, 2) + group.translations[:, None]
    difference = moved[:, :, None] - structure.positions
    cells = np.rint(difference)
    distance = np.linalg.norm((difference - cells) @ structure.lattice, axis=-1)
    distance[:, structure.numbers[:, None] != structure.numbers] = np.inf
    image = distance.argmin(axis=2)
    return image, np.take_along_axis(cells, image[:, :, None, None], axis=2)[:, :, 0].astype(np.int64)


def _product(real: NDArray[np.float64], matrices: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Real matrices times complex ones."""
    return (real @ np.ascontiguousarray(matrices).view(float)).view(complex)

"""The coarse mesh of an interpolated single shot: which k points pw.x computes, and the operators that follow.

pw.x gets the irreducible points of the smallest Gamma-centred mesh whose supercell has no lattice vector shorter than
a given length. Matrices at the other points follow by symmetry (`sorep.single_shot.symmetry`), and those at any k by
interpolation (`sorep.interpolation`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sorep.bloch import BlochOperator
from sorep.cells import Cell
from sorep.interpolation import (
    InterpolationError,
    OrbitalMatrices,
    half_mesh,
    images_of_addresses,
    interpolate,
    mesh_addresses,
    reduced_lattice,
)
from sorep.meshes import KMesh
from sorep.single_shot.matrices import KPointMatrices
from sorep.single_shot.symmetry import OrbitalSymmetry, SpaceGroup

_BROKEN_SYMMETRY = 0.02
"""eV, and the same number for overlaps. pw.x evaluates the potential on a grid that has not all symmetries; up to
2e-4 eV of a matrix element were seen."""

_CHUNK_BYTES = 2**20  # of the matrices that are turned at once, one of several arrays of this size


@dataclass(frozen=True, eq=False)
class CoarseMesh:
    """A Gamma-centred mesh and the way from its irreducible points to all.

    Attributes
    ----------
    irreducible : KMesh
        What pw.x computes.
    group : SpaceGroup
        The operations that map the mesh onto itself.
    source, operation : (N,) int arrays
        For each of all mesh points (C order of addresses) its irreducible point, and the operation that leads from
        there to it.
    is_reversed : (N,) bool array
        Whether time reversal follows the operation.
    leaves : (2, n_operations, n_irreducible) bool array
        Which operations, without and with time reversal, lead from an irreducible point to itself.
    """

    irreducible: KMesh
    group: SpaceGroup
    source: NDArray[np.int64]
    operation: NDArray[np.int64]
    is_reversed: NDArray[np.bool_]
    leaves: NDArray[np.bool_]

    @property
    def divisions(self) -> NDArray[np.int64]:
        return self.irreducible.divisions


def coarse_divisions(cell: Cell, shortest: float) -> NDArray[np.int64]:
    """The fewest k points along each reciprocal vector with which no supercell vector is shorter than ``shortest``.

    What counts is the distance of a function to its nearest copy in the supercell, not that of its lattice planes:
    an fcc lattice needs 9 points where the planes would ask for 11. Axes that a symmetry mixes get the same number.
    """
    lattice = cell.structure.lattice
    mixed = _mixed_axes(cell.rotations)
    divisions = np.maximum(1, np.ceil(shortest / np.linalg.norm(lattice, axis=1) - 1e-6)).astype(np.int64)
    while True:
        divisions = np.array([divisions[axes].max() for axes in mixed])
        vector = _shortest_vector(lattice * divisions[:, None])
        if np.linalg.norm(vector) >= shortest - 1e-6:
            return divisions
        involved = np.abs(np.rint(vector @ np.linalg.inv(lattice))) > 0
        divisions = divisions + involved


def coarse_mesh(cell: Cell, divisions: NDArray[np.int64]) -> CoarseMesh:
    """Irreducible points under time reversal and those operations of the crystal that map the mesh onto itself."""
    group = SpaceGroup.of(cell)
    # k' = k W^-1 of a point with address m, k = m / n, has the address m X with X = n_j (W^-1)_ij / n_i.
    on_addresses = np.rint(np.linalg.inv(group.rotations)) * (divisions / divisions[:, None])
    keeps = np.abs(on_addresses - np.rint(on_addresses)).max(axis=(1, 2)) < 1e-9
    group = group.subgroup(keeps)
    addresses = mesh_addresses(divisions)
    to = images_of_addresses(addresses, divisions, group.rotations)
    representative = to.min(axis=0)
    irreducible, source, counts = np.unique(representative, return_inverse=True, return_counts=True)
    chosen = (to[:, representative] == np.arange(len(addresses))).argmax(axis=0)
    centred = addresses - divisions * (2 * addresses > divisions)
    return CoarseMesh(
        KMesh(divisions, centred[irreducible] / divisions, counts / counts.sum()),
        group,
        source.ravel(),
        chosen % len(group),
        chosen >= len(group),
        (to[:, irreducible] == irreducible).reshape(2, len(group), -1),
    )


def coarse_operators(
    coarse: CoarseMesh,
    cell: Cell,
    shells: Sequence[Sequence[int]],
    matrices: Sequence[KPointMatrices],
) -> tuple[BlochOperator, ...]:
    """Operators of each spin, eigenvalues in eV, from the matrices that pw.x wrote for the irreducible points.

    Parameters
    ----------
    coarse : CoarseMesh
    cell : Cell
    shells : sequence of sequences of int
        Angular momenta of the orbitals of each atom.
    matrices : sequence of KPointMatrices
        The second spin after the first.

    Raises
    ------
    InterpolationError
        With the codes of `sorep.interpolation.interpolate`, and ``broken-symmetry``.
    """
    symmetry = OrbitalSymmetry(cell, coarse.group, shells)
    n_k = len(coarse.irreducible)
    operators = []
    for start in range(0, len(matrices), n_k):
        of_spin = matrices[start : start + n_k]
        a, s = unfold(coarse, symmetry, np.array([[m.hamiltonian for m in of_spin], [m.overlap for m in of_spin]]))
        structure = cell.structure
        mesh = OrbitalMatrices(structure.lattice, structure.positions, symmetry.atoms, coarse.divisions, a, s)
        operators.append(interpolate(mesh, coarse.group.rotations))
    return tuple(operators)


def unfold(coarse: CoarseMesh, symmetry: OrbitalSymmetry, matrices: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Matrices on the `half_mesh` from those at the irreducible points.

    These are first averaged over the operations that leave their points where they are, so that the result has all
    symmetries exactly.

    Parameters
    ----------
    coarse : CoarseMesh
    symmetry : OrbitalSymmetry
        Of ``coarse.group``.
    matrices : (n_operators, n_irreducible, n, n) array
        Hermitian.

    Returns
    -------
    (n_operators, n_half, n, n) array

    Raises
    ------
    InterpolationError
        ``broken-symmetry`` where the average differs from what it was taken of.
    """
    average = np.zeros_like(matrices)
    for points, operations in _chunks(matrices, *np.nonzero(coarse.leaves.any(axis=0).T)):
        turned = _turned(coarse, symmetry, operations, points, matrices)
        plain, reversed_ = coarse.leaves[:, operations, points, None, None].astype(float)
        turned.real *= plain + reversed_
        turned.imag *= plain - reversed_
        starts = np.flatnonzero(np.diff(points, prepend=-1))
        average[:, points[starts]] += np.add.reduceat(turned, starts, axis=1)
    average /= coarse.leaves.sum(axis=(0, 1))[:, None, None]
    change = np.abs(average - matrices).max()
    if change > _BROKEN_SYMMETRY:
        raise InterpolationError(
            f"a symmetry operation of the crystal changes matrices on the coarse k mesh by {change:.2g} (eV)",
            code="broken-symmetry",
            remedy="lower --symprec",
        )
    chosen = np.ravel_multi_index(tuple(half_mesh(coarse.divisions).T), tuple(coarse.divisions))
    turned = [
        _turned(coarse, symmetry, operations, points, average)
        for points, operations in _chunks(matrices, coarse.source[chosen], coarse.operation[chosen])
    ]
    result = np.concatenate(turned, axis=1)
    result.imag[:, coarse.is_reversed[chosen]] *= -1
    return result


def _chunks(
    matrices: NDArray[np.complex128], points: NDArray[np.int64], operations: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Points and operations, so many at once as there is memory to turn matrices."""
    size = max(1, _CHUNK_BYTES // (16 * len(matrices) * matrices.shape[-1] ** 2))
    for start in range(0, len(points), size):
        yield points[start : start + size], operations[start : start + size]


def _turned(
    coarse: CoarseMesh,
    symmetry: OrbitalSymmetry,
    operations: NDArray[np.int64],
    points: NDArray[np.int64],
    matrices: NDArray[np.complex128],
) -> NDArray[np.complex128]:
    """What each of some operations makes of the matrices at an irreducible point."""
    inverse = np.rint(np.linalg.inv(coarse.group.rotations))[operations]
    kpoints = (coarse.irreducible.kpoints[points, None] @ inverse)[:, 0]
    return symmetry.rotate(operations, kpoints, matrices[:, points])


def _mixed_axes(rotations: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which lattice vectors an operation carries into combinations of which others, (3, 3)."""
    involved = (rotations != 0).any(axis=0)
    linked = (involved | involved.T).astype(int)
    return np.linalg.matrix_power(linked, 3) > 0


def _shortest_vector(lattice: NDArray[np.float64]) -> NDArray[np.float64]:
    reduced = reduced_lattice(lattice)
    return reduced[np.linalg.norm(reduced, axis=1).argmin()]

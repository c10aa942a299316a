"""Gamma-centred k meshes from a spacing, reduced by symmetry and time reversal.

n_i = max(1, ceil(|b_i| / spacing)),   |b_i| with its factor 2 pi, 1/Angstrom.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sorep._fortran import lowest_images
from sorep.cells import Cell, lattice_point_group
from sorep.errors import StructureError, UsageError

DEFAULT_SPACING = 0.2
"""1/Angstrom; the spacing of the SOREP paper's BaTiO3 study (Methods)."""

Rounding = Literal["ceil", "round"]

_CEIL_TOLERANCE = 1e-6  # a lattice constant's last digit must not add a layer of k points


@dataclass(frozen=True, eq=False)
class KMesh:
    """k points of the irreducible wedge of a Gamma-centred mesh.

    ``divisions`` : (3,) int; ``kpoints`` : (n_k, 3) fractional; ``weights`` : (n_k,) summing to 1.
    """

    divisions: NDArray[np.int64]
    kpoints: NDArray[np.float64]
    weights: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.weights)


def mesh_divisions(
    lattice: NDArray[np.float64], spacing: float = DEFAULT_SPACING, rounding: Rounding = "ceil"
) -> NDArray[np.int64]:
    """Number of k points along each reciprocal vector.

    Parameters
    ----------
    lattice : (3, 3) array
        Lattice vectors as rows, Angstrom.
    spacing : float
        Largest distance between neighbouring k points, 1/Angstrom (2 pi included).
    rounding : {"ceil", "round"}
        ``round`` reproduces the published numbers: it may leave the spacing larger than asked for, and does not look
        at the lattice's symmetry.
    """
    if not spacing > 0:
        raise UsageError(f"k spacing {spacing} is not positive", code="bad-k-spacing", remedy="give 1/Angstrom > 0")
    ratio = 2 * np.pi * np.linalg.norm(np.linalg.inv(lattice), axis=0) / spacing
    if rounding == "round":
        return np.maximum(1, np.round(ratio)).astype(np.int64)
    divisions = np.maximum(1, np.ceil(ratio * (1 - _CEIL_TOLERANCE))).astype(np.int64)
    if len(set(divisions)) == 1:
        return divisions
    mixed = _mixed_axes(lattice)
    return np.array([divisions[axes].max() for axes in mixed])


def _mixed_axes(lattice: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which lattice vectors a symmetry of the bare lattice carries into combinations of which others, (3, 3)."""
    involved = (lattice_point_group(lattice) != 0).any(axis=0)
    linked = (involved | involved.T).astype(int)
    return np.linalg.matrix_power(linked, 3) > 0


def irreducible_mesh(cell: Cell, spacing: float = DEFAULT_SPACING, rounding: Rounding = "ceil") -> KMesh:
    """The mesh of `mesh_divisions`, reduced by the cell's point group and time reversal.

    Raises
    ------
    StructureError
        ``mesh-reduction-failed``.
    """
    divisions = mesh_divisions(cell.structure.lattice, spacing, rounding)
    try:
        counts = np.bincount(lowest_images(divisions, cell.rotations))
    except ValueError as error:
        raise StructureError(
            str(error), code="mesh-reduction-failed", stage="cell", remedy="choose another --k-spacing"
        ) from None
    irreducible = np.flatnonzero(counts)
    addresses = np.stack(np.unravel_index(irreducible, divisions, order="F"), axis=1)
    addresses -= divisions * (addresses > divisions // 2)
    return KMesh(divisions, addresses / divisions, counts[irreducible] / counts.sum())

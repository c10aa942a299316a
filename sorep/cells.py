"""From the cell that was given to the cell that is computed: primitive, Niggli-reduced, standard orientation.

A k mesh chosen from the given cell makes a spectrum depend on how the crystal was written down: silicon as
primitive and as conventional cell differ by up to 10 % of the feature. `canonical_cell` removes that choice
before any mesh is chosen. Positions are not idealised: only the description of the crystal changes.

Symmetry is searched by moyo, from the makers of spglib: ten times faster, and its answer at a tight tolerance does
not depend on how the crystal is described (spglib's did for 1.2 % of a sample of Materials Project crystals).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import moyopy
import numpy as np
import spglib
from numpy.typing import NDArray

from sorep.errors import StructureError
from sorep.structure import Structure

DEFAULT_SYMPREC = 1e-5
"""Angstrom; two positions closer than this are the same to the symmetry search."""

# It warns of every supercell that some operations of the primitive cell are left out; they are looked for there below.
logging.getLogger("moyo").setLevel(logging.ERROR)


@dataclass(frozen=True, eq=False)
class Cell:
    """The cell in which a spectrum is computed.

    Attributes
    ----------
    structure : Structure
        The crystal in this cell.
    rotations : (n, 3, 3) int array
        Point-group operations in fractional coordinates of this cell.
    translations : (n, 3) float array
        With each rotation W a translation w such that x -> W x + w maps the crystal onto itself.
    space_group : int
        International number, 1 to 230.
    transformation : (3, 3) float array
        ``M`` with ``lattice = M @ given_lattice @ rotation.T`` (lattice vectors as rows): how the
        cell is built from the given one.
    rotation : (3, 3) float array
        Proper rotation of Cartesian space that was applied.
    """

    structure: Structure
    rotations: NDArray[np.int64]
    translations: NDArray[np.float64]
    space_group: int
    transformation: NDArray[np.float64]
    rotation: NDArray[np.float64]


def canonical_cell(structure: Structure, *, symprec: float = DEFAULT_SYMPREC, keep_cell: bool = False) -> Cell:
    """Reduce to the primitive cell, then to its Niggli cell, in the standard orientation of its space group.

    Parameters
    ----------
    structure : Structure
        A validated structure.
    symprec : float
        Tolerance of the symmetry search, Angstrom.
    keep_cell : bool
        Keep the given cell and orientation, and only find its symmetry.

    Raises
    ------
    StructureError
        ``symmetry-search-failed`` where no consistent symmetry is found at this tolerance.
    """
    dataset = _symmetry(structure.lattice, structure.positions, structure.numbers, symprec)
    rotations, translations = _operations(dataset)
    if keep_cell:
        return Cell(structure, rotations, translations, dataset.number, np.eye(3), np.eye(3))

    # One atom of each translation class, in a primitive lattice of the given orientation.
    primitive = np.unique(dataset.mapping_std_prim, return_index=True)[1]
    lattice = spglib.niggli_reduce(np.array(dataset.prim_std_linear).T @ structure.lattice)
    if lattice is None:
        raise _symmetry_error(symprec)
    if np.linalg.det(lattice) < 0:
        lattice = -lattice  # inverting all three vectors keeps the metric, hence the Niggli conditions
    to_new = structure.lattice @ np.linalg.inv(lattice)  # of fractional coordinates as rows
    positions = structure.positions[primitive] @ to_new % 1.0
    numbers = structure.numbers[primitive]
    if len(primitive) < structure.n_atoms:
        # A supercell's own lattice hides operations that its primitive cell has.
        rotations, translations = _operations(_symmetry(lattice, positions, numbers, symprec))
    else:
        rotations = np.rint(to_new.T @ rotations @ np.linalg.inv(to_new.T)).astype(np.int64)
        translations = translations @ to_new
    rotation = np.array(dataset.std_rotation_matrix)
    return Cell(
        structure=replace(structure, lattice=lattice @ rotation.T, positions=positions, numbers=numbers),
        rotations=rotations,
        translations=translations,
        space_group=dataset.number,
        transformation=np.asarray(lattice @ np.linalg.inv(structure.lattice), dtype=float),
        rotation=rotation,
    )


def lattice_point_group(lattice: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rotations (n, 3, 3) of fractional coordinates that map the bare lattice onto itself; the identity in doubt."""
    try:
        return _operations(_symmetry(lattice, np.zeros((1, 3)), np.ones(1, dtype=np.int64), DEFAULT_SYMPREC))[0]
    except StructureError:
        return np.eye(3, dtype=np.int64)[None]


def _symmetry(
    lattice: NDArray[np.float64], positions: NDArray[np.float64], numbers: NDArray[np.int64], symprec: float
) -> moyopy.MoyoDataset:
    cell = moyopy.Cell(lattice.tolist(), positions.tolist(), numbers.tolist())
    try:
        return moyopy.MoyoDataset(cell, symprec=symprec)
    except ValueError:
        raise _symmetry_error(symprec) from None


def _operations(dataset: moyopy.MoyoDataset) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Each distinct rotation, with one of its translations."""
    rotations = np.array(dataset.operations.rotations, dtype=np.int64)
    key = rotations.reshape(-1, 9) @ 101 ** np.arange(9)  # no entry of a rotation is as large as 50
    distinct = np.unique(key, return_index=True)[1]
    return rotations[distinct], np.array(dataset.operations.translations)[distinct]


def _symmetry_error(symprec: float) -> StructureError:
    return StructureError(
        f"no consistent symmetry was found at a tolerance of {symprec:g} Angstrom",
        code="symmetry-search-failed",
        stage="cell",
        remedy="check for atoms that nearly coincide, or change --symprec",
    )

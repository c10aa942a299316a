"""From the cell that was given to the cell that is computed: primitive, Niggli-reduced, standard orientation.

A k mesh chosen from the given cell makes a spectrum depend on how the crystal was written down: silicon as
primitive and as conventional cell differ by up to 10 % of the feature. `canonical_cell` removes that choice
before any mesh is chosen. Positions are not idealised: only the description of the crystal changes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import spglib
from numpy.typing import NDArray

from sorep.errors import StructureError
from sorep.structure import Structure

DEFAULT_SYMPREC = 1e-5
"""Angstrom; two positions closer than this are the same to the symmetry search (spglib's own default)."""


@dataclass(frozen=True, eq=False)
class Cell:
    """The cell in which a spectrum is computed.

    Attributes
    ----------
    structure : Structure
        The crystal in this cell.
    rotations : (n, 3, 3) int array
        Point-group operations in fractional coordinates of this cell.
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
    space_group: int
    transformation: NDArray[np.float64]
    rotation: NDArray[np.float64]


def canonical_cell(structure: Structure, *, symprec: float = DEFAULT_SYMPREC, keep_cell: bool = False) -> Cell:
    """Reduce to the primitive cell, then to its Niggli cell, in spglib's standard orientation.

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
        ``symmetry-search-failed`` where spglib finds no consistent symmetry at this tolerance.
    """
    given = (structure.lattice, structure.positions, structure.numbers)
    dataset = _symmetry(given, symprec)
    if keep_cell:
        return Cell(structure, _point_group(dataset), int(dataset.number), np.eye(3), np.eye(3))

    # Primitive: one atom of each translation class, in a primitive lattice of the given orientation.
    primitive = np.unique(dataset.mapping_to_primitive, return_index=True)[1]
    lattice = spglib.niggli_reduce(dataset.primitive_lattice)
    if lattice is None:
        raise _symmetry_error(symprec)
    if np.linalg.det(lattice) < 0:
        lattice = -lattice  # inverting all three vectors keeps the metric, hence the Niggli conditions
    positions = structure.positions[primitive] @ structure.lattice @ np.linalg.inv(lattice) % 1.0
    numbers = structure.numbers[primitive]

    rotations = _change_basis(_point_group(dataset), structure.lattice, lattice)
    hall = spglib.get_symmetry_from_database(dataset.hall_number)
    if hall is None or len(rotations) < len(np.unique(hall["rotations"], axis=0)):
        # A supercell's own lattice hides operations that its primitive cell has.
        rotations = _point_group(_symmetry((lattice, positions, numbers), symprec))
    rotation = np.array(dataset.std_rotation_matrix)
    return Cell(
        structure=replace(structure, lattice=lattice @ rotation.T, positions=positions, numbers=numbers),
        rotations=rotations,
        space_group=int(dataset.number),
        transformation=np.asarray(lattice @ np.linalg.inv(structure.lattice), dtype=float),
        rotation=rotation,
    )


def _symmetry(cell: tuple, symprec: float) -> spglib.SpglibDataset:
    try:
        dataset = spglib.get_symmetry_dataset(cell, symprec=symprec)
    except spglib.SpglibError:
        dataset = None  # older and newer ways of spglib to say the same
    if dataset is None:
        raise _symmetry_error(symprec)
    return dataset


def _point_group(dataset: spglib.SpglibDataset) -> NDArray[np.int64]:
    return np.unique(dataset.rotations, axis=0).astype(np.int64)


def _change_basis(
    rotations: NDArray[np.int64], old: NDArray[np.float64], new: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Rewrite rotations of fractional coordinates of ``old`` for ``new`` (lattice vectors as rows)."""
    to_new = np.linalg.inv(new.T) @ old.T
    return np.rint(to_new @ rotations @ np.linalg.inv(to_new)).astype(np.int64)


def _symmetry_error(symprec: float) -> StructureError:
    return StructureError(
        f"spglib found no consistent symmetry at a tolerance of {symprec:g} Angstrom",
        code="symmetry-search-failed",
        stage="cell",
        remedy="check for atoms that nearly coincide, or change --symprec",
    )

"""Other ways of writing one crystal down, none of which may change its spectrum.

Each is a function of a structure and, where there is a choice to make, of a random generator.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import spglib
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from sorep.errors import StructureError
from sorep.structure import Structure


def rotated(structure: Structure, rng: np.random.Generator) -> Structure:
    """Turned in space."""
    return replace(structure, lattice=structure.lattice @ _rotation(rng).T)


def mirrored(structure: Structure, rng: np.random.Generator) -> Structure:
    """The mirror image, turned in space: the other enantiomorph of a chiral crystal."""
    return replace(structure, lattice=-structure.lattice @ _rotation(rng).T)


def translated(structure: Structure, rng: np.random.Generator) -> Structure:
    """All atoms moved by one vector of up to 5 Angstrom along each axis."""
    vector = rng.uniform(-5, 5, 3) @ np.linalg.inv(structure.lattice)
    return replace(structure, positions=(structure.positions + vector) % 1.0)


def permuted(structure: Structure, rng: np.random.Generator) -> Structure:
    """Atoms in another order."""
    order = rng.permutation(structure.n_atoms)
    if (np.diff(order) == 1).all():
        order = order[::-1]
    return replace(structure, numbers=structure.numbers[order], positions=structure.positions[order])


def with_other_axes(structure: Structure, rng: np.random.Generator) -> Structure:
    """Another basis of the same lattice: its change is integer, of determinant 1 or -1, and relabels the axes."""
    change = np.eye(3, dtype=int)[rng.permutation(3)]
    for _ in range(3):
        i, j = rng.choice(3, 2, replace=False)
        change[i] += rng.choice([-1, 1]) * change[j]
    return supercell(structure, change)


def repeated(structure: Structure, rng: np.random.Generator) -> Structure:
    """A supercell of two or three cells, skewed at random."""
    n = int(rng.integers(2, 4))
    return supercell(structure, [[1, 0, rng.integers(n)], [0, 1, rng.integers(n)], [0, 0, n]])


def supercell(structure: Structure, multiples: ArrayLike) -> Structure:
    """The cell of the lattice vectors ``multiples @ lattice``.

    Parameters
    ----------
    structure : Structure
    multiples : (3,) or (3, 3) int array
        How often to repeat each axis, or an integer matrix that is not singular.
    """
    matrix = np.asarray(multiples, dtype=int)
    matrix = np.diag(matrix) if matrix.ndim == 1 else matrix
    reach = np.abs(matrix).sum(axis=0)
    grid = np.meshgrid(*(np.arange(-m, m + 1) for m in reach), indexing="ij")
    cells = np.stack(grid, -1).reshape(-1, 3)
    inside = cells @ np.linalg.inv(matrix)
    cells = cells[((inside > -1e-9) & (inside < 1 - 1e-9)).all(axis=1)]
    positions = (structure.positions + cells[:, None]).reshape(-1, 3) @ np.linalg.inv(matrix)
    numbers = np.tile(structure.numbers, len(cells))
    return replace(structure, lattice=matrix @ structure.lattice, numbers=numbers, positions=positions % 1.0)


def primitive_and_conventional(structure: Structure) -> tuple[Structure, Structure]:
    """The primitive and the conventional cell by spglib, nothing idealised."""
    cell: tuple = (structure.lattice, structure.positions, structure.numbers)
    found = [spglib.standardize_cell(cell, to_primitive=primitive, no_idealize=True) for primitive in (True, False)]
    primitive, conventional = (_of_cell(structure, cell) for cell in found)
    return primitive, conventional


def _of_cell(structure: Structure, cell: Any) -> Structure:
    if cell is None:
        raise StructureError(
            f"spglib finds no symmetry of {structure.id}",
            code="symmetry-search-failed",
            stage="cell",
            remedy="choose a structure whose atoms do not nearly coincide",
        )
    lattice, positions, numbers = cell
    return replace(structure, lattice=lattice, positions=positions, numbers=numbers)


def _rotation(rng: np.random.Generator) -> NDArray[np.float64]:
    return Rotation.from_quat(rng.normal(size=4)).as_matrix()

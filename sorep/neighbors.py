"""Neighbour lists of a periodic cell, by pymatgen's compiled search."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class NeighborPairs(NamedTuple):
    """Ordered pairs (atom ``first`` in the home cell, atom ``second`` in the cell ``image``).

    ``first``, ``second`` : (n_pairs,) int; ``image`` : (n_pairs, 3) int lattice translations of the second
    atom; ``distances`` : (n_pairs,) in the unit of the lattice. The atom itself is not its own neighbour.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    image: NDArray[np.int64]
    distances: NDArray[np.float64]


def neighbor_pairs(lattice: NDArray[np.float64], positions: NDArray[np.float64], cutoff: float) -> NeighborPairs:
    """All ordered pairs of atoms within ``cutoff``, periodic images included.

    Parameters
    ----------
    lattice : (3, 3) array
        Lattice vectors as rows.
    positions : (n_atoms, 3) array
        Fractional coordinates; they need not lie in the home cell, and ``image`` refers to them as given.
    cutoff : float
        In the unit of the lattice.
    """
    from pymatgen.optimization.neighbors import find_points_in_spheres

    lattice = np.ascontiguousarray(lattice, dtype=float)
    cartesian = np.ascontiguousarray(positions @ lattice)
    first, second, image, distances = find_points_in_spheres(
        all_coords=cartesian,
        center_coords=cartesian,
        r=float(cutoff),
        pbc=np.ones(3, dtype=np.int64),
        lattice=lattice,
        tol=1e-10,
    )
    image = np.rint(image).astype(np.int64)
    itself = (first == second) & ~image.any(axis=1)
    keep = ~itself
    return NeighborPairs(first[keep], second[keep], image[keep], distances[keep])

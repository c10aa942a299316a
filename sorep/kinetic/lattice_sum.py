"""Real-space blocks <0|A|R> between compact Gaussians: which pairs of atoms, and their integrals.

Each pair of atoms is taken once, and of pairs that an inversion centre maps onto each other one. Integrals come from
tables (see `sorep.kinetic.pair_tables`) or, on the plain route, from libcint one by one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sorep._fortran.blocks import pair_blocks
from sorep.bloch import BlockGroups, Inversion, RealSpaceTerm
from sorep.kinetic.angular import solid_harmonics
from sorep.kinetic.integrals import pair_cutoff, two_centre_integrals
from sorep.kinetic.orbitals import Orbitals
from sorep.kinetic.pair_tables import (
    FINEST_PRECISION,
    HIGHEST_ANGULAR_MOMENTUM,
    SHORTEST_DISTANCE,
    PairTable,
    coordinate,
    pair_table,
)

Route = Literal["tables", "libcint"]
"""Where integrals come from."""

_MOST_DISTANCES = 2_000_000  # held at once while pairs are searched
_MOST_PAIRS = 50_000  # whose harmonics are held at once


def real_space_term(
    orbitals: Orbitals,
    integrals: Sequence[str],
    split: float,
    precision: float,
    *,
    inversion: Inversion | None = None,
    route: Route = "tables",
) -> RealSpaceTerm:
    """Blocks of one-electron integrals between the compact parts of all orbitals.

    Parameters
    ----------
    orbitals : Orbitals
    integrals : sequence of str
        libcint names of two-centre integrals over real spherical functions, e.g. ``"int1e_ovlp_sph"``.
    split : float
        Primitives with smaller exponents (Bohr^-2) are left out; 0 keeps all.
    precision : float
        Matrix elements below this are neglected, Hartree.
    inversion : Inversion or None
        Make the term real by it.
    route : {"tables", "libcint"}
        Tables are not used for angular momenta or precisions that they were not made for.
    """
    elements = [e.compact(split) for e in orbitals.elements]
    highest = max((s.angular_momentum for e in elements for s in e.shells), default=0)
    if precision < FINEST_PRECISION or highest > HIGHEST_ANGULAR_MOMENTUM:
        route = "libcint"
    n = len(elements)
    tables: dict[tuple[int, int], PairTable] = {}
    cutoffs = np.zeros((n, n))
    for one in range(n):
        for other in range(one, n):
            if route == "tables":
                tables[one, other] = pair_table(elements[one], elements[other], tuple(integrals), precision)
                cutoffs[one, other] = tables[one, other].reach
            else:
                cutoffs[one, other] = pair_cutoff(elements[one], elements[other], precision)
    pairs = atom_pairs(orbitals, cutoffs, inversion)
    sizes = np.array([e.n_functions for e in orbitals.elements])[orbitals.element_of]
    new_group = np.flatnonzero(np.diff(pairs.first, prepend=-1) | np.diff(pairs.second, prepend=-1))
    starts = np.append(new_group, len(pairs.first))
    first, second = pairs.first[new_group], pairs.second[new_group]
    data = np.zeros(int(np.sum(sizes[pairs.first] * sizes[pairs.second])) * len(integrals))
    end = 0
    for start in range(0, len(pairs.first), _MOST_PAIRS):
        part = pairs[start : start + _MOST_PAIRS]
        apart = part.distances > 0
        lengths = np.where(apart, part.distances, 1.0)
        directions, coordinates = part.vectors / lengths[:, None], coordinate(lengths)
        harmonics = np.concatenate([solid_harmonics(degree, directions) for degree in range(2 * highest + 1)])
        for (one, other), own in part.by_elements(orbitals.element_of):
            shape = (own.stop - own.start, len(integrals), elements[one].n_functions, elements[other].n_functions)
            blocks = data[end : (end := end + math.prod(shape))].reshape(shape)
            plain = np.ones(len(blocks), dtype=bool)
            if route == "tables":
                plain = apart[own] & (part.distances[own] < SHORTEST_DISTANCE)
                tabulated = np.where(plain, coordinate(np.array(SHORTEST_DISTANCE)), coordinates[own])
                pair_blocks(tables[one, other], tabulated, part.distances[own], harmonics[:, own], blocks)
            if plain.any():
                reference = two_centre_integrals(integrals, elements[one], elements[other], part.vectors[own][plain])
                blocks[plain] = np.stack(reference, axis=1)
            blocks *= part.weights[own][:, None, None, None]
    groups = BlockGroups(
        rows=np.stack([orbitals.offsets[first], sizes[first]], axis=1),
        columns=np.stack([orbitals.offsets[second], sizes[second]], axis=1),
        starts=starts,
        images=pairs.images,
        translations=pairs.translations,
        data=data,
        n_operators=len(integrals),
    )
    return RealSpaceTerm(orbitals.n_functions, groups, inversion)


@dataclass(frozen=True, eq=False)
class AtomPairs:
    """Pairs (atom ``first`` in the home cell, atom ``second`` displaced by a lattice vector), sorted by both elements,
    first and second.

    Attributes
    ----------
    first, second : (n,) int arrays
        The element of the first never comes after that of the second.
    images : (n,) int array
        Index into `translations`, distinct (n_R, 3) lattice vectors.
    vectors : (n, 3) array
        From the first to the second, Bohr; ``distances`` (n,) their lengths.
    weights : (n,) array
        0.5 for a pair that is its own conjugate, else 1.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    images: NDArray[np.int64]
    translations: NDArray[np.int64]
    vectors: NDArray[np.float64]
    distances: NDArray[np.float64]
    weights: NDArray[np.float64]

    def __getitem__(self, part: slice) -> AtomPairs:
        """Some of the pairs; `translations` stay."""
        return AtomPairs(
            first=self.first[part],
            second=self.second[part],
            images=self.images[part],
            translations=self.translations,
            vectors=self.vectors[part],
            distances=self.distances[part],
            weights=self.weights[part],
        )

    def by_elements(self, element_of: NDArray[np.int64]) -> list[tuple[tuple[int, int], slice]]:
        """The pairs of each two elements, as a slice."""
        key = np.stack([element_of[self.first], element_of[self.second]])
        starts = np.flatnonzero(np.diff(key, axis=1, prepend=-1).any(axis=0))
        ends = np.append(starts[1:], key.shape[1])
        return [((int(key[0, i]), int(key[1, i])), slice(i, j)) for i, j in zip(starts, ends, strict=True)]


def atom_pairs(orbitals: Orbitals, cutoffs: NDArray[np.float64], inversion: Inversion | None = None) -> AtomPairs:
    """All pairs of atoms within the cut-off (Bohr) of their elements, each once, every atom with itself included.

    With an inversion centre, of pairs that it maps onto each other only the one whose atoms come first.
    """
    species, lattice = orbitals.element_of, orbitals.lattice
    n_atoms = len(species)
    opposite = np.arange(n_atoms)
    if inversion is not None:
        atom_of = np.repeat(np.arange(n_atoms), np.diff(np.append(orbitals.offsets, orbitals.n_functions)))
        opposite = atom_of[inversion.partner[orbitals.offsets]]
    representative = np.minimum(opposite, np.arange(n_atoms))
    rank = np.empty(n_atoms, dtype=np.int64)
    rank[np.lexsort((np.arange(n_atoms), species))] = np.arange(n_atoms)
    of_pair = rank[representative]
    first, second = np.nonzero((representative == np.arange(n_atoms))[:, None] & (of_pair[:, None] <= of_pair))
    # The opposite of an atom adds nothing to what one on the inversion centre has with the atom itself.
    keep = (representative[second] == second) | (opposite[first] != first)
    first, second = first[keep], second[keep]
    order = np.lexsort((second, first, species[second], species[first]))
    first, second = first[order], second[order]

    between = orbitals.positions[second] - orbitals.positions[first]
    wrapped = np.rint(between)
    nearest = (between - wrapped) @ lattice
    limits = cutoffs[species[first], species[second]]
    # |R_i| <= |R| |b_i| bounds each index of a lattice vector.
    reach = np.floor(limits.max() * np.linalg.norm(np.linalg.inv(lattice), axis=0) + 0.5).astype(np.int64)
    box = np.stack(np.meshgrid(*(np.arange(-m, m + 1) for m in reach), indexing="ij"), -1).reshape(-1, 3)
    points = box @ lattice
    squares = np.einsum("ij,ij->i", points, points)
    inside = np.sqrt(squares) <= limits.max() + np.linalg.norm(nearest, axis=1).max()
    box, points, squares = box[inside], points[inside], squares[inside]
    found = []
    chunk = max(1, _MOST_DISTANCES // len(box))
    for start in range(0, len(first), chunk):
        part = nearest[start : start + chunk]
        distances = 2 * part @ points.T
        distances += squares
        distances += np.einsum("ij,ij->i", part, part)[:, None]
        group, image = np.nonzero(distances <= limits[start : start + chunk, None] ** 2)
        found.append((group + start, image))
    group, image = (np.concatenate(parts) for parts in zip(*found, strict=True))

    translations = box[image] - wrapped[group].astype(np.int64)
    x, y, z = translations.T
    itself = first[group] == second[group]
    home = ~translations.any(axis=1)
    keep = ~itself | home | (x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0))))
    group, image, translations = group[keep], image[keep], translations[keep]
    vectors = nearest[group] + points[image]
    own_opposite = (opposite[first] == second) & (first != second)
    own = (itself & home)[keep]
    vectors[own] = 0.0
    lowest = translations.min(axis=0)
    size = translations.max(axis=0) - lowest + 1
    distinct, images = np.unique(
        np.ravel_multi_index(tuple((translations - lowest).T), tuple(size)), return_inverse=True
    )
    return AtomPairs(
        first=first[group],
        second=second[group],
        images=images,
        translations=np.stack(np.unravel_index(distinct, tuple(size)), axis=1) + lowest,
        vectors=vectors,
        distances=np.linalg.norm(vectors, axis=1),
        weights=np.where(own | own_opposite[group], 0.5, 1.0),
    )

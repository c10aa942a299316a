"""A crystal as a graph: atoms are nodes, and every atom gathers from its nearest neighbours.

The neighbours of an atom are the nearest twelve within 8 Angstrom, and all others of the shell in which the twelfth
lies. A list cut through a shell would depend on the order of the atoms, because only that order tells equally distant
neighbours apart.

Messages along an edge depend on its two atoms and on its length only, and not on its direction. Edges that agree in all
three are therefore stored once, with their number: a small cell of high symmetry has many (rock salt 4 instead of 36).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sorep.errors import Mat2SpecError
from sorep.mat2spec.elements import N_ELEMENTS
from sorep.neighbors import NeighborPairs, neighbor_pairs
from sorep.structure import Structure

if TYPE_CHECKING:
    from torch import Tensor

CUTOFF = 8.0
"""Angstrom."""

N_NEIGHBORS = 12

N_FRACTIONS = 103
"""Length of a composition: H to Lr."""

_SHELL = 0.01  # Angstrom; a neighbour farther by no more than this belongs to the same shell
_SAME_LENGTH = 1e-6  # Angstrom; what single precision can tell apart at the lengths of bonds


@dataclass(frozen=True, eq=False)
class CrystalGraph:
    """Atoms and edges of one crystal.

    Attributes
    ----------
    numbers : (n_atoms,) int array
        Atomic numbers.
    senders, receivers : (n_edges,) int array
        Atom that a message comes from, and the one that gathers it; sorted by receiver.
    distances : (n_edges,) float array
        Angstrom.
    multiplicities : (n_edges,) int array
        How many neighbours of the receiver the edge stands for.
    composition : (103,) float array
        Fractions of the elements H to Lr.
    """

    numbers: NDArray[np.int64]
    senders: NDArray[np.int64]
    receivers: NDArray[np.int64]
    distances: NDArray[np.float64]
    multiplicities: NDArray[np.int64]
    composition: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GraphBatch:
    """Graphs of several crystals as one graph without edges between them.

    Attributes
    ----------
    numbers : (n_atoms,) int64 tensor
    senders, receivers : (n_edges,) int64 tensor
        Positions in ``numbers``; sorted by receiver.
    distances : (n_edges,) float tensor
        Angstrom.
    multiplicities : (n_edges,) float tensor
    compositions : (n_crystals, 103) float tensor
    crystal : (n_atoms,) int64 tensor
        To which crystal an atom belongs; ascending.
    """

    numbers: Tensor
    senders: Tensor
    receivers: Tensor
    distances: Tensor
    multiplicities: Tensor
    compositions: Tensor
    crystal: Tensor

    def __len__(self) -> int:
        return len(self.compositions)

    def to(self, device: object) -> GraphBatch:
        """The same on a device."""
        return replace(self, **{name: tensor.to(device) for name, tensor in vars(self).items()})


def build_graph(structure: Structure, cutoff: float = CUTOFF, neighbors: int = N_NEIGHBORS) -> CrystalGraph:
    """The graph of a validated structure, in any of its cells.

    Parameters
    ----------
    structure : Structure
    cutoff : float
        Angstrom.
    neighbors : int
        Each atom gathers from at least so many, if there are so many within ``cutoff``.

    Raises
    ------
    Mat2SpecError
        ``element-without-features`` beyond Fm, ``isolated-atom``.
    """
    if structure.numbers.max() > N_ELEMENTS:
        raise Mat2SpecError(
            f"atomic number {structure.numbers.max()}, and properties are known up to {N_ELEMENTS} (Fm)",
            code="element-without-features",
            remedy="leave this structure out, or use SOREPs as input",
        )
    edges = nearest_neighbors(structure, cutoff, neighbors)
    if len(np.unique(edges.first)) < structure.n_atoms:
        lonely = np.setdiff1d(np.arange(structure.n_atoms), edges.first)[0]
        raise Mat2SpecError(
            f"atom {lonely} ({structure.symbols[lonely]}) has no neighbour within {cutoff:g} Angstrom",
            code="isolated-atom",
            remedy="a graph says nothing of such an atom: check the structure, or leave it out",
        )
    order = np.lexsort((edges.distances, edges.second, edges.first))
    receivers, senders, distances = edges.first[order], edges.second[order], edges.distances[order]
    is_new = (np.diff(receivers) != 0) | (np.diff(senders) != 0) | (np.diff(distances) > _SAME_LENGTH)
    starts = np.concatenate([[0], np.flatnonzero(is_new) + 1])
    multiplicities = np.diff(starts, append=len(distances))
    counts = np.bincount(structure.numbers - 1, minlength=N_FRACTIONS)
    return CrystalGraph(
        numbers=structure.numbers,
        senders=senders[starts],
        receivers=receivers[starts],
        distances=np.add.reduceat(distances, starts) / multiplicities,
        multiplicities=multiplicities,
        composition=counts / structure.n_atoms,
    )


def nearest_neighbors(structure: Structure, cutoff: float = CUTOFF, neighbors: int = N_NEIGHBORS) -> NeighborPairs:
    """The edges one by one, with their directions: ``first`` gathers from ``second`` in the cell ``image``.

    Shells that begin within ``cutoff`` are whole too. Sorted by ``first`` and distance.
    """
    first, second, image, distances = neighbor_pairs(structure.lattice, structure.positions, cutoff + _SHELL)
    order = np.lexsort((distances, first))
    ends = np.cumsum(np.bincount(first, minlength=structure.n_atoms))
    starts = np.concatenate([[0], ends[:-1]])
    last = np.minimum(starts + neighbors, ends) - 1  # of atoms without neighbours, the last of another one
    reach = distances[order[last]] if len(order) else np.zeros(structure.n_atoms)
    kept = order[distances[order] <= reach[first[order]] + _SHELL]
    return NeighborPairs(first[kept], second[kept], image[kept], distances[kept])


def collate(graphs: Sequence[CrystalGraph]) -> GraphBatch:
    """One batch of at least one graph; floats are of torch's default type."""
    import torch

    sizes = np.array([len(graph.numbers) for graph in graphs])
    edges = [len(graph.distances) for graph in graphs]
    offsets = np.repeat(np.cumsum(sizes) - sizes, edges)

    def joined(name: str) -> NDArray[np.generic]:
        return np.concatenate([getattr(graph, name) for graph in graphs])

    def floats(values: NDArray[np.generic]) -> Tensor:
        return torch.tensor(values, dtype=torch.get_default_dtype())

    return GraphBatch(
        numbers=torch.from_numpy(joined("numbers")),
        senders=torch.from_numpy(joined("senders") + offsets),
        receivers=torch.from_numpy(joined("receivers") + offsets),
        distances=floats(joined("distances")),
        multiplicities=floats(joined("multiplicities")),
        compositions=floats(np.stack([graph.composition for graph in graphs])),
        crystal=torch.from_numpy(np.repeat(np.arange(len(graphs)), sizes)),
    )

"""Density-based clusters of feature vectors, for one radius epsilon and for all of them at once.

DBSCAN joins what is closer than epsilon: a vector is a core of a cluster if it has N_min vectors, itself among them,
within epsilon, and cores within epsilon of each other belong together (Ester et al., KDD-96). With N_min = 1, which
the SOREP paper uses to find unique structures, every vector is a core and the clusters are the connected components.

The clusters at all radii follow from one minimum spanning tree: that of the distances max(d_ij, c_i, c_j), where c_i
is the distance within which vector i has N_min vectors. Its edges, by length, are the merges as epsilon grows (the
paper's Figure 4), and the edges up to epsilon join what is one cluster at epsilon. With N_min = 1 this is single
linkage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sorep.errors import UsageError
from sorep.features import FeatureSpec
from sorep.similarity.distances import blocks
from sorep.similarity.neighbors import nearest

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Array = NDArray[np.float64]

NOISE = -1
"""Label of a vector that belongs to no cluster; there is none with N_min = 1."""

_LEAST = 1e-300  # in place of zero, which SciPy's graphs take for the absence of an edge
_FLOOR = 1e-14  # the precision of distances, on logarithmic axes


def radius_graph(values: Array, epsilon: float, metric: str = "cosine", spec: FeatureSpec | None = None) -> csr_matrix:
    """Distances up to ``epsilon`` as a symmetric sparse matrix, zeros and the diagonal stored too.

    Memory grows with the number of such pairs.
    """
    from scipy.sparse import csr_matrix

    n = len(values)
    kept: list[tuple[Array, Array, Array]] = []
    for rows, columns, block in blocks(values, metric, spec):
        i, j = np.nonzero(block <= epsilon)
        edge = block[i, j], (i + rows.start).astype(np.int32), (j + columns.start).astype(np.int32)
        kept.append(edge)
        if rows != columns:
            kept.append((edge[0], edge[2], edge[1]))
    distances, i, j = (np.concatenate(parts) for parts in zip(*kept, strict=True)) if kept else np.empty((3, 0))
    return csr_matrix((distances, (i, j)), shape=(n, n))


def dbscan(
    values: Array,
    epsilon: float,
    n_min: int = 1,
    metric: str = "cosine",
    spec: FeatureSpec | None = None,
) -> NDArray[np.intp]:
    """The cluster of every row, numbered from 0 in the order of their first rows, or `NOISE`.

    Parameters
    ----------
    values : (n, n_features) array
    epsilon : float
        Radius, in the unit of the metric; a distance equal to it is within.
    n_min : int
        Number of vectors, itself among them, that a core has within epsilon.
    metric : str
        One of `sorep.similarity.METRICS`.
    spec : FeatureSpec or None
        The grid; needed for the Wasserstein distance.
    """
    from sklearn.cluster import DBSCAN

    check(epsilon, n_min)
    if not len(values):
        return np.empty(0, dtype=np.intp)
    model = DBSCAN(eps=epsilon or _LEAST, min_samples=n_min, metric="precomputed")
    return model.fit(radius_graph(values, epsilon, metric, spec)).labels_


def k_distances(values: Array, k: int = 1, metric: str = "cosine", spec: FeatureSpec | None = None) -> Array:
    """Distance of every row to its ``k``-th nearest other one, ascending: the curve in which to look for an elbow."""
    return np.sort(nearest(values, k, metric, spec).distances[:, -1:].ravel())


def elbow(curve: Array) -> float | None:
    """A radius suggested by a `k_distances` curve, or None where it has no elbow.

    The logarithm of the distance is drawn over the rank, and the point sought that lies farthest below the chord from
    the first to the last one: the end of the flat part. The suggestion is the geometric mean of this distance and the
    next one, so that it lies within a gap where there is one. Distances below 1e-14 count as 1e-14. It is a place to
    start from, not a measurement: look at the curve.
    """
    logarithms = np.log(np.maximum(np.sort(curve), _FLOOR))
    if len(logarithms) < 3 or logarithms[-1] == logarithms[0]:
        return None
    below = np.linspace(logarithms[0], logarithms[-1], len(logarithms)) - logarithms
    at = int(np.argmax(below[:-1]))
    if below[at] <= 0:
        return None
    return float(np.exp(0.5 * (logarithms[at] + logarithms[at + 1])))


def scan(
    values: Array,
    epsilons: Sequence[float] | Array,
    n_min: int = 1,
    metric: str = "cosine",
    spec: FeatureSpec | None = None,
) -> NDArray[np.intp]:
    """Number of clusters (noise is none) for each radius; all from one pass over the distances."""
    return merge_tree(values, n_min, metric, spec).n_clusters(epsilons)


@dataclass(frozen=True, eq=False)
class Merge:
    """Two clusters become one.

    ``first`` and ``second`` are the rows of each, ascending, the one with the smaller first row first.
    """

    epsilon: float
    first: tuple[int, ...]
    second: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class MergeTree:
    """The clusters of ``n`` vectors at every radius.

    Attributes
    ----------
    edges : (n - 1, 2) int array
        Pairs of rows that join two clusters, by rising epsilon.
    epsilons : (n - 1,) float array
        From which radius on they do.
    core : (n,) float array
        From which radius on each vector is a core; zeros with N_min = 1.
    """

    edges: NDArray[np.intp]
    epsilons: Array
    core: Array

    def n_clusters(self, epsilons: Sequence[float] | Array) -> NDArray[np.intp]:
        """Number of clusters for each radius."""
        born = np.searchsorted(np.sort(self.core), epsilons, side="right")
        return born - np.searchsorted(self.epsilons, epsilons, side="right")

    def labels(self, epsilon: float) -> NDArray[np.intp]:
        """The cluster of every core, numbered from 0 in the order of their first rows; `NOISE` for all others.

        That is DBSCAN without its border vectors (DBSCAN* of Campello et al., PAKDD 2013), and with N_min = 1 DBSCAN.
        """
        is_joined = self.epsilons <= epsilon
        labels = components(len(self.core), self.edges[is_joined])
        labels[self.core > epsilon] = NOISE
        is_cluster = labels != NOISE
        labels[is_cluster] = np.unique(labels[is_cluster], return_inverse=True)[1]
        return labels

    def merges(self, start: float = 0.0, stop: float = np.inf) -> list[Merge]:
        """What merges with what as epsilon grows from ``start`` to ``stop``, beginning with the clusters at ``start``.

        With N_min > 1 a vector that is no core yet counts as a cluster of its own.
        """
        labels = components(len(self.core), self.edges[self.epsilons <= start])
        members = {int(label): tuple(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)}
        home = labels.tolist()
        merges = []
        for (i, j), epsilon in zip(self.edges.tolist(), self.epsilons.tolist(), strict=True):
            if start < epsilon <= stop:
                first, second = sorted((members[home[i]], members[home[j]]))
                merges.append(Merge(epsilon, first, second))
                kept = home[i]
                del members[home[j]]
                members[kept] = tuple(sorted(first + second))
                for row in members[kept]:
                    home[row] = kept
        return merges

    def linkage(self) -> Array:
        """The tree as `scipy.cluster.hierarchy` wants it, (n - 1, 4), for its dendrogram and other functions."""
        n = len(self.core)
        parent = list(range(2 * n - 1))
        size = [1] * n + [0] * (n - 1)

        def root(node: int) -> int:
            while parent[node] != node:
                parent[node] = parent[parent[node]]
                node = parent[node]
            return node

        rows = np.empty((max(n - 1, 0), 4))
        for step, ((i, j), epsilon) in enumerate(zip(self.edges.tolist(), self.epsilons.tolist(), strict=True)):
            first, second = sorted((root(i), root(j)))
            parent[first] = parent[second] = n + step
            size[n + step] = size[first] + size[second]
            rows[step] = first, second, epsilon, size[n + step]
        return rows


def merge_tree(values: Array, n_min: int = 1, metric: str = "cosine", spec: FeatureSpec | None = None) -> MergeTree:
    """The clusters at every radius: a minimum spanning tree, in bounded memory. See `dbscan` for the parameters."""
    check(0.0, n_min)
    n = len(values)
    core = np.zeros(n)
    if n_min > n:
        core[:] = np.inf
    elif n_min > 1:
        core = nearest(values, n_min - 1, metric, spec).distances[:, -1]
    # The tree of the whole is among the edges of the trees of its parts.
    parts = [
        _spanning_edges(np.maximum(block, np.maximum.outer(core[rows], core[columns])), rows, columns)
        for rows, columns, block in blocks(values, metric, spec)
    ]
    if n < 2:
        return MergeTree(np.empty((0, 2), dtype=np.intp), np.empty(0), core)
    edges, epsilons = np.concatenate([edges for edges, _ in parts]), np.concatenate([lengths for _, lengths in parts])
    edges, epsilons = _minimum_tree(n, edges, epsilons)
    order = np.lexsort((edges[:, 1], edges[:, 0], epsilons))
    return MergeTree(edges[order], np.where(epsilons <= _LEAST, 0.0, epsilons)[order], core)


def _spanning_edges(block: Array, rows: slice, columns: slice) -> tuple[NDArray[np.intp], Array]:
    i, j = np.indices(block.shape).reshape(2, -1)
    if rows == columns:
        above = i < j
        edges, epsilons = np.column_stack([i[above], j[above]]), block.ravel()[above]
        size, offset = len(block), 0
    else:
        edges, epsilons = np.column_stack([i, j + len(block)]), block.ravel()
        size, offset = sum(block.shape), columns.start - len(block) - rows.start
    edges, epsilons = _minimum_tree(size, edges, epsilons)
    return edges + [rows.start, rows.start + offset], epsilons


def _minimum_tree(n: int, edges: NDArray[np.intp], epsilons: Array) -> tuple[NDArray[np.intp], Array]:
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import minimum_spanning_tree

    graph = csr_matrix((np.maximum(epsilons, _LEAST), (edges[:, 0], edges[:, 1])), shape=(n, n))
    tree = minimum_spanning_tree(graph, overwrite=True).tocoo()
    return np.column_stack([tree.row, tree.col]).astype(np.intp), tree.data


def components(n: int, edges: NDArray[np.intp]) -> NDArray[np.intp]:
    """Connected components of ``n`` nodes, numbered from 0 in the order of their first nodes."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(edges), dtype=np.int8), (edges[:, 0], edges[:, 1])), shape=(n, n))
    labels = connected_components(graph, directed=False)[1]
    first, inverse = np.unique(labels, return_index=True, return_inverse=True)[1:]
    return np.argsort(np.argsort(first))[inverse].astype(np.intp)


def check(epsilon: float, n_min: int) -> None:
    """Refuse a radius or a number that makes no sense."""
    if not 0 <= epsilon < np.inf:
        raise UsageError(f"epsilon {epsilon:g}", code="bad-option", remedy="give a finite radius, zero or more")
    if n_min < 1:
        raise UsageError(f"N_min {n_min}", code="bad-option", remedy="give one or more")

"""Which structures are near each other, which are the same, and which stand alone.

>>> from sorep.similarity import find_groups, nearest                                 # doctest: +SKIP
>>> groups = find_groups(matrix.values, matrix.ids, formulas, epsilon=1e-3)           # doctest: +SKIP
>>> groups.representatives                                                            # doctest: +SKIP

Distances
    `condensed`, `cross`, `blocks`: cosine, euclidean, tanimoto or wasserstein (`METRICS`).
Neighbours
    `nearest`: the k nearest of each vector.
Clusters
    `dbscan` at one radius; `merge_tree` and `scan` at all radii; `k_distances` and `elbow` to choose one.
Unique structures
    `find_groups`, which gives `Groups`; `group_store` does it for a store and keeps the result there.
"""

from sorep.similarity.clustering import (
    NOISE,
    Merge,
    MergeTree,
    dbscan,
    elbow,
    k_distances,
    merge_tree,
    radius_graph,
    scan,
)
from sorep.similarity.distances import METRICS, blocks, condensed, cross
from sorep.similarity.groups import DEFAULT_EPSILON, Groups, Rule
from sorep.similarity.matcher import confirm
from sorep.similarity.neighbors import Neighbors, nearest
from sorep.similarity.stored import formulas_of, group_store
from sorep.similarity.unique import find_groups, reduced_formula

__all__ = [
    "DEFAULT_EPSILON",
    "METRICS",
    "NOISE",
    "Groups",
    "Merge",
    "MergeTree",
    "Neighbors",
    "Rule",
    "blocks",
    "condensed",
    "confirm",
    "cross",
    "dbscan",
    "elbow",
    "find_groups",
    "formulas_of",
    "group_store",
    "k_distances",
    "merge_tree",
    "nearest",
    "radius_graph",
    "reduced_formula",
    "scan",
]

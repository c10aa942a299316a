"""The nearest neighbours of feature vectors, within one matrix or of new ones among known ones.

The distances are those of `sorep.similarity.distances`, block by block: scikit-learn's brute-force search works with
scalar products, whose error is larger than the distance of two descriptions of one crystal, and it has no Tanimoto
distance of real vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sorep.errors import UsageError
from sorep.features import FeatureSpec
from sorep.similarity.distances import BLOCK, get_measure, slices


@dataclass(frozen=True, eq=False)
class Neighbors:
    """The neighbours of each row, nearest first.

    Attributes
    ----------
    distances : (n, k) float array
    rows : (n, k) int array
        Of the matrix that was searched. Of equally distant ones the first rows are taken.
    """

    distances: NDArray[np.float64]
    rows: NDArray[np.intp]


def nearest(
    values: NDArray[np.float64],
    k: int = 10,
    metric: str = "cosine",
    spec: FeatureSpec | None = None,
    *,
    among: NDArray[np.float64] | None = None,
) -> Neighbors:
    """The ``k`` nearest neighbours of every row.

    Parameters
    ----------
    values : (n, n_features) array
    k : int
        Fewer are given where there are fewer.
    metric : str
        One of `sorep.similarity.METRICS`.
    spec : FeatureSpec or None
        The grid; needed for the Wasserstein distance.
    among : (m, n_features) array or None
        Where to search; by default among the other rows of ``values`` itself.

    Returns
    -------
    Neighbors

    Raises
    ------
    UsageError
        ``bad-option`` for a ``k`` below one; and as `sorep.similarity.condensed`.
    """
    if k < 1:
        raise UsageError(f"{k} neighbours", code="bad-option", remedy="ask for one or more")
    measure = get_measure(metric)
    prepared = measure.prepare(values, spec)
    known = prepared if among is None else measure.prepare(among, spec)
    k = min(k, len(known) - (among is None))
    distances, rows = np.empty((len(prepared), max(k, 0))), np.empty((len(prepared), max(k, 0)), dtype=np.intp)
    if k < 1:
        return Neighbors(distances, rows)
    for part in slices(len(prepared), BLOCK):
        # The best so far, and those of the next columns.
        best = np.full((part.stop - part.start, k), np.inf)
        which = np.full(best.shape, len(known), dtype=np.intp)
        for columns in slices(len(known), BLOCK):
            block = measure.between(prepared[part], known[columns])
            if among is None and columns == part:
                np.fill_diagonal(block, np.inf)
            best = np.hstack([best, block])
            which = np.hstack([which, np.broadcast_to(np.arange(columns.start, columns.stop), block.shape)])
            order = np.argsort(best, axis=1, kind="stable")[:, :k]
            best, which = np.take_along_axis(best, order, axis=1), np.take_along_axis(which, order, axis=1)
        distances[part], rows[part] = best, which
    return Neighbors(distances, rows)

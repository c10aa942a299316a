"""Distances between feature vectors of one identity, in blocks of bounded memory.

    cosine        1 - u.v = |u - v|^2 / 2 with u = a / |a|, v = b / |b|    (SOREP paper, uniqueness analysis)
    euclidean     |a - b|
    tanimoto      1 - a.b / (a^2 + b^2 - a.b) = |a - b|^2 / (a^2 + b^2 - a.b), for real numbers
    wasserstein   W1 in eV: the mean energy by which states must be moved to turn one density into the other

Euclidean and Wasserstein distances obey the triangle inequality; so do the square roots of the other two, but not these
two themselves. All are symmetric, and zero between equal vectors.

**Precision.** A scalar product, as 1 - u.v needs it, leaves an error of about 1e-15, larger than the distance of two
descriptions of one crystal can be. Small distances are therefore computed again from a - b, which leaves a relative
error below 1e-8 down to distances of 1e-14.

**W1.** Each vector is a set of point masses at the energies of its grid (bin centres for bins), normalised to unit
mass, and W1 is the integral of the absolute difference of the cumulative masses over energy. A difference of total
mass, say of the number of states per volume, is therefore not seen; the Euclidean and Tanimoto distances see it. A
feature of several windows has several energy axes. It is normalised as a whole, and mass that one vector has in another
window than the other one moves over the upper ends of both windows, which are taken as one point. That is W1 on a tree,
a metric too, and needs no special rule for an empty window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sorep.errors import SimilarityError, UsageError
from sorep.features import FeatureSpec

Array = NDArray[np.float64]

BLOCK = 1024
"""Rows and columns of a block: 8 MiB of distances."""

_FROM_DIFFERENCES = 1e-7  # relative to a^2 + b^2, below which |a - b|^2 is not left to a scalar product
_MOSTLY = 0.2  # of a block


def condensed(values: Array, metric: str = "cosine", spec: FeatureSpec | None = None) -> Array:
    """Distances of all pairs of rows, in the order of `scipy.spatial.distance.pdist`.

    Parameters
    ----------
    values : (n, n_features) array
    metric : str
        One of `METRICS`.
    spec : FeatureSpec or None
        The grid; needed for the Wasserstein distance.

    Returns
    -------
    (n (n - 1) / 2,) array
        eV for the Wasserstein distance, the unit of the features for the Euclidean one, else a pure number.

    Raises
    ------
    UsageError
        ``unknown-metric``, ``metric-needs-grid``.
    SimilarityError
        ``malformed-features``, ``non-finite-features``, or ``empty-feature`` for a vector of zeros, whose direction and
        normalisation do not exist (cosine and Wasserstein).
    """
    n = len(values)
    distances = np.empty(n * (n - 1) // 2)
    for rows, columns, block in blocks(values, metric, spec):
        for i, line in zip(range(rows.start, rows.stop), block, strict=True):
            first = max(columns.start, i + 1)
            start = i * n - i * (i + 1) // 2 + first - i - 1
            distances[start : start + columns.stop - first] = line[first - columns.start :]
    return distances


def cross(a: Array, b: Array, metric: str = "cosine", spec: FeatureSpec | None = None) -> Array:
    """Distances of every row of ``a`` to every row of ``b``, (len(a), len(b)); see `condensed`."""
    measure = get_measure(metric)
    first, second = measure.prepare(a, spec), measure.prepare(b, spec)
    distances = np.empty((len(first), len(second)))
    for rows in slices(len(first), BLOCK):
        for columns in slices(len(second), BLOCK):
            distances[rows, columns] = measure.between(first[rows], second[columns])
    return distances


def blocks(
    values: Array, metric: str = "cosine", spec: FeatureSpec | None = None, *, size: int = BLOCK
) -> Iterator[tuple[slice, slice, Array]]:
    """Distances of all pairs in pieces of at most ``size`` by ``size``: rows, columns, distances.

    Blocks on and above the diagonal are given, each once; those on the diagonal are whole and symmetric. Beside
    ``values`` there is one prepared copy of them and a few blocks in memory.
    """
    measure = get_measure(metric)
    prepared = measure.prepare(values, spec)
    for rows in slices(len(prepared), size):
        for columns in slices(len(prepared), size):
            if columns.start >= rows.start:
                yield rows, columns, measure.between(prepared[rows], prepared[columns])


def slices(n: int, size: int) -> list[slice]:
    """0 to n in pieces."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


@dataclass(frozen=True)
class Measure:
    """A metric in two steps, of which the first is done once for each vector.

    Attributes
    ----------
    prepare : callable
        Checks vectors and returns what `between` and `along` take; a new array.
    between : callable
        Distances of every row to every row.
    along : callable
        Distances of rows to the same rows of another array, always from differences: the same bits wherever in a matrix
        the two vectors stand.
    """

    prepare: Callable[[Array, FeatureSpec | None], Array]
    between: Callable[[Array, Array], Array]
    along: Callable[[Array, Array], Array]


def get_measure(metric: str) -> Measure:
    """A metric by its name.

    Raises
    ------
    UsageError
        ``unknown-metric``.
    """
    if metric not in METRICS:
        raise UsageError(
            f"unknown metric {metric!r}", code="unknown-metric", remedy=f"choose from {', '.join(METRICS)}"
        )
    return METRICS[metric]


def _by_differences(
    prepare: Callable[[Array, FeatureSpec | None], Array], finish: Callable[[Array, Array], Array]
) -> Measure:
    """A metric that follows from |a - b|^2 and a^2 + b^2."""

    def between(a: Array, b: Array) -> Array:
        norms = np.add.outer(_squared(a), _squared(b))
        return finish(_squared_differences(a, b, norms), norms)

    def along(a: Array, b: Array) -> Array:
        return finish(_squared(a - b), _squared(a) + _squared(b))

    return Measure(prepare, between, along)


def _squared_differences(a: Array, b: Array, norms: Array) -> Array:
    from scipy.spatial.distance import cdist

    squared = norms - 2.0 * (a @ b.T)
    is_small = squared < _FROM_DIFFERENCES * norms
    if np.count_nonzero(is_small) > _MOSTLY * is_small.size:
        return np.asarray(cdist(a, b, "sqeuclidean"), dtype=np.float64)
    rows, columns = np.nonzero(is_small)
    for part in slices(len(rows), BLOCK):
        i, j = rows[part], columns[part]
        squared[i, j] = _squared(a[i] - b[j])
    return squared


def _squared(a: Array) -> Array:
    return np.einsum("ij,ij->i", a, a)


def _tanimoto(squared: Array, norms: Array) -> Array:
    total = norms + squared
    return np.divide(2.0 * squared, total, out=np.zeros_like(total), where=total > 0)


def _manhattan(a: Array, b: Array) -> Array:
    from scipy.spatial.distance import cdist

    return np.asarray(cdist(a, b, "cityblock"), dtype=np.float64)


def _checked(values: Array, spec: FeatureSpec | None = None) -> Array:
    """A copy, if the vectors can be compared."""
    array = np.array(values, dtype=np.float64, order="C")
    expected = array.shape[-1] if spec is None else spec.n_features
    if array.ndim != 2 or array.shape[1] != expected or not expected:
        wanted = "n_features" if spec is None else spec.n_features
        raise SimilarityError(
            f"features have the shape {array.shape} in place of (n, {wanted})",
            code="malformed-features",
            remedy="give one row for each structure, and the grid that the features were made on",
        )
    bad = np.flatnonzero(~np.isfinite(array.sum(axis=1)))
    if len(bad):
        raise SimilarityError(
            f"{len(bad)} rows are not finite, the first of them row {bad[0]}",
            code="non-finite-features",
            remedy="leave these structures out, or compute them again",
        )
    return array


def _unit(values: Array, spec: FeatureSpec | None) -> Array:
    array = _checked(values)
    largest = np.abs(array).max(axis=1, initial=0.0)
    _refuse_empty(largest == 0, "have no direction")
    array /= largest[:, None]  # squares of tiny numbers would underflow
    array /= np.sqrt(_squared(array))[:, None]
    return array


def _cumulative(values: Array, spec: FeatureSpec | None) -> Array:
    if spec is None:
        raise UsageError(
            "the Wasserstein distance needs the energies of the features",
            code="metric-needs-grid",
            remedy="give the feature's specification (FeatureMatrix.spec); for a descriptor choose another metric",
        )
    array = _checked(values, spec)
    mass = array.sum(axis=1)
    _refuse_empty(mass <= 0, "have no positive mass")
    array /= mass[:, None]
    edges = np.cumsum([0, *(window.points for window in spec.windows)])
    for window, start, stop in zip(spec.windows, edges[:-1], edges[1:], strict=True):
        part = array[:, start:stop]
        np.cumsum(part, axis=1, out=part)
        n_steps = window.points - 1 if spec.sampling == "point" else window.points
        part *= (window.stop - window.start) / max(n_steps, 1)
    return array


def _refuse_empty(is_empty: NDArray[np.bool_], reason: str) -> None:
    rows = np.flatnonzero(is_empty)
    if len(rows):
        raise SimilarityError(
            f"{len(rows)} features are zero in their whole window and {reason}, the first of them row {rows[0]}",
            code="empty-feature",
            remedy="choose the metric euclidean or tanimoto, a feature with a wider window, or leave them out",
        )


METRICS: dict[str, Measure] = {
    "cosine": _by_differences(_unit, lambda squared, norms: 0.5 * squared),
    "euclidean": _by_differences(lambda values, spec: _checked(values), lambda squared, norms: np.sqrt(squared)),
    "tanimoto": _by_differences(lambda values, spec: _checked(values), _tanimoto),
    "wasserstein": Measure(_cumulative, _manhattan, lambda a, b: np.abs(a - b).sum(axis=1)),
}
"""Metrics by name."""

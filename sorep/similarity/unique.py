"""Which structures are the same, and one representative of each.

Structures are compared within their reduced formula (or all with all), and those linked by distances up to epsilon form
a group: DBSCAN with N_min = 1, as in the SOREP paper. Distances are computed block by block and only their
consequences kept, so memory is that of the features of the largest composition, however many pairs there are.

**Structures added later** are compared with each other and with those that were there. That gives what a fresh run
gives: groups are the connected components of the pairs within epsilon, pairs between old structures are the same as
before, and what they connected is known from the groups; the nearest neighbour of an old structure is its old one or a
new one. Representatives are sought again in the groups that got new members. What is reported of a pair is computed
from that pair alone, so it does not depend on its place in a block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sorep.errors import SimilarityError, UsageError
from sorep.features import FeatureSpec
from sorep.similarity.clustering import NOISE, check, components, dbscan
from sorep.similarity.distances import BLOCK, Measure, get_measure, slices
from sorep.similarity.groups import DEFAULT_EPSILON, Groups, Rule

Array = NDArray[np.float64]
Rows = NDArray[np.intp]

_TIE = 1 + 1e-6  # more than the relative error of a distance
_MOST_EDGES = 1 << 20
_NONE = -1
_NO_ROW = np.iinfo(np.intp).max


def find_groups(
    values: Array,
    ids: Sequence[str] | NDArray[np.str_],
    formulas: Sequence[str] | NDArray[np.str_],
    metric: str = "cosine",
    epsilon: float = DEFAULT_EPSILON,
    across_compositions: bool = False,
    *,
    n_min: int = 1,
    spec: FeatureSpec | None = None,
    feature: str = "",
    identity: str = "",
    previous: Groups | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Groups:
    """Group equivalent structures.

    Parameters
    ----------
    values : (n, n_features) array
        Feature vectors of one identity.
    ids : (n,) str
        All different. Their order, that of the rows, does not matter.
    formulas : (n,) str
        Of any cell of the crystal; they are reduced here.
    metric : str
        One of `sorep.similarity.METRICS`.
    epsilon : float
        Distance up to which two structures count as one.
    across_compositions : bool
        Compare structures of different reduced formula too.
    n_min : int
        Number of structures, itself among them, that one needs within epsilon to pass a chain on. A structure that is
        near to none that passes one on is a group of its own.
    spec : FeatureSpec or None
        The grid; needed for the Wasserstein distance.
    feature, identity : str
        Recorded with the result.
    previous : Groups or None
        Of some of these structures, by the same rule: only what is new is compared. With n_min > 1 everything is.
    on_progress : callable
        Told the number of pairs done and of all pairs.

    Returns
    -------
    Groups

    Raises
    ------
    SimilarityError
        ``duplicate-id``, ``malformed-features``, ``non-finite-features``, ``empty-feature``.
    UsageError
        ``unknown-metric``, ``metric-needs-grid``, ``bad-option``, or ``other-grouping`` where ``previous`` has another
        rule or structures that are not among these.
    """
    check(epsilon, n_min)
    measure = get_measure(metric)
    values, names = np.asarray(values, dtype=np.float64), np.asarray(ids, dtype=str)
    _check_names(values, names, formulas)
    order = np.argsort(names)
    names = names[order]
    formula = reduced_formulas(np.asarray(formulas, dtype=str)[order])
    rule = Rule(metric, float(epsilon), n_min, across_compositions, feature, identity)
    known = _Known.of(previous, rule, names) if previous and n_min == 1 else _Known.nothing(len(names))

    group = np.arange(len(names))
    representative = group.copy()
    nearest, to_nearest = known.nearest.copy(), known.to_nearest.copy()
    blocks = _compositions(formula, across_compositions)
    pairs = _Count(sum(len(rows) * (len(rows) - 1) // 2 for rows in blocks), on_progress)
    for rows in blocks:
        is_known = known.group[rows] != _NONE
        if is_known.all():
            group[rows], representative[rows] = known.group[rows], known.representative[rows]
            pairs.add(len(rows) * (len(rows) - 1) // 2)
            continue
        rows = np.concatenate([rows[is_known], rows[~is_known]])
        part = values[order[rows]]
        prepared = _prepared(part, measure, spec, names[rows])
        search = _Search(prepared, measure, epsilon, rows, known)
        search.run(pairs)
        nearest[rows], to_nearest[rows] = search.nearest, search.to_nearest
        labels = search.labels()
        if n_min > 1:
            labels = _each_noise_apart(dbscan(part, epsilon, n_min, metric, spec))
        group[rows] = _first_of_label(rows, labels)
        representative[rows] = _medoids(prepared, measure, rows, labels, known)
    is_alone = nearest == _NONE
    return Groups(
        rule=rule,
        ids=names,
        group=np.unique(group, return_inverse=True)[1],
        representative=names[representative],
        distance=_to_each_own(values, order, representative, measure, spec),
        nearest=np.where(is_alone, "", names[nearest]) if len(names) else names,
        distance_to_nearest=np.where(is_alone, np.nan, to_nearest),
        formula=formula,
        confirmed=known.answers(representative),
    )


def reduced_formula(formula: str) -> str:
    """Hill formula divided by the greatest common divisor: ``BaO3Ti`` of ``Ba2Ti2O6``.

    Raises
    ------
    UsageError
        ``bad-formula``.
    """
    from ase.formula import Formula

    try:
        return str(Formula(formula).reduce()[0].format("hill"))
    except ValueError:
        raise UsageError(f"{formula!r} is no formula", code="bad-formula", remedy="write it like BaTiO3") from None


def reduced_formulas(formulas: NDArray[np.str_]) -> NDArray[np.str_]:
    """`reduced_formula` of each; each different one is worked out once."""
    different, which = np.unique(formulas, return_inverse=True)
    return np.array([reduced_formula(formula) for formula in different.tolist()], dtype=str)[which]


@dataclass(frozen=True, eq=False)
class _Known:
    """What earlier groups tell about the rows, in numbers of rows; -1 for a structure that is new."""

    group: Rows  # the first row of the group
    representative: Rows
    nearest: Rows
    to_nearest: Array
    confirmed: NDArray[np.object_]

    @classmethod
    def nothing(cls, n: int) -> _Known:
        none = np.full(n, _NONE, dtype=np.intp)
        return cls(none, none, none, np.full(n, np.inf), np.full(n, None, dtype=object))

    @classmethod
    def of(cls, groups: Groups, rule: Rule, names: NDArray[np.str_]) -> _Known:
        if groups.rule != rule or not np.isin(groups.ids, names).all():
            raise UsageError(
                "the earlier groups were formed by another rule, or of structures that are missing now",
                code="other-grouping",
                remedy="form the groups anew, without earlier ones",
            )
        known = cls.nothing(len(names))
        rows = np.searchsorted(names, groups.ids)
        first = np.unique(groups.group, return_index=True)[1]
        group, representative, nearest = known.group.copy(), known.group.copy(), known.group.copy()
        group[rows] = rows[first[groups.group]]
        representative[rows] = np.searchsorted(names, groups.representative)
        nearest[rows] = np.where(groups.nearest == "", _NONE, np.searchsorted(names, groups.nearest))
        known.to_nearest[rows] = np.where(groups.nearest == "", np.inf, groups.distance_to_nearest)
        known.confirmed[rows] = groups.confirmed
        return cls(group, representative, nearest, known.to_nearest, known.confirmed)

    def answers(self, representative: Rows) -> NDArray[np.object_]:
        """What the matcher said of a structure and its representative, where that is the one it had before."""
        answers = self.confirmed.copy()
        answers[self.representative != representative] = None
        return answers


class _Search:
    """One pass over the pairs of a composition: what is linked, and the nearest neighbour of each row.

    ``rows`` are the numbers of the structures by which ties are decided, those that are known first.
    """

    def __init__(self, prepared: Array, measure: Measure, epsilon: float, rows: Rows, known: _Known) -> None:
        self._prepared, self._measure, self._epsilon, self._rows = prepared, measure, epsilon, rows
        self._n_known = int(np.count_nonzero(known.group[rows] != _NONE))
        self.nearest, self.to_nearest = known.nearest[rows], known.to_nearest[rows]
        groups = known.group[rows[: self._n_known]]
        self._edges = _star(np.unique(groups, return_inverse=True)[1])

    def run(self, pairs: _Count) -> None:
        parts = slices(len(self._rows), BLOCK)
        for above, rows in enumerate(parts):
            for columns in parts[above:]:
                if columns.stop > self._n_known:  # else both are known
                    self._compare(rows, columns)
                pairs.add(_n_pairs(rows, columns))

    def labels(self) -> Rows:
        return components(len(self._rows), self._edges)

    def _compare(self, rows: slice, columns: slice) -> None:
        block = self._measure.between(self._prepared[rows], self._prepared[columns])
        i, j = np.nonzero(block <= self._epsilon * _TIE)
        edges = np.column_stack([i + rows.start, j + columns.start])
        is_within = block[i, j] <= self._epsilon
        is_unsure = block[i, j] * _TIE >= self._epsilon
        is_within[is_unsure] = self._exact(edges[is_unsure]) <= self._epsilon
        self._edges = np.concatenate([self._edges, edges[is_within]])
        if len(self._edges) > _MOST_EDGES:
            self._edges = _star(self.labels())
        if rows == columns:
            np.fill_diagonal(block, np.inf)
        else:
            self._approach(columns, rows, block.T)
        self._approach(rows, columns, block)

    def _approach(self, rows: slice, columns: slice, block: Array) -> None:
        """Take those of ``columns`` that are nearer, or as near and have a lower number."""
        least = np.minimum(block.min(axis=1), self.to_nearest[rows])
        i, j = np.nonzero((block <= least[:, None] * _TIE) & np.isfinite(block))
        distance, number = block[i, j], self._rows[columns][j]
        is_apart = distance > 0
        pairs = np.column_stack([i + rows.start, j + columns.start])
        distance[is_apart] = self._exact(pairs[is_apart])
        order = np.lexsort((number, distance, i))
        of_row, first = np.unique(i[order], return_index=True)
        distance, number, of_row = distance[order][first], number[order][first], of_row + rows.start
        best, known = self.to_nearest[of_row], self.nearest[of_row]
        is_better = (distance < best) | ((distance == best) & (number < known))
        self.to_nearest[of_row[is_better]], self.nearest[of_row[is_better]] = distance[is_better], number[is_better]

    def _exact(self, pairs: Rows) -> Array:
        """Distances that are the same to the bit in whatever block the pairs stand."""
        distances = np.empty(len(pairs))
        for part in slices(len(pairs), BLOCK):
            first, second = pairs[part].T
            distances[part] = self._measure.along(self._prepared[first], self._prepared[second])
        return distances


class _Count:
    """Pairs done of all pairs."""

    def __init__(self, total: int, on_progress: Callable[[int, int], None]) -> None:
        self._done, self._total, self._on_progress = 0, total, on_progress

    def add(self, pairs: int) -> None:
        self._done += pairs
        self._on_progress(self._done, self._total)


def _n_pairs(rows: slice, columns: slice) -> int:
    n, m = rows.stop - rows.start, columns.stop - columns.start
    return n * (n - 1) // 2 if rows == columns else n * m


def _star(labels: Rows) -> Rows:
    """Edges from each node to the first of its component: as good as all edges, and fewer."""
    first = np.unique(labels, return_index=True)[1]
    return np.column_stack([first[labels], np.arange(len(labels))]).astype(np.intp)


def _compositions(formula: NDArray[np.str_], across: bool) -> list[Rows]:
    """Rows that are compared with each other."""
    if not len(formula):
        return []
    if across:
        return [np.arange(len(formula))]
    order = np.argsort(formula, kind="stable")
    return np.split(order, np.flatnonzero(formula[order][1:] != formula[order][:-1]) + 1)


def _first_of_label(rows: Rows, labels: Rows) -> Rows:
    """For each row, the lowest number among the rows of its label."""
    lowest = np.full(labels.max(initial=-1) + 1, _NO_ROW)
    np.minimum.at(lowest, labels, rows)
    return lowest[labels]


def _each_noise_apart(labels: Rows) -> Rows:
    is_noise = labels == NOISE
    labels = labels.copy()
    labels[is_noise] = labels.max(initial=NOISE) + 1 + np.arange(np.count_nonzero(is_noise))
    return labels


def _medoids(prepared: Array, measure: Measure, rows: Rows, labels: Rows, known: _Known) -> Rows:
    """For each row, the number of its group's medoid."""
    medoids = np.empty_like(rows)
    order = np.argsort(labels, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        members = members[np.argsort(rows[members])]  # the same order whichever were known before
        if (known.group[rows[members]] != _NONE).all():  # nothing was added to this group
            medoids[members] = known.representative[rows[members[0]]]
        elif len(members) < 3:
            medoids[members] = rows[members].min()
        else:
            total = _sums(prepared[members], measure)
            medoids[members] = rows[members[total <= total.min() * _TIE]].min()
    return medoids


def _sums(prepared: Array, measure: Measure) -> Array:
    """Sum of the distances of each row to all others."""
    sums = np.zeros(len(prepared))
    parts = slices(len(prepared), BLOCK)
    for above, rows in enumerate(parts):
        for columns in parts[above:]:
            block = measure.between(prepared[rows], prepared[columns])
            sums[rows] += block.sum(axis=1)
            if rows != columns:
                sums[columns] += block.sum(axis=0)
    return sums


def _to_each_own(values: Array, order: Rows, representative: Rows, measure: Measure, spec: FeatureSpec | None) -> Array:
    """Distance of each structure to its representative."""
    distances = np.zeros(len(order))
    others = np.flatnonzero(representative != np.arange(len(order)))
    for part in slices(len(others), BLOCK):
        rows = others[part]
        pair = (measure.prepare(values[order[which]], spec) for which in (rows, representative[rows]))
        distances[rows] = measure.along(*pair)
    return distances


def _prepared(values: Array, measure: Measure, spec: FeatureSpec | None, names: NDArray[np.str_]) -> Array:
    """As `Measure.prepare`, whose errors then name a structure."""
    try:
        return measure.prepare(values, spec)
    except SimilarityError:
        for name, row in zip(names, values, strict=True):
            try:
                measure.prepare(row[None], spec)
            except SimilarityError as error:
                raise SimilarityError(f"{name}: {error.message}", code=error.code, remedy=error.remedy) from None
        raise


def _check_names(values: Array, names: NDArray[np.str_], formulas: Sequence[str] | NDArray[np.str_]) -> None:
    if values.ndim != 2 or not len(values) == len(names) == len(formulas):
        raise SimilarityError(
            f"{values.shape} features, {len(names)} ids and {len(formulas)} formulas",
            code="malformed-features",
            remedy="give one row of features, one id and one formula for each structure",
        )
    different, counts = np.unique(names, return_counts=True)
    if len(different) < len(names):
        raise SimilarityError(
            f"the id {str(different[counts.argmax()])!r} names {counts.max()} structures",
            code="duplicate-id",
            remedy="give each structure an id of its own",
        )

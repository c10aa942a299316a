"""What a screening model is trained on: feature vectors of one identity, reduced formulas, and labels or a target.

A feature set is named ``FEATURE[+FEATURE...]``; each part is ``feature``, ``operator/feature`` or
``feature@digits-of-its-identity``, as in ``vbm-fermi-cbm+composition`` or ``single-shot/vbm@3f0c``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sorep.errors import ScreeningError, UsageError
from sorep.identity import Identity
from sorep.store.feature_store import FeatureMatrix, FeatureStore

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 3


@dataclass(frozen=True)
class Part:
    """One feature of a set.

    Attributes
    ----------
    name : str
        Of the feature, e.g. ``"vbm"``.
    identity : Identity
    n_features : int
        Number of columns.
    """

    name: str
    identity: Identity
    n_features: int


@dataclass(frozen=True, eq=False)
class Dataset:
    """Feature vectors of structures, with what is known of these.

    Attributes
    ----------
    name : str
        As it was asked for, e.g. ``"vbm-fermi-cbm+composition"``.
    ids : (n,) array of str
        Sorted.
    values : (n, n_features) float array
    feature_names : list of str
        Prefixed by the name of the part (``"composition:..."``) where there are several.
    parts : tuple of Part
        In the order of the columns.
    groups : (n,) array of str
        Reduced formulas. Structures of one formula resemble each other, so a split must not part them.
    labels : (n,) bool or float array, or None
        Booleans to classify, numbers to regress on, None where nothing is known.
    left_out : dict of str to int
        Why structures or labels are not here, and how many.
    """

    name: str
    ids: NDArray[np.str_]
    values: NDArray[np.float64]
    feature_names: list[str]
    parts: tuple[Part, ...]
    groups: NDArray[np.str_]
    labels: NDArray[Any] | None = None
    left_out: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def identity(self) -> Identity:
        """What the numbers depend on: that of the only part, or of all in their order."""
        return identity_of(self.parts)

    @property
    def n_positive(self) -> int:
        """Number of positive labels."""
        return 0 if self.labels is None else int(np.count_nonzero(self.labels))

    def take(self, rows: NDArray[Any]) -> Dataset:
        """The structures of these rows (indices or a mask), in their order."""
        labels = None if self.labels is None else self.labels[rows]
        return replace(
            self, ids=self.ids[rows], values=self.values[rows], groups=self.groups[rows], labels=labels, left_out={}
        )

    def of_ids(self, ids: NDArray[np.str_]) -> Dataset:
        """The structures with these ids, which must all be here, in their order."""
        return self.take(np.searchsorted(self.ids, ids))


def load_dataset(
    store: FeatureStore, features: str, labels: pd.Series | None = None, *, ignore_unknown: bool = False
) -> Dataset:
    """Load a feature set, and keep the labelled structures if labels are given.

    Parameters
    ----------
    store : FeatureStore
    features : str
        ``FEATURE[+FEATURE...]``, see above.
    labels : Series or None
        Booleans (or numbers to regress on) by id.
    ignore_unknown : bool
        Leave out labels of ids that the store has never met; without it they are an error, since a table with other
        names for the same structures would be used in part.

    Returns
    -------
    Dataset
        Of the structures that have all these features and, if labels are given, a label; `Dataset.left_out` counts
        the others.

    Raises
    ------
    StoreError, IdentityError
        As `FeatureStore.matrix`.
    UsageError
        ``bad-feature-set``.
    ScreeningError
        ``no-structures``, ``non-finite-features``, ``unknown-id``, ``no-overlap``, ``missing-label``,
        ``duplicate-id``, ``one-class``.
    """
    matrices = [_matrix(store, part) for part in _parts(features)]
    ids = reduce(np.intersect1d, (matrix.ids for matrix in matrices))
    all_ids = reduce(np.union1d, (matrix.ids for matrix in matrices))
    left_out = {"structures that lack a part of the features": len(all_ids) - len(ids)}
    if labels is not None:
        ids, labels, counts = _labelled(store, ids, labels, ignore_unknown)
        left_out |= counts
    if not len(ids):
        raise ScreeningError(
            f"no structure of {store.path} has all of {features}",
            code="no-structures",
            remedy="see `sorep list` for what it holds",
        )
    values = np.hstack([matrix.values[np.searchsorted(matrix.ids, ids)] for matrix in matrices])
    is_finite = np.isfinite(values).all(axis=1)
    if not is_finite.all():
        raise ScreeningError(
            f"{features} of {ids[~is_finite][0]} is not finite",
            code="non-finite-features",
            remedy="compute this structure anew, or leave it out",
        )
    from sorep.similarity import formulas_of

    several = len(matrices) > 1
    return Dataset(
        name=features,
        ids=ids,
        values=values,
        feature_names=[f"{m.name}:{name}" if several else name for m in matrices for name in m.feature_names],
        parts=tuple(Part(m.name, m.identity, m.values.shape[1]) for m in matrices),
        groups=formulas_of(store, ids),
        labels=None if labels is None else labels.loc[ids.tolist()].to_numpy(),
        left_out={reason: n for reason, n in left_out.items() if n},
    )


def common_ids(datasets: Iterable[Dataset]) -> NDArray[np.str_]:
    """Ids that all have, sorted: feature sets are compared on the same structures only (`Dataset.of_ids`).

    Raises
    ------
    ScreeningError
        ``no-overlap``.
    """
    datasets = list(datasets)
    ids = reduce(np.intersect1d, (dataset.ids for dataset in datasets))
    if not len(ids):
        raise ScreeningError(
            f"no structure has all of {', '.join(dataset.name for dataset in datasets)}",
            code="no-overlap",
            remedy="compute the features of the same structures",
        )
    return ids


def unknown_ids(store: FeatureStore, labelled: Sequence[str], *, ignore: bool = False) -> list[str]:
    """Those labelled structures that the store has never met.

    Raises
    ------
    ScreeningError
        ``unknown-id`` where there are some, unless they are to be ignored; ``no-overlap`` where it knows none.
    """
    known = set(store.content_keys()) | set(store.failures()["id"])
    unknown = [id for id in labelled if id not in known]
    if unknown and (len(unknown) == len(labelled) or not ignore):
        none = len(unknown) == len(labelled)
        raise ScreeningError(
            f"{len(unknown)} of {len(labelled)} labels are of structures that {store.path} does not know: "
            f"{', '.join(unknown[:_SHOWN])}{', ...' if len(unknown) > _SHOWN else ''}",
            code="no-overlap" if none else "unknown-id",
            remedy="compare their names with `sorep list --structures`"
            + ("" if none else "; --ignore-unknown leaves them out"),
        )
    return unknown


def identity_of(parts: Sequence[Part]) -> Identity:
    """The identity of one part, or of several in their order."""
    if len(parts) == 1:
        return parts[0].identity
    return Identity.of({f"part {number}": part.identity.words for number, part in enumerate(parts, start=1)})


def _parts(features: str) -> list[str]:
    parts = [part.strip() for part in features.split("+")]
    if not all(parts) or len(set(parts)) < len(parts):
        raise UsageError(
            f"{features!r} names no set of features",
            code="bad-feature-set",
            remedy="write it like vbm-fermi-cbm+composition, each part once",
        )
    return parts


def _matrix(store: FeatureStore, part: str) -> FeatureMatrix:
    rest, _, identity = part.partition("@")
    operator, _, name = rest.rpartition("/")
    return store.matrix(name, operator=operator or None, identity=identity or None)


def _labelled(
    store: FeatureStore, ids: NDArray[np.str_], labels: pd.Series, ignore_unknown: bool
) -> tuple[NDArray[np.str_], pd.Series, dict[str, int]]:
    labels = labels.set_axis(labels.index.astype(str))
    _check_labels(labels)
    unknown = unknown_ids(store, list(map(str, labels.index)), ignore=ignore_unknown)
    has_label = np.isin(ids, labels.index.to_numpy(dtype=str))
    counts = {
        "labels of unknown structures": len(unknown),
        "labelled structures without features": len(labels) - len(unknown) - int(has_label.sum()),
        "structures without a label": int((~has_label).sum()),
    }
    ids = ids[has_label]
    labels = labels.loc[ids.tolist()]
    if labels.dtype == bool and labels.nunique() < 2 and len(labels):
        raise ScreeningError(
            f"all {len(labels)} labelled structures with features are {'positive' if labels.iloc[0] else 'negative'}",
            code="one-class",
            remedy="label structures of the other kind too",
        )
    return ids, labels, counts


def _check_labels(labels: pd.Series) -> None:
    if not labels.index.is_unique:
        twice = labels.index[labels.index.duplicated()][0]
        raise ScreeningError(f"{twice!r} has several labels", code="duplicate-id", remedy="keep one row of each id")
    missing = labels.index[labels.isna().to_numpy()]
    if len(missing):
        raise ScreeningError(
            f"{len(missing)} labels are missing, the first of them that of {missing[0]!r}",
            code="missing-label",
            remedy="leave these rows out, or fill them in",
        )

"""Which rows are trained on and which are held out, for a seed.

Splits are grouped by reduced formula unless asked otherwise: polymorphs of one compound resemble each other, and a
model that has seen one is flattered by a test on another. Every split holds both classes on the sides where a model is
trained or scored: a draw that does not is thrown away and the next one taken, up to `ATTEMPTS` times. That is what an
investigator does who cannot train on negatives alone; at 0.1 % of the paper's data (22 rows with 2 positives on
average) it concerns one draw in ten.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sorep.errors import ScreeningError, UsageError

Rows = NDArray[np.intp]
Kind = Literal["grouped", "random"]

ATTEMPTS = 1000
"""Draws before a split counts as impossible."""


def holdout(
    groups: NDArray[Any], labels: NDArray[Any], fraction: float = 0.1, *, seed: int = 0, kind: Kind = "grouped"
) -> tuple[Rows, Rows]:
    """Set rows aside before anything else is done.

    Parameters
    ----------
    groups : (n,) array
        Reduced formulas.
    labels : (n,) bool array
        Or numbers to regress on, which set no condition on the draw.
    fraction : float
        Of the rows to hold out; with whole groups as near to it as the groups allow.
    seed : int
    kind : {"grouped", "random"}
        Whole groups, or single rows.

    Returns
    -------
    pool, held_out : arrays of row numbers, ascending

    Raises
    ------
    UsageError
        ``bad-option``.
    ScreeningError
        ``too-few-of-a-class``.
    """
    if not 0 < fraction < 1:
        raise UsageError(f"a hold-out of {fraction:g}", code="bad-option", remedy="give a fraction between 0 and 1")
    everything = np.arange(len(groups))
    n_rows = _n_rows(fraction, len(everything))

    def both(rows: Rows) -> bool:
        return has_both_classes(labels[rows]) and has_both_classes(np.delete(labels, rows))

    held_out = _first_that_fits(everything, groups, n_rows, seed, kind, both, "hold out")
    return np.setdiff1d(everything, held_out), held_out


def training_rows(
    pool: Rows,
    groups: NDArray[Any],
    labels: NDArray[Any],
    size: float,
    *,
    split_seed: int = 0,
    kind: Kind = "grouped",
) -> Rows:
    """Rows of the pool to train on.

    Whole groups are taken in random order up to the number nearest to the asked-for number of rows. For one seed the
    rows of a smaller size are among those of a larger one, unless a draw had to be repeated.

    Parameters
    ----------
    pool : array of row numbers
        To choose from, as `holdout` gives it.
    groups, labels : (n,) arrays
        Of all rows.
    size : float
        A fraction of the pool below 1, or a number of rows.
    split_seed : int
        Of this split.
    kind : {"grouped", "random"}

    Returns
    -------
    array of row numbers, ascending

    Raises
    ------
    UsageError
        ``bad-option``.
    ScreeningError
        ``too-few-of-a-class`` where no draw holds both classes.
    """
    n_rows = _n_rows(size, len(pool))

    def both(rows: Rows) -> bool:
        return has_both_classes(labels[rows])

    return _first_that_fits(pool, groups, n_rows, split_seed, kind, both, "train on")


def folds(labels: NDArray[Any], groups: NDArray[Any], n_folds: int = 5, *, seed: int = 0) -> list[tuple[Rows, Rows]]:
    """Training and test rows of a grouped cross-validation in which every row is tested once.

    Parameters
    ----------
    labels : (n,) bool or float array
        Folds have similar shares of positives; numbers to regress on are not balanced.
    groups : (n,) array
    n_folds : int
    seed : int

    Raises
    ------
    UsageError
        ``bad-option``.
    ScreeningError
        ``too-few-groups``, or ``too-few-of-a-class`` where a fold would lack one.
    """
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    if n_folds < 2:
        raise UsageError(f"{n_folds} folds", code="bad-option", remedy="ask for two or more")
    n_groups = len(np.unique(groups))
    if n_groups < n_folds:
        raise ScreeningError(
            f"{n_folds} folds need as many reduced formulas, and there are {n_groups}",
            code="too-few-groups",
            remedy="label more structures, or use fewer folds",
        )
    if labels.dtype != bool:
        return list(GroupKFold(n_folds, shuffle=True, random_state=seed).split(labels, labels, groups))
    n_of = {name: len(np.unique(groups[labels == value])) for name, value in (("positive", True), ("negative", False))}
    scarcer = min(n_of, key=lambda name: n_of[name])
    pairs = []
    if n_of[scarcer] >= n_folds:
        pairs = list(StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed).split(labels, labels, groups))
    if not pairs or not all(has_both_classes(labels[test]) for _, test in pairs):
        raise ScreeningError(
            f"{n_folds} folds cannot all hold both classes: the {scarcer} structures are of {n_of[scarcer]} different "
            "reduced formulas",
            code="too-few-of-a-class",
            remedy="label more structures of this class, or use fewer folds",
        )
    return pairs


def shuffled_splits(
    labels: NDArray[Any], groups: NDArray[Any], n_splits: int = 5, test_fraction: float = 0.4, *, seed: int = 0
) -> list[tuple[Rows, Rows]]:
    """Independent random splits of whole groups, 60:40 as in the paper's grid search; training and test rows."""
    return [
        holdout(groups, labels, test_fraction, seed=int(child))
        for child in np.random.default_rng(seed).integers(2**31, size=n_splits)
    ]


def has_both_classes(labels: NDArray[Any]) -> bool:
    """Whether labels hold both classes; numbers to regress on always will do."""
    return labels.dtype != bool or bool(labels.any() and not labels.all())


def _n_rows(size: float, n: int) -> int:
    n_rows = 0 if math.isnan(size) else round(size * n) if size < 1 else int(size)
    if not 1 <= n_rows <= n or (size >= 1 and size != n_rows):
        raise UsageError(
            f"{size:g} of {n} rows cannot be drawn",
            code="bad-option",
            remedy="give a fraction between 0 and 1, or a number of rows",
        )
    return n_rows


def _first_that_fits(
    pool: Rows,
    groups: NDArray[Any],
    n_rows: int,
    seed: int,
    kind: Kind,
    fits: Callable[[Rows], bool],
    purpose: str,
) -> Rows:
    if kind not in ("grouped", "random"):
        raise UsageError(f"unknown kind of split {kind!r}", code="bad-option", remedy="choose grouped or random")
    which = np.unique(groups[pool], return_inverse=True)[1] if kind == "grouped" else np.arange(len(pool))
    sizes = np.bincount(which)
    for attempt in range(ATTEMPTS):
        order = np.random.default_rng([seed, attempt]).permutation(len(sizes))
        n_groups = 1 + int(np.argmin(np.abs(np.cumsum(sizes[order]) - n_rows)))
        rows = np.sort(pool[np.isin(which, order[:n_groups])])
        if fits(rows):
            return rows
    raise ScreeningError(
        f"{ATTEMPTS} draws of {n_rows} of {len(pool)} rows to {purpose} lacked a class",
        code="too-few-of-a-class",
        remedy="take more rows, or label more structures of the rarer class",
    )

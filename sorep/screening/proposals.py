"""The next calculations of a store's structures, with what they are expected to find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sorep.errors import ScreeningError
from sorep.screening.calibration import fit_calibrator
from sorep.screening.dataset import Dataset, unknown_ids
from sorep.screening.models import predicted
from sorep.screening.splits import folds
from sorep.screening.strategies import DEFAULT_STRATEGY, Planner
from sorep.screening.training import predict_rows
from sorep.store import FeatureStore

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

_MOST_FOLDS, _FEWEST_FOLDS = 5, 2


@dataclass(frozen=True, eq=False)
class NextCalculations:
    """What to calculate next.

    Attributes
    ----------
    frame : DataFrame
        A row for each structure, the first one to calculate first: ``id``, ``formula`` (reduced), ``reason`` (the rule
        that chose it), ``score`` of the model, ``probability`` of being a candidate (both missing where labels do not
        suffice), ``cost``.
    n_known, n_candidates : int
        Labelled structures, and candidates among them.
    expected, expected_at_random : float or None
        Candidates expected among these structures, and among as many others chosen at random; None without
        probabilities.
    """

    frame: pd.DataFrame
    n_known: int
    n_candidates: int
    expected: float | None
    expected_at_random: float | None


def labelled_rows(
    store: FeatureStore, dataset: Dataset, labels: pd.Series | None, *, ignore_unknown: bool = False
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Rows of a dataset that have a label, ascending, and these labels; they may be of one kind only, or none.

    Raises
    ------
    ScreeningError
        As `unknown_ids`.
    """
    if labels is None:
        return np.empty(0, dtype=np.intp), np.empty(0, dtype=bool)
    unknown_ids(store, [str(id) for id in labels.index], ignore=ignore_unknown)
    rows = np.flatnonzero(np.isin(dataset.ids, labels.index.to_numpy(dtype=str)))
    return rows, labels.loc[dataset.ids[rows].tolist()].to_numpy(dtype=bool)


def next_calculations(
    dataset: Dataset,
    known: NDArray[np.intp],
    labels: NDArray[np.bool_],
    costs: Array,
    budget: float,
    build: Callable[..., Any],
    *,
    strategy: str = DEFAULT_STRATEGY,
    seed: int = 0,
) -> NextCalculations:
    """Propose calculations.

    Probabilities are the model's scores, calibrated on predictions of labelled structures by models that had seen none
    of their formula. Where the labelled ones were chosen by a strategy and not at random, take them as estimates.

    Parameters
    ----------
    dataset : Dataset
        All structures.
    known : (m,) int array
        Its rows that are labelled.
    labels : (m,) bool array
    costs : (n,) float array
        Of all structures.
    budget : float
        In the unit of the costs.
    build : callable
        Called with ``seed=``; gives an estimator that is not yet fitted.
    strategy : str
    seed : int

    Returns
    -------
    NextCalculations

    Raises
    ------
    ScreeningError
        ``nothing-left`` where all structures are labelled, ``budget-too-small``, ``bad-cost``, ``cannot-fit``.
    UsageError
        ``unknown-strategy``.
    """
    import pandas as pd

    planner = Planner(dataset.values, costs, strategy, build, seed)
    left = np.setdiff1d(np.arange(len(dataset)), known)
    if not len(left):
        raise ScreeningError(
            f"all {len(dataset)} structures are labelled", code="nothing-left", remedy="add structures to the store"
        )
    proposal = planner.propose(known, labels, budget)
    rows = proposal.rows
    if not len(rows):
        raise ScreeningError(
            f"a budget of {budget:g} pays for no structure: the least cost is {costs[left].min():.3g}",
            code="budget-too-small",
            remedy="raise --budget",
        )
    scores = np.full(len(dataset), np.nan) if proposal.scores is None else proposal.scores
    probabilities = np.full(len(dataset), np.nan)
    if proposal.scores is not None:
        calibrator = _calibrator(dataset, known, labels, build, seed)
        if calibrator is not None:
            probabilities = predicted(calibrator, scores[:, np.newaxis])
    columns = {
        "id": dataset.ids[rows],
        "formula": dataset.groups[rows],
        "reason": proposal.reasons,
        "score": scores[rows],
        "probability": probabilities[rows],
        "cost": costs[rows],
    }
    has_probabilities = bool(np.isfinite(probabilities).all())
    return NextCalculations(
        frame=pd.DataFrame(columns),
        n_known=len(known),
        n_candidates=int(labels.sum()),
        expected=float(probabilities[rows].sum()) if has_probabilities else None,
        expected_at_random=float(probabilities[left].mean() * len(rows)) if has_probabilities else None,
    )


def _calibrator(
    dataset: Dataset, known: NDArray[np.intp], labels: NDArray[np.bool_], build: Callable[..., Any], seed: int
) -> Any:
    """From scores to probabilities; None where the labelled structures are too few for two folds."""
    values, groups = dataset.values[known], dataset.groups[known]
    n_groups = min(len(np.unique(groups[labels == value])) for value in (False, True))
    n_folds = min(_MOST_FOLDS, n_groups)
    if n_folds < _FEWEST_FOLDS:
        return None
    try:
        pairs = folds(labels, groups, n_folds, seed=seed)
    except ScreeningError as error:
        if error.code != "too-few-of-a-class":
            raise
        return None
    scores = np.zeros(len(known))
    for train, test in pairs:
        scores[test] = predict_rows(build(seed=seed), values, labels, train, test)
    return fit_calibrator(labels, scores)

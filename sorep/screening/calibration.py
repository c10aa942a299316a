"""Probabilities that mean what they say, and thresholds that keep a promise on recall.

**Probabilities.** A forest that is balanced while it is trained overstates positives: among structures that it gives
0.5, far fewer than half are positive. A logistic curve (Platt 1999) through its scores of structures that it was not
trained on turns scores into probabilities. Two parameters are fitted, so a few positives will do; the ranking stays.

**Recall.** Conformal risk control (Angelopoulos et al., arXiv:2208.02814, theorem 1): let l_u(t) be the share of the
positives of unit u that score below t, for n units that the model was not trained on. The largest t with

    [l_1(t) + ... + l_n(t) + 1] / (n + 1) <= 1 - recall

misses at most a share 1 - recall of the positives of one more such unit, in expectation over the draw of all n + 1.
A unit is one positive structure, or one reduced formula with all its positives. The one thing assumed is that units
are exchangeable: as if drawn at random from those that the threshold will be used on. That holds for a random sample
of a database, and fails for structures that were chosen by a model (`sorep screen next`), or for those of another
chemistry. With formulas as units the promise is for a new formula, and its positives count together, since polymorphs
resemble each other and are no independent evidence.

The promise is strict where model and threshold were made of different structures (a part kept out of training). Scores
by cross-validation use every label twice, and come from models trained on a little less than the final one: there the
recall is what was asked in practice, but no theorem says so.

The promise is an average over calibrations. What one calibration may come to is told by the distribution of its recall:
for single structures it is Beta(n - k, k + 1), with k the number of calibration positives below the threshold.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sorep.errors import ScreeningError, UsageError

Array = NDArray[np.float64]

_ROUNDING = 1e-9


@dataclass(frozen=True)
class RecallThreshold:
    """Score from which on structures are to be calculated so that few positives are missed.

    Attributes
    ----------
    threshold : float
        The score itself counts as positive.
    recall : float
        Share of the positives that was asked for.
    n_units : int
        Positives, or reduced formulas with positives, that it was derived from.
    recall_seen : float
        Share of these positives that it keeps: mean over the units.
    recall_low : float
        The recall that this one calibration exceeds with a probability of 95 %, if units are exchangeable and each
        is kept or missed whole.
    share_selected : float
        Share of all scored structures that it selects: the price.
    """

    threshold: float
    recall: float
    n_units: int
    recall_seen: float
    recall_low: float
    share_selected: float


def threshold_for_recall(
    labels: ArrayLike, scores: ArrayLike, recall: float, groups: ArrayLike | None = None
) -> RecallThreshold:
    """The highest threshold with at least this recall in expectation.

    Parameters
    ----------
    labels : (n,) bool
    scores : (n,) float
        By a model that was not trained on these structures.
    recall : float
        Between 0 and 1, both excluded.
    groups : (n,) str or None
        Reduced formulas, which then are the units.

    Returns
    -------
    RecallThreshold

    Raises
    ------
    UsageError
        ``bad-option``.
    ScreeningError
        ``too-few-positives``: recall / (1 - recall) units are needed; ``malformed-predictions``.
    """
    from scipy.stats import beta

    truth, all_scores = _checked(labels, scores)
    positive = all_scores[truth]
    names = np.arange(len(positive)) if groups is None else np.asarray(groups)[truth]
    unit, size = np.unique(names, return_inverse=True, return_counts=True)[1:]
    require_positives(len(size), recall, "structures" if groups is None else "formulas")
    allowed = (1 - recall) * (len(size) + 1) - 1 + _ROUNDING
    order = np.argsort(positive)
    ascending = positive[order]
    weight_below = np.concatenate([[0.0], np.cumsum(1 / size[unit[order]])])
    lost = weight_below[np.searchsorted(ascending, ascending, side="left")]
    last = int(np.flatnonzero(lost <= allowed)[-1])
    n, missed = len(size), float(lost[last])
    k = min(math.ceil(missed - _ROUNDING), n - 1)
    return RecallThreshold(
        threshold=float(ascending[last]),
        recall=recall,
        n_units=n,
        recall_seen=1 - missed / n,
        recall_low=float(beta.ppf(0.05, n - k, k + 1)),
        share_selected=float((all_scores >= ascending[last]).mean()),
    )


def require_positives(n_units: int, recall: float, units: str = "formulas") -> None:
    """Refuse a recall that so few positive units cannot promise; raises as `threshold_for_recall`."""
    if not 0 < recall < 1:
        raise UsageError(
            f"a recall of {recall:g}",
            code="bad-option",
            remedy="give a number above 0 and below 1; nothing but calculating all of them finds all",
        )
    if (1 - recall) * (n_units + 1) < 1 - _ROUNDING:
        raise ScreeningError(
            f"a recall of {recall:g} needs {math.ceil(recall / (1 - recall) - _ROUNDING)} positive {units} to "
            f"calibrate on, and there are {n_units}",
            code="too-few-positives",
            remedy=f"label more, or ask for a recall of at most {n_units / (n_units + 1):.3g}",
        )


def fit_calibrator(labels: ArrayLike, scores: ArrayLike) -> Any:
    """A logistic curve from scores to probabilities.

    Parameters
    ----------
    labels : (n,) bool
    scores : (n,) float
        By a model that was not trained on these structures.

    Returns
    -------
    fitted scikit-learn classifier
        Of a column of scores. Where higher scores do not go with more positives, it gives the share of positives
        whatever the score.

    Raises
    ------
    ScreeningError
        ``one-class``, ``malformed-predictions``.
    """
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    truth, scores = _checked(labels, scores)
    if truth.all() or not truth.any():
        raise ScreeningError(
            f"all {len(truth)} structures to calibrate on are of one class",
            code="one-class",
            remedy="label structures of the other kind too",
        )
    column = scores[:, np.newaxis]
    calibrator = make_pipeline(StandardScaler(), LogisticRegression(C=1.0)).fit(column, truth)
    if calibrator.named_steps["logisticregression"].coef_.item() > 0:
        return calibrator
    return DummyClassifier(strategy="prior").fit(column, truth)


def calibrate(
    labels: ArrayLike, scores: ArrayLike, groups: ArrayLike, recall: float | None = None, *, kept_out: bool
) -> dict[str, Any]:
    """Calibrator, threshold and an account of both: fields of `sorep.screening.saved.ScreeningModel`.

    Parameters
    ----------
    labels : (n,) bool
    scores : (n,) float
        By a model that was not trained on these structures.
    groups : (n,) str
        Reduced formulas, the units of the threshold.
    recall : float or None
        To be kept by the threshold; None for no threshold.
    kept_out : bool
        Whether the scores are the final model's, of structures kept out of its training, so that the recall is
        promised; if not they come from cross-validation.

    Raises
    ------
    UsageError, ScreeningError
        As `threshold_for_recall` and `fit_calibrator`.
    """
    truth, given = _checked(labels, scores)
    account: dict[str, Any] = {"n": len(truth), "n_positive": int(truth.sum()), "kept_out": kept_out}
    found = None if recall is None else threshold_for_recall(truth, given, recall, groups)
    return {
        "calibrator": fit_calibrator(truth, given),
        "threshold": None if found is None else found.threshold,
        "calibration": account | ({} if found is None else asdict(found)),
    }


def _checked(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], Array]:
    truth, given = np.asarray(labels, dtype=bool), np.asarray(scores, dtype=np.float64)
    if truth.ndim != 1 or truth.shape != given.shape or not len(truth) or not np.isfinite(given).all():
        raise ScreeningError(
            f"{truth.shape} labels and {given.shape} scores, {np.count_nonzero(~np.isfinite(given))} not finite",
            code="malformed-predictions",
            remedy="give one finite score for each label",
        )
    return truth, given

"""How good predictions are.

Undefined numbers (a rate of a class that does not occur, the precision where nothing is predicted) are NaN, never zero.

    adjusted balanced accuracy = TPR + TNR - 1      0 for chance, 1 for perfection; what Table 1 of the paper prints
    speed-up = [(N_TP + N_train f) / (N_TP + N_FP + N_train)] / f                        (SOREP paper, eq. 17)

Here N_train f is the number of candidates that the random training set holds on average.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sorep.errors import ScreeningError

NAN = float("nan")


def scores(labels: ArrayLike, probabilities: ArrayLike, threshold: float = 0.5) -> dict[str, float]:
    """Metrics of a classification.

    Parameters
    ----------
    labels : (n,) bool
    probabilities : (n,) float
        Of the positive class.
    threshold : float
        Predicted positive from here on, the threshold itself included.

    Returns
    -------
    dict of str to float
        ``tn, fp, fn, tp``; ``tn_rate, fp_rate, fn_rate, tp_rate`` (relative to the actual class); ``precision``;
        ``recall`` (= tp_rate); ``balanced_accuracy``, adjusted for chance; ``roc_auc``; ``average_precision``;
        ``brier``. NaN where not defined.

    Raises
    ------
    ScreeningError
        ``malformed-predictions``.
    """
    from sklearn.metrics import average_precision_score, brier_score_loss, confusion_matrix, roc_auc_score

    truth, p = _checked(np.asarray(labels, dtype=bool), probabilities)
    (tn, fp), (fn, tp) = confusion_matrix(truth, p >= threshold, labels=[False, True]).tolist()
    tp_rate, tn_rate = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    both = truth.any() and not truth.all()
    return {
        "tn": tn,
        "fp": fp,
        "fn": fn,
        "tp": tp,
        "tn_rate": tn_rate,
        "fp_rate": 1 - tn_rate,
        "fn_rate": 1 - tp_rate,
        "tp_rate": tp_rate,
        "precision": _ratio(tp, tp + fp),
        "recall": tp_rate,
        "balanced_accuracy": tp_rate + tn_rate - 1,
        "roc_auc": float(roc_auc_score(truth, p)) if both else NAN,
        "average_precision": float(average_precision_score(truth, p)) if truth.any() else NAN,
        "brier": float(brier_score_loss(truth, p, labels=[False, True])),
    }


def regression_scores(targets: ArrayLike, predictions: ArrayLike) -> dict[str, float]:
    """``mae`` and ``rmse`` in the unit of the target, and ``r2`` (NaN where the targets are all the same)."""
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    truth, predicted = _checked(np.asarray(targets, dtype=float), predictions)
    return {
        "mae": float(mean_absolute_error(truth, predicted)),
        "rmse": float(root_mean_squared_error(truth, predicted)),
        "r2": float(r2_score(truth, predicted)) if np.ptp(truth) > 0 else NAN,
    }


def speed_up(tp: float, fp: float, n_train: float, f: float) -> float:
    """Candidates found per calculation, relative to calculating everything (eq. 17).

    ``tp`` and ``fp`` count among the structures that were not trained on; ``f`` is the share of candidates among all.
    """
    return _ratio(_ratio(tp + n_train * f, tp + fp + n_train), f)


def _checked(truth: NDArray[Any], predictions: ArrayLike) -> tuple[NDArray[Any], NDArray[np.float64]]:
    predicted = np.asarray(predictions, dtype=np.float64)
    if truth.ndim != 1 or truth.shape != predicted.shape or not len(truth) or not np.isfinite(predicted).all():
        raise ScreeningError(
            f"{truth.shape} labels and {predicted.shape} predictions, {np.count_nonzero(~np.isfinite(predicted))} of "
            "them not finite",
            code="malformed-predictions",
            remedy="give one finite prediction for each label",
        )
    return truth, predicted


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else NAN

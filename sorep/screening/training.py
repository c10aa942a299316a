"""Training a screening model, with an honest estimate of what it is worth.

The estimate is a cross-validation over whole reduced formulas: every structure is predicted once by a model that has
seen no other structure of its formula. The same folds score each baseline, so sets of features are compared in pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sorep.errors import ScreeningError
from sorep.screening.calibration import calibrate, require_positives
from sorep.screening.dataset import Dataset
from sorep.screening.metrics import regression_scores, scores
from sorep.screening.models import fit_model, predicted
from sorep.screening.parallel import in_parallel
from sorep.screening.saved import ScreeningModel, require_savable
from sorep.screening.splits import folds

Array = NDArray[np.float64]
Count = Callable[[int, int], None]

CHANCE = "chance"
DEFAULT_FOLDS = 5


def _silent(done: int, total: int) -> None:
    pass


def train(
    dataset: Dataset,
    estimator: Any,
    *,
    baselines: Sequence[Dataset] = (),
    n_folds: int = DEFAULT_FOLDS,
    seed: int = 0,
    jobs: int = 1,
    recall: float | None = None,
    kept_out: Dataset | None = None,
    on_progress: Count = _silent,
    **card: Any,
) -> ScreeningModel:
    """Cross-validate a model, fit it to all rows, and calibrate it if it is a classification.

    Parameters
    ----------
    dataset : Dataset
        With labels: booleans for a classification, numbers for a regression.
    estimator : scikit-learn estimator
        Not fitted; see `sorep.screening.models.build_model`.
    baselines : sequence of Dataset
        Other features of the same structures, scored with the same model and folds.
    n_folds : int
        Of the cross-validation.
    seed : int
        Of the folds.
    jobs : int
        Processes that fit folds side by side; the result does not depend on it.
    recall : float or None
        Share of the positives that the model's threshold is to keep; None for the usual threshold.
    kept_out : Dataset or None
        Other labelled structures to calibrate on, which makes the recall a promise (`sorep.screening.calibration`).
        Without them the predictions of the cross-validation serve.
    on_progress : callable
        Told the number of fits done and of all fits.
    **card
        Further fields of `ScreeningModel`.

    Returns
    -------
    ScreeningModel
        Its metrics hold a row for the features, one for each baseline and one for chance.

    Raises
    ------
    ScreeningError
        ``no-labels``, ``not-savable``, ``cannot-fit``, ``too-few-groups``, ``too-few-of-a-class``,
        ``too-few-positives``.
    UsageError
        ``bad-option`` for a recall that no threshold has.
    """
    from sklearn.base import clone

    judges = dataset if kept_out is None else kept_out
    if dataset.labels is None or judges.labels is None:
        raise ScreeningError("the structures have no labels", code="no-labels", remedy="give labels to train on")
    require_savable(estimator)
    if recall is not None:
        require_positives(len(np.unique(judges.groups[judges.labels])), recall)
    pairs = folds(dataset.labels, dataset.groups, n_folds, seed=seed)
    sets = [dataset, *baselines]
    n_fits = len(sets) * n_folds + 1
    answers = cross_validate(sets, estimator, pairs, jobs, lambda done: on_progress(done, n_fits))
    measure = _measure(dataset.labels)
    metrics = {each.name: measure(answer) for each, answer in zip(sets, answers, strict=True)}
    metrics[CHANCE] = measure(_prior(dataset.labels, pairs))
    fitted = fit_model(clone(estimator), dataset.values, dataset.labels)
    on_progress(n_fits, n_fits)
    trained = ScreeningModel(
        estimator=fitted,
        parts=dataset.parts,
        feature_names=dataset.feature_names,
        training_ids=dataset.ids.tolist(),
        is_regression=dataset.labels.dtype != bool,
        seed=seed,
        metrics=metrics,
        **card,
    )
    if trained.is_regression:
        return trained
    judged = answers[0] if kept_out is None else trained.scores(kept_out)
    return replace(trained, **calibrate(judges.labels, judged, judges.groups, recall, kept_out=kept_out is not None))


def cross_validate(
    sets: Sequence[Dataset],
    model: Any,
    pairs: Sequence[tuple[Any, Any]],
    jobs: int = 1,
    on_fit: Callable[[int], None] = lambda done: None,
) -> Array:
    """What each row is given by a model that was not trained on it.

    Parameters
    ----------
    sets : sequence of Dataset
        Features of the same n structures; the labels are those of the first.
    model : scikit-learn estimator
    pairs : sequence of (training rows, test rows)
        From `folds`, in which every row is tested once.
    jobs : int
    on_fit : callable
        Told the number of fits done.

    Returns
    -------
    (n_sets, n) array
    """
    calls = [(model, each.values, sets[0].labels, train, test) for each in sets for train, test in pairs]
    answers = np.zeros((len(sets), len(sets[0])))
    for number, (_, prediction) in enumerate(in_parallel(predict_rows, calls, jobs)):
        which, fold = divmod(number, len(pairs))
        answers[which, pairs[fold][1]] = prediction
        on_fit(number + 1)
    return answers


def predict_rows(model: Any, values: Array, labels: NDArray[Any], train: Any, test: Any) -> Array:
    """Fit a copy of the model to some rows and predict others."""
    from sklearn.base import clone

    return predicted(fit_model(clone(model), values[train], labels[train]), values[test])


def _measure(labels: NDArray[Any]) -> Callable[[Array], dict[str, float]]:
    if labels.dtype == bool:
        return lambda answer: scores(labels, answer)
    return lambda answer: regression_scores(labels, answer)


def _prior(labels: NDArray[Any], pairs: Sequence[tuple[Any, Any]]) -> Array:
    """Without features: the mean target of the training rows; for classes the share of positives over all rows.

    With the folds' own shares the ranking of rows would depend on their fold, and the AUC would not be 0.5.
    """
    if labels.dtype == bool:
        return np.full(len(labels), labels.mean())
    answer = np.zeros(len(labels))
    for train, test in pairs:
        answer[test] = labels[train].mean()
    return answer

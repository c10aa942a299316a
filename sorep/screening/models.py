"""Screening models: presets and any scikit-learn estimator.

``published`` is the balanced random forest of the SOREP paper with every argument written out, because the defaults of
imbalanced-learn changed in version 0.13. Its ``sampling_strategy=0.5`` draws one positive to two negatives for each
tree.

``default`` is the same forest with as many positives as negatives in each tree, and so without class weights. It was
chosen among some twenty candidates on 1,352 small crystals, 23 % of them positive, in ten splits by formula. With 66
training rows its adjusted balanced accuracy at 0.5 is higher by 0.04 (two to three standard errors); with 132 or more
it is the same within noise. Ranking is as good up to 132 rows, and a little worse beyond: average precision is lower by
0.003 to 0.013. With many labels, or where only the order counts, ``published`` is the better choice.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.preprocessing import StandardScaler

from sorep.errors import ScreeningError, UsageError

_TREE = {
    "max_depth": None,
    "min_samples_split": 2,
    "min_samples_leaf": 1,
    "min_weight_fraction_leaf": 0.0,
    "max_leaf_nodes": None,
    "min_impurity_decrease": 0.0,
    "ccp_alpha": 0.0,
    "max_samples": None,
    "monotonic_cst": None,
    "oob_score": False,
    "warm_start": False,
    "verbose": 0,
    "n_jobs": 1,
}

NO_SPREAD = 1e-9
"""Standard deviation, relative to the largest of all columns, below which a column counts as constant."""

_BALANCED_FOREST = "imblearn.ensemble:BalancedRandomForestClassifier"

_PUBLISHED = _TREE | {
    "n_estimators": 500,
    "criterion": "gini",
    "max_features": "sqrt",
    "bootstrap": True,
    "class_weight": "balanced_subsample",
    "sampling_strategy": 0.5,
    "replacement": True,
}

CLASSIFIERS: dict[str, tuple[str, dict[str, Any]]] = {
    "default": (_BALANCED_FOREST, _PUBLISHED | {"sampling_strategy": 1.0, "class_weight": None}),
    "published": (_BALANCED_FOREST, _PUBLISHED),
}

_FOREST = _TREE | {"n_estimators": 500, "criterion": "squared_error", "bootstrap": True}

REGRESSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "default": ("sklearn.ensemble:RandomForestRegressor", _FOREST | {"max_features": 1 / 3}),
    "published": ("sklearn.ensemble:RandomForestRegressor", _FOREST | {"max_features": 1.0}),
}


class Scaler(StandardScaler):
    """Standard scaler that treats a column with hardly any spread as the constant that it is.

    Far from any state a Gaussian density is not zero but 1e-50 or so. In a training set where every structure has a gap
    at some energy, division by such a spread would blow a metal's density up beyond all numbers.
    """

    def fit(self, X: ArrayLike, y: Any = None, sample_weight: Any = None) -> Self:
        super().fit(X, y, sample_weight)
        spread = np.sqrt(np.asarray(self.var_))
        self.scale_ = np.where(spread < NO_SPREAD * spread.max(), 1.0, self.scale_)
        return self


def build_model(name: str = "default", seed: int = 0, *, regression: bool = False, **params: Any) -> Any:
    """A scaler and an estimator in a pipeline, not yet fitted.

    Parameters
    ----------
    name : str
        A preset, ``default`` or ``published``, or the place of a class with scikit-learn's interface,
        ``"package.module:Class"``.
    seed : int
        Random state of the estimator, if it has one.
    regression : bool
        The regressor of this name.
    **params
        Arguments of the estimator that replace the preset's.

    Returns
    -------
    sklearn.pipeline.Pipeline
        Steps ``scaler`` and ``model``.

    Raises
    ------
    UsageError
        ``unknown-model``, ``unknown-parameter``, ``wrong-kind-of-model``.
    """
    from sklearn.pipeline import Pipeline

    presets = REGRESSORS if regression else CLASSIFIERS
    place, preset = presets.get(name, (name, {}))
    kind = _load(place, presets)
    method = "predict" if regression else "predict_proba"
    if not (hasattr(kind, "fit") and hasattr(kind, method)):
        raise UsageError(
            f"{place} has no {method}",
            code="wrong-kind-of-model",
            remedy=f"name a {'regressor' if regression else 'classifier that gives probabilities'}",
        )
    known = inspect.signature(kind).parameters
    unknown = sorted(params.keys() - known.keys())
    if unknown:
        raise UsageError(
            f"{kind.__name__} has no parameter {unknown[0]!r}",
            code="unknown-parameter",
            remedy=f"choose from {', '.join(known)}",
        )
    seeded = {"random_state": seed} if "random_state" in known else {}
    return Pipeline([("scaler", Scaler()), ("model", kind(**{**preset, **seeded, **params}))])


def fit_model(model: Any, values: NDArray[np.float64], labels: NDArray[Any]) -> Any:
    """Fit and return the model; what the estimator refuses becomes a `ScreeningError`.

    Where the rarer class is already a larger share of the other than ``sampling_strategy`` asks for, as happens in a
    small training set, there is nothing to remove (imbalanced-learn gives up): both classes are drawn as they are.

    Raises
    ------
    ScreeningError
        ``cannot-fit``.
    """
    asked = getattr(model.named_steps["model"], "sampling_strategy", None)
    try:
        if isinstance(asked, float) and 0 < asked < _ratio_of_classes(labels):
            model.set_params(model__sampling_strategy=_ratio_of_classes(labels))
        return model.fit(values, labels)
    except (ValueError, TypeError) as error:
        raise ScreeningError(
            f"{type(model.named_steps['model']).__name__} cannot be fitted to {len(labels)} rows"
            + (f" with {np.count_nonzero(labels)} positives" if labels.dtype == bool else "")
            + f": {error}",
            code="cannot-fit",
            remedy="change its parameters, or use the default model",
        ) from error
    finally:
        if isinstance(asked, float):
            model.set_params(model__sampling_strategy=asked)


def predicted(model: Any, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability of the positive class, or the value of a regression, (n,)."""
    if not hasattr(model, "predict_proba"):
        return model.predict(values)
    return model.predict_proba(values)[:, list(model.classes_).index(True)]


def _ratio_of_classes(labels: NDArray[np.bool_]) -> float:
    n_positive = np.count_nonzero(labels)
    fewer, more = sorted((n_positive, len(labels) - n_positive))
    return fewer / more


def _load(place: str, presets: dict[str, Any]) -> type:
    module, separator, name = place.partition(":")
    try:
        if not separator:
            raise ValueError("it is neither a preset nor package.module:Class")
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"cannot use model {place!r}: {error}",
            code="unknown-model",
            remedy=f"choose from {', '.join(presets)}, or give package.module:Class",
        ) from None
    if not isinstance(kind, type):
        raise UsageError(f"{place} is no class", code="unknown-model", remedy="give package.module:Class")
    return kind

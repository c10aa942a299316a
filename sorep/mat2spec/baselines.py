"""What a spectrum model must beat: rules without a network, each from training data and inputs to spectra.

A baseline is a function ``(train, inputs) -> (n, n_bins) array``. It sees spectra of the training part only; of what it
predicts it sees inputs. All give spectra in the unit of the training spectra, none of them negative.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sorep.errors import Mat2SpecError
from sorep.mat2spec.data import Inputs, SpectrumData

Baseline = Callable[[SpectrumData, Inputs], NDArray[np.float64]]

_STRENGTHS = tuple(10.0**power for power in range(-2, 6))  # of the ridge, per standardised feature
_FOLDS = 5
_EQUAL = 1e-9  # of distances between compositions


def mean_spectrum(train: SpectrumData, inputs: Inputs) -> NDArray[np.float64]:
    """The mean training spectrum for every crystal."""
    return np.tile(train.spectra.mean(axis=0), (len(inputs), 1))


def nearest_composition(train: SpectrumData, inputs: Inputs) -> NDArray[np.float64]:
    """The spectrum of the training crystal with the nearest element fractions (Euclidean); the mean of several."""
    distances = composition_distances(inputs, train.inputs)
    nearest = distances <= distances.min(axis=1, keepdims=True) + _EQUAL
    return (nearest / nearest.sum(axis=1, keepdims=True)) @ train.spectra


def ridge(train: SpectrumData, inputs: Inputs) -> NDArray[np.float64]:
    """Ridge regression on the standardised SOREP; its strength by cross-validation over whole formulas.

    Raises
    ------
    Mat2SpecError
        ``no-sorep``; ``too-few-structures`` for fewer training formulas than two.
    """
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GridSearchCV, GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    n_formulas = len(np.unique(train.formulas))
    if n_formulas < 2:
        raise Mat2SpecError(
            f"ridge regression from {n_formulas} formula", code="too-few-structures", remedy="train on more crystals"
        )
    search = GridSearchCV(
        make_pipeline(StandardScaler(), Ridge()),
        {"ridge__alpha": _STRENGTHS},
        scoring="neg_mean_squared_error",
        cv=GroupKFold(min(_FOLDS, n_formulas)),
    )
    search.fit(_sorep(train.inputs), train.spectra, groups=train.formulas)
    return np.maximum(search.predict(_sorep(inputs)), 0.0)


def input_itself(train: SpectrumData, inputs: Inputs) -> NDArray[np.float64]:
    """The SOREP as the prediction: what a cheaper calculation is worth on the grid of the target without any model.

    Raises
    ------
    Mat2SpecError
        ``no-sorep``; ``other-grid`` where the SOREP has another length than the spectra.
    """
    values = _sorep(inputs)
    if values.shape[1] != train.spectra.shape[1]:
        raise Mat2SpecError(
            f"a SOREP of {values.shape[1]} numbers is no spectrum of {train.spectra.shape[1]} bins",
            code="other-grid",
            remedy="compute the feature of the target with the other operator too",
        )
    return np.maximum(values, 0.0)


BASELINES: dict[str, Baseline] = {
    "mean spectrum": mean_spectrum,
    "nearest composition": nearest_composition,
    "ridge on SOREP": ridge,
    "SOREP itself": input_itself,
}
"""By name."""

RULES_ON_SOREP = ("ridge on SOREP", "SOREP itself")
"""Those that need a SOREP."""


def composition_distances(some: Inputs, others: Inputs) -> NDArray[np.float64]:
    """Euclidean distances between element fractions, (n some, n others); sqrt(2) between different elements."""
    from scipy.spatial.distance import cdist

    return cdist(some.compositions, others.compositions).astype(np.float64)


def _sorep(inputs: Inputs) -> NDArray[np.float64]:
    if inputs.sorep is None:
        raise Mat2SpecError(
            "this baseline reads SOREPs, and none were loaded", code="no-sorep", remedy="name a feature of the store"
        )
    return inputs.sorep

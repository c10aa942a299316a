"""What predictions are worth against known spectra, beside the mean spectrum and the nearest composition.

SumNorm and MaxNorm take the size of a spectrum away. Metrics are told for what is left ("scaled"), for spectra whose
size is predicted too ("honest"), and for spectra that were given their true size ("oracle"), as published results are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sorep.mat2spec.baselines import mean_spectrum, nearest_composition
from sorep.mat2spec.checkpoint import Checkpoint
from sorep.mat2spec.data import SpectrumData
from sorep.mat2spec.metrics import mae, mse, r2, wasserstein_each
from sorep.mat2spec.predict import Prediction, predict
from sorep.mat2spec.scaling import Scaling
from sorep.mat2spec.split import shared_formulas

SCALED, HONEST, ORACLE = "scaled", "honest", "oracle"
MODEL = "model"

_BASELINES = {"mean spectrum": mean_spectrum, "nearest composition": nearest_composition}


@dataclass(frozen=True)
class Score:
    """Metrics of one predictor.

    Attributes
    ----------
    predictor : str
        `MODEL`, or the name of a baseline.
    size : str
        `SCALED`, `HONEST` or `ORACLE`.
    metrics : dict of str to (float, str)
        MAE, MSE, R2 and WD with their units, "1" for none. WD is NaN where a prediction is nowhere positive, and is not
        there for scaled spectra that are no distributions.
    """

    predictor: str
    size: str
    metrics: dict[str, tuple[float, str]]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Predictions and the truth.

    Attributes
    ----------
    data : SpectrumData
        What was predicted, with its targets.
    prediction : Prediction
    scores : tuple of Score
    is_shared : (n,) bool array
        Whether the formula occurs in the training part: such a crystal is not unseen.
    """

    data: SpectrumData
    prediction: Prediction
    scores: tuple[Score, ...]
    is_shared: NDArray[np.bool_]

    @cached_property
    def wd(self) -> NDArray[np.float64]:
        """Wasserstein distance of each crystal, unit of the energies; NaN where a prediction is nowhere positive."""
        return _wd(self.prediction.spectra, self.data.spectra, self.data.bin_width)

    @cached_property
    def mae(self) -> NDArray[np.float64]:
        """Mean absolute error of each crystal, in the unit of the target."""
        return np.abs(self.prediction.spectra - self.data.spectra).mean(axis=1)

    def quintiles(self, n: int = 1) -> list[NDArray[np.intp]]:
        """Rows of the ``n`` crystals in the middle of each fifth, from the best fifth by WD to the worst."""
        order = np.argsort(self.wd, kind="stable")
        chosen = []
        for part in np.array_split(order, 5):
            first = max((len(part) - n) // 2, 0)
            chosen.append(part[first : first + n])
        return chosen


def evaluate(
    checkpoint: Checkpoint,
    data: SpectrumData,
    *,
    sizes: NDArray[np.float64] | None = None,
    train: SpectrumData | None = None,
) -> Evaluation:
    """Predict, and compare.

    Parameters
    ----------
    checkpoint : Checkpoint
    data : SpectrumData
        Targets are used for the comparison, and for the sizes of `ORACLE` only.
    sizes : (n,) float array or None
        Of the honest spectra, see `predict`.
    train : SpectrumData or None
        The training part, for the baselines; None leaves them out.

    Raises
    ------
    SorepError
        As `predict`, and of targets that are zero throughout.
    """
    prediction = predict(checkpoint, data.inputs, sizes=sizes)
    scaling = checkpoint.scaling
    honest = {MODEL: prediction.spectra}
    scaled = {MODEL: prediction.scaled}
    if train is not None:
        scaled_train = replace(train, spectra=scaling.transform(train.spectra))
        for name, baseline in _BASELINES.items():
            honest[name], scaled[name] = baseline(train, data.inputs), baseline(scaled_train, data.inputs)
    true_sizes = None if scaling.kind == "standard" else scaling.sizes(data.spectra)
    unit = f"unit of {checkpoint.about.target}"
    scores = []
    for name in honest:
        scores.append(Score(name, SCALED, _scaled_metrics(scaled[name], data, scaling)))
        scores.append(Score(name, HONEST, _metrics(honest[name], data, unit)))
        if true_sizes is not None and scaling.size is None:
            scores.append(Score(name, ORACLE, _metrics(scaled[name] * true_sizes[:, np.newaxis], data, unit)))
    training = np.array(checkpoint.about.formulas, dtype=str)
    return Evaluation(data, prediction, tuple(scores), shared_formulas(data.formulas, training))


def _metrics(predicted: NDArray[np.float64], data: SpectrumData, unit: str) -> dict[str, tuple[float, str]]:
    return {
        **_errors(predicted, data.spectra, unit),
        "WD": (float(_wd(predicted, data.spectra, data.bin_width).mean()), data.unit),
    }


def _scaled_metrics(
    predicted: NDArray[np.float64], data: SpectrumData, scaling: Scaling
) -> dict[str, tuple[float, str]]:
    found = _errors(predicted, scaling.transform(data.spectra), "1")
    if scaling.kind != "standard":
        found["WD"] = float(_wd(predicted, data.spectra, data.bin_width).mean()), data.unit
    return found


def _errors(predicted: NDArray[np.float64], true: NDArray[np.float64], unit: str) -> dict[str, tuple[float, str]]:
    return {
        "MAE": (mae(predicted, true), unit),
        "MSE": (mse(predicted, true), unit if unit == "1" else f"({unit})^2"),
        "R2": (r2(predicted, true), "1"),
    }


def _wd(predicted: NDArray[np.float64], true: NDArray[np.float64], bin_width: float) -> NDArray[np.float64]:
    is_positive = (predicted > 0).any(axis=1)
    distances = np.full(len(predicted), math.nan)
    if is_positive.any():
        distances[is_positive] = wasserstein_each(predicted[is_positive], true[is_positive], bin_width)
    return distances

"""Structures in the order in which a model would calculate them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sorep.screening.dataset import Dataset
from sorep.screening.saved import ScreeningModel

if TYPE_CHECKING:
    import pandas as pd


def rank(model: ScreeningModel, dataset: Dataset) -> pd.DataFrame:
    """The structures, those with the highest score first and equal ones by id.

    Parameters
    ----------
    model : ScreeningModel
    dataset : Dataset
        Labels are not needed.

    Returns
    -------
    DataFrame
        ``id``, ``formula`` (reduced), ``probability`` (calibrated; or ``prediction`` of a regression), ``score`` of the
        estimator and ``candidate`` (score at or above the model's threshold, 0.5 without one; neither for a
        regression), ``known`` (the model was trained on it).

    Raises
    ------
    IdentityError, ScreeningError
        As `ScreeningModel.scores`.
    """
    import pandas as pd

    scores = model.scores(dataset)
    order = np.lexsort([dataset.ids, -scores])
    columns: dict[str, NDArray[Any]] = {"id": dataset.ids, "formula": dataset.groups}
    columns["prediction" if model.is_regression else "probability"] = model.calibrated(scores)
    if not model.is_regression:
        columns["score"] = scores
        columns["candidate"] = scores >= (0.5 if model.threshold is None else model.threshold)
    columns["known"] = np.isin(dataset.ids, model.training_ids)
    return pd.DataFrame({name: column[order] for name, column in columns.items()})

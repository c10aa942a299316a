"""Search for the parameters of a forest on a grid, as in the SOREP paper.

Five independent 60:40 splits, here of whole reduced formulas, and every combination of class weight, sampling strategy,
replacement, bootstrap and ``ccp_alpha``. The paper does not print the values that it tried; `GRID` has the published
choice among them. What is finished is kept in a journal, so a search that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sorep.errors import ScreeningError, UsageError
from sorep.screening.dataset import Dataset
from sorep.screening.metrics import scores
from sorep.screening.parallel import in_parallel
from sorep.screening.splits import shuffled_splits
from sorep.screening.training import predict_rows

GRID: dict[str, list[Any]] = {
    "class_weight": [None, "balanced", "balanced_subsample"],
    "sampling_strategy": [0.5, 1.0],
    "replacement": [True, False],
    "bootstrap": [True, False],
    "ccp_alpha": [0.0, 0.001, 0.01],
}

N_SPLITS = 5

SCORINGS = ("balanced_accuracy", "roc_auc", "average_precision")


def grid_of(model: Any) -> list[dict[str, Any]]:
    """All combinations of those parameters of the grid that this model has.

    Raises
    ------
    UsageError
        ``no-grid`` where it has none of them.
    """
    from sklearn.model_selection import ParameterGrid

    has = model.named_steps["model"].get_params()
    grid = {name: values for name, values in GRID.items() if name in has}
    if not grid:
        raise UsageError(
            f"{type(model.named_steps['model']).__name__} has none of the parameters {', '.join(GRID)}",
            code="no-grid",
            remedy="search on the grid with a forest, e.g. --model published",
        )
    return list(ParameterGrid(grid))


def check_scoring(scoring: str) -> None:
    """Raise `UsageError` ``bad-option`` for a scoring that is not among `SCORINGS`."""
    if scoring not in SCORINGS:
        raise UsageError(f"unknown scoring {scoring!r}", code="bad-option", remedy=f"choose from {', '.join(SCORINGS)}")


def search(
    dataset: Dataset,
    model: Any,
    *,
    scoring: str = "balanced_accuracy",
    n_splits: int = N_SPLITS,
    seed: int = 0,
    jobs: int = 1,
    journal: Path | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[tuple[dict[str, Any], float]]:
    """Score every combination on the same splits.

    Parameters
    ----------
    dataset : Dataset
        With boolean labels.
    model : Pipeline
        As `build_model` gives it; its other parameters stay.
    scoring : {"balanced_accuracy", "roc_auc", "average_precision"}
        Mean over the splits by which combinations are ranked. Balanced accuracy is adjusted for chance.
    n_splits : int
    seed : int
        Of the splits.
    jobs : int
        Processes.
    journal : Path or None
        File of finished fits, added to; those of the same data, model and splits are not fitted again.
    on_progress : callable
        Told the number of fits done and of all fits.

    Returns
    -------
    list of (parameters, score)
        Best first. A combination that cannot be fitted to each split has no score and is not listed.

    Raises
    ------
    UsageError
        ``bad-option``, ``no-grid``.
    ScreeningError
        ``no-labels``, ``too-few-of-a-class``, ``cannot-fit`` where no combination can be fitted.
    """
    from sklearn.base import clone

    check_scoring(scoring)
    if dataset.labels is None or dataset.labels.dtype != bool:
        raise ScreeningError("a grid search needs boolean labels", code="no-labels", remedy="give a column of labels")
    combinations = grid_of(model)
    splits = shuffled_splits(dataset.labels, dataset.groups, n_splits, seed=seed)
    digest = _digest(dataset, model, splits)
    done = _read(journal, digest)
    keys = [(json.dumps(choice, sort_keys=True), split) for choice in combinations for split in range(n_splits)]
    left = [key for key in keys if key not in done]
    calls = []
    for text, split in left:
        changed: Any = clone(model)
        changed.set_params(**{f"model__{name}": value for name, value in json.loads(text).items()})
        calls.append((changed, dataset.values, dataset.labels, *splits[split]))
    on_progress(len(keys) - len(left), len(keys))
    for number, (key, (_, found)) in enumerate(zip(left, in_parallel(_score, calls, jobs), strict=True), start=1):
        done[key] = found
        if journal is not None:
            with journal.open("a") as file:
                file.write("\n" + json.dumps([digest, *key, found]))  # first, for a line that was cut off
        on_progress(len(keys) - len(left) + number, len(keys))
    return _ranked(combinations, done, scoring, n_splits)


def _score(model: Any, values: Any, labels: NDArray[np.bool_], train: Any, test: Any) -> dict[str, float] | None:
    try:
        found = scores(labels[test], predict_rows(model, values, labels, train, test))
    except ScreeningError as error:
        if error.code != "cannot-fit":
            raise
        return None
    return {name: found[name] for name in SCORINGS}


def _ranked(
    combinations: list[dict[str, Any]], done: dict[tuple[str, int], dict[str, float] | None], scoring: str, n: int
) -> list[tuple[dict[str, Any], float]]:
    ranked = []
    for choice in combinations:
        found = [done[json.dumps(choice, sort_keys=True), split] for split in range(n)]
        if all(found):
            ranked.append((choice, float(np.mean([each[scoring] for each in found if each]))))
    if not ranked:
        raise ScreeningError(
            "no combination of the grid can be fitted to these labels",
            code="cannot-fit",
            remedy="use the default model without a grid",
        )
    return sorted(ranked, key=lambda pair: -pair[1])


def _digest(dataset: Dataset, model: Any, splits: list[tuple[Any, Any]]) -> str:
    digest = hashlib.sha256(dataset.identity.text.encode() + repr(sorted(model.get_params().items(), key=str)).encode())
    for array in (dataset.values, dataset.labels, *(train for train, _ in splits)):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def _read(journal: Path | None, digest: str) -> dict[tuple[str, int], dict[str, float] | None]:
    done: dict[tuple[str, int], dict[str, float] | None] = {}
    if journal is not None and journal.exists():
        for line in journal.read_text().splitlines():
            try:
                of, choice, split, found = json.loads(line)
            except ValueError:  # cut off by a kill
                continue
            if of == digest:
                done[choice, split] = found
    return done

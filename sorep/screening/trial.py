"""One fit of a learning curve: draw the training rows, fit, score, and ask which features mattered.

A trial runs in a worker process. What all trials share lies in files of the evaluation's folder, which a worker opens
once: the rows (`ROWS`), and the features as an array that is mapped, not copied. All that is random follows from the
evaluation's seed, the number of the split and the number of training rows; the training rows of a split are the same
for all feature sets and models, so that these are compared in pairs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sorep.errors import ScreeningError
from sorep.screening.metrics import NAN, scores, speed_up
from sorep.screening.models import build_model, fit_model, predicted
from sorep.screening.splits import Kind, has_both_classes, training_rows

ROWS = "structures.parquet"
"""Id, reduced formula, label, whether in the subset, and whether held out, of every row."""

THRESHOLD = 0.5
"""Probability from which a structure is predicted to be a candidate."""

REPEATS = 5
"""How often each block of features is permuted."""

COUNTS = ("tn", "fp", "fn", "tp")
METRICS = (
    *COUNTS,
    *("tn_rate", "fp_rate", "fn_rate", "tp_rate", "precision", "recall", "balanced_accuracy"),
    *("roc_auc", "average_precision", "brier", "roc_auc_within", "average_precision_within"),
    *("speed_up", "fraction_found", "n_calculations"),
)
"""Of the hold-out (``within``: of its structures in the subset); the last three of all rows not trained on."""

SCHEMA = pa.schema(
    [
        ("arm", pa.string()),
        ("n_rows", pa.int64()),  # asked for
        ("split", pa.int64()),
        ("status", pa.string()),  # empty, or the code of the error why this split cannot be computed
        ("n_train", pa.int64()),
        ("n_train_positive", pa.int64()),
        *((name, pa.float64()) for name in METRICS),
        ("seconds", pa.float64()),  # of CPU time to fit and score
        ("seconds_predict", pa.float64()),  # to predict the hold-out once
        ("importance", pa.list_(pa.float64())),
        ("permutation", pa.list_(pa.float64())),
        ("probabilities", pa.list_(pa.float32())),  # of the hold-out, in the order of the rows
    ]
)
"""One row for each trial."""


@dataclass(frozen=True)
class Arm:
    """What is compared: a model on a feature set. ``features`` is the position of the set's array."""

    name: str
    features: int
    model: str
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """One arm, one number of training rows, one split.

    ``blocks`` are the ranges of features to permute together, none where that is not asked for.
    """

    folder: Path
    arm: Arm
    n_rows: int
    split: int
    seed: int
    kind: Kind
    blocks: tuple[tuple[int, int], ...] = ()

    @property
    def key(self) -> tuple[str, int, int]:
        return self.arm.name, self.n_rows, self.split


@dataclass(frozen=True)
class Rows:
    """The rows of an evaluation, as arrays."""

    groups: NDArray[np.str_]
    labels: NDArray[np.bool_]
    is_held_out: NDArray[np.bool_]
    is_within: NDArray[np.bool_]


def run_trial(trial: Trial) -> dict[str, Any]:
    """Fit and score; returns a row of `SCHEMA`.

    A split that cannot be drawn or fitted, such as one without positives, is a result too: its row tells why in
    ``status`` and has no numbers.
    """
    start = time.process_time()
    rows, values = _rows(trial.folder), _values(trial.folder, trial.arm.features)
    row: dict[str, Any] = dict.fromkeys(SCHEMA.names) | {
        "arm": trial.arm.name,
        "n_rows": trial.n_rows,
        "split": trial.split,
        "status": "",
    }
    try:
        train = training_rows(
            np.flatnonzero(~rows.is_held_out),
            rows.groups,
            rows.labels,
            trial.n_rows,
            split_seed=derived_seed(trial.seed, trial.split),
            kind=trial.kind,
        )
        model = build_model(trial.arm.model, derived_seed(trial.seed, trial.split, trial.n_rows), **trial.arm.params)
        fit_model(model, values[train], rows.labels[train])
    except ScreeningError as error:
        return row | {"status": error.code}
    held_out = np.flatnonzero(rows.is_held_out)
    others = np.setdiff1d(np.flatnonzero(~rows.is_held_out), train)
    held_out_values, fitted = values[held_out], time.process_time()
    of_held_out = predicted(model, held_out_values)
    seconds_predict = time.process_time() - fitted
    of_others = predicted(model, values[others])
    row |= {"n_train": len(train), "n_train_positive": int(rows.labels[train].sum())}
    row |= _of_held_out(rows, of_held_out)
    row |= _of_rest(rows, train, np.append(held_out, others), np.append(of_held_out, of_others))
    row["importance"] = _impurity_importance(model)
    row |= {"seconds": time.process_time() - start, "seconds_predict": seconds_predict}
    if trial.blocks:
        row["permutation"] = block_importance(
            model, held_out_values, rows.labels[held_out], trial.blocks, derived_seed(trial.seed, trial.split)
        )
    return row | {"probabilities": of_held_out.tolist()}


def block_importance(
    model: Any,
    values: NDArray[np.float64],
    labels: NDArray[np.bool_],
    blocks: tuple[tuple[int, int], ...],
    seed: int,
) -> list[float]:
    """Loss of ROC AUC when a block of features is permuted among the rows, the same way in the whole block.

    Neighbouring energies tell nearly the same, so that a model can do without any single one of them.

    Parameters
    ----------
    model : fitted classifier
    values : (n, n_features) array
        Rows that the model was not trained on.
    labels : (n,) bool array
    blocks : tuple of (first, beyond the last) feature
    seed : int

    Returns
    -------
    list of float
        Mean of `REPEATS` permutations for each block.
    """
    from sklearn.metrics import roc_auc_score

    random = np.random.default_rng(seed)
    orders = [random.permutation(len(values)) for _ in range(REPEATS)]
    whole = roc_auc_score(labels, predicted(model, values))
    losses = []
    for start, stop in blocks:
        permuted = values.copy()
        aucs = []
        for order in orders:
            permuted[:, start:stop] = values[order, start:stop]
            aucs.append(roc_auc_score(labels, predicted(model, permuted)))
        losses.append(float(whole - np.mean(aucs)))
    return losses


def derived_seed(*numbers: int) -> int:
    """A seed that follows from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _of_held_out(rows: Rows, probabilities: NDArray[np.float64]) -> dict[str, float]:
    labels, is_within = rows.labels[rows.is_held_out], rows.is_within[rows.is_held_out]
    within = {"roc_auc": NAN, "average_precision": NAN}
    if has_both_classes(labels[is_within]):
        within = scores(labels[is_within], probabilities[is_within])
    return scores(labels, probabilities, THRESHOLD) | {
        f"{name}_within": within[name] for name in ("roc_auc", "average_precision")
    }


def _of_rest(
    rows: Rows, train: NDArray[np.intp], rest: NDArray[np.intp], probabilities: NDArray[np.float64]
) -> dict[str, float]:
    is_predicted = probabilities >= THRESHOLD
    tp = int(np.count_nonzero(rows.labels[rest] & is_predicted))
    fp = int(np.count_nonzero(~rows.labels[rest] & is_predicted))
    return {
        "speed_up": speed_up(tp, fp, len(train), float(rows.labels.mean())),
        "fraction_found": (tp + int(rows.labels[train].sum())) / int(rows.labels.sum()),
        "n_calculations": len(train) + tp + fp,
    }


def _impurity_importance(model: Any) -> list[float] | None:
    importance = getattr(model.named_steps["model"], "feature_importances_", None)
    return None if importance is None else importance.tolist()


@lru_cache(maxsize=1)
def _rows(folder: Path) -> Rows:
    columns = pq.read_table(folder / ROWS).to_pydict()
    return Rows(
        groups=np.array(columns["formula"], dtype=str),
        labels=np.array(columns["label"], dtype=bool),
        is_held_out=np.array(columns["held_out"], dtype=bool),
        is_within=np.array(columns["within"], dtype=bool),
    )


@lru_cache(maxsize=16)
def _values(folder: Path, features: int) -> NDArray[np.float64]:
    return np.load(values_file(folder, features), mmap_mode="r")


def values_file(folder: Path, features: int) -> Path:
    """Where the array of a feature set lies while an evaluation runs."""
    return folder / "values" / f"{features}.npy"

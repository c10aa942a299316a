"""Honest learning curves: what a screening model would have found, for every size of its training set.

A hold-out is set aside first. Then each feature set and model is trained on the same rows, for every size and split,
and scored on the hold-out; speed-up and candidates found are those of all rows not trained on. By default structures of
one reduced formula are never parted by a split: a random split flatters. Beside the feature sets that were asked for
stand baselines: composition and SOAP where the store has them, random answers (``chance``), and one answer for all
(``constant``).

Trials run in the workers of an engine. Each is on disk when it is done (`sorep.screening.curves`), and its numbers do
not depend on the number of workers, on their order, or on interruptions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sorep.engine import Engine
from sorep.errors import SorepError
from sorep.screening.curves import commit, finished, gather, opened, require_same
from sorep.screening.plan import Plan
from sorep.screening.trial import REPEATS, ROWS, Trial, run_trial, values_file

_PROBED = (100, 3000)  # training rows; trials near to these tell what the others cost
_GROWTH = 1.4  # power of the training rows; measured on forests up to 16,000 rows, where n log n falls short by a third


@dataclass(frozen=True)
class Outlook:
    """What there is to compute: all trials, those still missing, and CPU seconds that these are expected to take."""

    n_trials: int
    n_missing: int
    seconds: float


@dataclass
class Progress:
    """Where an evaluation stands."""

    total: int
    done: int
    errors: list[tuple[Trial, SorepError]] = field(default_factory=list)


def evaluate(
    plan: Plan,
    folder: str | Path,
    engine: Engine,
    *,
    on_planned: Callable[[Outlook], None] = lambda outlook: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Compute what is missing in a folder, for `sorep.screening.curves.load_curves` to read.

    Parameters
    ----------
    plan : Plan
    folder : str or Path
        New, or begun with the same plan.
    engine : Engine
        Open.
    on_planned : callable
        Told what the whole is expected to take, once the first few trials have been measured.
    on_progress : callable
        Told after every trial.

    Returns
    -------
    Progress
        At the end. Trials that failed (a worker that died) are in its ``errors``; the next call tries them again.

    Raises
    ------
    UsageError
        As `sorep.screening.curves.opened`.
    """
    folder = Path(folder).absolute()
    trials = plan.trials(folder)
    with opened(folder, plan.settings(), plan.rows):
        rows = finished(folder)
        progress = Progress(len(trials), len(rows))
        missing = [trial for trial in trials if trial.key not in rows]
        if missing:
            _write_values(plan, folder)
        probes = [trial for trial in probing(trials) if trial.key not in rows]
        first = {trial.key for trial in probes}
        # Split by split: whoever looks before the end sees all sizes, and the rate is that of the whole.
        rest = sorted((t for t in missing if t.key not in first), key=lambda trial: (trial.split, -trial.n_rows))
        for batch in (probes, rest):
            if batch is rest:
                on_planned(Outlook(len(trials), len(missing), sum(expected_seconds(missing, rows.values()))))
            for outcome in engine.map_unordered(run_trial, batch):
                if outcome.value is None:
                    progress.errors.append((outcome.item, outcome.error or SorepError("no result")))
                else:
                    commit(folder, outcome.value, plan.arms.index(outcome.item.arm))
                    rows[outcome.item.key] = outcome.value
                    progress.done += 1
                on_progress(progress)
        gather(folder, trials)
    return progress


def estimate(plan: Plan, engine: Engine, folder: str | Path | None = None) -> Outlook:
    """What an evaluation would take, from a few measured trials whose results are thrown away.

    Parameters
    ----------
    plan : Plan
    engine : Engine
        Open.
    folder : str, Path or None
        What is finished there need not be computed.
    """
    done = {}
    if folder is not None and Path(folder).exists():
        require_same(Path(folder), plan.settings())
        done = finished(Path(folder))
    with TemporaryDirectory(prefix="sorep-") as scratch:
        trials = plan.trials(Path(scratch))
        missing = [trial for trial in trials if trial.key not in done]
        rows = list(done.values())
        probes = [replace(t, blocks=()) for t in probing(trials) if t.key not in done]
        if probes:
            _write_values(plan, Path(scratch))
            pq.write_table(plan.rows, Path(scratch) / ROWS)
        for outcome in engine.map_unordered(run_trial, probes):
            if outcome.value is None:
                raise outcome.error or SorepError("no result")
            rows.append(outcome.value)
        return Outlook(len(trials), len(missing), sum(expected_seconds(missing, rows)))


def probing(trials: Sequence[Trial]) -> list[Trial]:
    """A few trials of every arm that tell what the others will cost."""
    sizes = {trial.n_rows for trial in trials}
    probed = {min(sizes, key=lambda size: abs(np.log(size / goal))) for goal in _PROBED}
    return [trial for trial in trials if trial.split == 0 and trial.n_rows in probed]


def expected_seconds(trials: Iterable[Trial], finished: Iterable[dict[str, Any]]) -> list[float]:
    """CPU time of trials, from rows of others: a constant and a part that grows as a power of n, fitted by arm."""
    from scipy.optimize import nnls

    measured: dict[str, list[tuple[int, float, float]]] = {}
    for row in finished:
        if row["seconds"] is not None:  # there is none for a split that cannot be computed
            measured.setdefault(row["arm"], []).append((row["n_rows"], row["seconds"], row["seconds_predict"]))
    costs = {}
    for arm, lines in measured.items():
        n_rows, seconds, predict = np.array(lines).T
        scale = 1 / seconds  # relative errors count, or the largest trials would decide alone
        costs[arm] = (*nnls(_terms(n_rows) * scale[:, None], seconds * scale)[0], np.median(predict))
    expected = []
    for trial in trials:
        fixed, slope, predict = costs.get(trial.arm.name, (float("nan"),) * 3)
        fit = float(np.array([fixed, slope]) @ _terms(np.array([trial.n_rows]))[0])
        expected.append(fit + float(predict) * REPEATS * len(trial.blocks))
    return expected


def _terms(n_rows: NDArray[Any]) -> NDArray[np.float64]:
    return np.stack([np.ones(len(n_rows)), n_rows**_GROWTH], axis=1)


def _write_values(plan: Plan, folder: Path) -> None:
    for number, dataset in enumerate(plan.datasets):
        path = values_file(folder, number)
        path.parent.mkdir(exist_ok=True)
        np.save(path, dataset.values)

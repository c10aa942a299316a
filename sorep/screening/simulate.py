"""What a strategy would have found, replayed on structures whose labels are all known.

Each replay begins without a label. A strategy proposes a batch, is told its labels, and goes on. Beside the strategies
stands the published procedure (SOREP paper, Figure 6b): a training set of a given size at random, the published model
fitted to it once, then all structures that it predicts to be candidates. In which order these are calculated the paper
does not say; here the most probable ones for their cost come first, which is the best for it. It ends when these are
exhausted. Its curve is drawn on all the same, in the order of the model, and where the procedure ended is recorded. A
training set without candidates is drawn again and the first one is not charged, in its favour too; the strategies have
no such help.

Everything counts: each structure that was calculated, in a training set or for exploration, costs what it costs, and
each candidate among them is found. No test set is held out, so nothing is grouped by formula: that a polymorph of a
known candidate is likely one too is knowledge that a strategy may use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sorep.errors import ScreeningError, UsageError
from sorep.screening.models import CLASSIFIERS, build_model, fit_model, predicted
from sorep.screening.parallel import in_parallel
from sorep.screening.splits import training_rows
from sorep.screening.strategies import DEFAULT_STRATEGY, MODEL_STRATEGIES, STRATEGIES, Planner

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
Rows = NDArray[np.intp]
Count = Callable[[int, int], None]

PUBLISHED = "published"
POINTS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Shares of the cost of everything at which curves are compared in the table."""

TREES = 100

_GRID = 201


@dataclass(frozen=True)
class Setting:
    """What is replayed.

    Attributes
    ----------
    strategies : tuple of str
        See `sorep.screening.strategies.STRATEGIES`.
    train_sizes : tuple of float
        Training sets of the published procedure, as shares of all structures.
    batch : float
        Share of the cost of everything that is spent before a model is fitted anew.
    until : float
        Share of the cost of everything at which a replay ends.
    model : str
        Of the strategies.
    params : dict of str to Any
        Its parameters. A preset gets a hundred trees, unless another number is given here: they tell nearly what five
        hundred tell, and every batch takes a fit.
    published_params : dict of str to Any
        Changes to the published model.
    """

    strategies: tuple[str, ...] = STRATEGIES
    train_sizes: tuple[float, ...] = (0.01, 0.03, 0.1)
    batch: float = 0.01
    until: float = 0.5
    model: str = "default"
    params: dict[str, Any] = field(default_factory=dict)
    published_params: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shares = {"batch": self.batch, "until": self.until} | {f"training size {s:g}": s for s in self.train_sizes}
        for name, share in shares.items():
            if not 0 < share <= 1:
                raise UsageError(f"{name} of {share:g}", code="bad-option", remedy="give a share above 0, at most 1")

    @property
    def procedures(self) -> list[str]:
        """Names of all curves: strategies, then the published procedure for each size of its training set."""
        return [*self.strategies, *(f"{PUBLISHED} {size:.3g}" for size in self.train_sizes)]

    @property
    def n_fits(self) -> int:
        """Fits of one seed, at most."""
        with_model = sum(strategy in MODEL_STRATEGIES for strategy in self.strategies)
        return with_model * int(np.ceil(self.until / self.batch)) + len(self.train_sizes)


@dataclass(frozen=True, eq=False)
class Replay:
    """One procedure, once.

    Attributes
    ----------
    procedure : str
    seed : int
    rows : (m,) int array
        Structures in the order in which they were calculated.
    end : int
        Number of them after which the published procedure ends; m for a strategy.
    """

    procedure: str
    seed: int
    rows: Rows
    end: int


@dataclass(frozen=True, eq=False)
class Comparison:
    """All replays of a labelled set.

    Attributes
    ----------
    labels : (n,) bool array
    costs : (n,) float array
    setting : Setting
    replays : list of Replay
        Procedure by procedure, seed by seed.
    """

    labels: NDArray[np.bool_]
    costs: Array
    setting: Setting
    replays: list[Replay]

    def found(self, procedure: str, spent: Array) -> Array:
        """Share of all candidates found at given spendings.

        Parameters
        ----------
        procedure : str
        spent : (k,) float array
            Shares of the cost of everything. A calculation counts when it has been paid in full.

        Returns
        -------
        (n_seeds, k) array
        """
        lines = []
        for replay in self._of(procedure):
            cost = np.concatenate([[0.0], np.cumsum(self.costs[replay.rows])]) / self.costs.sum()
            share = np.concatenate([[0.0], np.cumsum(self.labels[replay.rows])]) / self.labels.sum()
            lines.append(share[np.searchsorted(cost, spent + 1e-9, side="right") - 1])
        return np.array(lines)

    def area(self, procedure: str) -> Array:
        """Mean share of the candidates found, over spendings from nothing to the end of the replays, (n_seeds,)."""
        spent = np.linspace(0, self.setting.until, _GRID)
        return np.asarray(np.trapezoid(self.found(procedure, spent), spent, axis=1)) / self.setting.until

    def ends(self, procedure: str) -> tuple[Array, Array]:
        """Where the published procedure ends: shares of cost and of candidates found, each (n_seeds,)."""
        done = [replay.rows[: replay.end] for replay in self._of(procedure)]
        cost = np.array([self.costs[rows].sum() for rows in done]) / self.costs.sum()
        return cost, np.array([self.labels[rows].sum() for rows in done]) / self.labels.sum()

    def table(self) -> pd.DataFrame:
        """Mean and standard deviation over the seeds of what is found, a row for each procedure.

        Columns ``found at S`` and ``sd at S`` for each share S of `POINTS` up to the end, ``area`` and ``sd of area``,
        and ``spent at end`` and ``found at end`` of the published procedure.
        """
        import pandas as pd

        points = [point for point in POINTS if point <= self.setting.until]
        lines = []
        for procedure in self.setting.procedures:
            line: dict[str, Any] = {"procedure": procedure}
            found = self.found(procedure, np.array(points))
            for column, point in enumerate(points):
                line[f"found at {point:g}"] = found[:, column].mean()
                line[f"sd at {point:g}"] = found[:, column].std()
            line |= {"area": self.area(procedure).mean(), "sd of area": self.area(procedure).std()}
            ends = map(np.mean, self.ends(procedure)) if procedure.startswith(PUBLISHED) else (np.nan, np.nan)
            line |= dict(zip(("spent at end", "found at end"), ends, strict=True))
            lines.append(line)
        return pd.DataFrame(lines)

    def figure(self) -> Figure:
        """Share of candidates found against share of the cost spent; bands are one standard deviation."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 4.4), layout="constrained")
        axis = figure.subplots()
        spent = np.linspace(0, self.setting.until, _GRID)
        for procedure in self.setting.procedures:
            style = _style(procedure, self.setting)
            found = self.found(procedure, spent)
            mean, deviation = found.mean(axis=0), found.std(axis=0)
            axis.plot(spent, mean, label=procedure, **style)
            if procedure == DEFAULT_STRATEGY or procedure.startswith(PUBLISHED):
                axis.fill_between(spent, mean - deviation, mean + deviation, color=style["color"], alpha=0.15, lw=0)
            if procedure.startswith(PUBLISHED):
                x, y = map(np.mean, self.ends(procedure))
                if x <= self.setting.until:
                    axis.plot(x, y, "o", color=style["color"], markersize=6)
        best = np.minimum(_perfect(self.labels, self.costs, spent), 1)
        axis.plot(spent, best, color="0.6", linewidth=1, linestyle=":", label="perfect knowledge")
        same = np.allclose(self.costs, self.costs[0])
        axis.set_xlabel("share of all calculations" if same else "share of the cost of all calculations")
        axis.set_ylabel("share of all candidates found")
        axis.set_xlim(0, self.setting.until)
        axis.set_ylim(0, 1.02)
        figure.legend(fontsize=8, frameon=False, loc="outside right upper")
        axis.spines[["top", "right"]].set_visible(False)
        return figure

    def _of(self, procedure: str) -> list[Replay]:
        return [replay for replay in self.replays if replay.procedure == procedure]


def simulate(
    values: Array,
    labels: NDArray[np.bool_],
    costs: Array,
    setting: Setting,
    *,
    seeds: Sequence[int] = tuple(range(20)),
    jobs: int = 1,
    on_progress: Count = lambda done, total: None,
) -> Comparison:
    """Replay every procedure for every seed.

    Parameters
    ----------
    values : (n, n_features) float array
    labels : (n,) bool array
    costs : (n,) float array
        Positive; ones to count calculations.
    setting : Setting
    seeds : sequence of int
    jobs : int
        Processes; the result does not depend on it.
    on_progress : callable
        Told the number of replays done and of all.

    Returns
    -------
    Comparison

    Raises
    ------
    ScreeningError
        ``one-class``, ``bad-cost``, ``too-few-of-a-class``, ``cannot-fit``.
    UsageError
        ``unknown-strategy``, ``bad-option``.
    """
    labels = np.asarray(labels, dtype=bool)
    if labels.all() or not labels.any():
        raise ScreeningError(
            f"all {len(labels)} structures are {'candidates' if labels.all() else 'no candidates'}",
            code="one-class",
            remedy="label structures of the other kind too: without them there is nothing to search for",
        )
    for strategy in setting.strategies:
        _planner(values, costs, setting, strategy, 0)
    tasks = [(name, size, seed) for name, size in _procedures(setting) for seed in seeds]
    arguments = [(values, labels, costs, setting, *task) for task in tasks]
    replays = []
    for done, (_, replay) in enumerate(in_parallel(_replay, arguments, jobs), start=1):
        replays.append(replay)
        on_progress(done, len(tasks))
    return Comparison(labels, costs, setting, replays)


def _procedures(setting: Setting) -> list[tuple[str, float | None]]:
    sizes = [None] * len(setting.strategies) + list(setting.train_sizes)
    return list(zip(setting.procedures, sizes, strict=True))


def _planner(values: Array, costs: Array, setting: Setting, strategy: str, seed: int) -> Planner:
    params = {**({"n_estimators": TREES} if setting.model in CLASSIFIERS else {}), **setting.params}
    return Planner(values, costs, strategy, partial(build_model, setting.model, **params), seed)


def _replay(
    values: Array,
    labels: NDArray[np.bool_],
    costs: Array,
    setting: Setting,
    procedure: str,
    train_size: float | None,
    seed: int,
) -> Replay:
    if train_size is not None:
        return _published(values, labels, costs, setting, procedure, train_size, seed)
    planner = _planner(values, costs, setting, procedure, seed)
    end = setting.until * costs.sum()
    batch = max(setting.batch * costs.sum(), costs.mean())
    known = np.empty(0, dtype=np.intp)
    spent = 0.0
    while spent < end:
        budget = batch
        while not len(chosen := planner.propose(known, labels[known], budget).rows) and budget < costs.sum():
            budget *= 2  # one structure alone costs more than a batch
        if not len(chosen):
            break
        known = np.concatenate([known, chosen])
        spent += costs[chosen].sum()
    return Replay(procedure, seed, known, len(known))


def _published(
    values: Array,
    labels: NDArray[np.bool_],
    costs: Array,
    setting: Setting,
    procedure: str,
    train_size: float,
    seed: int,
) -> Replay:
    everything = np.arange(len(labels))
    size = max(2, round(train_size * len(labels)))
    train = training_rows(everything, everything, labels, size, split_seed=seed, kind="random")
    train = np.random.default_rng(seed).permutation(train)
    params = dict(setting.published_params)
    if 2 * min(labels[train].sum(), (~labels[train]).sum()) > max(labels[train].sum(), (~labels[train]).sum()):
        params |= {"sampling_strategy": "all"}  # already nearer to balance than one to two
    model = fit_model(build_model(PUBLISHED, seed, **params), values[train], labels[train])
    left = np.setdiff1d(everything, train)
    probability = predicted(model, values[left])
    is_candidate = probability >= 0.5
    order = left[np.lexsort([-probability / costs[left], ~is_candidate])]
    return Replay(procedure, seed, np.concatenate([train, order]), len(train) + int(is_candidate.sum()))


def _perfect(labels: NDArray[np.bool_], costs: Array, spent: Array) -> Array:
    """Share found by one who calculates the candidates only, the cheapest first."""
    total = np.concatenate([[0.0], np.cumsum(np.sort(costs[labels]))]) / costs.sum()
    return (np.searchsorted(total, spent + 1e-9, side="right") - 1) / labels.sum()


def _style(procedure: str, setting: Setting) -> dict[str, Any]:
    colors = dict(zip(STRATEGIES, ("0.5", "#E69F00", "#56B4E9", "#009E73", "#D55E00"), strict=True))
    if procedure in colors:
        return {"color": colors[procedure], "linewidth": 2.2 if procedure == DEFAULT_STRATEGY else 1.4}
    number = setting.procedures.index(procedure) - len(setting.strategies)
    blues = ("#0072B2", "#CC79A7", "#000000", "#7F5F00")
    return {"color": blues[number % len(blues)], "linewidth": 1.6, "linestyle": "--"}

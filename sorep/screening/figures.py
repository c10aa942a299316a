"""Pictures of learning curves: the SOREP paper's Figures 8 and 9, and what it leaves out.

An arm (a feature set and a model) has the same colour, line and marker everywhere. The first colours are those of Okabe
and Ito, the others of Tol, which colour-blind readers can tell apart; baselines are grey and dashed, chance is dotted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sorep.screening.curves import Curves
from sorep.screening.plan import BASELINES
from sorep.screening.protocol import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABELS = {
    "roc_auc": "ROC AUC",
    "balanced_accuracy": "adjusted balanced accuracy",
    "speed_up": "speed-up",
    "fraction_found": "candidates found",
}
"""Names of metrics on axes."""

_COLORS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
    *("#000000", "#882255", "#332288", "#999933"),
)
_BASELINE_COLORS = ("#555555", "#909090")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_GREY = "#b5b5b5"
_MOST_NAMES = 12
_BINS = 10


@dataclass(frozen=True)
class Look:
    """Colour, line and marker of an arm."""

    color: str
    linestyle: str
    marker: str

    def options(self) -> dict[str, Any]:
        return {"color": self.color, "linestyle": self.linestyle, "marker": self.marker, "markersize": 4}


def looks(curves: Curves) -> dict[str, Look]:
    """How each arm is drawn."""
    chosen = {}
    markers, colors, greys = cycle(_MARKERS), cycle(_COLORS), cycle(_BASELINE_COLORS)
    for arm, features in curves.arms.items():
        if not features:
            chosen[arm] = Look(_GREY, ":", "")
        elif features.partition("@")[0] in BASELINES:
            chosen[arm] = Look(next(greys), "--", next(markers))
        else:
            chosen[arm] = Look(next(colors), "-", next(markers))
    return chosen


def curves_figure(curves: Curves, metrics: Sequence[str], within: str = "") -> Figure:
    """Metrics over the number of training rows, with bands of one standard deviation."""
    figure, axes = _panels(len(metrics), height=4.6)
    summary = curves.summary()
    for axis, metric in zip(axes, metrics, strict=True):
        for arm, look in looks(curves).items():
            if arm != "constant":
                _draw_curve(axis, summary[summary["arm"] == arm], metric, arm, look, _alpha(curves))
        name = LABELS.get(metric.removesuffix("_within"), metric)
        axis.set_title(f"{name} where {within}" if metric.endswith("_within") else name, fontsize=10)
        _training_axis(axis)
    _legend(figure, axes[0])
    return figure


def gain_figure(curves: Curves) -> Figure:
    """Figure 9: speed-up and fraction found over training rows; and the fraction found over calculations spent."""
    figure, axes = _panels(3)
    summary, n = curves.summary(), len(curves.rows)
    for arm, look in looks(curves).items():
        if arm == "constant":
            continue
        lines = summary[summary["arm"] == arm]
        for axis, metric in zip(axes, ("speed_up", "fraction_found"), strict=False):
            _draw_curve(axis, lines, metric, arm, look, _alpha(curves))
        spent = lines["n_calculations_mean"] / n
        axes[2].plot(spent, lines["fraction_found_mean"], label=arm, **look.options())
    for axis, title in zip(axes, ("speed-up (eq. 17)", "candidates found", "candidates found, by effort"), strict=True):
        axis.set_title(title, fontsize=10)
    axes[0].axhline(1.0, color=_GREY, linewidth=0.8)
    axes[1].set_ylim(-0.02, 1.02)
    for axis in axes[:2]:
        _training_axis(axis)
    axes[2].plot([0, 1], [0, 1], color="0.45", linewidth=0.8)
    axes[2].annotate("no model", (0.5, 0.5), (0, -4), textcoords="offset points", color="0.45", fontsize=8, va="top")
    axes[2].set(xlim=(0, 1), ylim=(-0.02, 1.02), xlabel="share of all structures that are calculated")
    _legend(figure, axes[0])
    return figure


def importance_figure(curves: Curves, arm: str, n_rows: int) -> Figure | None:
    """Figure 8: importance against energy, a column for each window; None where the model gives no importance."""
    from matplotlib.figure import Figure

    trials = curves.of(arm, n_rows)
    found = {
        "mean decrease in impurity (%)": (100 * _stack(trials["importance"]), False),
        "loss of AUC when permuted": (_stack(trials["permutation"]), True),
    }
    found = {label: both for label, both in found.items() if len(both[0])}
    if not found:
        return None
    panels, color = curves.panels[curves.arms[arm]], looks(curves)[arm].color
    widths = [1.0 if panel.energies else 0.8 for panel in panels]
    figure = Figure(figsize=(1.2 + 3.6 * sum(widths), 0.5 + 2.7 * len(found)), layout="constrained")
    axes = figure.subplots(len(found), len(panels), squeeze=False, width_ratios=widths)
    for line, (label, (values, by_block)) in zip(axes, found.items(), strict=True):
        first_block = 0
        with_energies = [axis for axis, panel in zip(line, panels, strict=True) if panel.energies]
        for axis, panel in zip(line, panels, strict=True):
            blocks = panel.blocks if by_block else [(i, i + 1) for i in range(panel.start, panel.stop)]
            part = values[:, first_block : first_block + len(blocks)]
            first_block += len(blocks)
            if panel.energies:
                _draw_energies(axis, panel, blocks, part, color)
            else:
                _draw_names(axis, panel, blocks, part, color)
                axis.set_xlabel(label, fontsize=9)
            axis.spines[["top", "right"]].set_visible(False)
        _share_height(with_energies, label)
    for axis, panel in zip(axes[0], panels, strict=True):
        axis.set_title(panel.title, fontsize=10)
    return figure


def confusion_figure(curves: Curves, n_rows: int) -> Figure:
    """Mean confusion matrix of every arm: rates as colours, numbers of structures in words."""
    from matplotlib.figure import Figure

    arms = [arm for arm in curves.arms if len(curves.of(arm, n_rows))]
    columns = min(4, len(arms))
    rows = -(-len(arms) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.5 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(arms) :]:
        axis.set_visible(False)
    for axis, arm in zip(axes.flat, arms, strict=False):
        trials = curves.of(arm, n_rows)
        mean, sd = (np.array([[f("tn"), f("fp")], [f("fn"), f("tp")]]) for f in (_mean(trials), _sd(trials)))
        rates = mean / mean.sum(axis=1, keepdims=True)
        axis.imshow(rates, cmap="Blues", vmin=0, vmax=1)
        for (row, column), rate in np.ndenumerate(rates):
            text = f"{mean[row, column]:.0f} ± {sd[row, column]:.0f}\n{rate:.0%}"
            axis.text(column, row, text, ha="center", va="center", fontsize=9, color="w" if rate > 0.55 else "k")
        axis.set_xticks([0, 1], ["not", "candidate"], fontsize=8)
        axis.set_yticks([0, 1], ["not", "candidate"], fontsize=8, rotation=90, va="center")
        axis.set_title(arm, fontsize=9)
        axis.tick_params(length=0)
    for axis in axes[:, 0]:
        axis.set_ylabel("is", fontsize=9)
    for axis in axes.flat[max(len(arms) - columns, 0) : len(arms)]:
        axis.set_xlabel("predicted", fontsize=9)
    return figure


def reliability_figure(curves: Curves, probabilities: dict[str, dict[str, NDArray[np.float64]]]) -> Figure:
    """Share of candidates among structures of similar predicted probability, before and after calibration.

    ``probabilities`` holds, by stage and arm, those of the hold-out: (n_splits, n_held_out).
    """
    from sklearn.calibration import calibration_curve

    figure, axes = _panels(len(probabilities), height=4.4)
    labels = curves.held_out_labels
    for axis, (stage, by_arm) in zip(axes, probabilities.items(), strict=True):
        axis.plot([0, 1], [0, 1], color=_GREY, linewidth=0.8)
        for arm, p in by_arm.items():
            truth = np.tile(labels, len(p))
            share, mean = calibration_curve(truth, p.ravel(), n_bins=_BINS, strategy="quantile")
            axis.plot(mean, share, label=arm, **looks(curves)[arm].options())
        axis.set_title(stage, fontsize=10)
        axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="predicted probability", ylabel="share of candidates")
        axis.set_aspect("equal")
    _legend(figure, axes[0])
    return figure


def _panels(n: int, height: float = 3.7) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.75 * n, height), layout="constrained")
    axes = list(figure.subplots(1, n, squeeze=False)[0])
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _legend(figure: Figure, axis: Axes) -> None:
    handles, names = axis.get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside lower center", ncols=min(len(names), 5), fontsize=8, frameon=False, handlelength=3
    )


def _draw_curve(axis: Axes, lines: Any, metric: str, arm: str, look: Look, alpha: float) -> None:
    x, mean = lines["n_train_mean"].to_numpy(), lines[f"{metric}_mean"].to_numpy()
    sd = lines[f"{metric}_sd"].fillna(0.0).to_numpy()
    axis.plot(x, mean, label=arm, linewidth=1.4, **look.options())
    axis.fill_between(x, mean - sd, mean + sd, color=look.color, alpha=alpha, linewidth=0)


def _alpha(curves: Curves) -> float:
    return 0.8 / max(len(curves.arms), 6)  # many bands lie over each other


def _training_axis(axis: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_xscale("log")
    axis.set_xlabel("structures trained on")
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.grid(axis="y", color="0.92", linewidth=0.8)
    axis.set_axisbelow(True)


def _draw_energies(
    axis: Axes, panel: Panel, blocks: list[tuple[int, int]], values: NDArray[np.float64], color: str
) -> None:
    from matplotlib.ticker import MaxNLocator

    energies = np.array(panel.energies)
    mean, sd = values.mean(axis=0), _deviation(values)
    if len(blocks) == len(energies):
        axis.plot(energies, mean, color=color, linewidth=1.2)
        axis.fill_between(energies, np.maximum(mean - sd, 0.0), mean + sd, color=color, alpha=0.2, linewidth=0)
    else:
        edges = np.interp([start - panel.start for start, _ in blocks], np.arange(len(energies)), energies)
        edges = np.append(edges, energies[-1])
        axis.stairs(mean, edges, color=color, linewidth=1.2)
        axis.stairs(mean + sd, edges, baseline=mean - sd, color=color, alpha=0.2, fill=True)
    axis.axhline(0.0, color="0.6", linewidth=0.6)
    axis.axvline(0.0, color="0.6", linewidth=0.8, linestyle="--")
    axis.set_xlim(energies[0], energies[-1])
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.set_xlabel(panel.axis, fontsize=9)


def _draw_names(
    axis: Axes, panel: Panel, blocks: list[tuple[int, int]], values: NDArray[np.float64], color: str
) -> None:
    mean, sd = values.mean(axis=0), _deviation(values)
    chosen = np.argsort(mean)[-_MOST_NAMES:]
    names = [panel.names[blocks[i][0] - panel.start].removeprefix(f"{panel.title}:") for i in chosen]
    names = [f"{name} ..." if blocks[i][1] - blocks[i][0] > 1 else name for i, name in zip(chosen, names, strict=True)]
    axis.barh(np.arange(len(chosen)), mean[chosen], xerr=sd[chosen], color=color, alpha=0.75, ecolor="0.4")
    axis.set_yticks(np.arange(len(chosen)), [name.replace("$", r"\$") for name in names], fontsize=7)


def _share_height(axes: list[Axes], label: str) -> None:
    if not axes:
        return
    low, high = (pick(axis.get_ylim()[end] for axis in axes) for pick, end in ((min, 0), (max, 1)))
    for axis in axes:
        axis.set_ylim(low, high)
    for axis in axes[1:]:
        axis.tick_params(labelleft=False)
    axes[0].set_ylabel(label, fontsize=9)


def _stack(lists: Any) -> NDArray[np.float64]:
    return np.array([values for values in lists if values is not None], dtype=float)


def _deviation(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1])


def _mean(trials: Any) -> Any:
    return lambda name: trials[name].mean()


def _sd(trials: Any) -> Any:
    return lambda name: trials[name].fillna(0.0).std(ddof=1 if len(trials) > 1 else 0)

"""Tables and pictures of `sorep.mat2spec.studies` on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sorep.errors import Mat2SpecError
from sorep.mat2spec.studies import summary

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

NAMES = {
    "mae": "MAE, size predicted",
    "mae_oracle": "MAE, true sum",
    "r2_oracle": "R2, true sum",
    "wd": "WD",
    "cv": "MAE of C_V (J / K mol)",
    "omega": "MAE of mean frequency (1/cm)",
}
"""Of metrics on axes."""


def arms_figure(table: pd.DataFrame, metrics: Sequence[str] = ("mae_oracle", "wd"), unit: str = "") -> Figure:
    """Every run as a point and the mean of each arm as a bar."""
    from matplotlib.figure import Figure

    arms = list(dict.fromkeys(table["arm"]))
    figure = Figure(figsize=(4.2 * len(metrics), 1.0 + 0.35 * len(arms)), layout="constrained")
    axes = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axis, metric in zip(axes, metrics, strict=True):
        for row, arm in enumerate(arms):
            values = table.loc[table["arm"] == arm, metric].to_numpy()
            axis.barh(row, values.mean(), color="C0", alpha=0.3, height=0.7)
            axis.scatter(values, np.full(len(values), row), s=14, color="C0", zorder=2)
        axis.set_yticks(range(len(arms)), arms, fontsize=8)
        axis.set_xlabel(_label(metric, unit), fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].invert_yaxis()
    return figure


def curves_figure(table: pd.DataFrame, metrics: Sequence[str] = ("mae_oracle", "wd"), unit: str = "") -> Figure:
    """Metrics over the number of training crystals: means, and bands of one standard deviation over seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(metrics), 3.4), layout="constrained")
    axes = figure.subplots(1, len(metrics), squeeze=False)[0]
    means = summary(table)
    for axis, metric in zip(axes, metrics, strict=True):
        for number, (arm, part) in enumerate(means.groupby("arm", sort=False)):
            part = part.sort_values("n_train")
            x, y = part["n_train"].to_numpy(), part[metric].to_numpy()
            spread = np.nan_to_num(part[f"{metric}_sd"].to_numpy())
            axis.plot(x, y, marker="o", markersize=4, color=f"C{number % 10}", label=str(arm))
            axis.fill_between(x, y - spread, y + spread, color=f"C{number % 10}", alpha=0.2, linewidth=0)
        axis.set_xscale("log")
        axis.set_xlabel("training crystals", fontsize=9)
        axis.set_ylabel(_label(metric, unit), fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(fontsize=8, frameon=False)
    return figure


def write_study(folder: Path, tables: Mapping[str, pd.DataFrame], figures: Mapping[str, Figure]) -> list[Path]:
    """Write tables as CSV and figures as PNG files, by their names.

    Raises
    ------
    Mat2SpecError
        ``unwritable-file``.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            written.append(folder / f"{name}.csv")
            table.to_csv(written[-1], index=False)
        for name, figure in figures.items():
            written.append(folder / f"{name}.png")
            figure.savefig(written[-1], dpi=150)
    except OSError as error:
        raise Mat2SpecError(
            f"cannot write to {folder}: {error}", code="unwritable-file", remedy="check folder, permissions and space"
        ) from None
    return written


def _label(metric: str, unit: str) -> str:
    return NAMES[metric] + (f" ({unit})" if metric == "wd" and unit else "")

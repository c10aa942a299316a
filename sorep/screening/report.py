"""One HTML file that shows what screening models are worth: learning curves, the paper's Table 1, Figures 8 and 9."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sorep.errors import ScreeningError
from sorep.html_report import Cell, embedded, png, rendered, report_files, write_files
from sorep.screening.calibration import fit_calibrator
from sorep.screening.curves import Curves
from sorep.screening.figures import (
    confusion_figure,
    curves_figure,
    gain_figure,
    importance_figure,
    reliability_figure,
)
from sorep.screening.plan import BASELINES
from sorep.screening.trial import THRESHOLD

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEFAULT_TABLE, DEFAULT_IMPORTANCE = 0.01, 0.5
"""Fractions trained on in the paper's Table 1 and Figure 8."""

_RATED = ("tn", "tp", "fn", "fp")
_RANKING = {
    "roc_auc": "ROC AUC",
    "roc_auc_within": "ROC AUC in the subset",
    "average_precision": "average precision",
    "precision": "precision",
    "brier": "Brier score",
    "speed_up": "speed-up",
    "fraction_found": "candidates found",
    "n_calculations": "calculations",
}
_SMALLER_IS_BETTER = {"fn", "fp", "brier", "n_calculations"}


@dataclass(frozen=True)
class Section:
    """A heading, a text, pictures by name, and a table."""

    title: str
    text: str
    figures: dict[str, Figure]
    header: tuple[str, ...] = ()
    rows: tuple[tuple[Cell, ...], ...] = ()


def write_report(curves: Curves, out: str | Path, *, table: float = DEFAULT_TABLE) -> list[Path]:
    """Write the report, and its pictures as PNG files beside it.

    Parameters
    ----------
    curves : Curves
    out : str or Path
        The HTML file. Pictures get its name and an ending, as in ``out-curves.png``.
    table : float
        Fraction of the rows that tables, confusion matrices and calibration are for; the nearest size is taken.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    ScreeningError
        ``unwritable-file``; ``nothing-computed`` where no split could be computed.
    """
    statuses = sorted(set(curves.results["status"]))
    if "" not in statuses:
        raise ScreeningError(
            f"no split could be computed ({', '.join(statuses)})",
            code="nothing-computed",
            remedy="train on more rows, or label more structures",
        )
    out = Path(out)
    sections = list(_sections(curves, curves.nearest_size(table)))
    pictures = {name: png(figure) for section in sections for name, figure in section.figures.items()}
    shown = [
        vars(section) | {"pictures": [{"title": n, "data": embedded(pictures[n])} for n in section.figures]}
        for section in sections
    ]
    title = f"learning curves of {len(set(curves.arms.values()) - {''})} feature sets"
    text = rendered("sorep.screening", title=title, facts=_facts(curves), sections=shown, threshold=THRESHOLD)
    contents = report_files(out, text, pictures)
    write_files(contents, ScreeningError)
    return list(contents)


def _facts(curves: Curves) -> list[tuple[str, str]]:
    not_computed = curves.results.query("status != ''").groupby("status").size()
    lines = {f"not computed: {code}": f"{n} fits" for code, n in not_computed.items()}
    versions = ", ".join(f"{name} {version}" for name, version in curves.identity.words["versions"].items())
    return [*curves.facts.items(), *lines.items(), ("versions", versions), ("identity", curves.identity.hash)]


def _sections(curves: Curves, n_rows: int) -> Iterator[Section]:
    yield _learning_curves(curves)
    yield _table_1(curves, n_rows)
    yield _ranking(curves, n_rows)
    yield from _differences(curves, n_rows)
    yield _gain(curves)
    yield from _importance(curves)
    yield _confusion(curves, n_rows)
    yield from _reliability(curves, n_rows)


def _learning_curves(curves: Curves) -> Section:
    metrics = ["roc_auc", "balanced_accuracy"]
    if _is_defined(curves, "roc_auc_within"):
        metrics.append("roc_auc_within")
    labels = curves.held_out_labels
    best = float(np.nanmax(curves.summary()["roc_auc_mean"].to_numpy()))
    error = auc_error(best, int(labels.sum()), int((~labels).sum()))
    text = (
        f"On a hold-out of {len(labels)} structures, {labels.sum()} of them candidates, that no model was trained on. "
        f"Lines are means over {curves.protocol.splits} splits, bands one standard deviation; within a split all "
        "feature sets are trained on the same rows. The hold-out itself is a sample: an AUC of "
        f"{best:.2f} on so many structures is uncertain by {error:.2f} (one standard error, Hanley and McNeil 1982), "
        "the same way for all feature sets."
    )
    figure = curves_figure(curves, metrics, curves.protocol.within or "")
    return Section("Learning curves", text, {"curves": figure})


def _table_1(curves: Curves, n_rows: int) -> Section:
    columns = (*_RATED, "balanced_accuracy")
    header = ("", "TN\n(rate)", "TP\n(rate)", "FN\n(rate)", "FP\n(rate)", "adjusted balanced accuracy")
    rows = _rows(curves, n_rows, columns)
    return Section(f"Table 1: hold-out after training on {_size(curves, n_rows)}", _TABLE_TEXT, {}, header, rows)


def _ranking(curves: Curves, n_rows: int) -> Section:
    columns = [name for name in _RANKING if _is_defined(curves, name)]
    rows = _rows(curves, n_rows, columns)
    text = (
        "The same models: how they rank the hold-out, and what they find among all structures that they were not "
        f"trained on ({len(curves.rows)} structures in all)."
    )
    return Section(
        f"Ranking and gain at {_size(curves, n_rows)}", text, {}, ("", *(_RANKING[name] for name in columns)), rows
    )


def _differences(curves: Curves, n_rows: int) -> Iterator[Section]:
    trained = [arm for arm, features in curves.arms.items() if features]
    reference = next((arm for arm in trained if curves.arms[arm].partition("@")[0] in BASELINES), trained[0])
    found = curves.paired(reference, n_rows, "roc_auc")
    lines = [line for line in found.to_dict("records") if line["arm"] in trained]
    if lines:
        text = (
            f"ROC AUC less that of {reference} in the same split, with the same training rows. Splits overlap, so the "
            "deviation is one of training sets, not of hold-outs."
        )
        rows = tuple(
            (
                Cell(line["arm"]),
                Cell(f"{line['mean']:+.3f} ± {line['sd']:.3f}"),
                Cell(f"{line['better']:.0%} of {line['n']}"),
            )
            for line in lines
        )
        header = ("", f"difference to {reference}", "splits in which it is better")
        yield Section(f"Differences in pairs at {_size(curves, n_rows)}", text, {}, header, rows)


def _gain(curves: Curves) -> Section:
    text = (
        "Training structures are calculated, and so are all others that the model takes for candidates. Left: "
        "candidates found per calculation, relative to calculating everything. Right: each point is a size of the "
        "training set; the higher above the line, the better."
    )
    return Section("What screening gains (Figure 9)", text, {"gain": gain_figure(curves)})


def _importance(curves: Curves) -> Iterator[Section]:
    at = curves.protocol.permutation or DEFAULT_IMPORTANCE
    n_rows = curves.nearest_size(at / len(curves.rows) if at >= 1 else at)
    figures = {}
    for number, arm in enumerate(arm for arm, features in curves.arms.items() if features):
        figure = importance_figure(curves, arm, n_rows)
        if figure is not None:
            figures[f"importance-{number}"] = figure
    if figures:
        text = (
            f"After training on {_size(curves, n_rows)}, mean and one standard deviation over the splits. Dashed: the "
            "energy that a window is anchored at."
        )
        yield Section("What the models look at (Figure 8)", text, figures)


def _confusion(curves: Curves, n_rows: int) -> Section:
    text = f"Hold-out after training on {_size(curves, n_rows)}: mean number of structures, and share of the row."
    return Section("Confusion matrices", text, {"confusion": confusion_figure(curves, n_rows)})


def _reliability(curves: Curves, n_rows: int) -> Iterator[Section]:
    before = {
        arm: np.array(curves.of(arm, n_rows)["probabilities"].tolist(), dtype=float)
        for arm, features in curves.arms.items()
        if features and len(curves.of(arm, n_rows))
    }
    after = {arm: calibrated for arm, p in before.items() if (calibrated := _calibrated(curves, p)) is not None}
    labels = curves.held_out_labels
    rows = tuple(
        (Cell(arm), *(Cell(f"{((p[arm] - labels) ** 2).mean():.3f}" if arm in p else "") for p in (before, after)))
        for arm in before
    )
    base = labels.mean()
    text = (
        f"Hold-out after training on {_size(curves, n_rows)}, in bins of equally many structures. A logistic curve is "
        "fitted to one half of the hold-out's formulas and applied to the other half, and the reverse. The Brier score "
        f"of always predicting the share of candidates is {base * (1 - base):.3f}."
    )
    stages = {"as the models say": before} | ({"after calibration": after} if after else {})
    header = ("", "Brier score", "after calibration")
    yield Section("Calibration", text, {"calibration": reliability_figure(curves, stages)}, header, rows)


def _calibrated(curves: Curves, probabilities: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Cross-fitted over two halves of the hold-out's formulas; None where a half lacks a class."""
    from sklearn.model_selection import GroupKFold

    labels = curves.held_out_labels
    groups = curves.rows.loc[curves.rows["held_out"], "formula"].to_numpy()
    if len(np.unique(groups)) < 2:
        return None
    calibrated = np.empty_like(probabilities)
    for fit, apply in GroupKFold(2, shuffle=True, random_state=0).split(labels, groups=groups):
        for split, p in enumerate(probabilities):
            try:
                calibrator = fit_calibrator(labels[fit], p[fit])
            except ScreeningError:
                return None
            calibrated[split, apply] = calibrator.predict_proba(p[apply, np.newaxis])[:, 1]
    return calibrated


def auc_error(auc: float, n_positive: int, n_negative: int) -> float:
    """Standard error of a ROC AUC on so many rows (Hanley and McNeil, Radiology 143, 29 (1982), eq. 1)."""
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (n_positive - 1) * (q1 - auc**2) + (n_negative - 1) * (q2 - auc**2)
    return float(np.sqrt(max(variance, 0.0) / (n_positive * n_negative)))


def _rows(curves: Curves, n_rows: int, columns: Any) -> tuple[tuple[Cell, ...], ...]:
    summary = curves.summary().query("n_rows == @n_rows").set_index("arm")
    trained = [arm for arm in summary.index if curves.arms[arm]]
    best = {}
    for name in columns:
        of_trained = summary.loc[trained, f"{name}_mean"]
        best[name] = of_trained.min() if name in _SMALLER_IS_BETTER else of_trained.max()
    return tuple(
        (
            Cell(str(arm)),
            *(Cell(_text(line, name), arm in trained and line[f"{name}_mean"] == best[name]) for name in columns),
        )
        for arm, line in summary.iterrows()
    )


def _text(line: Any, name: str) -> str:
    def pair(key: str, digits: int) -> str:
        mean, sd = line[f"{key}_mean"], line[f"{key}_sd"]
        if np.isnan(mean):
            return "not defined"
        return f"{mean:.{digits}f}" + (f" ± {sd:.{digits}f}" if np.isfinite(sd) else "")

    if name in _RATED:
        return f"{pair(name, 0)}\n({pair(f'{name}_rate', 3)})"
    return pair(name, {"n_calculations": 0, "speed_up": 2}.get(name, 3))


def _is_defined(curves: Curves, metric: str) -> bool:
    return bool(np.isfinite(curves.results[metric].to_numpy()).any())


def _size(curves: Curves, n_rows: int) -> str:
    return f"{n_rows} rows ({n_rows / len(curves.rows):.2g} of all)"


_TABLE_TEXT = (
    "Mean and standard deviation over the splits; the best of a column is bold. Chance answers at random in the "
    "proportion of the training labels, constant gives all structures the same answer."
)

"""One HTML file on a trained model: how training went, what its predictions are worth, and examples good and bad."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sorep.html_report import Cell, embedded, png, rendered, report_files
from sorep.mat2spec.checkpoint import Checkpoint, write_whole
from sorep.mat2spec.evaluate import HONEST, ORACLE, SCALED, Evaluation, Score
from sorep.mat2spec.fit import Epoch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRICS = ("MAE", "MSE", "R2", "WD")
SIZES = (SCALED, HONEST, ORACLE)

_EXAMPLES = 3  # of each quintile
_IN_WORDS = {
    "sumnorm": "spectra divided by their sums",
    "maxnorm": "spectra divided by their maxima",
    "standard": "each bin less its mean over the training part, divided by its deviation there",
}


@dataclass(frozen=True)
class Section:
    """A heading, a text, warnings, and a picture or a table."""

    title: str
    text: str
    figure: Figure | None = None
    name: str = ""  # of the picture's file
    header: tuple[str, ...] = ()
    rows: tuple[tuple[Cell, ...], ...] = ()
    warnings: tuple[str, ...] = ()


def write_report(
    checkpoint: Checkpoint, log: Sequence[Epoch], evaluation: Evaluation, out: str | Path, *, part: str = "test"
) -> list[Path]:
    """Write the report, and its pictures as PNG files beside it.

    Parameters
    ----------
    checkpoint : Checkpoint
    log : sequence of Epoch
        From `sorep.mat2spec.training.read_log`.
    evaluation : Evaluation
    out : str or Path
        The HTML file. Pictures get its name and an ending, as in ``report-losses.png``.
    part : str
        What was evaluated.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    Mat2SpecError
        ``unwritable-file``.
    """
    out = Path(out)
    sections = list(_sections(checkpoint, log, evaluation, part))
    pictures = {section.name: png(section.figure, dpi=110) for section in sections if section.figure is not None}
    shown = [{**vars(s), "picture": embedded(pictures.get(s.name, b""))} for s in sections]
    text = rendered(
        "sorep.mat2spec",
        title=checkpoint.about.target,
        facts=_facts(checkpoint, evaluation, part),
        sections=shown,
        scaled=_IN_WORDS[checkpoint.scaling.kind],
    )
    contents = report_files(out, text, pictures)
    for path, content in contents.items():
        write_whole(path, content)
    return list(contents)


def score_rows(scores: Sequence[Score], size: str) -> tuple[tuple[str, ...], tuple[tuple[Cell, ...], ...]]:
    """Header and rows of a table: a predictor each, metrics with their units, the best of a column marked."""
    chosen = [score for score in scores if score.size == size]
    columns = [name for name in METRICS if chosen and name in chosen[0].metrics]
    best = {
        name: (max if name == "R2" else min)(
            (s.metrics[name][0] for s in chosen if math.isfinite(s.metrics[name][0])), default=math.nan
        )
        for name in columns
    }
    rows = tuple(
        (
            Cell(score.predictor),
            *(Cell(f"{score.metrics[name][0]:.4g}", score.metrics[name][0] == best[name]) for name in columns),
        )
        for score in chosen
    )
    units = [chosen[0].metrics[name][1] for name in columns]
    header = ("", *(name if unit == "1" else f"{name} ({unit})" for name, unit in zip(columns, units, strict=True)))
    return header, rows


def _facts(checkpoint: Checkpoint, evaluation: Evaluation, part: str) -> list[tuple[str, str]]:
    about, split = checkpoint.about, checkpoint.split
    inputs = {"graph": "crystal graphs", "sorep": "SOREPs", "both": "crystal graphs and SOREPs"}[about.model.encoder]
    features = ", ".join(f"{name} ({identity.hash})" for name, identity in checkpoint.features.items())
    facts = [
        ("network", f"{about.network}, reads {inputs}"),
        ("features", features),
        ("target", f"{len(about.energies)} bins from {about.energies[0]:g} to {about.energies[-1]:g} {about.unit}"),
        ("training", f"loss {about.model.loss}, scaling {about.model.scaling}, seed {about.training.seed}"),
        ("crystals", f"{len(split.train)} training, {len(split.val)} validation, {len(split.test)} test"),
        ("evaluated", f"{len(evaluation.data)} of the part {part}"),
        ("weights", checkpoint.weights),
        ("versions", ", ".join(f"{name} {number}" for name, number in about.versions.items())),
    ]
    return [fact for fact in facts if fact[1]]


def _sections(checkpoint: Checkpoint, log: Sequence[Epoch], evaluation: Evaluation, part: str) -> Iterator[Section]:
    yield _losses(checkpoint, log)
    n_shared = int(evaluation.is_shared.sum())
    shared = (
        f"{n_shared} of {len(evaluation.is_shared)} crystals share their reduced formula with a training crystal: to "
        "the model they are not unseen, and these numbers flatter it."
    )
    titles = {SCALED: "Scaled spectra", HONEST: "Honest sizes", ORACLE: "Oracle sizes"}
    for size in SIZES:
        if any(score.size == size for score in evaluation.scores):
            header, rows = score_rows(evaluation.scores, size)
            text = f"Of {len(evaluation.data)} crystals of the part {part}; the definitions are below."
            yield Section(
                f"Metrics: {titles[size]}", text, header=header, rows=rows, warnings=(shared,) if n_shared else ()
            )
    yield _examples(evaluation)
    yield from _latent(checkpoint)


def _losses(checkpoint: Checkpoint, log: Sequence[Epoch]) -> Section:
    from matplotlib.figure import Figure

    epochs = [line.epoch for line in log]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(epochs, [line.train["feature"] for line in log], label="training, with dropout")
    left.plot(epochs, [line.val for line in log], label="validation")
    best = [line for line in log if line.is_best]
    if best:
        left.plot(best[-1].epoch, best[-1].val, "o", color="C1", label=f"best, epoch {best[-1].epoch}")
    left.set_ylabel(f"{checkpoint.about.model.loss} loss of predicted spectra")
    for name in log[0].train if log else ():
        if name not in ("feature", "total"):
            right.plot(epochs, [line.train[name] for line in log], label=name)
    right.set_ylabel("other terms, training")
    for axis in (left, right):
        axis.set_xlabel("epoch")
        axis.spines[["top", "right"]].set_visible(False)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8, frameon=False)
    result = checkpoint.about.result
    text = (
        "Training is not finished."
        if result is None
        else (
            f"{result.epochs} epochs; the weights are those of epoch {result.best_epoch}, whose validation loss "
            f"was the lowest, {result.loss:.4g}."
        )
    )
    return Section("Losses", text, figure, "losses")


def _examples(evaluation: Evaluation) -> Section:
    from matplotlib.figure import Figure

    data, prediction = evaluation.data, evaluation.prediction
    quintiles = evaluation.quintiles(_EXAMPLES)
    n_rows = max(len(rows) for rows in quintiles)
    figure = Figure(figsize=(12, 2.1 * n_rows + 0.4), layout="constrained")
    axes = figure.subplots(n_rows, 5, sharex=True, squeeze=False)
    for column, rows in enumerate(quintiles):
        for line in range(n_rows):
            axis = axes[line, column]
            if line >= len(rows):
                axis.set_axis_off()
                continue
            row = rows[line]
            axis.fill_between(data.energies, data.spectra[row], color="0.8", linewidth=0, label="true")
            axis.plot(data.energies, prediction.spectra[row], color="C3", linewidth=1.2, label="predicted")
            name = str(data.ids[row]).replace("$", r"\$")
            axis.set_title(f"{data.formulas[row]} ({name})\nWD {evaluation.wd[row]:.3g} {data.unit}", fontsize=7)
            axis.tick_params(labelsize=7)
            axis.spines[["top", "right"]].set_visible(False)
        axes[0, column].set_title(f"Q{column + 1}\n{axes[0, column].get_title()}", fontsize=7)
        axes[-1, column].set_xlabel(f"{data.unit}", fontsize=8)
    axes[0, 0].legend(fontsize=7, frameon=False)
    text = (
        "From the best fifth of the crystals by WD (left) to the worst (right), each time those in its middle. Sizes "
        "are predicted, not the true ones."
    )
    return Section("Examples of each quintile", text, figure, "examples")


def _latent(checkpoint: Checkpoint) -> Iterator[Section]:
    result = checkpoint.about.result
    if result is None or not result.diagnostics:
        return
    rows = tuple(
        (Cell(name.replace("_", " ")), Cell("not defined" if value is None else f"{value:.4g}"))
        for name, value in result.diagnostics.items()
    )
    text = (
        "Of the validation part. The entropy tells how evenly components are mixed; the sensitivity how much "
        "predictions change when a crystal gets the latent vector of another one, relative to their spread; the KL "
        "bound how far the mixtures of crystals and of spectra are apart."
    )
    header = ("quantity", "value")
    yield Section("Latent space", text, header=header, rows=rows, warnings=result.warnings)

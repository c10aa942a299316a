"""`sorep screen next` and `sorep screen simulate`: what to calculate next, and how good such choices are."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sorep.cli.console import INTERRUPTED, terminate_as_interrupt
from sorep.cli.screen_common import (
    DEFAULT_FEATURES,
    DryRunOption,
    FeaturesOption,
    IdColumnOption,
    IgnoreUnknownOption,
    JobsOption,
    LabelColumnOption,
    LabelsOption,
    ModelOption,
    ParamOption,
    QuietOption,
    SeedOption,
    StoreArgument,
    counting,
    parse_params,
    print_table,
)

if TYPE_CHECKING:
    from sorep.screening.proposals import NextCalculations
    from sorep.screening.simulate import Comparison

StrategyOption = Annotated[str, typer.Option(help="yield, mixture, uncertainty, diversity or random.")]
CostOption = Annotated[
    str | None,
    typer.Option(
        help="What a calculation costs: equal, single-shot (its CPU time), or TABLE:COLUMN. "
        "Default: single-shot where the store has one of every structure, else equal."
    ),
]

_SHOWN = 20


def next_(
    store: StoreArgument,
    budget: Annotated[
        float, typer.Option(min=0, help="What may be spent, in calculations of average cost: 20 pays for 20 of these.")
    ],
    features: FeaturesOption = DEFAULT_FEATURES,
    labels: Annotated[
        Path | None, typer.Option(help="Table of labels so far: .csv or .parquet. None yet: leave it out.")
    ] = None,
    label_column: LabelColumnOption = "label",
    id_column: IdColumnOption = "id",
    strategy: StrategyOption = "yield",
    cost: CostOption = None,
    model: ModelOption = "default",
    param: ParamOption = None,
    ignore_unknown: IgnoreUnknownOption = False,
    seed: SeedOption = 0,
    out: Annotated[Path | None, typer.Option(help="Table to write: .csv or .parquet.")] = None,
) -> None:
    """Propose the next calculations: the structures whose labels are worth most.

    Calculate these, add their labels to the table, and ask again. Without labels of both kinds the proposal covers the
    space of features; with them it is what a model, trained on the labels so far, holds to be the most probable
    candidates for their cost. Column `reason` tells which rule chose a structure. Column `probability` is calibrated:
    its sum is the number of candidates to expect, as far as the labelled structures resemble the others.

    Examples:

    sorep screen next my-store --budget 20 --out first.csv

    sorep screen next my-store --labels labels.csv --budget 20 --out next.csv
    """
    from sorep.screening.costs import costs_of
    from sorep.screening.dataset import load_dataset
    from sorep.screening.models import build_model
    from sorep.screening.proposals import labelled_rows, next_calculations
    from sorep.store import FeatureStore
    from sorep.tables import check_suffix, read_labels, write_table

    if out is not None:
        check_suffix(out)
    build = partial(build_model, model, **parse_params(param))
    opened = FeatureStore(store)
    dataset = load_dataset(opened, features)
    given = None if labels is None else read_labels(labels, label_column, id_column, both=False)
    known, truth = labelled_rows(opened, dataset, given, ignore_unknown=ignore_unknown)
    costs, words = costs_of(opened, dataset.ids, cost, id_column)
    found = next_calculations(dataset, known, truth, costs, budget, build, strategy=strategy, seed=seed)
    _print_next(found, len(dataset), words, strategy)
    if out is not None:
        write_table(found.frame, out)
        typer.echo(out)


def simulate(
    store: StoreArgument,
    labels: LabelsOption,
    features: FeaturesOption = DEFAULT_FEATURES,
    label_column: LabelColumnOption = "label",
    id_column: IdColumnOption = "id",
    strategy: Annotated[
        list[str] | None, typer.Option(help="Strategy to replay; may be repeated. Default: all.")
    ] = None,
    train_size: Annotated[
        list[float] | None,
        typer.Option(help="Training set of the published procedure, a share of all; may be repeated."),
    ] = None,
    batch: Annotated[float, typer.Option(help="Spent before the model is fitted anew, a share of all cost.")] = 0.01,
    until: Annotated[float, typer.Option(help="Where to end, a share of all cost.")] = 0.5,
    seeds: Annotated[int, typer.Option(min=1, help="Replays of each.")] = 20,
    cost: CostOption = "equal",
    model: ModelOption = "default",
    param: ParamOption = None,
    ignore_unknown: IgnoreUnknownOption = False,
    seed: SeedOption = 0,
    figure: Annotated[Path | None, typer.Option(help="Picture to write: .png, .svg or .pdf.")] = None,
    table: Annotated[Path | None, typer.Option(help="Table to write: .csv or .parquet.")] = None,
    jobs: JobsOption = 0,
    dry_run: DryRunOption = False,
    quiet: QuietOption = False,
) -> None:
    """Replay a search for candidates on structures whose labels are all known.

    Shows how many of the candidates each strategy has found for what it spent, beside the procedure of the SOREP paper:
    a random training set, one model, and all that it predicts to be candidates, the most probable first.

    Example: sorep screen simulate my-store --labels labels.csv --figure search.png
    """
    import numpy as np

    from sorep.errors import UsageError
    from sorep.screening.costs import costs_of
    from sorep.screening.dataset import load_dataset
    from sorep.screening.simulate import Setting
    from sorep.screening.simulate import simulate as replay
    from sorep.store import FeatureStore
    from sorep.tables import check_suffix, read_labels, write_table

    if table is not None:
        check_suffix(table)
    if figure is not None and figure.suffix not in (".png", ".svg", ".pdf"):
        raise UsageError(f"cannot draw {figure}", code="unknown-format", remedy="give a .png, .svg or .pdf file")
    chosen = {"strategies": tuple(strategy or ()), "train_sizes": tuple(train_size or ())}
    setting = Setting(
        **{name: values for name, values in chosen.items() if values},
        batch=batch,
        until=until,
        model=model,
        params=parse_params(param),
    )
    opened = FeatureStore(store)
    known = read_labels(labels, label_column, id_column)
    dataset = load_dataset(opened, features, known, ignore_unknown=ignore_unknown)
    costs, words = costs_of(opened, dataset.ids, cost, id_column)
    typer.echo(
        f"{len(dataset)} structures, {dataset.n_positive} candidates ({dataset.n_positive / len(dataset):.1%}); {words}"
    )
    for reason, number in dataset.left_out.items():
        typer.echo(f"left out: {number} {reason}")
    if dry_run:
        typer.echo(f"{seeds * len(setting.procedures)} replays with up to {seeds * setting.n_fits} fits")
        return
    try:
        with terminate_as_interrupt(), counting("replays", quiet) as show:
            comparison = replay(
                dataset.values,
                np.asarray(dataset.labels),
                costs,
                setting,
                seeds=range(seed, seed + seeds),
                jobs=jobs or os.cpu_count() or 1,
                on_progress=show,
            )
    except KeyboardInterrupt:
        typer.echo("interrupted: nothing was written", err=True)
        raise typer.Exit(INTERRUPTED) from None
    _print_comparison(comparison)
    if table is not None:
        write_table(comparison.table(), table)
        typer.echo(table)
    if figure is not None:
        _save(comparison, figure)
        typer.echo(figure)


def _print_next(found: NextCalculations, n: int, words: str, strategy: str) -> None:
    from rich.table import Table

    frame = found.frame
    typer.echo(f"{found.n_known} of {n} structures are labelled, {found.n_candidates} of them are candidates; {words}")
    if found.n_known and set(frame["reason"]) == {"diversity"} and strategy != "diversity":
        typer.echo("a model needs labels of both kinds; until then structures are chosen to be different")
    shown = Table(*frame.columns)
    for line in frame.head(_SHOWN).itertuples(index=False):
        cells = ("" if value != value else f"{value:.3f}" if isinstance(value, float) else str(value) for value in line)
        shown.add_row(*cells)
    print_table(shown)
    summary = f"{len(frame)} structures for {frame['cost'].sum():.4g} average calculations"
    if found.expected is not None:
        summary += f"; {found.expected:.1f} candidates expected, {found.expected_at_random:.1f} in as many at random"
    typer.echo(summary)


def _print_comparison(comparison: Comparison) -> None:
    from rich.table import Table

    frame = comparison.table()
    points = [name.removeprefix("found at ") for name in frame if name.startswith("found at 0")]
    shown = Table("procedure", *(f"{float(p):.3g} spent" for p in points), "area", "ends at", title="Candidates found")
    for line in frame.to_dict("records"):
        found = [f"{line[f'found at {p}']:.1%} ± {line[f'sd at {p}']:.1%}" for p in points]
        spent = line["spent at end"]
        end = "" if spent != spent else f"{line['found at end']:.1%} for {spent:.1%}"
        shown.add_row(line["procedure"], *found, f"{line['area']:.3f} ± {line['sd of area']:.3f}", end)
    print_table(shown)


def _save(comparison: Comparison, path: Path) -> None:
    from sorep.errors import ScreeningError

    try:
        comparison.figure().savefig(path, dpi=150)
    except OSError as error:
        raise ScreeningError(
            f"cannot write {path}: {error}", code="unwritable-file", remedy="check folder, permissions and space"
        ) from None

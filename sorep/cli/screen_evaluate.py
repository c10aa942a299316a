"""`sorep screen evaluate`: learning curves of feature sets, and their report."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sorep.cli.console import INTERRUPTED, NOTHING_DONE, SOME_FAILED, duration, terminate_as_interrupt
from sorep.cli.screen_common import (
    DEFAULT_FEATURES,
    DryRunOption,
    IdColumnOption,
    IgnoreUnknownOption,
    JobsOption,
    LabelColumnOption,
    LabelsOption,
    ParamOption,
    QuietOption,
    SeedOption,
    StoreArgument,
    counting,
    parse_params,
    print_table,
)

if TYPE_CHECKING:
    import pandas as pd

    from sorep.screening.curves import Curves
    from sorep.screening.evaluate import Outlook, Progress
    from sorep.screening.plan import Plan
    from sorep.screening.protocol import Protocol

_SHOWN = 7


def evaluate(
    store: StoreArgument,
    labels: LabelsOption,
    label_column: LabelColumnOption,
    features: Annotated[
        list[str] | None,
        typer.Option(
            help="Feature set, NAME[+NAME...]; may be repeated. Default: band-edges. Composition and SOAP are added "
            "if there."
        ),
    ] = None,
    id_column: IdColumnOption = "id",
    sizes: Annotated[
        str | None,
        typer.Option(help="Training rows, as fractions of all (below 1) or numbers. [0.01,0.02,0.05,0.1,0.2,0.5,0.8]"),
    ] = None,
    splits: Annotated[int | None, typer.Option(min=1, help="Independent draws of each size. [10]")] = None,
    split: Annotated[
        str | None,
        typer.Option(help="grouped keeps structures of one reduced formula together; random flatters. [grouped]"),
    ] = None,
    holdout: Annotated[float, typer.Option(help="Fraction that is held out before anything else.")] = 0.1,
    model: Annotated[
        list[str] | None,
        typer.Option(help="default, published, or package.module:Class; may be repeated. [default]"),
    ] = None,
    param: ParamOption = None,
    within: Annotated[
        str | None, typer.Option(help="Score a subset too, by a column of the labels' table: 'gap_pbe_eV > 0'.")
    ] = None,
    permutation: Annotated[
        float | None, typer.Option(help="Of the sizes, the one to compute permutation importance at; that takes long.")
    ] = None,
    paper: Annotated[
        bool,
        typer.Option("--paper", help="The SOREP paper's features, splits and model; 28 sizes, 30 random splits each."),
    ] = False,
    table: Annotated[float, typer.Option(help="Fraction that the report's tables are for; the nearest size.")] = 0.01,
    ignore_unknown: IgnoreUnknownOption = False,
    seed: SeedOption = 0,
    out: Annotated[Path, typer.Option(help="Folder for results and report.")] = Path("screening-curves"),
    jobs: JobsOption = 0,
    dry_run: DryRunOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure how well feature sets screen, for every size of the training set.

    A hold-out is set aside first; all feature sets are trained on the same rows. By default structures of one reduced
    formula are never on two sides. Finished fits stay in the folder: the same command goes on after an interruption,
    and makes the report again when all is done. Baselines (chance, composition, SOAP) are always beside.

    Examples:

    sorep screen evaluate my-store --labels labels.csv --label-column candidate --features vbm-fermi-cbm

    sorep screen evaluate my-store --labels labels.csv --label-column candidate --paper --out paper --dry-run

    In Python: sorep.screening.curves.load_curves('screening-curves').summary()
    """
    from sorep.engine import LocalEngine
    from sorep.screening.evaluate import estimate
    from sorep.screening.evaluate import evaluate as compute

    protocol, names = _protocol(
        features,
        sizes,
        splits,
        split,
        model,
        param,
        paper,
        holdout=holdout,
        within=within,
        permutation=permutation,
        seed=seed,
    )
    plan = _plan(store, labels, label_column, id_column, names, protocol, ignore_unknown)
    jobs = jobs or os.cpu_count() or 1
    with LocalEngine(jobs) as engine, terminate_as_interrupt():
        try:
            if dry_run:
                typer.echo(_outlook(estimate(plan, engine, out), jobs))
                return
            with counting("fits", quiet) as show:
                progress = compute(
                    plan,
                    out,
                    engine,
                    on_planned=lambda outlook: None if quiet else typer.echo(_outlook(outlook, jobs), err=True),
                    on_progress=lambda progress: show(progress.done, progress.total),
                )
        except KeyboardInterrupt:
            typer.echo(f"interrupted: finished fits are in {out}; the same command goes on from there", err=True)
            raise typer.Exit(INTERRUPTED) from None
    status = _tell_errors(progress)
    if status != NOTHING_DONE:
        _report(out, table)
    if status:
        raise typer.Exit(status)


def _protocol(
    features: list[str] | None,
    sizes: str | None,
    splits: int | None,
    split: str | None,
    model: list[str] | None,
    param: list[str] | None,
    paper: bool,
    **common: Any,
) -> tuple[Protocol, list[str]]:
    """The protocol, and the feature sets that were asked for."""
    from sorep.errors import UsageError
    from sorep.screening.protocol import PAPER, PAPER_FEATURES, Protocol

    given: dict[str, Any] = {
        "sizes": None if sizes is None else _numbers(sizes),
        "splits": splits,
        "split": split,
        "models": None if model is None else tuple(model),
        "params": parse_params(param) or None,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if paper and (given or features):
        asked = ", ".join([*given, *(["features"] if features else [])])
        raise UsageError(
            f"--paper fixes {asked}", code="bad-option", remedy="leave these options out, or give all without --paper"
        )
    if paper:
        return Protocol.checked(**PAPER.model_dump() | common), list(PAPER_FEATURES)
    return Protocol.checked(**given, **common), features or [DEFAULT_FEATURES]


def _numbers(text: str) -> list[float]:
    from sorep.errors import UsageError

    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise UsageError(
            f"--sizes {text}", code="bad-option", remedy="give numbers with commas, such as 0.01,0.1,500"
        ) from None


def _plan(
    store: Path,
    labels: Path,
    label_column: str,
    id_column: str,
    names: list[str],
    protocol: Protocol,
    ignore_unknown: bool,
) -> Plan:
    from sorep.screening.dataset import load_dataset
    from sorep.screening.plan import find_baselines, make_plan
    from sorep.store import FeatureStore
    from sorep.tables import read_labels

    label_of = read_labels(labels, label_column, id_column)
    within = None if protocol.within is None else _subset(labels, id_column, protocol.within)
    opened = FeatureStore(store)
    baselines, notes = find_baselines(opened, names)
    for note in notes:
        typer.echo(f"warning: {note}", err=True)
    datasets = [load_dataset(opened, name, label_of, ignore_unknown=ignore_unknown) for name in [*names, *baselines]]
    facts = {"labels": f"{label_column} of {labels}", "store": str(store), "command": " ".join(sys.argv)}
    plan = make_plan(datasets, protocol, within, facts)
    n = len(plan.is_held_out)
    for dataset in datasets:
        if len(dataset) > n:
            typer.echo(f"left out: {len(dataset) - n} structures that have {dataset.name} but not all others", err=True)
    return plan


def _subset(path: Path, id_column: str, comparison: str) -> pd.Series:
    from sorep.screening.criteria import Comparison
    from sorep.tables import numbers, read_table

    parsed = Comparison.parse(comparison)
    return parsed.holds(numbers(read_table(path, id_column), parsed.property, path))


def _outlook(outlook: Outlook, jobs: int) -> str:
    if not outlook.n_missing:
        return f"{outlook.n_trials} fits, all finished"
    return (
        f"{outlook.n_trials} fits, {outlook.n_missing} of them missing: about {outlook.seconds / 3600:.2g} CPU hours "
        f"by the first few, {duration(outlook.seconds / jobs)} on {jobs} free cores"
    )


def _tell_errors(progress: Progress) -> int:
    """Say what failed; returns the exit status."""
    if not progress.errors:
        return 0
    codes = Counter(error.code for _, error in progress.errors)
    counts = ", ".join(f"{n} {code}" for code, n in codes.most_common())
    typer.echo(f"{len(progress.errors)} fits failed ({counts}); the first: {progress.errors[0][1]}", err=True)
    return SOME_FAILED if progress.done else NOTHING_DONE


def _report(folder: Path, table: float) -> None:
    from sorep.screening.curves import load_curves
    from sorep.screening.report import write_report

    curves = load_curves(folder)
    files = write_report(curves, folder / "report.html", table=table)
    summary = folder / "summary.csv"
    curves.summary().to_csv(summary, index=False)
    _print_summary(curves, curves.nearest_size(table))
    typer.echo(", ".join(map(str, [files[0], summary, folder / "results.parquet"])))


def _print_summary(curves: Curves, n_rows: int) -> None:
    import numpy as np
    from rich.table import Table

    summary = curves.summary().set_index(["arm", "n_rows"])
    chosen = np.unique(np.linspace(0, len(curves.sizes) - 1, _SHOWN).round().astype(int))
    sizes = [curves.sizes[i] for i in chosen]
    aucs = Table("", *(f"{size} rows" for size in sizes), title="ROC AUC on the hold-out")
    for arm in curves.arms:
        aucs.add_row(arm, *(_pair(summary, (arm, size), "roc_auc") for size in sizes))
    print_table(aucs)
    columns = ("balanced_accuracy", "roc_auc_within", "average_precision", "speed_up", "fraction_found")
    details = Table("", *(name.replace("_", " ") for name in columns), title=f"After training on {n_rows} rows")
    for arm in curves.arms:
        details.add_row(arm, *(_pair(summary, (arm, n_rows), name) for name in columns))
    print_table(details)


def _pair(summary: pd.DataFrame, key: tuple[str, int], name: str) -> str:
    if key not in summary.index or summary.at[key, f"{name}_mean"] != summary.at[key, f"{name}_mean"]:
        return "-"
    mean, sd = summary.at[key, f"{name}_mean"], summary.at[key, f"{name}_sd"]
    return f"{mean:.3f}" + (f" ± {sd:.3f}" if sd == sd else "")

"""`sorep screen`: models that say which structures are worth a calculation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sorep.cli.console import INTERRUPTED, guarded, terminate_as_interrupt
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
from sorep.cli.screen_evaluate import evaluate
from sorep.cli.screen_next import next_, simulate

if TYPE_CHECKING:
    from sorep.screening.dataset import Dataset
    from sorep.screening.saved import ScreeningModel
    from sorep.store import FeatureStore

screen_app = typer.Typer(
    help="Learn from a few labelled structures which of the others are worth a calculation.",
    no_args_is_help=True,
)

_BASELINE = "composition"
_SHOWN = 20
_CLASSIFICATION = ("roc_auc", "average_precision", "balanced_accuracy", "recall", "precision")
_REGRESSION = ("mae", "rmse", "r2")


def fit(
    store: StoreArgument,
    labels: LabelsOption,
    features: FeaturesOption = DEFAULT_FEATURES,
    label_column: LabelColumnOption = "label",
    target: Annotated[str | None, typer.Option(help="Numeric column to regress on, instead of labels.")] = None,
    id_column: IdColumnOption = "id",
    model: ModelOption = "default",
    param: ParamOption = None,
    grid: Annotated[
        bool, typer.Option("--grid", help="Search for parameters first, on the grid of the SOREP paper.")
    ] = False,
    scoring: Annotated[
        str, typer.Option(help="By what the grid is ranked: balanced_accuracy, roc_auc or average_precision.")
    ] = "balanced_accuracy",
    folds: Annotated[int, typer.Option(min=2, help="Folds of the cross-validation; each formula is in one.")] = 5,
    recall: Annotated[
        float | None, typer.Option(help="Share of the positives that those told to be candidates are to contain.")
    ] = None,
    calibrate_on: Annotated[
        float | None,
        typer.Option(help="Share of the structures kept out of training to calibrate on. Default: cross-validation."),
    ] = None,
    ignore_unknown: IgnoreUnknownOption = False,
    seed: SeedOption = 0,
    out: Annotated[Path, typer.Option(help="File of the model to write.")] = Path("model.sorep"),
    jobs: JobsOption = 0,
    dry_run: DryRunOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a model on the labelled structures of a store.

    What the model is worth is measured by cross-validation over whole reduced formulas, and shown beside chance and,
    where the store has it, beside what the composition alone can tell. Balanced accuracy is adjusted: 0 is chance.

    Probabilities are calibrated. With --recall 0.9 so many structures are told to be candidates that nine of ten
    positives are among them, on average; the price is shown. With --calibrate-on 0.3 that is a promise for formulas
    drawn like the labelled ones; without it, from the cross-validation, it is what to expect.

    A search on the grid takes hundreds of fits. Those that are finished stay in a file beside the model, so the same
    command goes on from there.

    Examples:

    sorep screen fit my-store --labels labels.parquet

    sorep screen fit my-store --labels gaps.csv --target gap --features kinetic --out gap.sorep
    """
    from sorep.errors import UsageError
    from sorep.screening.grid import N_SPLITS, check_scoring, grid_of, search
    from sorep.screening.models import build_model
    from sorep.screening.saved import require_savable
    from sorep.screening.training import train
    from sorep.store import FeatureStore

    column, is_regression = target or label_column, target is not None
    if is_regression and (grid or recall is not None or calibrate_on is not None):
        raise UsageError(
            "--grid, --recall or --calibrate-on with --target", code="bad-option", remedy="they are for classification"
        )
    params = parse_params(param)
    estimator = build_model(model, seed, regression=is_regression, **params)
    require_savable(estimator)
    check_scoring(scoring)
    _check_folder(out)
    opened = FeatureStore(store)
    dataset = _load(opened, features, labels, column, id_column, is_regression, ignore_unknown)
    typer.echo(_size(dataset))
    kept_out = None
    if calibrate_on is not None:
        dataset, kept_out = _divided(dataset, calibrate_on, seed)
    baselines = _baselines(opened, dataset)
    n_fits = (len(grid_of(estimator)) * N_SPLITS if grid else 0) + folds * (1 + len(baselines)) + 1
    if dry_run:
        typer.echo(f"{n_fits} fits would be made")
        return
    jobs = jobs or os.cpu_count() or 1
    try:
        with terminate_as_interrupt():
            if grid:
                journal = out.with_name(f"{out.name}.grid.jsonl")
                with counting("fits on the grid", quiet) as show:
                    ranked = search(
                        dataset, estimator, scoring=scoring, seed=seed, jobs=jobs, journal=journal, on_progress=show
                    )
                _print_grid(ranked, scoring)
                params |= ranked[0][0]
                estimator = build_model(model, seed, **params)
            with counting("fits", quiet) as show:
                trained = train(
                    dataset,
                    estimator,
                    baselines=baselines,
                    n_folds=folds,
                    seed=seed,
                    jobs=jobs,
                    recall=recall,
                    kept_out=kept_out,
                    on_progress=show,
                    label=column,
                    model=model,
                    params=params,
                )
    except KeyboardInterrupt:
        typer.echo("interrupted: no model was written; a search goes on from where it was", err=True)
        raise typer.Exit(INTERRUPTED) from None
    trained.save(out)
    _print_metrics(trained)
    if recall is not None:
        typer.echo(_promise(trained.calibration))
    typer.echo(out)


def predict(
    model: Annotated[Path, typer.Argument(help="File that `sorep screen fit` wrote.")],
    store: StoreArgument,
    out: Annotated[Path | None, typer.Option(help="Ranked list to write: .csv or .parquet.")] = None,
    only_new: Annotated[
        bool, typer.Option("--only-new", help="Leave out the structures that the model was trained on.")
    ] = False,
) -> None:
    """Rank the structures of a store, the most promising first; labels are not needed.

    The column `known` tells which structures the model was trained on. What it says of these flatters it.

    Example: sorep screen predict model.sorep my-store --only-new --out ranked.csv
    """
    from rich.table import Table

    from sorep.screening.ranking import rank
    from sorep.screening.saved import ScreeningModel
    from sorep.store import FeatureStore
    from sorep.tables import check_suffix, write_table

    if out is not None:
        check_suffix(out)
        _check_folder(out)
    loaded = ScreeningModel.load(model)
    for difference in loaded.version_differences():
        typer.echo(f"warning: {difference}; predictions may differ", err=True)
    opened = FeatureStore(store)
    ranked = rank(loaded, loaded.dataset(opened))
    without = len(opened.content_keys()) - len(ranked)
    if without:
        typer.echo(f"{without} structures lack the features {loaded.plain_features} and are left out", err=True)
    is_known = ranked["known"].to_numpy()
    if only_new:
        ranked = ranked.loc[~is_known]
    n_known = int(is_known.sum())
    typer.echo(f"{len(ranked)} structures ranked by {loaded.label}; the model was trained on {n_known} of the store's")
    if out is not None:
        write_table(ranked, out)
        typer.echo(out)
        return
    shown = Table(*ranked.columns)
    for line in ranked.head(_SHOWN).itertuples(index=False):
        shown.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in line))
    print_table(shown)


def _check_folder(path: Path) -> None:
    from sorep.errors import UsageError

    if not path.parent.is_dir() or path.is_dir():
        raise UsageError(f"cannot write {path}", code="unwritable-file", remedy="name a file in a folder that exists")


def _load(
    store: FeatureStore,
    features: str,
    path: Path,
    column: str,
    id_column: str,
    is_regression: bool,
    ignore_unknown: bool,
) -> Dataset:
    from sorep.screening.dataset import load_dataset
    from sorep.tables import read_labels, read_numbers

    read = read_numbers if is_regression else read_labels
    return load_dataset(store, features, read(path, column, id_column), ignore_unknown=ignore_unknown)


def _baselines(store: FeatureStore, dataset: Dataset) -> list[Dataset]:
    """What the composition alone can tell, where the store has it of the same structures."""
    import numpy as np

    from sorep.screening.dataset import load_dataset

    if any(part.name == _BASELINE for part in dataset.parts):
        return []
    if _BASELINE not in store.features()["name"].tolist():
        typer.echo(f"no baseline: `sorep featurize --descriptor {_BASELINE}` adds it to the store", err=True)
        return []
    baseline = load_dataset(store, _BASELINE)
    lacking = int((~np.isin(dataset.ids, baseline.ids)).sum())
    if lacking:
        typer.echo(f"no baseline: {lacking} of the structures have no {_BASELINE}", err=True)
        return []
    return [baseline.of_ids(dataset.ids)]


def _size(dataset: Dataset) -> str:
    import numpy as np

    text = f"{len(dataset)} structures of {len(np.unique(dataset.groups))} reduced formulas"
    if dataset.labels is not None and dataset.labels.dtype == bool:
        text += f", {dataset.n_positive} positive ({dataset.n_positive / len(dataset):.1%})"
    return "\n".join([text, *(f"left out: {n} {reason}" for reason, n in dataset.left_out.items())])


def _divided(dataset: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset]:
    """Structures to train on, and to calibrate on; no formula is in both."""
    import numpy as np

    from sorep.errors import UsageError
    from sorep.screening.splits import holdout

    if not 0 < share < 1:
        raise UsageError(f"--calibrate-on {share:g}", code="bad-option", remedy="give a share between 0 and 1")
    rest, kept_out = holdout(dataset.groups, np.asarray(dataset.labels), share, seed=seed)
    typer.echo(f"{len(kept_out)} of them are kept out of training, to calibrate on")
    return dataset.take(rest), dataset.take(kept_out)


def _promise(account: dict[str, Any]) -> str:
    kind = "promised" if account["kept_out"] else "expected, but by cross-validation not promised,"
    return (
        f"candidates have a score from {account['threshold']:.3g} on: {account['share_selected']:.1%} of the "
        f"structures, with {account['recall_seen']:.1%} of the positives\n"
        f"a recall of {account['recall']:g} is {kind} on average, for formulas like the {account['n_units']} with "
        f"positives here; of calibrations like this one, 95 % keep at least {account['recall_low']:.1%}"
    )


def _print_grid(ranked: list[tuple[dict[str, Any], float]], scoring: str) -> None:
    from rich.table import Table

    shown = Table(*ranked[0][0], scoring, title="Best of the grid")
    for choice, score in ranked[:5]:
        shown.add_row(*map(str, choice.values()), f"{score:.3f}")
    print_table(shown)


def _print_metrics(model: ScreeningModel) -> None:
    from rich.table import Table

    columns = _REGRESSION if model.is_regression else _CLASSIFICATION
    shown = Table("features", *columns, title="Cross-validation over whole formulas")
    for name, found in model.metrics.items():
        shown.add_row(name, *(f"{found[column]:.3f}" for column in columns))
    print_table(shown)


for function in (fit, predict, evaluate, next_, simulate):
    screen_app.command(name=function.__name__.rstrip("_"))(guarded(function))

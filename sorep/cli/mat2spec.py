"""`sorep mat2spec`: spectra predicted from a crystal graph, from a SOREP, or from both."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sorep.cli import mat2spec_findings, mat2spec_studies
from sorep.cli.console import INTERRUPTED, SOME_FAILED, guarded, terminate_as_interrupt
from sorep.cli.mat2spec_common import (
    ColumnOption,
    DeviceOption,
    GridOption,
    MissingOption,
    ModelOption,
    SizeColumnOption,
    SizesOption,
    StoreOption,
    StructureIdOption,
    StructuresOption,
    TargetOption,
    WindowOption,
    configured,
    data_of_model,
    epoch_progress,
    load_model,
    now_and_then,
    print_evaluation,
    read_data,
    read_targets,
    sizes_from,
    skips,
    sources,
    tell_left_out,
    warn,
)
from sorep.cli.screen_common import IdColumnOption, QuietOption

if TYPE_CHECKING:
    from sorep.mat2spec.checkpoint import Checkpoint

mat2spec_app = typer.Typer(
    help="Predict spectra, such as densities of states, from crystal graphs, from SOREPs, or from both.",
    no_args_is_help=True,
)


def train(
    target: TargetOption,
    store: StoreOption = None,
    structures: StructuresOption = None,
    structure_id_column: StructureIdOption = None,
    encoder: Annotated[str, typer.Option(help="What the model reads: graph, sorep or both.")] = "graph",
    feature: Annotated[
        str, typer.Option(help="SOREP: NAME[+NAME...], each NAME feature, operator/feature or feature@identity.")
    ] = "",
    network: Annotated[str, typer.Option(help="mat2spec, or to compare with: composition, gatgnn, e3nn.")] = "mat2spec",
    preset: Annotated[
        str, typer.Option(help="default, published or paper; see `sorep mat2spec describe`.")
    ] = "default",
    loss: Annotated[str | None, typer.Option(help="kl, wd, mae or mse, instead of the preset's.")] = None,
    scaling: Annotated[str | None, typer.Option(help="sumnorm, maxnorm or standard, instead of the preset's.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Most epochs, instead of the preset's.")] = None,
    batch: Annotated[int | None, typer.Option(help="Crystals in a batch, instead of the preset's.")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Epochs without improvement after which training ends, instead of the preset's.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="At the start, instead of the preset's.")] = None,
    split: Annotated[
        str, typer.Option(help="grouped (crystals of a reduced formula stay together) or random.")
    ] = "grouped",
    split_file: Annotated[
        Path | None, typer.Option(help="Table with a column split (train, val, test), instead of drawing one.")
    ] = None,
    val_share: Annotated[float, typer.Option(help="Share of the crystals that choose the epoch to stop at.")] = 0.1,
    test_share: Annotated[float, typer.Option(help="Share of the crystals kept for the test.")] = 0.1,
    split_seed: Annotated[int, typer.Option(min=0, help="Of the drawn split.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, batches and dropout.")] = 0,
    column: ColumnOption = "spectrum",
    id_column: IdColumnOption = "id",
    grid: GridOption = None,
    window: WindowOption = None,
    missing: MissingOption = "error",
    out: Annotated[Path, typer.Option(help="Folder of the model, log and report.")] = Path("mat2spec-run"),
    device: DeviceOption = "auto",
    quiet: QuietOption = False,
) -> None:
    """Train a model on known spectra, and report what it is worth on a test part that it has not seen.

    Training can be interrupted or killed at any time; the same command goes on where it was.

    Examples:

    sorep mat2spec train --structures cifs/ --target phdos.parquet --grid grid.json --column phdos --out run

    sorep mat2spec train --store my-store --encoder both --feature kinetic --target phdos.parquet --grid grid.json
    """
    from sorep.errors import UsageError
    from sorep.mat2spec.evaluate import evaluate
    from sorep.mat2spec.networks import chosen_device, get_network
    from sorep.mat2spec.report import write_report
    from sorep.mat2spec.split import Split, make_split
    from sorep.mat2spec.training import read_log
    from sorep.mat2spec.training import train as run

    changes = {"encoder": encoder, "loss": loss, "scaling": scaling}
    of_training = {
        "epochs": epochs, "batch_size": batch, "patience": patience, "learning_rate": learning_rate, "seed": seed,
    }  # fmt: skip
    model, training = configured(preset, changes, of_training)
    get_network(network, model)
    if encoder == "graph" and feature:
        raise UsageError("--feature with --encoder graph", code="bad-option", remedy="choose --encoder sorep or both")
    chosen = chosen_device(device)
    targets = read_targets(target, store, column, id_column, grid, window)
    data = read_data(targets, encoder, store, structures, feature, missing, structure_id_column)
    parts = (
        Split.load(split_file)
        if split_file
        else make_split(data.ids, data.formulas, kind=split, val=val_share, test=test_share, seed=split_seed)
    )
    sizes = f"{len(parts.train)} to train on, {len(parts.val)} for validation, {len(parts.test)} for the test"
    typer.echo(f"crystals: {sizes}")
    name = column if Path(target).suffix == ".parquet" else target
    try:
        with terminate_as_interrupt(), epoch_progress(training.epochs, quiet) as show:
            trained = run(
                data, parts, out, model=model, training=training, network=network, target=name, device=chosen,
                on_epoch=show,
            )  # fmt: skip
    except KeyboardInterrupt:
        typer.echo("interrupted: the same command goes on from here", err=True)
        raise typer.Exit(INTERRUPTED) from None
    test = data.take(parts.rows("test", data.ids))
    of_train = data.take(parts.rows("train", data.ids))
    if not len(test):
        typer.echo("no test part: no report", err=True)
        return
    evaluation = evaluate(trained, test, train=of_train)
    print_evaluation(evaluation)
    warn(trained)
    files = write_report(trained, read_log(out), evaluation, out / "report.html")
    typer.echo(", ".join(map(str, files)))


def predict(
    model: ModelOption,
    store: StoreOption = None,
    structures: StructuresOption = None,
    structure_id_column: StructureIdOption = None,
    out: Annotated[Path | None, typer.Option(help="Table to write: .parquet, with the grid as JSON beside it.")] = None,
    name: Annotated[str, typer.Option(help="Feature name under which spectra are kept in the store.")] = "mat2spec",
    sizes: SizesOption = None,
    size_column: SizeColumnOption = "size",
    id_column: IdColumnOption = "id",
    missing: MissingOption = "skip",
    device: DeviceOption = "auto",
) -> None:
    """Predict spectra of the structures of a store, or of structure files; targets are neither needed nor taken.

    Spectra of a store's structures become features of the store, under the identity of the model. Exit status 3 tells
    that some structures could not be used, which are named: files that cannot be read, atoms without neighbours,
    missing SOREPs.

    Example: sorep mat2spec predict --model run --store my-store --out spectra.parquet
    """
    from sorep.errors import UsageError
    from sorep.mat2spec.networks import chosen_device
    from sorep.mat2spec.predict import load_model_inputs, store_predictions, write_predictions
    from sorep.mat2spec.predict import predict as run

    if store is None and out is None:
        raise UsageError("nowhere to write", code="bad-option", remedy="give --store, or --out")
    loaded = load_model(model, chosen_device(device))
    opened, given, n_failed = sources(store, structures, structure_id_column)
    inputs = load_model_inputs(loaded, store=opened, structures=given, skip_missing=skips(missing))
    tell_left_out(inputs)
    given_sizes = sizes_from(sizes, size_column, inputs, id_column)
    tell = now_and_then()
    prediction = run(
        loaded, inputs, sizes=given_sizes, on_predicted=lambda n: tell(f"{n} of {len(inputs)} spectra predicted")
    )
    typer.echo(f"{len(prediction.ids)} spectra of {loaded.about.target}, identity {prediction.identity.hash}")
    if opened is not None:
        new = store_predictions(opened, prediction, name, " ".join(sys.argv))
        typer.echo(f"{store}: {new} new vectors of the feature {name}")
    if out is not None:
        typer.echo(", ".join(map(str, write_predictions(prediction, out, loaded.about.target.replace("/", "-")))))
    if n_failed or inputs.failures:
        raise typer.Exit(SOME_FAILED)


def evaluate(
    model: ModelOption,
    target: TargetOption,
    store: StoreOption = None,
    structures: StructuresOption = None,
    structure_id_column: StructureIdOption = None,
    split: Annotated[str, typer.Option(help="Part to evaluate: test, val, train, or all of the table.")] = "test",
    sizes: SizesOption = None,
    size_column: SizeColumnOption = "size",
    column: ColumnOption = "spectrum",
    id_column: IdColumnOption = "id",
    grid: GridOption = None,
    missing: MissingOption = "error",
    report: Annotated[Path | None, typer.Option(help="HTML report to write.")] = None,
    device: DeviceOption = "auto",
) -> None:
    """Print MAE, MSE, R2 and WD of predictions, with their units.

    Scaled spectra are what the model is trained on. Honest ones have predicted sizes; oracle ones the true sizes, as in
    publications. The mean training spectrum and that of the nearest composition stand beside them.

    Example: sorep mat2spec evaluate --model run --store my-store --target phdos.parquet --grid grid.json
    """
    import numpy as np

    from sorep.errors import UsageError
    from sorep.mat2spec.evaluate import evaluate as run
    from sorep.mat2spec.networks import chosen_device
    from sorep.mat2spec.report import write_report
    from sorep.mat2spec.split import PARTS
    from sorep.mat2spec.training import read_log

    if split not in (*PARTS, "all"):
        raise UsageError(f"unknown part {split!r}", code="bad-option", remedy=f"choose from {', '.join(PARTS)}, all")
    loaded = load_model(model, chosen_device(device))
    data = data_of_model(loaded, target, store, structures, structure_id_column, column, id_column, grid, missing)
    rows = np.arange(len(data)) if split == "all" else loaded.split.rows(split, data.ids)  # type: ignore[arg-type]
    if not len(rows):
        raise UsageError(
            f"the target has no crystal of the part {split!r}",
            code="no-structures",
            remedy="choose another --split",
        )
    chosen, of_train = data.take(rows), data.take(loaded.split.rows("train", data.ids))
    if len(of_train) < len(loaded.split.train):
        typer.echo("no baselines: the target lacks training crystals", err=True)
    baselines_from = of_train if len(of_train) == len(loaded.split.train) else None
    found = run(loaded, chosen, sizes=sizes_from(sizes, size_column, chosen.inputs, id_column), train=baselines_from)
    print_evaluation(found)
    warn(loaded)
    if report is not None:
        typer.echo(", ".join(map(str, write_report(loaded, read_log(model), found, report, part=split))))


def describe(
    preset: Annotated[str | None, typer.Option(help="default, published or paper.")] = None,
    model: Annotated[Path | None, typer.Option(help="Folder of a trained model, instead of a preset.")] = None,
    encoder: Annotated[str, typer.Option(help="Of a preset: graph, sorep or both.")] = "graph",
    bins: Annotated[int, typer.Option(min=2, help="Length of spectra, of a preset.")] = 51,
    sorep: Annotated[int, typer.Option(min=1, help="Length of SOREPs, of a preset.")] = 513,
) -> None:
    """Print the card of a model: its layers, their parameters, and which of them a prediction uses.

    Example: sorep mat2spec describe --preset paper
    """
    from sorep.errors import UsageError
    from sorep.mat2spec.card import card_text
    from sorep.mat2spec.checkpoint import Checkpoint
    from sorep.mat2spec.networks import get_network

    if preset is not None and model is not None:
        raise UsageError("--preset with --model", code="bad-option", remedy="give one of them")
    if model is not None:
        loaded = Checkpoint.load(model)
        typer.echo(card_text(loaded.model))
        _describe_run(loaded)
        return
    config, training = configured(preset or "default", {"encoder": encoder}, {})
    typer.echo(card_text(get_network("mat2spec", config).build(config, bins, sorep)))
    typer.echo(
        f"training: AdamW, learning rate {training.learning_rate:g}, weight decay {training.weight_decay:g}, "
        f"batches of {training.batch_size}, up to {training.epochs} epochs"
    )


def _describe_run(loaded: Checkpoint) -> None:
    about, result = loaded.about, loaded.about.result
    typer.echo(
        f"trained on {len(loaded.split.train)} spectra of {about.target}, {len(about.energies)} bins from "
        f"{about.energies[0]:g} to {about.energies[-1]:g} {about.unit}; weights {loaded.weights}"
    )
    for name, identity in loaded.features.items():
        typer.echo(f"reads {name}, identity {identity.hash}")
    if result is not None:
        typer.echo(f"{result.epochs} epochs, best {result.best_epoch} with validation loss {result.loss:.4g}")
    warn(loaded)


for function in (train, predict, evaluate, describe, *mat2spec_studies.COMMANDS, *mat2spec_findings.COMMANDS):
    mat2spec_app.command(name=function.__name__.replace("_", "-"))(guarded(function))

"""`sorep mat2spec compare`, `ablate`, `learning-curve`, `finetune`: experiments with several trainings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sorep.cli.console import INTERRUPTED, terminate_as_interrupt
from sorep.cli.mat2spec_common import (
    ColumnOption,
    DeviceOption,
    GridOption,
    MissingOption,
    ModelOption,
    StoreOption,
    StructureIdOption,
    StructuresOption,
    TargetOption,
    WindowOption,
    configured,
    data_of_model,
    load_model,
    read_data,
    read_targets,
)
from sorep.cli.screen_common import IdColumnOption, QuietOption, print_table

if TYPE_CHECKING:
    import pandas as pd

    from sorep.mat2spec.data import SpectrumData

FeatureOption = Annotated[
    str, typer.Option(help="SOREP: NAME[+NAME...], each NAME feature, operator/feature or feature@identity.")
]
EncoderOption = Annotated[str, typer.Option(help="What the model reads: graph, sorep or both.")]
ArmOption = Annotated[
    list[str] | None,
    typer.Option(
        "--arm",
        help="May be repeated: mean spectrum, nearest composition, ridge on SOREP, SOREP itself, composition, gatgnn, "
        "e3nn, mat2spec graph, mat2spec sorep, mat2spec both.",
    ),
]
PresetOption = Annotated[str, typer.Option(help="default, published or paper; see `sorep mat2spec describe`.")]
EpochsOption = Annotated[int | None, typer.Option(help="Most epochs, instead of the preset's.")]
BatchOption = Annotated[int | None, typer.Option(help="Crystals in a batch, instead of the preset's.")]
LossOption = Annotated[str | None, typer.Option(help="kl, wd, mae or mse, instead of the preset's.")]
ScalingOption = Annotated[str | None, typer.Option(help="sumnorm, maxnorm or standard, instead of the preset's.")]
SeedsOption = Annotated[int, typer.Option(min=1, help="Number of seeds; each has a split and a training of its own.")]
SplitOption = Annotated[str, typer.Option(help="grouped (crystals of a reduced formula stay together) or random.")]
OutOption = Annotated[Path, typer.Option(help="Folder of models, tables and figures; a study goes on where it was.")]


def compare(
    target: TargetOption,
    store: StoreOption = None,
    structures: StructuresOption = None,
    structure_id_column: StructureIdOption = None,
    feature: FeatureOption = "",
    arm: ArmOption = None,
    seeds: SeedsOption = 3,
    preset: PresetOption = "default",
    loss: LossOption = None,
    scaling: ScalingOption = None,
    epochs: EpochsOption = None,
    batch: BatchOption = None,
    split: SplitOption = "grouped",
    column: ColumnOption = "spectrum",
    id_column: IdColumnOption = "id",
    grid: GridOption = None,
    window: WindowOption = None,
    missing: MissingOption = "error",
    out: OutOption = Path("mat2spec-compare"),
    device: DeviceOption = "auto",
    quiet: QuietOption = False,
) -> None:
    """Train several models on the same splits, and tell them apart from each other and from rules without a network.

    Without --arm, all that apply: those that read a SOREP only with --feature, e3nn only where it is installed.

    Example: sorep mat2spec compare --store my-store --feature kinetic --target phdos.parquet --grid grid.json
    """
    from sorep.mat2spec.studies import named_arms

    model, training = configured(preset, {"loss": loss, "scaling": scaling}, {"epochs": epochs, "batch_size": batch})
    arms = named_arms(arm or _all_arms(bool(feature)), model)
    data = _data_for(
        arms, target, store, structures, structure_id_column, feature, column, id_column, grid, window, missing
    )
    table = _run(arms, data, split, out, training, seeds, (1.0,), device, quiet)
    _tell(table, out, data.unit, arms[-1].name)


def ablate(
    target: TargetOption,
    store: StoreOption = None,
    structures: StructuresOption = None,
    structure_id_column: StructureIdOption = None,
    encoder: EncoderOption = "graph",
    feature: FeatureOption = "",
    seeds: SeedsOption = 3,
    preset: PresetOption = "default",
    loss: LossOption = None,
    scaling: ScalingOption = None,
    epochs: EpochsOption = None,
    batch: BatchOption = None,
    split: SplitOption = "grouped",
    column: ColumnOption = "spectrum",
    id_column: IdColumnOption = "id",
    grid: GridOption = None,
    window: WindowOption = None,
    missing: MissingOption = "error",
    out: OutOption = Path("mat2spec-ablation"),
    device: DeviceOption = "auto",
    quiet: QuietOption = False,
) -> None:
    """Train a model without its KL divergence, its contrast, and its label branch, and say which difference is real.

    Example: sorep mat2spec ablate --structures cifs/ --target phdos.parquet --grid grid.json --column phdos
    """
    from sorep.errors import UsageError
    from sorep.mat2spec.studies import FEWEST_SEEDS, ablation_arms

    if seeds < FEWEST_SEEDS:
        raise UsageError(
            f"an ablation over {seeds} seeds tells nothing",
            code="too-few-seeds",
            remedy=f"use {FEWEST_SEEDS} or more",
        )
    changes = {"encoder": encoder, "loss": loss, "scaling": scaling}
    model, training = configured(preset, changes, {"epochs": epochs, "batch_size": batch})
    arms = ablation_arms(model)
    data = _data_for(
        arms, target, store, structures, structure_id_column, feature, column, id_column, grid, window, missing
    )
    table = _run(arms, data, split, out, training, seeds, (1.0,), device, quiet)
    _tell(table, out, data.unit, arms[0].name)


def learning_curve(
    target: TargetOption,
    store: StoreOption = None,
    structures: StructuresOption = None,
    structure_id_column: StructureIdOption = None,
    feature: FeatureOption = "",
    arm: ArmOption = None,
    size: Annotated[
        list[float] | None, typer.Option(help="Share of the training part; may be repeated. Default: 1, 1/2, 1/4, 1/8.")
    ] = None,
    seeds: SeedsOption = 3,
    preset: PresetOption = "default",
    loss: LossOption = None,
    scaling: ScalingOption = None,
    epochs: EpochsOption = None,
    batch: BatchOption = None,
    split: SplitOption = "grouped",
    column: ColumnOption = "spectrum",
    id_column: IdColumnOption = "id",
    grid: GridOption = None,
    window: WindowOption = None,
    missing: MissingOption = "error",
    out: OutOption = Path("mat2spec-curve"),
    device: DeviceOption = "auto",
    quiet: QuietOption = False,
) -> None:
    """Train on smaller and smaller parts of the training crystals; validation and test crystals stay the same.

    Without --arm: nearest composition, composition, mat2spec graph.

    Example: sorep mat2spec learning-curve --structures cifs/ --target phdos.parquet --grid grid.json --column phdos
    """
    from sorep.errors import UsageError
    from sorep.mat2spec.studies import named_arms
    from sorep.mat2spec.study_figures import curves_figure

    sizes = size or [1.0, 0.5, 0.25, 0.125]
    if wrong := [one for one in sizes if not 0 < one <= 1]:
        raise UsageError(f"--size {wrong[0]:g}", code="bad-option", remedy="give shares of the training part, up to 1")
    model, training = configured(preset, {"loss": loss, "scaling": scaling}, {"epochs": epochs, "batch_size": batch})
    arms = named_arms(arm or ["nearest composition", "composition", "mat2spec graph"], model)
    data = _data_for(
        arms, target, store, structures, structure_id_column, feature, column, id_column, grid, window, missing
    )
    table = _run(arms, data, split, out, training, seeds, sizes, device, quiet)
    _tell(table, out, data.unit, arms[-1].name, {"curves": curves_figure(table, unit=data.unit)})


def finetune(
    model: ModelOption,
    subclass: Annotated[
        str,
        typer.Option(help="As in 'contains O and elements 3', 'without La Ce', 'space-group 225'; or a file of ids."),
    ],
    target: TargetOption,
    store: StoreOption = None,
    structures: StructuresOption = None,
    structure_id_column: StructureIdOption = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds, of weights, batches and dropout.")] = 3,
    epochs: Annotated[int, typer.Option(min=1, help="Most epochs of the tuning.")] = 50,
    learning_rate: Annotated[float, typer.Option(help="Of the tuning, at the start.")] = 1e-4,
    column: ColumnOption = "spectrum",
    id_column: IdColumnOption = "id",
    grid: GridOption = None,
    missing: MissingOption = "error",
    out: OutOption = Path("mat2spec-tuned"),
    device: DeviceOption = "auto",
    quiet: QuietOption = False,
) -> None:
    """Train a model further on a subclass of its training crystals.

    Tests, on the subclass's part of the test crystals, the model as it is, the tuned one, and one that was trained on
    the subclass alone. The tuned models are kept in OUT/tuned-0, OUT/tuned-1, ... for `sorep mat2spec predict`.

    Example: sorep mat2spec finetune --model run --subclass 'contains O' --structures cifs/ --target phdos.parquet ...
    """
    from sorep.mat2spec.networks import chosen_device
    from sorep.mat2spec.studies import finetune_study
    from sorep.mat2spec.subclass import subclass_mask

    loaded = load_model(model, chosen_device(device))
    data = data_of_model(loaded, target, store, structures, structure_id_column, column, id_column, grid, missing)
    is_member = subclass_mask(subclass, data.inputs, id_column)
    typer.echo(f"{int(is_member.sum())} of {len(data)} crystals belong to the subclass")
    changes = {"epochs": epochs, "learning_rate": learning_rate}
    training = type(loaded.about.training).checked(**{**loaded.about.training.model_dump(), **changes})
    table = _until_interrupted(
        lambda: finetune_study(
            loaded,
            data,
            is_member,
            out,
            training=training,
            seeds=range(seeds),
            device=str(chosen_device(device)),
            on_run=_teller(quiet),
        )
    )
    _tell(table, out, data.unit, "global")


def _all_arms(has_sorep: bool) -> list[str]:
    from importlib.util import find_spec

    names = ["mean spectrum", "nearest composition", "composition", "gatgnn"]
    if find_spec("e3nn") is None:
        typer.echo("left out: e3nn is not installed (pip install 'sorep[e3nn]')", err=True)
    else:
        names.append("e3nn")
    with_sorep = ["ridge on SOREP", "mat2spec sorep", "mat2spec both"] if has_sorep else []
    return [*names, *with_sorep, "mat2spec graph"]


def _data_for(
    arms: Sequence[Any],
    target: str,
    store: Path | None,
    structures: list[Path] | None,
    structure_id_column: str | None,
    feature: str,
    column: str,
    id_column: str,
    grid: Path | None,
    window: tuple[float, float] | None,
    missing: str,
) -> SpectrumData:
    from sorep.errors import UsageError
    from sorep.mat2spec.studies import encoder_needed

    needed = encoder_needed(arms)
    if feature and needed == "graph":
        raise UsageError("nothing reads --feature", code="bad-option", remedy="choose an arm that reads a SOREP")
    targets = read_targets(target, store, column, id_column, grid, window)
    return read_data(targets, needed, store, structures, feature, missing, structure_id_column)


def _run(
    arms: Sequence[Any],
    data: SpectrumData,
    split: str,
    out: Path,
    training: Any,
    seeds: int,
    sizes: Sequence[float],
    device: str,
    quiet: bool,
) -> pd.DataFrame:
    from sorep.mat2spec.networks import chosen_device
    from sorep.mat2spec.split import make_split
    from sorep.mat2spec.studies import run_study

    typer.echo(f"{len(data)} crystals, {len(arms)} arms, {len(sizes)} sizes, {seeds} seeds")
    return _until_interrupted(
        lambda: run_study(
            arms,
            data,
            lambda seed: make_split(data.ids, data.formulas, kind=split, seed=seed),
            out,
            training=training,
            seeds=range(seeds),
            sizes=sizes,
            device=str(chosen_device(device)),
            on_run=_teller(quiet),
        )
    )


def _until_interrupted(study: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    try:
        with terminate_as_interrupt():
            return study()
    except KeyboardInterrupt:
        typer.echo("interrupted: the same command goes on from here", err=True)
        raise typer.Exit(INTERRUPTED) from None


def _teller(quiet: bool) -> Callable[[str], None]:
    return lambda text: None if quiet else typer.echo(text, err=True)


def _tell(table: pd.DataFrame, out: Path, unit: str, reference: str, figures: dict[str, Any] | None = None) -> None:
    """Print means, spreads and what they mean; write tables and figures."""
    from rich.table import Table

    from sorep.mat2spec.studies import METRICS, differences, summary
    from sorep.mat2spec.study_figures import NAMES, arms_figure, write_study

    means = summary(table)
    metrics = [name for name in METRICS if name in table]
    header = [NAMES[name] + (f" ({unit})" if name == "wd" else "") for name in metrics]
    shown = Table("arm", "training crystals", *header, title="test part: mean +- standard deviation over seeds")
    for row in means.to_dict("records"):
        cells = (f"{row[name]:.4g} +- {row[f'{name}_sd']:.2g}" for name in metrics)
        shown.add_row(str(row["arm"]), f"{row['n_train']:.0f}", *cells)
    print_table(shown)
    for difference in differences(table, reference):
        typer.echo(str(difference))
    drawn = {"arms": arms_figure(table, unit=unit)} if figures is None else figures
    typer.echo(", ".join(map(str, write_study(out, {"runs": table, "summary": means}, drawn))))


COMMANDS = (compare, ablate, learning_curve, finetune)
"""In the order of the help page."""

"""Options, sources and tables that the commands of `sorep mat2spec` share."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sorep.cli.screen_common import print_table

if TYPE_CHECKING:
    from sorep.mat2spec.checkpoint import Checkpoint
    from sorep.mat2spec.config import ModelConfig, TrainingConfig
    from sorep.mat2spec.data import Inputs, SpectrumData
    from sorep.mat2spec.evaluate import Evaluation
    from sorep.mat2spec.fit import Epoch
    from sorep.mat2spec.targets import Targets
    from sorep.store import FeatureStore
    from sorep.structure import Structure

StoreOption = Annotated[Path | None, typer.Option(help="Store of the structures, and of SOREPs if these are read.")]
StructuresOption = Annotated[
    list[Path] | None,
    typer.Option("--structures", help="Files or folders of structures, instead of a store, for models of graphs."),
]
StructureIdOption = Annotated[
    str | None, typer.Option(help="Column of ids of tables of structures. Default: recognised by common names.")
]
TargetOption = Annotated[
    str,
    typer.Option(
        help="Spectra: a .parquet table of lists, or a feature of the store, e.g. scf/mat2spec-edos, operator first."
    ),
]
ColumnOption = Annotated[str, typer.Option(help="Column of the table that holds the lists.")]
GridOption = Annotated[
    Path | None, typer.Option(help='Bin centres of the table: a JSON file like {"unit": "eV", "grid": [0, 0.1]}.')
]
WindowOption = Annotated[
    tuple[float, float] | None, typer.Option(help="First and last bin centre to use. Default: all bins.")
]
MissingOption = Annotated[str, typer.Option(help="What to do about crystals that lack something: error or skip.")]
ModelOption = Annotated[Path, typer.Option(help="Folder that `sorep mat2spec train` wrote.")]
DeviceOption = Annotated[str, typer.Option(help="auto (CUDA where there is one), cpu or cuda.")]
SizesOption = Annotated[
    Path | None,
    typer.Option(help="Table of sums (SumNorm) or maxima (MaxNorm). Default: the model's own, from compositions."),
]
SizeColumnOption = Annotated[str, typer.Option(help="Column of that table.")]


_MUCH = 0.05  # of a spectrum, outside the window
_SHOWN = 5  # ids of crystals that are left out
_EVERY = 10.0  # seconds between lines of progress where there is no terminal


def configured(
    preset_name: str, of_model: dict[str, Any], of_training: dict[str, Any]
) -> tuple[ModelConfig, TrainingConfig]:
    """A preset with changes; None changes nothing."""
    from sorep.mat2spec.config import preset

    chosen = preset(preset_name)
    model = chosen.model.checked(**{**chosen.model.model_dump(), **_given(of_model)})
    training = chosen.training.checked(**{**chosen.training.model_dump(), **_given(of_training)})
    return model, training


def _given(changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in changes.items() if value is not None}


def read_targets(
    target: str,
    store: Path | None,
    column: str,
    id_column: str,
    grid: Path | None,
    window: tuple[float, float] | None,
) -> Targets:
    from sorep.errors import UsageError
    from sorep.mat2spec.targets import load_targets, targets_of_feature
    from sorep.store import FeatureStore

    if Path(target).suffix == ".parquet":
        if grid is None:
            raise UsageError("no --grid", code="bad-option", remedy="name the JSON file with its bin centres")
        found = load_targets(target, id_column, column, grid)
    else:
        if store is None or grid is not None:
            what = "a feature of no store" if store is None else "--grid with a feature of a store"
            raise UsageError(what, code="bad-option", remedy="give --store, or a .parquet table and --grid")
        rest, _, identity = target.partition("@")
        operator, _, name = rest.rpartition("/")
        matrix = FeatureStore(store).matrix(name, operator=operator or None, identity=identity or None)
        found = targets_of_feature(matrix)
    if window is None:
        return found
    cut = found.between(*window)
    n_cut = int((cut.spectra.sum(axis=1) < (1 - _MUCH) * found.spectra.sum(axis=1)).sum())
    if n_cut:
        typer.echo(
            f"warning: the window leaves out more than {_MUCH:.0%} of {n_cut} of {len(cut.ids)} spectra", err=True
        )
    return cut


def read_data(
    targets: Targets,
    encoder: Any,
    store: Path | None,
    structures: list[Path] | None,
    feature: str,
    missing: str,
    structure_id_column: str | None = None,
) -> SpectrumData:
    from sorep.mat2spec.data import load_data

    opened, given, _ = sources(store, structures, structure_id_column)
    data = load_data(targets, encoder, store=opened, structures=given, feature=feature, skip_missing=skips(missing))
    tell_left_out(data.inputs)
    return data


def data_of_model(
    loaded: Checkpoint,
    target: str,
    store: Path | None,
    structures: list[Path] | None,
    structure_id_column: str | None,
    column: str,
    id_column: str,
    grid: Path | None,
    missing: str,
) -> SpectrumData:
    """Crystals with what a model reads, and with spectra on its grid."""
    import numpy as np

    from sorep.errors import UsageError

    energies = loaded.energies
    targets = read_targets(target, store, column, id_column, grid, (energies[0], energies[-1]))
    if len(targets.energies) != len(energies) or not np.allclose(targets.energies, energies):
        raise UsageError(
            "the target has another grid than the model", code="other-grid", remedy="give the target it was trained on"
        )
    encoder = loaded.about.model.encoder
    return read_data(targets, encoder, store, structures, loaded.feature, missing, structure_id_column)


def sources(
    store: Path | None, structures: list[Path] | None, structure_id_column: str | None = None
) -> tuple[FeatureStore | None, dict[str, Structure] | None, int]:
    """The store, or the structures and how many could not be used."""
    from sorep.errors import UsageError
    from sorep.mat2spec.data import read_structures
    from sorep.store import FeatureStore

    if (store is None) == (not structures):
        raise UsageError("not one of --store and --structures", code="bad-option", remedy="give one of them")
    if store is not None:
        return FeatureStore(store), None, 0
    tell = now_and_then()
    found, failures = read_structures(
        structures or [], structure_id_column, on_read=lambda n: tell(f"{n} structures read")
    )
    for failure in failures:
        typer.echo(f"{failure.id}  [{failure.code}] {failure.message}", err=True)
    return None, found, len(failures)


def now_and_then() -> Callable[[str], None]:
    """Print the latest of what is told, but not often; nothing where all is done soon."""
    last = [time.monotonic()]

    def tell(text: str) -> None:
        if time.monotonic() - last[0] >= _EVERY:
            last[0] = time.monotonic()
            typer.echo(text, err=True)

    return tell


def skips(missing: str) -> bool:
    from sorep.errors import UsageError

    if missing not in ("error", "skip"):
        raise UsageError(f"--missing {missing}", code="bad-option", remedy="choose error or skip")
    return missing == "skip"


def tell_left_out(inputs: Inputs) -> None:
    failures = inputs.failures
    for code in dict.fromkeys(failure.code for failure in failures):
        ids = [failure.id for failure in failures if failure.code == code]
        more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
        typer.echo(f"left out [{code}]: {', '.join(ids[:_SHOWN])}{more}", err=True)


def load_model(folder: Path, device: Any) -> Checkpoint:
    from sorep.mat2spec.checkpoint import Checkpoint

    loaded = Checkpoint.load(folder, device)
    if loaded.about.result is None:
        typer.echo("warning: the training of this model is not finished", err=True)
    return loaded


def sizes_from(path: Path | None, column: str, inputs: Inputs, id_column: str) -> Any:
    from sorep.mat2spec.sums import read_sizes

    return None if path is None else read_sizes(path, column, inputs.ids, id_column)


def warn(loaded: Checkpoint) -> None:
    for text in loaded.about.result.warnings if loaded.about.result else ():
        typer.echo(f"warning: {text}", err=True)


def print_evaluation(found: Evaluation) -> None:
    from rich.table import Table

    from sorep.mat2spec.report import SIZES, score_rows

    for size in SIZES:
        if any(score.size == size for score in found.scores):
            header, rows = score_rows(found.scores, size)
            shown = Table(*header, title=f"{size}, {len(found.data)} crystals")
            for row in rows:
                shown.add_row(*(cell.text for cell in row))
            print_table(shown)
    n_shared = int(found.is_shared.sum())
    if n_shared:
        typer.echo(
            f"warning: {n_shared} of {len(found.data)} crystals share their formula with a training crystal; they are "
            "not unseen",
            err=True,
        )


@contextmanager
def epoch_progress(total: int, quiet: bool) -> Iterator[Callable[[Epoch], None]]:
    """A bar on a terminal, a line now and then elsewhere."""
    if quiet:
        yield lambda epoch: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as bars:
            task = bars.add_task("epochs", total=total)
            yield lambda epoch: bars.update(task, completed=epoch.epoch, description=f"validation loss {epoch.val:.4g}")
    else:
        tell = now_and_then()
        yield lambda epoch: tell(f"epoch {epoch.epoch}/{total}  validation loss {epoch.val:.4g}")

"""`sorep mat2spec trust` and `gaps`: how far predictions can be relied on, and what they find."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
    data_of_model,
    load_model,
)
from sorep.cli.screen_common import IdColumnOption, print_table


def trust(
    model: ModelOption,
    target: TargetOption,
    store: StoreOption = None,
    structures: StructuresOption = None,
    structure_id_column: StructureIdOption = None,
    column: ColumnOption = "spectrum",
    id_column: IdColumnOption = "id",
    grid: GridOption = None,
    missing: MissingOption = "error",
    out: Annotated[Path, typer.Option(help="Folder of the tables and the figure.")] = Path("mat2spec-trust"),
    device: DeviceOption = "auto",
) -> None:
    """Relate the errors of test crystals to their complexity, to what was like them in training, and to sharp features.

    Example: sorep mat2spec trust --model run --structures cifs/ --target phdos.parquet --grid grid.json --column phdos
    """
    from rich.table import Table

    from sorep.mat2spec.networks import chosen_device
    from sorep.mat2spec.predict import predict
    from sorep.mat2spec.study_figures import write_study
    from sorep.mat2spec.trust import LABELS, correlations, trust_figure, trust_table

    loaded = load_model(model, chosen_device(device))
    data = data_of_model(loaded, target, store, structures, structure_id_column, column, id_column, grid, missing)
    test = data.take(loaded.split.rows("test", data.ids))
    known = data.take(loaded.split.rows("train", data.ids))
    table = trust_table(test, predict(loaded, test.inputs).spectra, known.inputs)
    found = correlations(table)
    shown = Table(
        "of test crystals", "MAE", "WD", "p of WD", title=f"rank correlation of errors, {len(table)} crystals"
    )
    for name, part in found.groupby("descriptor", sort=False):
        by_error = part.set_index("error")
        mae, wd = by_error.loc["mae"], by_error.loc["wd"]
        shown.add_row(LABELS[str(name)], f"{mae['spearman']:.2f}", f"{wd['spearman']:.2f}", f"{wd['p_value']:.2g}")
    print_table(shown)
    tables = {"crystals": table, "correlations": found}
    files = write_study(out, tables, {"trust": trust_figure(table, "wd", data.unit)})
    typer.echo(", ".join(map(str, files)))


def gaps(
    spectra: Annotated[Path, typer.Argument(help="Table of electronic densities of states: .parquet, rows of lists.")],
    grid: Annotated[Path, typer.Option(help="Its bin centres, eV from the edge: the JSON file beside predictions.")],
    column: ColumnOption = "spectrum",
    id_column: IdColumnOption = "id",
    threshold: Annotated[
        float, typer.Option(help="The density stays below it, in its unit; published: 1 state/eV and cell.")
    ] = 1.0,
    width: Annotated[float, typer.Option(help="Least width, eV.")] = 1.0,
    lowest: Annotated[float, typer.Option(help="Least upper edge of the gap, eV.")] = -1.0,
    highest: Annotated[float, typer.Option(help="Largest upper edge of the gap, eV.")] = -0.25,
    show: Annotated[int, typer.Option(min=0, help="How many of the best to show.")] = 20,
    out: Annotated[Path | None, typer.Option(help="Table of all candidates to write: .csv or .parquet.")] = None,
) -> None:
    """Rank materials by how likely their states just below the edge are split off by a gap.

    Those with exactly one gap that fits come first, the widest before; then the others, by the lowest threshold at
    which one could be seen. The default threshold is meant for densities of a cell: compute the feature that a model
    learns with --normalization cell, or scale the threshold.

    Example: sorep mat2spec gaps predicted.parquet --grid predicted.grid.json --column edos
    """
    import numpy as np
    from rich.table import Table

    from sorep.errors import Mat2SpecError
    from sorep.mat2spec.physics import GapRule, rank_gaps
    from sorep.mat2spec.targets import bin_width, read_grid
    from sorep.tables import check_suffix, missing_column, read_table, write_table

    if out is not None:
        check_suffix(out)
    energies, unit = read_grid(grid)
    if unit != "eV":
        raise Mat2SpecError(f"energies in {unit}", code="other-unit", remedy="give densities over energies in eV")
    table = read_table(spectra, id_column)
    if column not in table:
        raise missing_column(column, table, spectra)
    step = bin_width(energies)
    edges = np.append(energies - 0.5 * step, energies[-1] + 0.5 * step)
    rule = GapRule(threshold, width, lowest, highest)
    ranked = rank_gaps(table.index.to_numpy(dtype=str), table[column].tolist(), edges, rule)
    shown = Table(
        "id", "gap (eV)", "ceiling", title=f"{np.count_nonzero(ranked['has_gap'])} of {len(ranked)} have such a gap"
    )
    for row in ranked.head(show).to_dict("records"):
        gap = f"{row['lower']:.2f} to {row['upper']:.2f}" if row["has_gap"] else "-"
        shown.add_row(str(row["id"]), gap, f"{row['ceiling']:.3g}")
    print_table(shown)
    if out is not None:
        write_table(ranked, out)


COMMANDS = (trust, gaps)
"""In the order of the help page."""

"""`sorep list`, `sorep failures`, `sorep export` and `sorep cite`: looking into a store."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from sorep.cli.features import StoreOption


def list_(
    store: StoreOption = Path("sorep-store"),
    structures: Annotated[bool, typer.Option("--structures", help="List the structures too.")] = False,
) -> None:
    """Show what a store holds: features with their identity, structures, runs."""
    from sorep.store import FeatureStore

    opened = FeatureStore(store)
    table = opened.structures()
    typer.echo(f"{store}: {len(table)} structures, {table['content_key'].nunique()} of different content")
    known = opened.identities()
    for (operator, identity), counts in opened.spectrum_flags().items():
        flags = "".join(f", {n} {flag}" for flag, n in counts.most_common() if flag)
        typer.echo(f"spectra of operator {operator}  identity {identity}  {counts['']} spectra{flags}")
    for row in opened.features().to_dict("records"):
        operator = f"operator {row['operator']}  " if row["operator"] else ""
        typer.echo(f"feature {row['name']}  {operator}identity {row['identity']}  {row['n']} vectors")
        words = {k: v for k, v in known[row["identity"]].words.items() if k != "feature"}
        typer.echo("    " + ", ".join(f"{key} {value}" for key, value in words.items()))
    for run in opened.runs().to_dict("records"):
        counts = f"  {run['n_done']:.0f} done, {run['n_failed']:.0f} failed" if run["event"] != "started" else ""
        typer.echo(f"run {run['run_id']}  {run['time']:%Y-%m-%d %H:%M:%S}  {run['event']}{counts}  {run['command']}")
    if structures:
        for row in table.to_dict("records"):
            typer.echo(f"{row['id']}  {row['formula']}  {row['n_atoms']} atoms  {row['source']}")


def failures(
    store: StoreOption = Path("sorep-store"),
    code: Annotated[str | None, typer.Option(help="Only failures with this code.")] = None,
) -> None:
    """List structures without a result: why, and what to do about it."""
    from sorep.store import FeatureStore

    rows = FeatureStore(store).failures().to_dict("records")
    chosen = [row for row in rows if code in (None, row["code"])]
    for row in chosen:
        typer.echo(f"{row['id']}  [{row['code']}] {row['stage']}: {row['message']}")
        typer.echo(f"    {row['source']}\n    remedy: {row['remedy']}")
    counts = ", ".join(f"{n} {name}" for name, n in Counter(row["code"] for row in chosen).most_common())
    typer.echo(f"{len(chosen)} failures" + (f": {counts}" if counts else ""))


def export(
    feature: Annotated[str, typer.Argument(help="Name of a feature in the store, e.g. kinetic.")],
    out: Annotated[Path, typer.Argument(help="File to write: .parquet, .csv, .npz or .h5.")],
    store: StoreOption = Path("sorep-store"),
    operator: Annotated[str | None, typer.Option(help="Where several operators have this feature.")] = None,
    identity: Annotated[str | None, typer.Option(help="First digits, where one name has several identities.")] = None,
) -> None:
    """Write a feature matrix with ids and identity to one file.

    Parquet and CSV hold one row for each id and one column for each energy; NPZ and HDF5 hold values, ids, energies
    (of a descriptor the names of its features) and identity as arrays. The identity of a CSV file goes into a JSON
    file beside it.
    """
    from sorep.store import FeatureStore
    from sorep.store.export import export_matrix

    matrix = FeatureStore(store).matrix(feature, operator=operator, identity=identity)
    export_matrix(matrix, out)
    typer.echo(f"{out}: {matrix.values.shape[0]} structures x {matrix.values.shape[1]} features")


def cite(store: Annotated[Path, typer.Argument(help="Folder of the store.")] = Path("sorep-store")) -> None:
    """Print what to cite for the contents of a store, as BibTeX."""
    from sorep.references import store_references
    from sorep.store import FeatureStore

    entries, remarks = store_references(FeatureStore(store))
    typer.echo("\n\n".join(entries))
    for remark in remarks:
        typer.echo(f"note: {remark}", err=True)

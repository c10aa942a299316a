"""`sorep label`: which materials meet criteria on their properties."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sorep.cli.console import NOTHING_DONE
from sorep.cli.label_run import DEFAULT_STORE, RunOptions, calculate
from sorep.cli.run import (
    ConfigOption,
    DryRunOption,
    KeepCellOption,
    KRoundingOption,
    QuietOption,
    ReferencesOption,
    RetryFailedOption,
    StructureColumnOption,
    SymprecOption,
)
from sorep.cli.single_shot import (
    FamilyOption,
    KeepFailedOption,
    MomentOption,
    MpiOption,
    PwXOption,
    ScratchOption,
    SpinOption,
)

if TYPE_CHECKING:
    import pandas as pd

    from sorep.errors import UsageError
    from sorep.screening.criteria import Criteria


def label(
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Table of properties (.csv, .parquet), one structure a row; or a store of converged calculations; "
            "or, with --run, structures: folders, files and patterns as for `sorep single-shot`.",
        ),
    ],
    criteria: Annotated[
        str, typer.Option(help="transparent-conductor, or a .toml file; see below.")
    ] = "transparent-conductor",
    out: Annotated[Path, typer.Option("--out", "-o", help="Table to write: .csv or .parquet.")] = Path(
        "labels.parquet"
    ),
    id_column: Annotated[
        str | None, typer.Option(help="Column of a table that holds ids. Default: id; any usual name of it with --run.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PROPERTY=COLUMN", help="Column of a property that the table calls otherwise; may be repeated."
        ),
    ] = None,
    ids: Annotated[
        str | None, typer.Option(help="Only these structures: ids with commas between, or a file with one a line.")
    ] = None,
    identity: Annotated[
        str | None, typer.Option(help="First digits, where a store has several kinds of converged calculations.")
    ] = None,
    run: Annotated[
        bool, typer.Option("--run", help="Compute gaps and masses of structures first, by pw.x, into --store.")
    ] = False,
    pw_x: PwXOption = None,
    family: FamilyOption = None,
    store: Annotated[Path | None, typer.Option(help="Folder of the store. Default: sorep-store.")] = None,
    k_spacing: Annotated[
        float | None,
        typer.Option(help="k-point spacing of the self-consistent mesh, 1/Angstrom. Default: 0.15."),
    ] = None,
    k_rounding: KRoundingOption = None,
    line_spacing: Annotated[
        float | None,
        typer.Option(help="Largest distance between neighbouring k points of a line, 1/Angstrom. Default: 0.025."),
    ] = None,
    keep_cell: KeepCellOption = None,
    symprec: SymprecOption = None,
    spin: SpinOption = None,
    moment: MomentOption = [],  # noqa: B006 (typer copies it)
    config: ConfigOption = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Worker processes. Default: all cores.")
    ] = None,
    mpi: MpiOption = None,
    timeout: Annotated[float | None, typer.Option(help="Time limit of one run of pw.x, s. Default: 3600.")] = None,
    silence: Annotated[
        float | None, typer.Option(help="Longest time without a line of output, s. Default: 1800.")
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(help="Memory limit of one run, GiB. Default: 80 % of the machine's, divided by --jobs."),
    ] = None,
    scratch: ScratchOption = None,
    keep_failed: KeepFailedOption = None,
    min_distance: Annotated[
        float | None, typer.Option(help="Refuse structures with atoms closer than this, Angstrom. Default: 0.5.")
    ] = None,
    max_atoms: Annotated[
        int | None, typer.Option(min=1, help="Refuse structures with more atoms. Default: 500.")
    ] = None,
    structure_column: StructureColumnOption = None,
    retry_failed: RetryFailedOption = False,
    references: ReferencesOption = None,
    dry_run: DryRunOption = False,
    quiet: QuietOption = False,
) -> None:
    """Label materials as candidates by thresholds on their properties.

    The criteria transparent-conductor are those of the SOREP paper: gap > 0.5 eV, and electron mass <= 0.5 or hole mass
    <= 1.0 (in electron masses, both positive). Others come from a file like

        all = ["gap > 0.5"]

        any = ["electron_mass <= 0.5", "hole_mass <= 1.0"]

    The written table holds id, the properties and label. A label is given where the properties that are there decide
    it, whatever the missing ones are; otherwise it is missing too.

        sorep label properties.csv

        sorep label bands.parquet --id-column material_id --column gap=gap_pbe_eV --out labels.csv

    Without such a table, --run computes one: a self-consistent calculation by pw.x, patched or not, and for insulators
    the bands along high-symmetry lines. What is in the store already is not computed again; options from --pw-x on
    belong to --run alone.

        sorep label structures/ --run --dry-run    # what it would cost

        sorep label structures/ --run --jobs 2 --ids si,mgo

        sorep label sorep-store --criteria mine.toml    # label what is there

    Exit status: 0 all done; 3 done, some calculations failed; 2 wrong usage; 1 nothing could be done.
    """
    from sorep.screening.criteria import get_criteria
    from sorep.tables import DEFAULT_ID_COLUMN, check_suffix, write_table

    options = RunOptions(
        pw_x=pw_x,
        family=family,
        store=store,
        k_spacing=k_spacing,
        k_rounding=k_rounding,
        line_spacing=line_spacing,
        keep_cell=keep_cell,
        symprec=symprec,
        spin=spin,
        moment=moment,
        config=config,
        jobs=jobs,
        mpi=mpi,
        timeout=timeout,
        silence=silence,
        memory=memory,
        scratch=scratch,
        keep_failed=keep_failed,
        min_distance=min_distance,
        max_atoms=max_atoms,
        structure_column=structure_column,
        retry_failed=retry_failed,
        references=references,
        dry_run=dry_run,
        quiet=quiet,
    )
    check_suffix(out)
    chosen, asked, status = get_criteria(criteria), _ids(ids), 0
    if run:
        _refuse({"--column": column, "--identity": identity}, "it is for what is computed already")
        _of_store_only(chosen)
        status, kind = calculate(source, options, id_column, asked)
        if dry_run or status == NOTHING_DONE:
            raise typer.Exit(status)
        properties = _of_store(store or DEFAULT_STORE, kind)
        if asked is not None:  # some may have failed
            properties = properties.loc[properties.index.isin(asked)]
    else:
        _refuse(dict.fromkeys(options.given(), True), "add --run, or leave it out")
        path = _one(source)
        if path.is_dir():
            _refuse({"--column": column, "--id-column": id_column}, "it is for tables")
            _of_store_only(chosen)
            properties = _of_store(path, identity)
        else:
            _refuse({"--identity": identity}, "it is for stores")
            if out.resolve() == path.resolve():
                raise _bad_option(f"--out {out} is the table of properties", "give the labels a file of their own")
            properties = _of_table(path, chosen, id_column or DEFAULT_ID_COLUMN, _renamed(column or [], chosen))
        properties = _chosen(properties, asked)
    labels = chosen.apply(properties)
    write_table(properties.assign(label=labels).reset_index(), out)
    _summarise(chosen, properties.loc[:, chosen.properties], labels, out)
    if status:
        raise typer.Exit(status)


def _ids(text: str | None) -> list[str] | None:
    """What --ids names."""
    if text is None:
        return None
    path = Path(text)
    words = path.read_text().splitlines() if path.is_file() else text.split(",")
    found = list(dict.fromkeys(word.strip() for word in words if word.strip()))
    if not found:
        raise _bad_option(f"--ids {text!r} names nothing", "give ids with commas between, or a file with one a line")
    return found


def _one(source: list[str]) -> Path:
    if len(source) > 1:
        raise _bad_option(f"{len(source)} sources", "give one table or store, or add --run to compute structures")
    return Path(source[0])


def _refuse(options: dict[str, object], remedy: str) -> None:
    given = [name for name, value in options.items() if value]
    if given:
        raise _bad_option(f"{', '.join(given)} has no effect here", remedy)


def _of_store_only(criteria: Criteria) -> None:
    """Refuse criteria on what no calculation gives, before any is made."""
    from sorep.screening.stored import Properties

    unknown = [name for name in criteria.properties if name not in Properties._fields]
    if unknown:
        known = ", ".join(name for name in Properties._fields if name != "flags")
        raise _bad_option(f"{criteria.name} compares {', '.join(unknown)}", f"calculations give {known}")


def _of_store(path: Path, identity: str | None) -> pd.DataFrame:
    """The properties of all converged calculations of a store, by id."""
    from sorep.screening.stored import store_properties
    from sorep.store import FeatureStore

    return store_properties(FeatureStore(path), identity)


def _chosen(properties: pd.DataFrame, ids: list[str] | None) -> pd.DataFrame:
    from sorep.errors import UsageError

    if ids is None:
        return properties
    missing = [id for id in ids if id not in properties.index]
    if missing:
        raise UsageError(
            f"{len(missing)} of the ids asked for are not there, the first of them {missing[0]!r}",
            code="no-such-id",
            remedy="check their spelling, and --id-column",
        )
    return properties.loc[ids]


def _of_table(path: Path, criteria: Criteria, id_column: str, columns: dict[str, str]) -> pd.DataFrame:
    """The properties that the criteria compare, by id."""
    import pandas as pd

    from sorep.tables import numbers, read_table

    table = read_table(path, id_column)
    return pd.DataFrame({name: numbers(table, columns.get(name, name), path) for name in criteria.properties})


def _renamed(given: list[str], criteria: Criteria) -> dict[str, str]:
    """Property to column."""
    columns: dict[str, str] = {}
    for text in given:
        name, separator, column = text.partition("=")
        if not (separator and column) or name not in criteria.properties or name in columns:
            raise _bad_option(
                f"--column {text}", f"write PROPERTY=COLUMN, once each of {', '.join(criteria.properties)}"
            )
        columns[name] = column
    return columns


def _summarise(criteria: Criteria, properties: pd.DataFrame, labels: pd.Series, out: Path) -> None:
    typer.echo(f"{criteria.name}: {criteria}")
    n_true, n_false, n_open = int(labels.sum()), int((~labels).sum()), int(labels.isna().sum())
    typer.echo(f"{out}: {n_true} true, {n_false} false, {n_open} undecided")
    if n_open:
        missing = {name: int((labels.isna() & properties[name].isna()).sum()) for name in properties}
        lacking = ", ".join(f"{name} ({count})" for name, count in missing.items() if count)
        typer.echo(f"undecided for want of {lacking}", err=True)


def _bad_option(what: str, remedy: str) -> UsageError:
    from sorep.errors import UsageError

    return UsageError(what, code="bad-option", remedy=remedy)

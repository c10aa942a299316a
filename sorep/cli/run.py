"""What every command that computes has in common: its options, the run with progress, the dry run, the summary."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sorep.cli.console import (
    INTERRUPTED,
    NOTHING_DONE,
    SOME_FAILED,
    duration,
    progress_display,
    terminate_as_interrupt,
)

if TYPE_CHECKING:
    from sorep.descriptors import Descriptor
    from sorep.engine import Engine, Limits
    from sorep.errors import Failure
    from sorep.features import FeatureSpec
    from sorep.featurize import Outlook
    from sorep.intake import Acceptance
    from sorep.ledger import Progress
    from sorep.method import Method
    from sorep.sources import Item

PathsArgument = Annotated[
    list[str],
    typer.Argument(
        help="Folders (searched recursively), files and patterns: CIF, POSCAR, (ext)xyz, ASE and pymatgen JSON, "
        "ASE databases; Parquet, CSV and JSON-lines tables with a CIF column or lattice, species and coordinates."
    ),
]
JobsOption = Annotated[int, typer.Option("--jobs", "-j", min=0, help="Worker processes. Default: all cores.")]
KRoundingOption = Annotated[str | None, typer.Option(help="ceil (default) or round.")]
KeepCellOption = Annotated[
    bool | None,
    typer.Option("--keep-cell", help="Compute in the cell as given, not in the primitive Niggli cell."),
]
SymprecOption = Annotated[float | None, typer.Option(help="Tolerance of the symmetry search, Angstrom.")]
ConfigOption = Annotated[
    Path | None,
    typer.Option(help="TOML file with any of these settings (k_spacing = 0.1, features = [...]); flags win."),
]
MinDistanceOption = Annotated[float, typer.Option(help="Refuse structures with atoms closer than this, Angstrom.")]
MaxAtomsOption = Annotated[int, typer.Option(help="Refuse structures with more atoms.")]
IdColumnOption = Annotated[str | None, typer.Option(help="Column of a table that names the structures.")]
StructureColumnOption = Annotated[
    str | None, typer.Option(help="Column of a table that holds CIF, POSCAR or JSON text.")
]
RetryFailedOption = Annotated[
    bool, typer.Option("--retry-failed", help="Try again what failed before with the same settings.")
]
ReferencesOption = Annotated[
    Path | None, typer.Option(help="BibTeX file to cite for the structures; `sorep cite` prints it.")
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Show size, cost and refusals of every structure and what is there, and compute nothing."
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no list, only the summary.")]


def run_or_estimate(
    items: list[Item],
    method: Method,
    specs: list[FeatureSpec],
    store: Path,
    *,
    jobs: int,
    limits: Limits,
    acceptance: Acceptance,
    initializer: Callable[[], object],
    dry_run: bool,
    retry_failed: bool,
    references: list[str],
    quiet: bool,
) -> int:
    """Compute into the store, or list what that would cost; returns the exit status of the command."""
    from sorep.engine import LocalEngine
    from sorep.featurize import featurize

    start = time.monotonic()
    with LocalEngine(jobs, limits, initializer=initializer) as engine, terminate_as_interrupt():
        if dry_run:
            return _dry_run(items, method, store, acceptance, engine, jobs, quiet)
        with _interruptible(store, quiet) as show:
            progress = featurize(
                items,
                method,
                specs,
                store,
                engine,
                acceptance=acceptance,
                retry_failed=retry_failed,
                command=" ".join(sys.argv),
                references=references,
                on_progress=show,
                on_planned=lambda outlook: _announce(outlook, jobs, quiet),
            )
    return _summarise(progress, store, time.monotonic() - start)


def describe_or_check(
    items: list[Item],
    descriptor: Descriptor,
    store: Path,
    *,
    jobs: int,
    limits: Limits,
    acceptance: Acceptance,
    dry_run: bool,
    retry_failed: bool,
    references: list[str],
    quiet: bool,
) -> int:
    """The same for a descriptor of structures, whose dry run computes and forgets: that costs less than reading."""
    from sorep.describe import describe, warm_up
    from sorep.engine import LocalEngine

    start = time.monotonic()
    with LocalEngine(jobs, limits, initializer=partial(warm_up, descriptor)) as engine, terminate_as_interrupt():
        if dry_run:
            return _check(items, descriptor, acceptance, engine, quiet)
        with _interruptible(store, quiet) as show:
            progress = describe(
                items,
                descriptor,
                store,
                engine,
                acceptance=acceptance,
                retry_failed=retry_failed,
                command=" ".join(sys.argv),
                references=references,
                on_progress=show,
            )
    return _summarise(progress, store, time.monotonic() - start)


@contextmanager
def _interruptible(store: Path, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """A display of progress; an interrupt ends the command with its own exit status."""
    try:
        with progress_display(quiet) as show:
            yield show
    except KeyboardInterrupt:
        typer.echo(
            f"interrupted: everything finished so far is in {store}; the same command goes on from there", err=True
        )
        raise typer.Exit(INTERRUPTED) from None


def _announce(outlook: Outlook, jobs: int, quiet: bool) -> None:
    for reason, number in outlook.refused.most_common():
        typer.echo(f"refused, {number} structures: {reason}", err=True)
    if not quiet and outlook.n_structures:
        left = duration(outlook.seconds / jobs)
        typer.echo(f"{outlook.n_structures} structures to compute, about {left} on {jobs} cores", err=True)


def _summarise(progress: Progress, store: Path, seconds: float) -> int:
    rate = f", {progress.computed / seconds:.1f} structures/s" if progress.computed else ""
    typer.echo(
        f"{progress.done} structures in {store}: {progress.computed} computed, {progress.shared} share another's, "
        f"{progress.stored_before} were there ({duration(seconds)}{rate})"
    )
    if progress.all_failed or progress.incomplete:
        codes = ", ".join(f"{n} {code}" for code, n in progress.codes.most_common())
        lacking = f", {progress.incomplete} lack a feature" if progress.incomplete else ""
        typer.echo(f"{progress.all_failed} failed{lacking}: {codes}. See `sorep failures --store {store}`", err=True)
        return SOME_FAILED if progress.done else NOTHING_DONE
    return 0


def read_config(path: Path | None) -> tuple[dict[str, Any], list[str]]:
    """Settings and feature names of a configuration file; nothing without one."""
    import tomllib

    from sorep.errors import UsageError

    options: dict[str, Any] = {}
    if path is not None:
        try:
            options = tomllib.loads(path.read_text())
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"cannot read {path}: {error}", code="bad-config", remedy="give a TOML file") from None
    features = options.pop("features", [])
    if not (isinstance(features, list) and all(isinstance(name, str) for name in features)):
        raise UsageError(
            f"{path}: features is {features!r}", code="bad-config", remedy='give a list, features = ["kinetic"]'
        )
    return options, features


def memory_bytes(gibibytes: float | None, jobs: int) -> int:
    """Memory limit of one structure: as asked for, else 80 % of the machine's divided by the number of jobs."""
    from sorep.errors import UsageError

    if gibibytes is not None:
        if not 0 < gibibytes < float("inf"):
            raise UsageError(f"--memory {gibibytes:g}", code="bad-option", remedy="give a number of GiB above zero")
        return int(gibibytes * 2**30)
    return int(0.8 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / jobs)


def read_bibtex(path: Path | None) -> list[str]:
    """The entries of a BibTeX file; nothing without one."""
    from sorep.errors import UsageError

    if path is None:
        return []
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}", code="bad-references", remedy="give a BibTeX file") from None
    entries = ["@" + part.strip() for part in re.split(r"(?m)^\s*@", text)[1:]]
    if not entries:
        raise UsageError(f"{path} holds no BibTeX entry", code="bad-references", remedy="give a BibTeX file")
    return entries


def _dry_run(
    items: list[Item], method: Method, store: Path, acceptance: Acceptance, engine: Engine, jobs: int, quiet: bool
) -> int:
    """A line for each structure: what it would cost, or why it would be refused; then the total."""
    from sorep.errors import Failure
    from sorep.featurize import estimate

    accepted = refused = stored = 0
    seconds = peak = 0.0
    show = (lambda _: None) if quiet else typer.echo
    show(f"{'id':<32} {'formula':<16} {'functions':>9} {'k points':>8} {'memory':>10} {'time':>9}")
    for name, formula, answer in estimate(items, method, engine, store=store, acceptance=acceptance):
        if answer is None:
            stored += 1
            show(f"{name:<32} {formula:<16} there already")
            continue
        if isinstance(answer, Failure):
            refused += 1
            show(_refusal(name, answer))
            continue
        accepted += 1
        seconds += answer.seconds
        peak = max(peak, answer.memory_bytes)
        memory = f"{answer.memory_bytes / 2**20:.0f} MiB"
        cost = f"{answer.n_functions:>9} {answer.n_kpoints:>8} {memory:>10} {duration(answer.seconds):>9}"
        show(f"{name:<32} {formula:<16} {cost}")
    there = f", {stored} are in {store}" if stored else ""
    typer.echo(
        f"{accepted + stored + refused} structures: {accepted} would be computed in about {duration(seconds / jobs)} "
        f"on {jobs} cores (at most {peak / 2**20:.0f} MiB each){there}, {refused} would be refused"
    )
    return _status(accepted + stored, refused)


def _check(items: list[Item], descriptor: Descriptor, acceptance: Acceptance, engine: Engine, quiet: bool) -> int:
    """A line for each structure: that it can be described, or why not; then the total."""
    from sorep.descriptors import identity_of
    from sorep.errors import Failure
    from sorep.featurize import map_structures

    identity_of(descriptor)  # finds a missing package before any structure does
    accepted = refused = 0
    show = (lambda _: None) if quiet else typer.echo
    show(f"{'id':<32} {'formula':<16} {'features':>9}")
    for structure, answer in map_structures(descriptor.compute, items, engine, acceptance=acceptance):
        if isinstance(answer, Failure):
            refused += 1
            show(_refusal(answer.id, answer))
        elif structure is not None:
            accepted += 1
            show(f"{structure.id:<32} {structure.formula:<16} {len(answer):>9}")
    typer.echo(f"{accepted + refused} structures: {accepted} have a {descriptor.name} descriptor, {refused} refused")
    return _status(accepted, refused)


def _refusal(name: str, failure: Failure) -> str:
    return f"{name:<32} refused [{failure.code}] {failure.message}. Remedy: {failure.remedy}"


def _status(accepted: int, refused: int) -> int:
    if refused:
        return SOME_FAILED if accepted else NOTHING_DONE
    return 0

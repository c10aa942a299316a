"""`sorep featurize`."""

from __future__ import annotations

import os
import re
import sys
import time
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
from sorep.cli.features import (
    FeatureOption,
    NormalizationOption,
    SamplingOption,
    SmearingOption,
    StoreOption,
    WidthOption,
    WindowOption,
    chosen_specs,
)

if TYPE_CHECKING:
    from sorep.features import FeatureSpec
    from sorep.featurize import Progress
    from sorep.intake import Acceptance
    from sorep.kinetic.method import KineticSettings
    from sorep.sources import Item

JobsOption = Annotated[int, typer.Option("--jobs", "-j", min=0, help="Worker processes. Default: all cores.")]


def featurize(
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Folders (searched recursively), files and patterns: CIF, POSCAR, (ext)xyz, ASE and pymatgen JSON, "
            "ASE databases; Parquet, CSV and JSON-lines tables with a CIF column or lattice, species and coordinates."
        ),
    ],
    operator: Annotated[str | None, typer.Option(help="kinetic (default) or overlap.")] = None,
    store: StoreOption = Path("sorep-store"),
    feature: FeatureOption = [],  # noqa: B006 (typer copies it)
    window: WindowOption = [],  # noqa: B006
    width: WidthOption = None,
    smearing: SmearingOption = None,
    normalization: NormalizationOption = None,
    sampling: SamplingOption = None,
    basis: Annotated[
        str | None,
        typer.Option(
            help="ano-ml-os (default), ano-ml-os-published, ano-ml-ae, a Basis Set Exchange name, "
            "or an NWChem file (.nw)."
        ),
    ] = None,
    discard_below: Annotated[
        float | None, typer.Option(help="Drop primitives with smaller exponents, Bohr^-2. Default: keep all.")
    ] = None,
    k_spacing: Annotated[float | None, typer.Option(help="k-point spacing, 1/Angstrom. Default: 0.2.")] = None,
    k_rounding: Annotated[str | None, typer.Option(help="ceil (default) or round.")] = None,
    keep_cell: Annotated[
        bool | None,
        typer.Option("--keep-cell", help="Compute in the cell as given, not in the primitive Niggli cell."),
    ] = None,
    symprec: Annotated[float | None, typer.Option(help="Tolerance of the symmetry search, Angstrom.")] = None,
    preset: Annotated[
        str,
        typer.Option(help="default, or published: the published recipe of basis, mesh, cell and density of states."),
    ] = "default",
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file with any of these settings (k_spacing = 0.1, features = [...]); flags win."),
    ] = None,
    jobs: JobsOption = 0,
    timeout: Annotated[float, typer.Option(help="Time limit for one structure, seconds.")] = 3600.0,
    memory: Annotated[
        float | None,
        typer.Option(help="Memory limit for one structure, GiB. Default: 80 % of the machine's, divided by --jobs."),
    ] = None,
    min_distance: Annotated[float, typer.Option(help="Refuse structures with atoms closer than this, Angstrom.")] = 0.5,
    max_atoms: Annotated[int, typer.Option(help="Refuse structures with more atoms.")] = 500,
    id_column: Annotated[str | None, typer.Option(help="Column of a table that names the structures.")] = None,
    structure_column: Annotated[
        str | None, typer.Option(help="Column of a table that holds CIF, POSCAR or JSON text.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what failed before with the same settings.")
    ] = False,
    references: Annotated[
        Path | None, typer.Option(help="BibTeX file to cite for the structures; `sorep cite` prints it.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show size, cost and refusals of every structure, and compute nothing."),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no list, only the summary.")] = False,
) -> None:
    """Compute spectra and features of many structures into a store.

    A rerun over the same input does only what is missing; a killed run loses at most its last uncommitted seconds. A
    structure that cannot be computed costs one row of `sorep failures` and nothing else.

    Exit status: 0 all done; 3 done, some structures failed; 2 wrong usage; 1 nothing could be done.
    """
    from sorep.engine import Limits, LocalEngine
    from sorep.featurize import featurize as run
    from sorep.intake import Acceptance
    from sorep.sources import find_items

    flags = {
        "operator": operator,
        "basis": basis,
        "discard_below": discard_below,
        "k_spacing": k_spacing,
        "k_rounding": k_rounding,
        "keep_cell": keep_cell,
        "symprec": symprec,
    }
    settings, configured = _settings(flags, preset, config)
    overrides = {"width": width, "smearing": smearing, "normalization": normalization, "sampling": sampling}
    specs = chosen_specs(feature or configured, window, overrides, settings.operator, preset)
    cites = _bibtex(references)
    items = list(find_items(paths, id_column=id_column, structure_column=structure_column))
    _refuse_what_cannot_be(settings, specs)
    jobs = jobs or os.cpu_count() or 1
    limits = Limits(timeout, _memory_bytes(memory, jobs))
    acceptance = Acceptance(min_distance, max_atoms)
    start = time.monotonic()
    with LocalEngine(jobs, limits, initializer=_warm_up) as engine, terminate_as_interrupt():
        if dry_run:
            _dry_run(items, settings, acceptance, engine, jobs, quiet)
            return
        try:
            with progress_display(quiet) as show:
                progress = run(
                    items,
                    settings,
                    specs,
                    store,
                    engine,
                    acceptance=acceptance,
                    retry_failed=retry_failed,
                    command=" ".join(sys.argv),
                    references=cites,
                    on_progress=show,
                )
        except KeyboardInterrupt:
            typer.echo(
                f"interrupted: everything finished so far is in {store}; the same command goes on from there", err=True
            )
            raise typer.Exit(INTERRUPTED) from None
    _summarise(progress, store, time.monotonic() - start)


def _summarise(progress: Progress, store: Path, seconds: float) -> None:
    rate = f", {progress.computed / seconds:.1f} structures/s" if progress.computed else ""
    typer.echo(
        f"{progress.done} structures in {store}: {progress.computed} computed, {progress.shared} share another's, "
        f"{progress.stored_before} were there ({duration(seconds)}{rate})"
    )
    if progress.all_failed or progress.incomplete:
        codes = ", ".join(f"{n} {code}" for code, n in progress.codes.most_common())
        lacking = f", {progress.incomplete} lack a feature" if progress.incomplete else ""
        typer.echo(f"{progress.all_failed} failed{lacking}: {codes}. See `sorep failures --store {store}`", err=True)
        raise typer.Exit(SOME_FAILED if progress.done else NOTHING_DONE)


def _refuse_what_cannot_be(settings: KineticSettings, specs: list[FeatureSpec]) -> None:
    """Find an unknown basis, and grids that no spectrum of this kind can fill, before any worker starts."""
    from sorep.errors import BasisError, UsageError

    try:
        settings.load_basis()
    except BasisError as error:
        raise UsageError(error.message, code=error.code, stage=error.stage, remedy=error.remedy) from None
    anchored = [spec.name for spec in specs if spec.is_anchored]
    if anchored and not settings.counts_electrons:
        raise UsageError(
            f"feature {anchored[0]!r} is anchored at band edges, and {settings.operator} spectra have no electrons",
            code="no-electrons",
            remedy="choose a grid with absolute energies",
        )


def _warm_up() -> None:
    """Slow imports, once in every worker."""
    import spglib  # noqa: F401
    from pymatgen.io.cif import CifParser  # noqa: F401

    import sorep.kinetic.method  # noqa: F401


def _memory_bytes(gibibytes: float | None, jobs: int) -> int:
    from sorep.errors import UsageError

    if gibibytes is not None:
        if not 0 < gibibytes < float("inf"):
            raise UsageError(f"--memory {gibibytes:g}", code="bad-option", remedy="give a number of GiB above zero")
        return int(gibibytes * 2**30)
    return int(0.8 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / jobs)


def _settings(flags: dict[str, Any], preset: str, config: Path | None) -> tuple[KineticSettings, list[str]]:
    """Settings from preset, configuration file and flags, the later ones winning; and the file's features."""
    import tomllib

    from sorep.errors import UsageError
    from sorep.kinetic.method import KineticSettings

    options: dict[str, Any] = {}
    if config is not None:
        try:
            options = tomllib.loads(config.read_text())
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"cannot read {config}: {error}", code="bad-config", remedy="give a TOML file") from None
    features = options.pop("features", [])
    if not (isinstance(features, list) and all(isinstance(name, str) for name in features)):
        raise UsageError(
            f"{config}: features is {features!r}", code="bad-config", remedy='give a list, features = ["kinetic"]'
        )
    options |= {name: value for name, value in flags.items() if value is not None}
    if preset not in ("default", "published"):
        raise UsageError(f"unknown preset {preset!r}", code="bad-option", remedy="choose default or published")
    make = KineticSettings.published if preset == "published" else KineticSettings.checked
    return make(**options), features


def _bibtex(path: Path | None) -> list[str]:
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
    items: list[Item], settings: KineticSettings, acceptance: Acceptance, engine: Any, jobs: int, quiet: bool
) -> None:
    """A line for each structure: what it would cost, or why it would be refused; then the total."""
    from sorep.errors import Failure
    from sorep.featurize import estimate

    total = accepted = refused = 0
    seconds = peak = 0.0
    show = (lambda _: None) if quiet else typer.echo
    show(f"{'id':<32} {'formula':<16} {'functions':>9} {'k points':>8} {'memory':>10} {'time':>9}")
    for name, formula, answer in estimate(items, settings, engine, acceptance=acceptance):
        total += 1
        if isinstance(answer, Failure):
            refused += 1
            show(f"{name:<32} refused [{answer.code}] {answer.message}. Remedy: {answer.remedy}")
            continue
        accepted += 1
        seconds += answer.seconds
        peak = max(peak, answer.memory_bytes)
        memory = f"{answer.memory_bytes / 2**20:.0f} MiB"
        cost = f"{answer.n_functions:>9} {answer.n_kpoints:>8} {memory:>10} {duration(answer.seconds):>9}"
        show(f"{name:<32} {formula:<16} {cost}")
    typer.echo(
        f"{total} structures: {accepted} would be computed in about {duration(seconds / jobs)} on {jobs} cores "
        f"(at most {peak / 2**20:.0f} MiB each), {refused} would be refused"
    )
    if total and not accepted:
        raise typer.Exit(NOTHING_DONE)
    if refused:
        raise typer.Exit(SOME_FAILED)

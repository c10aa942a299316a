"""`sorep bands`."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sorep.cli.console import (
    INTERRUPTED,
    NOTHING_DONE,
    SOME_FAILED,
    progress_display,
    terminate_as_interrupt,
)
from sorep.cli.featurize import BasisOption, DiscardBelowOption, refuse_unknown_basis
from sorep.cli.run import (
    ConfigOption,
    IdColumnOption,
    JobsOption,
    KeepCellOption,
    MaxAtomsOption,
    MinDistanceOption,
    PathsArgument,
    QuietOption,
    StructureColumnOption,
    SymprecOption,
    memory_bytes,
    read_config,
)
from sorep.cli.single_shot import (
    RETRIES_AND_READING,
    FamilyOption,
    KeepFailedOption,
    MomentOption,
    MpiOption,
    PwXOption,
    ScratchOption,
    SpinOption,
    SupercellOption,
    ready_to_run,
    starting_moments,
)

if TYPE_CHECKING:
    from sorep.bands import BandStructure
    from sorep.engine import LocalEngine
    from sorep.errors import UsageError
    from sorep.intake import Acceptance
    from sorep.kinetic.method import KineticSettings
    from sorep.ledger import Progress
    from sorep.single_shot.method import SingleShot, SingleShotSettings
    from sorep.sources import Item
    from sorep.structure import Structure

SINGLE_SHOT = "single-shot"


class Picture(StrEnum):
    """Formats of pictures."""

    png = "png"
    pdf = "pdf"
    svg = "svg"


def bands(
    paths: PathsArgument,
    operator: Annotated[
        str | None, typer.Option(help="kinetic (default), overlap, or single-shot: Kohn-Sham bands by one run of pw.x.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the files; made where missing.")] = Path(
        "sorep-bands"
    ),
    picture: Annotated[Picture, typer.Option("--format", help="Format of the pictures.")] = Picture.png,
    csv: Annotated[bool, typer.Option("--csv", help="Write the numbers as a table too, for other programs.")] = False,
    line_spacing: Annotated[
        float, typer.Option(help="Largest distance between neighbouring k points of a line, 1/Angstrom.")
    ] = 0.02,
    window: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="LOWEST HIGHEST",
            help="Energies to draw, eV, from the band edge, the Fermi energy or (kinetic) zero. Files hold all bands. "
            "Default: -10 10 where there are electrons, else all.",
        ),
    ] = None,
    symprec: SymprecOption = None,
    keep_cell: KeepCellOption = None,
    basis: BasisOption = None,
    discard_below: DiscardBelowOption = None,
    pw_x: PwXOption = None,
    family: FamilyOption = None,
    k_spacing: Annotated[
        float | None,
        typer.Option(help="Single shot: spacing of the mesh for band edges and Fermi level, 1/Angstrom. Default: 0.1."),
    ] = None,
    spin: SpinOption = None,
    moment: MomentOption = [],  # noqa: B006 (typer copies it)
    supercell: SupercellOption = None,
    mpi: MpiOption = None,
    scratch: ScratchOption = None,
    keep_failed: KeepFailedOption = None,
    config: ConfigOption = None,
    jobs: JobsOption = 0,
    timeout: Annotated[
        float, typer.Option(help="Time limit for one structure (single shot: one run of pw.x), seconds.")
    ] = 3600.0,
    memory: Annotated[
        float | None,
        typer.Option(help="Memory limit for one structure, GiB. Default: 80 % of the machine's, divided by --jobs."),
    ] = None,
    min_distance: MinDistanceOption = 0.5,
    max_atoms: MaxAtomsOption = 500,
    id_column: IdColumnOption = None,
    structure_column: StructureColumnOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show lines and number of k points of every structure; compute nothing.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Compute and draw band structures along high-symmetry lines.

    The lines are those of Hinuma et al., Comput. Mater. Sci. 128, 140 (2017), found by seekpath. Every structure gives
    ID.png, the picture, and ID.npz, the numbers, which sorep.BandStructure.read reads. Existing files are replaced.

        sorep bands si.cif                          # kinetic energy

        sorep bands si.cif --operator single-shot   # Kohn-Sham, by pw.x

        sorep bands structures/ --dry-run           # which lines, how many k

        sorep bands structures/ -o bands --format pdf --csv

    Single-shot bands are interpolated from Hamiltonians on a coarse mesh, which needs the patched pw.x of
    `sorep pw build`. A structure whose orbitals reach too far for its coarse mesh fails in the stage "interpolation";
    a larger --supercell helps. Energies are drawn from the valence band maximum, or the Fermi energy of a metal, both
    found on a dense mesh; the lines need not pass through the band edges.

    Exit status: 0 all done; 3 done, some structures failed; 2 wrong usage; 1 nothing could be done.
    """
    from sorep.engine import Limits, LocalEngine
    from sorep.intake import Acceptance
    from sorep.kinetic.method import KineticSettings
    from sorep.kinetic.operators import OPERATORS
    from sorep.single_shot.method import SingleShotSettings
    from sorep.single_shot.process import ProcessLimits
    from sorep.sources import find_items

    if not 0 < line_spacing < float("inf"):
        raise _bad_option(f"--line-spacing {line_spacing:g}", "give 1/Angstrom > 0")
    if window is not None and not window[0] < window[1]:
        raise _bad_option(f"--window {window[0]:g} {window[1]:g}", "give the lower energy first")
    options, features = read_config(config)
    if features:
        raise _bad_option(f"{config} names features, and bands have none", "leave them out")
    configured = options.pop("operator", "kinetic")
    operator = operator or configured
    if operator not in (*OPERATORS, SINGLE_SHOT):
        raise _bad_option(f"unknown operator {operator!r}", f"choose from {', '.join((*OPERATORS, SINGLE_SHOT))}")
    is_single_shot = operator == SINGLE_SHOT
    machine = {"pw_x": pw_x, "mpi": mpi, "scratch": scratch, "keep_failed": keep_failed}
    of_kinetic = {"basis": basis, "discard_below": discard_below}
    of_single_shot = {
        "family": family,
        "k_spacing": k_spacing,
        "spin": spin,
        "moment": starting_moments(moment),
        "supercell": supercell,
    }
    _refuse(of_kinetic if is_single_shot else of_single_shot | machine, is_single_shot)
    flags = {"symprec": symprec, "keep_cell": keep_cell, **(of_single_shot if is_single_shot else of_kinetic)}
    if is_single_shot:
        flags["moments"] = flags.pop("moment")
    options |= {name: value for name, value in flags.items() if value is not None}
    jobs = jobs or os.cpu_count() or 1
    bytes_each = memory_bytes(memory, jobs)
    if is_single_shot:
        settings = SingleShotSettings.checked(**options)
        settings.load_family()
        limits = Limits(timeout * RETRIES_AND_READING)
        method = ready_to_run(settings, ProcessLimits(timeout, bytes_each), **machine, quiet=quiet)
    else:
        settings = KineticSettings.checked(**{**options, "operator": operator})
        refuse_unknown_basis(settings)
        limits = Limits(timeout, bytes_each)
        method = nullcontext(settings)
    items = list(find_items(paths, id_column=id_column, structure_column=structure_column))
    acceptance = Acceptance(min_distance, max_atoms)
    with method as ready, LocalEngine(jobs, limits, initializer=_warm_up) as engine, terminate_as_interrupt():
        job = _Job(ready, settings, line_spacing, None if dry_run else out, picture.value, csv, window)
        progress = _run(job, items, acceptance, engine, quiet)
    typer.echo(f"{progress.done} band structures" + (" would be computed" if dry_run else f" in {out}"))
    if progress.failed:
        codes = ", ".join(f"{n} {code}" for code, n in progress.codes.most_common())
        typer.echo(f"{progress.failed} {'would be refused' if dry_run else 'failed'}: {codes}", err=True)
        raise typer.Exit(SOME_FAILED if progress.done else NOTHING_DONE)


@dataclass(frozen=True)
class _Job:
    """What a worker does with each structure: draw it, or tell its lines where there is no folder to draw into."""

    method: KineticSettings | SingleShot
    settings: KineticSettings | SingleShotSettings
    line_spacing: float
    folder: Path | None
    suffix: str
    csv: bool
    window: tuple[float, float] | None

    def __call__(self, structure: Structure) -> str:
        """A line for the user."""
        return self._lines(structure) if self.folder is None else self._draw(structure, self.folder)

    def _lines(self, structure: Structure) -> str:
        from sorep.band_path import band_path
        from sorep.cells import canonical_cell

        self.method.estimate(structure)  # refuses what could not be computed
        cell = canonical_cell(structure, symprec=self.settings.symprec, keep_cell=self.settings.keep_cell)
        path = band_path(cell, self.line_spacing)
        return f"{len(path):>5} k points  {path.route}"

    def _draw(self, structure: Structure, folder: Path) -> str:
        from sorep.bands import band_structure
        from sorep.plotting import plot_bands
        from sorep.single_shot.scratch import file_name

        settings = self.settings
        bands = band_structure(
            self.method,
            structure,
            self.line_spacing,
            k_spacing=settings.k_spacing,
            k_rounding=settings.k_rounding,
        )
        path = folder / file_name(structure.id)
        bands.write(f"{path}.npz")
        if self.csv:
            bands.write_csv(f"{path}.csv")
        plot_bands(bands, f"{path}.{self.suffix}", window=self.window)
        remarks = f"  ({', '.join(bands.flags)})" if bands.flags else ""
        return (
            f"{len(bands.path):>5} k points  {bands.n_bands:>4} bands  {_gap(bands):<12}  {path}.{self.suffix}{remarks}"
        )


def _run(job: _Job, items: list[Item], acceptance: Acceptance, engine: LocalEngine, quiet: bool) -> Progress:
    """Do the job for every structure; the list follows when all are done, so that it does not cross the progress."""
    from sorep.errors import Failure
    from sorep.featurize import map_structures
    from sorep.ledger import Progress

    progress = Progress(total=sum(item.count or 1 for item in items))
    lines: list[str] = []
    failures: list[Failure] = []
    try:
        if job.folder is not None:
            _make(job.folder)
        with progress_display(quiet) as show:
            answers = map_structures(job, items, engine, acceptance=acceptance, on_more=progress.grow)
            for structure, answer in answers:
                if isinstance(answer, Failure):
                    progress.failed += 1
                    progress.codes[answer.code] += 1
                    failures.append(answer)
                elif structure is not None:
                    progress.computed += 1
                    lines.append(f"{structure.id:<32} {structure.formula:<16} {answer}")
                show(progress)
    except KeyboardInterrupt:
        typer.echo(f"interrupted: {progress.done} band structures were finished", err=True)
        raise typer.Exit(INTERRUPTED) from None
    for line in [] if quiet else sorted(lines):
        typer.echo(line)
    for failure in sorted(failures, key=lambda failure: failure.id):
        typer.echo(
            f"{failure.id}: {failure.stage}: {failure.message} [{failure.code}]. Remedy: {failure.remedy}", err=True
        )
    return progress


def _gap(bands: BandStructure) -> str:
    if bands.levels is None or bands.levels.band_gap is None:
        return ""
    return "metal" if bands.levels.is_metal else f"gap {bands.levels.band_gap:.2f} eV"


def _make(folder: Path) -> None:
    from sorep.errors import StoreError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"cannot make the folder {folder}: {error}", code="unwritable-file", remedy="choose another --out"
        ) from None


def _refuse(foreign: dict[str, Any], is_single_shot: bool) -> None:
    """Refuse options that only the other operator takes."""
    given = [f"--{name.replace('_', '-')}" for name, value in foreign.items() if value is not None]
    if given:
        kind = "kinetic and overlap bands" if is_single_shot else "single-shot bands"
        remedy = "leave it out" if is_single_shot else f"leave it out, or add --operator {SINGLE_SHOT}"
        raise _bad_option(f"{', '.join(given)}: only for {kind}", remedy)


def _bad_option(what: str, remedy: str) -> UsageError:
    from sorep.errors import UsageError

    return UsageError(what, code="bad-option", remedy=remedy)


def _warm_up() -> None:
    """Slow imports, once in every worker."""
    import matplotlib.figure  # noqa: F401
    import seekpath  # noqa: F401
    import spglib  # noqa: F401
    from pymatgen.io.cif import CifParser  # noqa: F401

    import sorep.kinetic.method
    import sorep.plotting  # noqa: F401

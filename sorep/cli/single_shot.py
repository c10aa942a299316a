"""`sorep single-shot`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sorep.cli.features import (
    FeatureOption,
    NormalizationOption,
    SamplingOption,
    SmearingOption,
    StoreOption,
    WidthOption,
    WindowOption,
    chosen_specs,
    default_features,
)
from sorep.cli.run import (
    ConfigOption,
    DryRunOption,
    IdColumnOption,
    JobsOption,
    KeepCellOption,
    KRoundingOption,
    MaxAtomsOption,
    MinDistanceOption,
    PathsArgument,
    QuietOption,
    ReferencesOption,
    RetryFailedOption,
    StructureColumnOption,
    SymprecOption,
    memory_bytes,
    read_bibtex,
    read_config,
    run_or_estimate,
)

if TYPE_CHECKING:
    from sorep.single_shot.method import SingleShot, SingleShotSettings
    from sorep.single_shot.process import ProcessLimits

PwXOption = Annotated[
    str | None,
    typer.Option(
        help="Path of pw.x, patched or stock. Default: $SOREP_PW_X, the one that `sorep pw build` made, "
        "or pw.x on the search path."
    ),
]
FamilyOption = Annotated[
    str | None,
    typer.Option(
        help="Pseudopotentials: a name from `sorep pseudos list`, or a folder of UPF files and a table of cutoffs. "
        "Decides functional and cutoffs. Default: pseudo-dojo-0.4-pbe-sr-standard."
    ),
]
SpinOption = Annotated[
    bool | None,
    typer.Option(
        "--spin",
        help="Spin-polarised, from the superposed densities of magnetic atoms: by default Hund's moment for open "
        "d and f shells, none for other elements. Structures without moments stay unpolarised.",
    ),
]
MomentOption = Annotated[
    list[str],
    typer.Option(help="Starting moment of an element, Bohr magnetons per atom, e.g. Fe=2.2. Repeat for several."),
]
MpiOption = Annotated[
    str | None, typer.Option(help="Launcher put before pw.x, e.g. 'mpirun -n 4'; use fewer --jobs with it.")
]
ScratchOption = Annotated[
    Path | None, typer.Option(help="Where runs keep their files until they end. Default: the system's own.")
]
KeepFailedOption = Annotated[
    Path | None, typer.Option(help="Folder to which the files of failed runs are moved, by structure.")
]
SupercellOption = Annotated[
    float | None,
    typer.Option(help="Shortest vector of the supercell that belongs to the coarse mesh, Angstrom. Default: 22."),
]

RETRIES_AND_READING = 6.5
"""Time limits of attempts within that of a structure: coarse and direct mesh, two retries each, and reading."""


def single_shot(
    paths: PathsArgument,
    pw_x: PwXOption = None,
    family: FamilyOption = None,
    store: StoreOption = Path("sorep-store"),
    feature: FeatureOption = [],  # noqa: B006 (typer copies it)
    window: WindowOption = [],  # noqa: B006
    width: WidthOption = None,
    smearing: SmearingOption = None,
    normalization: NormalizationOption = None,
    sampling: SamplingOption = None,
    k_spacing: Annotated[
        float | None,
        typer.Option(help="k-point spacing, 1/Angstrom. Default: 0.1 interpolated; 0.15 with --direct and SCFs."),
    ] = None,
    k_rounding: KRoundingOption = None,
    interpolate: Annotated[
        bool | None,
        typer.Option(
            "--interpolate/--direct",
            help="Compute matrices on a coarse k mesh and interpolate them to that of --k-spacing, where it has more "
            "points (default), or compute that mesh directly. An SCF is always direct.",
        ),
    ] = None,
    supercell: SupercellOption = None,
    keep_cell: KeepCellOption = None,
    symprec: SymprecOption = None,
    spin: SpinOption = None,
    moment: MomentOption = [],  # noqa: B006
    scf: Annotated[
        bool, typer.Option("--scf", help="Converge the same calculation instead, to compare; stored as 'scf'.")
    ] = False,
    scf_steps: Annotated[
        int | None, typer.Option(min=1, help="Stop after this many SCF iterations; stored as 'scf-N'.")
    ] = None,
    config: ConfigOption = None,
    jobs: JobsOption = 0,
    mpi: MpiOption = None,
    timeout: Annotated[float, typer.Option(help="Time limit of one run of pw.x, seconds.")] = 3600.0,
    silence: Annotated[float, typer.Option(help="Longest time without a line of output, seconds.")] = 1800.0,
    memory: Annotated[
        float | None,
        typer.Option(help="Memory limit of one run, GiB. Default: 80 % of the machine's, divided by --jobs."),
    ] = None,
    scratch: ScratchOption = None,
    keep_failed: KeepFailedOption = None,
    min_distance: MinDistanceOption = 0.5,
    max_atoms: MaxAtomsOption = 500,
    id_column: IdColumnOption = None,
    structure_column: StructureColumnOption = None,
    retry_failed: RetryFailedOption = False,
    references: ReferencesOption = None,
    dry_run: DryRunOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compute single-shot DFT spectra and features of many structures into a store.

    The Kohn-Sham Hamiltonian of the superposed atomic densities is diagonalised once, in all pseudo-atomic orbitals,
    by a patched pw.x; a stock one works too, somewhat slower. To prepare, once:

        sorep pw build            # compiles the patched pw.x

        sorep pseudos install     # pseudopotentials

    A rerun over the same input does only what is missing; a structure that cannot be computed costs one row of
    `sorep failures` and nothing else. Single-shot gaps are not SCF gaps: see the guide.

    Exit status: 0 all done; 3 done, some structures failed; 2 wrong usage; 1 nothing could be done.
    """
    from sorep.engine import Limits
    from sorep.errors import UsageError
    from sorep.intake import Acceptance
    from sorep.single_shot.inputs import CONVERGED
    from sorep.single_shot.method import SingleShotSettings
    from sorep.single_shot.process import ProcessLimits
    from sorep.sources import find_items

    if scf and scf_steps:
        raise UsageError("--scf and --scf-steps exclude each other", code="bad-option", remedy="give one of them")
    flags = {
        "family": family,
        "k_spacing": k_spacing,
        "k_rounding": k_rounding,
        "interpolate": interpolate,
        "supercell": supercell,
        "keep_cell": keep_cell,
        "symprec": symprec,
        "spin": spin,
        "moments": starting_moments(moment),
        "iterations": CONVERGED if scf else scf_steps,
    }
    options, configured = read_config(config)
    options |= {name: value for name, value in flags.items() if value is not None}
    settings = SingleShotSettings.checked(**options)
    overrides = {"width": width, "smearing": smearing, "normalization": normalization, "sampling": sampling}
    specs = chosen_specs(feature or configured, window, overrides, default_features(settings.operator))
    cites = read_bibtex(references)
    settings.load_family()  # before anything is looked for
    items = list(find_items(paths, id_column=id_column, structure_column=structure_column))
    jobs = jobs or os.cpu_count() or 1
    limits = ProcessLimits(timeout, memory_bytes(memory, jobs), silence)
    with ready_to_run(settings, limits, pw_x, mpi, scratch, keep_failed, quiet) as method:
        if not quiet:
            interpolates = settings.interpolates and method.runner.pw_x.is_patched
            way = "interpolated where that saves k points" if interpolates else "computed directly"
            typer.echo(f"k mesh of {settings.k_spacing:g} 1/Angstrom, {way}", err=True)
        status = run_or_estimate(
            items,
            method,
            specs,
            store,
            jobs=jobs,
            limits=Limits(timeout * RETRIES_AND_READING),
            acceptance=Acceptance(min_distance, max_atoms),
            initializer=_warm_up,
            dry_run=dry_run,
            retry_failed=retry_failed,
            references=cites,
            quiet=quiet,
        )
    if status:
        raise typer.Exit(status)


@contextmanager
def ready_to_run(
    settings: SingleShotSettings,
    limits: ProcessLimits,
    pw_x: str | None,
    mpi: str | None,
    scratch: Path | None,
    keep_failed: Path | None,
    quiet: bool,
) -> Iterator[SingleShot]:
    """The method with the pw.x of this machine, named on standard error, and a scratch folder while the block runs."""
    from sorep.single_shot.executable import find_pw_x, probe
    from sorep.single_shot.method import SingleShot
    from sorep.single_shot.runner import PwRunner
    from sorep.single_shot.scratch import Scratch

    executable = probe(find_pw_x(pw_x, mpi=bool(mpi)), tuple(shlex.split(mpi or "")))
    if not quiet:
        kind = "patched" if executable.is_patched else "stock (slower: `sorep pw build` makes a patched one)"
        typer.echo(f"pw.x {executable.version}, {kind}: {executable.path}", err=True)
    with Scratch(scratch) as made:
        yield SingleShot(settings, PwRunner(executable, made.root, limits, keep_failed))


def starting_moments(texts: list[str]) -> dict[str, float] | None:
    """Moments of elements as --moment gives them; None without any."""
    return dict(_moment(text) for text in texts) or None


def _moment(text: str) -> tuple[str, float]:
    from sorep.errors import UsageError

    symbol, _, value = text.partition("=")
    try:
        return symbol.strip(), float(value)
    except ValueError:
        raise UsageError(f"--moment {text!r}", code="bad-option", remedy="give ELEMENT=MOMENT, e.g. Fe=2.2") from None


def _warm_up() -> None:
    """Slow imports, once in every worker."""
    import spglib  # noqa: F401
    from pymatgen.io.cif import CifParser  # noqa: F401

    import sorep.single_shot.method  # noqa: F401

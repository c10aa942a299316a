"""`sorep featurize`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    from sorep.features import FeatureSpec
    from sorep.kinetic.method import KineticSettings


def featurize(
    paths: PathsArgument,
    operator: Annotated[
        str | None,
        typer.Option(help="kinetic (default) or overlap. For single-shot DFT see `sorep single-shot`."),
    ] = None,
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
    k_rounding: KRoundingOption = None,
    keep_cell: KeepCellOption = None,
    symprec: SymprecOption = None,
    preset: Annotated[
        str,
        typer.Option(help="default, or published: the published recipe of basis, mesh, cell and density of states."),
    ] = "default",
    config: ConfigOption = None,
    jobs: JobsOption = 0,
    timeout: Annotated[float, typer.Option(help="Time limit for one structure, seconds.")] = 3600.0,
    memory: Annotated[
        float | None,
        typer.Option(help="Memory limit for one structure, GiB. Default: 80 % of the machine's, divided by --jobs."),
    ] = None,
    min_distance: MinDistanceOption = 0.5,
    max_atoms: MaxAtomsOption = 500,
    id_column: IdColumnOption = None,
    structure_column: StructureColumnOption = None,
    retry_failed: RetryFailedOption = False,
    references: ReferencesOption = None,
    dry_run: DryRunOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compute spectra and features of many structures into a store.

    A rerun over the same input does only what is missing; a killed run loses at most its last uncommitted seconds. A
    structure that cannot be computed costs one row of `sorep failures` and nothing else.

    Exit status: 0 all done; 3 done, some structures failed; 2 wrong usage; 1 nothing could be done.
    """
    from sorep.engine import Limits
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
    options, configured = read_config(config)
    settings = _settings({**options, **{name: value for name, value in flags.items() if value is not None}}, preset)
    overrides = {"width": width, "smearing": smearing, "normalization": normalization, "sampling": sampling}
    specs = chosen_specs(feature or configured, window, overrides, default_features(settings.operator), preset)
    cites = read_bibtex(references)
    items = list(find_items(paths, id_column=id_column, structure_column=structure_column))
    _refuse_what_cannot_be(settings, specs)
    jobs = jobs or os.cpu_count() or 1
    run_or_estimate(
        items,
        settings,
        specs,
        store,
        jobs=jobs,
        limits=Limits(timeout, memory_bytes(memory, jobs)),
        acceptance=Acceptance(min_distance, max_atoms),
        initializer=_warm_up,
        dry_run=dry_run,
        retry_failed=retry_failed,
        references=cites,
        quiet=quiet,
    )


def _settings(options: dict[str, Any], preset: str) -> KineticSettings:
    from sorep.errors import UsageError
    from sorep.kinetic.method import KineticSettings

    if preset not in ("default", "published"):
        raise UsageError(f"unknown preset {preset!r}", code="bad-option", remedy="choose default or published")
    make = KineticSettings.published if preset == "published" else KineticSettings.checked
    return make(**options)


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

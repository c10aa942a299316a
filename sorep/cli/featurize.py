"""`sorep featurize`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sorep.cli.console import SOME_FAILED
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
    describe_or_check,
    memory_bytes,
    read_bibtex,
    read_config,
    run_or_estimate,
)

if TYPE_CHECKING:
    from sorep.errors import UsageError
    from sorep.features import FeatureSpec
    from sorep.kinetic.method import KineticSettings
    from sorep.method import Method
    from sorep.sources import Item

BasisOption = Annotated[
    str | None,
    typer.Option(
        help="ano-ml-os (default), ano-ml-os-published, ano-ml-ae, a Basis Set Exchange name, or an NWChem file (.nw)."
    ),
]
DiscardBelowOption = Annotated[
    float | None, typer.Option(help="Drop primitives with smaller exponents, Bohr^-2. Default: keep all.")
]


def featurize(
    paths: PathsArgument,
    operator: Annotated[
        str | None,
        typer.Option(help="kinetic (default) or overlap. For single-shot DFT see `sorep single-shot`."),
    ] = None,
    from_outputs: Annotated[
        bool,
        typer.Option(
            "--from-outputs",
            help="Take the spectra from finished calculations instead: data-file-schema.xml of Quantum ESPRESSO, "
            "vasprun.xml of VASP. Codes, functionals and spin-orbit coupling are kept apart.",
        ),
    ] = False,
    label: Annotated[
        str | None,
        typer.Option(
            help="Name under which --from-outputs stores, to keep apart what files do not tell (pseudopotentials, "
            "cutoffs). Default: outputs."
        ),
    ] = None,
    descriptor: Annotated[
        list[str],
        typer.Option(
            help="Describe the structures without any operator instead, for comparison: composition, or soap (needs "
            "`pip install 'sorep[soap]'`). Repeat for both."
        ),
    ] = [],  # noqa: B006 (typer copies it)
    store: StoreOption = Path("sorep-store"),
    feature: FeatureOption = [],  # noqa: B006
    window: WindowOption = [],  # noqa: B006
    width: WidthOption = None,
    smearing: SmearingOption = None,
    normalization: NormalizationOption = None,
    sampling: SamplingOption = None,
    basis: BasisOption = None,
    discard_below: DiscardBelowOption = None,
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
    """Compute spectra and features, or descriptors, of many structures into a store.

    A rerun over the same input does only what is missing; a killed run loses at most its last uncommitted seconds. A
    structure that cannot be computed costs one row of `sorep failures` and nothing else.

    Exit status: 0 all done; 3 done, some structures failed; 2 wrong usage; 1 nothing could be done.
    """
    from sorep.descriptors import get_descriptor
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
    overrides = {"width": width, "smearing": smearing, "normalization": normalization, "sampling": sampling}
    descriptors = [get_descriptor(name) for name in dict.fromkeys(descriptor)]
    if descriptors:
        others = {"from_outputs": from_outputs, "label": label, "feature": feature, "window": window, "config": config}
        given = [name for name, value in {**flags, **overrides, **others}.items() if _is_given(value)]
        given += ["preset"] if preset != "default" else []
        if given:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise _excluded(f"--descriptor and {names}", "a descriptor has neither an operator nor a grid")
    options, configured = read_config(config)
    options |= {name: value for name, value in flags.items() if value is not None}
    cites = read_bibtex(references)
    items = list(find_items(paths, id_column=id_column, structure_column=structure_column, outputs=from_outputs))
    jobs = jobs or os.cpu_count() or 1

    def common() -> dict[str, Any]:
        return {
            "jobs": jobs,
            "limits": Limits(timeout, memory_bytes(memory, jobs)),
            "acceptance": Acceptance(min_distance, max_atoms),
            "dry_run": dry_run,
            "retry_failed": retry_failed,
            "references": cites,
            "quiet": quiet,
        }

    if descriptors:
        _exit({describe_or_check(items, chosen, store, **common()) for chosen in descriptors})
        return
    runs: list[tuple[Method, list[Item]]]
    if from_outputs:
        if options or preset != "default":
            raise _excluded(f"--from-outputs and {', '.join(options) or 'preset'}", "these options belong to kinetic")
        runs = _outputs(items, label)
        default = default_features("outputs")
    else:
        if label:
            raise _excluded("--label without --from-outputs", "it names spectra of finished calculations")
        settings = _settings(options, preset)
        runs = [(settings, items)]
        default = default_features(settings.operator)
    specs = chosen_specs(feature or configured, window, overrides, default, preset)
    if not from_outputs:
        _refuse_what_cannot_be(settings, specs)
    _exit({run_or_estimate(some, method, specs, store, initializer=_warm_up, **common()) for method, some in runs})


def _is_given(value: Any) -> bool:
    return value is not None and value is not False and value != []


def _exit(statuses: set[int]) -> None:
    if statuses != {0}:
        raise typer.Exit(statuses.pop() if len(statuses) == 1 else SOME_FAILED)


def _outputs(items: list[Item], label: str | None) -> list[tuple[Method, list[Item]]]:
    from sorep.outputs.method import OutputsMethod, group_outputs

    return [(OutputsMethod(theory, label or "outputs"), some) for theory, some in group_outputs(items).items()]


def _excluded(what: str, why: str) -> UsageError:
    from sorep.errors import UsageError

    return UsageError(f"{what}: {why}", code="bad-option", remedy="leave one of them out")


def _settings(options: dict[str, Any], preset: str) -> KineticSettings:
    from sorep.errors import UsageError
    from sorep.kinetic.method import KineticSettings

    if preset not in ("default", "published"):
        raise UsageError(f"unknown preset {preset!r}", code="bad-option", remedy="choose default or published")
    make = KineticSettings.published if preset == "published" else KineticSettings.checked
    return make(**options)


def refuse_unknown_basis(settings: KineticSettings) -> None:
    """Raise `UsageError`, before any worker starts, for a basis that cannot be loaded."""
    from sorep.errors import BasisError, UsageError

    try:
        settings.load_basis()
    except BasisError as error:
        raise UsageError(error.message, code=error.code, stage=error.stage, remedy=error.remedy) from None


def _refuse_what_cannot_be(settings: KineticSettings, specs: list[FeatureSpec]) -> None:
    """Find an unknown basis, and grids that no spectrum of this kind can fill, before any worker starts."""
    from sorep.errors import UsageError

    refuse_unknown_basis(settings)
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

"""`sorep label --run`: the converged calculations that labels are made of, into a store."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from sorep.cli.run import memory_bytes, read_bibtex, read_config, run_or_estimate
from sorep.cli.single_shot import RETRIES_AND_READING, ready_to_run, starting_moments

if TYPE_CHECKING:
    from sorep.single_shot.method import SingleShotSettings

DEFAULT_STORE = Path("sorep-store")
TIMEOUT, SILENCE = 3600.0, 1800.0  # s
MIN_DISTANCE, MAX_ATOMS = 0.5, 500  # Angstrom; atoms


@dataclass(frozen=True)
class RunOptions:
    """Options that only a run has, by their names on the command line; None where one is not given."""

    pw_x: str | None
    family: str | None
    store: Path | None
    k_spacing: float | None
    k_rounding: str | None
    line_spacing: float | None
    keep_cell: bool | None
    symprec: float | None
    spin: bool | None
    moment: list[str] | None
    config: Path | None
    jobs: int | None
    mpi: str | None
    timeout: float | None
    silence: float | None
    memory: float | None
    scratch: Path | None
    keep_failed: Path | None
    min_distance: float | None
    max_atoms: int | None
    structure_column: str | None
    retry_failed: bool | None
    references: Path | None
    dry_run: bool | None
    quiet: bool | None

    def given(self) -> list[str]:
        """As on the command line."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        names = [name for name, value in values.items() if value is not None and value is not False and value != []]
        return [f"--{name.replace('_', '-')}" for name in names]


def calculate(paths: list[str], options: RunOptions, id_column: str | None, ids: list[str] | None) -> tuple[int, str]:
    """Compute what is missing, or list what that would cost; returns exit status and identity of the calculations."""
    from sorep.engine import Limits
    from sorep.intake import Acceptance
    from sorep.single_shot.converged import ConvergedBands
    from sorep.single_shot.process import ProcessLimits
    from sorep.sources import find_items

    settings, line_spacing = _settings(options)
    cites = read_bibtex(options.references)
    settings.load_family()  # before anything is looked for
    items = list(find_items(paths, id_column=id_column, structure_column=options.structure_column))
    jobs = options.jobs or os.cpu_count() or 1
    timeout = options.timeout or TIMEOUT
    limits = ProcessLimits(timeout, memory_bytes(options.memory, jobs), options.silence or SILENCE)
    machine = (options.pw_x, options.mpi, options.scratch, options.keep_failed)
    acceptance = Acceptance(
        MIN_DISTANCE if options.min_distance is None else options.min_distance,
        options.max_atoms or MAX_ATOMS,
        None if ids is None else frozenset(ids),
    )
    with ready_to_run(settings, limits, *machine, quiet=bool(options.quiet)) as scf:
        method = ConvergedBands(scf, line_spacing)
        status = run_or_estimate(
            items,
            method,
            [],
            options.store or DEFAULT_STORE,
            jobs=jobs,
            limits=Limits(timeout * RETRIES_AND_READING),
            acceptance=acceptance,
            initializer=_warm_up,
            dry_run=bool(options.dry_run),
            retry_failed=bool(options.retry_failed),
            references=cites,
            quiet=bool(options.quiet),
        )
        return status, method.identity().hash


def _settings(options: RunOptions) -> tuple[SingleShotSettings, float]:
    """Of the SCF, and the spacing of the lines."""
    from sorep.errors import UsageError
    from sorep.single_shot.converged import DEFAULT_LINE_SPACING
    from sorep.single_shot.inputs import CONVERGED
    from sorep.single_shot.method import SingleShotSettings

    chosen, features = read_config(options.config)
    if features or "iterations" in chosen:
        raise UsageError(
            f"{options.config} names features or iterations, and labels have neither",
            code="bad-option",
            remedy="leave them out; `sorep refeaturize` makes features of the stored spectra",
        )
    line_spacing = chosen.pop("line_spacing", DEFAULT_LINE_SPACING)
    names = ("family", "k_spacing", "k_rounding", "keep_cell", "symprec", "spin")
    flags = {name: getattr(options, name) for name in names} | {"moments": starting_moments(options.moment or [])}
    chosen |= {name: value for name, value in flags.items() if value is not None}
    settings = SingleShotSettings.checked(**chosen, iterations=CONVERGED)
    if options.line_spacing is not None:
        line_spacing = options.line_spacing
    if not (isinstance(line_spacing, float | int) and 0 < line_spacing < float("inf")):
        raise UsageError(f"line spacing {line_spacing}", code="bad-option", remedy="give 1/Angstrom > 0")
    return settings, float(line_spacing)


def _warm_up() -> None:
    """Slow imports, once in every worker."""
    import seekpath  # noqa: F401
    import spglib  # noqa: F401
    from pymatgen.io.cif import CifParser  # noqa: F401

    import sorep.single_shot.converged  # noqa: F401

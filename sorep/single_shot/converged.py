"""The converged calculation and its bands along high-symmetry lines: what gaps and effective masses are taken from.

pw.x iterates to self-consistency on the mesh, with the inputs of `sorep.single_shot.method` for an SCF, and then goes
along the lines at the density that it found, in the same folder. It takes them in several runs, none with more k
points than the mesh: pw.x keeps wave functions of all its k points in memory, and where the SCF has room the bands
have it too.

A metal on the mesh stays one whatever the lines show, and has no band edges; its bands are not computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sorep.band_path import BandPath, band_path
from sorep.bands import FOLDED_BANDS, BandStructure
from sorep.errors import LevelsError
from sorep.identity import Identity
from sorep.levels import Levels, find_levels
from sorep.method import Calculation, Work
from sorep.single_shot.inputs import Plan
from sorep.single_shot.method import FERMI_WIDTH, SingleShot, mesh_spectrum, retried
from sorep.single_shot.work import estimate_work
from sorep.smearing import COLD
from sorep.spectrum import Spectrum
from sorep.structure import Structure

DEFAULT_LINE_SPACING = 0.025
"""1/Angstrom; of Hautier et al., Nature Commun. 4, 2292 (2013), and the SOREP paper's labels."""

OPERATOR = "scf-bands"
"""Name under which spectra of these calculations are stored; their band structures are stored beside them."""

_FEWEST_KPOINTS = 64  # of one run along lines: the start of pw.x costs as much as some points


@dataclass(frozen=True)
class ConvergedBands:
    """An SCF and its bands along lines, by pw.x: implements `sorep.method.Method`.

    Attributes
    ----------
    scf : SingleShot
        Whose settings iterate to convergence.
    line_spacing : float
        Largest distance between neighbouring k points of a line, 1/Angstrom (2 pi included).
    """

    scf: SingleShot
    line_spacing: float = DEFAULT_LINE_SPACING

    @property
    def operator(self) -> str:
        return OPERATOR

    @property
    def counts_electrons(self) -> bool:
        return True

    @property
    def longest_first(self) -> bool:
        return True

    @property
    def follows_from_structure(self) -> bool:
        return True

    def identity(self) -> Identity:
        """That of the SCF, and the spacing of the lines: a spectrum of it has band edges that were looked at."""
        return self.scf.identity().extended(operator=OPERATOR, line_spacing=self.line_spacing)

    def estimate(self, structure: Structure) -> Work:
        """Orbitals, k points of mesh and lines, seconds and memory of the SCF and of the bands of an insulator.

        Raises
        ------
        SorepError
            As `SingleShot.plan` and `band_path`.
        """
        plan, path = self._plan(structure)
        runs = [estimate_work(step) for step in (plan, *_along(plan, path))]
        return Work(
            n_functions=runs[0].n_functions,
            n_kpoints=sum(run.n_kpoints for run in runs),
            seconds=sum(run.seconds for run in runs),
            memory_bytes=max(run.memory_bytes for run in runs),
        )

    def calculate(self, structure: Structure) -> Calculation:
        """Eigenvalues (eV) on the mesh, with the flags of `SingleShot.calculate`, and along lines.

        There are no bands where the mesh shows a metal, or where a flag of the spectrum says why it shows neither.

        Raises
        ------
        PwError, OutputError
            With the codes of `sorep.single_shot.failures` and `sorep.outputs.espresso`.
        """
        plan, path = self._plan(structure)
        with self.scf.runner.folder(structure.id) as run:
            spectrum = mesh_spectrum(plan, run(plan))
            levels = _insulator(spectrum)
            if levels is None:
                return Calculation(spectrum, plan.cell)
            results = [run(part) for part in _along(plan, path)]
        remarks = (flag for result in results for flag in retried(result))
        bands = BandStructure(
            plan.cell.structure,
            self.identity(),
            path,
            np.concatenate([result.output.spectrum.eigenvalues for result in results], axis=1),
            2.0 / plan.n_spin,
            plan.n_electrons,
            levels,
            tuple(dict.fromkeys((*((FOLDED_BANDS,) if path.is_folded else ()), *levels.flags, *remarks))),
        )
        return Calculation(spectrum, plan.cell, bands)

    def _plan(self, structure: Structure) -> tuple[Plan, BandPath]:
        plan = self.scf.plan(structure)
        return plan, band_path(plan.cell, self.line_spacing)


def _along(plan: Plan, path: BandPath) -> list[Plan]:
    """The path in runs that need no more memory than that of the mesh."""
    n_runs = -(-len(path) // max(len(plan.mesh), _FEWEST_KPOINTS))
    parts: list[NDArray[np.float64]] = np.array_split(path.kpoints, n_runs)
    return [plan.along(part) for part in parts]


def _insulator(spectrum: Spectrum) -> Levels | None:
    """Band edges of an insulator."""
    try:
        levels = find_levels(spectrum, COLD, FERMI_WIDTH)
    except LevelsError:
        return None  # a flag of the spectrum
    return None if levels.is_metal or levels.cbm is None else levels

"""The single-shot SOREP of one structure: settings in, spectrum out (SOREP paper, "Single-shot DFT SOREP").

pw.x computes H(k) and S(k) on a coarse mesh, and their interpolation gives the eigenvalues on the dense one; or pw.x
computes the dense mesh itself. The same calculation with SCF iterations is here too, since users compare the two.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Annotated, Any, Self

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from sorep.bloch import Operators
from sorep.cells import DEFAULT_SYMPREC, canonical_cell
from sorep.errors import LevelsError, PseudoError, UsageError
from sorep.identity import Identity
from sorep.interpolation import InterpolationError, level_difference
from sorep.levels import find_levels
from sorep.meshes import Rounding, irreducible_mesh
from sorep.method import Calculation, Work
from sorep.settings import Settings
from sorep.single_shot.coarse import CoarseMesh, coarse_divisions, coarse_mesh, coarse_operators
from sorep.single_shot.inputs import CONVERGED, Plan
from sorep.single_shot.pseudo_family import PseudoFamily
from sorep.single_shot.pseudos import DEFAULT_FAMILY, load_family
from sorep.single_shot.runner import PwResult, PwRunner
from sorep.single_shot.work import estimate_work
from sorep.smearing import COLD
from sorep.spectrum import Spectrum
from sorep.structure import Structure

DEFAULT_K_SPACING = 0.15
"""1/Angstrom, of a mesh that pw.x computes; the spacing of the SOREP paper's transparent-conductor study."""

INTERPOLATED_K_SPACING = 0.10
"""1/Angstrom, of a mesh that is interpolated: cheaper than the other, and features are closer to the limit."""

DEFAULT_SUPERCELL = 22.0
"""Angstrom; errors of occupied levels and those up to 5 eV above stay below 1 meV, from 17 on they often do."""

REFUSED = "interpolation-refused"
"""Flag, with the reason, of a spectrum that was computed directly although it should have been interpolated."""

FERMI_WIDTH = 0.1
"""eV; of the levels that flags, and bands, are made with."""


class SingleShotSettings(Settings):
    """Everything that the spectrum depends on, besides the structure and the version of pw.x.

    Attributes
    ----------
    family : str
        Pseudopotential family: a name of `sorep.single_shot.pseudos.FAMILIES`, or a folder. It decides the functional
        and the cutoffs.
    k_spacing : float
        1/Angstrom, 2 pi included. By default `INTERPOLATED_K_SPACING` where ``interpolates``, else `DEFAULT_K_SPACING`.
        It holds also for a mesh that is computed directly after all, so that features of one identity can be compared.
    k_rounding : {"ceil", "round"}
    keep_cell : bool
        Compute in the given cell rather than in the canonical one.
    symprec : float
        Tolerance of the symmetry search, Angstrom.
    spin : bool
        Spin-polarised, with the moments of `starting_moments`. Structures without any moment stay unpolarised.
    moments : dict of str to float
        Starting moments by element, Bohr magnetons per atom; the others as in `starting_moments`.
    iterations : int
        SCF iterations: 0 is the single shot, -1 an SCF to convergence.
    interpolate : bool
        Compute matrices on a coarse mesh and interpolate those of a single shot to the mesh of ``k_spacing``, where
        that has more points. An SCF is always computed directly.
    supercell : float
        Angstrom; the coarse mesh is the smallest whose supercell has no shorter lattice vector.
    """

    family: str = DEFAULT_FAMILY
    k_rounding: Rounding = "ceil"
    keep_cell: bool = False
    symprec: Annotated[float, Field(gt=0, allow_inf_nan=False)] = DEFAULT_SYMPREC
    spin: bool = False
    moments: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = Field(default={})
    iterations: Annotated[int, Field(ge=CONVERGED)] = 0
    interpolate: bool = True
    supercell: Annotated[float, Field(gt=0, allow_inf_nan=False)] = DEFAULT_SUPERCELL
    # After what its default depends on.
    k_spacing: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(default=None, validate_default=True)

    @field_validator("k_spacing", mode="before")
    @classmethod
    def _default_spacing(cls, given: Any, others: ValidationInfo) -> Any:
        if given is not None:
            return given
        is_interpolated = others.data.get("interpolate") and others.data.get("iterations") == 0
        return INTERPOLATED_K_SPACING if is_interpolated else DEFAULT_K_SPACING

    @field_validator("moments")
    @classmethod
    def _elements(cls, moments: dict[str, float]) -> dict[str, float]:
        from ase.data import atomic_numbers

        unknown = [symbol for symbol in moments if not atomic_numbers.get(symbol)]
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: not an element")
        return moments

    @classmethod
    def checked(cls, **options: Any) -> Self:
        settings = super().checked(**options)
        if settings.moments and not settings.spin:
            raise UsageError(
                "starting moments of a spin-unpolarised calculation", code="bad-option", remedy="add --spin"
            )
        if not settings.interpolates and {"interpolate", "supercell"} & {k for k, v in options.items() if v}:
            raise UsageError(
                "an SCF, or a single shot on the direct mesh, is not interpolated",
                code="bad-option",
                remedy="leave out --interpolate and --supercell, or --direct and --scf",
            )
        return settings

    @property
    def interpolates(self) -> bool:
        """Whether a dense mesh is interpolated from a coarse one."""
        return self.interpolate and self.iterations == 0

    @property
    def operator(self) -> str:
        """``single-shot``, ``scf``, or ``scf-N`` after N iterations."""
        return {0: "single-shot", CONVERGED: "scf"}.get(self.iterations, f"scf-{self.iterations}")

    def load_family(self) -> PseudoFamily:
        """The pseudopotential family; loaded once per process."""
        return load_family(self.family)


@dataclass(frozen=True)
class SingleShot:
    """Spectra by pw.x: implements `sorep.method.Method`."""

    settings: SingleShotSettings
    runner: PwRunner

    @property
    def operator(self) -> str:
        return self.settings.operator

    @property
    def counts_electrons(self) -> bool:
        return True

    @property
    def longest_first(self) -> bool:
        """Yes: seconds to minutes each, and a slow one that comes last leaves the other processes idle."""
        return True

    @property
    def follows_from_structure(self) -> bool:
        return True

    def identity(self) -> Identity:
        """Names the family by the checksums and cutoffs of all its files, and the version of pw.x.

        Whether pw.x is patched does not enter: the eigenvalues agree to 1e-10 Hartree on the same mesh, and to 1 meV
        where a stock one, which writes no matrices, computes the dense mesh directly (flag ``interpolation-refused``).
        """
        family = self.settings.load_family()
        files = {s: (p.sha256, p.ecutwfc, p.ecutrho) for s, p in sorted(family.pseudos.items())}
        without = set() if self.settings.interpolates else {"interpolate", "supercell"}
        return Identity.of(
            {
                **self.settings.model_dump(mode="json", exclude=without),
                "operator": self.operator,
                "family": family.name,
                "family_checksum": hashlib.sha256(json.dumps(files).encode()).hexdigest()[:16],
                "functional": family.functional,
                "code": f"pw.x {self.runner.pw_x.version}",
            }
        )

    def plan(self, structure: Structure) -> Plan:
        """The calculation on the dense mesh, as it is without interpolation.

        Raises
        ------
        PseudoError
            ``missing-pseudopotential`` and ``no-orbitals`` name all elements concerned; ``too-few-orbitals`` where the
            orbitals cannot hold the valence electrons.
        StructureError
            ``symmetry-search-failed``, ``mesh-reduction-failed``.
        UsageError
            ``moment-too-large``.
        """
        settings, family = self.settings, self.settings.load_family()
        pseudos = family.select(structure.numbers)
        cell = canonical_cell(structure, symprec=settings.symprec, keep_cell=settings.keep_cell)
        ecutwfc, ecutrho = family.cutoffs(pseudos)
        moments = starting_moments(pseudos, settings.moments) if settings.spin else {}
        excessive = [symbol for symbol, moment in moments.items() if abs(moment) > pseudos[symbol].z_valence]
        if excessive:  # pw.x would lower them without a word
            raise UsageError(
                f"the starting moment of {', '.join(excessive)} is larger than one Bohr magneton for each electron",
                code="moment-too-large",
                remedy="give at most the number of valence electrons, e.g. --moment Fe=2.2",
            )
        plan = Plan(
            cell=cell,
            mesh=irreducible_mesh(cell, settings.k_spacing, settings.k_rounding),
            pseudos=pseudos,
            pseudo_folder=family.folder,
            ecutwfc=ecutwfc,
            ecutrho=ecutrho,
            moments=moments,
            iterations=settings.iterations,
        )
        if 2 * plan.n_functions < plan.n_electrons:
            raise PseudoError(
                f"{plan.n_functions} orbitals cannot hold {plan.n_electrons:g} valence electrons",
                code="too-few-orbitals",
                remedy="choose a family whose pseudopotentials have orbitals for all their valence electrons",
            )
        return plan

    def estimate(self, structure: Structure) -> Work:
        """Orbitals, k points of pw.x, and estimated seconds and memory; refuses what `calculate` would not start."""
        plan = self.plan(structure)
        coarse = self._coarse(plan) if self.runner.pw_x.is_patched else None
        return estimate_work(plan if coarse is None else _on(coarse, plan))

    def calculate(self, structure: Structure) -> Calculation:
        """Eigenvalues (eV) of the Kohn-Sham Hamiltonian on a symmetry-reduced k mesh.

        Electrons are counted from the pseudopotentials; Fermi energy and occupations of pw.x are not looked at. Flags
        of the spectrum tell what `sorep.levels` finds (``no-empty-band``,
        ``odd-electrons``, ``top-band-occupied``, ``too-few-bands``),
        linearly dependent orbitals, failures of pw.x that a retry overcame, and why a spectrum was not interpolated.

        Raises
        ------
        PwError, OutputError
            With the codes of `sorep.single_shot.failures` and `sorep.outputs.espresso`.
        """
        plan = self.plan(structure)
        coarse = self._coarse(plan)
        refused: tuple[str, ...] = ()
        if coarse is not None:
            try:
                spectrum = _spectrum(self._operators(plan, coarse, structure.id), plan)
                return Calculation(replace(spectrum, flags=(*spectrum.flags, *_level_flags(spectrum))), plan.cell)
            except InterpolationError as error:
                refused = (f"{REFUSED}:{error.code}",)
        spectrum = mesh_spectrum(plan, self.runner.run(plan, structure.id))
        return Calculation(replace(spectrum, flags=(*spectrum.flags, *refused)), plan.cell)

    def bloch_operators(self, structure: Structure) -> Operators:
        """The Kohn-Sham operator of each spin, from which bands at any k point follow.

        Raises
        ------
        InterpolationError
            With the codes of `sorep.interpolation` and `sorep.single_shot.coarse`; ``stock-pw-x`` where pw.x cannot
            write matrices; ``linear-dependence``.
        UsageError
            ``bad-option`` for an SCF, whose matrices are not written.
        PwError, OutputError
            As `calculate`.
        """
        if self.settings.iterations != 0:
            raise UsageError("an SCF has no matrices", code="bad-option", remedy="use the single shot for bands")
        plan = self.plan(structure)
        return self._operators(plan, self._mesh(plan), structure.id)

    def interpolation_error(self, structure: Structure, *, larger: float = 1.25, above: float = 5.0) -> float:
        """Root mean square error of the interpolation, eV, estimated from a second supercell.

        Parameters
        ----------
        structure : Structure
        larger : float
            Length of the second supercell over that of the first.
        above : float
            Counted are eigenvalues of the dense mesh up to so many eV above the CBM, or the Fermi energy of a metal.

        Raises
        ------
        InterpolationError, PwError, OutputError
            As `bloch_operators`; LevelsError as `sorep.levels.find_levels`.
        """
        settings = self.settings.model_copy(update={"supercell": larger * self.settings.supercell})
        plan = self.plan(structure)
        one, other = (
            _spectrum(method.bloch_operators(structure), plan) for method in (self, replace(self, settings=settings))
        )
        levels = find_levels(other, COLD, FERMI_WIDTH)
        highest = (levels.vbm if levels.cbm is None else levels.cbm) + above
        return level_difference(other.energies, one.energies, other.state_weights, highest)

    def _mesh(self, plan: Plan) -> CoarseMesh:
        return coarse_mesh(plan.cell, coarse_divisions(plan.cell, self.settings.supercell))

    def _coarse(self, plan: Plan) -> CoarseMesh | None:
        """The coarse mesh, if there is one to compute; None for the dense mesh."""
        if not self.settings.interpolates:
            return None
        coarse = self._mesh(plan)
        return coarse if len(coarse.irreducible) < len(plan.mesh) else None

    def _operators(self, plan: Plan, coarse: CoarseMesh, name: str) -> Operators:
        if not self.runner.pw_x.is_patched:
            raise InterpolationError(
                f"{self.runner.pw_x.path} is a stock pw.x, which writes no matrices",
                code="stock-pw-x",
                remedy="build one that does with `sorep pw build`",
            )
        result = self.runner.run(_on(coarse, plan), name)
        if result.output.spectrum.n_removed:
            raise InterpolationError(
                "the orbitals are linearly dependent at points of the coarse k mesh",
                code="linear-dependence",
                remedy="compute spectra on meshes, which need no interpolation, or choose another --family",
            )
        operators = coarse_operators(coarse, plan.cell, plan.shells, result.matrices)
        return Operators(plan.cell, operators, 2.0 / plan.n_spin, plan.n_electrons, retried(result))


def mesh_spectrum(plan: Plan, result: PwResult) -> Spectrum:
    """The spectrum that pw.x computed on the mesh of a plan, with the plan's electrons and flags."""
    structure = plan.cell.structure
    spectrum = replace(
        result.output.spectrum,
        n_electrons=plan.n_electrons,
        volume=structure.volume,
        n_atoms=structure.n_atoms,
        is_complete=plan.is_single_shot,
    )
    return replace(spectrum, flags=(*spectrum.flags, *_level_flags(spectrum), *retried(result)))


def retried(result: PwResult) -> tuple[str, ...]:
    """Flags that name the failures which retries overcame."""
    return tuple(f"retried:{code}" for code in result.overcome)


def _on(coarse: CoarseMesh, plan: Plan) -> Plan:
    return replace(plan, mesh=coarse.irreducible, writes_matrices=True)


def _spectrum(found: Operators, plan: Plan) -> Spectrum:
    """Eigenvalues on the mesh of the plan, all of them."""
    n_k, n = len(plan.mesh), plan.n_functions
    eigenvalues = [e for operator in found.operators for e in operator.eigenvalues(plan.mesh.kpoints)]
    if any(len(e) < n for e in eigenvalues):  # it was positive definite on the coarse mesh
        raise InterpolationError(
            "an interpolated overlap is not positive definite",
            code="overlap-not-positive",
            remedy="increase --supercell",
        )
    return Spectrum(
        np.concatenate(eigenvalues),
        np.full((len(found.operators), n_k), n),
        plan.mesh.kpoints,
        plan.mesh.weights,
        plan.cell.structure.volume,
        plan.cell.structure.n_atoms,
        degeneracy=found.degeneracy,
        n_electrons=found.n_electrons,
        is_complete=True,
        flags=found.flags,
    )


def starting_moments(elements: Any, given: dict[str, float]) -> dict[str, float]:
    """Starting moment of an atom of each element, Bohr magnetons; empty where all vanish.

    Where none is given, transition metals with an open d shell, lanthanides and actinides get the moment of the free
    atom's ground state (Hund's rules; `ase.data.ground_state_magnetic_moments`), and all others none.
    """
    from ase.data import atomic_numbers, ground_state_magnetic_moments

    open_shells = {*range(21, 29), *range(39, 47), *range(57, 79), *range(89, 104)}
    moments = {}
    for symbol in elements:
        number = atomic_numbers[symbol]
        default = float(ground_state_magnetic_moments[number]) if number in open_shells else 0.0
        moments[symbol] = given.get(symbol, default)
    return moments if any(moments.values()) else {}


def _level_flags(spectrum: Spectrum) -> tuple[str, ...]:
    try:
        return find_levels(spectrum, COLD, FERMI_WIDTH).flags
    except LevelsError as error:
        return (error.code,)

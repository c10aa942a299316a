"""The kinetic SOREP of one structure: settings in, spectrum out (SOREP paper, "Kinetic energy SOREP")."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator

from sorep.bloch import Operators
from sorep.cells import DEFAULT_SYMPREC, Cell, canonical_cell
from sorep.identity import Identity
from sorep.kinetic.basis import BasisSet, load_basis
from sorep.kinetic.operators import DEFAULT_PRECISION, OPERATORS, get_operator
from sorep.kinetic.orbitals import Orbitals
from sorep.kinetic.work import estimate_work
from sorep.meshes import DEFAULT_SPACING, KMesh, Rounding, irreducible_mesh
from sorep.method import Calculation, Work
from sorep.settings import Settings
from sorep.spectrum import Spectrum
from sorep.structure import Structure

_KPOINTS_OF_A_PATH = 300  # the cost, not the result, depends on it


class KineticSettings(Settings):
    """Everything that a spectrum over Gaussian orbitals depends on, besides the structure.

    Attributes
    ----------
    operator : {"kinetic", "overlap"}
    basis : str
        A name or a path that `sorep.kinetic.basis.load_basis` understands.
    discard_below : float
        Drop primitives with smaller exponents, Bohr^-2; 0 keeps all.
    k_spacing : float
        1/Angstrom, 2 pi included.
    k_rounding : {"ceil", "round"}
    keep_cell : bool
        Compute in the given cell rather than in the canonical one.
    symprec : float
        Tolerance of the symmetry search, Angstrom.
    precision : float
        What is neglected of a matrix row, in lattice sums and in plane waves, amounts to less than this, Hartree.
    """

    operator: str = "kinetic"
    basis: str = "ano-ml-os"
    discard_below: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    k_spacing: Annotated[float, Field(gt=0, allow_inf_nan=False)] = DEFAULT_SPACING
    k_rounding: Rounding = "ceil"
    keep_cell: bool = False
    symprec: Annotated[float, Field(gt=0, allow_inf_nan=False)] = DEFAULT_SYMPREC
    precision: Annotated[float, Field(gt=0, lt=1e-6)] = DEFAULT_PRECISION

    @field_validator("operator")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in OPERATORS:
            raise ValueError(f"unknown operator {name!r}; choose from {', '.join(OPERATORS)}")
        return name

    @classmethod
    def published(cls, **changes: Any) -> KineticSettings:
        """The published recipe: its basis file, diffuse primitives discarded, a rounded mesh of the given cell."""
        recipe = {
            "basis": "ano-ml-os-published",
            "discard_below": 0.1,
            "k_rounding": "round",
            "keep_cell": True,
        }
        return cls.checked(**{**recipe, **changes})

    @property
    def counts_electrons(self) -> bool:
        """No: kinetic energies and overlaps are not filled with electrons."""
        return False

    @property
    def longest_first(self) -> bool:
        """No: milliseconds each."""
        return False

    @property
    def follows_from_structure(self) -> bool:
        return True

    def load_basis(self) -> BasisSet:
        """The basis set; loaded once per process."""
        return load_basis(self.basis, discard_below=self.discard_below)

    def identity(self) -> Identity:
        """Identity of the spectra computed with these settings; names the basis by its checksum."""
        basis = self.load_basis()
        return Identity.of({**self.model_dump(mode="json"), "basis": basis.name, "basis_checksum": basis.checksum})

    def estimate(self, structure: Structure) -> Work:
        """Functions, k points, and estimated seconds and memory; refuses what `calculate` would refuse."""
        cell, mesh, orbitals = _prepare(structure, self)
        has_inversion = orbitals.inversion(cell) is not None
        return estimate_work(orbitals, len(mesh), self.precision, has_inversion=has_inversion)

    def calculate(self, structure: Structure) -> Calculation:
        """Eigenvalues over Bloch sums of Gaussians on a symmetry-reduced k mesh.

        Eigenvalues are eV (those of the overlap are pure numbers). The structure should have passed
        `Structure.validate`.

        Raises
        ------
        BasisError
            ``missing-element``.
        StructureError
            ``symmetry-search-failed``, ``mesh-reduction-failed``.
        SpectrumError
            ``non-finite-matrix``.
        """
        cell, mesh, orbitals = _prepare(structure, self)
        operator = get_operator(self.operator)
        bloch = operator.bloch_operator(
            orbitals, n_kpoints=len(mesh), precision=self.precision, inversion=orbitals.inversion(cell)
        )
        spectrum = Spectrum.from_eigenvalues(
            bloch.eigenvalues(mesh.kpoints),
            n_functions=orbitals.n_functions,
            unit=operator.unit,
            kpoints=mesh.kpoints,
            weights=mesh.weights,
            volume=cell.structure.volume,
            n_atoms=cell.structure.n_atoms,
        )
        return Calculation(spectrum, cell)

    def bloch_operators(self, structure: Structure) -> Operators:
        """The operator at any k; raises what `calculate` raises before it solves for eigenvalues."""
        cell, _, orbitals = _prepare(structure, self)
        operator = get_operator(self.operator)
        bloch = operator.bloch_operator(orbitals, n_kpoints=_KPOINTS_OF_A_PATH, precision=self.precision)
        return Operators(cell, (bloch,), unit=operator.unit)


def _prepare(structure: Structure, settings: KineticSettings) -> tuple[Cell, KMesh, Orbitals]:
    basis = settings.load_basis()
    basis.n_functions(structure.numbers)  # a missing element is refused before anything is computed
    cell = canonical_cell(structure, symprec=settings.symprec, keep_cell=settings.keep_cell)
    mesh = irreducible_mesh(cell, settings.k_spacing, settings.k_rounding)
    return cell, mesh, Orbitals.of(cell.structure, basis)

"""Band structures: the eigenvalues of an operator along high-symmetry lines, as a record that files can hold.

The zero of energy in pictures, and the marks of band edges, are found on a mesh. The lines of a path need not pass
through the band edges and cannot count electrons.
"""

from __future__ import annotations

import csv
import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sorep.band_path import DEFAULT_LINE_SPACING, BandPath, Segment, band_path
from sorep.bloch import Operators
from sorep.errors import LevelsError, SpectrumError, StoreError
from sorep.identity import Identity
from sorep.levels import Levels, find_levels
from sorep.meshes import Rounding, irreducible_mesh
from sorep.smearing import COLD
from sorep.spectrum import Spectrum
from sorep.structure import Structure

DEFAULT_K_SPACING = 0.15
"""1/Angstrom; of the mesh for band edges and Fermi energy."""

LINEAR_DEPENDENCE = "linear-dependence"
FOLDED_BANDS = "folded-bands"

_FERMI_WIDTH = 0.1  # eV


class HasOperators(Protocol):
    """A `sorep.method.Method` whose operators can be had at any k point."""

    def bloch_operators(self, structure: Structure) -> Operators: ...

    def identity(self) -> Identity: ...


@dataclass(frozen=True, eq=False)
class BandStructure:
    """Eigenvalues along a path.

    Attributes
    ----------
    structure : Structure
        The crystal, in the cell to which the k points refer.
    identity : Identity
        Of the spectra that the same method computes on meshes; its words name operator, basis or pseudopotentials.
    path : BandPath
    energies : (n_spin, n_k, n_band) float array
        Ascending at each k point, eV, on the operator's own scale. Where functions were removed as linearly dependent
        (flag ``linear-dependence``) some k points have more bands than others: those that all have are here.
    degeneracy : float
        Electrons that one eigenvalue can hold: 2 / n_spin for a Kohn-Sham spectrum, 1 for a kinetic one.
    n_electrons : float or None
        Per cell; None where the operator has no electrons to count.
    levels : Levels or None
        Band edges and Fermi energy, from a mesh and on the scale of ``energies``; None where there are no electrons,
        or where a flag says why they could not be found.
    flags : tuple of str
        Remarks that a user should see. ``folded-bands``: the cell is a supercell, and its path that of the primitive
        cell.
    """

    structure: Structure
    identity: Identity
    path: BandPath
    energies: NDArray[np.float64]
    degeneracy: float = 1.0
    n_electrons: float | None = None
    levels: Levels | None = None
    flags: tuple[str, ...] = ()

    @property
    def n_spin(self) -> int:
        return self.energies.shape[0]

    @property
    def n_bands(self) -> int:
        return self.energies.shape[2]

    @property
    def reference(self) -> float:
        """Zero of energy for pictures, eV: valence band maximum, Fermi energy of a metal, or 0 without levels."""
        return self.levels.vbm if self.levels else 0.0  # the two are equal in a metal

    def write(self, path: str | Path) -> None:
        """Write a file (.npz) that `read` reads, whatever its name.

        Raises
        ------
        StoreError
            ``unwritable-file``.
        """
        words = {
            "id": self.structure.id,
            "source": self.structure.source,
            "identity": self.identity.text,
            "degeneracy": self.degeneracy,
            "n_electrons": self.n_electrons,
            "levels": asdict(self.levels) if self.levels else None,
            "flags": self.flags,
            "segments": [asdict(segment) for segment in self.path.segments],
            "is_folded": self.path.is_folded,
        }
        arrays = {
            "lattice": self.structure.lattice,
            "numbers": self.structure.numbers,
            "positions": self.structure.positions,
            "kpoints": self.path.kpoints,
            "distances": self.path.distances,
            "energies": self.energies,
        }
        try:
            with Path(path).open("wb") as file:
                np.savez_compressed(file, words=np.array(json.dumps(words)), **arrays)
        except OSError as error:
            raise _unwritable(path, error) from None

    @classmethod
    def read(cls, path: str | Path) -> BandStructure:
        """Read what `write` wrote.

        Raises
        ------
        StoreError
            ``unreadable-file``.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                words = json.loads(str(file["words"]))
                arrays = {name: file[name] for name in ("lattice", "numbers", "positions", "kpoints", "energies")}
            segments = tuple(Segment(tuple(s["labels"]), s["start"], s["stop"]) for s in words["segments"])
            levels = words["levels"]
            return cls(
                Structure(words["id"], arrays["lattice"], arrays["numbers"], arrays["positions"], words["source"]),
                Identity(words["identity"]),
                BandPath(arrays["lattice"], arrays["kpoints"], segments, words["is_folded"]),
                arrays["energies"],
                words["degeneracy"],
                words["n_electrons"],
                Levels(**{**levels, "flags": tuple(levels["flags"])}) if levels else None,
                tuple(words["flags"]),
            )
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise StoreError(
                f"{path} holds no band structure: {type(error).__name__}: {error}",
                code="unreadable-file",
                remedy="give a .npz file that `sorep bands` or BandStructure.write made",
            ) from None

    def write_csv(self, path: str | Path) -> None:
        """Write a table for other programs: a row for each k point, its energies in columns (eV).

        Raises
        ------
        StoreError
            ``unwritable-file``.
        """
        spins = [""] if self.n_spin == 1 else ["up_", "down_"]
        bands = [f"{spin}{band}" for spin in spins for band in range(1, self.n_bands + 1)]
        rows = zip(self.path.distances, self.path.kpoints, np.concatenate(self.energies, axis=1), strict=True)
        try:
            with Path(path).open("w", newline="") as file:
                table = csv.writer(file)
                table.writerow(["label", "distance", "k1", "k2", "k3", *bands])
                for index, (distance, kpoint, energies) in enumerate(rows):
                    numbers = (repr(float(x)) for x in (distance, *kpoint, *energies))
                    table.writerow([self.path.labels.get(index, ""), *numbers])
        except OSError as error:
            raise _unwritable(path, error) from None


def band_structure(
    method: HasOperators,
    structure: Structure,
    line_spacing: float = DEFAULT_LINE_SPACING,
    *,
    k_spacing: float = DEFAULT_K_SPACING,
    k_rounding: Rounding = "ceil",
) -> BandStructure:
    """Eigenvalues along the high-symmetry lines of a structure.

    Parameters
    ----------
    method : KineticSettings or SingleShot
        Or anything else with `bloch_operators` and `identity`.
    structure : Structure
        Should have passed `Structure.validate`.
    line_spacing : float
        Largest distance between neighbouring k points of a line, 1/Angstrom (2 pi included).
    k_spacing, k_rounding : float, {"ceil", "round"}
        The mesh for band edges and Fermi energy; no matter where there are no electrons.

    Raises
    ------
    SorepError
        Those of ``method.bloch_operators``, `band_path` and `irreducible_mesh`; ``no-bands`` where a k point has none.
    """
    operators = method.bloch_operators(structure)
    path = band_path(operators.cell, line_spacing)
    eigenvalues = _eigenvalues(operators, path.kpoints)
    n_bands = min(len(bands) for spin in eigenvalues for bands in spin)
    if n_bands == 0:
        raise SpectrumError(
            "at some k points of the path all functions are linearly dependent",
            code="no-bands",
            remedy="use a basis set with more compact functions, or --discard-below",
        )
    energies = np.array([[bands[:n_bands] for bands in spin] for spin in eigenvalues])
    levels, remarks = _levels(operators, k_spacing, k_rounding)
    if n_bands < operators.operators[0].n_functions:
        remarks = (LINEAR_DEPENDENCE, *remarks)
    if path.is_folded:
        remarks = (FOLDED_BANDS, *remarks)
    return BandStructure(
        operators.cell.structure,
        method.identity(),
        path,
        energies,
        operators.degeneracy,
        operators.n_electrons,
        levels,
        tuple(dict.fromkeys((*operators.flags, *remarks))),
    )


def _eigenvalues(operators: Operators, kpoints: NDArray[np.float64]) -> list[list[NDArray[np.float64]]]:
    """eV, for each spin and k point."""
    return [[e * operators.unit for e in operator.eigenvalues(kpoints)] for operator in operators.operators]


def _levels(operators: Operators, k_spacing: float, k_rounding: Rounding) -> tuple[Levels | None, tuple[str, ...]]:
    """Band edges and Fermi energy on a mesh, and remarks."""
    if operators.n_electrons is None:
        return None, ()
    cell = operators.cell
    mesh = irreducible_mesh(cell, k_spacing, k_rounding)
    eigenvalues = _eigenvalues(operators, mesh.kpoints)
    spectrum = Spectrum(
        energies=np.concatenate([bands for spin in eigenvalues for bands in spin]),
        band_counts=np.array([[len(bands) for bands in spin] for spin in eigenvalues]),
        kpoints=mesh.kpoints,
        weights=mesh.weights,
        volume=cell.structure.volume,
        n_atoms=cell.structure.n_atoms,
        degeneracy=operators.degeneracy,
        n_electrons=operators.n_electrons,
        is_complete=True,
    )
    try:
        levels = find_levels(spectrum, COLD, _FERMI_WIDTH)
    except LevelsError as error:
        return None, (error.code,)
    return levels, levels.flags


def _unwritable(path: str | Path, error: OSError) -> StoreError:
    return StoreError(
        f"cannot write {path}: {error}", code="unwritable-file", remedy="check folder, permissions and space"
    )

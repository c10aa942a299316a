"""From a structure to the input of pw.x: canonical cell, k points, cutoffs, bands.

Single-shot and self-consistent calculations get the same cell, k points, cutoffs and (unless an SCF needs more) bands.
They differ in the iterations, and in symmetry: k points are reduced here, so a single shot runs exactly those
(`nosym`), while an SCF needs pw.x's own symmetry for its density.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sorep.cells import Cell
from sorep.meshes import KMesh
from sorep.single_shot.pseudo_family import Pseudopotential
from sorep.units import BOHR_IN_ANGSTROM

PREFIX = "sorep"
OUTPUT_FOLDER = "out"
"""Below the folder in which pw.x runs."""

CONVERGED = -1
"""Number of SCF iterations that stands for as many as it takes."""

_MAX_ITERATIONS = 200
_CONVERGENCE = 1e-9  # Ry for each atom
_BANDS_THRESHOLD = 1e-8  # Ry, of an eigenvalue; bands 1e-7 eV off still give effective masses to 0.1 %
_BANDS_SUBSPACE = 4  # of Davidson, in units of bands; twice the default, with which top bands may end 10 meV off
_DEGAUSS = 0.01  # Ry; a formality of the input: levels are found from the eigenvalues

Namelists = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class Plan:
    """One calculation: everything that pw.x is told, and what its output must contain.

    Attributes
    ----------
    cell : Cell
    mesh : KMesh
        Irreducible k points of the cell; or points of a path, see ``on_path``.
    pseudos : dict of str to Pseudopotential
        By element symbol, in the order of the species.
    pseudo_folder : Path
    ecutwfc, ecutrho : float
        Ry.
    moments : dict of str to float
        Starting magnetic moment of an atom of each element, Bohr magnetons; empty for a spin-unpolarised calculation.
    iterations : int
        SCF iterations: 0 is the single shot, `CONVERGED` an SCF to convergence.
    writes_matrices : bool
        Whether a patched pw.x writes H(k) and S(k).
    on_path : bool
        Whether these are bands at the density that an SCF left in the same folder.
    """

    cell: Cell
    mesh: KMesh
    pseudos: dict[str, Pseudopotential]
    pseudo_folder: Path
    ecutwfc: float
    ecutrho: float
    moments: dict[str, float]
    iterations: int
    writes_matrices: bool = False
    on_path: bool = False

    @property
    def n_spin(self) -> int:
        return 2 if self.moments else 1

    @property
    def is_single_shot(self) -> bool:
        return self.iterations == 0

    @property
    def shells(self) -> list[tuple[int, ...]]:
        """Angular momenta of the pseudo-atomic orbitals of each atom."""
        return [self.pseudos[symbol].angular_momenta for symbol in self.cell.structure.symbols]

    @property
    def n_functions(self) -> int:
        """Pseudo-atomic orbitals in the cell."""
        return sum(self.pseudos[symbol].n_functions for symbol in self.cell.structure.symbols)

    @property
    def n_bands(self) -> int:
        """Bands of each spin: one for each orbital; with iterations at least what pw.x takes for a metal."""
        if self.is_single_shot:
            return self.n_functions
        filled = self.n_electrons / 2
        return max(self.n_functions, int(np.ceil(max(1.2 * filled, filled + 4))))

    @property
    def n_electrons(self) -> float:
        """Valence electrons of the neutral cell."""
        return sum(self.pseudos[symbol].z_valence for symbol in self.cell.structure.symbols)

    def along(self, kpoints: NDArray[np.float64]) -> Plan:
        """The bands at other k points (n_k, 3), at the density that this calculation leaves."""
        points = KMesh(np.ones(3, dtype=np.int64), kpoints, np.full(len(kpoints), 1 / len(kpoints)))
        return replace(self, mesh=points, on_path=True)

    def namelists(self) -> dict[str, dict[str, Any]]:
        """Namelists of the input, by name."""
        structure = self.cell.structure
        converged = self.iterations == CONVERGED
        system: dict[str, Any] = {
            "ibrav": 0,
            "nat": structure.n_atoms,
            "ntyp": len(self.pseudos),
            "ecutwfc": self.ecutwfc,
            "ecutrho": self.ecutrho,
            "nbnd": self.n_bands,
            "occupations": "smearing",
            "smearing": "cold",
            "degauss": _DEGAUSS,
        }
        if self.is_single_shot:
            system |= {"nosym": True, "noinv": True}
        if self.moments:
            system["nspin"] = 2
            for index, (symbol, pseudo) in enumerate(self.pseudos.items(), 1):
                system[f"starting_magnetization({index})"] = self.moments.get(symbol, 0.0) / pseudo.z_valence
        found = {
            "control": {
                "calculation": "scf",
                "prefix": PREFIX,
                "outdir": OUTPUT_FOLDER,
                "pseudo_dir": str(self.pseudo_folder),
                # An SCF that converges, and bands, leave an XML file only where they may write more.
                "disk_io": "low" if converged else "high" if self.writes_matrices else "none",
            },
            "system": system,
            "electrons": {
                "electron_maxstep": _MAX_ITERATIONS if converged else self.iterations,
                "conv_thr": _CONVERGENCE * structure.n_atoms,
                "startingpot": "atomic",
                # Symmetry of the orbitals alone could keep states out of an SCF for good.
                "startingwfc": "atomic" if self.is_single_shot else "atomic+random",
            },
        }
        if self.on_path:
            found["control"] |= {"calculation": "bands"}
            found["electrons"] |= {
                "startingpot": "file",
                "diago_thr_init": _BANDS_THRESHOLD,
                "diago_david_ndim": _BANDS_SUBSPACE,
            }
        return found

    def input_text(self, changes: Namelists | None = None) -> str:
        """The input file, with ``changes`` made to its namelists."""
        structure = self.cell.structure
        lines = []
        for name, settings in self.namelists().items():
            settings = {**settings, **(changes or {}).get(name, {})}
            lines += [f"&{name}", *(f"  {key} = {_fortran(value)}" for key, value in settings.items()), "/"]
        lines.append("ATOMIC_SPECIES")
        lines += [f"  {symbol} 1.0 {pseudo.filename}" for symbol, pseudo in self.pseudos.items()]
        lines.append("CELL_PARAMETERS bohr")
        lines += [_numbers(vector) for vector in structure.lattice / BOHR_IN_ANGSTROM]
        lines.append("ATOMIC_POSITIONS crystal")
        lines += [
            f"  {symbol} {_numbers(position)}"
            for symbol, position in zip(structure.symbols, structure.positions, strict=True)
        ]
        lines += ["K_POINTS crystal", f"  {len(self.mesh)}"]
        lines += [_numbers([*k, w]) for k, w in zip(self.mesh.kpoints, self.mesh.weights, strict=True)]
        return "\n".join(lines) + "\n"


def _numbers(values: Any) -> str:
    return "  " + " ".join(f"{value:.15f}" for value in np.asarray(values, float))


def _fortran(value: Any) -> str:
    if isinstance(value, bool):
        return ".true." if value else ".false."
    return f"'{value}'" if isinstance(value, str) else repr(value)

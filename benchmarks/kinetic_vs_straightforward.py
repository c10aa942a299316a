"""Kinetic spectra: `KineticSettings.calculate` against lattice sums of stock PySCF and SciPy's eigh.

For every system, on the same cell, basis functions and k points:

- straightforward: `pyscf.pbc.gto.Cell` (building it included), `pbc_intor` of int1e_kin and int1e_ovlp at all k points
  at once, `scipy.linalg.eigh` for eigenvalues at each;
- sorep: `KineticSettings.calculate`, with the search for symmetry, the reduced cell and the reduced mesh included,
  which the straightforward route is given for nothing.

First table: the published basis, primitives with exponents below 0.1 discarded; PySCF at its default precision, 1e-8.
Second table: the default basis, every primitive kept; PySCF's lattice sums reach farther then. They run at 1e-11, so
that both routes give eigenvalues to 1e-10 Ha; `--precision 1e-8`, its default, takes about a third less of PySCF's time
and is off by up to 5e-7 Ha. sorep's precision is its default, 1e-11. CPU seconds on one thread, medians.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from _common import cpu_seconds, example, supercell, use_one_thread
from ase.build import nanotube
from numpy.typing import NDArray
from pyscf.gto import gto_norm
from pyscf.pbc.gto import Cell as PyscfCell

from sorep.kinetic.basis import BasisSet
from sorep.kinetic.method import KineticSettings
from sorep.structure import Structure
from sorep.units import BOHR_IN_ANGSTROM, HARTREE_IN_EV


@dataclass(frozen=True)
class System:
    """A structure and its k spacing, 1/Angstrom."""

    name: str
    structure: Callable[[], Structure]
    spacing: float


def nanotube_8_0() -> Structure:
    atoms = nanotube(8, 0, bond=1.42, vacuum=30.0)
    atoms.pbc = True
    return Structure.from_ase(atoms)


SYSTEMS = (
    System("Si", lambda: example("si"), 0.1),
    System("Ge", lambda: example("ge"), 0.1),
    System("K2Sn2O3", lambda: example("k2sn2o3"), 0.1),
    System("BaTiO3, 5 atoms", lambda: example("batio3_cubic"), 0.2),
    System("nanotube (8,0)", nanotube_8_0, 0.05),
    System("BaTiO3, 30 atoms, P1", lambda: supercell("batio3_cubic", (1, 2, 3), displacement=0.05), 0.2),
)


def straightforward(
    structure: Structure, basis: BasisSet, kpoints: NDArray[np.float64], precision: float
) -> NDArray[np.float64]:
    """Eigenvalues (n_k, n) in Hartree of stock PySCF's matrices."""
    cell = PyscfCell()
    cell.unit = "Bohr"
    cell.a = structure.lattice / BOHR_IN_ANGSTROM
    symbols = structure.to_ase().get_chemical_symbols()
    cell.atom = [[s, x] for s, x in zip(symbols, structure.positions @ cell.a, strict=True)]
    cell.basis = {s: pyscf_shells(basis, z) for s, z in zip(symbols, structure.numbers, strict=True)}
    cell.precision = precision
    cell.spin = None  # the number of electrons plays no role
    cell.verbose = 0
    cell.build()
    absolute = cell.get_abs_kpts(kpoints)
    kinetic = cell.pbc_intor("int1e_kin", hermi=1, kpts=absolute)
    overlap = cell.pbc_intor("int1e_ovlp", hermi=1, kpts=absolute)
    return np.array([scipy.linalg.eigh(t, s, eigvals_only=True) for t, s in zip(kinetic, overlap, strict=True)])


def pyscf_shells(basis: BasisSet, number: int) -> list:
    """Shells as PySCF wants them: coefficients of normalised primitives."""
    return [
        [
            shell.angular_momentum,
            *np.column_stack(
                [shell.exponents, shell.coefficients / gto_norm(shell.angular_momentum, shell.exponents)[:, None]]
            ).tolist(),
        ]
        for shell in basis.shells_of(number)
    ]


def compare(system: System, settings: KineticSettings, pyscf_precision: float, repetitions: int) -> None:
    """One row of a table."""
    structure = system.structure()
    settings.load_basis()
    own_seconds, calculation = cpu_seconds(lambda: settings.calculate(structure), repetitions)
    spectrum = calculation.spectrum
    arguments = (calculation.cell.structure, settings.load_basis(), spectrum.kpoints, pyscf_precision)
    seconds, reference = cpu_seconds(lambda: straightforward(*arguments), repetitions)
    difference = np.abs(spectrum.eigenvalues[0] / HARTREE_IN_EV - reference).max()
    print(
        f"{system.name:22} {len(reference):5} {reference.shape[1]:9} {seconds:9.3f} {own_seconds:9.3f}"
        f" {seconds / own_seconds:7.1f}x {difference:9.1e} Ha",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3, help="calls of which the median counts [%(default)s]")
    parser.add_argument("--precision", type=float, default=1e-11, help="PySCF's for the second table [%(default)s]")
    options = parser.parse_args()
    use_one_thread()
    tables = (
        ("Primitives below 0.1 discarded, PySCF at precision 1e-8", "ano-ml-os-published", 0.1, 1e-8),
        (f"Every primitive kept, PySCF at precision {options.precision:g}", "ano-ml-os", 0.0, options.precision),
    )
    for title, basis, discard_below, precision in tables:
        print(f"\n{title}")
        print(
            f"{'system':22} {'k':>5} {'functions':>9} {'PySCF, s':>9} {'sorep, s':>9} {'ratio':>8} {'difference':>12}"
        )
        for system in SYSTEMS:
            settings = KineticSettings(basis=basis, discard_below=discard_below, k_spacing=system.spacing)
            compare(system, settings, precision, options.repetitions)


if __name__ == "__main__":
    main()

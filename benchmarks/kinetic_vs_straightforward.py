"""Kinetic features: from structure to feature by sorep, and by lattice sums of stock PySCF with SciPy's eigh.

For every system, on the same cell, basis functions and k points:

- straightforward: `pyscf.pbc.gto.Cell` (building it included), `pbc_intor` of int1e_kin and int1e_ovlp at all k points
  at once, `scipy.linalg.eigh` for eigenvalues at each, the density of states by `sorep.dos`;
- sorep: `KineticSettings.calculate` and the density of states, with the search for symmetry, the reduced cell and the
  reduced mesh included, which the straightforward route is given for nothing. Tables of integrals are warm.

First table: the published basis, primitives with exponents below 0.1 discarded; PySCF at its default precision, 1e-8.
Second table: the default basis, every primitive kept; PySCF's lattice sums reach farther then. They run at 1e-11, so
that both routes agree to 1e-9 Ha; `--precision 1e-8`, its default, takes about a third less of PySCF's time and is off
by up to 5e-7 Ha. The largest systems take minutes by the straightforward route; `--quick` leaves them out.
Third table: sorep alone, crystals given as conventional cells or supercells, in the cell as given and in the canonical
one. CPU seconds on one thread, medians.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import geometric_mean

import numpy as np
import scipy.linalg
from _common import cpu_seconds, example, supercell, use_one_thread
from ase.build import nanotube
from numpy.typing import NDArray
from pyscf.gto import gto_norm
from pyscf.pbc.gto import Cell as PyscfCell

from sorep.cells import canonical_cell
from sorep.features import compute_feature, get_feature
from sorep.kinetic.basis import BasisSet
from sorep.kinetic.method import KineticSettings
from sorep.method import Calculation
from sorep.structure import Structure
from sorep.units import BOHR_IN_ANGSTROM, HARTREE_IN_EV


@dataclass(frozen=True)
class System:
    """A structure and its k spacing, 1/Angstrom."""

    name: str
    structure: Callable[[], Structure]
    spacing: float
    large: bool = False


def canonical(structure: Structure) -> Structure:
    return canonical_cell(structure).structure


def nanotube_8_0() -> Structure:
    atoms = nanotube(8, 0, bond=1.42, vacuum=30.0)
    atoms.pbc = True
    return Structure.from_ase(atoms)


FEATURE = get_feature("kinetic")

SYSTEMS = (
    System("Si", lambda: canonical(example("si")), 0.1),
    System("Ge", lambda: canonical(example("ge")), 0.1),
    System("K2Sn2O3", lambda: canonical(example("k2sn2o3")), 0.1),
    System("BaTiO3, 5 atoms", lambda: example("batio3_cubic"), 0.2),
    System("nanotube (8,0)", nanotube_8_0, 0.05),
    System("BaTiO3, 30 atoms, P1", lambda: supercell("batio3_cubic", (1, 2, 3), displacement=0.05), 0.2),
    System("SnO2, 96 atoms, P1", lambda: supercell("sno2", (2, 2, 4), displacement=0.05), 0.1, large=True),
    System("BaTiO3, 100 atoms, P1", lambda: supercell("batio3_cubic", (1, 4, 5), displacement=0.05), 0.2, large=True),
)

CELLS = (
    System("Si, conventional", lambda: example("si"), 0.1),
    System("NaCl, conventional", lambda: example("nacl"), 0.2),
    System("K2Sn2O3, hexagonal", lambda: example("k2sn2o3"), 0.1),
    System("BaTiO3, 2x2x2", lambda: supercell("batio3_cubic", (2, 2, 2)), 0.2),
    System("SnO2, 1x1x3", lambda: supercell("sno2", (1, 1, 3)), 0.2),
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


def compare(system: System, settings: KineticSettings, pyscf_precision: float, repetitions: int) -> float:
    """One row of a table; returns the ratio."""
    structure = system.structure()
    settings.load_basis()

    def own() -> Calculation:
        calculation = settings.calculate(structure)
        compute_feature(calculation.spectrum, FEATURE)
        return calculation

    own()  # computes missing tables
    own_seconds, calculation = cpu_seconds(own, max(repetitions, 3))
    spectrum = calculation.spectrum
    cell, basis, kpoints = calculation.cell.structure, settings.load_basis(), spectrum.kpoints

    def theirs() -> NDArray[np.float64]:
        energies = straightforward(cell, basis, kpoints, pyscf_precision)
        compute_feature(replace(spectrum, energies=energies.ravel() * HARTREE_IN_EV), FEATURE)
        return energies

    seconds, reference = cpu_seconds(theirs, 1 if system.large else repetitions)
    difference = np.abs(spectrum.eigenvalues[0] / HARTREE_IN_EV - reference).max()
    ratio = seconds / own_seconds
    print(
        f"{system.name:22} {len(reference):5} {reference.shape[1]:9} {seconds:9.3f} {own_seconds:9.4f}"
        f" {ratio:7.1f}x {difference:9.1e} Ha",
        flush=True,
    )
    return ratio


def compare_cells(system: System, repetitions: int) -> float:
    """One row of the third table; returns the ratio."""
    structure = system.structure()
    seconds = []
    for keep_cell in (True, False):
        settings = KineticSettings(k_spacing=system.spacing, keep_cell=keep_cell)
        settings.calculate(structure)
        seconds.append(cpu_seconds(lambda settings=settings: settings.calculate(structure), max(repetitions, 3))[0])
    ratio = seconds[0] / seconds[1]
    print(f"{system.name:22} {structure.n_atoms:5} {seconds[0]:9.4f} {seconds[1]:9.4f} {ratio:7.1f}x", flush=True)
    return ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3, help="calls of which the median counts [%(default)s]")
    parser.add_argument("--precision", type=float, default=1e-11, help="PySCF's for the second table [%(default)s]")
    parser.add_argument("--quick", action="store_true", help="leave out the systems of 96 and 100 atoms")
    parser.add_argument("--table", type=int, choices=(1, 2, 3), help="only this one")
    options = parser.parse_args()
    use_one_thread()
    tables = {
        1: ("Primitives below 0.1 discarded, PySCF at precision 1e-8", "ano-ml-os-published", 0.1, 1e-8),
        2: (f"Every primitive kept, PySCF at precision {options.precision:g}", "ano-ml-os", 0.0, options.precision),
    }
    wanted = [options.table] if options.table else [1, 2, 3]
    for number, (title, basis, discard_below, precision) in tables.items():
        if number not in wanted:
            continue
        print(f"\n{title}")
        print(
            f"{'system':22} {'k':>5} {'functions':>9} {'PySCF, s':>9} {'sorep, s':>9} {'ratio':>8} {'difference':>12}"
        )
        ratios = []
        for system in (s for s in SYSTEMS if not (options.quick and s.large)):
            settings = KineticSettings(basis=basis, discard_below=discard_below, k_spacing=system.spacing)
            ratios.append(compare(system, settings, precision, options.repetitions))
        print(f"geometric mean {geometric_mean(ratios):.1f}x, smallest {min(ratios):.1f}x")
    if 3 in wanted:
        print("\nGiven cell and canonical cell, every primitive kept")
        print(f"{'system':22} {'atoms':>5} {'given, s':>9} {'canon., s':>9} {'ratio':>8}")
        ratios = [compare_cells(system, options.repetitions) for system in CELLS]
        print(f"geometric mean {geometric_mean(ratios):.1f}x")


if __name__ == "__main__":
    main()

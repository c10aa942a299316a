"""How far the kinetic feature moves when a crystal is displaced, strained or described by another cell.

Cosine distances between the features of an example crystal and of its changed copy:

1. One atom displaced, next to whether pymatgen's StructureMatcher (default tolerances) calls both the same crystal.
2. Isotropic strain, and all atoms displaced at random by 0.01 Angstrom (standard deviation; mean of a few): the
   distances, and from which strain and displacement on they exceed `--epsilon`. The matcher scales volumes, and calls
   every isotropic strain the same.
3. The k mesh. A doubled cell with its atoms displaced at random by 0.001 Angstrom cannot be reduced to the primitive
   cell, and gets a mesh of its own. Its distance, where it is larger than that of the same displacement in the
   primitive cell (last column), is the error of the meshes: between crystals in cells of different shape, a spacing
   resolves no smaller differences.
"""

from __future__ import annotations

import argparse

import numpy as np
from _common import example, use_one_thread
from numpy.typing import NDArray
from pymatgen.analysis.structure_matcher import StructureMatcher
from scipy.optimize import brentq
from similarity import to_pymatgen

from sorep.cells import canonical_cell
from sorep.features import FEATURES, compute_feature
from sorep.kinetic.method import KineticSettings
from sorep.similarity import DEFAULT_EPSILON, cross
from sorep.structure import Structure

NAMES = (
    "si",
    "gaas",
    "nacl",
    "mgo",
    "zno",
    "tio2_rutile",
    "graphite",
    "batio3_cubic",
    "batio3_tetragonal",
    "batio3_orthorhombic",
    "batio3_rhombohedral",
)
MOVED = {"si": "Si", "nacl": "Na", "batio3_cubic": "Ti", "batio3_tetragonal": "Ti", "tio2_rutile": "Ti"}
"""Crystals of the first table, and the element of which one atom moves."""

DIRECTION = np.array([1.0, 1.0, 1.0]) / 3**0.5
DISPLACEMENTS = (0.003, 0.01, 0.03, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.5, 0.7, 0.9, 1.1)  # Angstrom
STRAINS = (0.001, 0.01, 0.05)
RATTLING = 0.01  # Angstrom
SPACINGS = (0.3, 0.2, 0.15, 0.1, 0.07, 0.05)  # 1/Angstrom
SEEDS = range(5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--k-spacing", type=float, default=0.2, help="of tables 1 and 2, 1/Angstrom [%(default)s]")
    parser.add_argument("--epsilon", type=float, default=DEFAULT_EPSILON, help="of table 2 [%(default)s]")
    options = parser.parse_args()
    use_one_thread()
    one_atom(options.k_spacing)
    strain_and_rattling(options.k_spacing, options.epsilon)
    meshes()


def one_atom(k_spacing: float) -> None:
    """Table 1."""
    print("One atom displaced along (1,1,1): cosine distance, and whether StructureMatcher calls both the same")
    print(f"{'Angstrom':>9}" + "".join(f"{name:>21}" for name in MOVED))
    crystals = {name: primitive(name) for name in MOVED}
    moves = {name: crystals[name].symbols.index(element) for name, element in MOVED.items()}
    matcher = StructureMatcher()
    for displacement in DISPLACEMENTS:
        answers = []
        for name, crystal in crystals.items():
            shifts = np.zeros((crystal.n_atoms, 3))
            shifts[moves[name]] = displacement * DIRECTION
            moved = displaced(crystal, shifts)
            said = "yes" if matcher.fit(to_pymatgen(crystal), to_pymatgen(moved)) else "no"
            answers.append(f"{distance(crystal, moved, k_spacing):16.1e} {said:>4}")
        print(f"{displacement:9.3f}" + "".join(answers), flush=True)


def strain_and_rattling(k_spacing: float, epsilon: float) -> None:
    """Table 2."""
    strains = "".join(f"{f'{100 * strain:g} %':>9}" for strain in STRAINS)
    print(f"\nIsotropic strain and random displacements: cosine distance, and what reaches {epsilon:g}")
    print(f"{'crystal':20}{strains}{f'{RATTLING:g} A':>9}{'strain':>10}{'displacement':>14}")
    for name in NAMES:
        crystal = primitive(name)

        def of_strain(strain: float, crystal: Structure = crystal) -> float:
            return distance(crystal, strained(crystal, strain), k_spacing)

        def of_rattling(deviation: float, crystal: Structure = crystal) -> float:
            copies = [rattled(crystal, deviation, seed) for seed in SEEDS]
            return float(np.mean([distance(crystal, copy, k_spacing) for copy in copies]))

        line = "".join(f"{of_strain(strain):9.1e}" for strain in STRAINS) + f"{of_rattling(RATTLING):9.1e}"
        strain = brentq(lambda x: of_strain(x) - epsilon, 0.0, 0.05, xtol=1e-5)
        deviation = brentq(lambda x: of_rattling(x) - epsilon, 0.0, 0.3, xtol=1e-4)
        print(f"{name:20}{line}{100 * strain:8.2f} %{deviation:12.3f} A", flush=True)


def meshes() -> None:
    """Table 3."""
    print("\nDoubled cell, atoms displaced by 0.001 A, against the primitive cell: cosine distance by k spacing, 1/A")
    print(f"{'crystal':20}" + "".join(f"{spacing:>9g}" for spacing in SPACINGS) + f"{'primitive':>11}")
    for name in NAMES:
        crystal = primitive(name)
        doubled = Structure.from_ase(crystal.to_ase().repeat((2, 1, 1)))
        copy = rattled(doubled, 0.001, 0)
        line = "".join(f"{distance(crystal, copy, spacing):9.1e}" for spacing in SPACINGS)
        alone = distance(crystal, rattled(crystal, 0.001, 0), SPACINGS[1])
        print(f"{name:20}{line}{alone:11.1e}", flush=True)


def primitive(name: str) -> Structure:
    return canonical_cell(example(name)).structure


def displaced(crystal: Structure, shifts: NDArray[np.float64]) -> Structure:
    """Atoms moved by Cartesian vectors, Angstrom."""
    moved = crystal.positions + shifts @ np.linalg.inv(crystal.lattice)
    return Structure(crystal.id, crystal.lattice, crystal.numbers, moved)


def rattled(crystal: Structure, deviation: float, seed: int) -> Structure:
    return displaced(crystal, np.random.default_rng(seed).normal(scale=deviation, size=(crystal.n_atoms, 3)))


def strained(crystal: Structure, strain: float) -> Structure:
    return Structure(crystal.id, (1 + strain) * crystal.lattice, crystal.numbers, crystal.positions)


def distance(a: Structure, b: Structure, k_spacing: float) -> float:
    settings = KineticSettings(k_spacing=k_spacing)
    one, other = (compute_feature(settings.calculate(x).spectrum, FEATURES["kinetic"])[None] for x in (a, b))
    return float(cross(one, other)[0, 0])


if __name__ == "__main__":
    main()

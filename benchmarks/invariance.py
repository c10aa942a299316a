"""How much a feature depends on the way a crystal is written down.

Each crystal is given as its primitive cell, its conventional cell, a supercell, a skewed cell of the same lattice, and
rotated with its origin moved and its atoms in another order. Printed is the largest change of any component of the
`kinetic` feature against the primitive cell, relative to the feature's maximum:

- canonical: the default settings, which reduce every description to one cell before choosing a k mesh;
- given cell: the same, but on a mesh of the cell as it was given;
- published: the published recipe (a rounded mesh of the given cell, eigenvalues cut off, states per cell, not volume).
"""

from __future__ import annotations

import argparse

import numpy as np
from _common import example, use_one_thread
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from sorep.cells import canonical_cell
from sorep.features import FEATURES, FeatureSpec, compute_feature
from sorep.kinetic.method import KineticSettings
from sorep.structure import Structure

NAMES = ("si", "ge", "nacl", "batio3_cubic", "batio3_rhombohedral", "graphite", "sno2")
FEATURE = FEATURES["kinetic"]
SHIFT = (0.1, 0.23, 0.41)  # of the origin, fractional
RECIPES: dict[str, tuple[KineticSettings, FeatureSpec]] = {
    "canonical": (KineticSettings(), FEATURE),
    "given cell": (KineticSettings(keep_cell=True), FEATURE),
    "published": (KineticSettings.published(), FEATURE.published()),
}


def descriptions(structure: Structure) -> dict[str, Structure]:
    """The crystal of an example file (most hold conventional cells) in several ways; the first is the reference."""
    primitive = canonical_cell(structure).structure
    lattice, numbers, positions = primitive.lattice, primitive.numbers, primitive.positions
    skew = np.array([[1, 0, 0], [1, 1, 0], [0, -1, 1]])
    rotation = Rotation.from_rotvec([0.3, -0.7, 0.5]).as_matrix()
    return {
        "primitive": primitive,
        "conventional": structure,
        "supercell 1x1x2": Structure.from_ase(primitive.to_ase().repeat((1, 1, 2))),
        "skewed": Structure("skewed", skew @ lattice, numbers, positions @ np.linalg.inv(skew)),
        "rotated, shifted": Structure("rotated", lattice @ rotation.T, numbers[::-1], positions[::-1] + SHIFT),
    }


def feature(structure: Structure, settings: KineticSettings, spec: FeatureSpec) -> NDArray[np.float64]:
    return compute_feature(settings.calculate(structure).spectrum, spec)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    use_one_thread()
    print(f"{'crystal':20} {'described as':18} " + " ".join(f"{name:>11}" for name in RECIPES))
    for name in NAMES:
        reference, *others = descriptions(example(name)).items()
        expected = {r: feature(reference[1], *recipe) for r, recipe in RECIPES.items()}
        for label, structure in others:
            changes = []
            for recipe in RECIPES:
                changed = feature(structure, *RECIPES[recipe])
                changes.append(np.abs(changed - expected[recipe]).max() / np.abs(expected[recipe]).max())
            print(f"{name:20} {label:18} " + " ".join(f"{change:11.1e}" for change in changes), flush=True)


if __name__ == "__main__":
    main()

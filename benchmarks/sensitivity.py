"""How far the kinetic feature moves when a crystal is displaced, strained or described by another cell.

Cosine distances d = 1 - cos between the features of an example crystal and of its changed copy:

1. One atom displaced, next to what pymatgen's StructureMatcher (default tolerances) says: equal or not, and its own root
   mean square displacement in units of (V/N)^(1/3), which ends where it answers no.
2. Isotropic strain and a random displacement of all atoms (standard deviation 0.01 Angstrom), and which strain and which
   displacement reach d = 0.001 (`--epsilon`). The matcher scales volumes: it calls every isotropic strain equal.
3. The k mesh alone. A doubled cell whose atoms are displaced by 0.001 Angstrom is no longer reduced to the primitive cell,
   and gets a mesh of its own. What is left of d is the error of both meshes: the finest difference that a spacing resolves
   between cells of different shape.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from _common import cosine_distance, example, to_pymatgen, use_one_thread
from numpy.typing import NDArray
from pymatgen.analysis.structure_matcher import StructureMatcher
from scipy.optimize import brentq

from sorep.cells import canonical_cell
from sorep.features import FEATURES, compute_feature
from sorep.kinetic.method import KineticSettings
from sorep.structure import Structure

NAMES = (
    "si",
    "cu",
    "nacl",
    "mgo",
    "gaas",
    "zno",
    "tio2_rutile",
    "batio3_cubic",
    "batio3_tetragonal",
    "batio3_rhombohedral",
)
ONE_ATOM = {"si": 1, "batio3_cubic": 3}
"""Crystals of the first table, and which atom of the file's cell moves: along x, towards no neighbour."""

DISPLACEMENTS = (0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.8, 1.1)  # Angstrom
STRAINS = (0.001, 0.01, 0.05)
SPACINGS = (0.3, 0.2, 0.15, 0.1, 0.07)  # 1/Angstrom
SEEDS = range(3)

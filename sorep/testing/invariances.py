"""One crystal, one spectrum: however it is turned, moved, numbered or divided into cells."""

from __future__ import annotations

import numpy as np

from sorep.method import Method
from sorep.structure import Structure
from sorep.testing.comparison import EXACT, require_same_crystal
from sorep.testing.descriptions import (
    mirrored,
    permuted,
    primitive_and_conventional,
    repeated,
    rotated,
    translated,
    with_other_axes,
)


def check_rotation(method: Method, structure: Structure, rng: np.random.Generator, tolerance: float = EXACT) -> None:
    """Turning the crystal changes nothing."""
    _require_equal_spectra(method, structure, rotated(structure, rng), tolerance)


def check_translation(method: Method, structure: Structure, rng: np.random.Generator, tolerance: float = EXACT) -> None:
    """Moving all atoms together changes nothing."""
    _require_equal_spectra(method, structure, translated(structure, rng), tolerance)


def check_permutation(method: Method, structure: Structure, rng: np.random.Generator, tolerance: float = EXACT) -> None:
    """The order of the atoms does not matter."""
    _require_equal_spectra(method, structure, permuted(structure, rng), tolerance)


def check_axes(method: Method, structure: Structure, rng: np.random.Generator, tolerance: float = EXACT) -> None:
    """Neither does the choice of lattice vectors."""
    _require_equal_spectra(method, structure, with_other_axes(structure, rng), tolerance)


def check_supercell(method: Method, structure: Structure, rng: np.random.Generator, tolerance: float = EXACT) -> None:
    """A supercell, turned and shuffled, has the spectrum of its cell."""
    again = permuted(rotated(with_other_axes(repeated(structure, rng), rng), rng), rng)
    _require_equal_spectra(method, structure, again, tolerance)


def check_conventional_cell(
    method: Method, structure: Structure, rng: np.random.Generator, tolerance: float = EXACT
) -> None:
    """Primitive and conventional cell have one spectrum."""
    _require_equal_spectra(method, *primitive_and_conventional(structure), tolerance)


def check_mirror_image(
    method: Method, structure: Structure, rng: np.random.Generator, tolerance: float = EXACT
) -> None:
    """Enantiomorphs have one spectrum."""
    _require_equal_spectra(method, structure, mirrored(structure, rng), tolerance)


def _require_equal_spectra(method: Method, one: Structure, other: Structure, tolerance: float) -> None:
    require_same_crystal(method.calculate(one), method.calculate(other), tolerance)

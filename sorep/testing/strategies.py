"""Hypothesis strategies for crystals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from sorep.structure import Structure

_CENTRINGS = {
    "primitive": np.eye(3),
    "base-centred": np.array([[0.5, 0.5, 0], [-0.5, 0.5, 0], [0, 0, 1]]),
    "body-centred": 0.5 * np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]]),
    "face-centred": 0.5 * (1 - np.eye(3)),
    "hexagonal": np.array([[1, 0, 0], [-0.5, 0.75**0.5, 0], [0, 0, 1]]),
    "rhombohedral": np.array([[0.5, 12**-0.5, 1 / 3], [-0.5, 12**-0.5, 1 / 3], [0, -(3**-0.5), 1 / 3]]),
}
_CONTACTS = st.floats(1.0, 1.3)
_CANDIDATES = 20


@st.composite
def lattices(draw: st.DrawFn, *, almost_symmetric: bool = True) -> NDArray[np.float64]:
    """Lattices of all Bravais types, exact or distorted, of unit volume; vectors as rows.

    Parameters
    ----------
    almost_symmetric : bool
        Some distortions are as small as the last digits of a file, where the reduction of a cell can go either way.
    """
    centring = _CENTRINGS[draw(st.sampled_from(sorted(_CENTRINGS, reverse=True)))]
    ratios = draw(st.sampled_from([1.0, 2**0.5, 1.3])), draw(st.floats(0.6, 2.5))
    angle = np.radians(draw(st.sampled_from([90.0, 100.0, 120.0])))
    noise = draw(st.sampled_from([0.0, 0.1, 1e-8, 1e-6, 1e-4] if almost_symmetric else [0.0, 0.1]))
    sheared = np.array([[1, 0, 0], [0, 1, 0], [np.cos(angle), 0, np.sin(angle)]])
    lattice = centring @ np.diag([1.0, *ratios]) @ sheared
    lattice = lattice @ (np.eye(3) + noise * _generator(draw).uniform(-1, 1, (3, 3)))
    return lattice / np.abs(np.linalg.det(lattice)) ** (1 / 3)


@st.composite
def structures(
    draw: st.DrawFn, elements: Sequence[str] = ("Si", "O", "Mg"), *, max_atoms: int = 4, min_atoms: int = 1
) -> Structure:
    """Small crystals: any lattice, mixed elements, atoms anywhere but not too close.

    The two closest atoms are 1 to 1.3 times the sum of their covalent radii apart, so that no example is rejected and
    none has two atoms in one place.

    Parameters
    ----------
    elements : sequence of str
        Symbols of the elements to choose from.
    max_atoms, min_atoms : int
        Atoms per cell.
    """
    from ase.data import atomic_numbers, covalent_radii

    symbols = draw(st.lists(st.sampled_from(list(elements)), min_size=min_atoms, max_size=max_atoms))
    numbers = np.array([atomic_numbers[symbol] for symbol in symbols])
    # A single atom would make the almost symmetric crystal symmetric, to the tolerance of the symmetry search only.
    lattice = draw(lattices(almost_symmetric=len(symbols) > 1))
    radii = covalent_radii[numbers]
    positions = _spread_out(lattice, radii, _generator(draw))
    lattice = lattice * draw(_CONTACTS) / _closest(lattice, positions, radii)
    return Structure("random", lattice, numbers, positions).validate()


def _generator(draw: st.DrawFn) -> np.random.Generator:
    return np.random.default_rng(draw(st.integers(0, 2**16)))


def _spread_out(
    lattice: NDArray[np.float64], radii: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Random positions, each the farthest of several candidates from those before it."""
    positions = rng.random((1, 3))
    while len(positions) < len(radii):
        n = len(positions) + 1
        tries = [np.concatenate([positions, candidate[None]]) for candidate in rng.random((_CANDIDATES, 3))]
        positions = max(tries, key=lambda some: _closest(lattice, some, radii[:n]))
    return positions


def _closest(lattice: NDArray[np.float64], positions: NDArray[np.float64], radii: NDArray[np.float64]) -> float:
    """Smallest distance of two atoms, images included, over the sum of their radii."""
    images = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), -1).reshape(-1, 3)
    difference = positions[:, None, None] - positions[None, :, None] + images
    ratios = np.linalg.norm(difference @ lattice, axis=-1) / (radii[:, None] + radii)[..., None]
    return float(ratios[ratios > 0].min())

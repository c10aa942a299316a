"""Neighbour lists against counting every image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sorep.neighbors import neighbor_pairs


def by_counting(lattice: np.ndarray, positions: np.ndarray, cutoff: float) -> dict[tuple[int, ...], float]:
    # |t_i| = |r . b_i| <= |r| |b_i| bounds the images, positions outside the cell included.
    spread = np.ptp(positions, axis=0)
    reach = np.ceil(cutoff * np.linalg.norm(np.linalg.inv(lattice), axis=0) + spread).astype(int)
    images = np.stack(np.meshgrid(*(np.arange(-m, m + 1) for m in reach), indexing="ij"), -1).reshape(-1, 3)
    pairs = {}
    for i, here in enumerate(positions):
        for j, there in enumerate(positions):
            distances = np.linalg.norm((there + images - here) @ lattice, axis=1)
            for image, distance in zip(images, distances, strict=True):
                if distance <= cutoff and not (i == j and not image.any()):
                    pairs[(i, j, *image.tolist())] = float(distance)
    return pairs


def as_dictionary(lattice: np.ndarray, positions: np.ndarray, cutoff: float) -> dict[tuple[int, ...], float]:
    first, second, image, distances = neighbor_pairs(lattice, positions, cutoff)
    keys = np.column_stack([first, second, image]).tolist()
    assert len({tuple(key) for key in keys}) == len(keys)
    return {tuple(key): distance for key, distance in zip(keys, distances.tolist(), strict=True)}


@given(seed=st.integers(0, 10**6), n_atoms=st.integers(1, 4), skew=st.floats(0, 6), outside=st.booleans())
@settings(derandomize=True, deadline=None, max_examples=40)
def test_every_pair_once_with_its_image(seed: int, n_atoms: int, skew: float, outside: bool) -> None:
    rng = np.random.default_rng(seed)
    lattice = 3.0 * np.eye(3) + rng.normal(size=(3, 3)) * 0.3
    lattice[1] += skew * lattice[0]  # long, flat cells are the hard ones
    positions = rng.random((n_atoms, 3)) + (rng.integers(-3, 4, (n_atoms, 3)) if outside else 0)
    expected = by_counting(lattice, positions, 4.2)
    found = as_dictionary(lattice, positions, 4.2)
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected, abs=1e-9)


def test_face_centred_cubic_shells() -> None:
    lattice = 2.0 * (1 - np.eye(3))  # conventional edge 4
    distances = np.sort(neighbor_pairs(lattice, np.zeros((1, 3)), 5.0).distances)
    np.testing.assert_allclose(distances, np.repeat([8**0.5, 4.0, 24**0.5], [12, 6, 24]), atol=1e-12)


def test_no_neighbours() -> None:
    pairs = neighbor_pairs(5.0 * np.eye(3), np.zeros((1, 3)), 4.0)
    assert all(len(field) == 0 for field in pairs)
    assert pairs.image.shape == (0, 3)

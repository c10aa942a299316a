"""Real harmonics in Quantum ESPRESSO's order and sign, how they turn, and the operations of a crystal."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import ortho_group

from sorep.cells import canonical_cell
from sorep.single_shot.symmetry import SpaceGroup, harmonic_rotations, real_harmonics

pytestmark = pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING:DeprecationWarning")

RNG = np.random.default_rng(3)
DIRECTIONS = RNG.normal(size=(50, 3))
ROTATIONS = np.concatenate([ortho_group.rvs(3, size=6, random_state=RNG), [np.eye(3), -np.eye(3)]])


def unit() -> NDArray[np.float64]:
    return (DIRECTIONS / np.linalg.norm(DIRECTIONS, axis=1, keepdims=True)).T


class TestHarmonics:
    def test_s(self) -> None:
        assert real_harmonics(0, DIRECTIONS) == pytest.approx((4 * np.pi) ** -0.5)

    def test_p_are_z_and_minus_x_and_minus_y(self) -> None:
        x, y, z = unit()
        assert np.allclose(real_harmonics(1, DIRECTIONS), np.sqrt(3 / (4 * np.pi)) * np.stack([z, -x, -y], axis=1))

    def test_d_in_the_order_of_the_manual(self) -> None:
        x, y, z = unit()
        expected = np.stack([(3 * z**2 - 1) / 12**0.5, -x * z, -y * z, (x**2 - y**2) / 2, x * y], axis=1)
        assert np.allclose(real_harmonics(2, DIRECTIONS), np.sqrt(15 / (4 * np.pi)) * expected)

    @pytest.mark.parametrize("l", [0, 1, 2, 3])
    def test_orthonormal(self, l: int) -> None:  # noqa: E741
        z, weight = np.polynomial.legendre.leggauss(8)
        phi = np.arange(16) * np.pi / 8
        x, y = (np.sqrt(1 - z**2)[:, None] * f(phi) for f in (np.cos, np.sin))
        points = np.stack([x, y, np.broadcast_to(z[:, None], x.shape)], axis=-1)
        values = real_harmonics(l, points)
        overlaps = np.einsum("z,zpi,zpj->ij", weight, values, values) * np.pi / 8
        assert np.allclose(overlaps, np.eye(2 * l + 1))


@pytest.mark.parametrize("l", [0, 1, 2, 3])
class TestRotations:
    def test_what_they_do_to_harmonics(self, l: int) -> None:  # noqa: E741
        found = harmonic_rotations(l, ROTATIONS)
        for rotation, d in zip(ROTATIONS, found, strict=True):
            turned = real_harmonics(l, DIRECTIONS @ rotation)  # rows are W^-1 r
            assert np.allclose(turned, real_harmonics(l, DIRECTIONS) @ d)
            assert np.allclose(d @ d.T, np.eye(2 * l + 1))

    def test_products(self, l: int) -> None:  # noqa: E741
        one, other, both = harmonic_rotations(l, np.array([ROTATIONS[0], ROTATIONS[1], ROTATIONS[0] @ ROTATIONS[1]]))
        assert np.allclose(one @ other, both)

    def test_inversion(self, l: int) -> None:  # noqa: E741
        assert np.allclose(harmonic_rotations(l, ROTATIONS)[-1], (-1) ** l * np.eye(2 * l + 1))


@pytest.mark.parametrize("name", ["silicon", "magnesium", "anatase", "batio3", "bismuth", "distorted-batio3"])
def test_operations_map_the_crystal_onto_itself(crystals, name: str) -> None:
    cell = canonical_cell(crystals[name])
    group = SpaceGroup.of(cell)
    structure = cell.structure
    for rotation, translation in zip(group.rotations, group.translations, strict=True):
        moved = structure.positions @ rotation.T + translation
        difference = moved[:, None] - structure.positions
        difference -= np.rint(difference)
        same = np.linalg.norm(difference @ structure.lattice, axis=-1) < 1e-4
        same &= structure.numbers[:, None] == structure.numbers
        assert (same.sum(axis=1) == 1).all()
        assert (same.sum(axis=0) == 1).all()

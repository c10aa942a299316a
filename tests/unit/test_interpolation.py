"""Interpolation of matrices from a coarse mesh, on Gaussian functions whose matrices are known at every k."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from sorep.interpolation import (
    InterpolationError,
    OrbitalMatrices,
    half_mesh,
    images_of_addresses,
    interpolate,
    level_difference,
    mesh_addresses,
    pair_images,
    reduced_lattice,
)

pytestmark = pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING:DeprecationWarning")

KPOINTS = np.random.default_rng(5).uniform(-1, 1, size=(20, 3))
CUBIC = 3.0 * np.eye(3)
TRICLINIC = np.array([[3.1, 0.2, -0.4], [-1.2, 3.6, 0.3], [0.7, 1.1, 3.3]])
SKEWED = np.array([[1, 0, 0], [2, 1, 0], [-1, 1, 1]]) @ TRICLINIC  # the same lattice
FCC = 2.1 * (1 - np.eye(3))

POSITIONS = np.array([[0.1, 0.2, 0.3], [0.55, 0.6, 0.9]])
ATOMS = np.array([0, 0, 1])
ENERGIES = np.array([[-4.0, 1.0, 2.0], [1.0, 3.0, -1.5], [2.0, -1.5, 0.5]])  # eV, times the overlap


def gaussians(
    lattice: NDArray, kpoints: NDArray, width: float, positions: ArrayLike = POSITIONS, atoms: NDArray = ATOMS
) -> NDArray[np.complex128]:
    """A(k) and S(k), (2, n_k, n, n), of Gaussians of several widths; two of them on the first atom."""
    positions, widths = np.asarray(positions)[atoms], width * np.array([1.0, 0.6, 0.8])[: len(atoms)]
    translations = np.array(list(product(range(-9, 10), repeat=3)))
    vectors = (translations[:, None, None] + positions - positions[:, None]) @ lattice
    squares = widths[:, None] ** 2 + widths**2
    norm = (2 * np.outer(widths, widths) / squares) ** 1.5
    overlaps = norm * np.exp(-(vectors**2).sum(axis=-1) / (2 * squares))
    phases = np.exp(2j * np.pi * kpoints @ translations.T)
    s = np.einsum("kR,Rij->kij", phases, overlaps)
    return np.array([ENERGIES[: len(atoms), : len(atoms)] * s, s])


def on_mesh(lattice: NDArray, divisions: ArrayLike, width: float) -> OrbitalMatrices:
    divisions = np.asarray(divisions)
    a, s = gaussians(lattice, half_mesh(divisions) / divisions, width)
    return OrbitalMatrices(lattice, POSITIONS, ATOMS, divisions, a, s)


def chain(overlap: float, divisions: int) -> OrbitalMatrices:
    """One function a cell, overlapping with its neighbours along one axis; S(k) = 1 + 2 s cos(2 pi k)."""
    kpoints = np.arange(divisions // 2 + 1) / divisions
    s = (1 + 2 * overlap * np.cos(2 * np.pi * kpoints)).reshape(-1, 1, 1).astype(complex)
    lattice, divided = np.diag([30.0, 30.0, 3.0]), np.array([1, 1, divisions])
    return OrbitalMatrices(lattice, np.zeros((1, 3)), np.array([0]), divided, -s, s)


class TestInterpolate:
    @pytest.mark.parametrize(
        ("lattice", "divisions"),
        [(CUBIC, (6, 6, 6)), (TRICLINIC, (6, 5, 5)), (SKEWED, (6, 7, 7)), (FCC, (7, 7, 7)), (3 * CUBIC, (2, 2, 2))],
        ids=["cubic", "triclinic", "skewed", "fcc", "large cell"],
    )
    def test_known_blocks_are_recovered(self, lattice: NDArray, divisions: tuple[int, ...]) -> None:
        operator = interpolate(on_mesh(lattice, divisions, width=0.75))
        for found, expected in zip(operator.matrices(KPOINTS), gaussians(lattice, KPOINTS, 0.75), strict=True):
            assert np.abs(found - expected).max() < 1e-8

    @pytest.mark.parametrize("divisions", [(4, 4, 4), (5, 4, 3), (1, 5, 6)])
    def test_the_mesh_itself_comes_back_whatever_the_decay(self, divisions: tuple[int, ...], monkeypatch) -> None:
        for guard in ("_LARGEST_TAIL", "_LARGEST_ENERGY_TAIL"):
            monkeypatch.setattr(f"sorep.interpolation.{guard}", np.inf)
        mesh = on_mesh(TRICLINIC, divisions, width=1.0)
        a, s = interpolate(mesh).matrices(half_mesh(mesh.divisions) / divisions)
        assert np.abs(a - mesh.a).max() < 1e-12
        assert np.abs(s - mesh.s).max() < 1e-12

    def test_one_point_is_a_crystal_without_dispersion(self) -> None:
        operator = interpolate(on_mesh(8 * CUBIC, (1, 1, 1), width=0.75))
        energies = np.array(operator.eigenvalues(KPOINTS))
        assert np.ptp(energies, axis=0).max() < 1e-12

    def test_time_reversal(self) -> None:
        operator = interpolate(on_mesh(TRICLINIC, (6, 5, 5), width=0.75))
        for there, back in zip(operator.matrices(KPOINTS), operator.matrices(-KPOINTS), strict=True):
            assert np.abs(there.imag).max() > 0.01
            assert np.abs(there - back.conj()).max() < 1e-13

    def test_the_shortest_vector_is_taken_for_each_pair_of_atoms(self) -> None:
        """Two atoms nearly a cell apart: weights by lattice vectors alone would put the coupling one cell off."""
        positions = np.array([[0.0, 0, 0], [0.9, 0, 0]])
        atoms, divisions = np.array([0, 1]), np.array([3, 3, 3])
        a, s = gaussians(2 * CUBIC, half_mesh(divisions) / divisions, 0.9, positions, atoms)
        operator = interpolate(OrbitalMatrices(2 * CUBIC, positions, atoms, divisions, a, s))
        expected = gaussians(2 * CUBIC, KPOINTS, 0.9, positions, atoms)
        assert np.abs(operator.matrices(KPOINTS)[0] - expected[0]).max() < 1e-8

    def test_it_converges_and_the_difference_of_two_sizes_is_the_error(self) -> None:
        operators = (interpolate(on_mesh(1.4 * CUBIC, (n, n, n), 0.8)) for n in (3, 4, 6))
        three, four, six = (np.concatenate(operator.eigenvalues(KPOINTS)) for operator in operators)
        weights = np.ones(len(three))
        error, estimate = level_difference(six, three, weights, 50.0), level_difference(four, three, weights, 50.0)
        assert 0.5 * error < estimate < 2 * error
        assert level_difference(six, four, weights, 50.0) < 0.1 * error


def test_differences_of_levels_are_weighted_and_end_somewhere() -> None:
    reference, other = np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0, 12.0])
    weights = np.array([3.0, 1.0, 1.0])
    assert level_difference(reference, other, weights, 1.5) == pytest.approx(((3 * 1 + 4) / 4) ** 0.5)
    assert level_difference(reference, other, weights, 2.0) == pytest.approx(((3 * 1 + 4 + 100) / 5) ** 0.5)


class TestGuards:
    @staticmethod
    def refused(mesh: OrbitalMatrices) -> InterpolationError:
        with pytest.raises(InterpolationError) as caught:
            interpolate(mesh)
        assert caught.value.remedy
        return caught.value

    def test_blocks_that_reach_beyond_the_supercell(self) -> None:
        assert self.refused(on_mesh(CUBIC, (3, 3, 3), width=1.0)).code == "slow-decay"

    def test_energies_count_as_overlaps_do(self) -> None:
        mesh = on_mesh(CUBIC, (6, 6, 6), width=0.75)
        far = 2 * np.cos(6 * np.pi * half_mesh(mesh.divisions)[:, 0] / 6)[:, None, None]
        assert self.refused(replace(mesh, a=mesh.a + far)).code == "slow-decay"

    def test_linearly_dependent_functions(self) -> None:
        mesh = on_mesh(CUBIC, (6, 6, 6), width=0.75)
        twice = np.ix_(range(len(mesh.s)), [0, 0, 2], [0, 0, 2])
        refused = self.refused(replace(mesh, a=mesh.a[twice], s=mesh.s[twice]))
        assert refused.code == "overlap-not-positive"

    def test_an_overlap_that_is_positive_on_the_mesh_only(self) -> None:
        refused = self.refused(chain(0.499, 3))  # 0.501 at 1/3, 0.002 at 1/2
        assert refused.code == "overlap-not-positive"
        assert "between" in refused.message

    def test_the_same_with_less_overlap_passes(self) -> None:
        ((energy,),) = interpolate(chain(0.4, 3)).eigenvalues(np.array([[0, 0, 0.5]]))
        assert energy == pytest.approx(-1)

    def test_stage_mesh_and_k_point_are_named(self) -> None:
        refused = self.refused(chain(0.499, 3))
        assert refused.stage == "interpolation"
        assert "k = (0.500, 0.500, 0.500), between the points of the 1 x 1 x 3 k mesh" in refused.message
        assert "3 x 3 x 3 k mesh" in self.refused(on_mesh(CUBIC, (3, 3, 3), width=1.0)).message


class TestSymmetry:
    """Threefold axis of a cubic lattice, and a mesh that has it."""

    TURN = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    ROTATIONS = np.array([np.eye(3), TURN, TURN @ TURN], dtype=np.int64)

    def test_images_of_addresses(self) -> None:
        addresses = mesh_addresses(np.array([4, 4, 4]))
        found = images_of_addresses(addresses, np.array([4, 4, 4]), self.ROTATIONS)
        for operation, rotation in enumerate(self.ROTATIONS):
            kpoints = addresses / 4 @ np.linalg.inv(rotation)
            for images, sign in ((found[operation], 1), (found[3 + operation], -1)):
                difference = addresses[images] / 4 - sign * kpoints
                assert np.abs(difference - np.rint(difference)).max() < 1e-12

    def test_of_equal_points_one_is_enough_to_see_a_small_overlap(self) -> None:
        divisions = np.array([3, 3, 3])
        cosines = np.cos(2 * np.pi * half_mesh(divisions) / 3).sum(axis=1)
        s = (1 + 0.998 / 3 * cosines)[:, None, None].astype(complex)  # 0.002 at the corner of the Brillouin zone
        mesh = OrbitalMatrices(9 * np.eye(3), np.zeros((1, 3)), np.array([0]), divisions, s, s)
        with pytest.raises(InterpolationError, match=r"k = \(0.500, 0.500, 0.500\)"):
            interpolate(mesh, self.ROTATIONS)


class TestPairImages:
    @pytest.mark.parametrize("lattice", [CUBIC, TRICLINIC, SKEWED, FCC], ids=["cubic", "triclinic", "skewed", "fcc"])
    @pytest.mark.parametrize("divisions", [(1, 1, 1), (2, 2, 2), (4, 3, 1)])
    def test_against_a_search_over_many_vectors(self, lattice: NDArray, divisions: tuple[int, ...]) -> None:
        images = pair_images(lattice, POSITIONS, np.array(divisions))
        classes = mesh_addresses(np.array(divisions))
        supercell = np.array(list(product(range(-9, 10), repeat=3))) * divisions
        for pair, (first, second) in enumerate(zip(images.first, images.second, strict=True)):
            entries = slice(images.start[pair], images.start[pair + 1])
            separation = POSITIONS[second] - POSITIONS[first]
            for block, shift in enumerate(classes):
                length = np.linalg.norm((shift + supercell + separation) @ lattice, axis=1)
                expected = (shift + supercell)[length < length.min() + 1e-3]
                here = images.block[entries] == block
                found = images.translation[entries][here]
                assert {tuple(x) for x in found} == {tuple(x) for x in expected}
                assert images.weight[entries][here] == pytest.approx(1 / len(expected))
                assert images.distance[entries][here] == pytest.approx(length.min(), abs=2e-3)

    def test_ties_share_a_block(self) -> None:
        images = pair_images(CUBIC, np.zeros((1, 3)), np.array([2, 2, 2]))
        corner = images.block == 7  # R = (1, 1, 1): eight vectors of the same length
        assert {tuple(x) for x in images.translation[corner]} == set(product((-1, 1), repeat=3))
        assert images.weight[corner].tolist() == [1 / 8] * 8
        assert images.distance[corner] == pytest.approx(3 * 3**0.5)
        assert np.bincount(images.block, images.weight) == pytest.approx(1)

    def test_positions_outside_the_cell(self) -> None:
        inside = pair_images(TRICLINIC, POSITIONS, np.array([3, 2, 2]))
        outside = pair_images(TRICLINIC, POSITIONS + [[4, -7, 0], [0, 0, 11]], np.array([3, 2, 2]))
        assert np.sort(inside.distance) == pytest.approx(np.sort(outside.distance))


def test_the_shortest_vector_of_a_lattice() -> None:
    assert np.linalg.norm(reduced_lattice(SKEWED), axis=1).min() == pytest.approx(np.linalg.norm(TRICLINIC[0]))

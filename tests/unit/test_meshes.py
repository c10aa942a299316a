"""k meshes: how many points, and that a reduced mesh stands for the whole one."""

from __future__ import annotations

import numpy as np
import pytest
import spglib

from sorep._fortran import lowest_images, lowest_images_spglib
from sorep.cells import canonical_cell
from sorep.errors import UsageError
from sorep.meshes import DEFAULT_SPACING, Rounding, irreducible_mesh, mesh_divisions
from sorep.structure import Structure

CRYSTALS = ["silicon", "magnesium", "batio3", "distorted-batio3", "triclinic", "anatase", "bismuth", "nanotube"]


def full_mesh(divisions: np.ndarray) -> np.ndarray:
    return np.stack(np.meshgrid(*(np.arange(n) / n for n in divisions), indexing="ij"), -1).reshape(-1, 3)


def test_divisions_by_the_definition() -> None:
    # 2 pi / 4 = 1.5708, / 5 = 1.2566, / 100 = 0.0628
    lattice = np.diag([4.0, 5.0, 100.0])
    np.testing.assert_array_equal(mesh_divisions(lattice, 0.2), [8, 7, 1])
    np.testing.assert_array_equal(mesh_divisions(lattice, 0.21), [8, 6, 1])
    np.testing.assert_array_equal(mesh_divisions(lattice, 0.5), [4, 3, 1])
    np.testing.assert_array_equal(mesh_divisions(lattice, 0.5, "round"), [3, 3, 1])
    np.testing.assert_array_equal(mesh_divisions(lattice, 10.0, "round"), [1, 1, 1])
    assert DEFAULT_SPACING == 0.2


def test_reciprocal_vectors_not_lattice_vectors_count() -> None:
    # Hexagonal: |b| = 2 pi / (a sin 60), larger than 2 pi / a.
    lattice = np.array([[3.0, 0, 0], [-1.5, 1.5 * 3**0.5, 0], [0, 0, 5.0]])
    expected = np.ceil(2 * np.pi / np.array([1.5 * 3**0.5, 1.5 * 3**0.5, 5.0]) / 0.1)
    np.testing.assert_array_equal(mesh_divisions(lattice, 0.1), expected)


def test_no_spacing_is_larger_than_asked_for_with_ceil(crystals) -> None:
    for structure in crystals.values():
        reciprocal = 2 * np.pi * np.linalg.norm(np.linalg.inv(structure.lattice), axis=0)
        for spacing in (0.1, 0.23, 0.5):
            divisions = mesh_divisions(structure.lattice, spacing)
            assert (reciprocal / divisions <= spacing * (1 + 2e-6)).all()
            rounded = mesh_divisions(structure.lattice, spacing, "round")
            assert (np.abs(rounded - reciprocal / spacing)[rounded > 1] <= 0.5).all()


def test_the_last_digit_of_a_lattice_constant_adds_no_layer() -> None:
    edge = 2 * np.pi / (8 * 0.2)
    for relative in (-1e-7, -1e-9, 0, 1e-9, 1e-7):
        np.testing.assert_array_equal(mesh_divisions(np.eye(3) * edge * (1 + relative), 0.2), [8, 8, 8])
    np.testing.assert_array_equal(mesh_divisions(np.eye(3) * edge * (1 - 1e-5), 0.2), [9, 9, 9])


class TestSymmetriesOfTheBareLattice:
    """A mesh is invariant under them all, or it would depend on which of several Niggli cells was found."""

    BODY_CENTERED = 0.5 * np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]])

    @staticmethod
    def reduced(lattice: np.ndarray) -> np.ndarray:
        return canonical_cell(Structure("x", lattice, [14], [[0, 0, 0]])).structure.lattice

    @pytest.mark.parametrize("edges", [(3.4, 3.4, 7.8), (4.6, 4.6, 3.2), (4.0, 5.0, 6.2)])
    def test_axes_that_they_mix_get_the_larger_number(self, edges: tuple[float, ...]) -> None:
        lattice = self.reduced(self.BODY_CENTERED @ np.diag(edges))
        alone = np.ceil(2 * np.pi * np.linalg.norm(np.linalg.inv(lattice), axis=0) / 0.2)
        assert len(set(alone)) > 1
        np.testing.assert_array_equal(mesh_divisions(lattice, 0.2), [alone.max()] * 3)
        np.testing.assert_array_equal(mesh_divisions(lattice * (1 + 1e-9), 0.2), [alone.max()] * 3)
        # The published recipe knew nothing of this.
        assert len(set(mesh_divisions(lattice, 0.2, "round"))) > 1

    @pytest.mark.parametrize("lattice", [np.diag([3.9, 3.9, 9.0]), np.diag([3.0, 4.0, 9.0])])
    def test_axes_that_they_leave_apart_keep_their_own(self, lattice: np.ndarray) -> None:
        expected = np.ceil(2 * np.pi / np.diag(lattice) / 0.2)
        np.testing.assert_array_equal(mesh_divisions(lattice, 0.2), expected)

    def test_base_centred_lattices_mix_two_axes_only(self) -> None:
        lattice = self.reduced(np.array([[0.5, 0.5, 0], [-0.5, 0.5, 0], [0, 0, 1]]) @ np.diag([3.0, 7.0, 12.0]))
        divisions = mesh_divisions(lattice, 0.2)
        alone = np.ceil(2 * np.pi * np.linalg.norm(np.linalg.inv(lattice), axis=0) / 0.2)
        assert divisions.min() == alone.min() == 3
        assert sorted(divisions)[1:] == [alone.max()] * 2


@pytest.mark.parametrize("spacing", [0.0, -0.1, float("nan")])
def test_spacings_that_make_no_sense(spacing: float) -> None:
    with pytest.raises(UsageError) as caught:
        mesh_divisions(np.eye(3), spacing)
    assert caught.value.code == "bad-k-spacing"


@pytest.mark.parametrize("name", CRYSTALS)
@pytest.mark.parametrize("keep_cell", [False, True])
class TestIrreducibleMesh:
    def test_weights_are_orbits_of_the_full_mesh(self, crystals, name: str, keep_cell: bool) -> None:
        """Points equivalent to a representative, under the point group and time reversal, are as many as its weight."""
        cell = canonical_cell(crystals[name], keep_cell=keep_cell)
        mesh = irreducible_mesh(cell, 0.35)
        total = int(np.prod(mesh.divisions))
        counts = mesh.weights * total
        assert mesh.weights.sum() == pytest.approx(1.0, abs=1e-14)
        assert (mesh.weights > 0).all()
        assert len(mesh) == len(mesh.kpoints) == len(mesh.weights)
        np.testing.assert_allclose(counts, np.rint(counts), atol=1e-9)

        images = np.concatenate([mesh.kpoints @ r for r in cell.rotations])
        images = np.concatenate([images, -images]).reshape(2 * len(cell.rotations), len(mesh), 3)
        on_grid = images * mesh.divisions
        whole = (np.abs(on_grid - np.rint(on_grid)) < 1e-6).all(axis=2)
        index = np.rint(on_grid).astype(int) % mesh.divisions
        flat = np.ravel_multi_index(tuple(np.moveaxis(index, -1, 0)), tuple(mesh.divisions))
        orbits = [set(flat[whole[:, k], k].tolist()) for k in range(len(mesh))]
        assert sum(counts) == pytest.approx(total)
        # A representative stands for no more points than it has images, and all orbits together make up the mesh.
        assert all(count <= len(orbit) + 1e-6 for count, orbit in zip(counts, orbits, strict=True))
        assert set().union(*orbits) == set(range(total))

    def test_gamma_is_a_point_of_its_own(self, crystals, name: str, keep_cell: bool) -> None:
        mesh = irreducible_mesh(canonical_cell(crystals[name], keep_cell=keep_cell), 0.35)
        at_gamma = np.flatnonzero((np.abs(mesh.kpoints) < 1e-12).all(axis=1))
        assert len(at_gamma) == 1
        assert mesh.weights[at_gamma[0]] * np.prod(mesh.divisions) == pytest.approx(1.0)

    def test_invariant_functions_have_the_same_average(self, crystals, name: str, keep_cell: bool) -> None:
        cell = canonical_cell(crystals[name], keep_cell=keep_cell)
        mesh = irreducible_mesh(cell, 0.35)

        def invariant(kpoints: np.ndarray) -> np.ndarray:
            vectors = np.array([[1, 0, 0], [1, 2, 0], [1, 1, 3], [0, 2, 1]])
            stars = np.concatenate([vectors @ r.T for r in cell.rotations])
            return np.cos(2 * np.pi * kpoints @ stars.T).reshape(len(kpoints), len(cell.rotations), -1).mean(axis=1)

        full = invariant(full_mesh(mesh.divisions)).mean(axis=0)
        np.testing.assert_allclose(mesh.weights @ invariant(mesh.kpoints), full, atol=1e-12)


def test_symmetry_reduces_the_mesh(crystals) -> None:
    cell = canonical_cell(crystals["silicon"])
    mesh = irreducible_mesh(cell, 0.2)
    assert len(mesh) < np.prod(mesh.divisions) / 20
    triclinic = irreducible_mesh(canonical_cell(crystals["triclinic"]), 0.2)
    n_time_reversal_invariant = np.prod(1 + (triclinic.divisions % 2 == 0))
    assert len(triclinic) == (np.prod(triclinic.divisions) + n_time_reversal_invariant) / 2


def test_a_long_cell_gets_one_point_along_its_axis() -> None:
    wire = Structure("wire", np.diag([30.0, 30.0, 2.5]), [6], [[0, 0, 0]])
    np.testing.assert_array_equal(irreducible_mesh(canonical_cell(wire), 0.2).divisions, [13, 2, 2])


@pytest.mark.parametrize("name", ["silicon", "nacl", "magnesium", "batio3", "anatase", "bismuth", "triclinic"])
@pytest.mark.parametrize("spacing", [0.7, 0.31, 0.17])
@pytest.mark.parametrize("rounding", ["ceil", "round"])
def test_stars_are_those_of_spglib(crystals, name: str, spacing: float, rounding: Rounding) -> None:
    cell = canonical_cell(crystals[name])
    divisions = mesh_divisions(cell.structure.lattice, spacing, rounding)
    expected, addresses = spglib.get_stabilized_reciprocal_mesh(divisions, cell.rotations, is_time_reversal=True)
    np.testing.assert_array_equal(lowest_images(divisions, cell.rotations), expected)
    np.testing.assert_array_equal(lowest_images_spglib(divisions, cell.rotations), expected)
    mesh = irreducible_mesh(cell, spacing, rounding)
    np.testing.assert_array_equal(mesh.kpoints, addresses[np.unique(expected)] / divisions)
    np.testing.assert_allclose(mesh.weights, np.unique(expected, return_counts=True)[1] / len(expected))

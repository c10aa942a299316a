"""The cell that is computed: the same crystal, described in a way that does not depend on how it was given."""

from __future__ import annotations

import numpy as np
import pytest

from sorep.cells import Cell, canonical_cell
from sorep.errors import StructureError
from sorep.neighbors import neighbor_pairs
from sorep.structure import Structure

SPACE_GROUPS = {
    "silicon": 227,
    "nacl": 225,
    "magnesium": 194,
    "batio3": 221,
    "distorted-batio3": 1,
    "triclinic": 1,
    "anatase": 141,
    "bismuth": 166,
}
POINT_GROUP_ORDERS = {227: 48, 225: 48, 194: 24, 221: 48, 1: 1, 141: 16, 166: 12}
DESCRIPTIONS = [(1, 1, 1), (1, 1, 3), (2, 2, 2), [[1, 1, 0], [-1, 1, 0], [0, 1, 2]]]

by_name = pytest.mark.parametrize("name", SPACE_GROUPS)
by_description = pytest.mark.parametrize("supercell", DESCRIPTIONS, ids=["cell", "1x1x3", "2x2x2", "skewed"])


def metric(cell: Cell) -> np.ndarray:
    return cell.structure.lattice @ cell.structure.lattice.T


def environment(structure: Structure) -> np.ndarray:
    """Sorted distances and species of all pairs within 5 Angstrom, for each atom the same number of times."""
    pairs = neighbor_pairs(structure.lattice, structure.positions, 5.0)
    numbers = structure.numbers
    rows = np.column_stack([numbers[pairs.first], numbers[pairs.second], pairs.distances.round(6)])
    rows, counts = np.unique(rows, axis=0, return_counts=True)
    return np.column_stack([rows, counts / structure.n_atoms])


@by_name
@by_description
class TestCanonicalCell:
    @pytest.fixture
    def given(self, crystals, redescribe, name: str, supercell) -> Structure:
        return redescribe(crystals[name], supercell, seed=3)

    def test_transformation_and_rotation_are_those_recorded(self, given: Structure) -> None:
        cell = canonical_cell(given)
        np.testing.assert_allclose(
            cell.structure.lattice, cell.transformation @ given.lattice @ cell.rotation.T, atol=1e-12
        )
        np.testing.assert_allclose(cell.rotation @ cell.rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(cell.rotation) == pytest.approx(1.0)
        # Every atom of the new cell is, after the rotation, an atom of the given crystal.
        rotated_back = cell.structure.positions @ cell.structure.lattice @ cell.rotation
        fractional = rotated_back @ np.linalg.inv(given.lattice)
        for position, number in zip(fractional, cell.structure.numbers, strict=True):
            difference = given.positions - position
            away = np.linalg.norm((difference - np.rint(difference)) @ given.lattice, axis=1)
            assert given.numbers[np.argmin(away)] == number
            assert away.min() < 1e-9

    def test_the_crystal_stays_what_it_was(self, given: Structure, crystals, name: str) -> None:
        cell = canonical_cell(given)
        assert cell.structure.n_atoms == crystals[name].n_atoms
        assert cell.structure.volume / cell.structure.n_atoms == pytest.approx(given.volume / given.n_atoms, rel=1e-12)
        np.testing.assert_allclose(environment(cell.structure), environment(given), atol=2e-6)
        assert cell.structure.id == given.id

    def test_the_lattice_does_not_depend_on_the_description(self, given: Structure, crystals, name: str) -> None:
        np.testing.assert_allclose(metric(canonical_cell(given)), metric(canonical_cell(crystals[name])), atol=1e-9)

    def test_it_is_reduced_and_right_handed(self, given: Structure) -> None:
        cell = canonical_cell(given)
        g = metric(cell)
        assert np.linalg.det(cell.structure.lattice) > 0
        assert (np.diff(np.diag(g)) > -1e-6).all()
        for i, j in ((0, 1), (0, 2), (1, 2)):
            assert 2 * abs(g[i, j]) < g[i, i] + 1e-6
        products = g[[1, 0, 0], [2, 2, 1]]
        assert (products > -1e-6).all() or (products < 1e-6).all()

    def test_symmetry(self, given: Structure, name: str) -> None:
        cell = canonical_cell(given)
        assert cell.space_group == SPACE_GROUPS[name]
        assert len(cell.rotations) == POINT_GROUP_ORDERS[cell.space_group]
        g = metric(cell)
        for rotation in cell.rotations:
            np.testing.assert_allclose(rotation.T @ g @ rotation, g, atol=1e-4)
            assert has_translation_for(cell.structure, rotation)


def has_translation_for(structure: Structure, rotation: np.ndarray) -> bool:
    """Whether a rotation of fractional coordinates, with some translation, maps the crystal onto itself."""
    turned = structure.positions @ rotation.T
    same = np.flatnonzero(structure.numbers == structure.numbers[0])
    for atom in same:
        difference = (turned + structure.positions[atom] - turned[0])[:, None] - structure.positions
        away = np.linalg.norm((difference - np.rint(difference)) @ structure.lattice, axis=2)
        nearest = away.argmin(axis=1)
        if (away.min(axis=1) < 1e-4).all() and (structure.numbers[nearest] == structure.numbers).all():
            return True
    return False


def test_keep_cell(crystals, redescribe) -> None:
    given = redescribe(crystals["silicon"], (1, 1, 2), seed=1)
    cell = canonical_cell(given, keep_cell=True)
    assert cell.structure is given
    np.testing.assert_array_equal(cell.transformation, np.eye(3))
    np.testing.assert_array_equal(cell.rotation, np.eye(3))
    assert cell.space_group == 227
    # The doubled cell keeps only the operations that map its own lattice onto itself.
    assert 1 < len(cell.rotations) < 48
    g = given.lattice @ given.lattice.T
    for rotation in cell.rotations:
        np.testing.assert_allclose(rotation.T @ g @ rotation, g, atol=1e-6)


def test_positions_are_not_idealised(crystals) -> None:
    nacl = crystals["nacl"]
    positions = nacl.positions.copy()
    positions[1] += [1e-6, 0, 0]  # 4e-6 Angstrom: below the tolerance, so the symmetry is still found
    cell = canonical_cell(Structure("x", nacl.lattice, nacl.numbers, positions))
    assert cell.space_group == 225
    distances = neighbor_pairs(cell.structure.lattice, cell.structure.positions, 2.9).distances
    assert np.ptp(distances) > 1e-6


def test_tolerance(crystals) -> None:
    nacl = crystals["nacl"]
    shifted = Structure("x", nacl.lattice, nacl.numbers, nacl.positions + np.array([[0], [1]]) * [0.003, 0.001, 0])
    assert canonical_cell(shifted).space_group < 195
    assert canonical_cell(shifted, symprec=0.1).space_group == 225


def test_left_handed_cells_and_mirror_images(crystals) -> None:
    given = crystals["triclinic"]
    left_handed = Structure("x", given.lattice[[1, 0, 2]], given.numbers, given.positions[:, [1, 0, 2]])
    mirrored = Structure("x", given.lattice * [1, 1, -1], given.numbers, given.positions)
    for structure in (left_handed, mirrored):
        cell = canonical_cell(structure)
        np.testing.assert_allclose(metric(cell), metric(canonical_cell(given)), atol=1e-9)
        assert np.linalg.det(cell.rotation) == pytest.approx(1.0)
        assert np.linalg.det(cell.structure.lattice) > 0


def test_coinciding_atoms_are_an_error_of_its_own() -> None:
    structure = Structure("x", 4 * np.eye(3), [14, 14], [[0, 0, 0], [0, 0, 1e-7]])
    for keep in (False, True):
        with pytest.raises(StructureError) as caught:
            canonical_cell(structure, keep_cell=keep)
        assert (caught.value.code, caught.value.stage) == ("symmetry-search-failed", "cell")

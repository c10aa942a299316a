"""The coarse mesh, and unfolding with a made-up Hamiltonian that has the symmetry of the crystal.

Between an orbital lm of one atom and l'm' of another at r it is f(|r|) Y_lm(r) Y_l'm'(-r). What pw.x does is compared
in tests/integration/test_interpolation.py.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import spglib
from ase.build import bulk
from numpy.typing import NDArray

from sorep.cells import Cell, canonical_cell
from sorep.interpolation import InterpolationError, half_mesh, mesh_addresses, reduced_lattice
from sorep.single_shot.coarse import CoarseMesh, coarse_divisions, coarse_mesh, coarse_operators, unfold
from sorep.single_shot.matrices import KPointMatrices
from sorep.single_shot.symmetry import OrbitalSymmetry, SpaceGroup, real_harmonics
from sorep.structure import Structure

pytestmark = pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING:DeprecationWarning")

NAMES = ["silicon", "magnesium", "batio3", "distorted-batio3", "anatase", "bismuth", "triclinic"]
FCC = 0.5 * (1 - np.eye(3))
SHELLS = ([0, 1], [2, 0], [3])  # of the first, second and third element of a crystal


@pytest.fixture(scope="module")
def cells(crystals) -> dict[str, Cell]:
    found = {name: canonical_cell(crystals[name]) for name in NAMES}
    conventional = Structure.from_ase(bulk("Si", "diamond", a=5.43, cubic=True))
    return {**found, "conventional": canonical_cell(conventional, keep_cell=True)}


def shells(cell: Cell) -> list[list[int]]:
    kinds = np.unique(cell.structure.numbers, return_inverse=True)[1]
    return [SHELLS[kind] for kind in kinds]


def model(cell: Cell, kpoints: NDArray[np.float64]) -> NDArray[np.complex128]:
    """A(k), and S(k) as another function of the distance: (2, n_k, n, n)."""
    structure, of_atoms = cell.structure, shells(cell)
    start = np.cumsum([0, *(sum(2 * l + 1 for l in x) for x in of_atoms)])  # noqa: E741
    translations = np.array(list(product(range(-3, 4), repeat=3)))
    phases = np.exp(2j * np.pi * kpoints @ translations.T)
    result = np.zeros((2, len(kpoints), start[-1], start[-1]), dtype=complex)
    for a, b in product(range(structure.n_atoms), repeat=2):
        vectors = (translations + structure.positions[b] - structure.positions[a]) @ structure.lattice
        length = np.linalg.norm(vectors, axis=1)
        home = length < 1e-9
        vectors[home] = 1.0  # any direction; on one atom there is the unit matrix instead
        left = np.concatenate([(l + 1) * real_harmonics(l, vectors) for l in of_atoms[a]], axis=1)  # noqa: E741
        right = np.concatenate([(l + 1) * real_harmonics(l, -vectors) for l in of_atoms[b]], axis=1)  # noqa: E741
        for out, decay in zip(result, (1.0, 2.0), strict=True):
            radial = np.where(home, 0.0, np.exp(-decay * length**2 / 2)) + 0.0
            blocks = radial[:, None, None] * left[:, :, None] * right[:, None, :]
            if a == b:
                blocks[home] = np.eye(left.shape[1])
            out[:, start[a] : start[a + 1], start[b] : start[b + 1]] += np.einsum("kR,Rij->kij", phases, blocks)
    return result


def everywhere(mesh: CoarseMesh) -> NDArray[np.float64]:
    return mesh_addresses(mesh.divisions) / mesh.divisions


def whole(half: NDArray[np.complex128], mesh: CoarseMesh) -> NDArray[np.complex128]:
    """Matrices on the whole mesh."""
    full = np.full((len(half), len(mesh.source), *half.shape[2:]), np.nan, dtype=complex)
    addresses, shape = half_mesh(mesh.divisions), tuple(mesh.divisions)
    full[:, np.ravel_multi_index(tuple((-addresses % mesh.divisions).T), shape)] = half.conj()
    full[:, np.ravel_multi_index(tuple(addresses.T), shape)] = half
    return full


class TestDivisions:
    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("length", [2.0, 11.0, 22.0])
    def test_no_supercell_vector_is_shorter(self, cells, name: str, length: float) -> None:
        cell = cells[name]
        divisions = coarse_divisions(cell, length)
        supercell = reduced_lattice(cell.structure.lattice * divisions[:, None])
        assert np.linalg.norm(supercell, axis=1).min() >= length - 1e-5
        lengths = np.linalg.norm(cell.structure.lattice, axis=1)
        assert ((divisions - 1) * lengths < 1.7 * length).all()  # no more than it takes

    @pytest.mark.parametrize("name", NAMES)
    def test_the_mesh_has_the_symmetry_of_the_crystal(self, cells, name: str) -> None:
        cell = cells[name]
        mesh = coarse_mesh(cell, coarse_divisions(cell, 15.0))
        assert len(mesh.group) == len(cell.rotations)

    def test_distances_between_copies_count_and_not_those_of_planes(self) -> None:
        copper = canonical_cell(Structure("cu", 3.61 * FCC, [29], [[0, 0, 0]]))
        assert coarse_divisions(copper, 22.0).tolist() == [9, 9, 9]

    def test_long_vectors_of_a_skewed_cell_do_not_suffice(self) -> None:
        skewed = Structure("x", [[3, 0, 0], [9, 3, 0], [0, 0, 3]], [14], [[0, 0, 0]])
        cell = canonical_cell(skewed, keep_cell=True)
        divisions = coarse_divisions(cell, 12.0)
        supercell = reduced_lattice(skewed.lattice * divisions[:, None])
        assert np.linalg.norm(supercell, axis=1).min() >= 12.0 - 1e-5

    def test_a_large_cell_needs_one_point(self) -> None:
        large = canonical_cell(Structure("x", 25 * np.eye(3), [14], [[0, 0, 0]]))
        assert coarse_divisions(large, 22.0).tolist() == [1, 1, 1]


class TestMesh:
    @pytest.mark.parametrize("name", NAMES)
    def test_irreducible_points_are_those_of_spglib(self, cells, name: str) -> None:
        cell = cells[name]
        mesh = coarse_mesh(cell, coarse_divisions(cell, 15.0))
        mapping, _ = spglib.get_stabilized_reciprocal_mesh(mesh.divisions, cell.rotations, is_time_reversal=True)
        counts = np.unique(mapping, return_counts=True)[1]
        assert len(mesh.irreducible) == len(counts)
        assert sorted(mesh.irreducible.weights * len(mesh.source)) == pytest.approx(sorted(counts))
        assert not mesh.irreducible.kpoints[0].any()
        assert np.abs(mesh.irreducible.kpoints).max() <= 0.5

    @pytest.mark.parametrize("name", NAMES)
    def test_operations_lead_where_they_say(self, cells, name: str) -> None:
        mesh = coarse_mesh(cells[name], coarse_divisions(cells[name], 9.0))
        for kpoint, source, operation, is_reversed in zip(
            everywhere(mesh), mesh.source, mesh.operation, mesh.is_reversed, strict=True
        ):
            turned = mesh.irreducible.kpoints[source] @ np.linalg.inv(mesh.group.rotations[operation])
            difference = kpoint - (-turned if is_reversed else turned)
            assert np.abs(difference - np.rint(difference)).max() < 1e-9

    def test_operations_that_a_mesh_does_not_have_are_left_out(self, cells) -> None:
        mesh = coarse_mesh(cells["batio3"], np.array([2, 2, 3]))
        assert len(mesh.group) == 16
        assert coarse_mesh(cells["batio3"], np.array([2, 3, 4])).group.rotations.shape == (8, 3, 3)


class TestUnfold:
    @pytest.mark.parametrize("name", [*NAMES, "conventional"])
    @pytest.mark.parametrize("divisions", [(2, 2, 2), (3, 3, 3), (2, 3, 4)])
    def test_matrices_at_all_points(self, cells, name: str, divisions: tuple[int, ...]) -> None:
        cell = cells[name]
        mesh = coarse_mesh(cell, np.array(divisions))
        symmetry = OrbitalSymmetry(cell, mesh.group, shells(cell))
        found = unfold(mesh, symmetry, model(cell, mesh.irreducible.kpoints))
        expected = model(cell, half_mesh(mesh.divisions) / mesh.divisions)
        assert np.abs(expected).max() > 0.1
        assert np.abs(found - expected).max() < 1e-5  # positions are those of a search with a tolerance of 1e-5

    @pytest.mark.parametrize("name", NAMES)
    def test_matrices_with_the_symmetry_to_a_tolerance_get_it_exactly(self, cells, name: str) -> None:
        cell = cells[name]
        mesh = coarse_mesh(cell, np.array([3, 3, 3]))
        symmetry = OrbitalSymmetry(cell, mesh.group, shells(cell))
        matrices = model(cell, mesh.irreducible.kpoints)
        noise = np.random.default_rng(0).normal(scale=2e-3, size=matrices.shape) * (1 + 0.5j)
        matrices += noise + noise.conj().swapaxes(-1, -2)
        full = whole(unfold(mesh, symmetry, matrices), mesh)
        assert 1e-4 < np.abs(full - model(cell, everywhere(mesh))).max() < 0.05
        opposite = full.reshape(2, 3, 3, 3, -1)[:, ::-1, ::-1, ::-1]
        reversed_ = np.roll(opposite, 1, axis=(1, 2, 3)).conj().reshape(full.shape)
        assert np.abs(reversed_ - full).max() < 1e-12
        for operation in range(len(mesh.group)):
            kpoints = everywhere(mesh) @ np.rint(np.linalg.inv(mesh.group.rotations[operation]))
            to = np.ravel_multi_index(tuple(np.rint(kpoints * 3).astype(int).T % 3), (3, 3, 3))
            turned = symmetry.rotate(np.full(len(kpoints), operation), kpoints, full)
            assert np.abs(turned - full[:, to]).max() < 1e-12

    def test_an_operation_that_the_matrices_do_not_have(self, cells) -> None:
        cell = cells["batio3"]
        mesh = coarse_mesh(cell, np.array([3, 3, 3]))
        matrices = model(cell, mesh.irreducible.kpoints)
        symmetry = OrbitalSymmetry(cell, mesh.group, shells(cell))
        titanium = np.flatnonzero(cell.structure.numbers[symmetry.atoms] == 22)  # five orbitals of a d shell, then an s
        matrices[0, :, titanium[5], titanium[5]] += 1.0
        unfold(mesh, symmetry, matrices)
        matrices[0, -1, titanium[0], titanium[0]] += 0.1
        with pytest.raises(InterpolationError) as caught:
            unfold(mesh, symmetry, matrices)
        assert caught.value.code == "broken-symmetry"


@pytest.mark.parametrize("n_spin", [1, 2])
def test_operators_of_each_spin(cells, n_spin: int) -> None:
    cell = cells["silicon"]
    mesh = coarse_mesh(cell, np.array([4, 4, 4]))
    a, s = model(cell, mesh.irreducible.kpoints)
    s += 3 * np.eye(s.shape[-1])
    written = [
        KPointMatrices(k, spin, (1 + spin) * a_k, s_k)
        for spin in range(n_spin)
        for k, a_k, s_k in zip(mesh.irreducible.kpoints, a, s, strict=True)
    ]
    operators = coarse_operators(mesh, cell, shells(cell), written)
    assert len(operators) == n_spin
    kpoints = np.array([[0.25, 0.5, -0.25], [0.13, 0.29, 0.41]])
    expected = model(cell, kpoints)[0]
    for spin, operator in enumerate(operators):
        assert np.abs(operator.matrices(kpoints)[0] - (1 + spin) * expected).max() < 1e-4


def test_a_group_has_parts(cells) -> None:
    group = SpaceGroup.of(cells["silicon"])
    assert len(group) == 48
    assert len(group.subgroup(np.arange(48) < 3)) == 3

"""Graphs: whole shells, merged edges, any cell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sorep.errors import Mat2SpecError
from sorep.structure import Structure

pytest.importorskip("torch")

from sorep.mat2spec.graph import N_NEIGHBORS, build_graph, collate, nearest_neighbors


def expanded(structure: Structure) -> list[list[tuple[int, float]]]:
    """For each atom, its neighbours' atomic numbers and distances, one by one."""
    graph = build_graph(structure)
    found: list[list[tuple[int, float]]] = [[] for _ in graph.numbers]
    for sender, receiver, distance, multiplicity in zip(
        graph.senders, graph.receivers, graph.distances, graph.multiplicities, strict=True
    ):
        found[receiver] += [(int(graph.numbers[sender]), float(distance))] * int(multiplicity)
    return [sorted(neighbours, key=lambda pair: (round(pair[1], 5), pair[0])) for neighbours in found]


def by_counting(structure: Structure) -> list[list[tuple[int, float]]]:
    """The same from all images: what is within 0.01 Angstrom of the twelfth neighbour."""
    # |t_i| = |r . b_i| <= |r| |b_i| bounds the images, positions outside the cell included.
    spread = np.ptp(structure.positions, axis=0)
    reach = np.ceil(8.01 * np.linalg.norm(np.linalg.inv(structure.lattice), axis=0) + spread).astype(int)
    images = np.stack(np.meshgrid(*(np.arange(-m, m + 1) for m in reach), indexing="ij"), -1).reshape(-1, 3)
    found = []
    for here in structure.positions:
        vectors = structure.positions[:, None] + images - here
        distances = np.linalg.norm(vectors @ structure.lattice, axis=2)
        atoms, cells = np.nonzero((distances < 8.01) & (distances > 1e-8))
        near = distances[atoms, cells]
        last = np.sort(near)[:N_NEIGHBORS][-1]
        pairs = [(int(structure.numbers[a]), float(d)) for a, d in zip(atoms, near, strict=True) if d <= last + 0.01]
        found.append(sorted(pairs, key=lambda pair: (round(pair[1], 5), pair[0])))
    return found


def assert_same(ours: list[list[tuple[int, float]]], theirs: list[list[tuple[int, float]]]) -> None:
    assert [[number for number, _ in atom] for atom in ours] == [[number for number, _ in atom] for atom in theirs]
    np.testing.assert_allclose(
        [d for atom in ours for _, d in atom], [d for atom in theirs for _, d in atom], atol=2e-6
    )


@given(seed=st.integers(0, 10**6), n_atoms=st.integers(1, 4), skew=st.integers(0, 3), scale=st.floats(2.5, 6))
@settings(derandomize=True, deadline=None, max_examples=25)
def test_neighbours_are_those_found_by_counting(seed: int, n_atoms: int, skew: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    lattice = scale * np.eye(3) + rng.normal(size=(3, 3)) * 0.3
    lattice[1] += skew * lattice[0]
    positions = rng.random((n_atoms, 3)) + rng.integers(-2, 3, (n_atoms, 3))
    structure = Structure("x", lattice, rng.integers(1, 100, n_atoms), positions)
    assert_same(expanded(structure), by_counting(structure))


def test_crystals_against_counting(crystals) -> None:
    for structure in crystals.values():
        assert_same(expanded(structure), by_counting(structure))


def test_shells_are_whole(crystals) -> None:
    # silicon: 4 at a sqrt(3)/4 and 12 at a/sqrt(2); rock salt: 6 and 12; hcp off the ideal ratio: 6, 6
    degrees = {name: np.bincount(build_graph(crystals[name]).receivers).size for name in ("silicon", "nacl")}
    assert degrees == {"silicon": 2, "nacl": 2}
    for name, degree in (("silicon", 16), ("nacl", 18), ("magnesium", 12)):
        graph = build_graph(crystals[name])
        assert np.bincount(graph.receivers, graph.multiplicities).tolist() == [degree, degree]


def test_a_shell_on_the_cutoff_is_whole_in_any_orientation(crystals, redescribe) -> None:
    cubic = Structure("po", 4.0 * np.eye(3), [84], [[0, 0, 0]])
    for seed in range(5):
        graph = build_graph(redescribe(cubic, seed=seed), cutoff=4.0)
        assert graph.multiplicities.sum() == 6


def test_equal_edges_are_merged_and_others_are_not(crystals) -> None:
    nacl = build_graph(crystals["nacl"])
    assert sorted(zip(nacl.receivers.tolist(), nacl.senders.tolist(), nacl.multiplicities.tolist(), strict=True)) == [
        (0, 0, 12),
        (0, 1, 6),
        (1, 0, 6),
        (1, 1, 12),
    ]
    distorted = build_graph(crystals["triclinic"])
    edges = nearest_neighbors(crystals["triclinic"])
    # An atom's own images come in pairs of opposite directions, all other distances differ.
    own = edges.first == edges.second
    assert len(distorted.distances) == (~own).sum() + own.sum() // 2
    assert (distorted.multiplicities == np.where(distorted.senders == distorted.receivers, 2, 1)).all()


def test_edges_are_sorted_by_receiver(crystals) -> None:
    for structure in crystals.values():
        assert (np.diff(build_graph(structure).receivers) >= 0).all()


@pytest.mark.parametrize("supercell", [(1, 1, 1), (2, 1, 1), [[1, 1, 0], [-1, 1, 0], [0, 0, 2]]])
def test_any_description_gives_the_same_neighbourhoods(crystals, redescribe, supercell) -> None:
    for structure in crystals.values():
        again = redescribe(structure, supercell, seed=3)
        multiple = again.n_atoms // structure.n_atoms
        assert_same(sorted(expanded(again), key=_rounded), sorted(expanded(structure) * multiple, key=_rounded))
        np.testing.assert_array_equal(build_graph(again).composition, build_graph(structure).composition)


def _rounded(atom: list[tuple[int, float]]) -> list[tuple[int, float]]:
    return [(number, round(distance, 4)) for number, distance in atom]


def test_composition(crystals) -> None:
    composition = build_graph(crystals["batio3"]).composition
    assert composition.shape == (103,)
    assert {int(z) + 1: composition[z] for z in np.flatnonzero(composition)} == {8: 0.6, 22: 0.2, 56: 0.2}


def test_refused() -> None:
    with pytest.raises(Mat2SpecError) as caught:
        build_graph(Structure("md", 3.0 * np.eye(3), [101], [[0, 0, 0]]))
    assert caught.value.code == "element-without-features"
    with pytest.raises(Mat2SpecError) as caught:
        build_graph(Structure("he", 9.0 * np.eye(3), [2], [[0, 0, 0]]))
    assert caught.value.code == "isolated-atom"
    # one lonely atom, with neighbours elsewhere, whichever comes first
    for order in ([0, 1, 2], [2, 1, 0]):
        positions = np.array([[0, 0, 0], [0.05, 0, 0], [0.5, 0.5, 0.5]])[order]
        with pytest.raises(Mat2SpecError, match=f"atom {order.index(2)} "):
            build_graph(Structure("h", 20.0 * np.eye(3), [1, 1, 1], positions))


def test_fewer_neighbours_than_asked_for() -> None:
    dimer = Structure("h2", 20.0 * np.eye(3), [1, 1], [[0, 0, 0], [0.05, 0, 0]])
    graph = build_graph(dimer)
    assert graph.senders.tolist() == [1, 0]
    np.testing.assert_allclose(graph.distances, 1.0)


def test_collated_graphs_are_the_graphs(crystals) -> None:
    graphs = [build_graph(structure) for structure in crystals.values()]
    batch = collate(graphs)
    assert len(batch) == len(graphs)
    atoms = edges = 0
    for number, graph in enumerate(graphs):
        of_atoms = slice(atoms, atoms + len(graph.numbers))
        of_edges = slice(edges, edges + len(graph.distances))
        assert batch.numbers[of_atoms].tolist() == graph.numbers.tolist()
        assert set(batch.crystal[of_atoms].tolist()) == {number}
        assert (batch.senders[of_edges] - atoms).tolist() == graph.senders.tolist()
        assert (batch.receivers[of_edges] - atoms).tolist() == graph.receivers.tolist()
        np.testing.assert_array_equal(batch.distances[of_edges].numpy(), graph.distances.astype(np.float32))
        atoms, edges = of_atoms.stop, of_edges.stop
    assert atoms == len(batch.numbers)
    assert edges == len(batch.distances)
    assert {tensor.device.type for tensor in vars(batch.to("meta")).values()} == {"meta"}


def test_noise_below_the_tolerance_changes_no_neighbourhood(crystals) -> None:
    rng = np.random.default_rng(0)
    for structure in crystals.values():
        noise = rng.uniform(-1, 1, structure.positions.shape) * 1e-4 @ np.linalg.inv(structure.lattice)
        again = replace(structure, positions=structure.positions + noise)
        assert [len(atom) for atom in expanded(again)] == [len(atom) for atom in expanded(structure)]

"""The equivariant network: the crystal counts and not its description; directions count."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from scipy.spatial.transform import Rotation

from sorep.errors import Mat2SpecError
from sorep.structure import Structure

pytest.importorskip("torch")
pytest.importorskip("e3nn")

import torch

from sorep.mat2spec.config import ModelConfig, TrainingConfig
from sorep.mat2spec.data import Inputs
from sorep.mat2spec.equivariant import EquivariantEncoder, EquivariantGraph, EquivariantInputs
from sorep.mat2spec.graph import nearest_neighbors
from sorep.mat2spec.predict import predict
from sorep.mat2spec.split import make_split
from sorep.mat2spec.training import train

ROTATION = Rotation.from_rotvec([0.3, -0.7, 0.5]).as_matrix()


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return EquivariantEncoder(16).eval()


def inputs_of(*crystals: Atoms) -> EquivariantInputs:
    structures = tuple(Structure.from_ase(atoms, id=str(row)) for row, atoms in enumerate(crystals))
    return EquivariantInputs.of(Inputs(np.array([one.id for one in structures]), structures))


def wurtzite() -> Atoms:
    atoms = bulk("ZnO", "wurtzite", a=3.25, c=5.2)
    atoms.rattle(0.05, seed=0)  # no symmetry that could hide an error
    return atoms


def test_the_crystal_counts_and_not_its_description(encoder):
    atoms = wurtzite()
    rotated, shifted, supercell = atoms.copy(), atoms.copy(), atoms.repeat((2, 1, 1))
    rotated.set_cell(atoms.cell @ ROTATION.T, scale_atoms=True)
    shifted.positions += [0.3, 1.1, -0.4]
    inputs = inputs_of(atoms, rotated, shifted, supercell, atoms[[2, 0, 3, 1]], bulk("ZnO", "zincblende", a=4.6))
    with torch.no_grad():
        found = encoder(inputs.batch(np.arange(6)))
        alone = encoder(inputs.batch(np.array([0])))
    torch.testing.assert_close(found[:5], found[:1].expand(5, -1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone, found[:1], rtol=1e-5, atol=1e-6)
    assert (found[5] - found[0]).abs().max() > 1e-2


def test_directions_count_not_lengths_alone(encoder):
    inputs = inputs_of(wurtzite())
    graph = inputs.graphs[0]
    turned = replace(graph, harmonics=np.roll(graph.harmonics, 1, axis=0))
    other = replace(inputs, graphs=(turned,))
    assert isinstance(other, EquivariantInputs)
    row = np.array([0])
    with torch.no_grad():
        assert (encoder(inputs.batch(row)) - encoder(other.batch(row))).abs().max() > 1e-3


def test_merged_edges_carry_the_sums_of_their_harmonics():
    structure = Structure.from_ase(bulk("NaCl", "rocksalt", a=5.6), id="NaCl")
    graph, every = EquivariantGraph.of(structure), nearest_neighbors(structure)
    assert len(graph.distances) < len(every.distances)
    np.testing.assert_allclose(graph.harmonics[:, 0], graph.multiplicities)
    # Around a site of cubic symmetry vectors add up to nothing, and so do the harmonics of rank two.
    np.testing.assert_allclose(graph.harmonics[:, 1:], 0.0, atol=1e-9)
    lone = Structure.from_ase(bulk("ZnO", "wurtzite", a=3.25, c=5.2), id="ZnO")
    merged, single = EquivariantGraph.of(lone), nearest_neighbors(lone)
    vectors = (lone.positions[single.second] + single.image - lone.positions[single.first]) @ lone.lattice
    units = vectors / single.distances[:, None]
    of_atom = np.zeros((lone.n_atoms, 3))
    np.add.at(of_atom, merged.receivers, merged.harmonics[:, 1:4])
    by_hand = np.zeros((lone.n_atoms, 3))
    np.add.at(by_hand, single.first, np.sqrt(3) * units)
    np.testing.assert_allclose(of_atom, by_hand, atol=1e-9)


def test_it_is_trained_and_used_like_any_other(small, tmp_path):
    few = small.take(np.arange(0, 30, 2))
    few = replace(few, inputs=replace(few.inputs, sorep=None, parts=()))
    split = make_split(few.ids, few.formulas, val=0.2, test=0.2)
    made = train(
        few, split, tmp_path, model=ModelConfig(), training=TrainingConfig(epochs=2, batch_size=8), network="e3nn"
    )
    found = predict(made, few.inputs)
    assert found.scaled.shape == few.spectra.shape
    np.testing.assert_allclose(found.scaled.sum(axis=1), 1.0, rtol=1e-5)
    assert np.ptp(found.scaled, axis=0).max() > 0


def test_plain_graphs_are_refused(small, encoder):
    with pytest.raises(Mat2SpecError) as caught:
        encoder(small.inputs.batch(np.array([0])))
    assert caught.value.code == "no-directions"


def test_without_e3nn_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "e3nn", None)
    with pytest.raises(Mat2SpecError) as caught:
        EquivariantEncoder()
    assert caught.value.code == "missing-e3nn"
    assert "sorep[e3nn]" in caught.value.remedy

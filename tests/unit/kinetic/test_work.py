"""Estimates of work: monotone where the work is, and right about what can be counted."""

from __future__ import annotations

import numpy as np
import pytest

from sorep.bloch import DEFAULT_CHUNK_BYTES
from sorep.kinetic.basis import load_basis
from sorep.kinetic.integrals import pair_cutoff
from sorep.kinetic.lattice_sum import atom_pairs
from sorep.kinetic.orbitals import Orbitals
from sorep.kinetic.reciprocal import ReciprocalTerm
from sorep.kinetic.work import SPLITS, CostModel, estimate_work
from sorep.structure import Structure

NAMES = ["silicon", "batio3", "triclinic", "anatase", "nanotube"]
PRECISION = 1e-12


@pytest.fixture(params=NAMES)
def orbitals(request: pytest.FixtureRequest, crystals) -> Orbitals:
    return Orbitals.of(crystals[request.param], load_basis("ano-ml-os"))


def test_the_two_sums_trade_work(orbitals: Orbitals) -> None:
    model = CostModel(orbitals, PRECISION)
    real = np.array([model.real_space(split) for split in (0.0, *SPLITS)])
    reciprocal = np.array([model.reciprocal(split) for split in (0.0, *SPLITS)])
    assert (np.diff(real, axis=0) <= 0).all()
    assert (np.diff(reciprocal, axis=0) >= 0).all()
    np.testing.assert_array_equal(reciprocal[0], 0)
    np.testing.assert_array_equal(model.real_space(1e9), 0)


def test_more_k_points_move_work_to_real_space(orbitals: Orbitals) -> None:
    splits = [CostModel(orbitals, PRECISION).cheapest_split(n) for n in (1, 10, 100, 1000, 10**5, 10**8)]
    assert set(splits) <= {0.0, *SPLITS}
    assert (np.diff(splits) <= 0).all()
    assert splits[-1] <= min(SPLITS)


def test_no_split_below_every_exponent(crystals) -> None:
    orbitals = Orbitals.of(crystals["silicon"], load_basis("ano-ml-os", discard_below=0.3))
    assert CostModel(orbitals, PRECISION).cheapest_split(1) == 0.0
    assert CostModel(orbitals, PRECISION).reciprocal(0.2).sum() == 0


@pytest.mark.parametrize("split", [0.05, 0.2])
def test_counts_are_near_the_truth(orbitals: Orbitals, split: float) -> None:
    """Pairs of atoms (within a factor of ten: vacuum hides how dense a wire is) and plane waves really visited."""
    compact = [e.compact(split) for e in orbitals.elements]
    cutoffs = np.array([[pair_cutoff(e, f, PRECISION) for f in compact] for e in compact])
    real = len(atom_pairs(orbitals, cutoffs).first)
    estimated = CostModel(orbitals, PRECISION).real_space(split)[0]
    assert real / 10 < estimated < 10 * real

    kpoints = np.array([[0.1, 0.2, 0.3], [0, 0, 0]])
    term = ReciprocalTerm(orbitals, [np.ones_like], split, PRECISION)
    waves = np.mean([len(vectors) for _, vectors in term._waves(kpoints, term._box((0.5, 0.5, 0.5))[0])])
    _, functions, _ = CostModel(orbitals, PRECISION).reciprocal(split)
    assert functions / orbitals.n_functions == pytest.approx(waves, rel=0.2)


def test_an_inversion_centre_saves_work(orbitals: Orbitals) -> None:
    for split in (0.0, *SPLITS):
        plain, real = (CostModel(orbitals, PRECISION, has_inversion=has).seconds(split, 50) for has in (False, True))
        assert real < plain


class TestEstimate:
    def test_it_grows_with_everything(self, orbitals: Orbitals) -> None:
        works = [estimate_work(orbitals, n, PRECISION) for n in (1, 10, 100, 1000)]
        assert all(w.n_functions == orbitals.n_functions for w in works)
        assert [w.n_kpoints for w in works] == [1, 10, 100, 1000]
        assert (np.diff([w.seconds for w in works]) > 0).all()
        assert (np.diff([w.memory_bytes for w in works]) > 0).all()
        assert works[0].seconds > 0
        assert estimate_work(orbitals, 10, 1e-14).seconds >= works[1].seconds

    def test_a_supercell_costs_more(self, crystals, redescribe) -> None:
        basis = load_basis("ano-ml-os")
        one, eight = (
            estimate_work(Orbitals.of(s, basis), 20, PRECISION)
            for s in (crystals["batio3"], redescribe(crystals["batio3"], (2, 2, 2)))
        )
        assert eight.n_functions == 8 * one.n_functions
        assert eight.seconds > 4 * one.seconds

    def test_memory_is_bounded_by_the_chunks(self, crystals) -> None:
        orbitals = Orbitals.of(crystals["silicon"], load_basis("ano-ml-os"))
        many = estimate_work(orbitals, 10**6, PRECISION).memory_bytes
        eigenvalues = 8 * orbitals.n_functions * 10**6
        assert many < 300 * 2**20 + DEFAULT_CHUNK_BYTES + eigenvalues

    def test_elements_that_repeat_do_not_cost_more_in_another_order(self) -> None:
        lattice, positions = 5 * np.eye(3), np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
        one = Structure("x", lattice, [22, 8, 22, 8], positions)
        other = Structure("x", lattice, [8, 8, 22, 22], positions)
        works = [estimate_work(Orbitals.of(s, load_basis("ano-ml-os")), 5, PRECISION) for s in (one, other)]
        assert works[0] == works[1]

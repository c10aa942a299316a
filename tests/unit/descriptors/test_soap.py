"""SOAP by DScribe: the options of the paper, invariances, the order of the columns, and life without DScribe."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from sorep.descriptors import Soap, descriptor_from_words, get_descriptor, identity_of
from sorep.errors import SET_UP, DescriptorError, UsageError
from sorep.structure import Structure

SOAP = Soap()
SAME = 1e-9  # of the largest feature; positions are kept to 1e-16, and what differs is the order of sums
NAMES = ["silicon", "nacl", "magnesium", "distorted-batio3", "triclinic", "bismuth"]


@pytest.fixture(scope="module", autouse=True)
def dscribe():
    return pytest.importorskip("dscribe.descriptors")


@pytest.fixture(scope="module")
def distorted(crystals) -> Structure:
    return crystals["distorted-batio3"]


def largest_change(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max() / np.abs(one).max())


def test_the_defaults_are_those_of_the_paper(dscribe, distorted):
    weights = {"function": "poly", "r0": 5, "c": 1, "m": 1}
    options = {"r_cut": 6, "n_max": 10, "l_max": 9, "sigma": 0.3, "rbf": "gto", "average": "inner"}
    direct = dscribe.SOAP(species=["O"], periodic=True, weighting=weights, **options)
    all_oxygen = Atoms("O5", cell=distorted.lattice, scaled_positions=distorted.positions, pbc=True)
    np.testing.assert_allclose(SOAP.compute(distorted), direct.create(all_oxygen), rtol=0, atol=1e-14)
    assert len(SOAP.feature_names) == len(set(SOAP.feature_names)) == direct.get_number_of_features() == 550


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("supercell", [(1, 1, 1), (2, 1, 3), [[1, 1, 0], [-1, 1, 0], [0, 1, 2]]], ids=str)
def test_another_description_of_a_crystal_has_the_same_vector(crystals, redescribe, name, supercell):
    here = SOAP.compute(crystals[name])
    for seed in range(2):
        assert largest_change(here, SOAP.compute(redescribe(crystals[name], supercell, seed))) < SAME


def test_species_do_not_matter_and_geometry_does(crystals, distorted):
    nacl, silicon = crystals["nacl"], crystals["silicon"]
    here = SOAP.compute(nacl)
    np.testing.assert_array_equal(SOAP.compute(replace(nacl, numbers=np.array([12, 8]))), here)
    assert largest_change(here, SOAP.compute(silicon)) > 0.01
    assert largest_change(here, SOAP.compute(replace(nacl, lattice=1.01 * nacl.lattice))) > 1e-4
    moved = distorted.positions + [[0.01, 0, 0]] + np.zeros((5, 1))
    moved[0] -= [0.01, 0, 0]
    assert largest_change(SOAP.compute(distorted), SOAP.compute(replace(distorted, positions=moved))) > 1e-5


def test_atoms_beyond_the_weight_do_not_matter():
    alone = Structure.from_ase(Atoms("He", cell=[20, 20, 20], pbc=True))
    farther = Structure.from_ase(Atoms("He", cell=[30, 25, 20], pbc=True))
    np.testing.assert_allclose(SOAP.compute(farther), SOAP.compute(alone), rtol=0, atol=1e-12)
    named = dict(zip(SOAP.feature_names, SOAP.compute(alone), strict=True))
    seen = [name for name, value in named.items() if abs(value) > 1e-9]
    assert seen and all(name.startswith("l0-") for name in seen)  # a lonely atom is round


def test_names_tell_which_feature_is_which(distorted):
    named = dict(zip(SOAP.feature_names, SOAP.compute(distorted), strict=True))
    fewer = Soap(l_max=3)
    for name, value in zip(fewer.feature_names, fewer.compute(distorted), strict=True):
        assert named[name] == pytest.approx(value, abs=1e-12)
    n_compared = 0
    for name, value in named.items():  # p_nn'l = c_nl . c_n'l
        angular, first, second = name.split("-")
        one, other = named[f"{angular}-{first}-{first}"], named[f"{angular}-{second}-{second}"]
        assert one >= 0
        assert value**2 <= one * other * (1 + 1e-9) + 1e-20
        n_compared += value**2 > 0.01 * one * other > 0
    assert n_compared > 100


def test_an_identity_tells_all_options_and_the_version(dscribe):
    from importlib.metadata import version

    identity = identity_of(SOAP)
    assert identity.words["dscribe"] == version("dscribe")
    assert descriptor_from_words(identity.words) == SOAP == get_descriptor("soap")
    for changes in ({"r_cut": 5.0}, {"n_max": 8}, {"l_max": 8}, {"sigma": 0.5}, {"r_0": 4.0}):
        other = Soap(**changes)
        assert identity_of(other) != identity
        assert descriptor_from_words(identity_of(other).words) == other
        values = other.compute(Structure.from_ase(bulk("Si")))
        assert len(values) == len(other.feature_names)
        assert values.shape != (550,) or largest_change(SOAP.compute(Structure.from_ase(bulk("Si"))), values) > 1e-6


def test_it_travels_between_processes(distorted):
    again = pickle.loads(pickle.dumps(SOAP.compute))
    np.testing.assert_array_equal(again(distorted), SOAP.compute(distorted))


@pytest.mark.parametrize("changes", [{"r_cut": 0.5}, {"n_max": 0}, {"l_max": 21}, {"sigma": -1}, {"species": "Si"}])
def test_options_that_make_no_sense_are_refused(changes):
    with pytest.raises(UsageError, match=next(iter(changes))):
        Soap.checked(**changes)


def test_what_is_not_finite_stops_here(distorted, monkeypatch):
    from sorep.descriptors import soap

    class Broken:
        def create(self, atoms):
            return np.array([1.0, np.nan])

    monkeypatch.setattr(soap, "_calculator", lambda **options: Broken())
    with pytest.raises(DescriptorError, match="1 of 2") as caught:
        SOAP.compute(distorted)
    assert caught.value.code == "non-finite"


def test_a_broken_dscribe_is_told_from_a_broken_structure(distorted, monkeypatch):
    import sys

    from sorep.descriptors import soap

    soap._calculator.cache_clear()
    monkeypatch.setitem(sys.modules, "dscribe.descriptors", None)
    with pytest.raises(DescriptorError, match="sorep\\[soap\\]") as caught:
        SOAP.compute(distorted)
    assert (caught.value.code, caught.value.stage) == ("missing-package", SET_UP)

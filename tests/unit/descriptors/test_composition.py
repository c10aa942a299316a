"""Element fractions and statistics: against hand-made formulas, for every element, and whatever the cell."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Composition as Formula
from pymatgen.core import Element

from sorep.descriptors import Composition, descriptor_from_words, get_descriptor, identity_of
from sorep.descriptors.composition import N_ELEMENTS, PROPERTIES
from sorep.errors import SET_UP, DescriptorError, UsageError
from sorep.structure import Structure

COMPOSITION = Composition()
NAMES = COMPOSITION.feature_names


def of_numbers(numbers) -> dict[str, float]:
    """The features of a cell with these atoms; where they are does not matter."""
    positions = np.random.default_rng(0).random((len(numbers), 3))
    return dict(zip(NAMES, COMPOSITION.compute(Structure("x", 4 * np.eye(3), numbers, positions)), strict=True))


def of_formula(formula: str) -> dict[str, float]:
    return of_numbers([element.Z for element, n in Formula(formula).items() for _ in range(int(n))])


def test_every_feature_has_a_name_of_its_own():
    assert len(NAMES) == len(set(NAMES)) == len(COMPOSITION.compute(Structure.from_ase(bulk("Si")))) == 155


def test_rutile_by_hand():
    found = of_formula("TiO2")
    titanium, oxygen = Element("Ti"), Element("O")
    assert found["fraction-Ti"] == pytest.approx(1 / 3)
    assert found["fraction-O"] == pytest.approx(2 / 3)
    assert found["n-elements"] == 2
    assert found["norm-2"] == pytest.approx(5**0.5 / 3)
    for name, ti, o in (
        ("ionization-energy", titanium.ionization_energy, oxygen.ionization_energy),
        ("electron-affinity", titanium.electron_affinity, oxygen.electron_affinity),
        ("mendeleev", titanium.mendeleev_no, oxygen.mendeleev_no),
        ("group", 4, 16),
        ("row", 4, 2),
        ("valence", 4, 6),
        ("valence-s", 2, 2),
        ("valence-p", 0, 4),
        ("valence-d", 2, 0),
    ):
        mean = (ti + 2 * o) / 3
        assert found[f"{name}-mean"] == pytest.approx(mean)
        assert found[f"{name}-min"] == min(ti, o)
        assert found[f"{name}-max"] == max(ti, o)
        assert found[f"{name}-range"] == pytest.approx(abs(ti - o))
        assert found[f"{name}-deviation"] == pytest.approx((abs(ti - mean) + 2 * abs(o - mean)) / 3)


@pytest.mark.parametrize(
    ("symbol", "valence"),
    [("H", 1), ("He", 2), ("C", 4), ("Ne", 8), ("Na", 1), ("Fe", 8), ("Zn", 12), ("Ga", 3), ("Gd", 10), ("Lu", 3)]
    + [("W", 6), ("Pb", 4), ("Rn", 8), ("Ra", 2), ("U", 6)],
)
def test_valence_electrons_are_those_of_the_periodic_table(symbol, valence):
    assert of_formula(symbol)["valence-mean"] == valence


@pytest.mark.parametrize(
    ("formula", "imbalance"),
    [
        ("NaCl", 0),
        ("BaTiO3", 0),
        ("MgO", 0),
        ("SiC", 0),
        ("Fe3O4", 1 / 7),  # 3 Fe(3+) are one charge too many: all atoms of an element have one state
        ("NaCl2", 1 / 3),
        ("MgAl", 5 / 2),
        ("Ne", 0),
        ("Al", 3),
    ],
)
def test_charges_that_balance_are_told_from_those_that_do_not(formula, imbalance):
    assert of_formula(formula)["charge-imbalance"] == pytest.approx(imbalance)


@pytest.mark.parametrize(("formula", "odd"), [("NaCl", 0), ("Al", 1), ("Na", 1), ("Si", 0), ("TiN", 1), ("Al2O3", 0)])
def test_an_odd_number_of_electrons_is_told(formula, odd):
    assert of_formula(formula)["odd-electrons"] == odd


@pytest.mark.parametrize("number", range(1, N_ELEMENTS + 1))
def test_every_element_has_every_property(number):
    found = of_numbers([number, number])
    values = np.array(list(found.values()))
    assert np.isfinite(values).all()
    assert found["n-elements"] == found["norm-2"] == found[f"fraction-{Element.from_Z(number)}"] == 1
    assert all(found[f"{name}-{what}"] == 0 for name in PROPERTIES for what in ("range", "deviation"))
    shells = [found[f"valence-{kind}-mean"] for kind in "spd"]
    assert 1 <= sum(shells) <= found["valence-mean"] <= 16
    assert found["ionization-energy-mean"] > 3
    assert 1 <= found["group-mean"] <= 18


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, N_ELEMENTS), min_size=1, max_size=12), st.integers(1, 4), st.randoms())
def test_what_holds_for_any_formula(numbers, copies, random):
    found = of_numbers(numbers)
    assert sum(value for name, value in found.items() if name.startswith("fraction-")) == pytest.approx(1, abs=1e-12)
    assert found["norm-7"] <= found["norm-5"] <= found["norm-3"] <= found["norm-2"] <= 1
    for name in PROPERTIES:
        low, mean, high = (found[f"{name}-{what}"] for what in ("min", "mean", "max"))
        assert low - 1e-9 <= mean <= high + 1e-9
        assert found[f"{name}-deviation"] <= found[f"{name}-range"] / 2 + 1e-9
    again = numbers * copies
    random.shuffle(again)
    assert of_numbers(again) == found


def test_all_cells_and_polymorphs_of_a_formula_are_one(crystals, redescribe):
    rutile = Structure("rutile", np.diag([4.6, 4.6, 2.9]), [22, 22, 8, 8, 8, 8], np.arange(18).reshape(6, 3) / 19)
    np.testing.assert_array_equal(COMPOSITION.compute(crystals["anatase"]), COMPOSITION.compute(rutile))
    for crystal in crystals.values():
        again = redescribe(crystal, (2, 1, 3), seed=1)
        np.testing.assert_array_equal(COMPOSITION.compute(again), COMPOSITION.compute(crystal))


def test_an_unknown_element_is_refused_by_name():
    with pytest.raises(DescriptorError, match="Rf") as caught:
        of_numbers([8, 104])
    assert (caught.value.code, caught.value.stage) == ("missing-element", "descriptor")


def test_a_property_that_pymatgen_lacks_is_never_filled_in(monkeypatch):
    from sorep.descriptors.composition import _element_data

    monkeypatch.setattr(Element, "electron_affinity", None)
    with pytest.raises(DescriptorError, match="electron-affinity of H") as caught:
        _element_data.__wrapped__()
    assert (caught.value.code, caught.value.stage) == ("element-data", SET_UP)


def test_other_data_of_the_elements_are_another_identity(monkeypatch):
    from sorep.descriptors import composition

    identity = identity_of(COMPOSITION)
    assert identity == identity_of(Composition())
    assert descriptor_from_words(identity.words) == get_descriptor("composition") == COMPOSITION
    monkeypatch.setattr(Element, "electron_affinity", 1.0)
    others = composition._element_data.__wrapped__()
    monkeypatch.setattr(composition, "_element_data", lambda: others)
    assert identity_of(COMPOSITION) != identity


def test_an_unknown_descriptor_is_a_wrong_usage():
    with pytest.raises(UsageError, match="choose from composition, soap"):
        get_descriptor("soup")

"""Structures: what is refused and under which code, and when two are the same."""

from __future__ import annotations

import hashlib
import pickle

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from sorep.errors import (
    BasisError,
    Failure,
    FeatureError,
    IdentityError,
    LevelsError,
    SorepError,
    SpectrumError,
    StoreError,
    StructureError,
    UsageError,
)
from sorep.structure import Structure

CUBE = 4.0 * np.eye(3)


def cesium_chloride(lattice: ArrayLike = CUBE, numbers: ArrayLike = (55, 17), id: str = "CsCl") -> Structure:
    return Structure(id, lattice, numbers, [[0, 0, 0], [0.5, 0.5, 0.5]])


def test_a_sound_structure_is_returned_as_it_is() -> None:
    structure = cesium_chloride()
    assert structure.validate() is structure
    assert structure.validate(max_atoms=2) is structure
    assert structure.n_atoms == 2
    assert structure.volume == pytest.approx(64.0)
    assert structure.formula == "ClCs"


@pytest.mark.parametrize(
    ("code", "lattice", "numbers", "positions", "options"),
    [
        ("empty-cell", CUBE, [], [], {}),
        ("unknown-species", CUBE, [0], [[0, 0, 0]], {}),
        ("unknown-species", CUBE, [14, 119], [[0, 0, 0], [0.5, 0.5, 0.5]], {}),
        ("unknown-species", CUBE, [-1], [[0, 0, 0]], {}),
        ("too-many-atoms", CUBE, [14, 14], [[0, 0, 0], [0.5, 0.5, 0.5]], {"max_atoms": 1}),
        ("non-finite", CUBE, [14], [[0, np.nan, 0]], {}),
        ("non-finite", np.diag([4.0, 4.0, np.inf]), [14], [[0, 0, 0]], {}),
        ("non-finite", np.full((3, 3), np.nan), [14], [[0, 0, 0]], {}),
        ("vanishing-volume", np.zeros((3, 3)), [14], [[0, 0, 0]], {}),
        ("vanishing-volume", [[4, 0, 0], [0, 4, 0], [4, 4, 0]], [14], [[0, 0, 0]], {}),
        ("vanishing-volume", 0.4 * np.eye(3), [1], [[0, 0, 0]], {}),  # lattice vectors in nanometres
        ("atoms-too-close", CUBE, [14, 14], [[0, 0, 0], [0.1, 0, 0]], {}),
        ("atoms-too-close", CUBE, [14, 8], [[0.01, 0, 0], [0.99, 0, 0]], {}),  # across the cell's border
        ("atoms-too-close", CUBE, [14, 8], [[0, 0, 0], [3.0, 0, 0]], {}),  # the same place in another cell
        ("atoms-too-close", np.diag([0.49, 4, 4]), [14], [[0, 0, 0]], {}),  # an atom and its own image
        ("atoms-too-close", CUBE, [55, 17], [[0, 0, 0], [0.5, 0.5, 0.5]], {"minimum_distance": 3.5}),
    ],
)
def test_what_is_refused(code: str, lattice, numbers, positions, options) -> None:
    with pytest.raises(StructureError) as caught:
        Structure("x", lattice, numbers, positions).validate(**options)
    assert (caught.value.code, caught.value.stage) == (code, "validate")
    assert caught.value.remedy


def test_close_atoms_are_named() -> None:
    structure = Structure("x", CUBE, [8, 14, 6], [[0.5, 0.5, 0.5], [0, 0, 0.99], [0, 0, 0.04]])
    with pytest.raises(StructureError, match=r"1 \(Si\) and 2 \(C\)|2 \(C\) and 1 \(Si\)") as caught:
        structure.validate()
    assert "0.200 Angstrom" in caught.value.message
    assert structure.validate(minimum_distance=0.19) is structure
    assert structure.validate(minimum_distance=0) is structure


@pytest.mark.parametrize(
    ("lattice", "numbers", "positions"),
    [
        pytest.param(CUBE, [14], [[0, 0, 0], [0.5, 0.5, 0.5]], id="fewer species than positions"),
        pytest.param(np.eye(2), [14], [[0, 0, 0]], id="lattice of two dimensions"),
        pytest.param(CUBE, [14], [[0, 0]], id="coordinates of two dimensions"),
        pytest.param(CUBE, ["Si"], [[0, 0, 0]], id="symbols for numbers"),
        pytest.param(CUBE, [14.5], [[0, 0, 0]], id="half an element"),
        pytest.param(CUBE, [float("nan")], [[0, 0, 0]], id="no number"),
        pytest.param(CUBE, [14], [["a", 0, 0]], id="words for coordinates"),
        pytest.param([[4, 0, 0], [0, 4], [0, 0, 4]], [14], [[0, 0, 0]], id="a ragged lattice"),
        pytest.param(None, [14], [[0, 0, 0]], id="no lattice"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_at_once(lattice, numbers, positions) -> None:
    with pytest.raises(StructureError) as caught:
        Structure("x", lattice, numbers, positions)
    assert caught.value.code == "malformed-structure"


def test_a_structure_cannot_be_changed_through_the_arrays_given() -> None:
    lattice = CUBE.copy()
    structure = cesium_chloride(lattice)
    key = structure.content_key
    lattice[0, 0] = 5.0
    assert structure.lattice[0, 0] == 4.0
    with pytest.raises(ValueError, match="read-only"):
        structure.positions[0, 0] = 0.1
    assert cesium_chloride().content_key == key


class TestContentKey:
    def test_names_do_not_matter(self) -> None:
        same = Structure("other", CUBE, [55, 17], [[0, 0, 0], [0.5, 0.5, 0.5]], source="table.parquet:3")
        assert same.content_key == cesium_chloride().content_key

    def test_last_digits_and_negative_zeros_do_not_matter(self) -> None:
        same = Structure("x", CUBE + 1e-10, np.array([55, 17], np.int8), [[-0.0, 0, 1e-12], [0.5, 0.5, 0.5]])
        assert same.content_key == cesium_chloride().content_key

    @pytest.mark.parametrize(
        "other",
        [
            cesium_chloride(CUBE * 1.0001),
            cesium_chloride(CUBE[[1, 0, 2]]),
            cesium_chloride(numbers=(55, 35)),
            cesium_chloride(numbers=(17, 55)),
            Structure("CsCl", CUBE, [55, 17], [[0, 0, 0], [0.5, 0.5, 0.5001]]),
            Structure("CsCl", CUBE, [55], [[0, 0, 0]]),
        ],
    )
    def test_content_matters(self, other: Structure) -> None:
        assert other.content_key != cesium_chloride().content_key

    def test_it_survives_a_pickle(self) -> None:
        again = pickle.loads(pickle.dumps(cesium_chloride()))
        assert again.content_key == cesium_chloride().content_key

    def test_definition(self) -> None:
        # Stores hold these keys: with another definition nothing in them would be found again.
        positions = np.array([[0, 0, 0], [0.5, 0.5, 0.5]])
        content = CUBE.tobytes() + positions.tobytes() + np.array([55, 17], dtype="<i8").tobytes()
        assert cesium_chloride().content_key == hashlib.sha256(content).hexdigest()[:32]


class TestFromAse:
    def test_there_and_back(self) -> None:
        atoms = bulk("GaAs", "zincblende", a=5.65)
        structure = Structure.from_ase(atoms, source="file.xyz:0")
        assert (structure.id, structure.formula, structure.source) == ("AsGa", "AsGa", "file.xyz:0")
        again = structure.to_ase()
        np.testing.assert_allclose(again.positions, atoms.positions, atol=1e-12)
        np.testing.assert_allclose(again.cell[:], atoms.cell[:], atol=1e-12)
        assert again.get_chemical_formula() == "AsGa"
        assert all(again.pbc)

    @pytest.mark.parametrize("pbc", [False, (True, True, False)])
    def test_not_periodic(self, pbc) -> None:
        with pytest.raises(StructureError) as caught:
            Structure.from_ase(Atoms("H", cell=[4, 4, 4], pbc=pbc))
        assert caught.value.code == "not-periodic"

    def test_partial_occupancy(self) -> None:
        atoms = bulk("NaCl", "rocksalt", a=5.6)
        atoms.info["occupancy"] = {"0": {"Na": 1.0}, "1": {"Cl": 0.9}}
        with pytest.raises(StructureError) as caught:
            Structure.from_ase(atoms)
        assert caught.value.code == "partial-occupancy"
        atoms.info["occupancy"]["1"] = {"Cl": 0.5, "Br": 0.5}
        with pytest.raises(StructureError):
            Structure.from_ase(atoms)
        atoms.info["occupancy"]["1"] = {"Cl": 1.0}
        assert Structure.from_ase(atoms).n_atoms == 2

    @pytest.mark.parametrize(
        ("cell", "code"),
        [([4, 4, 0], "vanishing-volume"), ([4, 4, np.nan], "non-finite"), ([[4, 0, 0]] * 3, "vanishing-volume")],
    )
    def test_a_cell_without_volume_is_refused_by_validate(self, cell, code: str) -> None:
        with pytest.raises(StructureError) as caught:
            Structure.from_ase(Atoms("H", positions=[[1, 1, 1]], cell=cell, pbc=True)).validate()
        assert caught.value.code == code


class TestFromPymatgen:
    @staticmethod
    def structure(species, **lattice):
        from pymatgen.core import Lattice
        from pymatgen.core import Structure as Pymatgen

        return Pymatgen(Lattice(CUBE, **lattice), species, [[0, 0, 0], [0.5, 0.5, 0.5]])

    def test_plain(self) -> None:
        structure = Structure.from_pymatgen(self.structure(["Cs+", "Cl-"]))
        assert structure.content_key == cesium_chloride().content_key
        assert structure.id == "Cs1 Cl1"

    def test_deuterium_is_hydrogen(self) -> None:
        assert list(Structure.from_pymatgen(self.structure(["D", "Li"])).numbers) == [1, 3]

    @pytest.mark.parametrize("species", [{"Cl": 0.5, "Br": 0.5}, {"Cl": 0.9}])
    def test_partial_occupancy(self, species) -> None:
        with pytest.raises(StructureError) as caught:
            Structure.from_pymatgen(self.structure(["Cs", species]))
        assert caught.value.code == "partial-occupancy"
        assert "site 1" in caught.value.message

    def test_dummy_species(self) -> None:
        from pymatgen.core import DummySpecies

        with pytest.raises(StructureError) as caught:
            Structure.from_pymatgen(self.structure(["Cs", DummySpecies("X")]))
        assert caught.value.code == "unknown-species"

    def test_not_periodic(self) -> None:
        with pytest.raises(StructureError) as caught:
            Structure.from_pymatgen(self.structure(["Cs", "Cl"], pbc=(True, True, False)))
        assert caught.value.code == "not-periodic"


def test_from_any() -> None:
    structure = cesium_chloride()
    assert Structure.from_any(structure) is structure
    assert Structure.from_any(structure.to_ase(), id="a").content_key == structure.content_key
    assert Structure.from_any(TestFromPymatgen.structure(["Cs", "Cl"])).content_key == structure.content_key
    for nonsense in ("POSCAR", None, 3, {"lattice": CUBE}):
        with pytest.raises(StructureError) as caught:
            Structure.from_any(nonsense)
        assert (caught.value.code, caught.value.stage) == ("unknown-structure-type", "read")


@given(
    lattice=st.lists(st.floats(-50, 50), min_size=9, max_size=9),
    numbers=st.lists(st.integers(-3, 130), max_size=4),
    data=st.data(),
)
@settings(derandomize=True, deadline=None, max_examples=60)
def test_validate_accepts_or_names_the_reason(lattice, numbers, data) -> None:
    floats = st.floats(-3, 3) | st.just(np.nan)
    flat = data.draw(st.lists(floats, min_size=3 * len(numbers), max_size=3 * len(numbers)))
    structure = Structure("x", np.reshape(lattice, (3, 3)), numbers, np.reshape(flat, (-1, 3)))
    try:
        assert structure.validate() is structure
    except StructureError as error:
        assert error.code in {
            "empty-cell",
            "unknown-species",
            "non-finite",
            "vanishing-volume",
            "atoms-too-close",
        }
    else:
        distances = structure.to_ase().get_all_distances(mic=True)
        assert (distances[np.triu_indices(len(numbers), 1)] > 0.499).all()


@pytest.mark.parametrize(
    "kind",
    [
        StructureError,
        BasisError,
        SpectrumError,
        LevelsError,
        FeatureError,
        IdentityError,
        StoreError,
        UsageError,
        SorepError,
    ],
)
def test_errors_travel_between_processes(kind: type[SorepError]) -> None:
    error = kind("3 of 4", code="a-code", stage="somewhere", remedy="do that")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (again.message, again.code, again.stage, again.remedy) == ("3 of 4", "a-code", "somewhere", "do that")
    assert str(again) == str(error) == "somewhere: 3 of 4 [a-code]. Remedy: do that"
    plain = pickle.loads(pickle.dumps(kind("no more")))
    assert (plain.code, plain.stage) == (kind.default_code, kind.default_stage)
    assert "Remedy" not in str(plain)


def test_failure_records() -> None:
    error = StructureError("too near", code="atoms-too-close", remedy="repair it")
    failure = Failure.from_error(error, id="a", source="a.cif", content_key="0123")
    assert failure == Failure("a", "a.cif", "validate", "atoms-too-close", "too near", "repair it", "0123")
    unexpected = Failure.from_error(ZeroDivisionError("division by zero"), id="a", source="a.cif")
    assert (unexpected.code, unexpected.stage) == ("unexpected-error", "sorep")
    assert unexpected.message == "ZeroDivisionError: division by zero"

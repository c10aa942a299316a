"""Crystals and spectra joined by id: what is missing is an error, and nothing depends on the order of rows."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from ase.build import bulk
from ase.io import write

from sorep.errors import FeatureError, Mat2SpecError, TableError

pytest.importorskip("torch")

from sorep.features import FEATURES
from sorep.identity import Identity
from sorep.mat2spec.data import Inputs, load_data, load_inputs, read_structures
from sorep.mat2spec.targets import Targets, bin_width, load_targets, targets_of_feature
from sorep.store import FeatureMatrix
from sorep.structure import Structure

CRYSTALS = {name: Structure.from_ase(bulk(name), id=name) for name in ("Al", "Cu", "Si")}


@pytest.fixture
def table(tmp_path):
    """A Parquet table of three spectra, and its grid."""
    frame = pd.DataFrame({"name": ["Si", "Al", "Cu"], "dos": [[1.0, 2, 3], [0, 1, 0], [4.0, 4, 4]]})
    frame.to_parquet(tmp_path / "t.parquet")
    (tmp_path / "grid.json").write_text(json.dumps({"unit": "eV", "grid": [0.0, 0.5, 1.0]}))
    return tmp_path


def test_a_table_is_read_by_id(table):
    targets = load_targets(table / "t.parquet", "name", "dos", table / "grid.json")
    assert targets.ids.tolist() == ["Al", "Cu", "Si"]
    np.testing.assert_array_equal(targets.spectra[2], [1, 2, 3])
    assert (targets.unit, targets.bin_width) == ("eV", 0.5)


def test_a_window_keeps_whole_bins(table):
    targets = load_targets(table / "t.parquet", "name", "dos", table / "grid.json").between(0.5, 1.0)
    np.testing.assert_array_equal(targets.energies, [0.5, 1.0])
    np.testing.assert_array_equal(targets.spectra[0], [1, 0])
    with pytest.raises(Mat2SpecError, match="0 of 2 bins"):
        targets.between(5, 6)


def test_wrong_tables_are_refused(table):
    with pytest.raises(TableError) as column:
        load_targets(table / "t.parquet", "name", "phdos", table / "grid.json")
    (table / "other.json").write_text(json.dumps({"unit": "eV", "grid": [0.0, 1.0]}))
    with pytest.raises(Mat2SpecError, match="'Si' is not a list of 2 numbers"):
        load_targets(table / "t.parquet", "name", "dos", table / "other.json")
    (table / "no.json").write_text(json.dumps({"grid": [0.0, 1.0]}))
    with pytest.raises(Mat2SpecError) as grid:
        load_targets(table / "t.parquet", "name", "dos", table / "no.json")
    assert (column.value.code, grid.value.code) == ("missing-column", "bad-grid")


@pytest.mark.parametrize("wrong", [np.nan, -0.1, np.inf])
def test_a_spectrum_is_finite_and_not_negative(wrong):
    with pytest.raises(Mat2SpecError, match="'b'"):
        Targets(np.array(["a", "b"]), np.array([[1.0, 2.0], [1.0, wrong]]), np.array([0.0, 1.0]), "eV")


@pytest.mark.parametrize("energies", [[0.0, 1.0, 3.0], [2.0, 1.0, 0.0], [1.0], [0.0, np.nan, 1.0]])
def test_bins_have_one_width(energies):
    with pytest.raises(Mat2SpecError) as error:
        bin_width(np.array(energies))
    assert error.value.code == "uneven-grid"


def test_features_without_a_gap_in_their_grid_are_targets():
    spec = FEATURES["mat2spec-edos"]
    identity = Identity.of({"operator": "scf", "feature": spec.words()})
    values = np.ones((2, spec.n_features))
    targets = targets_of_feature(FeatureMatrix(values, np.array(["a", "b"]), identity, spec.name))
    assert targets.spectra.shape == (2, 128)
    assert targets.bin_width == pytest.approx(8 / 128)
    values[0, 3], values[1, 5] = -1e-19, 1e-15  # rounding of a density that vanishes
    targets = targets_of_feature(FeatureMatrix(values, np.array(["a", "b"]), identity, spec.name))
    assert (targets.spectra[0, 3], targets.spectra[1, 5], targets.spectra[0, 0]) == (0, 0, 1)
    values[0, 3] = -1e-3
    with pytest.raises(Mat2SpecError, match="negative"):
        targets_of_feature(FeatureMatrix(values, np.array(["a", "b"]), identity, spec.name))
    words = {"descriptor": "composition", "element_data": ""}
    with pytest.raises(FeatureError):
        targets_of_feature(FeatureMatrix(values, np.array(["a", "b"]), Identity.of(words), "composition"))


def test_targets_and_structures_are_joined_by_id_and_not_by_row(table):
    targets = load_targets(table / "t.parquet", "name", "dos", table / "grid.json")
    data = load_data(targets, "graph", structures=dict(reversed(CRYSTALS.items())))
    for row, id in enumerate(data.ids):
        assert data.inputs.structures[row].id == id
        assert data.inputs.graphs[row].numbers[0] == CRYSTALS[id].numbers[0]
        np.testing.assert_array_equal(data.spectra[row], targets.spectra[targets.ids == id][0])
    assert data.formulas.tolist() == ["Al", "Cu", "Si"]


def test_a_missing_structure_is_an_error_or_counted(table):
    targets = load_targets(table / "t.parquet", "name", "dos", table / "grid.json")
    some = {id: CRYSTALS[id] for id in ("Al", "Cu")}
    with pytest.raises(Mat2SpecError, match="Si: no structure; 1 of 3") as error:
        load_data(targets, "graph", structures=some)
    assert error.value.code == "missing-structure"
    data = load_data(targets, "graph", structures=some, skip_missing=True)
    assert data.ids.tolist() == ["Al", "Cu"]
    assert [(failure.id, failure.code) for failure in data.inputs.failures] == [("Si", "missing-structure")]


def test_soreps_need_a_store(table):
    with pytest.raises(Mat2SpecError) as error:
        load_inputs("both", structures=CRYSTALS, feature="kinetic")
    assert error.value.code == "no-store"


def test_a_crystal_without_a_graph_is_named_and_costs_no_other():
    heavy = Structure("heavy", 4 * np.eye(3), [103], [[0, 0, 0]])
    lonely = Structure("lonely", 30 * np.eye(3), [2], [[0, 0, 0]])
    structures = {"Si": CRYSTALS["Si"], "heavy": heavy, "lonely": lonely}
    with pytest.raises(Mat2SpecError, match=r"heavy: .*; 2 of 3 .*--missing skip") as error:
        load_inputs("graph", structures=structures)
    assert error.value.code == "element-without-features"
    inputs = load_inputs("graph", structures=structures, skip_missing=True)
    assert inputs.ids.tolist() == ["Si"]
    assert {failure.id: failure.code for failure in inputs.failures} == {
        "heavy": "element-without-features",
        "lonely": "isolated-atom",
    }


def test_compositions_do_not_know_the_cell():
    cell = bulk("MgO", "rocksalt", a=4.2)
    structures = tuple(Structure.from_ase(cell.repeat(n), id=str(n)) for n in ((1, 1, 1), (2, 1, 1)))
    compositions = Inputs(np.array(["1", "2"]), structures).compositions
    np.testing.assert_allclose(compositions[0], compositions[1])
    assert compositions[0][11] == compositions[0][7] == 0.5


def test_inputs_hold_nothing_of_a_target(small):
    assert set(vars(Inputs(small.ids, small.inputs.structures))) == {
        "ids", "structures", "graphs", "sorep", "parts", "failures"
    }  # fmt: skip


def test_structure_files_that_cannot_be_used_are_told(tmp_path):
    write(tmp_path / "good.vasp", bulk("Al"))
    (tmp_path / "bad.cif").write_text("nothing")
    found, failures = read_structures([tmp_path])
    assert list(found) == ["good"]
    assert [failure.id for failure in failures] == ["bad"]
    write(tmp_path / "good.cif", bulk("Cu"))
    with pytest.raises(Mat2SpecError, match="both called 'good'"):
        read_structures([tmp_path])

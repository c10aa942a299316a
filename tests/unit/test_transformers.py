"""The scikit-learn surface: one more estimator, which happens to eat crystals."""

from __future__ import annotations

import pickle
import re
import warnings
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from pymatgen.io.ase import AseAtomsAdaptor
from sklearn.base import clone
from sklearn.ensemble import RandomForestRegressor
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

from sorep import KineticSOREP, kinetic_feature, kinetic_spectrum
from sorep.engine import LocalEngine
from sorep.errors import BasisError, SorepError, StructureError, UsageError
from sorep.features import FEATURES, FeatureSpec, Window
from sorep.featurize import featurize
from sorep.kinetic.method import KineticSettings
from sorep.sources import find_items
from sorep.store import FeatureStore
from sorep.structure import Structure
from sorep.transformers import FailedStructuresWarning

SPEC = FeatureSpec(name="few", windows=(Window(start=0.0, stop=100.0, points=20),), width=2.0)
QUICK = {"feature": SPEC, "k_spacing": 0.8}

CRYSTALS = [
    bulk("Si"),
    bulk("Ge"),
    bulk("NaCl", "rocksalt", a=5.64),
    bulk("Al"),
    bulk("GaAs", "zincblende", a=5.65),
    bulk("MgO", "rocksalt", a=4.21),
]
OVERLAPPING = Atoms("H2", positions=[[0, 0, 0], [0.1, 0, 0]], cell=[4, 4, 4], pbc=True)
FERMIUM = Atoms("Fm", cell=[4, 4, 4], pbc=True)


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    return KineticSOREP(**QUICK).fit_transform(CRYSTALS)


# Numbers


def test_a_row_is_the_feature_of_its_structure(values):
    assert values.shape == (len(CRYSTALS), SPEC.n_features)
    for crystal, row in zip(CRYSTALS, values, strict=True):
        np.testing.assert_array_equal(row, kinetic_feature(crystal, SPEC, k_spacing=0.8))
    assert len(np.unique(values, axis=0)) == len(CRYSTALS)


def test_any_kind_of_structure_may_come_in_any_mixture(values):
    mixture = [
        CRYSTALS[0],
        AseAtomsAdaptor.get_structure(cast(Any, CRYSTALS[1])),
        Structure.from_ase(CRYSTALS[2], id="salt"),
        *CRYSTALS[3:],
    ]
    found = KineticSOREP(**QUICK).fit_transform(iter(mixture))
    np.testing.assert_allclose(found, values, rtol=1e-9, atol=1e-12)


def test_processes_change_nothing(values):
    parallel = KineticSOREP(**QUICK, n_jobs=2).fit_transform(CRYSTALS)
    np.testing.assert_array_equal(parallel, values)


def test_an_empty_list_gives_an_empty_matrix():
    assert KineticSOREP(**QUICK).fit_transform([]).shape == (0, SPEC.n_features)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("operator", "overlap"),
        ("basis", "ano-ml-ae"),
        ("discard_below", 0.2),
        ("k_spacing", 0.4),
        ("k_rounding", "round"),
        ("keep_cell", True),
        ("feature", SPEC.model_copy(update={"width": 1.0})),
    ],
)
def test_every_option_changes_numbers_and_identity(option, value):
    crystals = [bulk("MgO", "rocksalt", a=4.21, cubic=True)]
    plain, changed = KineticSOREP(**QUICK), KineticSOREP(**{**QUICK, option: value})
    assert np.abs(changed.fit_transform(crystals) - plain.fit_transform(crystals)).max() > 1e-9
    assert changed.identity != plain.identity


def test_a_spectrum_of_one_structure():
    spectrum = kinetic_spectrum(bulk("Si"), k_spacing=0.8)
    assert spectrum.n_electrons is None
    assert (spectrum.energies > 0).all()
    np.testing.assert_array_equal(
        spectrum.energies, KineticSettings(k_spacing=0.8).calculate(Structure.from_ase(bulk("Si"))).spectrum.energies
    )
    with pytest.raises(StructureError) as caught:
        kinetic_spectrum(OVERLAPPING)
    assert caught.value.code == "atoms-too-close"


def test_the_identity_is_that_of_a_store_made_with_the_same_settings(tmp_path, values):
    from ase.io import write

    write(tmp_path / "crystals.xyz", CRYSTALS, format="extxyz")
    items = list(find_items(tmp_path / "crystals.xyz"))
    with LocalEngine(1) as engine:
        featurize(items, KineticSettings(k_spacing=0.8), [SPEC], tmp_path / "store", engine)
    matrix = FeatureStore(tmp_path / "store").matrix("few")
    transformer = KineticSOREP(**QUICK)
    assert transformer.identity == matrix.identity
    assert transformer.get_feature_names_out().tolist() == matrix.frame().columns.tolist()
    np.testing.assert_allclose(matrix.values, values, rtol=1e-6, atol=1e-9)  # files hold 8 decimals


# The contract of an estimator

CHECKS = (  # those of some releases of scikit-learn that hand over no arrays
    "check_do_not_raise_errors_in_init_or_set_param",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_valid_tag_types",
)


@pytest.mark.parametrize("check", [name for name in CHECKS if hasattr(estimator_checks, name)])
def test_scikit_learns_own_checks(check):
    getattr(estimator_checks, check)("KineticSOREP", KineticSOREP())


def test_parameters_are_kept_as_they_are_given():
    given = {
        "feature": SPEC,
        "operator": "overlap",
        "basis": "ano-ml-ae",
        "discard_below": 0.1,
        "k_spacing": 0.3,
        "k_rounding": "round",
        "keep_cell": True,
        "minimum_distance": 0.4,
        "on_error": "nan",
        "n_jobs": 3,
    }
    transformer = KineticSOREP(**given)
    assert transformer.get_params() == given
    assert cast(Any, clone(transformer)).get_params() == given
    assert KineticSOREP().set_params(**given).get_params() == given
    with pytest.raises(ValueError, match="k_mesh"):
        transformer.set_params(k_mesh=2)


def test_a_pickle_does_the_same(values):
    transformer = pickle.loads(pickle.dumps(KineticSOREP(**QUICK)))
    np.testing.assert_array_equal(transformer.transform(CRYSTALS), values)


def test_a_data_frame_has_named_columns(values):
    transformer = KineticSOREP(**QUICK).set_output(transform="pandas")
    frame = transformer.fit_transform(CRYSTALS)
    assert isinstance(frame, pd.DataFrame)
    assert frame.columns.tolist() == SPEC.feature_names == transformer.get_feature_names_out().tolist()
    assert len(set(SPEC.feature_names)) == SPEC.n_features
    np.testing.assert_array_equal(frame.to_numpy(), values)


def test_a_pipeline_learns_from_crystals():
    crystals = [bulk("Si", a=a) for a in np.linspace(5.0, 6.0, 12)]
    volumes = [crystal.get_volume() for crystal in crystals]
    pipeline = make_pipeline(KineticSOREP(**QUICK), RandomForestRegressor(n_estimators=20, random_state=0))
    pipeline.fit(crystals, volumes)
    assert pipeline.score(crystals, volumes) > 0.9
    pipeline.set_params(kineticsorep__k_spacing=1.0)
    assert pipeline.get_params()["kineticsorep__k_spacing"] == 1.0
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(pipeline)).predict(crystals), pipeline.predict(crystals))


def test_transforming_needs_no_fit_and_learns_nothing(values):
    transformer = KineticSOREP(**QUICK)
    np.testing.assert_array_equal(transformer.transform(CRYSTALS[:2]), values[:2])
    assert transformer.fit(CRYSTALS[3:]) is transformer
    np.testing.assert_array_equal(transformer.transform(CRYSTALS[:2]), values[:2])


def test_crystals_are_left_as_they_were():
    crystal = bulk("Si")
    crystal.positions += 7.0
    before = crystal.copy()
    KineticSOREP(**QUICK).fit_transform([crystal])
    assert crystal == before


# Failures


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_an_error_names_the_structure(n_jobs):
    transformer = KineticSOREP(**QUICK, n_jobs=n_jobs)
    with pytest.raises(StructureError, match=r"structure 2: atoms 0 \(H\) and 1 \(H\)") as caught:
        transformer.fit_transform([bulk("Si"), bulk("Ge"), OVERLAPPING, bulk("Al")])
    assert caught.value.code == "atoms-too-close"


def test_an_error_names_the_structure_by_its_id():
    transformer = KineticSOREP(**QUICK)
    with pytest.raises(BasisError, match="structure heavy: ") as caught:
        transformer.fit_transform([bulk("Si"), Structure.from_ase(FERMIUM, id="heavy")])
    assert caught.value.code == "missing-element"
    assert caught.value.remedy


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_failure_can_be_a_row_of_nan(n_jobs):
    materials = [FERMIUM, bulk("Si"), molecule("H2O"), "a string", Structure.from_ase(OVERLAPPING, id="h2"), bulk("Ge")]
    transformer = KineticSOREP(**QUICK, on_error="nan", n_jobs=n_jobs)
    with pytest.warns(FailedStructuresWarning, match=r"4 of 6 .* the first is 0 \(missing-element: .*failures_"):
        values = transformer.fit_transform(materials)
    assert np.isnan(values[[0, 2, 3, 4]]).all()
    np.testing.assert_array_equal(values[1], kinetic_feature(bulk("Si"), SPEC, k_spacing=0.8))
    np.testing.assert_array_equal(values[5], kinetic_feature(bulk("Ge"), SPEC, k_spacing=0.8))
    assert [(f.id, f.source, f.code) for f in transformer.failures_] == [
        ("0", "X[0]", "missing-element"),
        ("2", "X[2]", "not-periodic"),
        ("3", "X[3]", "unknown-structure-type"),
        ("h2", "X[4]", "atoms-too-close"),
    ]
    assert all(failure.remedy for failure in transformer.failures_)


def test_without_failures_there_is_no_warning(values):
    transformer = KineticSOREP(**QUICK, on_error="nan")
    with warnings.catch_warnings():
        warnings.simplefilter("error", FailedStructuresWarning)
        np.testing.assert_array_equal(transformer.fit_transform(CRYSTALS[:2]), values[:2])
    assert transformer.failures_ == []


def test_the_minimum_distance_is_the_callers(values):
    values = KineticSOREP(**QUICK, minimum_distance=0.05).fit_transform([OVERLAPPING])
    assert np.isfinite(values).all()
    with pytest.raises(StructureError, match="closer than 5"):
        KineticSOREP(**QUICK, minimum_distance=5).fit_transform([bulk("Si")])


def test_an_anchor_that_does_not_exist_is_an_error():
    with pytest.raises(SorepError) as caught:
        KineticSOREP("vbm-fermi-cbm", k_spacing=0.8).fit_transform([bulk("Si")])
    assert (caught.value.stage, caught.value.code) == ("levels", "no-electrons")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("operator", "potential"),
        ("discard_below", -1.0),
        ("k_spacing", 0.0),
        ("k_spacing", float("nan")),
        ("k_spacing", "wide"),
        ("k_rounding", "floor"),
        ("keep_cell", "perhaps"),
        ("on_error", "ignore"),
        ("n_jobs", 0),
        ("n_jobs", -1),
        ("n_jobs", 1.5),
        ("n_jobs", None),
    ],
)
def test_a_bad_parameter_is_refused_by_name(option, value):
    transformer = KineticSOREP(**{option: value})  # as scikit-learn wants it, not before `fit`
    with pytest.raises(UsageError, match=rf"\b{option}\b") as caught:
        transformer.fit([])
    assert caught.value.code == "bad-option"
    assert caught.value.remedy
    with pytest.raises(UsageError, match=rf"\b{option}\b"):
        transformer.transform([])


def test_an_unknown_grid_or_basis_is_refused_with_what_there_is():
    with pytest.raises(UsageError) as caught:
        KineticSOREP("kinetik").fit([])
    assert caught.value.code == "unknown-feature"
    assert all(name in caught.value.remedy for name in FEATURES)
    with pytest.raises(BasisError, match=re.escape("'ano-ml-so'")) as caught:
        KineticSOREP(basis="ano-ml-so").fit_transform([bulk("Si")])
    assert "did you mean ano-ml-os" in caught.value.remedy


def test_one_structure_is_not_a_list_of_structures():
    from ase.build import bulk

    with pytest.raises(UsageError, match="one structure"):
        KineticSOREP().transform(bulk("Si"))

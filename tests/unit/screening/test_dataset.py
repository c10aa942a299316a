"""Feature sets of a real store, joined with labels."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest

from sorep.errors import IdentityError, ScreeningError, StoreError, UsageError
from sorep.features import get_feature
from sorep.featurize import refeaturize
from sorep.screening.dataset import common_ids, load_dataset
from sorep.store import FeatureStore

LABELS = pd.Series({"LiF": True, "NaCl": True, "MgO": False, "stretched": False, "KCl": True})


def test_one_feature_is_the_matrix_of_the_store(salts):
    data, matrix = load_dataset(salts, "kinetic"), salts.matrix("kinetic")
    assert np.array_equal(data.values, matrix.values)
    assert np.array_equal(data.ids, matrix.ids)
    assert data.identity == matrix.identity
    assert data.feature_names == matrix.feature_names
    assert data.labels is None
    assert data.left_out == {}
    assert data.groups[data.ids == "MgO"] == data.groups[data.ids == "stretched"] == "MgO"
    assert len(np.unique(data.groups)) == 10


def test_several_features_side_by_side(salts):
    data = load_dataset(salts, "kinetic-methods + kinetic")
    first, second = salts.matrix("kinetic-methods"), salts.matrix("kinetic")
    assert np.array_equal(data.values, np.hstack([first.values, second.values]))
    assert data.feature_names[0] == f"kinetic-methods:{first.feature_names[0]}"
    assert data.feature_names[-1] == f"kinetic:{second.feature_names[-1]}"
    assert len(set(data.feature_names)) == data.values.shape[1]
    assert [part.n_features for part in data.parts] == [512, 1024]
    assert "part 2.feature.windows" in str(data.identity.differences(load_dataset(salts, "kinetic").identity))
    # The order of the parts is that of the columns.
    assert data.identity != load_dataset(salts, "kinetic+kinetic-methods").identity


def test_operator_and_identity_choose(salts, tmp_path):
    hash = salts.matrix("kinetic").identity.hash
    assert load_dataset(salts, f"kinetic/kinetic@{hash[:5]}").parts == load_dataset(salts, "kinetic").parts
    for name in ("overlap/kinetic", "kinetic@ffffffffffffffff", "vbm"):
        with pytest.raises(StoreError, match="no-such-feature"):
            load_dataset(salts, name)


@pytest.mark.parametrize("name", ["", "kinetic+", "+kinetic", "kinetic+kinetic"])
def test_names_of_no_set(salts, name):
    with pytest.raises(UsageError, match="bad-feature-set"):
        load_dataset(salts, name)


def test_labels_choose_the_structures_and_what_is_left_out_is_counted(salts):
    labels = pd.concat([LABELS, pd.Series({"broken": False})])
    data = load_dataset(salts, "kinetic", labels.sample(frac=1, random_state=1))
    assert dict(zip(data.ids.tolist(), data.labels.tolist(), strict=True)) == LABELS.to_dict()
    assert data.labels.dtype == bool
    assert data.n_positive == 3
    # The store knows of the broken file, so its label is no mistake.
    assert data.left_out == {"labelled structures without features": 1, "structures without a label": 6}
    matrix = salts.matrix("kinetic", ids=data.ids.tolist())
    assert np.array_equal(data.values, matrix.values)


def test_labels_of_unknown_structures(salts):
    labels = pd.concat([LABELS, pd.Series({"NaI": True, "RbI": False})])
    with pytest.raises(ScreeningError, match=r"2 of 7 labels.*NaI, RbI.*unknown-id.*--ignore-unknown"):
        load_dataset(salts, "kinetic", labels)
    data = load_dataset(salts, "kinetic", labels, ignore_unknown=True)
    assert len(data) == 5
    assert data.left_out["labels of unknown structures"] == 2
    with pytest.raises(ScreeningError, match=r"2 of 2 labels.*no-overlap"):
        load_dataset(salts, "kinetic", labels[-2:], ignore_unknown=True)


@pytest.mark.parametrize(
    ("labels", "code"),
    [
        (LABELS[["LiF", "NaCl"]], "one-class"),
        (LABELS.astype(object).where(LABELS.index != "MgO"), "missing-label"),
        (pd.concat([LABELS, LABELS[:1]]), "duplicate-id"),
        (pd.Series({"broken": True}), "no-structures"),
        (pd.Series({"LiF": 1.0, "MgO": np.nan}), "missing-label"),
    ],
)
def test_labels_that_cannot_be_used(salts, labels, code):
    with pytest.raises(ScreeningError, match=code):
        load_dataset(salts, "kinetic", labels)


def test_numbers_to_regress_on(salts):
    data = load_dataset(salts, "kinetic", pd.Series({"LiF": 8.0, "MgO": 4.5}))
    assert data.labels.tolist() == [8.0, 4.5]


def test_several_identities_of_one_name_must_be_told_apart(salts, tmp_path):
    path = shutil.copytree(salts.path, tmp_path / "store")
    wider = get_feature("kinetic").model_copy(update={"width": 2.0})
    store = FeatureStore(path)
    assert refeaturize(path, wider, *store.spectrum_identities()) == 11
    with pytest.raises(IdentityError, match="mixed-identity"):
        load_dataset(store, "kinetic")
    hash = salts.matrix("kinetic").identity.hash
    assert np.array_equal(load_dataset(store, f"kinetic@{hash}").values, salts.matrix("kinetic").values)


def test_structures_that_all_sets_have(toy):
    many, few = toy(30), toy(20)
    ids = common_ids([many, few])
    assert np.array_equal(ids, few.ids)
    aligned = many.of_ids(ids)
    assert np.array_equal(aligned.values, many.values[:20])
    assert np.array_equal(aligned.labels, many.labels[:20])
    with pytest.raises(ScreeningError, match="no-overlap"):
        common_ids([many.take(np.arange(5)), many.take(np.arange(5, 10))])


def test_taking_rows_keeps_everything_together(toy):
    data = toy(30)
    mask = data.labels.copy()
    taken = data.take(mask)
    assert taken.labels.all()
    assert len(taken) == data.n_positive == taken.n_positive
    assert np.array_equal(taken.ids, data.ids[mask])
    assert np.array_equal(taken.groups, data.groups[mask])

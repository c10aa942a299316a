"""One fit of a learning curve, against numbers worked out by hand and by scikit-learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from sorep.screening.models import build_model, predicted
from sorep.screening.splits import training_rows
from sorep.screening.trial import METRICS, ROWS, SCHEMA, Arm, Trial, block_importance, derived_seed, run_trial

TREE = Arm("tree", 0, "sklearn.tree:DecisionTreeClassifier", {"max_depth": 2})
LINEAR = Arm("linear", 0, "sklearn.linear_model:LogisticRegression")


@pytest.fixture
def folder(tmp_path):
    """Where a trial finds its rows and features; every third row is held out, every second is in the subset."""

    def write(data):
        n = len(data)
        (tmp_path / "values").mkdir()
        np.save(tmp_path / "values" / "0.npy", data.values)
        marks = {"within": np.arange(n) % 2 == 0, "held_out": np.arange(n) % 3 == 0}
        table = {"id": data.ids, "formula": data.groups, "label": data.labels, **marks}
        pq.write_table(pa.table(table), tmp_path / ROWS)
        return tmp_path

    return write


def apart(data):
    """Every structure is of its own formula."""
    return replace(data, groups=data.ids)


def test_a_feature_that_is_the_label_is_ranked_perfectly(toy, folder) -> None:
    data = apart(toy(300))
    told = replace(data, values=np.column_stack([data.labels, data.values[:, 1:]]).astype(float))
    row = run_trial(Trial(folder(told), TREE, 60, 0, seed=0, kind="grouped"))
    assert row["status"] == ""
    assert (row["roc_auc"], row["balanced_accuracy"], row["brier"]) == (1.0, 1.0, 0.0)
    assert (row["fraction_found"], row["fp"], row["fn"]) == (1.0, 0, 0)
    assert row["importance"] == pytest.approx([1, 0, 0, 0, 0, 0])


def test_noise_is_ranked_at_random(toy, folder) -> None:
    data = apart(toy(3000))
    random = np.random.default_rng(1)
    noise = replace(data, values=random.normal(size=(3000, 4)), labels=random.random(3000) < 0.3)
    row = run_trial(Trial(folder(noise), LINEAR, 500, 0, seed=0, kind="grouped"))
    assert abs(row["roc_auc"] - 0.5) < 4 * np.sqrt(1 / 12 / 300)  # 300 of 1000 held out are positive
    assert abs(row["roc_auc_within"] - 0.5) < 4 * np.sqrt(1 / 12 / 150)


def test_every_number_by_hand(toy, folder) -> None:
    data = toy(300)
    trial = Trial(folder(data), LINEAR, 50, 3, seed=8, kind="grouped")
    row = run_trial(trial)
    is_held_out, is_within = np.arange(300) % 3 == 0, np.arange(300) % 2 == 0
    pool = np.flatnonzero(~is_held_out)
    train = training_rows(pool, data.groups, data.labels, 50, split_seed=derived_seed(8, 3))
    model = build_model(LINEAR.model, derived_seed(8, 3, 50)).fit(data.values[train], data.labels[train])
    p = predicted(model, data.values)
    assert (row["n_train"], row["n_train_positive"]) == (len(train), data.labels[train].sum())
    assert row["probabilities"] == pytest.approx(p[is_held_out])
    assert row["roc_auc"] == roc_auc_score(data.labels[is_held_out], p[is_held_out])
    inside = is_held_out & is_within
    assert row["roc_auc_within"] == roc_auc_score(data.labels[inside], p[inside])
    assert row["average_precision_within"] == average_precision_score(data.labels[inside], p[inside])
    rest = np.setdiff1d(np.arange(300), train)
    tp = np.count_nonzero(data.labels[rest] & (p[rest] >= 0.5))
    fp = np.count_nonzero(~data.labels[rest] & (p[rest] >= 0.5))
    f = data.labels.sum() / 300
    assert row["speed_up"] == pytest.approx((tp + len(train) * f) / (tp + fp + len(train)) / f)  # eq. 17
    assert row["fraction_found"] == pytest.approx((tp + data.labels[train].sum()) / data.labels.sum())
    assert row["n_calculations"] == tp + fp + len(train)
    assert row["importance"] is None  # a linear model has no impurity
    assert set(row) == set(SCHEMA.names)


def test_all_models_are_trained_on_the_same_rows(toy, folder, monkeypatch) -> None:
    import sorep.screening.trial as module

    data = toy(300)
    numbered = replace(data, values=np.column_stack([np.arange(300.0), data.values]))
    seen = []
    fit = module.fit_model
    monkeypatch.setattr(module, "fit_model", lambda model, x, y: seen.append(x[:, 0].astype(int)) or fit(model, x, y))
    place = folder(numbered)
    for arm, n_rows, split in [(TREE, 40, 0), (LINEAR, 40, 0), (TREE, 40, 1), (TREE, 80, 0)]:
        run_trial(Trial(place, arm, n_rows, split, seed=0, kind="grouped"))
    first, same, other, larger = seen
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)
    assert set(first) < set(larger)
    for rows in seen:
        assert not (rows % 3 == 0).any()  # nothing that is held out
        left = np.setdiff1d(np.flatnonzero(np.arange(300) % 3), rows)
        assert not set(data.groups[rows]) & set(data.groups[left])  # no formula on both sides


def test_a_split_that_cannot_be_fitted_says_why(toy, folder) -> None:
    data = apart(toy(300))
    place = folder(data)
    row = run_trial(Trial(place, replace(LINEAR, params={"C": -1.0}), 20, 0, seed=0, kind="grouped"))
    assert row["status"] == "cannot-fit"
    row = run_trial(Trial(place, TREE, 1, 0, seed=0, kind="grouped"))
    assert row["status"] == "too-few-of-a-class"
    assert all(row[name] is None for name in (*METRICS, "probabilities", "n_train"))
    pa.Table.from_pylist([row], schema=SCHEMA)


def test_permuting_a_block_costs_what_it_tells() -> None:
    # The label hides in two columns that say the same: neither alone is missed, both together are.
    random = np.random.default_rng(2)
    labels = random.random(600) < 0.5
    told = labels + 0.2 * random.normal(size=600)
    values = np.column_stack([told, told + 1e-3 * random.normal(size=600), random.normal(size=(600, 2))])
    model = build_model("sklearn.linear_model:LogisticRegression").fit(values[:300], labels[:300])
    together, noise = block_importance(model, values[300:], labels[300:], ((0, 2), (2, 4)), seed=0)
    assert together == pytest.approx(0.5, abs=0.08)  # the ranking is random then
    assert abs(noise) < 0.02
    alone = block_importance(model, values[300:], labels[300:], ((0, 1), (1, 2)), seed=0)
    assert max(alone) < 0.6 * together

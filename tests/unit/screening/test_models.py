"""Presets, parameters, and estimators by their place."""

from __future__ import annotations

import numpy as np
import pytest
from imblearn.ensemble import BalancedRandomForestClassifier
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.preprocessing import StandardScaler

from sorep.errors import ScreeningError, UsageError
from sorep.screening.models import CLASSIFIERS, REGRESSORS, Scaler, build_model, fit_model, predicted


def test_the_published_forest_is_that_of_the_paper():
    forest = build_model("published", 7).named_steps["model"]
    assert type(forest) is BalancedRandomForestClassifier
    parameters = forest.get_params()
    paper = {
        "n_estimators": 500,
        "class_weight": "balanced_subsample",
        "sampling_strategy": 0.5,
        "replacement": True,
        "bootstrap": True,
        "ccp_alpha": 0.0,
        "random_state": 7,
    }
    assert {name: parameters[name] for name in paper} == paper


@pytest.mark.parametrize(
    ("name", "preset", "regression"),
    [
        (name, preset, regression)
        for regression, presets in ((False, CLASSIFIERS), (True, REGRESSORS))
        for name, preset in presets.items()
    ],
)
def test_nothing_is_left_to_the_defaults_of_a_library(name, preset, regression):
    parameters = build_model(name, regression=regression).named_steps["model"].get_params()
    assert parameters.keys() - preset[1].keys() == {"random_state"}


def test_each_tree_of_the_published_forest_sees_one_positive_to_two_negatives(toy):
    data = toy(400)
    model = fit_model(build_model("published", n_estimators=3), data.values, data.labels)
    for sampler in model.named_steps["model"].samplers_:
        chosen = data.labels[sampler.sample_indices_]
        assert (chosen.sum(), (~chosen).sum()) == (data.n_positive, 2 * data.n_positive)


@pytest.mark.parametrize("name", list(CLASSIFIERS))
def test_a_seed_decides_everything(toy, name):
    data = toy()

    def run(seed: int) -> np.ndarray:
        return predicted(fit_model(build_model(name, seed, n_estimators=5), data.values, data.labels), data.values)

    assert np.array_equal(run(1), run(1))
    assert not np.array_equal(run(1), run(2))


@pytest.mark.parametrize("name", [*CLASSIFIERS, "sklearn.ensemble:ExtraTreesClassifier"])
def test_the_informative_feature_is_learned(toy, name):
    train, test = toy(200, seed=1), toy(200, seed=2)
    model = fit_model(build_model(name, n_estimators=50), train.values, train.labels)
    p = predicted(model, test.values)
    assert p[test.labels].mean() > 0.4 + p[~test.labels].mean()


def test_estimators_by_their_place(toy):
    model = build_model("sklearn.ensemble:ExtraTreesClassifier", 3, n_estimators=7).named_steps["model"]
    assert type(model) is ExtraTreesClassifier
    assert (model.n_estimators, model.random_state) == (7, 3)
    data = toy()
    logistic = fit_model(build_model("sklearn.linear_model:LogisticRegression"), data.values, data.labels)
    assert predicted(logistic, data.values)[data.labels].mean() > 0.5
    ridge = build_model("sklearn.linear_model:Ridge", regression=True).fit(data.values, data.values[:, 1])
    assert predicted(ridge, data.values) == pytest.approx(data.values[:, 1], abs=0.1)


def test_tails_of_densities_are_no_features(toy):
    data = toy()
    values = np.hstack([data.values, np.random.default_rng(0).random((120, 1)) * 1e-150])
    for name in CLASSIFIERS:
        model = fit_model(build_model(name, n_estimators=5), values, data.labels)
        metal = values[:1].copy()
        metal[0, -1] = 3.0
        assert np.isfinite(predicted(model, metal)).all()
    scaled = Scaler().fit_transform(values)
    assert scaled[:, :-1] == pytest.approx(StandardScaler().fit_transform(data.values))
    assert np.abs(scaled[:, -1]).max() < 1e-100


@pytest.mark.parametrize(
    ("name", "options", "code"),
    [
        ("forest", {}, "unknown-model"),
        ("sklearn.ensemble:NoSuchForest", {}, "unknown-model"),
        ("no_such_package:Forest", {}, "unknown-model"),
        ("sklearn.metrics:roc_auc_score", {}, "unknown-model"),
        ("sklearn.linear_model:Ridge", {}, "wrong-kind-of-model"),
        ("pathlib:Path", {"regression": True}, "wrong-kind-of-model"),
        ("default", {"n_trees": 5}, "unknown-parameter"),
    ],
)
def test_models_that_are_none(name, options, code):
    with pytest.raises(UsageError, match=code):
        build_model(name, **options)


def test_what_an_estimator_refuses_is_told_with_a_remedy(toy):
    data = toy()
    with pytest.raises(ScreeningError, match=rf"120 rows with {data.n_positive} positives.*n_estimators.*cannot-fit"):
        fit_model(build_model("published", n_estimators=-1), data.values, data.labels)


@pytest.mark.parametrize("n_positive", [45, 60, 75])
def test_classes_that_are_balanced_already_are_drawn_as_they_are(toy, n_positive):
    data, labels = toy(), np.arange(120) < n_positive
    fewer, more = sorted((n_positive, 120 - n_positive))
    model = build_model("published", n_estimators=3)
    fit_model(model, data.values, labels)
    for sampler in model.named_steps["model"].samplers_:
        found = sorted((labels[sampler.sample_indices_].sum(), (~labels[sampler.sample_indices_]).sum()))
        assert found == pytest.approx([fewer, more], abs=1)
    assert model.named_steps["model"].sampling_strategy == 0.5

"""Models in files: exact, guarded by identity, and safe to open."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import skops.io
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from sorep.errors import IdentityError, ScreeningError
from sorep.identity import Identity
from sorep.screening.dataset import Part
from sorep.screening.models import build_model
from sorep.screening.saved import ScreeningModel, require_savable, versions
from sorep.screening.training import train


class Foreign(LogisticRegression):
    """An estimator of somebody's own."""


@pytest.fixture(scope="module")
def model(toy) -> ScreeningModel:
    return train(toy(), build_model(n_estimators=20), label="candidate", params={"n_estimators": 20})


@pytest.mark.parametrize(
    ("name", "params", "regression"),
    [
        ("published", {"n_estimators": 20}, False),
        ("default", {"n_estimators": 20}, False),
        ("default", {"n_estimators": 20}, True),
        ("sklearn.ensemble:HistGradientBoostingClassifier", {"max_iter": 5}, False),
    ],
)
def test_what_is_loaded_predicts_the_same_to_the_last_bit(toy, tmp_path, name, params, regression):
    data, others = toy(), toy(50, seed=9)
    if regression:
        data = replace(data, labels=data.values[:, 0])
    saved = train(data, build_model(name, regression=regression, **params), label="x")
    saved.save(tmp_path / "m.sorep")
    loaded = ScreeningModel.load(tmp_path / "m.sorep")
    assert np.array_equal(loaded.predict(others), saved.predict(others))
    assert loaded.is_regression == regression


def test_everything_on_the_card_comes_back(model, tmp_path):
    full = replace(
        model,
        criteria="gap > 0.5",
        threshold=0.25,
        calibration={"recall": np.float64(0.9), "n": np.int64(3), "undefined": float("nan")},
        metrics={"toy": {"roc_auc": 0.9, "precision": float("nan")}},
    )
    full.save(tmp_path / "m.sorep")
    loaded = ScreeningModel.load(tmp_path / "m.sorep")
    plain = ("parts", "feature_names", "training_ids", "label", "model", "params", "seed", "criteria", "threshold")
    for name in (*plain, "versions"):
        assert getattr(loaded, name) == getattr(full, name), name
    assert loaded.identity == model.identity
    assert loaded.calibration == {"recall": 0.9, "n": 3, "undefined": None}
    assert loaded.metrics["toy"]["roc_auc"] == 0.9
    assert np.isnan(loaded.metrics["toy"]["precision"])
    assert loaded.versions == versions()
    with zipfile.ZipFile(tmp_path / "m.sorep") as archive:
        assert json.loads(archive.read("card.json"))["training_ids"] == model.training_ids
    assert [path.name for path in tmp_path.iterdir()] == ["m.sorep"]


@pytest.mark.parametrize("calibrator", [IsotonicRegression(out_of_bounds="clip"), LogisticRegression()])
def test_a_calibrator_is_kept_and_used(model, toy, tmp_path, calibrator):
    data = toy()
    scores = model.scores(data)
    is_isotonic = isinstance(calibrator, IsotonicRegression)
    calibrator.fit(scores if is_isotonic else scores[:, None], data.labels)
    replace(model, calibrator=calibrator).save(tmp_path / "m.sorep")
    loaded = ScreeningModel.load(tmp_path / "m.sorep")
    expected = calibrator.predict(scores) if is_isotonic else calibrator.predict_proba(scores[:, None])[:, 1]
    assert np.array_equal(loaded.predict(data), expected)
    assert np.array_equal(loaded.scores(data), scores)
    assert not np.array_equal(loaded.predict(data), scores)


def test_features_of_another_identity_are_refused_with_the_differences(model, toy):
    data = toy()
    other = Identity.of({"operator": "toy", "n_features": 6, "width": 0.1})
    with pytest.raises(IdentityError, match=r"width: None against 0\.1"):
        model.predict(replace(data, parts=(Part("toy", other, 6),)))


def test_features_that_do_not_fit_are_refused(model, toy):
    data = toy()
    with pytest.raises(ScreeningError, match=r"trained on 6 features of toy, and given 5 of toy.*other-features"):
        model.predict(replace(data, values=data.values[:, :5], feature_names=data.feature_names[:5]))
    with pytest.raises(ScreeningError, match=r"given 12 of toy\+more.*other-features"):
        model.predict(
            replace(
                data,
                name="toy+more",
                values=np.hstack([data.values, data.values]),
                feature_names=[f"toy:{name}" for name in data.feature_names] * 2,
                parts=(*data.parts, Part("more", data.identity, 6)),
            )
        )
    values = data.values.copy()
    values[7, 2] = np.nan
    with pytest.raises(ScreeningError, match=r"s0007.*non-finite-features"):
        model.predict(replace(data, values=values))


def test_versions_that_changed_are_told(model):
    assert model.version_differences() == []
    older = replace(model, versions={**model.versions, "numpy": "1.0"})
    assert older.version_differences() == [f"numpy: 1.0 at training, {np.__version__} now"]


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file(model, tmp_path, keep):
    path = tmp_path / "m.sorep"
    model.save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(ScreeningError, match="bad-model"):
        ScreeningModel.load(path)


def test_a_damaged_file(model, tmp_path):
    path = tmp_path / "m.sorep"
    model.save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ScreeningError, match="bad-model"):
        ScreeningModel.load(path)


def test_files_of_other_kinds(model, tmp_path):
    path = tmp_path / "m.sorep"
    with pytest.raises(ScreeningError, match="no-model"):
        ScreeningModel.load(path)
    path.write_bytes(pickle.dumps(model.estimator))
    with pytest.raises(ScreeningError, match="bad-model"):
        ScreeningModel.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("card.json", '{"format": 99}')
    with pytest.raises(ScreeningError, match=r"format is 99.*bad-model"):
        ScreeningModel.load(path)


def test_types_of_strangers_are_refused_when_saving_and_when_loading(model, toy, tmp_path):
    data = toy()
    foreign = Pipeline([("model", Foreign().fit(data.values, data.labels))])
    with pytest.raises(ScreeningError, match=r"Foreign.*not-savable"):
        require_savable(foreign)
    with pytest.raises(ScreeningError, match="not-savable"):
        train(data, Pipeline([("model", Foreign())]), label="x")
    path = tmp_path / "m.sorep"
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        card = archive.read("card.json")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("card.json", card)
        archive.writestr("estimator.skops", skops.io.dumps(foreign))
    with pytest.raises(ScreeningError, match=r"Foreign.*untrusted-model"):
        ScreeningModel.load(path)


@pytest.mark.parametrize("value", [os.system, json.loads, np.load])
def test_functions_in_a_file_are_refused(model, tmp_path, value):
    path = tmp_path / "m.sorep"
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        card = archive.read("card.json")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("card.json", card)
        archive.writestr("estimator.skops", skops.io.dumps({"predict_proba": value}))
    with pytest.raises(ScreeningError, match="untrusted-model"):
        ScreeningModel.load(path)


def test_a_file_that_cannot_be_written(model, tmp_path):
    with pytest.raises(ScreeningError, match="unwritable-file"):
        model.save(tmp_path / "no-such-folder" / "m.sorep")

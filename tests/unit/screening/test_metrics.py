"""Metrics against scikit-learn, against counts by hand, and at their edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from sorep.errors import ScreeningError
from sorep.screening.metrics import regression_scores, scores, speed_up


@given(st.integers(0, 10_000), st.floats(0.1, 0.9))
def test_scores_agree_with_scikit_learn(seed, threshold):
    random = np.random.default_rng(seed)
    labels = np.append(random.random(40) < 0.3, [True, False])
    p = np.round(np.clip(0.3 * labels + random.random(42) * 0.7, 0, 1), 2)
    found, predicted = scores(labels, p, threshold), p >= threshold
    assert [found[name] for name in ("tn", "fp", "fn", "tp")] == reference.confusion_matrix(
        labels, predicted
    ).ravel().tolist()
    assert found["balanced_accuracy"] == pytest.approx(
        reference.balanced_accuracy_score(labels, predicted, adjusted=True)
    )
    assert found["recall"] == found["tp_rate"] == pytest.approx(reference.recall_score(labels, predicted))
    if predicted.any():
        assert found["precision"] == pytest.approx(reference.precision_score(labels, predicted))
    assert found["roc_auc"] == pytest.approx(reference.roc_auc_score(labels, p))
    assert found["average_precision"] == pytest.approx(reference.average_precision_score(labels, p))
    assert found["brier"] == pytest.approx(np.mean((p - labels) ** 2))


def test_counts_and_rates_by_hand():
    found = scores([True, True, True, False, False], [0.9, 0.5, 0.1, 0.6, 0.2])
    assert {name: found[name] for name in ("tn", "fp", "fn", "tp")} == {"tn": 1, "fp": 1, "fn": 1, "tp": 2}
    assert found["tp_rate"] == pytest.approx(2 / 3)
    assert found["fn_rate"] == pytest.approx(1 / 3)
    assert found["tn_rate"] == found["fp_rate"] == 0.5
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["balanced_accuracy"] == pytest.approx(2 / 3 + 1 / 2 - 1)
    # Of the six pairs of a positive and a negative, 0.9 wins two, 0.5 one, 0.1 none.
    assert found["roc_auc"] == pytest.approx(3 / 6)


def test_undefined_numbers_are_nan_and_not_zero():
    no_positive = scores([False, False], [0.1, 0.2])
    for name in ("tp_rate", "fn_rate", "recall", "precision", "balanced_accuracy", "roc_auc", "average_precision"):
        assert np.isnan(no_positive[name]), name
    assert (no_positive["tn_rate"], no_positive["fp_rate"]) == (1, 0)
    no_negative = scores([True, True], [0.1, 0.9])
    assert np.isnan([no_negative[name] for name in ("tn_rate", "fp_rate", "balanced_accuracy", "roc_auc")]).all()
    assert (no_negative["precision"], no_negative["recall"]) == (1, 0.5)
    assert np.isnan(scores([True, False], [0.1, 0.2])["precision"])
    assert np.isnan(regression_scores([2.0, 2.0], [1.0, 3.0])["r2"])


@pytest.mark.parametrize(
    ("labels", "p"), [([], []), ([True], [0.1, 0.2]), ([True, False], [0.1, np.nan]), ([[True]], [[0.5]])]
)
def test_malformed_predictions(labels, p):
    with pytest.raises(ScreeningError, match="malformed-predictions"):
        scores(labels, p)


def test_regression_by_hand():
    found = regression_scores([0.0, 1.0, 5.0], [1.0, 1.0, 3.0])
    assert found["mae"] == pytest.approx(1.0)
    assert found["rmse"] == pytest.approx(np.sqrt(5 / 3))
    assert found["r2"] == pytest.approx(1 - 5 / 14)


def test_speed_up_gives_the_published_screening():
    # 217 training rows, 1410 true and 2525 false positives; the paper: about 20 % of the calculations find about 75 %.
    n, f = 19_522, 0.098
    assert (1410 + 2525 + 217) / n == pytest.approx(0.21, abs=0.01)
    assert (1410 + 217 * f) / (n * f) == pytest.approx(0.75, abs=0.01)
    assert speed_up(1410, 2525, 217, f) == pytest.approx(0.75 / 0.21, rel=0.02)


def test_speed_up_by_hand():
    # 100 structures, 10 candidates; 20 trained on (2 of them candidates), 8 predicted, 6 of these right.
    assert speed_up(6, 2, 20, 0.1) == pytest.approx(((6 + 2) / 28) / 0.1)
    assert speed_up(0, 0, 50, 0.3) == pytest.approx(1.0)  # nothing predicted: only the random search
    assert np.isnan(speed_up(0, 0, 0, 0.1))

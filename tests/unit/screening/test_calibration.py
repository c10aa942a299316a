"""Thresholds keep their promise over many draws, and calibrated probabilities mean what they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta, kstest

from sorep.errors import ScreeningError, UsageError
from sorep.screening.calibration import fit_calibrator, threshold_for_recall
from sorep.screening.models import build_model, predicted
from sorep.screening.training import train

POSITIVES = np.ones(20, dtype=bool)


def test_threshold_by_hand() -> None:
    # Nine positives: a recall of 0.8 allows 0.2 * 10 - 1 = 1 of them below the threshold.
    scores = np.arange(1, 10) / 10
    found = threshold_for_recall(np.ones(9, dtype=bool), scores, 0.8)
    assert found.threshold == 0.2
    assert found.n_units == 9
    assert found.recall_seen == pytest.approx(8 / 9)
    assert found.recall_low == pytest.approx(beta.ppf(0.05, 8, 2))
    assert found.share_selected == pytest.approx(8 / 9)


def test_negatives_count_for_the_price_only() -> None:
    labels = np.repeat([True, False], [9, 11])
    scores = np.concatenate([np.arange(1, 10) / 10, np.full(11, 0.15)])
    assert threshold_for_recall(labels, scores, 0.8).share_selected == pytest.approx(8 / 20)
    assert threshold_for_recall(labels, scores, 0.9).share_selected == pytest.approx(1.0)


@pytest.mark.parametrize(("n", "recall"), [(30, 0.9), (30, 0.5), (50, 0.8), (12, 0.9)])
def test_recall_over_many_calibrations_is_that_of_the_theory(n: int, recall: float) -> None:
    # With scores uniform between 0 and 1 the threshold is the share of new positives that it misses.
    rng = np.random.default_rng(1)
    n_draws = 2000
    missed = np.array(
        [threshold_for_recall(np.ones(n, dtype=bool), rng.random(n), recall).threshold for _ in range(n_draws)]
    )
    k = int((1 - recall) * (n + 1) + 1e-9) - 1
    theory = beta(k + 1, n - k)
    assert theory.mean() == pytest.approx((k + 1) / (n + 1)) and theory.mean() <= 1 - recall + 1e-9
    assert missed.mean() == pytest.approx(theory.mean(), abs=4 * theory.std() / n_draws**0.5)
    assert kstest(missed, theory.cdf).pvalue > 1e-3


def test_stated_lower_bound_holds_in_nineteen_of_twenty_calibrations() -> None:
    rng = np.random.default_rng(2)
    n, n_draws = 40, 2000
    found = [threshold_for_recall(np.ones(n, dtype=bool), rng.random(n), 0.85) for _ in range(n_draws)]
    kept = np.mean([1 - one.threshold >= one.recall_low for one in found])
    assert kept == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / n_draws) ** 0.5)


def test_promise_holds_for_new_formulas_whose_polymorphs_are_alike() -> None:
    rng = np.random.default_rng(3)

    def formulas(n: int) -> tuple[np.ndarray, np.ndarray]:
        sizes = rng.choice([1, 2, 12], size=n)
        centers = rng.normal(size=n) - 0.1 * sizes  # those with many polymorphs are the difficult ones
        names = np.repeat(np.arange(n), sizes)
        return centers[names] + 0.1 * rng.normal(size=len(names)), names

    missed = []
    for _ in range(400):
        scores, names = formulas(40)
        threshold = threshold_for_recall(np.ones(len(scores), dtype=bool), scores, 0.8, names).threshold
        new, groups = formulas(100)
        missed.append((np.bincount(groups, new < threshold) / np.bincount(groups)).mean())
    error = np.std(missed) / len(missed) ** 0.5
    assert np.mean(missed) <= 0.2 + 4 * error
    assert np.mean(missed) > 0.15  # and is no more careful than it must be


def test_groups_of_one_are_single_structures() -> None:
    scores = np.random.default_rng(4).random(20)
    alone = threshold_for_recall(POSITIVES, scores, 0.8, [f"F{n}" for n in range(20)])
    assert alone == threshold_for_recall(POSITIVES, scores, 0.8)


def test_positives_of_one_formula_count_as_one() -> None:
    groups = ["A"] * 11 + [f"B{n}" for n in range(9)]
    scores = np.concatenate([np.full(11, 0.01), np.linspace(0.5, 0.9, 9)])
    # Ten formulas: one may be lost at a recall of 0.8 (0.2 * 11 - 1 = 1.2); all eleven structures of A are that one.
    assert threshold_for_recall(POSITIVES, scores, 0.8, groups).threshold == 0.5
    assert threshold_for_recall(POSITIVES, scores, 0.8).threshold == 0.01


def test_equal_scores_are_kept_together() -> None:
    scores = np.repeat([0.2, 0.6], [5, 15])
    found = threshold_for_recall(POSITIVES, scores, 0.9)  # one may be lost, but five share the lowest score
    assert (found.threshold, found.recall_seen) == (0.2, 1.0)
    assert threshold_for_recall(POSITIVES, np.full(20, 0.3), 0.5).threshold == 0.3


@pytest.mark.parametrize(("recall", "needed"), [(0.9, 9), (0.99, 99), (0.5, 1), (0.95, 19), (0.8, 4)])
def test_too_few_positives_say_how_many_are_needed(recall: float, needed: int) -> None:
    enough = np.linspace(0.1, 0.9, needed)
    assert threshold_for_recall(np.ones(needed, dtype=bool), enough, recall).threshold == enough[0]
    with pytest.raises(
        ScreeningError, match=rf"needs {needed} positive structures .* there are {needed - 1}"
    ) as caught:
        threshold_for_recall(np.arange(needed) > 0, enough, recall)
    assert caught.value.code == "too-few-positives"


@pytest.mark.parametrize("recall", [0.0, 1.0, -0.5, 1.5, float("nan")])
def test_impossible_recalls_are_refused(recall: float) -> None:
    with pytest.raises(UsageError, match="a recall of"):
        threshold_for_recall(POSITIVES, np.linspace(0, 1, 20), recall)


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ScreeningError, match="1 not finite"):
        threshold_for_recall([True, False], [0.5, np.nan], 0.5)
    with pytest.raises(ScreeningError, match="malformed-predictions"):
        fit_calibrator([True, False], [0.5])


def test_calibrated_probabilities_are_frequencies() -> None:
    # Scores of a balanced forest: the odds of a rare class multiplied by thirty.
    rng = np.random.default_rng(5)
    truth = 1 / (1 + np.exp(-rng.normal(-4, 1.5, size=6000)))
    odds = 30 * truth / (1 - truth)
    scores, labels = odds / (1 + odds), rng.random(6000) < truth
    calibrated = predicted(fit_calibrator(labels[:3000], scores[:3000]), scores[3000:, np.newaxis])
    left = labels[3000:]
    assert scores[3000:].sum() > 5 * left.sum()
    assert calibrated.sum() == pytest.approx(left.sum(), rel=0.25)
    for low, high in ((0.0, 0.1), (0.1, 0.6)):
        inside = (calibrated >= low) & (calibrated < high)
        error = 4 * (left[inside].mean() / inside.sum()) ** 0.5
        assert calibrated[inside].mean() == pytest.approx(left[inside].mean(), abs=error + 0.02)
    assert (np.diff(calibrated[np.argsort(scores[3000:])]) >= 0).all()


def test_scores_that_point_the_wrong_way_tell_nothing() -> None:
    labels = np.arange(20) < 5
    calibrator = fit_calibrator(labels, np.arange(20) / 20)
    assert predicted(calibrator, np.array([[0.0], [1.0]])).tolist() == [0.25, 0.25]


def test_one_class_cannot_be_calibrated() -> None:
    with pytest.raises(ScreeningError, match="one-class"):
        fit_calibrator(POSITIVES, np.linspace(0, 1, 20))


def test_trained_models_keep_their_promise_on_new_structures(toy) -> None:
    estimator = build_model("sklearn.linear_model:LogisticRegression")
    missed = {True: [], False: []}
    for seed in range(40):
        data, others, new = toy(n=120, seed=seed), toy(n=160, seed=1000 + seed), toy(n=400, seed=2000 + seed)
        for kept_out in (others, None):
            model = train(data, estimator, recall=0.8, kept_out=kept_out, seed=seed, label="x")
            is_candidate = model.scores(new) >= model.threshold
            missed[kept_out is not None].append((~is_candidate[new.labels]).mean())
            assert model.calibration["kept_out"] == (kept_out is not None)
            assert model.predict(new).sum() == pytest.approx(new.labels.sum(), rel=0.5)
    for values in missed.values():
        assert np.mean(values) <= 0.2 + 4 * np.std(values) / len(values) ** 0.5
        assert np.mean(values) > 0.1

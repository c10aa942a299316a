"""Splits: sizes, groups that stay whole, both classes, repeatability."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sorep.errors import ScreeningError, UsageError
from sorep.screening.splits import folds, has_both_classes, holdout, shuffled_splits, training_rows


def data(n: int = 400, n_groups: int = 150, share: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return np.array([f"F{g}" for g in random.integers(n_groups, size=n)]), random.random(n) < share


def shared(groups, first, second) -> set:
    return set(groups[first]) & set(groups[second])


@given(st.integers(0, 1000), st.sampled_from([0.05, 0.1, 0.4]))
def test_holdout_keeps_groups_whole_and_has_both_classes(seed, fraction):
    groups, labels = data(seed=seed % 5)
    pool, held_out = holdout(groups, labels, fraction, seed=seed)
    assert np.array_equal(np.sort(np.concatenate([pool, held_out])), np.arange(400))
    assert not shared(groups, pool, held_out)
    assert has_both_classes(labels[held_out])
    assert has_both_classes(labels[pool])
    assert abs(len(held_out) - fraction * 400) <= np.unique(groups, return_counts=True)[1].max() / 2


@given(st.integers(0, 1000), st.integers(4, 300))
def test_training_rows_are_whole_groups_of_the_pool(seed, n_rows):
    groups, labels = data()
    pool, held_out = holdout(groups, labels, seed=1)
    rows = training_rows(pool, groups, labels, n_rows, split_seed=seed)
    rest = np.setdiff1d(pool, rows)
    assert np.isin(rows, pool).all()
    assert not shared(groups, rows, rest)
    assert not shared(groups, rows, held_out)
    assert has_both_classes(labels[rows])
    assert abs(len(rows) - n_rows) <= np.unique(groups, return_counts=True)[1].max() / 2


def test_random_splits_have_the_exact_size_and_part_groups():
    groups, labels = data()
    pool, held_out = holdout(groups, labels, 0.1, seed=3, kind="random")
    assert len(held_out) == 40
    assert shared(groups, pool, held_out)
    assert len(training_rows(pool, groups, labels, 0.25, kind="random")) == 90
    assert len(training_rows(pool, groups, labels, 37, kind="random")) == 37


def test_a_seed_gives_the_same_rows_and_another_seed_others():
    groups, labels = data()
    pool, _ = holdout(groups, labels, seed=0)
    first, again, other = (training_rows(pool, groups, labels, 50, split_seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_smaller_training_set_is_part_of_a_larger_one():
    groups, labels = data()
    pool, _ = holdout(groups, labels)
    small, large = (training_rows(pool, groups, labels, n, split_seed=5) for n in (60, 200))
    assert np.isin(small, large).all()


def test_draws_without_a_class_are_repeated():
    groups, labels = np.arange(200), np.arange(200) < 6
    pool = np.arange(200)
    for seed in range(30):  # a plain draw of ten lacks the class three times in four
        assert labels[training_rows(pool, groups, labels, 10, split_seed=seed)].any()


def test_what_cannot_be_split():
    groups = np.arange(50)
    one = np.arange(50) == 0
    with pytest.raises(ScreeningError, match="too-few-of-a-class"):
        holdout(groups, one)
    with pytest.raises(ScreeningError, match="too-few-of-a-class"):
        training_rows(np.arange(1, 50), groups, one, 10)
    with pytest.raises(ScreeningError, match=r"the positive structures are of 1 different.*too-few-of-a-class"):
        folds(one, groups)
    with pytest.raises(ScreeningError, match="too-few-groups"):
        folds(np.arange(50) < 20, np.repeat(["a", "b"], 25))


@pytest.mark.parametrize("size", [0, -1, 51, 2.5, 0.001, float("nan")])
def test_sizes_that_make_no_sense(size):
    groups, labels = np.arange(50), np.arange(50) < 20
    with pytest.raises(UsageError, match="bad-option"):
        training_rows(np.arange(50), groups, labels, size)


def test_other_options_that_make_no_sense():
    groups, labels = np.arange(50), np.arange(50) < 20
    with pytest.raises(UsageError, match="bad-option"):
        holdout(groups, labels, 1.0)
    with pytest.raises(UsageError, match="bad-option"):
        holdout(groups, labels, kind="stratified")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="bad-option"):
        folds(labels, groups, 1)


def test_folds_test_every_row_once_and_balance_the_classes():
    groups, labels = data()
    pairs = folds(labels, groups, 5, seed=2)
    assert np.array_equal(np.sort(np.concatenate([test for _, test in pairs])), np.arange(400))
    for train, test in pairs:
        assert not shared(groups, train, test)
        assert np.array_equal(np.sort(np.concatenate([train, test])), np.arange(400))
        assert labels[test].mean() == pytest.approx(labels.mean(), abs=0.05)


def test_numbers_to_regress_on_are_split_too():
    groups, targets = data()[0], np.linspace(0, 1, 400)
    pairs = folds(targets, groups, 4)
    assert np.array_equal(np.sort(np.concatenate([test for _, test in pairs])), np.arange(400))
    pool, held_out = holdout(groups, targets)
    assert not shared(groups, pool, held_out)


def test_shuffled_splits_are_60_to_40_and_differ():
    groups, labels = data()
    splits = shuffled_splits(labels, groups, seed=1)
    assert len(splits) == 5
    for train, test in splits:
        assert len(test) == pytest.approx(160, abs=5)
        assert not shared(groups, train, test)
    assert not np.array_equal(splits[0][1], splits[1][1])

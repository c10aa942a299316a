"""Metrics by hand and against scikit-learn and SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import wasserstein_distance
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from sorep.errors import Mat2SpecError

pytest.importorskip("torch")

from sorep.mat2spec.metrics import mae, mse, r2, wasserstein_each

RNG = np.random.default_rng(0)
Y, P = RNG.random((6, 9)), RNG.random((6, 9))


def test_flattened_means() -> None:
    assert mae(P, Y) == pytest.approx(mean_absolute_error(Y.ravel(), P.ravel()))
    assert mse(P, Y) == pytest.approx(mean_squared_error(Y.ravel(), P.ravel()))
    assert r2(P, Y) == pytest.approx(r2_score(Y.ravel(), P.ravel()))
    assert (mae(Y, Y), mse(Y, Y), r2(Y, Y)) == (0, 0, 1)
    assert r2(np.full_like(Y, Y.mean()), Y) == pytest.approx(0)


def test_r2_is_not_a_mean_over_bins() -> None:
    true = np.array([[0.0, 1.0], [1e-6, 0.0]])  # the first bin hardly varies
    predicted = np.array([[0.1, 1.0], [0.1, 0.0]])
    assert np.mean([r2_score(true[:, b], predicted[:, b]) for b in range(2)]) < -1e9
    assert r2(predicted, true) == pytest.approx(1 - 0.02 / 0.75, abs=1e-4)
    assert math.isnan(r2(predicted, np.ones((2, 2))))


def test_wasserstein_is_that_of_scipy_in_the_unit_of_the_grid() -> None:
    grid = -300 + 20.0 * np.arange(9)
    expected = [wasserstein_distance(grid, grid, p, y) for p, y in zip(P, Y, strict=True)]
    np.testing.assert_allclose(wasserstein_each(P, Y, 20.0), expected)
    # sizes do not matter
    np.testing.assert_allclose(wasserstein_each(7 * P, Y / 3, 20.0), expected)


def test_wasserstein_by_hand() -> None:
    left, right = np.eye(5)[[0]], np.eye(5)[[4]]
    assert wasserstein_each(left, right, 0.5).tolist() == [2.0]
    assert wasserstein_each(left - 0.1, right, 0.5).tolist() == [2.0]  # what is negative counts as zero


@pytest.mark.parametrize("metric", [mae, mse, r2, lambda p, y: wasserstein_each(p, y, 1.0)])
def test_refused(metric) -> None:
    for p, y in ((P, Y[:, :3]), (P[0], Y[0]), (np.where(P > 0.5, np.nan, P), Y), (P[:0], Y[:0])):
        with pytest.raises(Mat2SpecError) as caught:
            metric(p, y)
        assert caught.value.code == "malformed-spectra"


def test_distances_that_are_not_defined() -> None:
    for p, y, width, code in (
        (P, np.where(Y > 0.5, -Y, Y), 1.0, "negative-spectrum"),
        (P, 0 * Y, 1.0, "empty-spectrum"),
        (-P, Y, 1.0, "empty-spectrum"),
        (P, Y, 0.0, "bad-bin-width"),
        (P, Y, math.nan, "bad-bin-width"),
    ):
        with pytest.raises(Mat2SpecError) as caught:
            wasserstein_each(p, y, width)
        assert caught.value.code == code

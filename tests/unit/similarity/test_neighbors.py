"""Nearest neighbours, against all distances at once."""

from __future__ import annotations

import numpy as np
import pytest

from sorep.errors import UsageError
from sorep.features import FeatureSpec, Window
from sorep.similarity import METRICS, cross, nearest

SPEC = FeatureSpec(name="few", windows=(Window(start=0.0, stop=1.0, points=20),))
VALUES = np.random.default_rng(0).uniform(0.1, 1.0, size=(50, 20))


@pytest.mark.parametrize("block", [7, 1024])
@pytest.mark.parametrize("metric", METRICS)
def test_those_with_the_least_distances(metric, block, monkeypatch):
    monkeypatch.setattr("sorep.similarity.neighbors.BLOCK", block)
    whole = cross(VALUES, VALUES, metric, SPEC)
    np.fill_diagonal(whole, np.inf)
    found = nearest(VALUES, 4, metric, SPEC)
    np.testing.assert_array_equal(found.rows, np.argsort(whole, axis=1)[:, :4])
    np.testing.assert_allclose(found.distances, np.sort(whole, axis=1)[:, :4], rtol=1e-9)


@pytest.mark.parametrize("block", [7, 1024])
def test_new_ones_among_known_ones(block, monkeypatch):
    monkeypatch.setattr("sorep.similarity.neighbors.BLOCK", block)
    found = nearest(VALUES[:9], 3, among=VALUES)
    np.testing.assert_array_equal(found.rows[:, 0], np.arange(9))
    np.testing.assert_array_equal(found.distances[:, 0], 0.0)
    np.testing.assert_array_equal(found.rows[:, 1:], nearest(VALUES, 2).rows[:9])


def test_of_equally_near_ones_the_first():
    found = nearest(VALUES[[5, 1, 2, 5, 5]], 2)
    np.testing.assert_array_equal(found.rows[[0, 3, 4]], [[3, 4], [0, 4], [0, 3]])
    np.testing.assert_array_equal(found.distances[[0, 3, 4]], 0.0)


def test_no_more_than_there_are():
    assert nearest(VALUES[:3], 10).rows.shape == (3, 2)
    assert nearest(VALUES[:3], 10, among=VALUES[:4]).rows.shape == (3, 4)
    assert nearest(VALUES[:1], 1).rows.shape == (1, 0)
    assert nearest(VALUES[:0], 1).rows.shape == (0, 0)
    with pytest.raises(UsageError, match="bad-option"):
        nearest(VALUES, 0)

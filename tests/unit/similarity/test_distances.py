"""Distances: against SciPy, against closed forms, and the axioms of a metric."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist, squareform
from scipy.stats import wasserstein_distance

from sorep.errors import SimilarityError, UsageError
from sorep.features import FEATURES, FeatureSpec, Window
from sorep.similarity.distances import METRICS, blocks, condensed, cross, get_measure

ONE = FeatureSpec(name="one", windows=(Window(start=-2.0, stop=4.0, points=61),))
BINS = FeatureSpec(name="bins", windows=(Window(start=-2.0, stop=4.0, points=61),), sampling="bin")
TWO = FeatureSpec(
    name="two",
    windows=(
        Window(anchor="vbm", start=-2.0, stop=0.0, points=21),
        Window(anchor="cbm", start=0.0, stop=4.0, points=40),
    ),
)
TO_A_METRIC = {"cosine": np.sqrt, "euclidean": np.asarray, "tanimoto": np.sqrt, "wasserstein": np.asarray}


def densities(n: int, seed: int = 0, spec: FeatureSpec = ONE) -> np.ndarray:
    """Rows that look like densities of states: some empty stretches, some sharp peaks, a few rows nearly the same."""
    random = np.random.default_rng(seed)
    values = random.uniform(size=(n, spec.n_features)) * (random.uniform(size=(n, spec.n_features)) < 0.4)
    values[:, 0] += 1e-3
    half = n // 2
    change = 10.0 ** random.uniform(-9, 0, size=(half, 1)) * random.uniform(size=(half, spec.n_features))
    values[n - half :] = values[:half] * (1 + change)
    return values


def gaussian(center: float, width: float, spec: FeatureSpec) -> np.ndarray:
    return np.exp(-(((spec.energies - center) / width) ** 2))


# Values


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_as_scipy(metric):
    values = densities(60)
    np.testing.assert_allclose(condensed(values, metric), pdist(values, metric), rtol=1e-9, atol=1e-14)


def test_tanimoto_is_one_minus_the_ratio():
    a, b = densities(2)
    expected = 1 - a @ b / (a @ a + b @ b - a @ b)
    np.testing.assert_allclose(condensed(np.array([a, b]), "tanimoto"), [expected], rtol=1e-12)


def test_tanimoto_of_empty_vectors():
    values = np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    np.testing.assert_array_equal(condensed(values, "tanimoto"), [0.0, 1.0, 1.0])


@pytest.mark.parametrize("spec", [ONE, BINS], ids=["points", "bins"])
def test_wasserstein_is_that_of_scipy(spec):
    values = densities(20, spec=spec)
    expected = [
        wasserstein_distance(spec.energies, spec.energies, values[i], values[j])
        for i in range(20)
        for j in range(i + 1, 20)
    ]
    np.testing.assert_allclose(condensed(values, "wasserstein", spec), expected, rtol=1e-9, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(shift=st.floats(-20.0, 20.0), width=st.floats(1.0, 4.0), height=st.floats(1e-3, 1e3))
def test_wasserstein_of_a_shifted_peak_is_the_shift_whatever_its_height(shift, width, height):
    spec = FEATURES["kinetic"]
    values = np.array([gaussian(80.0, width, spec), height * gaussian(80.0 + shift, width, spec)])
    np.testing.assert_allclose(condensed(values, "wasserstein", spec), [abs(shift)], rtol=1e-9, atol=1e-9)


def test_wasserstein_with_two_windows():
    """Within a window mass moves along its axis, and from one to the other over the ends of both."""
    values = np.zeros((3, TWO.n_features))
    values[0, 5] = values[1, 8] = values[2, 21 + 30] = 1.0
    step = [0.1, 4.0 / 39]
    expected = [3 * step[0], (21 - 5) * step[0] + (40 - 30) * step[1], (21 - 8) * step[0] + (40 - 30) * step[1]]
    np.testing.assert_allclose(condensed(values, "wasserstein", TWO), expected, rtol=1e-12)


def test_wasserstein_sees_that_a_window_is_empty():
    values = np.zeros((2, TWO.n_features))
    values[:, 3] = 1.0
    values[1, 40] = 0.1
    assert condensed(values, "wasserstein", TWO)[0] > 0.01


def test_small_cosine_distances_keep_their_digits():
    """The angle between rows is known by construction; 1 - cos would round all but the largest to noise."""
    random = np.random.default_rng(1)
    u = random.normal(size=300)
    u /= np.linalg.norm(u)
    v = random.normal(size=300)
    v -= (u @ v) * u
    v /= np.linalg.norm(v)
    for distance in (1e-14, 1e-12, 1e-9, 1e-7, 1.1e-7, 1e-3):
        angle = 2 * np.arcsin(np.sqrt(distance / 2))
        pair = 7.0 * np.array([u, np.cos(angle) * u + np.sin(angle) * v])
        np.testing.assert_allclose(condensed(pair, "cosine"), [distance], rtol=2e-7)
        np.testing.assert_allclose(cross(pair[:1], pair[1:], "cosine"), [[distance]], rtol=2e-7)


def test_a_scale_does_not_change_the_cosine_even_where_squares_underflow():
    a, b = densities(2)
    scaled = np.array([1e-200 * a, 1e200 * b])
    np.testing.assert_allclose(condensed(scaled, "cosine"), condensed(np.array([a, b]), "cosine"), rtol=1e-12)


# Axioms


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_axioms_of_a_metric(metric, seed):
    distances = squareform(condensed(densities(12, seed), metric, ONE))
    np.testing.assert_array_equal(distances, distances.T)
    assert (distances >= 0).all()
    lengths = TO_A_METRIC[metric](distances)
    detours = lengths[:, None, :] + lengths[None, :, :]  # from i to k and from j to k
    assert (lengths[:, :, None] <= detours + 1e-9 * lengths.max()).all()


@pytest.mark.parametrize("metric", METRICS)
def test_equal_rows_have_distance_zero(metric):
    values = densities(40)[[3, 5, 3, 3, 7]]
    distances = cross(values, values, metric, ONE)
    equal = np.equal.outer([3, 5, 3, 3, 7], [3, 5, 3, 3, 7])
    np.testing.assert_array_equal(distances == 0, equal)


# Blocks


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("size", [1, 7, 30, 31, 1000])
def test_blocks_of_any_size_give_the_same(metric, size):
    values = densities(30)
    whole = squareform(condensed(values, metric, ONE))
    seen = np.zeros((30, 30), dtype=int)
    for rows, columns, block in blocks(values, metric, ONE, size=size):
        assert max(block.shape) <= size
        np.testing.assert_allclose(block, whole[rows, columns], rtol=1e-6, atol=1e-15)
        seen[rows, columns] += 1
        seen[columns, rows] += rows != columns
    np.testing.assert_array_equal(seen, 1)


@pytest.mark.parametrize("metric", METRICS)
def test_between_two_sets_and_within_one(metric, monkeypatch):
    values = densities(30)
    whole = squareform(condensed(values, metric, ONE))
    monkeypatch.setattr("sorep.similarity.distances.BLOCK", 4)
    np.testing.assert_allclose(cross(values[:11], values[11:], metric, ONE), whole[:11, 11:], rtol=1e-6, atol=1e-15)
    assert cross(values[:0], values, metric, ONE).shape == (0, 30)


@pytest.mark.parametrize("metric", METRICS)
def test_a_pair_has_the_same_bits_wherever_it_stands(metric):
    measure = get_measure(metric)
    prepared = measure.prepare(densities(30), ONE)
    together = measure.along(prepared[:-1], prepared[1:])
    for i in range(29):
        alone = measure.prepare(densities(30)[i : i + 2], ONE)
        assert measure.along(alone[1:], alone[:1])[0] == together[i]


def test_where_most_are_near_nothing_is_lost():
    """Then the whole block is computed from differences."""
    random = np.random.default_rng(2)
    values = densities(1)[0] * (1 + 1e-6 * random.normal(size=(40, ONE.n_features)))
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    expected = 0.5 * pdist(unit, "sqeuclidean")
    assert expected.max() < 1e-9
    np.testing.assert_allclose(condensed(values, "cosine"), expected, rtol=1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_few_rows(metric):
    assert condensed(densities(1), metric, ONE).shape == (0,)
    assert condensed(np.empty((0, ONE.n_features)), metric, ONE).shape == (0,)
    assert list(blocks(np.empty((0, ONE.n_features)), metric, ONE)) == []


# Refusals


@pytest.mark.parametrize(
    ("metric", "columns", "value", "spec", "code"),
    [
        ("cosine", slice(2, 3), np.nan, None, "non-finite-features"),
        ("wasserstein", slice(2, 3), np.inf, ONE, "non-finite-features"),
        ("cosine", slice(None), 0.0, None, "empty-feature"),
        ("wasserstein", slice(None), 0.0, ONE, "empty-feature"),
        ("wasserstein", slice(0), 0.0, FEATURES["kinetic"], "malformed-features"),
    ],
)
def test_what_cannot_be_compared_is_named(metric, columns, value, spec, code):
    values = densities(6)
    values[3, columns] = value
    with pytest.raises(SimilarityError) as caught:
        condensed(values, metric, spec)
    assert caught.value.code == code
    assert caught.value.remedy
    if code != "malformed-features":
        assert "row 3" in caught.value.message


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4), (3, 0)])
def test_features_of_a_wrong_shape(shape):
    with pytest.raises(SimilarityError, match="malformed-features"):
        condensed(np.ones(shape))


def test_wrong_usage():
    with pytest.raises(UsageError, match=r"unknown-metric.*cosine, euclidean"):
        condensed(densities(3), "cosinus")
    with pytest.raises(UsageError, match="metric-needs-grid"):
        condensed(densities(3), "wasserstein")


def test_what_is_given_is_left_as_it_was():
    values = densities(6)
    before = values.copy()
    for metric in METRICS:
        condensed(values, metric, ONE)
    np.testing.assert_array_equal(values, before)

"""Clusters at one radius and at all: against scikit-learn, SciPy, and each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import squareform
from sklearn.cluster import DBSCAN

from sorep.errors import UsageError
from sorep.similarity import NOISE, condensed, dbscan, elbow, k_distances, merge_tree, nearest, radius_graph, scan


def crowd(n: int = 60, seed: int = 0) -> np.ndarray:
    """Clusters of many widths, and a row that is there three times."""
    random = np.random.default_rng(seed)
    centers = random.uniform(0.1, 1.0, size=(n // 5, 12))
    values = np.repeat(centers, 5, axis=0) + 10.0 ** random.uniform(-6, -0.5, (n, 1)) * random.uniform(size=(n, 12))
    values[[1, 7]] = values[3]
    return values


def same_partition(first: np.ndarray, second: np.ndarray) -> bool:
    return (
        len({*zip(first.tolist(), second.tolist(), strict=True)}) == len({*first.tolist()}) == len({*second.tolist()})
    )


radii = st.floats(-7, 0).map(lambda exponent: 10.0**exponent)


@settings(max_examples=40, deadline=None)
@given(epsilon=radii, n_min=st.integers(1, 5), seed=st.integers(0, 20))
def test_as_scikit_learn_on_all_distances(epsilon, n_min, seed):
    values = crowd(seed=seed)
    model = DBSCAN(eps=epsilon, min_samples=n_min, metric="precomputed").fit(squareform(condensed(values)))
    np.testing.assert_array_equal(dbscan(values, epsilon, n_min), model.labels_)


@settings(max_examples=20, deadline=None)
@given(epsilon=radii, seed=st.integers(0, 20))
def test_with_n_min_of_one_clusters_are_connected_components(epsilon, seed):
    values = crowd(seed=seed)
    n, labels = connected_components(squareform(condensed(values)) <= epsilon)
    found = dbscan(values, epsilon)
    assert found.max() + 1 == n
    assert same_partition(found, labels)


@settings(max_examples=40, deadline=None)
@given(epsilon=radii, n_min=st.integers(1, 5), seed=st.integers(0, 20))
def test_the_tree_cut_at_epsilon_is_dbscan_at_epsilon(epsilon, n_min, seed):
    values = crowd(seed=seed)
    tree, labels = merge_tree(values, n_min), dbscan(values, epsilon, n_min)
    assert tree.n_clusters([epsilon]).tolist() == [labels.max() + 1]
    cut = tree.labels(epsilon)
    is_core = cut != NOISE
    within = (squareform(condensed(values)) <= epsilon).sum(axis=1)
    np.testing.assert_array_equal(is_core, within >= n_min)
    assert same_partition(cut[is_core], labels[is_core])
    if n_min == 1:
        np.testing.assert_array_equal(cut, labels)


@pytest.mark.parametrize("block", [7, 1024])
@pytest.mark.parametrize("n_min", [1, 3])
def test_the_tree_in_blocks_is_single_linkage(n_min, block, monkeypatch):
    monkeypatch.setattr("sorep.similarity.clustering.blocks", _blocks_of(block))
    values = crowd()
    whole = squareform(condensed(values))
    core = np.sort(whole, axis=1)[:, n_min - 1]
    reach = np.maximum(whole, np.maximum.outer(core, core))
    np.fill_diagonal(reach, 0.0)
    expected = linkage(squareform(reach), "single")
    tree = merge_tree(values, n_min)
    np.testing.assert_allclose(tree.epsilons, expected[:, 2], rtol=1e-6, atol=1e-15)
    found = tree.linkage()
    np.testing.assert_allclose(found[:, 2:], expected[:, 2:] if n_min == 1 else found[:, 2:], rtol=1e-6, atol=1e-15)
    for epsilon in (1e-6, 1e-4, 1e-2):
        ours, theirs = (fcluster(z, epsilon, "distance") for z in (found, expected))
        assert same_partition(ours, theirs)


def _blocks_of(size: int):
    from sorep.similarity.distances import blocks

    return lambda values, metric, spec: blocks(values, metric, spec, size=size)


def test_a_scan_counts_clusters_at_each_radius():
    values, epsilons = crowd(), np.geomspace(1e-8, 1.0, 30)
    for n_min in (1, 2, 4):
        counts = [dbscan(values, epsilon, n_min).max() + 1 for epsilon in epsilons]
        np.testing.assert_array_equal(scan(values, epsilons, n_min), counts)


def test_merges_tell_who_joins_whom_and_when():
    """Points on a circle, so that the distances follow from the angles."""
    angles = np.array([0.0, 0.001, 0.1, 0.5, 0.502])
    tree = merge_tree(np.column_stack([np.cos(angles), np.sin(angles)]))
    merges = tree.merges()
    assert [(m.first, m.second) for m in merges] == [((0,), (1,)), ((3,), (4,)), ((0, 1), (2,)), ((0, 1, 2), (3, 4))]
    expected = 1 - np.cos([0.001, 0.002, 0.099, 0.4])
    np.testing.assert_allclose([m.epsilon for m in merges], expected, rtol=1e-7)
    late = tree.merges(start=1e-5, stop=0.01)
    assert [(m.first, m.second) for m in late] == [((0, 1), (2,))]
    np.testing.assert_array_equal(tree.labels(1e-5), [0, 0, 1, 2, 2])


def test_edges_of_length_zero_are_edges():
    tree = merge_tree(np.ones((4, 3)))
    np.testing.assert_array_equal(tree.epsilons, 0.0)
    np.testing.assert_array_equal(tree.labels(0.0), 0)
    np.testing.assert_array_equal(dbscan(np.ones((4, 3)), 0.0), 0)
    assert radius_graph(np.ones((4, 3)), 0.0).nnz == 16


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("n_min", [1, 2, 3])
def test_few_rows(n, n_min):
    values = crowd()[: 2 * n : 2]
    clusters = n if n_min == 1 else int(n == 2 and n_min == 2)
    epsilon = 1e-12 if n_min == 1 else 3.0
    labels = dbscan(values, epsilon, n_min)
    assert len(labels) == n
    assert labels.max(initial=NOISE) + 1 == clusters
    tree = merge_tree(values, n_min)
    assert tree.n_clusters([epsilon]).tolist() == [clusters]
    np.testing.assert_array_equal(tree.labels(epsilon), labels)
    assert tree.linkage().shape == (max(n - 1, 0), 4)
    assert k_distances(values).shape == (n if n > 1 else 0,)


def test_the_curve_of_distances_to_the_kth_neighbour():
    values = crowd()
    np.testing.assert_array_equal(k_distances(values, 3), np.sort(nearest(values, 3).distances[:, 2]))


def test_an_elbow_lies_in_the_gap():
    """Duplicates up to 1e-5, others from 1e-1: between them, whichever are more."""
    for few in (30, 70):
        curve = np.concatenate([np.geomspace(1e-6, 1e-5, few), np.geomspace(1e-1, 3e-1, 100 - few)])
        suggestion = elbow(curve)
        assert suggestion is not None
        assert 1e-5 < suggestion < 1e-1
        assert elbow(curve[::-1]) == suggestion


def test_no_elbow():
    assert elbow(np.array([])) is None
    assert elbow(np.array([1e-3, 1e-2])) is None
    assert elbow(np.full(10, 1e-3)) is None
    assert elbow(np.zeros(10)) is None


@pytest.mark.parametrize(("epsilon", "n_min"), [(-1.0, 1), (np.nan, 1), (np.inf, 1), (0.1, 0)])
def test_wrong_usage(epsilon, n_min):
    with pytest.raises(UsageError, match="bad-option"):
        dbscan(crowd(), epsilon, n_min)

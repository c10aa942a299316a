"""The compiled kernel and its NumPy twin: the same rules, the same numbers."""

from concurrent.futures import ThreadPoolExecutor
from math import floor, inf, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sorep._fortran import ACTIVE, scatter_moments, scatter_moments_numpy, why_inactive

ROUTES = [
    pytest.param(scatter_moments_numpy, id="numpy"),
    pytest.param(scatter_moments, id="fortran", marks=pytest.mark.skipif(not ACTIVE, reason=why_inactive)),
]
needs_fortran = pytest.mark.skipif(not ACTIVE, reason=why_inactive)


def by_the_definition(values, weights, start, spacing, n_nodes, max_order):
    moments = np.zeros((max_order + 1, n_nodes))
    for value, weight in zip(values, weights, strict=True):
        position = (value - start) / spacing
        if not np.isfinite(position):
            continue
        node = floor(position + 0.5)
        if 0 <= node < n_nodes:
            for order in range(max_order + 1):
                moments[order, node] += weight * (position - node) ** order
    return moments


def test_the_reason_for_the_numpy_route_is_given_exactly_when_it_is_taken():
    assert bool(why_inactive) != ACTIVE


@pytest.mark.parametrize("route", ROUTES)
def test_definition(route):
    rng = np.random.default_rng(1)
    values, weights = rng.uniform(-6.0, 6.0, 2000), rng.normal(size=2000)
    result = route(values, weights, -4.0, 0.17, 41, 6)
    assert result.shape == (7, 41)
    np.testing.assert_allclose(
        result, by_the_definition(values, weights, -4.0, 0.17, 41, 6), rtol=0, atol=1e-13 * abs(weights).sum()
    )


@pytest.mark.parametrize("route", ROUTES)
def test_a_value_on_a_midpoint_belongs_to_the_node_above(route):
    # Nodes at 0, 1, 2: -0.5 is the lowest value that has a node, 2.5 the first that has none any more.
    result = route([-0.5, 0.5, 1.5, 2.5], [1.0, 10.0, 100.0, 1000.0], 0.0, 1.0, 3, 1)
    np.testing.assert_array_equal(result, [[1.0, 10.0, 100.0], [-0.5, -5.0, -50.0]])


@pytest.mark.parametrize("route", ROUTES)
def test_values_off_the_grid_are_skipped(route):
    values = [-inf, -1e308, -0.6, nan, 0.0, 1.6, 1e10, 1e308, inf]
    result = route(values, np.ones(9), 0.0, 1e-3, 2, 2)
    np.testing.assert_array_equal(result, [[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])


@pytest.mark.parametrize("route", ROUTES)
def test_no_values(route):
    np.testing.assert_array_equal(route([], [], 0.0, 1.0, 4, 2), np.zeros((3, 4)))


@pytest.mark.parametrize("route", ROUTES)
def test_moments_give_back_sums_over_the_values(route):
    # With M_p the moments of node i, sum_i (i M_0 + M_1) is the weighted sum of the positions on any grid.
    rng = np.random.default_rng(2)
    values, weights = rng.uniform(0.0, 10.0, 500), rng.uniform(size=500)
    result = route(values, weights, -1.0, 0.5, 24, 2)
    nodes = np.arange(24)
    positions = (values + 1.0) / 0.5
    assert result[0].sum() == pytest.approx(weights.sum(), rel=1e-13)
    assert (nodes * result[0] + result[1]).sum() == pytest.approx(weights @ positions, rel=1e-13)
    second = nodes**2 * result[0] + 2 * nodes * result[1] + result[2]
    assert second.sum() == pytest.approx(weights @ positions**2, rel=1e-13)


@pytest.mark.parametrize("route", ROUTES)
def test_inputs_of_other_kinds_are_converted_and_left_alone(route):
    values = np.array([[0, 9], [1, 9], [2, 9]], dtype=np.int32)[:, 0]
    weights = np.array([0.5, 1.0, 2.0], dtype=np.float32)
    np.testing.assert_array_equal(route(values, weights, 0.0, 1.0, 3, 0), [[0.5, 1.0, 2.0]])
    np.testing.assert_array_equal(weights, [0.5, 1.0, 2.0])


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(([0.0, 1.0], [1.0], 0.0, 1.0, 3, 1), id="lengths"),
        pytest.param(([[0.0]], [[1.0]], 0.0, 1.0, 3, 1), id="dimensions"),
        pytest.param((0.0, 1.0, 0.0, 1.0, 3, 1), id="scalars"),
        pytest.param(([0.0], [1.0], 0.0, 0.0, 3, 1), id="zero spacing"),
        pytest.param(([0.0], [1.0], 0.0, -1.0, 3, 1), id="negative spacing"),
        pytest.param(([0.0], [1.0], 0.0, inf, 3, 1), id="infinite spacing"),
        pytest.param(([0.0], [1.0], nan, 1.0, 3, 1), id="start"),
        pytest.param(([0.0], [1.0], 0.0, 1.0, 0, 1), id="no nodes"),
        pytest.param(([0.0], [1.0], 0.0, 1.0, 3, -1), id="negative order"),
    ],
)
def test_what_makes_no_sense_is_refused(route, arguments):
    with pytest.raises(ValueError):
        route(*arguments)


@needs_fortran
@given(
    # Multiples of a quarter of the spacing put values on nodes, on midpoints and on the borders of the grid.
    values=st.lists(st.integers(-8, 60).map(lambda n: n / 4) | st.floats(-3.0, 15.0) | st.floats(), max_size=60),
    start=st.sampled_from([0.0, 0.25, -1.5, 0.1]),
    spacing=st.sampled_from([1.0, 0.5, 0.1]),
    n_nodes=st.integers(1, 20),
    max_order=st.integers(0, 8),
    seed=st.integers(0, 2**32 - 1),
)
def test_both_routes_agree(values, start, spacing, n_nodes, max_order, seed):
    weights = np.random.default_rng(seed).normal(size=len(values))
    arguments = (np.array(values, dtype=float), weights, start, spacing, n_nodes, max_order)
    np.testing.assert_allclose(
        scatter_moments(*arguments),
        scatter_moments_numpy(*arguments),
        rtol=1e-13,
        atol=1e-13 * max(1.0, abs(weights).sum()),
    )


@pytest.mark.parametrize("route", ROUTES)
def test_threads_do_not_meet(route):
    rng = np.random.default_rng(3)
    inputs = [(rng.normal(size=20_000), rng.uniform(size=20_000), -5.0, 0.01, 1001, 5) for _ in range(16)]
    alone = [route(*arguments) for arguments in inputs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda arguments: route(*arguments), inputs))
    np.testing.assert_array_equal(together, alone)

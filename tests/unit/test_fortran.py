"""The compiled kernels and their NumPy twins: the same rules, the same numbers."""

from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from math import floor, inf, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sorep._fortran.eigen
from sorep._fortran import (
    ACTIVE,
    KERNELS,
    each_eigenvalues,
    each_eigenvalues_numpy,
    pencil_eigenvalues,
    pencil_eigenvalues_numpy,
    scatter_moments,
    scatter_moments_numpy,
    why_inactive,
)
from sorep._fortran.load import Kernel

moments, eigen = KERNELS["density of states"], KERNELS["eigenvalues"]
needs_fortran = pytest.mark.skipif(not moments.active, reason=moments.why_inactive)
ROUTES = [
    pytest.param(scatter_moments_numpy, id="numpy"),
    pytest.param(scatter_moments, id="fortran", marks=needs_fortran),
]


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
    for kernel in KERNELS.values():
        assert bool(kernel.why_inactive) != kernel.active
        assert ("NumPy" in kernel.route) != kernel.active


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


@pytest.fixture(params=["baseline", "AVX2"])
def eigen_kernel(request, monkeypatch):
    """Each form of the kernel for eigenvalues that was built and runs here."""
    if not eigen.active:
        pytest.skip(eigen.why_inactive)
    if request.param == "AVX2" and eigen.instructions != "AVX2":
        pytest.skip("this processor or this build has no AVX2")
    suffix = "_avx2" if request.param == "AVX2" else ""
    kernel = Kernel(import_module(f"sorep._fortran._eigen{suffix}"), instructions=request.param)
    monkeypatch.setattr(sorep._fortran.eigen, "KERNEL", kernel)


def pencils(n, n_k, dtype, seed=0):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n_k, n, n)).astype(dtype)
    if dtype is complex:
        a.imag, b.imag = rng.normal(size=(2, n_k, n, n))
    return a + a.conj().transpose(0, 2, 1), b @ b.conj().transpose(0, 2, 1) + n * np.eye(n)


@pytest.mark.parametrize("dtype", [float, complex])
class TestEigenvalues:
    def test_both_routes_agree_on_pencils(self, eigen_kernel, dtype):
        for n in [*range(1, 26), 46, 63, 100]:
            for n_k in (1, 3, 4, 17):
                a, s = pencils(n, n_k, dtype, seed=n)
                for overlap in (s, None):
                    found, bound = pencil_eigenvalues(a, overlap)
                    expected, expected_bound = pencil_eigenvalues_numpy(a, overlap)
                    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * abs(expected).max())
                    np.testing.assert_allclose(bound, expected_bound, rtol=1e-12)

    def test_both_routes_agree_on_matrices(self, eigen_kernel, dtype):
        for n in [*range(1, 26), 63, 64, 130]:
            a, _ = pencils(n, 3, dtype, seed=n)
            expected = each_eigenvalues_numpy(a, 3, n)
            for matrices in (a, (matrix.T for matrix in a)):  # rows or columns first
                found = each_eigenvalues(matrices, 3, n)
                np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * abs(expected).max())

    def test_a_result_does_not_depend_on_its_neighbours(self, eigen_kernel, dtype):
        for n in (1, 2, 7, 18, 33):
            a, s = pencils(n, 37, dtype)
            s[5] = -s[5]
            a[11] = nan
            a[19] *= 1e9
            a[23] = 0
            together, bounds = pencil_eigenvalues(a, s)
            for k in range(37):
                alone, bound = pencil_eigenvalues(a[k : k + 1], s[k : k + 1])
                np.testing.assert_array_equal(together[k], alone[0])
                np.testing.assert_array_equal(bounds[k], bound[0])
            shifted, _ = pencil_eigenvalues(a[3:], s[3:])
            np.testing.assert_array_equal(shifted, together[3:])

    @pytest.mark.parametrize("route", [pencil_eigenvalues, pencil_eigenvalues_numpy])
    def test_what_cannot_be_solved_is_said(self, eigen_kernel, route, dtype):
        a, s = pencils(6, 7, dtype)
        s[1] = -s[1]
        s[2, 3, 3] = nan
        a[3, 4, 1] = a[3, 1, 4] = nan
        a[5, 0, 0] = inf
        found, bound = route(a, s)
        np.testing.assert_array_equal(np.isnan(found).all(axis=1), [False, True, True, True, False, True, False])
        np.testing.assert_array_equal(np.isnan(found).any(axis=1), np.isnan(found).all(axis=1))
        np.testing.assert_array_equal(bound > 0, [True, False, False, True, True, True, True])

    @pytest.mark.parametrize("route", [each_eigenvalues, each_eigenvalues_numpy])
    def test_a_large_matrix_that_is_not_finite_is_said(self, eigen_kernel, route, dtype):
        a, _ = pencils(40, 3, dtype)
        a[1, 30, 12] = a[1, 12, 30] = nan
        np.testing.assert_array_equal(np.isnan(route(a, 3, 40)[:, 0]), [False, True, False])

    def test_the_bound_is_one(self, eigen_kernel, dtype):
        _, s = pencils(12, 6, dtype)
        s -= 11 * np.eye(12)
        smallest = np.linalg.eigvalsh(s)[:, 0]
        assert (smallest > 0).all()
        for route in (pencil_eigenvalues, pencil_eigenvalues_numpy):
            _, bound = route(s, s)
            assert (bound <= smallest).all()
            assert (bound >= smallest / 12).all()

    @pytest.mark.parametrize("route", [pencil_eigenvalues, pencil_eigenvalues_numpy])
    def test_shapes_that_make_no_sense_are_refused(self, eigen_kernel, route, dtype):
        a, s = pencils(4, 3, dtype)
        for arguments in ((a[0], s[0]), (a, s[:2]), (a[:, :3], s[:, :3]), (a[:, :3], None)):
            with pytest.raises(ValueError):
                route(*arguments)
        for each in (each_eigenvalues, each_eigenvalues_numpy):
            with pytest.raises(ValueError):
                each(a, 3, 5)
            with pytest.raises(ValueError):
                each(a, 2, 4)

    def test_threads_do_not_meet(self, eigen_kernel, dtype):
        problems = [pencils(14, 1 + seed % 9, dtype, seed) for seed in range(16)]
        alone = [pencil_eigenvalues(*problem)[0] for problem in problems]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda problem: pencil_eigenvalues(*problem)[0], problems))
        for found, expected in zip(together, alone, strict=True):
            np.testing.assert_array_equal(found, expected)

"""Densities of states: the fast routes against the double loop of the definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.integrate import quad

from sorep.dos import binned_density_of_states, density_of_states
from sorep.errors import FeatureError
from sorep.smearing import COLD, GAUSSIAN, SMEARINGS, Smearing

Floats = NDArray[np.float64]

every = pytest.mark.parametrize("smearing", SMEARINGS.values(), ids=list(SMEARINGS))
# Spacings in widths, on both sides of every change of route: 0.22 (a finer inner grid), 3.52 (visiting).
spacings = pytest.mark.parametrize(
    "spacing", [0.003, 0.1, 0.2199, 0.2201, 0.3, 0.45, 1.0, 2.0, 3.5, 3.53, 8.0], ids=lambda s: f"h/w={s}"
)
common = settings(derandomize=True, deadline=None, max_examples=40)


def by_definition(energies: Floats, eigenvalues: Floats, weights: Floats, smearing: Smearing, width: float) -> Floats:
    total = np.zeros(len(energies))
    for eigenvalue, weight in zip(eigenvalues, weights, strict=True):
        total += weight * smearing.delta((energies - eigenvalue) / width) / width
    return total


def bins_by_definition(edges: Floats, eigenvalues: Floats, weights: Floats, smearing: Smearing, width: float) -> Floats:
    below = np.zeros(len(edges))
    for eigenvalue, weight in zip(eigenvalues, weights, strict=True):
        below += weight * smearing.occupation((edges - eigenvalue) / width)
    return np.diff(below) / np.diff(edges)


def levels(low: float, high: float, n: int = 300, seed: int = 0) -> tuple[Floats, Floats]:
    """Eigenvalues inside and around a grid, clusters and doublets among them, with positive weights."""
    rng = np.random.default_rng(seed)
    spread = rng.uniform(low - 0.3 * (high - low), high + 0.3 * (high - low), n)
    cluster = np.full(n // 10, 0.3 * low + 0.7 * high)
    eigenvalues = np.concatenate([spread, cluster, spread[:5]])
    return eigenvalues, rng.uniform(0.01, 1.0, len(eigenvalues))


def assert_same(
    found: Floats, expected: Floats, weights: Floats, smearing: Smearing, width: float, rounding: float = 0.0
) -> None:
    # A coarse grid may miss every peak: the height of one smeared level counts as much as the grid's maximum.
    peak = weights.max(initial=0.0) * np.abs(smearing.delta(np.linspace(-2, 2, 81))).max() / width
    scale = max(np.abs(expected).max(initial=0.0), peak)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * scale + rounding)


@every
@spacings
class TestBothRoutes:
    def test_points(self, smearing: Smearing, spacing: float) -> None:
        width, n = 0.07, 181
        energies = -3.0 + spacing * width * np.arange(n)
        eigenvalues, weights = levels(energies[0], energies[-1])
        # The hardest offsets: half-way between two nodes, and on one.
        eigenvalues[:3] = energies[50] + spacing * width * np.array([0.5, 0.25, 0.0])
        found = density_of_states(energies, eigenvalues, weights, smearing, width)
        assert_same(found, by_definition(energies, eigenvalues, weights, smearing, width), weights, smearing, width)

    def test_one_level_at_the_hardest_offset(self, smearing: Smearing, spacing: float) -> None:
        energies = spacing * np.arange(60.0)
        eigenvalues, weights = np.array([energies[30] + 0.5 * spacing]), np.ones(1)
        found = density_of_states(energies, eigenvalues, weights, smearing, 1.0)
        assert_same(found, by_definition(energies, eigenvalues, weights, smearing, 1.0), weights, smearing, 1.0)

    def test_bins(self, smearing: Smearing, spacing: float) -> None:
        width, n = 0.07, 90
        edges = -3.0 + spacing * width * np.arange(n + 1)
        eigenvalues, weights = levels(edges[0], edges[-1])
        found = binned_density_of_states(edges[0], edges[-1], n, eigenvalues, weights, smearing, width)
        expected = bins_by_definition(edges, eigenvalues, weights, smearing, width)
        # The definition takes differences of cumulative counts, which cost digits where bins are narrow.
        rounding = 4 * np.finfo(float).eps * weights.sum() / (spacing * width)
        assert_same(found, expected, weights, smearing, width, rounding)

    def test_the_order_of_levels_does_not_matter(self, smearing: Smearing, spacing: float) -> None:
        energies = spacing * np.arange(50.0)
        eigenvalues, weights = levels(energies[0], energies[-1])
        order = np.random.default_rng(1).permutation(len(weights))
        one = density_of_states(energies, eigenvalues, weights, smearing, 1.0)
        other = density_of_states(energies, eigenvalues[order], weights[order], smearing, 1.0)
        assert_same(one, other, weights, smearing, 1.0)


@every
@given(
    seed=st.integers(0, 10**6),
    n_points=st.integers(1, 200),
    spacing=st.floats(0.01, 6.0),
    start=st.floats(-200, 200),
    width=st.floats(1e-3, 10),
)
@common
def test_any_uniform_grid(
    smearing: Smearing, seed: int, n_points: int, spacing: float, start: float, width: float
) -> None:
    energies = np.linspace(start, start + (n_points - 1) * spacing * width, n_points)
    eigenvalues, weights = levels(energies[0], energies[-1] + width, n=40, seed=seed)
    found = density_of_states(energies, eigenvalues, weights, smearing, width)
    expected = by_definition(energies, eigenvalues, weights, smearing, width)
    # Differences of energies carry the rounding of the energies themselves.
    scale = by_definition(energies, eigenvalues, weights, GAUSSIAN, width).max() + weights.max() / width
    np.testing.assert_allclose(found, expected, rtol=0, atol=scale * (1e-12 + 1e-15 * abs(start) / width))


@every
@given(seed=st.integers(0, 10**6), kind=st.sampled_from(["random", "logarithmic", "descending", "repeated", "single"]))
@common
def test_custom_grids(smearing: Smearing, seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    energies = {
        "random": rng.uniform(-5, 5, 70),
        "logarithmic": np.geomspace(0.01, 5, 70),
        "descending": np.linspace(5, -5, 70),
        "repeated": np.repeat(rng.uniform(-5, 5, 10), 3),
        "single": rng.uniform(-5, 5, 1),
    }[kind]
    eigenvalues, weights = levels(-5, 5, n=60, seed=seed)
    found = density_of_states(energies, eigenvalues, weights, smearing, 0.2)
    assert_same(found, by_definition(energies, eigenvalues, weights, smearing, 0.2), weights, smearing, 0.2)


@every
@pytest.mark.parametrize("width", [0.02, 0.3])
def test_the_integral_is_the_number_of_states(smearing: Smearing, width: float) -> None:
    eigenvalues, weights = levels(-3, 3)
    margin = smearing.reach * width
    low, high = eigenvalues.min() - margin, eigenvalues.max() + margin
    energies = np.linspace(low, high, 6001)
    density = density_of_states(energies, eigenvalues, weights, smearing, width)
    # The trapezoidal rule is exact to rounding for analytic functions that vanish at both ends.
    assert density.sum() * (energies[1] - energies[0]) == pytest.approx(weights.sum(), rel=1e-11)
    for n_bins in (1, 7, 1000):
        bins = binned_density_of_states(low, high, n_bins, eigenvalues, weights, smearing, width)
        assert bins.sum() * (high - low) / n_bins == pytest.approx(weights.sum(), rel=1e-12)


@every
def test_bins_are_averages_over_their_width(smearing: Smearing) -> None:
    eigenvalues, weights = np.array([-0.4, 0.1, 0.13]), np.array([1.0, 0.5, 2.0])
    edges = np.linspace(-1, 1, 9)
    bins = binned_density_of_states(-1, 1, 8, eigenvalues, weights, smearing, 0.15)

    def density(energy: float) -> float:
        return float(by_definition(np.array([energy]), eigenvalues, weights, smearing, 0.15)[0])

    for value, low, high in zip(bins, edges[:-1], edges[1:], strict=True):
        assert value == pytest.approx(quad(density, low, high, epsabs=1e-12)[0] / (high - low), abs=1e-10)


def test_bins_wider_than_everything_count_states() -> None:
    bins = binned_density_of_states(0, 300, 3, np.array([50.0, 150.0, 160.0, 1000.0]), np.ones(4), GAUSSIAN, 0.01)
    np.testing.assert_allclose(bins * 100, [1, 2, 0], atol=1e-14)


def test_fine_bins_and_points_agree() -> None:
    eigenvalues, weights = levels(-1, 1)
    edges = np.linspace(-1, 1, 4001)
    bins = binned_density_of_states(-1, 1, 4000, eigenvalues, weights, COLD, 0.1)
    points = density_of_states(0.5 * (edges[1:] + edges[:-1]), eigenvalues, weights, COLD, 0.1)
    np.testing.assert_allclose(bins, points, atol=1e-4 * points.max())


class TestCutoff:
    @every
    @pytest.mark.parametrize("cutoff", [0.5, 8**0.5, 6.0])
    def test_levels_beyond_it_are_left_out(self, smearing: Smearing, cutoff: float) -> None:
        energies = np.linspace(-2, 2, 201)
        eigenvalues, weights = levels(-2, 2)
        width = 0.1
        x = (energies[:, None] - eigenvalues) / width
        expected = np.where(np.abs(x) <= cutoff, smearing.delta(x), 0) @ weights / width
        found = density_of_states(energies, eigenvalues, weights, smearing, width, cutoff=cutoff)
        assert_same(found, expected, weights, smearing, width)

    def test_it_makes_a_difference_only_where_it_should(self) -> None:
        energies = np.linspace(-2, 2, 201)
        eigenvalues, weights = levels(-2, 2)
        exact = density_of_states(energies, eigenvalues, weights, GAUSSIAN, 0.1)
        wide = density_of_states(energies, eigenvalues, weights, GAUSSIAN, 0.1, cutoff=9.0)
        narrow = density_of_states(energies, eigenvalues, weights, GAUSSIAN, 0.1, cutoff=8**0.5)
        np.testing.assert_allclose(wide, exact, atol=1e-11)
        assert np.abs(narrow - exact).max() > 1e-4


def test_cold_smearing_leans_the_right_way() -> None:
    """Weight above the level is negative far out: occupations overshoot one below the Fermi energy, as in pw.x."""
    energies = np.linspace(-0.5, 0.5, 201)
    density = density_of_states(energies, np.zeros(1), np.ones(1), COLD, 0.1)
    assert density[energies < 0].min() > 0
    assert density[energies > 0.15].max() < 0
    assert -0.05 < energies[density.argmax()] < 0.1
    bins = binned_density_of_states(-0.5, 0.5, 200, np.zeros(1), np.ones(1), COLD, 0.1)
    assert np.cumsum(bins).max() * 0.005 > 1.01


@pytest.mark.parametrize("spacing", [0.01, 10.0])
def test_empty_ranges(spacing: float) -> None:
    energies = 1000 + spacing * np.arange(20)
    eigenvalues, weights = levels(-1, 1)
    np.testing.assert_array_equal(density_of_states(energies, eigenvalues, weights, GAUSSIAN, 0.1), 0)
    np.testing.assert_array_equal(density_of_states(energies, np.empty(0), np.empty(0), GAUSSIAN, 0.1), 0)
    np.testing.assert_array_equal(binned_density_of_states(1000, 1001, 5, eigenvalues, weights, GAUSSIAN, 0.1), 0)
    assert density_of_states(np.empty(0), eigenvalues, weights, GAUSSIAN, 0.1).shape == (0,)


def test_more_pairs_than_are_visited_at_once() -> None:
    rng = np.random.default_rng(0)
    eigenvalues, weights = rng.uniform(-1, 1, 30_000), rng.uniform(size=30_000)
    energies = np.sort(rng.uniform(-1.5, 1.5, 101))  # not uniform: every energy sees most levels
    found = density_of_states(energies, eigenvalues, weights, GAUSSIAN, 0.3)
    uniform = density_of_states(np.linspace(-1.5, 1.5, 3001), eigenvalues, weights, GAUSSIAN, 0.3)
    np.testing.assert_allclose(
        found, np.interp(energies, np.linspace(-1.5, 1.5, 3001), uniform), atol=2e-6 * uniform.max()
    )


@pytest.mark.parametrize("width", [0.0, -0.1, np.nan, np.inf])
def test_widths_that_make_no_sense(width: float) -> None:
    for call in (
        lambda: density_of_states(np.arange(3.0), np.zeros(1), np.ones(1), GAUSSIAN, width),
        lambda: binned_density_of_states(0, 1, 3, np.zeros(1), np.ones(1), GAUSSIAN, width),
    ):
        with pytest.raises(FeatureError) as caught:
            call()
        assert caught.value.code == "bad-width"


@pytest.mark.parametrize(("eigenvalue", "weight"), [(np.nan, 1.0), (np.inf, 1.0), (0.0, np.nan)])
def test_non_finite_levels(eigenvalue: float, weight: float) -> None:
    with pytest.raises(FeatureError) as caught:
        density_of_states(np.arange(3.0), np.array([eigenvalue]), np.array([weight]), GAUSSIAN, 0.1)
    assert caught.value.code == "non-finite-eigenvalues"

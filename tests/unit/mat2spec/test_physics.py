"""Heat capacities and mean frequencies against Einstein, Debye and pymatgen; gaps below the edge by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.constants import R, physical_constants
from scipy.integrate import quad

from sorep.errors import Mat2SpecError
from sorep.mat2spec.physics import Gap, GapRule, gap_ceiling, gaps_below, heat_capacity, mean_frequency, valence_gap

KELVIN = 100 * physical_constants["second radiation constant"][0]  # of one wavenumber
FINE = (np.arange(20_000) + 0.5) * 0.05  # 1/cm, up to 1000
EDGES = np.linspace(-4.0, 4.0, 129)  # 1/16 eV, exact in binary


def debye(cutoff: float) -> np.ndarray:
    return FINE**2 * (cutoff > FINE)


def edos(*gaps: tuple[float, float], inside: float = 0.0, outside: float = 5.0) -> np.ndarray:
    middles = 0.5 * (EDGES[1:] + EDGES[:-1])
    values = np.full(len(middles), outside)
    for lower, upper in gaps:
        values[(middles > lower) & (middles < upper)] = inside
    return values


class TestPhonons:
    @pytest.mark.parametrize(("frequency", "temperature"), [(100.0, 300.0), (800.0, 300.0), (400.0, 77.0)])
    def test_one_frequency_is_the_einstein_crystal(self, frequency, temperature):
        x = KELVIN * frequency / temperature
        expected = 3 * R * x**2 * np.exp(x) / np.expm1(x) ** 2
        found = heat_capacity([[7.0]], np.array([frequency]), temperature)
        assert found.shape == (1,)
        assert found == pytest.approx(expected, rel=1e-12)
        assert mean_frequency([[7.0]], np.array([frequency])) == pytest.approx(frequency)

    @pytest.mark.parametrize("temperature", [50.0, 300.0])
    def test_a_quadratic_density_is_the_debye_crystal(self, temperature):
        top = KELVIN * 350.0 / temperature
        integral, _ = quad(lambda x: x**4 * np.exp(x) / np.expm1(x) ** 2, 0, top)
        assert heat_capacity(debye(350.0), FINE, temperature) == pytest.approx(9 * R * integral / top**3, rel=1e-4)
        assert mean_frequency(debye(350.0), FINE) == pytest.approx(0.75 * 350.0, rel=1e-4)

    def test_the_debye_crystal_obeys_the_cubic_law_and_that_of_dulong_and_petit(self):
        cold, colder = (float(heat_capacity(debye(900.0), FINE, t)) for t in (20.0, 10.0))
        assert cold / colder == pytest.approx(8.0, rel=1e-3)
        assert heat_capacity(debye(900.0), FINE, 1e5) == pytest.approx(3 * R, rel=1e-4)

    def test_agrees_with_pymatgen(self):
        from pymatgen.phonon.dos import PhononDos

        terahertz = FINE * physical_constants["speed of light in vacuum"][0] * 100 * 1e-12
        density = np.exp(-(((FINE - 300) / 60) ** 2))
        step = terahertz[1] - terahertz[0]
        of_three_modes = PhononDos(terahertz, 3 * density / (density.sum() * step))
        assert heat_capacity(density, FINE) == pytest.approx(of_three_modes.cv(300.0), rel=1e-4)

    def test_scale_and_imaginary_frequencies_do_not_count(self):
        frequencies = np.arange(-300.0, 1001.0, 20.0)
        density = np.where(frequencies >= 0, np.exp(-(((frequencies - 200) / 80) ** 2)), 0.0)
        unstable = np.where(frequencies < 0, 0.3, 5 * density)
        both = np.stack([density, unstable])
        for quantity in (heat_capacity, mean_frequency):
            stable, other = quantity(both, frequencies)
            assert stable == pytest.approx(other, rel=1e-12)

    @pytest.mark.parametrize("density", [[0.0, 0.0, 0.0], [1.0, -0.1, 1.0], [1.0, np.nan, 1.0], [1.0, 1.0]])
    def test_refuses_what_is_no_density(self, density):
        with pytest.raises(Mat2SpecError) as caught:
            mean_frequency(density, np.array([-10.0, 10.0, 30.0]))
        assert caught.value.code == "bad-phonon-spectrum"

    def test_refuses_a_temperature_of_zero(self):
        with pytest.raises(Mat2SpecError) as caught:
            heat_capacity([1.0], np.array([10.0]), 0.0)
        assert caught.value.code == "bad-temperature"


class TestGaps:
    def test_finds_the_gap_at_edges_of_bins(self):
        assert valence_gap(edos((-2.5, -0.5)), EDGES) == Gap(-2.5, -0.5)

    @pytest.mark.parametrize(
        ("lower", "upper", "is_one"),
        [
            (-2.0, -1.0, True),  # the lowest end that is allowed, the smallest width
            (-2.0, -1.0625, False),  # ends one bin too low
            (-1.25, -0.25, True),  # the highest end that is allowed
            (-1.25, -0.1875, False),  # one bin too high
            (-1.4375, -0.5, False),  # one bin too narrow
            (-4.0, -0.5, True),  # as far as is seen
            (-1.5, 0.5, False),  # reaches over the edge
        ],
    )
    def test_each_rule_at_its_limit(self, lower, upper, is_one):
        assert (valence_gap(edos((lower, upper)), EDGES) is not None) == is_one

    def test_the_threshold_itself_is_no_gap(self):
        assert valence_gap(edos((-2.5, -0.5), inside=1.0), EDGES) is None
        assert valence_gap(edos((-2.5, -0.5), inside=np.nextafter(1.0, 0.0)), EDGES) is not None

    def test_a_second_wide_gap_below_disqualifies_a_narrow_one_does_not(self):
        assert valence_gap(edos((-3.5, -2.25), (-2.0, -0.5)), EDGES) is None
        assert len(gaps_below(edos((-3.5, -2.25), (-2.0, -0.5)), EDGES)) == 2
        assert valence_gap(edos((-3.5, -3.0), (-2.0, -0.5)), EDGES) == Gap(-2.0, -0.5)

    def test_one_bin_above_the_threshold_parts_a_gap(self):
        parted = edos((-1.75, -0.25))
        parted[np.searchsorted(EDGES, -1.0)] = 1.5
        assert valence_gap(parted, EDGES) is None

    def test_what_lies_above_the_edge_does_not_count(self):
        assert valence_gap(edos((-2.5, -0.5), (1.0, 3.0)), EDGES) == Gap(-2.5, -0.5)

    def test_inexact_edges_do_not_change_the_answer(self):
        edges = np.linspace(-4.0, 4.0, 81)  # steps of 0.1 eV, which binary numbers miss
        middles = 0.5 * (edges[1:] + edges[:-1])
        values = np.where((middles > -2.0) & (middles < -1.0), 0.0, 3.0)
        assert valence_gap(values, edges) is not None

    def test_the_ceiling_is_the_threshold_at_which_a_gap_appears(self):
        values = np.random.default_rng(0).uniform(0.5, 3.0, 128)
        ceiling = gap_ceiling(values, EDGES)

        def could_be(threshold: float) -> bool:
            low = np.r_[False, values < threshold]
            return any(low[1 + end - 16 : 1 + end].all() for end in range(16, 129) if -1.0 <= EDGES[end] <= -0.25)

        assert not could_be(ceiling)
        assert could_be(np.nextafter(ceiling, np.inf))

    def test_the_rule_can_be_changed(self):
        rule = GapRule(threshold=2.0, width=0.5, lowest=-3.0, highest=-2.0)
        assert valence_gap(edos((-3.0, -2.25), inside=1.5), EDGES, rule) == Gap(-3.0, -2.25)
        assert gap_ceiling(edos(), EDGES, GapRule(width=9.0)) == np.inf

    def test_refuses_spectra_that_do_not_fit(self):
        for values, edges in ((edos()[:-1], EDGES), (edos() * np.nan, EDGES), (edos(), EDGES[::-1])):
            with pytest.raises(Mat2SpecError) as caught:
                valence_gap(values, edges)
            assert caught.value.code == "bad-spectrum"

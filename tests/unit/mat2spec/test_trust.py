"""Errors of test crystals beside what they may depend on."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

pytest.importorskip("torch")

from sorep.mat2spec.trust import LABELS, correlations, fourier_bands, trust_figure, trust_table


@pytest.fixture
def parts(small):
    is_new = np.char.startswith(small.ids, "Li") | np.char.startswith(small.ids, "CsBr-r")
    return small.take(~is_new), small.take(is_new)


@pytest.mark.parametrize(("wave", "band"), [(1, 0), (7, 0), (8, 1), (15, 2), (21, 3), (32, 4)])
def test_a_wave_is_in_the_band_of_its_frequency(wave, band):
    x = np.arange(64) / 64
    shares = fourier_bands((3.0 + np.cos(2 * np.pi * wave * x))[None])
    assert shares.argmax() == band
    np.testing.assert_allclose(shares.max(), 1.0, atol=1e-9)


def test_the_scale_does_not_count_and_a_constant_has_no_bands():
    spectra = np.random.default_rng(0).random((3, 51))
    np.testing.assert_allclose(fourier_bands(7 * spectra), fourier_bands(spectra))
    np.testing.assert_allclose(fourier_bands(spectra).sum(axis=1), 1.0)
    np.testing.assert_array_equal(fourier_bands(np.full((1, 51), 0.3)), 0.0)


def test_the_table_by_hand(parts):
    train, test = parts
    predicted = np.roll(test.spectra, 1, axis=1)
    table = trust_table(test, predicted, train.inputs).set_index("id")
    row = table.loc["LiF-rocksalt"]
    assert (row["n_elements"], row["n_sites"], row["n_same_elements"]) == (2, 2, 0)
    assert row["n_same_space_group"] == 11  # rock salt of 15 formulas, without Li (3) and CsBr
    assert row["composition_distance"] == pytest.approx(np.sqrt(0.5))  # NaF: half of the atoms are others
    assert (table.loc["CsBr-rocksalt", "composition_distance"], table.loc["CsBr-rocksalt", "n_same_elements"]) == (0, 1)
    at = test.ids.tolist().index("LiF-rocksalt")
    expected = wasserstein_distance(test.energies, test.energies, predicted[at], test.spectra[at])
    assert row["wd"] == pytest.approx(expected)
    assert row["mae"] == pytest.approx(np.abs(predicted[at] - test.spectra[at]).mean() / test.spectra[at].sum())
    assert (table["sorep_distance"] >= 0).all()


def test_scales_of_predictions_do_not_count(parts):
    train, test = parts
    predicted = np.roll(test.spectra, 1, axis=1)
    first, second = (trust_table(test, scale * predicted, train.inputs) for scale in (1.0, 5.0))
    np.testing.assert_allclose(first["mae"], second["mae"])


def test_correlations_find_what_the_error_follows(parts):
    train, test = parts
    table = trust_table(test, np.roll(test.spectra, 1, axis=1), train.inputs)
    table["composition_distance"] = table["wd"] ** 3
    found = correlations(table).set_index(["descriptor", "error"])
    assert found.loc[("composition_distance", "wd"), "spearman"] == pytest.approx(1.0)
    assert np.isnan(found.loc[("n_elements", "wd"), "spearman"])  # all have two
    assert set(found.index.get_level_values("descriptor")) == set(LABELS)


def test_the_figure_has_a_panel_for_each_descriptor(parts, tmp_path):
    train, test = parts
    table = trust_table(test, np.roll(test.spectra, 1, axis=1), train.inputs)
    figure = trust_figure(table, unit="cm^-1")
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_xlabel() for axis in shown] == list(LABELS.values())
    figure.savefig(tmp_path / "trust.png")
    assert (tmp_path / "trust.png").stat().st_size > 10_000

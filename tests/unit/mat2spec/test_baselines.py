"""Rules that predict without a network, on thirty crystals, and by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sorep.errors import Mat2SpecError

pytest.importorskip("torch")

from sorep.mat2spec.baselines import composition_distances, input_itself, mean_spectrum, nearest_composition, ridge


@pytest.fixture
def parts(small):
    """Training crystals of ten formulas, and the others."""
    is_new = np.isin(small.formulas, np.unique(small.formulas)[::3])
    return small.take(~is_new), small.take(is_new)


def test_the_mean_is_that_of_the_training_part(parts):
    train, test = parts
    predicted = mean_spectrum(train, test.inputs)
    assert predicted.shape == test.spectra.shape
    np.testing.assert_allclose(predicted, np.broadcast_to(train.spectra.mean(axis=0), predicted.shape))


def test_of_equally_near_compositions_the_mean_is_taken(small):
    """Both polymorphs of a formula have its composition, in whatever order they come."""
    for order in (np.arange(len(small)), np.arange(len(small))[::-1]):
        known = small.take(order)
        predicted = nearest_composition(known, small.inputs)
        for row, formula in enumerate(small.formulas):
            np.testing.assert_allclose(predicted[row], small.spectra[small.formulas == formula].mean(axis=0))


def test_distances_of_compositions_by_hand(small):
    names = small.ids.tolist()
    some = small.inputs.take(np.array([names.index(f"{one}-rocksalt") for one in ("LiF", "LiCl", "NaCl")]))
    np.testing.assert_allclose(
        composition_distances(some, some), np.sqrt([[0, 0.5, 1.0], [0.5, 0, 0.5], [1.0, 0.5, 0]]), atol=1e-12
    )


def test_the_ridge_finds_a_linear_law(parts):
    train, test = parts
    law = np.random.default_rng(0).uniform(0.5, 1.0, (6, 12))
    train = replace(train, spectra=train.inputs.sorep @ law)
    expected = test.inputs.sorep @ law
    error = np.linalg.norm(ridge(train, test.inputs) - expected)
    assert error < 0.01 * np.linalg.norm(expected - mean_spectrum(train, test.inputs))


def test_the_ridge_gives_no_negative_densities(parts):
    train, test = parts
    train = replace(train, spectra=np.where(train.inputs.sorep[:, [0]] > 30, 1.0, 0.0) * train.spectra)
    assert ridge(train, test.inputs).min() == 0.0


def test_the_input_itself_is_a_prediction_only_on_the_grid_of_the_target(small):
    on_grid = replace(small, spectra=small.spectra[:, :6], energies=small.energies[:6])
    np.testing.assert_array_equal(input_itself(on_grid, small.inputs), small.inputs.sorep)
    with pytest.raises(Mat2SpecError) as caught:
        input_itself(small, small.inputs)
    assert caught.value.code == "other-grid"


@pytest.mark.parametrize("rule", [ridge, input_itself])
def test_rules_that_read_a_sorep_say_so(small, rule):
    without = replace(small, inputs=replace(small.inputs, sorep=None, parts=()))
    with pytest.raises(Mat2SpecError) as caught:
        rule(without, without.inputs)
    assert caught.value.code == "no-sorep"


def test_one_formula_is_too_few_for_the_ridge(small):
    one = small.take(small.formulas == small.formulas[0])
    with pytest.raises(Mat2SpecError) as caught:
        ridge(one, small.inputs)
    assert caught.value.code == "too-few-structures"

"""Scalings: fitted on training spectra only, and undone without loss."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sorep.errors import Mat2SpecError

pytest.importorskip("torch")

from sorep.mat2spec.scaling import Scaling

RNG = np.random.default_rng(0)
TRAIN = RNG.random((12, 5)) * [1, 10, 0, 3, 1] + [0, 0, 0, 2, 0]  # the third bin never varies
NEW = RNG.random((4, 5)) + 0.1


def test_standard_by_hand() -> None:
    scaling = Scaling.fit(TRAIN, "standard")
    scaled = scaling.transform(TRAIN)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-14)
    np.testing.assert_allclose(scaled.std(axis=0), [1, 1, 0, 1, 1])
    np.testing.assert_allclose(scaling.transform(NEW)[:, 1], (NEW[:, 1] - TRAIN[:, 1].mean()) / TRAIN[:, 1].std())


def test_a_bin_that_never_varies_stays_finite() -> None:
    constant = TRAIN.copy()
    constant[:, 2] = 0.1 + 0.2  # its deviation is rounding, not zero
    scaling = Scaling.fit(constant, "standard")
    assert np.abs(scaling.transform(constant)[:, 2]).max() < 1e-12
    np.testing.assert_allclose(scaling.inverse(scaling.transform(NEW)), NEW, atol=1e-14)
    everywhere = Scaling.fit(np.ones((3, 4)), "standard")
    np.testing.assert_array_equal(everywhere.transform(np.ones((1, 4))), 0)


def test_shapes_by_hand() -> None:
    y = np.array([[1.0, 3.0, 0.0], [2.0, 2.0, 4.0]])
    np.testing.assert_allclose(Scaling.fit(y, "sumnorm").transform(y), [[0.25, 0.75, 0], [0.25, 0.25, 0.5]])
    np.testing.assert_allclose(Scaling.fit(y, "maxnorm").transform(y), [[1 / 3, 1, 0], [0.5, 0.5, 1]])
    assert Scaling.fit(y, "sumnorm").sizes(y).tolist() == [4, 8]
    assert Scaling.fit(y, "maxnorm").sizes(y).tolist() == [3, 4]


@pytest.mark.parametrize("kind", ["standard", "sumnorm", "maxnorm"])
def test_round_trip(kind) -> None:
    scaling = Scaling.fit(TRAIN, kind)
    sizes = None if kind == "standard" else scaling.sizes(NEW)
    np.testing.assert_allclose(scaling.inverse(scaling.transform(NEW), sizes), NEW, rtol=1e-14)


@pytest.mark.parametrize("kind", ["standard", "sumnorm", "maxnorm"])
def test_stored_and_read_again(kind) -> None:
    scaling = Scaling.fit(TRAIN, kind)
    again = Scaling.from_state(json.loads(json.dumps(scaling.state())))
    assert again.state() == scaling.state()
    np.testing.assert_array_equal(again.transform(NEW), scaling.transform(NEW))


@pytest.mark.parametrize("kind", ["sumnorm", "maxnorm"])
def test_a_size_is_known_only_where_all_training_spectra_share_it(kind) -> None:
    with pytest.raises(Mat2SpecError, match="not its size") as caught:
        Scaling.fit(TRAIN, kind).inverse(NEW)
    assert caught.value.code == "unknown-size"
    normalised = 2 * Scaling.fit(TRAIN, kind).transform(TRAIN)
    scaling = Scaling.fit(normalised, kind)
    assert scaling.size == pytest.approx(2)
    np.testing.assert_allclose(scaling.inverse(scaling.transform(normalised)), normalised)


def test_what_is_fitted_does_not_change_with_other_spectra() -> None:
    scaling = Scaling.fit(TRAIN, "standard")
    before = scaling.state()
    scaling.transform(100 * NEW)
    scaling.inverse(NEW)
    assert scaling.state() == before
    assert scaling.state() != Scaling.fit(np.vstack([TRAIN, 100 * NEW]), "standard").state()


@pytest.mark.parametrize(
    ("spectra", "kind", "code"),
    [
        ([[1.0, 2.0]], "other", "unknown-scaling"),
        ([1.0, 2.0], "sumnorm", "malformed-spectra"),
        (np.zeros((0, 3)), "sumnorm", "malformed-spectra"),
        ([[1.0, np.nan]], "standard", "malformed-spectra"),
        ([[1.0, 1.0], [0.0, 0.0]], "sumnorm", "empty-spectrum"),
        ([[1.0, 1.0], [2.0, -0.1]], "maxnorm", "negative-spectrum"),
    ],
)
def test_refused(spectra, kind, code) -> None:
    with pytest.raises(Mat2SpecError) as caught:
        Scaling.fit(spectra, kind)
    assert caught.value.code == code


def test_refused_later() -> None:
    scaling = Scaling.fit(TRAIN, "standard")
    for call, code in (
        (lambda: scaling.transform(NEW[:, :3]), "malformed-spectra"),
        (lambda: scaling.inverse(NEW[:, :3]), "malformed-spectra"),
        (lambda: scaling.inverse(NEW, np.ones(4)), "unused-size"),
    ):
        with pytest.raises(Mat2SpecError) as caught:
            call()
        assert caught.value.code == code

"""Smearing functions: normalised, and each the derivative of its occupation."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from scipy.integrate import quad

from sorep.errors import UsageError
from sorep.smearing import COLD, FERMI_DIRAC, GAUSSIAN, METHFESSEL_PAXTON, SMEARINGS, Smearing, get_smearing

X = np.linspace(-7.0, 7.0, 141)

every = pytest.mark.parametrize("smearing", SMEARINGS.values(), ids=list(SMEARINGS))


def moment(smearing: Smearing, power: int) -> float:
    reach = smearing.reach
    return quad(lambda x: x**power * float(smearing.delta(np.array(x))), -reach, reach, epsabs=1e-13, limit=400)[0]


@pytest.mark.parametrize(
    ("smearing", "formula"),
    [
        (GAUSSIAN, lambda x: np.exp(-(x**2)) / np.sqrt(np.pi)),
        (METHFESSEL_PAXTON, lambda x: (1.5 - x**2) * np.exp(-(x**2)) / np.sqrt(np.pi)),
        (COLD, lambda x: (2 - 2**0.5 * x) * np.exp(-((x - 0.5**0.5) ** 2)) / np.sqrt(np.pi)),
        (FERMI_DIRAC, lambda x: 1 / (2 + 2 * np.cosh(x))),
    ],
    ids=["gaussian", "methfessel-paxton", "cold", "fermi-dirac"],
)
def test_formulas(smearing: Smearing, formula) -> None:
    np.testing.assert_allclose(smearing.delta(X), formula(X), atol=1e-15)


@every
def test_normalised(smearing: Smearing) -> None:
    assert moment(smearing, 0) == pytest.approx(1.0, abs=1e-12)


def test_moments_that_define_each() -> None:
    # The variance of a Gaussian of width w is w^2 / 2; order-1 Methfessel-Paxton and cold smearing have none, so that
    # parabolic bands keep their energy, and only cold smearing is asymmetric.
    assert moment(GAUSSIAN, 2) == pytest.approx(0.5, abs=1e-12)
    assert moment(METHFESSEL_PAXTON, 2) == pytest.approx(0.0, abs=1e-12)
    assert moment(COLD, 2) == pytest.approx(0.0, abs=1e-12)
    assert moment(FERMI_DIRAC, 2) == pytest.approx(np.pi**2 / 3, abs=1e-10)
    for smearing in (GAUSSIAN, METHFESSEL_PAXTON, FERMI_DIRAC):
        assert moment(smearing, 1) == pytest.approx(0.0, abs=1e-12)
    assert moment(COLD, 1) == pytest.approx(0.0, abs=1e-12)
    assert moment(COLD, 3) < -0.5


def test_only_cold_smearing_is_asymmetric_and_its_occupations_are_positive() -> None:
    for smearing in (GAUSSIAN, METHFESSEL_PAXTON, FERMI_DIRAC):
        np.testing.assert_allclose(smearing.delta(-X), smearing.delta(X), atol=1e-15)
        np.testing.assert_allclose(smearing.occupation(-X), 1 - smearing.occupation(X), atol=1e-15)
    assert METHFESSEL_PAXTON.occupation(X).min() < -0.01
    assert COLD.occupation(X).min() >= 0
    assert COLD.occupation(X).max() > 1.01
    assert COLD.delta(np.array(-2.0)) > 0 > COLD.delta(np.array(2.0))


@every
def test_occupation_runs_from_zero_to_one(smearing: Smearing) -> None:
    reach = smearing.reach
    far = np.array([-2 * reach, -reach, reach, 2 * reach])
    np.testing.assert_allclose(smearing.occupation(far), [0, 0, 1, 1], atol=1e-15)
    for order in range(11):
        np.testing.assert_allclose(smearing.derivative(order, far), 0, atol=1e-14)


@every
def test_occupation_is_the_integral_of_delta(smearing: Smearing) -> None:
    for x in (-3.0, -0.7, 0.0, 0.3, 1.5, 4.0):
        integral = quad(lambda y: float(smearing.delta(np.array(y))), -smearing.reach, x, epsabs=1e-13, limit=400)[0]
        assert float(smearing.occupation(np.array(x))) == pytest.approx(integral, abs=1e-12)


@every
@pytest.mark.parametrize("order", range(11))
def test_derivatives(smearing: Smearing, order: int) -> None:
    """Against central differences of the function one order below, of eighth order in h."""
    h = 0.02
    weights = {1: 4 / 5, 2: -1 / 5, 3: 4 / 105, 4: -1 / 280}

    def below(x: np.ndarray) -> np.ndarray:
        return smearing.occupation(x) if order == 0 else smearing.derivative(order - 1, x)

    difference = sum(c * (below(X + n * h) - below(X - n * h)) for n, c in weights.items()) / h
    scale = np.abs(smearing.derivative(order, X)).max()
    np.testing.assert_allclose(smearing.derivative(order, X), difference, atol=1e-8 * scale)
    if order == 0:
        np.testing.assert_array_equal(smearing.derivative(0, X), smearing.delta(X))


def test_fermi_dirac_does_not_overflow() -> None:
    x = np.array([-800.0, 800.0])
    np.testing.assert_array_equal(FERMI_DIRAC.occupation(x), [0, 1])
    np.testing.assert_array_equal(FERMI_DIRAC.derivative(3, x), [0, 0])


@every
def test_lookup(smearing: Smearing) -> None:
    assert get_smearing(smearing.name) is smearing
    assert pickle.loads(pickle.dumps(smearing)) == smearing


def test_unknown_names() -> None:
    with pytest.raises(UsageError, match="marzari") as caught:
        get_smearing("marzari")
    assert caught.value.code == "unknown-smearing"
    assert "cold" in caught.value.remedy

"""Smearing functions: broadened delta functions, their derivatives and their integrals.

With x = (E - e) / w, w in the sense of Quantum ESPRESSO's degauss (a Gaussian's standard deviation is w / sqrt 2):

    gaussian            d(x) = exp(-x^2) / sqrt(pi)
    methfessel-paxton   d(x) = (3/2 - x^2) exp(-x^2) / sqrt(pi)                  Phys. Rev. B 40, 3616 (1989), order 1
    cold                d(x) = (2 - sqrt(2) x) exp(-(x - 1/sqrt 2)^2) / sqrt(pi)   Phys. Rev. Lett. 82, 3296 (1999)
    fermi-dirac         d(x) = 1 / (2 + 2 cosh x)

The occupation of a level e at Fermi energy mu is the integral of d up to x = (mu - e) / w.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import NDArray
from scipy.special import erfc, expit

from sorep.errors import UsageError


class Smearing(ABC):
    """A normalised, broadened delta function of a dimensionless argument."""

    name: str
    reach: float
    """|x| beyond which the function and its derivatives vanish to double precision."""

    @abstractmethod
    def occupation(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Integral of `delta` from minus infinity to x."""

    @abstractmethod
    def derivative(self, order: int, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Derivative of `delta` of any order >= 0 at x."""

    def delta(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The broadened delta function at x."""
        return self.derivative(0, x)


@dataclass(frozen=True)
class _GaussianFamily(Smearing):
    """P(u) exp(-u^2) / sqrt(pi) with u = x - shift; derivatives stay in the family: P -> P' - 2 u P.

    The integral is erfc(-u) / 2 + Q(u) exp(-u^2) / sqrt(pi).
    """

    name: str
    polynomial: tuple[float, ...]
    integral: tuple[float, ...]
    shift: float = 0.0
    reach: float = 9.0

    def occupation(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        u = np.asarray(x, dtype=float) - self.shift
        return 0.5 * erfc(-u) + Polynomial(self.integral)(u) * np.exp(-(u**2)) / np.sqrt(np.pi)

    def derivative(self, order: int, x: NDArray[np.float64]) -> NDArray[np.float64]:
        u = np.asarray(x, dtype=float) - self.shift
        return _gaussian_polynomial(self.polynomial, order)(u) * np.exp(-(u**2)) / np.sqrt(np.pi)


@lru_cache
def _gaussian_polynomial(coefficients: tuple[float, ...], order: int) -> Polynomial:
    if order == 0:
        return Polynomial(coefficients)
    previous = _gaussian_polynomial(coefficients, order - 1)
    return previous.deriv() - Polynomial([0, 2]) * previous


@dataclass(frozen=True)
class _FermiDirac(Smearing):
    """d = f (1 - f) with f = 1 / (1 + exp(-x)); every derivative is a polynomial in f."""

    name: str = "fermi-dirac"
    reach: float = 42.0

    def occupation(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        return expit(np.asarray(x, dtype=float))

    def derivative(self, order: int, x: NDArray[np.float64]) -> NDArray[np.float64]:
        x = np.asarray(x, dtype=float)
        # d is even: evaluated where f is small, the polynomial loses no digits.
        sign = np.where(x > 0, (-1.0) ** order, 1.0)
        return sign * _fermi_polynomial(order)(expit(-np.abs(x)))


@lru_cache
def _fermi_polynomial(order: int) -> Polynomial:
    slope = Polynomial([0, 1, -1])
    return slope if order == 0 else _fermi_polynomial(order - 1).deriv() * slope


GAUSSIAN = _GaussianFamily("gaussian", (1.0,), (0.0,))
METHFESSEL_PAXTON = _GaussianFamily("methfessel-paxton", (1.5, 0.0, -1.0), (0.0, 0.5))
COLD = _GaussianFamily("cold", (1.0, -(2**0.5)), (2**-0.5,), shift=2**-0.5)
FERMI_DIRAC = _FermiDirac()

SMEARINGS: dict[str, Smearing] = {s.name: s for s in (GAUSSIAN, METHFESSEL_PAXTON, COLD, FERMI_DIRAC)}


def get_smearing(name: str) -> Smearing:
    """Look a smearing function up by name.

    Raises
    ------
    UsageError
        ``unknown-smearing``.
    """
    if name not in SMEARINGS:
        raise UsageError(
            f"unknown smearing {name!r}",
            code="unknown-smearing",
            remedy=f"choose from {', '.join(SMEARINGS)}",
        )
    return SMEARINGS[name]

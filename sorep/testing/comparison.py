"""How far two spectra are apart, and how a check complains."""

from __future__ import annotations

from unittest import SkipTest

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

from sorep.method import Calculation, Method
from sorep.spectrum import Spectrum

EXACT = 1e-9
"""Tolerance of methods that are exact but for rounding and neglected integrals, relative to the mean |energy|."""


def require(condition: bool | np.bool_, complaint: str) -> None:
    """Raise `AssertionError` where the condition does not hold."""
    if not condition:
        raise AssertionError(complaint)


def not_applicable(reason: str) -> SkipTest:
    """What a check raises where it has nothing to look at; pytest reports it as skipped."""
    return SkipTest(reason)


def scale(energies: NDArray[np.float64]) -> float:
    """The mean |energy|, to which tolerances are relative."""
    return float(np.abs(energies).mean())


def spectral_distance(one: Spectrum, other: Spectrum) -> float:
    """Mean shift of the levels of two spectra, relative to the mean |energy| of the first.

    Levels are compared in the order of their energies, whichever k points and cells they belong to (the Wasserstein
    distance of the densities of states); 1e-9 means some 1e-8 eV.
    """
    moved = wasserstein_distance(one.energies, other.energies, one.state_weights, other.state_weights)
    return 0.0 if moved == 0 else float(moved / scale(one.energies))


def require_same_crystal(one: Calculation, other: Calculation, tolerance: float) -> None:
    """Spectra of two descriptions of one crystal agree, and so does what they say about it."""
    for what, value in (
        ("states per atom", lambda s: s.state_weights.sum() / s.n_atoms),
        ("volume per atom", lambda s: s.volume / s.n_atoms),
        ("electrons per atom", lambda s: (s.n_electrons or 0.0) / s.n_atoms),
        ("degeneracy", lambda s: s.degeneracy),
    ):
        a, b = value(one.spectrum), value(other.spectrum)
        require(abs(a - b) <= 1e-7 * abs(a), f"{what}: {a:.10g} against {b:.10g}")
    found = spectral_distance(one.spectrum, other.spectrum)
    require(found <= tolerance, f"levels move by {found:.1e} of the mean |energy|, more than {tolerance:.1e}")


def require_same_bits(method: Method, one: Calculation, other: Calculation) -> None:
    """Two calculations of one structure agree to the last bit."""
    for name in ("energies", "band_counts", "kpoints", "weights"):
        same = np.array_equal(getattr(one.spectrum, name), getattr(other.spectrum, name))
        require(same, f"two calculations by {method.operator} differ in their {name}")


def require_same_levels(
    levels: list[NDArray[np.float64]], energies: NDArray[np.float64], tolerance: float, name: str
) -> None:
    """Eigenvalues by another way are those of a spectrum, level by level."""
    found = np.concatenate(levels)
    require(len(found) == len(energies), f"{name}: {len(found)} eigenvalues, the spectrum has {len(energies)}")
    largest = np.abs(found - energies).max() / scale(energies)
    require(largest <= tolerance, f"{name}: a level differs by {largest:.1e} of the mean |energy|")

"""Band edges and Fermi energy from a spectrum and its number of electrons.

Counting comes first. Sorted by their extrema over k, bands fill up one after another; the crystal is an insulator
where a whole number of bands holds exactly the electrons and the next band's minimum lies above the last filled
maximum. That covers spin-polarised insulators whose channels hold different numbers. Otherwise it is a metal, whose
Fermi energy is found by a bisection with Gaussian smearing (monotone, hence unique), and then refined to the nearest
root of the asked-for smearing: cold and Methfessel-Paxton occupations are not monotone and a bisection alone finds
spurious roots (dos Santos and Marzari, Phys. Rev. B 107, 195122, 2023).

Where functions were removed as linearly dependent, k points differ in their number of bands. A band that a k point
lacks is infinitely high there, hence empty.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import root_scalar

from sorep.errors import LevelsError
from sorep.smearing import GAUSSIAN, Smearing
from sorep.spectrum import Spectrum

NO_EMPTY_BAND = "no-empty-band"
ODD_ELECTRONS = "odd-electrons"
TOP_BAND_OCCUPIED = "top-band-occupied"

_ELECTRON_TOLERANCE = 1e-4
_EXCESS_TOLERANCE = 1e-10  # electrons; deep in a gap the count is right to rounding, and its sign means nothing
_OCCUPATION_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Levels:
    """Where a spectrum is anchored, eV.

    An insulator has a valence band maximum ``vbm``, a conduction band minimum ``cbm`` and ``fermi_energy`` half-way
    between; in a metal the three are equal. Where every band of the basis is full (flag ``no-empty-band``) there is
    no conduction band: ``cbm`` and ``fermi_energy`` are None, and features anchored there cannot be formed. They are
    never replaced by a guess. Flag ``top-band-occupied``: the highest band of a complete spectrum is partly occupied,
    so the basis has few empty states or none above the Fermi energy, and the density there says little. Flag
    ``odd-electrons``: no insulator without spin polarisation.
    """

    vbm: float
    cbm: float | None
    fermi_energy: float | None
    is_metal: bool
    flags: tuple[str, ...] = ()

    @property
    def band_gap(self) -> float | None:
        """eV; 0 for a metal, None where there is no conduction band."""
        return None if self.cbm is None else self.cbm - self.vbm


def find_levels(spectrum: Spectrum, smearing: Smearing, width: float) -> Levels:
    """Fermi energy and band edges.

    Parameters
    ----------
    spectrum : Spectrum
        With ``n_electrons``.
    smearing : Smearing
    width : float
        Smearing width for a metal's Fermi energy, eV; an insulator does not depend on it.

    Raises
    ------
    LevelsError
        ``no-electrons`` where the spectrum counts none, ``too-few-bands`` where the bands cannot hold the electrons or
        the highest band of a spectrum that is not complete is partly occupied.
    """
    n_electrons = spectrum.n_electrons
    if n_electrons is None or not n_electrons > _ELECTRON_TOLERANCE:
        raise LevelsError(
            "the spectrum has no electrons to count, hence no Fermi energy",
            code="no-electrons",
            remedy="use a feature grid with absolute energies",
        )
    flags = (ODD_ELECTRONS,) if abs(n_electrons % 2 - 1) < _ELECTRON_TOLERANCE else ()
    capacity = spectrum.degeneracy * float(spectrum.state_weights.sum())
    if capacity < n_electrons - _ELECTRON_TOLERANCE:
        raise _too_few_bands(f"the bands hold {capacity:g} of {n_electrons:g} electrons")

    minima, maxima = _band_extrema(spectrum)
    order = np.argsort(maxima, kind="stable")
    n_filled = round(n_electrons / spectrum.degeneracy)
    if abs(n_filled * spectrum.degeneracy - n_electrons) < _ELECTRON_TOLERANCE:
        vbm = float(maxima[order[:n_filled]].max())
        cbm = float(minima[order[n_filled:]].min(initial=np.inf))
        if vbm < cbm == np.inf:
            return Levels(vbm, None, None, False, (*flags, NO_EMPTY_BAND))
        if vbm < cbm:
            return Levels(vbm, cbm, 0.5 * (vbm + cbm), False, flags)

    if capacity <= n_electrons:
        raise _too_few_bands("every band of every k point is full, and some k points have fewer bands than others")
    fermi = fermi_energy(spectrum, smearing, width)
    counts = spectrum.band_counts.ravel()
    top = spectrum.energies[np.cumsum(counts)[counts > 0] - 1]
    top_occupation = np.abs(smearing.occupation((fermi - top) / width)).max()
    if top_occupation > _OCCUPATION_TOLERANCE:
        if spectrum.is_complete:
            return Levels(fermi, fermi, fermi, True, (*flags, TOP_BAND_OCCUPIED))
        raise _too_few_bands(
            f"the highest band is partly occupied ({top_occupation:.3g}) at the Fermi energy {fermi:.3f} eV"
        )
    return Levels(fermi, fermi, fermi, True, flags)


def fermi_energy(spectrum: Spectrum, smearing: Smearing, width: float) -> float:
    """Energy at which smeared occupations hold ``n_electrons``, eV.

    The root of ``smearing`` that lies nearest to the unique root of Gaussian smearing of the same width.
    """
    weights = spectrum.state_weights * spectrum.degeneracy
    energies, n_electrons = spectrum.energies, spectrum.n_electrons or 0.0

    def excess(mu: float, kind: Smearing) -> float:
        return float(weights @ kind.occupation((mu - energies) / width)) - n_electrons

    def root(kind: Smearing, bracket: tuple[float, float]) -> float:
        return float(root_scalar(excess, args=(kind,), bracket=bracket, xtol=1e-12).root)

    margin = GAUSSIAN.reach * width
    start = root(GAUSSIAN, (float(energies.min()) - margin, float(energies.max()) + margin))
    if smearing is GAUSSIAN or abs(excess(start, smearing)) < _EXCESS_TOLERANCE:
        return start
    bracket = _nearest_sign_change(lambda mu: excess(mu, smearing), start, 0.05 * width, smearing.reach * width)
    return start if bracket is None else root(smearing, bracket)


def _band_extrema(spectrum: Spectrum) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest and highest energy of each (spin, band) over k."""
    counts = spectrum.band_counts
    bands = np.full((*counts.shape, counts.max()), np.inf)
    bands[np.arange(counts.max()) < counts[..., None]] = spectrum.energies
    return bands.min(axis=1).ravel(), bands.max(axis=1).ravel()


def _nearest_sign_change(
    function: Callable[[float], float], start: float, step: float, farthest: float
) -> tuple[float, float] | None:
    """The interval nearest to ``start`` in which ``function`` passes through zero, rising or falling."""
    below = above = start
    f_below = f_above = function(start)
    while above - start < farthest:
        next_above, next_below = above + step, below - step
        f_next_above, f_next_below = function(next_above), function(next_below)
        if f_above * f_next_above <= 0:
            return above, next_above
        if f_next_below * f_below <= 0:
            return next_below, below
        above, below, f_above, f_below = next_above, next_below, f_next_above, f_next_below
    return None


def _too_few_bands(message: str) -> LevelsError:
    return LevelsError(message, code="too-few-bands", remedy="compute more bands")

"""What a density of states is used for: heat capacity and mean frequency of phonons, gaps below the Fermi energy.

Phonons. A density of states g at frequencies w tells how the modes are spread, and only its shape counts: the scale is
set by the number of modes, three for each atom. With x = h c w / (k T), the harmonic crystal has

    C_V = 3 R <x^2 e^x / (e^x - 1)^2>        <w> = sum w g / sum g

where <...> is the average over g. Negative frequencies stand for imaginary ones, which no harmonic oscillator has; they
are left out, and the rest counts as all modes. (Chen et al., Adv. Sci. 8, 2004214, 2021, take both at 300 K from
predicted spectra; so do Kong et al., Nat. Commun. 13, 949, 2022.)

Gaps. Metals whose occupied states next to the Fermi energy are split off by a gap from those below may conduct as a
degenerate semiconductor does. Kong et al. ask of such a "VB gap" that the density stays below 1 state/eV over at least
1 eV, and that it ends between 1 eV and 0.25 eV below the edge; here, too, that it is the only one of this width below
the edge. Gaps start and end at edges of bins. One that reaches the lowest energy counts with the width that is seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.constants import R, physical_constants

from sorep.errors import Mat2SpecError

if TYPE_CHECKING:
    import pandas as pd

_KELVIN_PER_WAVENUMBER = 100 * physical_constants["second radiation constant"][0]  # h c / k, cm K
_ROUNDING = 1e-9  # of widths and positions of gaps, eV: edges of bins are sums of widths


def heat_capacity(
    spectra: ArrayLike, frequencies: NDArray[np.float64], temperature: float = 300.0
) -> NDArray[np.float64]:
    """Heat capacity at constant volume of harmonic phonons.

    Parameters
    ----------
    spectra : (..., n_bins) array
        Densities of states in any unit.
    frequencies : (n_bins,) array
        Centres of bins of equal width, 1/cm; negative ones are imaginary and left out.
    temperature : float
        Kelvin.

    Returns
    -------
    (...) array
        J / (K mol of atoms); tends to 3 R.

    Raises
    ------
    Mat2SpecError
        ``bad-phonon-spectrum``, as `mean_frequency`; ``bad-temperature``.
    """
    if not temperature > 0:
        raise Mat2SpecError(f"a temperature of {temperature:g} K", code="bad-temperature", remedy="give a positive one")
    share, real = _shares(spectra, frequencies)
    half = 0.5 * _KELVIN_PER_WAVENUMBER * real / temperature
    # x^2 e^x / (e^x - 1)^2 = ((x / 2) / sinh(x / 2))^2, one at x = 0; beyond 300 it is zero in any case.
    safe = np.clip(half, 1e-8, 300.0)
    return 3 * R * (share @ (safe / np.sinh(safe)) ** 2)


def mean_frequency(spectra: ArrayLike, frequencies: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean frequency of the modes that are not imaginary, 1/cm.

    Parameters
    ----------
    spectra : (..., n_bins) array
        Densities of states in any unit.
    frequencies : (n_bins,) array
        Centres of bins of equal width, 1/cm.

    Raises
    ------
    Mat2SpecError
        ``bad-phonon-spectrum`` where a spectrum is negative, not finite, zero at all real frequencies, or of another
        length than the frequencies.
    """
    share, real = _shares(spectra, frequencies)
    return share @ real


def _shares(spectra: ArrayLike, frequencies: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The part of the modes in each bin of real frequency, and these frequencies."""
    values, frequencies = np.asarray(spectra, dtype=float), np.asarray(frequencies, dtype=float)
    if values.shape[-1:] != frequencies.shape:
        raise _bad_phonons(f"{values.shape[-1:]} values for {frequencies.shape} frequencies")
    values = values[..., frequencies >= 0]
    if not np.isfinite(values).all() or values.min(initial=0.0) < 0:
        raise _bad_phonons("negative or not finite densities")
    total = values.sum(axis=-1, keepdims=True)
    if not (total > 0).all():
        raise _bad_phonons("no modes at real frequencies")
    return values / total, frequencies[frequencies >= 0]


def _bad_phonons(what: str) -> Mat2SpecError:
    return Mat2SpecError(
        f"no phonon density of states: {what}",
        code="bad-phonon-spectrum",
        remedy="give finite, non-negative densities, one for each frequency",
    )


class Gap(NamedTuple):
    """Edges of a gap, eV."""

    lower: float
    upper: float

    @property
    def width(self) -> float:
        return self.upper - self.lower


@dataclass(frozen=True)
class GapRule:
    """What counts as a gap below the edge.

    Attributes
    ----------
    threshold : float
        The density of states stays below it, in its unit (states/eV).
    width : float
        At least, eV.
    lowest, highest : float
        Between which energies the gap ends, both included, eV from the edge.
    """

    threshold: float = 1.0
    width: float = 1.0
    lowest: float = -1.0
    highest: float = -0.25


DEFAULT_GAP_RULE = GapRule()


def gaps_below(
    spectrum: NDArray[np.float64], bin_edges: NDArray[np.float64], rule: GapRule = DEFAULT_GAP_RULE
) -> list[Gap]:
    """All gaps below energy zero that are wide enough, wherever they end.

    Parameters
    ----------
    spectrum : (n_bins,) array
        Density of states.
    bin_edges : (n_bins + 1,) array
        eV from the edge (highest occupied state or Fermi energy), ascending.
    rule : GapRule

    Raises
    ------
    Mat2SpecError
        ``bad-spectrum`` for densities that are not finite or do not fit the edges.
    """
    spectrum, bin_edges = np.asarray(spectrum, dtype=float), np.asarray(bin_edges, dtype=float)
    if spectrum.shape != (len(bin_edges) - 1,) or not np.isfinite(spectrum).all() or (np.diff(bin_edges) <= 0).any():
        raise Mat2SpecError(
            f"a spectrum of shape {spectrum.shape} on {len(bin_edges)} bin edges has no gaps to speak of",
            code="bad-spectrum",
            remedy="give finite densities and ascending edges, one more than bins",
        )
    low = np.r_[False, spectrum < rule.threshold, False]
    changes = np.flatnonzero(low[1:] != low[:-1])
    found = [Gap(float(bin_edges[a]), float(bin_edges[b])) for a, b in changes.reshape(-1, 2)]
    return [gap for gap in found if gap.width >= rule.width - _ROUNDING and gap.upper <= _ROUNDING]


def valence_gap(
    spectrum: NDArray[np.float64], bin_edges: NDArray[np.float64], rule: GapRule = DEFAULT_GAP_RULE
) -> Gap | None:
    """The gap below the edge, where there is exactly one wide enough and it ends where the rule asks; else None.

    Parameters and errors as of `gaps_below`.
    """
    found = gaps_below(spectrum, bin_edges, rule)
    if len(found) != 1 or not rule.lowest - _ROUNDING <= found[0].upper <= rule.highest + _ROUNDING:
        return None
    return found[0]


def gap_ceiling(
    spectrum: NDArray[np.float64], bin_edges: NDArray[np.float64], rule: GapRule = DEFAULT_GAP_RULE
) -> float:
    """How low the density stays over the best place for a gap: the threshold above which one could be seen there.

    The smallest, over all stretches of bins of at least the rule's width that end where the rule asks, of the highest
    density within; infinite where the bins leave no room. Candidates without a gap are ranked by it.
    """
    spectrum, bin_edges = np.asarray(spectrum, dtype=float), np.asarray(bin_edges, dtype=float)
    ceilings = [np.inf]
    for end in np.flatnonzero((bin_edges >= rule.lowest - _ROUNDING) & (bin_edges <= rule.highest + _ROUNDING)):
        start = int(np.searchsorted(bin_edges, bin_edges[end] - rule.width + _ROUNDING, side="right")) - 1
        if start >= 0:
            ceilings.append(float(spectrum[start:end].max()))
    return min(ceilings)


def rank_gaps(
    ids: NDArray[np.str_],
    spectra: Iterable[ArrayLike],
    bin_edges: NDArray[np.float64],
    rule: GapRule = DEFAULT_GAP_RULE,
) -> pd.DataFrame:
    """Candidates for a gap below the edge, the best first.

    Parameters
    ----------
    ids : (n,) array of str
    spectra : n arrays (n_bins,)
    bin_edges, rule
        As of `gaps_below`, and the errors too.

    Returns
    -------
    DataFrame
        Columns ``id``, ``has_gap``, ``lower`` and ``upper`` (eV, NaN without a gap) and ``ceiling`` (`gap_ceiling`).
        First those with a gap, the wider ones before, then the others, those with a lower ceiling before.
    """
    import pandas as pd

    values = [np.asarray(spectrum, dtype=float) for spectrum in spectra]
    gaps = [valence_gap(spectrum, bin_edges, rule) for spectrum in values]
    table = pd.DataFrame(
        {
            "id": ids,
            "has_gap": [gap is not None for gap in gaps],
            "lower": [np.nan if gap is None else gap.lower for gap in gaps],
            "upper": [np.nan if gap is None else gap.upper for gap in gaps],
            "ceiling": [gap_ceiling(spectrum, bin_edges, rule) for spectrum in values],
        }
    )
    width = (table["upper"] - table["lower"]).fillna(0.0)
    order = np.lexsort((table["id"].to_numpy(dtype=str), table["ceiling"], -width))
    return table.iloc[order].reset_index(drop=True)

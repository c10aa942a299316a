"""Line effective masses: how heavy thermal electrons and holes are along the high-symmetry lines of a band structure.

    1 / m_line = max over lines of  sum_n int e_n''(k) theta(e_n(k)) dk / (hbar^2 / m_e) sum_n int theta(e_n(k)) dk

with theta the Fermi-Dirac occupation measured from the band edge (SOREP paper, eq. 15-16; Hautier et al., Nat. Commun.
4, 2292 (2013)). The sum is over the conduction bands, or over the valence bands turned upside down, of both spin
channels. **Both masses are positive here**, in electron masses. The paper counts those of holes negative: its criterion
m_h >= -1 reads hole <= 1 here, and the minus in its eq. 15 belongs to the holes.

How the integrals are taken. Each line stands alone, so nothing is differentiated across the end of one. On a line the
bands are followed through crossings (`sorep.screening.following`), since sorted eigenvalues have kinks there. Every
band is interpolated by a cubic spline with not-a-knot ends: exact for a parabola, and without assumptions on slopes at
the ends, which vanish at most symmetry points but not at all. Curvature and occupation of the spline are integrated by
Gauss-Legendre quadrature within each interval; so the k points need not resolve kT, only the shape of the bands: for
Kane bands with a gap of 1 eV and masses of 0.1, 0.05 and 0.02, spacings of 0.025, 0.0125 and 0.00625 1/Angstrom give
the mass to 2 %.

Which lines count. The ratio in the formula is an average over the carriers of one line, however few they are. Taken
literally, a light valley far above the conduction band minimum decides the mass though no carrier is ever in it. Here a
line counts where its own edge lies within ``reach`` kT of that of the line nearest to the gap; an infinite reach is the
formula as printed. Among the single-shot bands of 60 semiconductors the two differ by more than 2 % for 28 % of the
electrons and 28 % of the holes; the electron of RbF has mass 0.50 here, and 0.007 as printed. The default is not
tighter because lines show only some directions of a valley that is off the symmetry points: that of silicon lies on
GAMMA-X with its longitudinal mass (0.95), and its transverse one (0.21) shows at X, 0.14 eV higher.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.constants import physical_constants
from scipy.interpolate import CubicSpline
from scipy.special import log_expit

from sorep.bands import BandStructure
from sorep.errors import ScreeningError
from sorep.screening.following import follow
from sorep.screening.lines import (
    Line,
    count_valence,
    lines_of_band_structure,
    lines_of_pymatgen,
    metal,
    no_bands,
    split_path,
)
from sorep.units import BOHR_IN_ANGSTROM, HARTREE_IN_EV

if TYPE_CHECKING:
    from pymatgen.electronic_structure.bandstructure import BandStructureSymmLine

Carrier = Literal["electron", "hole"]

DEFAULT_TEMPERATURE = 300.0
"""K."""
DEFAULT_REACH = 8.0
"""kT; 0.2 eV at 300 K."""

COARSE_LINES = "coarse-lines"
EDGE_OFF_LINES = "edge-off-lines"
FEW_BANDS = "few-bands"
FLAT = "flat"
SHORT_LINES = "short-lines"

BOLTZMANN: float = physical_constants["Boltzmann constant in eV/K"][0]
HBAR_SQUARED: float = HARTREE_IN_EV * BOHR_IN_ANGSTROM**2
"""hbar^2 / m_e, eV Angstrom^2."""

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_WINDOW = 30.0  # kT; a band that stays farther from its line's edge holds one carrier in 1e13
_FEWEST_POINTS = 5
_FLATTEST = 1e-6  # inverse mass; less is rounding
_COARSE = 0.02  # of the mass


@dataclass(frozen=True)
class EffectiveMasses:
    """Line effective masses, and the band edges that they belong to.

    Attributes
    ----------
    electron, hole : float
        Electron masses; both positive. Infinite where no line curves away from the gap on average (flag ``flat``).
    electron_line, hole_line : str
        Label of the line that has this mass.
    vbm, cbm : float
        Extrema over lines and mesh together, eV.
    flags : tuple of str
        Each begins with its carrier, as in ``electron-flat``. ``coarse-lines``: the mass changes so much when every
        second k point is left out that an error of 2 % must be feared; a smaller line spacing helps. ``short-lines``:
        a line within reach has fewer than five k points and is left out. ``edge-off-lines``: the band edge lies on no
        line, but more than kT closer to the gap. ``few-bands``: the highest band there is comes within reach of
        the edge, so that bands may be missing. Flags of the band structure follow.
    """

    electron: float
    hole: float
    electron_line: str
    hole_line: str
    vbm: float
    cbm: float
    flags: tuple[str, ...] = ()

    @property
    def band_gap(self) -> float:
        """eV."""
        return self.cbm - self.vbm


def effective_masses(
    lines: Sequence[Line],
    n_valence: Sequence[int],
    *,
    vbm: float = -math.inf,
    cbm: float = math.inf,
    temperature: float = DEFAULT_TEMPERATURE,
    reach: float = DEFAULT_REACH,
) -> EffectiveMasses:
    """Electron and hole masses of a semiconductor.

    Parameters
    ----------
    lines : sequence of Line
    n_valence : sequence of int
        Number of valence bands of each spin channel; see `sorep.screening.lines.count_valence`.
    vbm, cbm : float
        Band edges of a mesh, eV. Lines that come closer to the gap replace them.
    temperature : float
        K.
    reach : float
        Lines count whose own edge is at most this many kT away from that of the line nearest to the gap.

    Raises
    ------
    ScreeningError
        ``metal`` where there is no gap; ``no-bands`` where there are no lines, valence bands or conduction bands;
        ``short-lines`` where no line within reach has five k points; ``bad-temperature``, ``bad-reach``.
    """
    if not reach >= 0:
        raise ScreeningError(f"reach {reach} is not positive", code="bad-reach", remedy="give kT >= 0, or inf")
    thermal = _thermal_energy(temperature)
    electrons = [_Carriers(line, [e[:, n:] for e, n in _channels(line, n_valence)]) for line in lines]
    holes = [_Carriers(line, [-e[:, :n][:, ::-1] for e, n in _channels(line, n_valence)]) for line in lines]
    cbm = min([cbm, *(one.edge for one in electrons)])
    vbm = max([vbm, *(-one.edge for one in holes)])
    for name, carriers in (("conduction", electrons), ("valence", holes)):
        if not any(one.n_bands for one in carriers):
            raise no_bands(f"there are no {name} bands on lines")
    if vbm >= cbm:
        raise metal(f"valence bands reach {vbm:.3f} eV, above the conduction bands' {cbm:.3f} eV")
    electron, electron_line, flags = _lightest("electron", electrons, cbm, thermal, reach)
    hole, hole_line, more = _lightest("hole", holes, -vbm, thermal, reach)
    if min(one.top for one in electrons) < cbm + reach * thermal < math.inf:
        more = (*more, f"electron-{FEW_BANDS}")
    return EffectiveMasses(electron, hole, electron_line, hole_line, vbm, cbm, (*flags, *more))


def from_band_structure(
    bands: BandStructure, *, temperature: float = DEFAULT_TEMPERATURE, reach: float = DEFAULT_REACH
) -> EffectiveMasses:
    """Masses of a band structure of this package, with the band edges of its mesh and lines together.

    Raises
    ------
    ScreeningError
        Those of `effective_masses`; ``no-levels`` where there are no electrons or no band edges.
    """
    if bands.levels is None or bands.n_electrons is None:
        raise ScreeningError(
            f"the bands of {bands.structure.id} have no band edges",
            code="no-levels",
            remedy="compute Kohn-Sham bands, enough of them",
        )
    if bands.levels.is_metal:
        raise metal(f"{bands.structure.id} is a metal on its mesh")
    lines = lines_of_band_structure(bands)
    cbm = math.inf if bands.levels.cbm is None else bands.levels.cbm
    found = effective_masses(
        lines,
        count_valence(lines, bands.n_electrons, bands.degeneracy),
        vbm=bands.levels.vbm,
        cbm=cbm,
        temperature=temperature,
        reach=reach,
    )
    return replace(found, flags=(*found.flags, *bands.flags))


def from_pymatgen(
    bands: BandStructureSymmLine, *, temperature: float = DEFAULT_TEMPERATURE, reach: float = DEFAULT_REACH
) -> EffectiveMasses:
    """Masses of a pymatgen band structure; bands below its Fermi energy are valence bands.

    Raises
    ------
    ScreeningError
        Those of `effective_masses`.
    """
    if bands.is_metal():
        raise metal("bands cross the Fermi energy")
    lines = lines_of_pymatgen(bands)
    middles = np.mean([line.energies.mean(axis=1) for line in lines], axis=0)
    n_valence = (middles < bands.efermi).sum(axis=1).tolist()
    return effective_masses(lines, n_valence, temperature=temperature, reach=reach)


def from_qe_xml(
    path: str | Path,
    *,
    vbm: float = -math.inf,
    cbm: float = math.inf,
    temperature: float = DEFAULT_TEMPERATURE,
    reach: float = DEFAULT_REACH,
) -> EffectiveMasses:
    """Masses from the data-file-schema.xml of a run of pw.x with ``calculation = 'bands'``.

    Parameters
    ----------
    path : str or Path
    vbm, cbm : float
        Band edges of the self-consistent run's mesh, eV.
    temperature, reach : float
        As in `effective_masses`.

    Raises
    ------
    OutputError
        What `sorep.outputs.espresso.read_espresso` raises.
    ScreeningError
        ``not-a-path`` for another kind of run, and those of `effective_masses`.
    """
    from sorep.outputs.espresso import read_espresso

    output = read_espresso(path)
    if not output.on_path:
        raise ScreeningError(
            f"{path} is of a calculation {output.calculation!r}",
            code="not-a-path",
            remedy="give that of a calculation = 'bands' along high-symmetry lines",
        )
    spectrum, lattice = output.spectrum, output.structure.lattice
    cartesian = 2 * np.pi * spectrum.kpoints @ np.linalg.inv(lattice).T
    lines = split_path(cartesian, spectrum.eigenvalues, spectrum.kpoints)
    if not lines or spectrum.n_electrons is None:
        raise no_bands(f"{path} holds no lines of k points")
    n_valence = count_valence(lines, spectrum.n_electrons, spectrum.degeneracy)
    found = effective_masses(lines, n_valence, vbm=vbm, cbm=cbm, temperature=temperature, reach=reach)
    return replace(found, flags=(*found.flags, *spectrum.flags))


def inverse_line_mass(
    distances: ArrayLike,
    energies: ArrayLike,
    edge: float,
    carrier: Carrier,
    temperature: float = DEFAULT_TEMPERATURE,
) -> float:
    """Thermal average of the curvature along one line: the bracket of eq. 15.

    Parameters
    ----------
    distances : (n_k,) array_like
        Strictly ascending, at least four, 1/Angstrom (2 pi included).
    energies : (n_spin, n_k, n_band) array_like
        Of the conduction bands for electrons, of the valence bands for holes, eV.
    edge : float
        Conduction band minimum or valence band maximum of the crystal, eV.
    carrier : {"electron", "hole"}
    temperature : float
        K.

    Returns
    -------
    float
        Inverse electron masses; positive where bands curve away from the gap.

    Raises
    ------
    ScreeningError
        ``malformed-line``, ``bad-temperature``.
    """
    line = Line(carrier, np.asarray(distances), np.asarray(energies))
    sign = 1.0 if carrier == "electron" else -1.0
    carriers = _Carriers(line, list(np.sort(sign * line.energies)))
    return _average(line.distances, carriers.bands(), sign * edge, _thermal_energy(temperature))


class _Carriers:
    """The bands of one line that hold electrons, or, upside down, holes: carriers sink to the lowest energies."""

    def __init__(self, line: Line, channels: list[NDArray[np.float64]]) -> None:
        self.label, self.distances = line.label, line.distances
        self._channels = [energies for energies in channels if energies.shape[1]]  # (n_k, n_band)
        self.n_bands = sum(energies.shape[1] for energies in self._channels)
        self.edge = min((float(energies[:, 0].min()) for energies in self._channels), default=math.inf)
        self.top = min((float(energies[:, -1].min()) for energies in self._channels), default=math.inf)

    def bands(self) -> NDArray[np.float64]:
        """Followed through crossings, both channels side by side, (n_k, n_bands)."""
        return np.concatenate([follow(self.distances, energies) for energies in self._channels], axis=1)


def _lightest(
    carrier: Carrier, lines: list[_Carriers], edge: float, thermal: float, reach: float
) -> tuple[float, str, tuple[str, ...]]:
    """Mass, label of its line, and flags."""
    nearest = min(line.edge for line in lines)
    flags = [EDGE_OFF_LINES] if nearest - edge > thermal else []
    within = [line for line in lines if line.edge - nearest <= reach * thermal]
    long = [line for line in within if len(line.distances) >= _FEWEST_POINTS]
    if not long:
        raise ScreeningError(
            f"no line within {reach:g} kT of the {carrier}s' band edge has {_FEWEST_POINTS} k points",
            code="short-lines",
            remedy="use a smaller line spacing",
        )
    if len(long) < len(within):
        flags.append(SHORT_LINES)
    bands = [line.bands() for line in long]
    inverse = [_average(line.distances, one, edge, thermal) for line, one in zip(long, bands, strict=True)]
    best = int(np.argmax(inverse))
    mass = 1 / inverse[best] if inverse[best] > _FLATTEST else math.inf
    if mass == math.inf:
        flags.append(FLAT)
    elif _error(long[best].distances, bands[best], edge, thermal) > _COARSE * inverse[best]:
        flags.append(COARSE_LINES)
    return mass, long[best].label, tuple(f"{carrier}-{flag}" for flag in flags)


def _average(distances: NDArray[np.float64], bands: NDArray[np.float64], edge: float, thermal: float) -> float:
    """Inverse mass of bands (n_k, n_band), each of them smooth."""
    lowest = bands.min(axis=0)
    splines = CubicSpline(distances, bands[:, lowest - lowest.min() <= _WINDOW * thermal])
    half = np.diff(distances) / 2
    points = ((distances[1:] + distances[:-1]) / 2)[:, None] + half[:, None] * _NODES
    logarithms = log_expit((edge - splines(points)) / thermal)  # of occupations, which underflow far from the edge
    carriers = np.exp(logarithms - logarithms.max()) * (half[:, None] * _WEIGHTS)[..., None]
    return float((carriers * splines(points, 2)).sum() / carriers.sum() / HBAR_SQUARED)


def _error(distances: NDArray[np.float64], bands: NDArray[np.float64], edge: float, thermal: float) -> float:
    """What the inverse mass may be wrong by, from every second k point (and the last).

    The curvature of a cubic spline has an error of the second order, so the coarser line is off by about four times as
    much as the given one.
    """
    some = np.unique(np.append(np.arange(0, len(distances), 2), len(distances) - 1))
    fine, coarse = (_average(distances[part], bands[part], edge, thermal) for part in (slice(None), some))
    return abs(coarse - fine) / 3


def _channels(line: Line, n_valence: Sequence[int]) -> list[tuple[NDArray[np.float64], int]]:
    if len(n_valence) != len(line.energies):
        raise ScreeningError(
            f"line {line.label} has {len(line.energies)} spin channels, and valence bands are given for "
            f"{len(n_valence)}",
            code="malformed-line",
            remedy="give a number of valence bands for each channel",
        )
    return list(zip(line.energies, n_valence, strict=True))


def _thermal_energy(temperature: float) -> float:
    """eV."""
    if not 0 < temperature < math.inf:
        raise ScreeningError(f"temperature {temperature} K", code="bad-temperature", remedy="give K > 0")
    return BOLTZMANN * temperature

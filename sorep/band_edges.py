"""Numbers that tell what the edges of the bands are like: gap, masses, widths.

A density of states on a grid spends most of its points far from what decides whether a crystal conducts, and hides the
band gap in the positions of its zeros. These numbers say such things outright. They are made of a spectrum and its
levels, without k-point derivatives, so they hold on any mesh.

Masses. Within d of their edge, parabolic bands of mass m hold n = (2 m d / hbar^2)^(3/2) / (3 pi^2) electrons per
volume. The number that a crystal's bands hold there is turned into the mass that parabolic bands would need,

    m(d) = hbar^2 (3 pi^2 n(d))^(2/3) / (2 d),

the density-of-states mass at depth d: of the edge itself at 0.2 eV, of whole bands at 2 eV. In a metal both edges
are the Fermi energy.

Bands. At each k point of a spectrum with N electrons and degeneracy f the lowest ceil(N / f) eigenvalues count as
valence states, of both spins together (all but the last one where a basis holds no more). The highest valence and the
lowest conduction band are described by depths, widths and the gaps between them. These numbers are of the cell that was
computed, the primitive one by default: in a supercell bands are folded, so there they are others.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sorep.errors import FeatureError
from sorep.levels import Levels
from sorep.smearing import GAUSSIAN
from sorep.spectrum import Spectrum
from sorep.units import BOHR_IN_ANGSTROM, HARTREE_IN_EV

DEPTHS = (0.2, 0.5, 1.0, 2.0)
"""eV from the edge, of the density-of-states masses."""

SCALARS = (
    "gap",
    *(f"{edge}-mass-{depth:g}eV" for edge in ("vbm", "cbm") for depth in DEPTHS),
    *(f"{band}-{number}" for band in ("valence", "conduction") for number in ("depth", "width", "second-depth")),
    "direct-gap",
    "direct-gap-excess",
    "mean-direct-gap",
)
"""Names, in the order of `band_edge_scalars`. Gaps, depths (mean distance of a band from the edge) and widths (its
largest distance) are in eV, masses in electron masses. The second depth is that of the next band of the same spin."""

_HBAR2_OVER_2M = 0.5 * HARTREE_IN_EV * BOHR_IN_ANGSTROM**2  # eV Angstrom^2


def band_edge_scalars(spectrum: Spectrum, levels: Levels, width: float) -> NDArray[np.float64]:
    """The numbers named in `SCALARS`.

    Parameters
    ----------
    spectrum : Spectrum
        Of a Kohn-Sham operator.
    levels : Levels
    width : float
        Gaussian smearing of the counts behind the masses, eV.

    Returns
    -------
    (len(SCALARS),) array

    Raises
    ------
    FeatureError
        ``no-empty-band`` without a conduction band.
    SpectrumError
        ``ragged-spectrum`` where k points differ in their number of eigenvalues.
    """
    valence, conduction = _bands(spectrum)
    if levels.cbm is None or levels.fermi_energy is None or valence.shape[1] == 0:
        raise FeatureError(
            "the basis has no empty band, so there are no two edges to describe",
            code="no-empty-band",
            remedy="use a feature anchored at the VBM, or a basis with empty functions",
        )
    from_vbm = levels.vbm - valence[:, ::-1]  # the highest first
    from_cbm = conduction - levels.cbm
    weights = spectrum.weights
    direct = conduction[:, 0] - valence[:, -1]
    return np.concatenate(
        [
            [levels.cbm - levels.vbm],
            *_masses(spectrum, levels.vbm, levels.fermi_energy, levels.cbm, width),
            *(_shape(distances, weights, spectrum.n_spin) for distances in (from_vbm, from_cbm)),
            [direct.min(), direct.min() - (levels.cbm - levels.vbm), weights @ direct],
        ]
    )


def _bands(spectrum: Spectrum) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Valence and conduction states of each k point, ascending, (n_k, n), of both spins together."""
    eigenvalues = spectrum.eigenvalues
    bands = np.sort(eigenvalues.transpose(1, 0, 2).reshape(len(spectrum.weights), -1), axis=1)
    n_valence = math.ceil((spectrum.n_electrons or 0.0) / spectrum.degeneracy - 1e-4)
    n_valence = min(n_valence, bands.shape[1] - 1)
    return bands[:, :n_valence], bands[:, n_valence:]


def _masses(spectrum: Spectrum, vbm: float, fermi_energy: float, cbm: float, width: float) -> list[NDArray[np.float64]]:
    """At `DEPTHS` from the VBM downwards, and from the CBM upwards."""
    energies, depths = spectrum.energies, np.array(DEPTHS)
    weights = spectrum.state_weights * spectrum.degeneracy / spectrum.volume

    def masses(below_edge: NDArray[np.float64], filled: NDArray[np.float64]) -> NDArray[np.float64]:
        within = GAUSSIAN.occupation((depths[:, None] - below_edge) / width)
        return _HBAR2_OVER_2M * (3 * np.pi**2 * (within @ (weights * filled))) ** (2 / 3) / depths

    occupation = GAUSSIAN.occupation((fermi_energy - energies) / width)
    return [masses(vbm - energies, occupation), masses(energies - cbm, 1 - occupation)]


def _shape(distances: NDArray[np.float64], weights: NDArray[np.float64], n_spin: int) -> NDArray[np.float64]:
    """Depth and width of the first band, depth of the second one (the first again where there is no other)."""
    first, second = distances[:, 0], distances[:, min(n_spin, distances.shape[1] - 1)]
    return np.array([weights @ first, first.max(), weights @ second])

"""Smeared densities of states, by point or by exact bin average, in time linear in the number of eigenvalues.

    g(E) = sum_i c_i K((E - e_i) / w) / w

with K a smearing function (points) or its average over a bin. On a uniform grid, every eigenvalue is expanded about its
nearest node: sum_i c_i K((E - e_i)/w) = sum_p [(-h/w)^p / p!] sum_nodes M_p K^(p)((E - node)/w), where the moments
M_p = sum_i c_i delta_i^p (|delta| <= 1/2, in spacings h) cost a handful of operations an eigenvalue. Ten orders at
h/w <= 0.22 are exact to double precision; a coarser grid gets finer inner nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from math import factorial

import numpy as np
from numpy.typing import NDArray

from sorep._fortran import scatter_moments
from sorep.errors import FeatureError
from sorep.smearing import Smearing

_MAX_ORDER = 10
_MAX_SPACING = 0.22  # in widths
_MAX_REFINEMENT = 16  # beyond this few grid points see an eigenvalue, and visiting them is cheaper
_PAIRS_AT_ONCE = 1_000_000

Kernel = Callable[[int, NDArray[np.float64]], NDArray[np.float64]]


def density_of_states(
    energies: NDArray[np.float64],
    eigenvalues: NDArray[np.float64],
    weights: NDArray[np.float64],
    smearing: Smearing,
    width: float,
    *,
    cutoff: float | None = None,
) -> NDArray[np.float64]:
    """Density of states at given energies.

    Parameters
    ----------
    energies : (n,) array
        Where to evaluate it; uniform grids are fast, any other order or spacing is accepted.
    eigenvalues, weights : (m,) arrays
        Levels in the unit of ``energies`` and the number of states each stands for.
    smearing : Smearing
    width : float
        w, in the unit of ``energies``.
    cutoff : float or None
        Leave out levels with |E - e| > cutoff * w. None leaves out nothing that double precision can see.

    Returns
    -------
    (n,) array, states per unit of energy

    Raises
    ------
    FeatureError
        ``bad-width`` or ``non-finite-eigenvalues``.
    """
    energies = np.asarray(energies, dtype=np.float64)
    eigenvalues, weights = _checked(eigenvalues, weights, width)
    if cutoff is None and (spacing := _uniform_spacing(energies)) is not None:
        refinement = int(np.ceil(spacing / (_MAX_SPACING * width)))
        if refinement <= _MAX_REFINEMENT:
            args = (energies[0], spacing, len(energies), refinement)
            return _by_moments(*args, eigenvalues, weights, smearing.derivative, smearing.reach, width)
    reach = smearing.reach if cutoff is None else cutoff
    return _by_visiting(energies, eigenvalues, weights, smearing.derivative, reach, width)


def binned_density_of_states(
    start: float,
    stop: float,
    n_bins: int,
    eigenvalues: NDArray[np.float64],
    weights: NDArray[np.float64],
    smearing: Smearing,
    width: float,
) -> NDArray[np.float64]:
    """Exact averages of the density of states over ``n_bins`` equal bins between ``start`` and ``stop``.

    Times the bin width they add up to the number of states between the ends, whatever the bin width.
    Parameters, returns and errors as in `density_of_states`.
    """
    eigenvalues, weights = _checked(eigenvalues, weights, width)
    bin_width = (stop - start) / n_bins
    half = 0.5 * bin_width / width

    def kernel(order: int, x: NDArray[np.float64]) -> NDArray[np.float64]:
        antiderivative = smearing.occupation if order == 0 else lambda y: smearing.derivative(order - 1, y)
        return (antiderivative(x + half) - antiderivative(x - half)) / (2 * half)

    reach = smearing.reach + half
    refinement = int(np.ceil(bin_width / (_MAX_SPACING * width)))
    if refinement <= _MAX_REFINEMENT:
        args = (start + bin_width / 2, bin_width, n_bins, refinement)
        return _by_moments(*args, eigenvalues, weights, kernel, reach, width)
    centers = start + bin_width * (np.arange(n_bins, dtype=np.float64) + 0.5)
    return _by_visiting(centers, eigenvalues, weights, kernel, reach, width)


def _checked(
    eigenvalues: NDArray[np.float64], weights: NDArray[np.float64], width: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if not (np.isfinite(width) and width > 0):
        raise FeatureError(f"smearing width {width} is not positive", code="bad-width", remedy="give a width > 0")
    eigenvalues, weights = np.asarray(eigenvalues, dtype=float), np.asarray(weights, dtype=float)
    if not (np.isfinite(eigenvalues).all() and np.isfinite(weights).all()):
        raise FeatureError(
            "eigenvalues or weights are not finite",
            code="non-finite-eigenvalues",
            remedy="recompute the spectrum",
        )
    return eigenvalues, weights


def _uniform_spacing(energies: NDArray[np.float64]) -> float | None:
    if len(energies) < 2:
        return None
    spacing = (energies[-1] - energies[0]) / (len(energies) - 1)
    if not spacing > 0:
        return None
    deviation = np.abs(energies - (energies[0] + spacing * np.arange(len(energies)))).max()
    return float(spacing) if deviation <= 1e-12 * max(np.abs(energies).max(), spacing) else None


def _by_moments(
    start: float,
    spacing: float,
    n_points: int,
    refinement: int,
    eigenvalues: NDArray[np.float64],
    weights: NDArray[np.float64],
    kernel: Kernel,
    reach: float,
    width: float,
) -> NDArray[np.float64]:
    inner = spacing / refinement
    pad = int(np.ceil(reach * width / inner)) + 1
    n_nodes = (n_points - 1) * refinement + 1 + 2 * pad
    moments = scatter_moments(eigenvalues, weights, start - pad * inner, inner, n_nodes, _MAX_ORDER)
    x = np.asarray(np.arange(-pad, pad + 1) * (inner / width), dtype=np.float64)
    result = np.zeros(n_nodes - 2 * pad)
    for order, moment in enumerate(moments):
        factor = (-inner / width) ** order / factorial(order)
        result += np.convolve(moment, factor * kernel(order, x), mode="valid")
    return result[::refinement] / width


def _by_visiting(
    energies: NDArray[np.float64],
    eigenvalues: NDArray[np.float64],
    weights: NDArray[np.float64],
    kernel: Kernel,
    reach: float,
    width: float,
) -> NDArray[np.float64]:
    """Every energy visits the eigenvalues within reach; exact for any grid."""
    order = np.argsort(eigenvalues)
    eigenvalues, weights = eigenvalues[order], weights[order]
    first = np.searchsorted(eigenvalues, energies - reach * width, side="left")
    count = np.searchsorted(eigenvalues, energies + reach * width, side="right") - first
    result = np.zeros(len(energies))
    group = np.cumsum(count) // _PAIRS_AT_ONCE
    for g in np.unique(group):
        rows = np.flatnonzero((group == g) & (count > 0))
        if len(rows) == 0:
            continue
        lengths = count[rows]
        offsets = np.cumsum(lengths) - lengths
        level = np.arange(lengths.sum()) + np.repeat(first[rows] - offsets, lengths)
        x = (np.repeat(energies[rows], lengths) - eigenvalues[level]) / width
        result[rows] = np.add.reduceat(kernel(0, x) * weights[level], offsets)
    return result / width

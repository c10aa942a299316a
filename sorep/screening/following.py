"""Which eigenvalues along a line belong together.

Eigenvalues come sorted by energy. Where two bands cross, the sorted ones have kinks: their slopes jump, and a second
derivative taken across is meaningless. Here every band is followed along its line instead: it goes on to where a
parabola through its last three points leads. Assigning the predictions to the eigenvalues of the next k point in
order of energy makes the sum of squared errors smallest (sorting solves the assignment of numbers to numbers), so a
step is one sort, whatever the number of bands.

Nothing is known of slopes at the first points. A second sweep, from the far end back, begins with the slopes that the
first one ended with, and settles crossings there.

Where an avoided crossing is as narrow as the k points are apart, no sampling tells it from a crossing. A wrong choice
swaps two bands; interpolation by splines is linear in its data, so the errors of the two cancel in sums over bands of
equal weight.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_HISTORY = 3


def follow(distances: NDArray[np.float64], energies: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bands that go on smoothly through crossings.

    Parameters
    ----------
    distances : (n_k,) float array
        Strictly ascending; any spacing.
    energies : (n_k, n_band) float array
        In any order at each k point.

    Returns
    -------
    (n_k, n_band) array
        The same numbers at each k point; every column is one band.
    """
    forth = _sweep(distances, np.sort(energies, axis=1), 1)
    return _sweep(distances[::-1], forth[::-1], _HISTORY)[::-1]


def _sweep(distances: NDArray[np.float64], energies: NDArray[np.float64], start: int) -> NDArray[np.float64]:
    """Follow the bands from the k points before ``start``, in which they are in order already."""
    bands = energies.copy()
    for k in range(start, len(bands)):
        past = slice(max(0, k - _HISTORY), k)
        predicted = _extrapolation(distances[past], distances[k]) @ bands[past]
        bands[k, np.argsort(predicted, kind="stable")] = np.sort(energies[k])
    return bands


def _extrapolation(known: NDArray[np.float64], wanted: float) -> NDArray[np.float64]:
    """What values at ``known`` points weigh in the value at ``wanted``, by the polynomial through all (Lagrange)."""
    apart = known[:, None] - known
    ratios = (wanted - known) / np.where(apart == 0, 1.0, apart)
    np.fill_diagonal(ratios, 1.0)
    return ratios.prod(axis=1)

"""How far predicted spectra are from the true ones. Definitions:

    MAE = mean |p - y|,  MSE = mean (p - y)^2          over all bins of all materials
    R2  = 1 - sum (p - y)^2 / sum (y - mean y)^2       over all bins of all materials, one mean
    WD  = bin width * mean over materials of sum over bins |cumulated p / sum p - cumulated y / sum y|

R2 is not a mean of one number per bin: a bin that hardly varies would decide it. WD, the earth mover's distance,
compares shapes; what is negative of a prediction counts as zero there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sorep.errors import Mat2SpecError

NAN = float("nan")


def mae(predicted: ArrayLike, true: ArrayLike) -> float:
    """Mean absolute error of spectra (n, n_bins), in their unit."""
    p, y = _checked(predicted, true)
    return float(np.abs(p - y).mean())


def mse(predicted: ArrayLike, true: ArrayLike) -> float:
    """Mean squared error of spectra (n, n_bins), in the square of their unit."""
    p, y = _checked(predicted, true)
    return float(((p - y) ** 2).mean())


def r2(predicted: ArrayLike, true: ArrayLike) -> float:
    """Coefficient of determination over all values; NaN where the true ones are all equal."""
    p, y = _checked(predicted, true)
    spread = ((y - y.mean()) ** 2).sum()
    return float(1 - ((p - y) ** 2).sum() / spread) if spread > 0 else NAN


def wasserstein_each(predicted: ArrayLike, true: ArrayLike, bin_width: float) -> NDArray[np.float64]:
    """Distance of every material, (n,), in the unit of the bin width.

    Raises
    ------
    Mat2SpecError
        ``malformed-spectra``; ``empty-spectrum`` where one is nowhere positive, ``negative-spectrum`` of a true one,
        ``bad-bin-width``.
    """
    p, y = _checked(predicted, true)
    if not (np.isfinite(bin_width) and bin_width > 0):
        raise Mat2SpecError(f"a bin width of {bin_width}", code="bad-bin-width", remedy="give a positive number")
    if (y < 0).any():
        raise Mat2SpecError(
            f"true spectrum {np.flatnonzero((y < 0).any(axis=1))[0]} is negative somewhere",
            code="negative-spectrum",
            remedy="compare spectra in their own unit and not scaled ones",
        )
    cumulated = []
    for name, spectra in (("predicted", np.maximum(p, 0)), ("true", y)):
        sums = spectra.sum(axis=1, keepdims=True)
        if (sums == 0).any():
            raise Mat2SpecError(
                f"{name} spectrum {np.flatnonzero(sums[:, 0] == 0)[0]} is nowhere positive",
                code="empty-spectrum",
                remedy="the distance between shapes is not defined: leave it out",
            )
        cumulated.append(np.cumsum(spectra / sums, axis=1))
    return bin_width * np.abs(cumulated[0] - cumulated[1]).sum(axis=1)


def wasserstein(predicted: ArrayLike, true: ArrayLike, bin_width: float) -> float:
    """Mean of `wasserstein_each`, and the same errors."""
    return float(wasserstein_each(predicted, true, bin_width).mean())


def _checked(predicted: ArrayLike, true: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    p, y = np.asarray(predicted, dtype=float), np.asarray(true, dtype=float)
    if p.ndim != 2 or p.shape != y.shape or p.size == 0 or not (np.isfinite(p).all() and np.isfinite(y).all()):
        raise Mat2SpecError(
            f"predicted spectra of shape {p.shape} and true ones of shape {y.shape} cannot be compared",
            code="malformed-spectra",
            remedy="give two finite arrays of one shape (n, n_bins)",
        )
    return p, y

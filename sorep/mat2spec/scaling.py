"""Spectra as a network sees them, and the way back. Whatever is fitted is fitted on training spectra alone.

    standard    (y - mean) / deviation     per bin, of the training spectra; a bin that never varies is 0
    maxnorm     y / max(y)                 per material
    sumnorm     y / sum(y)                 per material

The last two keep the shape of a spectrum and drop its size, the maximum or the sum; a prediction has to get that from
elsewhere. Only where all training spectra have the same size, as those that were stored normalised, is it known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sorep.errors import Mat2SpecError

ScalingKind = Literal["sumnorm", "maxnorm", "standard"]

_CONSTANT = 1e-9  # of the largest deviation, or of a size: no variation but rounding


@dataclass(frozen=True, eq=False)
class Scaling:
    """A fitted scaling.

    Attributes
    ----------
    kind : {"sumnorm", "maxnorm", "standard"}
    mean, deviation : (n_bins,) float array or None
        Of `standard`; the deviation of a bin that never varies is 1.
    size : float or None
        Of `maxnorm` and `sumnorm`, where all training spectra have the same.
    """

    kind: ScalingKind
    mean: NDArray[np.float64] | None = None
    deviation: NDArray[np.float64] | None = None
    size: float | None = None

    @classmethod
    def fit(cls, spectra: ArrayLike, kind: ScalingKind = "sumnorm") -> Self:
        """From training spectra, (n, n_bins).

        Raises
        ------
        Mat2SpecError
            ``unknown-scaling``, ``malformed-spectra``; ``empty-spectrum`` and ``negative-spectrum`` of `maxnorm` and
            `sumnorm`.
        """
        if kind not in get_args(ScalingKind):
            raise Mat2SpecError(
                f"unknown scaling {kind!r}", code="unknown-scaling", remedy=f"use {', '.join(get_args(ScalingKind))}"
            )
        y = _checked(spectra)
        if kind == "standard":
            mean, deviation = y.mean(axis=0), y.std(axis=0)
            return cls(kind, mean, np.where(deviation > _CONSTANT * deviation.max(), deviation, 1.0))
        sizes = cls(kind).sizes(y)
        return cls(kind, size=float(sizes[0]) if np.ptp(sizes) <= _CONSTANT * sizes[0] else None)

    def sizes(self, spectra: ArrayLike) -> NDArray[np.float64]:
        """What `transform` divides by: maxima or sums, (n,); ones of `standard`."""
        y = _checked(spectra)
        if self.kind == "standard":
            return np.ones(len(y))
        if (y < 0).any():
            raise Mat2SpecError(
                f"spectrum {np.flatnonzero((y < 0).any(axis=1))[0]} is negative somewhere",
                code="negative-spectrum",
                remedy="set what is negative to zero, or use the scaling standard",
            )
        sizes = y.max(axis=1) if self.kind == "maxnorm" else y.sum(axis=1)
        if (sizes == 0).any():
            raise Mat2SpecError(
                f"spectrum {np.flatnonzero(sizes == 0)[0]} is zero throughout",
                code="empty-spectrum",
                remedy="leave it out, or use the scaling standard",
            )
        return sizes

    def transform(self, spectra: ArrayLike) -> NDArray[np.float64]:
        """Scaled spectra, (n, n_bins)."""
        y = _checked(spectra)
        if self.mean is None or self.deviation is None:
            return y / self.sizes(y)[:, np.newaxis]
        self._require_bins(y)
        return (y - self.mean) / self.deviation

    def inverse(self, scaled: ArrayLike, sizes: ArrayLike | None = None) -> NDArray[np.float64]:
        """Spectra in their own unit, (n, n_bins).

        Parameters
        ----------
        scaled : (n, n_bins)
        sizes : (n,) or None
            Maxima of `maxnorm`, sums of `sumnorm`; None where `size` is known, and of `standard`.

        Raises
        ------
        Mat2SpecError
            ``unknown-size``; ``unused-size`` where `standard` is given one.
        """
        y = _checked(scaled)
        if self.mean is not None and self.deviation is not None:
            if sizes is not None:
                raise Mat2SpecError("the scaling standard needs no sizes", code="unused-size", remedy="leave them out")
            self._require_bins(y)
            return y * self.deviation + self.mean
        if sizes is None:
            if self.size is None:
                raise Mat2SpecError(
                    f"{self.kind} gives the shape of a spectrum and not its size",
                    code="unknown-size",
                    remedy="give sizes, predicted or from a file, or stay with scaled spectra",
                )
            return y * self.size
        return y * np.asarray(sizes, dtype=float)[:, np.newaxis]

    def state(self) -> dict[str, Any]:
        """As JSON can hold it, without loss."""
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(self).items()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """What `state` describes."""
        arrays = {name: None if state[name] is None else np.array(state[name]) for name in ("mean", "deviation")}
        return cls(state["kind"], **arrays, size=state["size"])

    def _require_bins(self, y: NDArray[np.float64]) -> None:
        if self.mean is not None and y.shape[1] != len(self.mean):
            raise Mat2SpecError(
                f"{y.shape[1]} bins, and the scaling was fitted on {len(self.mean)}",
                code="malformed-spectra",
                remedy="use spectra on the same grid",
            )


def _checked(spectra: ArrayLike) -> NDArray[np.float64]:
    y = np.asarray(spectra, dtype=float)
    if y.ndim != 2 or y.size == 0 or not np.isfinite(y).all():
        raise Mat2SpecError(
            f"spectra are a finite array (n, n_bins), not one of shape {y.shape}"
            + ("" if np.isfinite(y).all() else " with values that are not finite"),
            code="malformed-spectra",
            remedy="leave out materials without a spectrum",
        )
    return y

"""Bands along straight lines in k space, each line by itself, from whatever holds a band structure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sorep.bands import BandStructure
from sorep.errors import ScreeningError

if TYPE_CHECKING:
    from pymatgen.electronic_structure.bandstructure import BandStructureSymmLine

_ELECTRON_TOLERANCE = 1e-4
_JUMP = 3.0  # times the median distance of neighbours
_STRAIGHT = 1e-4  # sine of an angle, above what the digits of pw.x's k points turn a line by


@dataclass(frozen=True, eq=False)
class Line:
    """Eigenvalues along a straight line.

    Attributes
    ----------
    label : str
        For users, e.g. ``"GAMMA-X"``.
    distances : (n_k,) float array
        Along the line, strictly ascending, 1/Angstrom (2 pi included). Any spacing.
    energies : (n_spin, n_k, n_band) float array
        Ascending at each k point, eV.

    Raises
    ------
    ScreeningError
        ``malformed-line``.
    """

    label: str
    distances: NDArray[np.float64]
    energies: NDArray[np.float64]

    def __post_init__(self) -> None:
        for name in ("distances", "energies"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=float))
        shape = self.energies.shape
        if len(shape) != 3 or (shape[1],) != self.distances.shape:
            raise self._malformed(f"distances {self.distances.shape} and energies {shape} do not fit together")
        if not (np.isfinite(self.distances).all() and np.isfinite(self.energies).all()):
            raise self._malformed("distances or energies are not finite")
        if (np.diff(self.distances) <= 0).any():
            raise self._malformed("distances do not ascend")

    def _malformed(self, what: str) -> ScreeningError:
        return ScreeningError(
            f"line {self.label}: {what}", code="malformed-line", remedy="give (n_k,) and (n_spin, n_k, n_band) numbers"
        )


def lines_of_band_structure(bands: BandStructure) -> list[Line]:
    """One line for each segment of the path."""
    return [
        Line("-".join(segment.labels), bands.path.distances[segment.slice], bands.energies[:, segment.slice])
        for segment in bands.path.segments
    ]


def lines_of_pymatgen(bands: BandStructureSymmLine) -> list[Line]:
    """One line for each branch."""
    from pymatgen.electronic_structure.core import Spin

    energies = np.array([bands.bands[spin].T for spin in (Spin.up, Spin.down) if spin in bands.bands])
    distances = np.array(bands.distance)
    ranges = [(b["name"], slice(b["start_index"], b["end_index"] + 1)) for b in bands.branches]
    return [Line(name, distances[part], energies[:, part]) for name, part in ranges]


def split_path(
    kpoints: NDArray[np.float64], energies: NDArray[np.float64], fractional: NDArray[np.float64]
) -> list[Line]:
    """Lines of a path that comes as nothing but a list of k points.

    A line ends where the direction changes, where a point is repeated, and before and after a step more than three
    times as long as the median one, which is a jump from line to line.

    Parameters
    ----------
    kpoints : (n_k, 3) float array
        Cartesian, 1/Angstrom (2 pi included).
    energies : (n_spin, n_k, n_band) float array
        eV.
    fractional : (n_k, 3) float array
        Names the ends of lines.
    """
    steps = np.diff(kpoints, axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    typical = np.median(lengths[lengths > 0]) if lengths.any() else 0.0
    is_joined = (lengths > 0) & (lengths <= _JUMP * typical)
    directions = steps / np.where(lengths > 0, lengths, 1.0)[:, None]
    lines: list[Line] = []
    for start, stop in _runs(is_joined, directions):
        label = "-".join(
            "(" + " ".join(f"{x:g}" for x in np.round(fractional[end], 4) + 0.0) + ")" for end in (start, stop)
        )
        distances = np.concatenate([[0.0], np.cumsum(lengths[start:stop])])
        lines.append(Line(label, distances, energies[:, start : stop + 1]))
    return lines


def _runs(is_joined: NDArray[np.bool_], directions: NDArray[np.float64]) -> Iterator[tuple[int, int]]:
    """First and last k point of every line."""
    start = 0
    for step in range(1, len(is_joined) + 1):
        is_over = step == len(is_joined) or not is_joined[step] or not is_joined[start]
        if is_over or np.linalg.norm(directions[step] - directions[start]) > _STRAIGHT:
            if is_joined[start]:
                yield start, step
            start = step


def count_valence(lines: Sequence[Line], n_electrons: float, degeneracy: float) -> list[int]:
    """Number of valence bands of each spin channel: those with the lowest maxima, which hold the electrons.

    Raises
    ------
    ScreeningError
        ``metal`` where no whole number of bands holds the electrons; ``no-bands`` where there are fewer bands.
    """
    n_filled = round(n_electrons / degeneracy)
    if abs(n_filled * degeneracy - n_electrons) > _ELECTRON_TOLERANCE:
        raise metal(f"{n_electrons:g} electrons fill no whole number of bands")
    maxima = np.max([line.energies.max(axis=1) for line in lines], axis=0)  # (n_spin, n_band)
    if n_filled > maxima.size:
        raise no_bands(f"{maxima.size} bands cannot hold {n_electrons:g} electrons")
    filled = np.argsort(maxima, axis=None, kind="stable")[:n_filled]
    return np.bincount(filled // maxima.shape[1], minlength=len(maxima)).tolist()


def metal(what: str) -> ScreeningError:
    return ScreeningError(what, code="metal", remedy="effective masses are those of semiconductors")


def no_bands(what: str) -> ScreeningError:
    return ScreeningError(what, code="no-bands", remedy="compute lines of k points, and some empty bands")

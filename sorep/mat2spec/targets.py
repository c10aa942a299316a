"""Spectra to learn from: tables of lists with their grid, or densities of states of a store."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sorep.errors import Mat2SpecError
from sorep.store import FeatureMatrix
from sorep.tables import missing_column, read_table

_UNEVEN = 1e-6  # of the spacing
_ROUNDING = 1e-12  # of the largest density; sums of smeared levels end this near to zero on either side of it


@dataclass(frozen=True, eq=False)
class Targets:
    """Spectra to learn from.

    Attributes
    ----------
    ids : (n,) array of str
        Sorted.
    spectra : (n, n_bins) float array
        Densities, finite and not negative.
    energies : (n_bins,) float array
        Bin centres, evenly spaced, ascending.
    unit : str
        Of the energies, e.g. ``"cm^-1"`` or ``"eV"``.

    Raises
    ------
    Mat2SpecError
        ``uneven-grid``, ``bad-spectrum``, ``duplicate-id``.
    """

    ids: NDArray[np.str_]
    spectra: NDArray[np.float64]
    energies: NDArray[np.float64]
    unit: str

    def __post_init__(self) -> None:
        order = np.argsort(self.ids)
        for name in ("ids", "spectra"):
            object.__setattr__(self, name, np.asarray(getattr(self, name))[order])
        if len(np.unique(self.ids)) < len(self.ids):
            raise Mat2SpecError("an id has several spectra", code="duplicate-id", remedy="keep one of each id")
        bin_width(self.energies)
        if self.spectra.shape != (len(self.ids), len(self.energies)):
            raise Mat2SpecError(
                f"spectra of shape {self.spectra.shape}, {len(self.ids)} ids and {len(self.energies)} bins",
                code="bad-spectrum",
                remedy="give the grid of these spectra",
            )
        is_wrong = ~np.isfinite(self.spectra).all(axis=1) | (self.spectra < 0).any(axis=1)
        if is_wrong.any():
            raise Mat2SpecError(
                f"{is_wrong.sum()} spectra are not finite or negative somewhere, the first of them that of "
                f"{self.ids[is_wrong][0]!r}",
                code="bad-spectrum",
                remedy="a density of states is finite and not negative: leave these rows out, or compute them anew",
            )

    @property
    def bin_width(self) -> float:
        """In the unit of the energies."""
        return bin_width(self.energies)

    def between(self, low: float, high: float) -> Targets:
        """The bins whose centres lie from ``low`` to ``high``, both included.

        Raises
        ------
        Mat2SpecError
            ``empty-window``.
        """
        kept = (self.energies >= low - _UNEVEN) & (self.energies <= high + _UNEVEN)
        if kept.sum() < 2:
            raise Mat2SpecError(
                f"{kept.sum()} of {len(kept)} bins lie from {low:g} to {high:g} {self.unit}",
                code="empty-window",
                remedy=f"the grid goes from {self.energies[0]:g} to {self.energies[-1]:g}",
            )
        return replace(self, spectra=self.spectra[:, kept], energies=self.energies[kept])


def bin_width(energies: NDArray[np.float64]) -> float:
    """Spacing of an even, ascending grid.

    Raises
    ------
    Mat2SpecError
        ``uneven-grid``.
    """
    steps = np.diff(energies)
    if len(steps) < 1 or not np.isfinite(steps).all() or steps.min() <= 0 or np.ptp(steps) > _UNEVEN * steps.max():
        raise Mat2SpecError(
            "the grid is not evenly spaced and ascending",
            code="uneven-grid",
            remedy="give the centres of bins of one width; distances between spectra have no meaning otherwise",
        )
    return float(steps.mean())


def load_targets(path: str | Path, id_column: str, column: str, grid: str | Path) -> Targets:
    """Spectra of a Parquet table whose rows hold one list of numbers each.

    Parameters
    ----------
    path : str or Path
    id_column, column : str
        Of the ids, and of the lists.
    grid : str or Path
        JSON file with ``grid``, the bin centres, and ``unit``.

    Raises
    ------
    TableError
        Those of `sorep.tables.read_table`; ``missing-column``.
    Mat2SpecError
        ``bad-grid``, ``bad-spectrum``, ``uneven-grid``.
    """
    table = read_table(path, id_column)
    if column not in table:
        raise missing_column(column, table, path)
    energies, unit = read_grid(grid)
    for id, values in table[column].items():
        if not isinstance(values, list | np.ndarray) or np.shape(values) != energies.shape:
            raise Mat2SpecError(
                f"{path}: {column} of {id!r} is not a list of {len(energies)} numbers",
                code="bad-spectrum",
                remedy=f"give a .parquet table of lists that fit {grid}",
            )
    return Targets(table.index.to_numpy(dtype=str), np.stack(table[column].tolist()).astype(float), energies, unit)


def read_grid(path: str | Path) -> tuple[NDArray[np.float64], str]:
    """Bin centres and their unit.

    Raises
    ------
    Mat2SpecError
        ``bad-grid``.
    """
    try:
        content = json.loads(Path(path).read_text())
        return np.array(content["grid"], dtype=float).reshape(-1), str(content["unit"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Mat2SpecError(
            f"{path} does not describe a grid: {type(error).__name__}: {error}",
            code="bad-grid",
            remedy='give a JSON file like {"unit": "cm^-1", "grid": [0, 20, 40]}',
        ) from None


def targets_of_feature(matrix: FeatureMatrix) -> Targets:
    """Densities of states of a store as targets, e.g. ``mat2spec-edos`` of operator ``scf``; energies in eV.

    Raises
    ------
    FeatureError
        ``no-grid`` where the feature is something else.
    Mat2SpecError
        ``uneven-grid`` where windows overlap.
    """
    values = np.where(np.abs(matrix.values) < _ROUNDING * np.abs(matrix.values).max(), 0.0, matrix.values)
    return Targets(matrix.ids, values, matrix.spec.energies, "eV")

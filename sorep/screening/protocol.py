"""What learning curves are asked for: sizes of the training set, splits, hold-out, models; and what pictures show.

The published protocol is `PAPER` with `PAPER_FEATURES`: 28 sizes from 0.1 % to 80 % of all rows, 30 splits each, rows
split at random, the published forest. The paper states the range and the number of splits; the sizes are chosen here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from sorep.errors import UsageError
from sorep.features import FeatureSpec
from sorep.screening.dataset import Dataset, Part
from sorep.settings import Settings

BLOCKS_PER_WINDOW = 20
"""Blocks of neighbouring energies that are permuted together, of each window of a grid."""

MOST_ALONE = 200
"""Features without an axis of energies up to which each is permuted alone."""

BLOCKS_OF_MANY = 50
"""Blocks of consecutive ones where there are more."""

_ANCHORS = {"absolute": "energy", "vbm": "energy - VBM", "fermi": "energy - Fermi energy", "cbm": "energy - CBM"}

Size = Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)]


class Protocol(Settings):
    """How learning curves are computed.

    Attributes
    ----------
    sizes : tuple of int or float
        Training rows: numbers of rows, or fractions (below 1) of all labelled rows.
    splits : int
        Independent draws for each size.
    split : {"grouped", "random"}
        Whether structures of one reduced formula stay together.
    holdout : float
        Fraction of the rows that is held out before anything else.
    models : tuple of str
        See `sorep.screening.models.build_model`.
    params : dict
        Arguments of the models that replace their presets'.
    within : str or None
        Comparison that chooses a subset of the hold-out, recorded in words.
    permutation : int, float or None
        The size at which permutation importance is computed.
    seed : int
    """

    sizes: Annotated[tuple[Size, ...], Field(min_length=1)] = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.8)
    splits: Annotated[int, Field(ge=1)] = 10
    split: Literal["grouped", "random"] = "grouped"
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.1
    models: Annotated[tuple[str, ...], Field(min_length=1)] = ("default",)
    params: dict[str, Any] = Field(default_factory=dict)
    within: str | None = None
    permutation: Size | None = None
    seed: Annotated[int, Field(ge=0)] = 0

    @field_validator("models")
    @classmethod
    def _all_different(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(models)) < len(models):
            raise ValueError("a model is named twice")
        return models

    def n_rows(self, n: int, n_pool: int) -> list[int]:
        """The training rows asked for, ascending, each once.

        Parameters
        ----------
        n, n_pool : int
            Number of all rows, and of those that are not held out.

        Raises
        ------
        UsageError
            ``bad-size`` where the pool is too small.
        """
        rows = sorted({_rows_of(size, n) for size in self.sizes})
        if rows[-1] >= n_pool:
            raise UsageError(
                f"{rows[-1]} training rows were asked for, and {n_pool} of {n} are not held out",
                code="bad-size",
                remedy="give smaller sizes, or hold less out; something must be left to predict",
            )
        return rows

    def permuted_rows(self, n: int, n_rows: list[int]) -> int | None:
        """The number of training rows at which permutation importance is computed.

        Raises
        ------
        UsageError
            ``bad-size`` where it is none of those computed.
        """
        if self.permutation is None:
            return None
        chosen = _rows_of(self.permutation, n)
        if chosen not in n_rows:
            raise UsageError(
                f"permutation importance was asked for at {self.permutation:g}, which is none of the sizes",
                code="bad-size",
                remedy=f"choose from {', '.join(f'{size:g}' for size in self.sizes)}",
            )
        return chosen


_RENARD = (1.0, 1.25, 1.6, 2.0, 2.5, 3.15, 4.0, 5.0, 6.3, 8.0)  # ten steps a decade

PAPER_FEATURES = ("vbm", "fermi", "cbm", "vbm-fermi-cbm")
"""The SOREPs of the paper; its fifth feature set, SOAP, is a baseline here."""

PAPER = Protocol(
    sizes=(
        *(round(step * decade, 6) for decade in (1e-3, 1e-2) for step in _RENARD),
        *(0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8),
    ),
    splits=30,
    split="random",
    models=("published",),
)


class Panel(BaseModel):
    """Consecutive features that one picture shows.

    Attributes
    ----------
    title : str
        The feature that they belong to.
    start, stop : int
        The first of them, and the one after the last.
    axis : str
        What ``energies`` are; empty without these.
    energies : tuple of float
        eV; empty where the features are told apart by ``names``.
    names : tuple of str
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    start: int
    stop: int
    axis: str = ""
    energies: tuple[float, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def blocks(self) -> list[tuple[int, int]]:
        """Ranges of features that are permuted together."""
        n = self.stop - self.start
        n_blocks = BLOCKS_PER_WINDOW if self.energies else n if n <= MOST_ALONE else BLOCKS_OF_MANY
        edges = self.start + np.linspace(0, n, min(n_blocks, n) + 1).round().astype(int)
        return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))


def panels_of(dataset: Dataset) -> list[Panel]:
    """The panels of a feature set: each window of a grid, and each part without a grid."""
    panels, start = [], 0
    for part in dataset.parts:
        names = dataset.feature_names[start : start + part.n_features]
        panels += _panels_of_part(part, names, start)
        start += part.n_features
    return panels


def _panels_of_part(part: Part, names: list[str], start: int) -> list[Panel]:
    words = part.identity.words.get("feature")
    if words is None or "windows" not in words:
        return [Panel(title=part.name, start=start, stop=start + part.n_features, names=tuple(names))]
    spec = FeatureSpec(name=part.name, **words)
    panels, first = [], 0
    for window in spec.windows:
        energies = tuple(spec.energies[first : first + window.points].tolist())
        at, axis = start + first, f"{_ANCHORS[window.anchor]} (eV)"
        panels.append(Panel(title=part.name, start=at, stop=at + window.points, axis=axis, energies=energies))
        first += window.points
    if first < part.n_features:
        rest = tuple(names[first:])
        panels.append(Panel(title=part.name, start=start + first, stop=start + part.n_features, names=rest))
    return panels


def _rows_of(size: float, n: int) -> int:
    return max(1, round(size * n)) if size < 1 else int(size)

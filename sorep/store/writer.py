"""Committing results while a run goes on: batches bounded by time and size.

A batch is committed table by table. A structure counts as done when its spectrum is there, so spectra come after the
names, features and band structures that belong to them: what a kill between two tables leaves behind is computed again,
and rows that are there already are not written twice.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sorep.store.tables import Tables

_ORDER = ("structures", "features", "band_structures", "spectra", "failures")


class StoreWriter:
    """Collects rows and commits them together.

    Parameters
    ----------
    tables : Tables
    max_rows : int
        Commit when this many rows wait.
    max_seconds : float
        Commit when the oldest waiting row is this old, at the next row or `tick`.
    """

    def __init__(self, tables: Tables, *, max_rows: int = 512, max_seconds: float = 15.0) -> None:
        self._tables = tables
        self._max_rows = max_rows
        self._max_seconds = max_seconds
        self._waiting: dict[str, list[dict[str, Any]]] = {name: [] for name in _ORDER}
        self._oldest: float | None = None

    def add(self, table: str, rows: Sequence[dict[str, Any]]) -> None:
        """Queue rows of a table of results. Nothing is committed until `tick`."""
        if rows:
            self._waiting[table].extend(rows)
            self._oldest = self._oldest or time.monotonic()

    def tick(self) -> None:
        """Commit if the batch is large or old enough. Call it between structures."""
        if self._oldest is None:
            return
        old = time.monotonic() - self._oldest > self._max_seconds
        if old or sum(map(len, self._waiting.values())) >= self._max_rows:
            self.flush()

    def flush(self) -> None:
        """Commit everything that waits."""
        for name in _ORDER:
            self._tables.append(name, self._waiting[name])
            self._waiting[name] = []  # only now: an interrupt in between costs a duplicate, not a result
        self._oldest = None

"""What a calculation of each structure is expected to cost, relative to the others.

The absolute cost of a converged calculation depends on machine and settings, but the single shot has the same cell,
basis and k points, so its CPU time tells which structures are dear and which are cheap. Costs are scaled to a mean of
one over the structures at hand: a budget of 100 pays for a hundred average calculations.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from sorep.errors import ScreeningError, UsageError
from sorep.store import FeatureStore

EQUAL, SINGLE_SHOT = "equal", "single-shot"


def costs_of(
    store: FeatureStore, ids: NDArray[np.str_], source: str | None = None, id_column: str = "id"
) -> tuple[NDArray[np.float64], str]:
    """Relative costs, and where they come from in words.

    Parameters
    ----------
    store : FeatureStore
    ids : (n,) array of str
    source : str or None
        ``equal``: one each. ``single-shot``: CPU time of the stored single shot. ``TABLE:COLUMN``: a column of a .csv
        or .parquet table. None: ``single-shot`` where the store has one of every structure, else ``equal``.
    id_column : str
        Of the table.

    Returns
    -------
    costs : (n,) array
        Their mean is one.
    words : str

    Raises
    ------
    UsageError
        ``bad-option``.
    ScreeningError
        ``no-cost`` where a structure has none, ``bad-cost`` where one is not above zero; or as `read_numbers`.
    """
    if source is None:
        seconds = _single_shot_seconds(store, ids)
        source = SINGLE_SHOT if (seconds > 0).all() else EQUAL
    if source == EQUAL:
        return np.ones(len(ids)), "every calculation counts the same"
    if source == SINGLE_SHOT:
        return _relative(_single_shot_seconds(store, ids), ids), "CPU time of the single shot"
    table, separator, column = source.rpartition(":")
    if not (separator and table and column):
        raise UsageError(
            f"a cost of {source!r}", code="bad-option", remedy=f"give {EQUAL}, {SINGLE_SHOT}, or TABLE:COLUMN"
        )
    from sorep.tables import read_numbers

    numbers = read_numbers(Path(table), column, id_column)
    return _relative(numbers.reindex(ids.tolist()).to_numpy(dtype=np.float64), ids), f"{column} of {table}"


def _single_shot_seconds(store: FeatureStore, ids: NDArray[np.str_]) -> NDArray[np.float64]:
    """CPU time of each structure's single shot, the latest of several; NaN where there is none."""
    table = store.tables.read("spectra", ["content_key", "cpu_seconds"], pc.field("operator") == SINGLE_SHOT)
    latest_first = zip(table["content_key"].to_pylist(), table["cpu_seconds"].to_pylist(), strict=True)
    seconds = dict(reversed(list(latest_first)))
    keys = store.content_keys()
    return np.array([seconds.get(keys.get(id, "")) for id in ids.tolist()], dtype=np.float64)


def _relative(costs: NDArray[np.float64], ids: NDArray[np.str_]) -> NDArray[np.float64]:
    missing = np.isnan(costs)
    if missing.any():
        raise ScreeningError(
            f"{missing.sum()} of {len(ids)} structures have no cost, the first of them {ids[missing][0]!r}",
            code="no-cost",
            remedy="give a cost of every structure, or --cost equal",
        )
    wrong = ~((costs > 0) & np.isfinite(costs))
    if wrong.any():
        raise ScreeningError(
            f"the cost of {ids[wrong][0]!r} is {costs[wrong][0]:g}",
            code="bad-cost",
            remedy="give every structure a cost above zero",
        )
    return costs / costs.mean()

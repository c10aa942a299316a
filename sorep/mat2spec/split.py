"""Which crystals are trained on, which choose the epoch to stop at, and which are kept for the test.

A split is made of ids, never of row numbers, and does not depend on the order of a table. Crystals of one reduced
formula stay together unless asked otherwise: a model that has seen one polymorph is flattered by a test on another.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sorep.errors import Mat2SpecError, UsageError
from sorep.tables import missing_column, read_table, write_table

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")
KINDS = ("grouped", "random")


@dataclass(frozen=True)
class Split:
    """Ids of each part, sorted."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]

    def rows(self, part: Part, ids: NDArray[np.str_]) -> NDArray[np.intp]:
        """Rows of ``ids`` that belong to a part, ascending."""
        return np.flatnonzero(np.isin(ids, np.array(asdict(self)[part], dtype=str)))

    def save(self, path: Path) -> None:
        """A table with the columns ``id`` and ``split``, which `load` takes."""
        import pandas as pd

        rows = sorted((id, part) for part in PARTS for id in asdict(self)[part])
        write_table(pd.DataFrame(rows, columns=["id", "split"]), path)

    @classmethod
    def load(cls, path: str | Path, id_column: str = "id") -> Split:
        """From a .csv or .parquet table with a column ``split``: train, val or test.

        Raises
        ------
        TableError
            Those of `sorep.tables.read_table`; ``missing-column``.
        Mat2SpecError
            ``bad-split``.
        """
        table = read_table(path, id_column)
        if "split" not in table:
            raise missing_column("split", table, path)
        unknown = sorted(set(table["split"].astype(str)) - set(PARTS))
        if unknown:
            raise Mat2SpecError(
                f"{path}: split {unknown[0]!r} is none of {', '.join(PARTS)}",
                code="bad-split",
                remedy="leave rows out that belong to no part",
            )
        members: dict[str, list[str]] = {part: [] for part in PARTS}
        for id, part in zip(table.index, table["split"], strict=True):
            members[part].append(id)
        return cls(*(tuple(sorted(members[part])) for part in PARTS))


def make_split(
    ids: NDArray[np.str_],
    formulas: NDArray[np.str_],
    *,
    kind: str = "grouped",
    val: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
) -> Split:
    """Draw a split; the same ids, formulas and seed give the same one.

    Formulas (or ids) are put in the order of their hash with the seed; the first ones fill the test part, the next the
    validation part, as nearly as whole formulas allow.

    Parameters
    ----------
    ids, formulas : (n,) arrays of str
        Formulas are reduced.
    kind : {"grouped", "random"}
        Whole formulas, or single crystals.
    val, test : float
        Shares of the crystals.
    seed : int

    Raises
    ------
    UsageError
        ``bad-option``.
    Mat2SpecError
        ``too-few-structures`` where a part would be empty.
    """
    if kind not in KINDS:
        raise UsageError(f"unknown kind of split {kind!r}", code="bad-option", remedy=f"choose {' or '.join(KINDS)}")
    if not (val > 0 and test > 0 and val + test < 1):
        raise UsageError(f"shares {val:g} and {test:g}", code="bad-option", remedy="give two that sum to less than 1")
    names, which, sizes = np.unique(formulas if kind == "grouped" else ids, return_inverse=True, return_counts=True)
    keys = [hashlib.sha256(f"{seed}:{name}".encode()).digest() for name in names.tolist()]
    order = np.array(sorted(range(len(names)), key=keys.__getitem__), dtype=np.intp)
    share = (np.cumsum(sizes[order]) - 0.5 * sizes[order]) / len(ids)
    part_of = np.empty(len(names), dtype=np.intp)
    part_of[order] = np.where(share < test, 2, np.where(share < test + val, 1, 0))
    parts = [tuple(sorted(ids[part_of[which] == part].tolist())) for part in range(3)]
    for name, members in zip(PARTS, parts, strict=True):
        if not members:
            raise Mat2SpecError(
                f"{len(ids)} crystals of {len(names)} {'formulas' if kind == 'grouped' else 'ids'} leave the part "
                f"{name!r} empty",
                code="too-few-structures",
                remedy="give more crystals, or raise --val-share or --test-share",
            )
    return Split(*parts)


def shared_formulas(formulas: NDArray[np.str_], training: NDArray[np.str_]) -> NDArray[np.bool_]:
    """Whether each formula occurs in the training part: its crystals are not unseen to a model."""
    return np.isin(formulas, np.unique(training))

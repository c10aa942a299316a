"""Some of the crystals, named by what they are made of: those that a model is fine-tuned on, or judged by.

A subclass is a file of ids (.txt with one on each line, or a .csv or .parquet table), or conditions joined by ``and``:

    contains O          these elements occur (several: ``contains Li O``)
    without La Ce       these do not
    elements 3          so many elements
    space-group 225     of this international number
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sorep.cells import canonical_cell
from sorep.errors import Mat2SpecError, StructureError, UsageError
from sorep.mat2spec.data import Inputs
from sorep.tables import DEFAULT_ID_COLUMN, read_table

_SYMPREC = 1e-2  # Angstrom; relaxed structures keep their symmetry no better

_Condition = Callable[[Inputs], NDArray[np.bool_]]


def subclass_mask(text: str, inputs: Inputs, id_column: str = DEFAULT_ID_COLUMN) -> NDArray[np.bool_]:
    """Which crystals belong to a subclass, (n,).

    Parameters
    ----------
    text : str
        See above; a name that ends in .txt, .csv or .parquet is that of a file.
    inputs : Inputs
    id_column : str
        Of a table.

    Raises
    ------
    UsageError
        ``bad-subclass``.
    Mat2SpecError
        ``unreadable-ids``, ``empty-subclass`` where no crystal belongs to it.
    TableError
        Those of `sorep.tables.read_table`.
    """
    if Path(text).suffix in (".txt", ".csv", ".parquet"):
        mask = np.isin(inputs.ids, _ids(Path(text), id_column))
    else:
        conditions = [_condition(part.split(), text) for part in text.split(" and ")]
        mask = np.logical_and.reduce([condition(inputs) for condition in conditions])
    if not mask.any():
        raise Mat2SpecError(
            f"none of {len(inputs)} crystals belongs to {text!r}",
            code="empty-subclass",
            remedy="compare it with the ids and formulas of the data",
        )
    return mask


def _ids(path: Path, id_column: str) -> NDArray[np.str_]:
    if path.suffix != ".txt":
        return read_table(path, id_column).index.to_numpy(dtype=str)
    try:
        return np.array([line.strip() for line in path.read_text().splitlines() if line.strip()], dtype=str)
    except (OSError, UnicodeDecodeError) as error:
        raise Mat2SpecError(
            f"cannot read {path}: {error}", code="unreadable-ids", remedy="give a text file with one id on each line"
        ) from None


def _condition(words: list[str], text: str) -> _Condition:
    match words:
        case ["contains", *symbols] if symbols:
            wanted = _numbers(symbols, text)
            return lambda inputs: np.array([wanted <= set(s.numbers.tolist()) for s in inputs.structures])
        case ["without", *symbols] if symbols:
            unwanted = _numbers(symbols, text)
            return lambda inputs: np.array([not unwanted & set(s.numbers.tolist()) for s in inputs.structures])
        case ["elements", number] if number.isdecimal():
            return lambda inputs: np.array([len(set(s.numbers.tolist())) == int(number) for s in inputs.structures])
        case ["space-group", number] if number.isdecimal():
            return lambda inputs: np.array([group == int(number) for _, group in symmetries(inputs)])
    raise _bad(text)


def symmetries(inputs: Inputs) -> list[tuple[int, int]]:
    """Atoms of the primitive cell and space group of every crystal, 0 for a group that was not found."""
    found = []
    for structure in inputs.structures:
        try:
            cell = canonical_cell(structure, symprec=_SYMPREC)
            found.append((cell.structure.n_atoms, cell.space_group))
        except StructureError:
            found.append((structure.n_atoms, 0))
    return found


def _numbers(symbols: list[str], text: str) -> set[int]:
    from ase.data import atomic_numbers

    if unknown := [symbol for symbol in symbols if symbol not in atomic_numbers]:
        raise _bad(text, f": {unknown[0]!r} is no element")
    return {atomic_numbers[symbol] for symbol in symbols}


def _bad(text: str, why: str = "") -> UsageError:
    return UsageError(
        f"{text!r} names no subclass{why}",
        code="bad-subclass",
        remedy="write it like 'contains O and elements 3', or name a .txt, .csv or .parquet file of ids",
    )

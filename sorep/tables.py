"""Tables of properties and labels: CSV and Parquet files with one structure a row, told apart by their ids.

Nothing in a table is guessed. What is missing stays missing, and what is neither a number nor a label where one is
expected is refused with the id of its row. Ids are text: in CSV files ``007`` and ``NaN`` are ids like any other.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sorep.errors import TableError, UsageError

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".parquet")
DEFAULT_ID_COLUMN = "id"

_MISSING = ("", "nan", "na", "n/a", "<na>", "null", "none")
_LABELS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
_SHOWN = 3


def read_table(path: str | Path, id_column: str = DEFAULT_ID_COLUMN) -> pd.DataFrame:
    """All columns of a table but the ids, which are its index (text, name ``id``); the values of a CSV file are text.

    Raises
    ------
    TableError
        ``not-a-table`` where the file is missing, of another kind, or damaged; ``missing-column`` where it has no such
        column of ids; ``empty-table``; ``missing-id``, ``duplicate-id``.
    """
    frame = _read(Path(path), id_column)
    if id_column not in frame:
        raise missing_column(id_column, frame, path)
    if frame.empty:
        raise TableError(f"{path} has no rows", code="empty-table", remedy="give a row for each structure")
    is_missing = frame[id_column].isna() | (frame[id_column].astype(str).str.strip() == "")
    if is_missing.any():
        raise TableError(
            f"{path}: {is_missing.sum()} rows have no {id_column}, the first is row {int(np.argmax(is_missing)) + 1}",
            code="missing-id",
            remedy="give every row the id of its structure",
        )
    frame = frame.set_index(frame[id_column].astype(str)).rename_axis("id").drop(columns=id_column)
    twice = frame.index[frame.index.duplicated()].unique()
    if len(twice):
        raise TableError(
            f"{path} has several rows for {_some(twice)}", code="duplicate-id", remedy="keep one row of each id"
        )
    return frame


def numbers(table: pd.DataFrame, column: str, path: str | Path) -> pd.Series:
    """A column as floats by id, NaN where missing. ``path`` is named in errors.

    Raises
    ------
    TableError
        ``missing-column``, ``not-a-number``.
    """
    import pandas as pd

    values = _column(table, column, path)
    present = values.loc[~_is_missing(values)]
    parsed = np.asarray(pd.to_numeric(present.to_numpy(dtype=object), errors="coerce"), dtype=float)
    _refuse(present, np.isnan(parsed), column, path, "not-a-number", "write missing values as nothing or nan")
    return pd.Series(parsed, present.index, name=column).reindex(values.index)


def read_numbers(path: str | Path, column: str, id_column: str = DEFAULT_ID_COLUMN) -> pd.Series:
    """A numeric property of every structure: floats by id.

    Raises
    ------
    TableError
        Those of `read_table` and `numbers`; ``missing-number``, ``infinite-number``.
    """
    values = numbers(read_table(path, id_column), column, path)
    _refuse(values, values.isna(), column, path, "missing-number", "compute what is missing, or remove these rows")
    _refuse(values, np.isinf(values), column, path, "infinite-number", "remove these rows")
    return values


def read_labels(
    path: str | Path, label_column: str = "label", id_column: str = DEFAULT_ID_COLUMN, *, both: bool = True
) -> pd.Series:
    """A label of every structure: bool by id.

    Labels are true and false, in any case, or 1 and 0. ``both`` asks for some of each kind.

    Raises
    ------
    TableError
        Those of `read_table`; ``missing-column``; ``missing-label`` where a row has none, ``not-a-label`` where it has
        anything else, ``one-class`` where all have the same.
    """
    values = _column(read_table(path, id_column), label_column, path)
    remedy = "compute what is missing, or remove these rows"
    _refuse(values, _is_missing(values), label_column, path, "missing-label", remedy)
    labels = values.astype(str).str.strip().str.lower().map(_LABELS)
    _refuse(values, labels.isna(), label_column, path, "not-a-label", "labels are true and false, or 1 and 0")
    labels = labels.astype(bool)
    if both and labels.nunique() < 2:
        raise TableError(
            f"{path}: all {len(labels)} labels are {str(labels.iloc[0]).lower()}",
            code="one-class",
            remedy="give labels of both kinds: nothing can be learned from one",
        )
    return labels


def check_suffix(path: Path) -> None:
    """Refuse to write what `write_table` cannot.

    Raises
    ------
    UsageError
        ``unknown-format``.
    """
    if path.suffix not in SUFFIXES:
        raise UsageError(
            f"cannot write {path.suffix or 'a name without suffix'}",
            code="unknown-format",
            remedy=f"give a {' or '.join(SUFFIXES)} file",
        )


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write the columns of a table; its index is left out.

    Raises
    ------
    UsageError
        ``unknown-format``.
    TableError
        ``unwritable-file``.
    """
    check_suffix(path)
    try:
        frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_parquet(path, index=False)
    except OSError as error:
        raise TableError(
            f"cannot write {path}: {error}", code="unwritable-file", remedy="check folder, permissions and space"
        ) from None


def missing_column(name: str, table: pd.DataFrame, path: str | Path) -> TableError:
    columns = [str(column) for column in table.columns]
    return TableError(
        f"no column {name!r} in {path}, whose columns are {', '.join(columns) or '(none)'}",
        code="missing-column",
        remedy="name the column that holds it",
    )


def _read(path: Path, id_column: str) -> pd.DataFrame:
    import pandas as pd

    if path.suffix not in SUFFIXES or not path.is_file():
        what = "a folder" if path.is_dir() else "no such file" if not path.exists() else "of another kind"
        raise _not_a_table(path, what)
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False)
    except (OSError, ValueError) as error:  # of pyarrow and of pandas; also text that is not UTF-8
        raise _not_a_table(path, f"{type(error).__name__}: {error}") from None


def _not_a_table(path: Path, what: str) -> TableError:
    return TableError(f"{path}: {what}", code="not-a-table", remedy=f"give a {' or '.join(SUFFIXES)} file")


def _column(table: pd.DataFrame, name: str, path: str | Path) -> pd.Series:
    if name not in table:
        raise missing_column(name, table, path)
    return table.loc[:, name]


def _is_missing(values: pd.Series) -> pd.Series:
    return values.isna() | values.astype(str).str.strip().str.lower().isin(_MISSING)


def _refuse(values: pd.Series, is_wrong: Any, column: str, path: str | Path, code: str, remedy: str) -> None:
    """Raise an error that shows some of the wrong values, if there are any."""
    rows = values.loc[is_wrong]
    if len(rows):
        what = "have no value" if code.startswith("missing") else f"have values like {str(rows.iloc[0])!r}"
        message = f"{path}: {len(rows)} rows {what} in column {column!r}: {_some(rows.index)}"
        raise TableError(message, code=code, remedy=remedy)


def _some(ids: Any) -> str:
    return ", ".join(map(str, ids[:_SHOWN])) + (f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else "")

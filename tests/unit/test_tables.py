"""Tables of properties and labels: what is read from them and what is refused, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sorep.errors import SorepError, TableError, UsageError
from sorep.tables import numbers, read_labels, read_numbers, read_table, write_table


def csv(folder: Path, text: str) -> Path:
    path = folder / "table.csv"
    path.write_text(text)
    return path


def refusal(function: Callable, *args: object) -> SorepError:
    with pytest.raises(SorepError) as caught:
        function(*args)
    return caught.value


def test_ids_are_text(tmp_path: Path) -> None:
    table = read_table(csv(tmp_path, "\ufeffid,x\n007,1\nNaN,2\nNone,3\n1e3,4\n"))
    assert table.index.tolist() == ["007", "NaN", "None", "1e3"]
    assert (table.index.name, list(table)) == ("id", ["x"])
    path = tmp_path / "t.parquet"
    pd.DataFrame({"number": [7, 8], "x": [1.0, 2.0]}).to_parquet(path)
    assert read_table(path, "number").index.tolist() == ["7", "8"]


def test_numbers(tmp_path: Path) -> None:
    path = csv(tmp_path, "id,x\na,1.5\nb, -2e-3 \nc,\nd,nan\ne,NA\nf,inf\ng,3\n")
    found = numbers(read_table(path), "x", path)
    assert found.index.tolist() == list("abcdefg")
    np.testing.assert_array_equal(found, [1.5, -2e-3, np.nan, np.nan, np.nan, np.inf, 3.0])
    kept = csv(tmp_path, "id,x\na,1.5\nb,3\n")
    assert read_numbers(kept, "x").to_dict() == {"a": 1.5, "b": 3.0}


@pytest.mark.parametrize("dtype", ["Int64", "Float64", "float32", "object"])
def test_numbers_of_parquet_columns(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "t.parquet"
    missing = np.nan if dtype == "float32" else None
    pd.DataFrame({"id": ["a", "b"], "x": pd.Series([2, missing], dtype=dtype)}).to_parquet(path)
    found = numbers(read_table(path), "x", path)
    assert found.dtype == float
    np.testing.assert_array_equal(found, [2.0, np.nan])


@pytest.mark.parametrize(
    "values",
    [
        ["True", "false", "TRUE"],
        ["1", "0", "1.0"],
        [" true", "False ", "1"],
    ],
)
def test_labels_in_csv(tmp_path: Path, values: list[str]) -> None:
    rows = "\n".join(f"{id},{value}" for id, value in zip("abc", values, strict=True))
    labels = read_labels(csv(tmp_path, f"id,label\n{rows}\n"))
    pd.testing.assert_series_equal(
        labels, pd.Series([True, False, True], pd.Index(list("abc"), name="id"), name="label")
    )


@pytest.mark.parametrize("dtype", ["bool", "boolean", "int64", "Int8", "float64", "object"])
def test_labels_in_parquet(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "t.parquet"
    pd.DataFrame({"name": ["a", "b"], "good": pd.Series([True, False]).astype(dtype)}).to_parquet(path)
    labels = read_labels(path, "good", "name")
    assert labels.dtype == bool
    assert labels.to_dict() == {"a": True, "b": False}


@pytest.mark.parametrize(
    ("text", "code", "needle"),
    [
        ("id,label\na,true\nb,\nc,nan\nd,false\n", "missing-label", "2 rows have no value in column 'label': b, c"),
        ("id,label\na,true\nb,maybe\n", "not-a-label", "'maybe' in column 'label': b"),
        ("id,label\na,2\nb,1\n", "not-a-label", "'2'"),
        ("id,label\na,0.5\nb,1\n", "not-a-label", "'0.5'"),
        ("id,label\na,true\nb,true\n", "one-class", "all 2 labels are true"),
        ("id,label\na,0\n", "one-class", "false"),
        ("id,label\na,1\nb,0\na,1\n", "duplicate-id", "a"),
        ("id,label\na,1\n,0\n", "missing-id", "the first is row 2"),
        ("id,labels\na,1\nb,0\n", "missing-column", "'label'"),
        ("name,label\na,1\nb,0\n", "missing-column", "no column 'id'"),
        ("id,label\n", "empty-table", "no rows"),
        ("", "not-a-table", "EmptyDataError"),
        ("id,label\na,1\nb,0,1,2\n", "not-a-table", "ParserError"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.islower() and "\n" not in value else "",
)
def test_labels_that_are_refused(tmp_path: Path, text: str, code: str, needle: str) -> None:
    error = refusal(read_labels, csv(tmp_path, text))
    assert isinstance(error, TableError)
    assert error.code == code
    assert needle in error.message
    assert error.remedy


def test_a_long_list_of_ids_is_cut(tmp_path: Path) -> None:
    rows = "".join(f"{n},x\n" for n in range(10))
    assert "0, 1, 2 and 7 more" in refusal(read_labels, csv(tmp_path, "id,label\n" + rows)).message


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("id,x\na,1\nb,two\n", "not-a-number"),
        ("id,x\na,1\nb,\n", "missing-number"),
        ("id,x\na,1\nb,inf\n", "infinite-number"),
        ("id,y\na,1\n", "missing-column"),
    ],
)
def test_numbers_that_are_refused(tmp_path: Path, text: str, code: str) -> None:
    assert refusal(read_numbers, csv(tmp_path, text), "x").code == code


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes(b"PAR1 and nothing else")
    latin = tmp_path / "latin.csv"
    latin.write_bytes("id,x\né,1\n".encode("latin-1"))
    (tmp_path / "store").mkdir()
    for name in ("damaged.parquet", "latin.csv", "store", "absent.csv", "table.xls"):
        assert refusal(read_table, tmp_path / name).code == "not-a-table"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_what_is_written_can_be_read(tmp_path: Path, suffix: str) -> None:
    frame = pd.DataFrame({"id": ["a", "b", "c"], "label": pd.array([True, False, True], dtype="boolean")})
    write_table(frame, tmp_path / f"out{suffix}")
    assert read_labels(tmp_path / f"out{suffix}").tolist() == [True, False, True]
    frame.loc[1, "label"] = pd.NA
    write_table(frame, tmp_path / f"out{suffix}")
    assert refusal(read_labels, tmp_path / f"out{suffix}").code == "missing-label"


def test_what_cannot_be_written(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": ["a"]})
    error = refusal(write_table, frame, tmp_path / "out.xls")
    assert (error.code, type(error)) == ("unknown-format", UsageError)
    assert refusal(write_table, frame, tmp_path / "absent" / "out.csv").code == "unwritable-file"

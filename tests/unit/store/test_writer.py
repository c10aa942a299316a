"""Commits: when they happen, in which order, and what a failed one leaves behind."""

from __future__ import annotations

import time

import pytest

from sorep.errors import StoreError
from sorep.store import StoreWriter
from sorep.store.schema import structure_row

TABLES = ("structures", "features", "spectra", "failures")


def rows(filled, *ids: str) -> list[dict]:
    return [structure_row(filled.structure(id), "run") for id in ids]


def committed(filled, table: str = "structures") -> list[str]:
    return sorted(filled.tables.read(table, ["id"])["id"].to_pylist())


def versions(filled, table: str) -> int:
    return len(list((filled.path / table / "_delta_log").glob("*.json")))


def failure(id: str) -> dict:
    words = ("source", "content_key", "identity", "stage", "code", "message", "remedy", "run_id")
    return {"id": id, **dict.fromkeys(words, "x")}


def test_nothing_is_committed_before_the_batch_is_full(filled):
    writer = StoreWriter(filled.tables, max_rows=3, max_seconds=1e6)
    for count, id in enumerate("abc", start=1):
        writer.add("structures", rows(filled, id))
        assert committed(filled) == []  # not even when full: `tick` commits
        writer.tick()
        assert len(committed(filled)) == (3 if count == 3 else 0)


def test_rows_of_all_tables_fill_one_batch(filled):
    writer = StoreWriter(filled.tables, max_rows=2, max_seconds=1e6)
    writer.add("structures", rows(filled, "a"))
    writer.add("failures", [failure("b")])
    writer.tick()
    assert committed(filled) == ["a"]
    assert committed(filled, "failures") == ["b"]


def test_the_oldest_row_sets_the_time_of_the_commit(filled):
    writer = StoreWriter(filled.tables, max_rows=10**9, max_seconds=0.3)
    writer.add("structures", rows(filled, "a"))
    start = time.monotonic()
    while not committed(filled):
        writer.add("structures", rows(filled, "b"))  # later rows do not put it off
        writer.tick()
        assert time.monotonic() - start < 60
        time.sleep(0.01)
    assert "a" in committed(filled)


def test_after_a_commit_the_clock_starts_anew(filled):
    writer = StoreWriter(filled.tables, max_rows=1, max_seconds=1e6)
    writer.add("structures", rows(filled, "a"))
    writer.tick()
    before = versions(filled, "structures")
    writer.tick()
    writer.flush()
    assert versions(filled, "structures") == before


def test_flush_commits_everything_once(filled):
    writer = StoreWriter(filled.tables)
    writer.add("structures", rows(filled, "a", "b"))
    writer.add("structures", [])
    writer.flush()
    writer.flush()
    assert committed(filled) == ["a", "b"]
    assert versions(filled, "spectra") == 1  # its creation; an empty batch is no commit


@pytest.mark.parametrize("broken", TABLES)
def test_a_commit_that_fails_loses_nothing(filled, broken):
    writer = StoreWriter(filled.tables)
    writer.add("structures", rows(filled, "a"))
    writer.add("failures", [failure("b")])
    spectrum = {"content_key": "c", "identity": "i"}
    writer.add("spectra", [spectrum])
    writer.add("features", [{"content_key": "c", "identity": "i"}])
    folder, aside = filled.path / broken, filled.path / "aside"
    folder.rename(aside)
    folder.write_text("a file where a table should be")
    with pytest.raises(StoreError) as caught:
        writer.flush()
    assert caught.value.code == "unwritable-store"
    assert broken in caught.value.message
    folder.unlink()
    aside.rename(folder)
    for table in TABLES[: TABLES.index(broken)]:
        assert len(filled.tables.read(table)) == 1  # tables are committed in this order
    for table in TABLES[TABLES.index(broken) :]:
        assert len(filled.tables.read(table)) == 0
    writer.flush()
    assert [len(filled.tables.read(table)) for table in TABLES] == [1, 1, 1, 1]

"""Scratch folders: gone after the run, and after a run that was killed; never those of a live one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sorep.errors import PwError
from sorep.single_shot import scratch
from sorep.single_shot.scratch import LOCK, Scratch, calculation_folder, file_name

OWNER = """
import sys, time
from pathlib import Path
from sorep.single_shot.scratch import Scratch, calculation_folder
with Scratch(Path(sys.argv[1])) as scratch, calculation_folder(scratch.root, "si") as folder:
    (folder / "wfc").write_text("much")
    print(scratch.root, flush=True)
    time.sleep(1000)
"""


@contextmanager
def owner(base: Path) -> Iterator[tuple[subprocess.Popen, Path]]:
    """Another process with a scratch folder in use."""
    process = subprocess.Popen([sys.executable, "-c", OWNER, str(base)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip())
    finally:
        process.kill()
        process.communicate()


def test_the_folder_is_removed_at_the_end(tmp_path):
    base = tmp_path / "new" / "base"
    with Scratch(base) as first, Scratch(base) as second:
        assert first.root != second.root
        assert first.root.parent == base
        assert first.root.name.startswith(f"sorep-{os.getpid()}-")
        (first.root / "a").mkdir()
        (first.root / "a" / "b").write_text("c")
    assert list(base.iterdir()) == []


def test_leftovers_of_a_killed_owner_are_removed_and_nothing_else(tmp_path):
    (tmp_path / "sorep-1-not_a_folder").write_text("")
    (tmp_path / "sorep-notes").mkdir()
    (tmp_path / "sorep-2-without_lock").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / LOCK).write_bytes(scratch._machine())
    (tmp_path / "sorep-3-link").symlink_to(tmp_path / "elsewhere")
    others = sorted(tmp_path.iterdir())
    with owner(tmp_path) as (live, live_root), owner(tmp_path) as (dead, dead_root):
        dead.kill()
        dead.wait()
        assert (dead_root / LOCK).exists()
        with Scratch(tmp_path) as mine:
            assert sorted(tmp_path.iterdir()) == sorted([*others, live_root, mine.root])
            assert len(list(live_root.glob("si-*/wfc"))) == 1
        assert live.poll() is None
    assert live_root.exists()
    with Scratch(tmp_path):
        assert not live_root.exists()
    assert (tmp_path / "elsewhere" / LOCK).exists()


def test_a_folder_of_another_machine_is_left_alone(tmp_path):
    folder = tmp_path / "sorep-1-abc"
    folder.mkdir()
    (folder / LOCK).write_text("another machine")
    with Scratch(tmp_path):
        assert folder.exists()
    (folder / LOCK).write_bytes(scratch._machine())
    with Scratch(tmp_path):
        assert not folder.exists()


def test_a_base_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PwError) as raised, Scratch(tmp_path / "file"):
        pass
    assert (raised.value.code, raised.value.stage) == ("no-scratch", "set-up")


def test_a_folder_tidied_up_by_somebody_else_is_no_error(tmp_path):
    with Scratch(tmp_path) as mine:
        mine.root.rename(tmp_path / "away")


def test_a_calculation_folder_is_fresh_and_removed(tmp_path):
    with calculation_folder(tmp_path, "a/b c") as first, calculation_folder(tmp_path, "a/b c") as second:
        assert first != second
        assert first.parent == tmp_path
        assert list(first.iterdir()) == []
        (first / "file").write_text("x")
    assert list(tmp_path.iterdir()) == []


def test_failed_calculations_are_kept_where_that_is_asked_for(tmp_path):
    root, kept = tmp_path / "root", tmp_path / "kept"
    root.mkdir()
    for attempt in ("first", "second"):
        with pytest.raises(ValueError, match="boom"), calculation_folder(root, "mp-1", keep_failed=kept) as folder:
            (folder / attempt).write_text("")
            raise ValueError("boom")
    with calculation_folder(root, "good", keep_failed=kept):
        pass
    with pytest.raises(ValueError, match="boom"), calculation_folder(root, "mp-2"):
        raise ValueError("boom")
    assert [path.relative_to(kept) for path in kept.rglob("*")] == [Path("mp-1"), Path("mp-1/second")]
    assert list(root.iterdir()) == []


def test_a_folder_that_cannot_be_kept_does_not_hide_the_failure(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ValueError, match="boom") as raised,
        calculation_folder(tmp_path, "x", keep_failed=tmp_path / "file"),
    ):
        raise ValueError("boom")
    assert "could not be kept" in raised.value.__notes__[0]


def test_file_names_are_safe_and_distinct():
    assert file_name("mp-1234.a_b+c") == "mp-1234.a_b+c"
    ids = ["a/b", "a b", "a_b", "../../etc", ".", "..", "", "-rf", "é", "ü", "x" * 300, "x" * 301]
    names = [file_name(id) for id in ids]
    assert len(set(names)) == len(ids)
    for name in names:
        assert 0 < len(name) < 60
        assert "/" not in name
        assert name[0] not in ".-"

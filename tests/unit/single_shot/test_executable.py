"""Finding a pw.x, and telling what it is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from sorep.errors import PwError
from sorep.paths import cache_folder, data_folder
from sorep.single_shot import executable
from sorep.single_shot.executable import find_pw_x, probe

FAKE = Path(__file__).parents[2] / "fake_pw_x.py"


@pytest.fixture
def bare(tmp_path, monkeypatch) -> Path:
    """A user without any pw.x, whose home, cache and PATH are below the folder."""
    for variable in ("SOREP_PW_X", "SOREP_CACHE", "SOREP_DATA", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    return tmp_path


@pytest.fixture
def fake(tmp_path) -> Path:
    """The fake as an executable file, whatever the checkout did to its permissions."""
    path = tmp_path / "fake" / "pw.x"
    path.parent.mkdir()
    shutil.copy(FAKE, path)
    path.chmod(0o755)
    return path


def program(path: Path, seconds: float = 0.0, complete: bool = True) -> Path:
    """A build of pw.x whose record has this time."""
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    if complete:
        record = path.parent.parent / "build.json"
        record.write_text("{}")
        os.utime(record, (seconds, seconds))
    return path


def refused(call, *arguments) -> PwError:
    with pytest.raises(PwError) as raised:
        call(*arguments)
    assert raised.value.stage == "set-up"
    assert raised.value.remedy
    return raised.value


def test_folders_follow_the_variables(bare, monkeypatch):
    assert cache_folder() == bare / ".cache" / "sorep"
    assert data_folder() == bare / ".local" / "share" / "sorep"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == bare / ".cache" / "sorep"
    monkeypatch.setenv("XDG_CACHE_HOME", str(bare / "xdg"))
    assert cache_folder() == bare / "xdg" / "sorep"
    monkeypatch.setenv("SOREP_CACHE", "~/mine")
    monkeypatch.setenv("SOREP_DATA", str(bare / "data"))
    assert cache_folder() == bare / "mine"
    assert data_folder() == bare / "data"


def test_where_a_pw_x_is_looked_for(bare, monkeypatch):
    error = refused(find_pw_x)
    assert error.code == "pw-x-not-found"
    assert "sorep pw build" in error.remedy
    on_path = program(bare / "path" / "pw.x", complete=False)
    assert find_pw_x() == on_path
    builds = bare / ".cache" / "sorep" / "pw"
    program(builds / "unfinished" / "bin" / "pw.x", complete=False)
    assert find_pw_x() == on_path
    older = program(builds / "b" / "bin" / "pw.x", seconds=1000)
    newer = program(builds / "a" / "bin" / "pw.x", seconds=2000)
    assert find_pw_x() == newer
    newer.unlink()
    assert find_pw_x() == older
    own = program(bare / "own" / "my-pw.x", complete=False)
    monkeypatch.setenv("SOREP_PW_X", str(own))
    assert find_pw_x() == own
    assert find_pw_x("pw.x") == on_path
    assert find_pw_x("~/path/pw.x") == on_path


def test_a_named_pw_x_that_is_none(bare, monkeypatch):
    program(bare / "path" / "pw.x", complete=False)
    text = bare / "text"
    text.write_text("")
    assert refused(find_pw_x, str(bare / "missing")).code == "pw-x-not-found"
    assert refused(find_pw_x, "missing").code == "pw-x-not-found"
    assert refused(find_pw_x, str(bare)).code == "pw-x-not-found"
    assert refused(find_pw_x, str(text)).code == "pw-x-not-executable"
    monkeypatch.setenv("SOREP_PW_X", str(bare / "gone"))
    error = refused(find_pw_x)  # no silent fallback to another one
    assert error.code == "pw-x-not-found"
    assert "SOREP_PW_X" in error.message


def test_probe_tells_version_and_patch(fake, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    stock = probe(fake)
    assert (stock.version, stock.is_patched, stock.command) == ("6.7MaX", False, (str(fake),))
    monkeypatch.setenv("FAKE_PW_X_PATCHED", "1")
    monkeypatch.setenv("FAKE_PW_X", "segfault")  # only with atoms
    patched = probe("fake/pw.x", ("env", "-u", "NOTHING"))
    assert patched.is_patched
    assert patched.command == ("env", "-u", "NOTHING", str(fake))
    assert sorted(tmp_path.iterdir()) == [fake.parent]


@pytest.mark.parametrize(
    ("fault", "code"), [("missing-library", "missing-library"), ("wrong-cpu", "wrong-cpu"), ("not-pw-x", "not-pw-x")]
)
def test_probe_says_what_is_wrong(fake, monkeypatch, fault, code):
    monkeypatch.setenv("FAKE_PW_X", fault)
    assert refused(probe, fake).code == code


def test_probe_of_what_does_not_start(fake, tmp_path):
    assert refused(probe, tmp_path / "missing").code == "pw-x-not-found"
    assert refused(probe, FAKE.parent).code == "pw-x-not-executable"
    assert refused(probe, fake, ("no-such-mpirun", "-n", "2")).code == "launcher-not-found"


def test_probe_does_not_wait_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(executable, "_PROBE_SECONDS", 0.2)
    hanging = tmp_path / "hanging"
    hanging.write_text("#!/bin/sh\nsleep 1000\n")
    hanging.chmod(0o755)
    error = refused(probe, hanging)
    assert error.code == "not-pw-x"
    assert "time limit" in error.message


@pytest.mark.pwx
def test_a_real_pw_x():
    try:
        path = find_pw_x()
    except PwError as error:
        pytest.skip(error.message)
    found = probe(path)
    assert found.version[0] in "67"
    assert found.path == path

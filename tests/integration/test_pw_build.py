"""`sorep pw build` with the source of Quantum ESPRESSO: what it leaves is patched, checked, and found again.

The first test to run builds, which takes minutes, unless the cache has what it would build.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from sorep.errors import PwError
from sorep.single_shot.build import build, check_tools, patch_folder
from sorep.single_shot.executable import probe

pytestmark = [pytest.mark.pwx, pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def pw_x() -> Path:
    try:
        return build()
    except PwError as error:
        if error.code in ("missing-tools", "source-unavailable"):
            pytest.skip(str(error))
        raise


def test_command_prints_the_path_alone_and_needs_nothing(pw_x, sorep, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    result = sorep("pw", "build")
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{pw_x}\n"
    assert result.stderr == ""


def test_record_says_what_was_built(pw_x):
    about = json.loads((pw_x.parents[1] / "build.json").read_text())
    assert about["quantum_espresso"] == "6.7MaX"
    assert 0 <= about["golden_deviation_hartree"] <= 1e-8
    for name, digest in about["patches_sha256"].items():
        assert hashlib.sha256((patch_folder() / name).read_bytes()).hexdigest() == digest
    log = (pw_x.parents[1] / "build.log").read_text()
    assert "single_shot.f90" in log
    assert "-march=native" not in log


def test_executable_is_patched_and_needs_no_other_folder(pw_x):
    found = probe(pw_x)
    assert found.is_patched
    assert found.version == "6.7MaX"
    libraries = subprocess.run(["ldd", pw_x], capture_output=True, text=True, check=True).stdout
    assert "not found" not in libraries
    assert "openblas" in libraries
    assert "fftw3" in libraries


def test_where_tells_which_one_a_run_uses(pw_x, sorep, monkeypatch):
    monkeypatch.setenv("SOREP_PW_X", str(pw_x))
    result = sorep("pw", "where")
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{pw_x}\n"
    assert result.stderr == "Quantum ESPRESSO 6.7MaX, with the single-shot mode of sorep\n"


def test_refusal_reaches_the_user_as_one_message(tmp_path, sorep, monkeypatch):
    try:
        check_tools()
    except PwError as error:
        pytest.skip(str(error))
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "qe_version.h").write_text("CHARACTER (LEN=6) :: version_number = '7.2'\n")
    monkeypatch.setenv("SOREP_CACHE", str(tmp_path / "cache"))
    result = sorep("pw", "build", "--source", tmp_path)
    assert result.returncode == 1
    assert result.stdout == ""
    assert "7.2" in result.stderr
    assert "[unsupported-version]" in result.stderr

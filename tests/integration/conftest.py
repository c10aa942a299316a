"""The real command as a subprocess, crystals for it to work on, and the pw.x of this machine."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import write

from sorep.errors import PwError
from sorep.paths import cache_folder
from sorep.single_shot.executable import BUILDS, RECORD, PwX, find_pw_x, probe

SOREP = str(Path(sys.executable).with_name("sorep"))
GUARD = 120.0  # seconds after which a command is taken to hang
MARK = "SOREP_TEST_PROCESS"


class Command:
    """A started process whose descendants can be told by a mark in their environment."""

    def __init__(self, *words: str | Path, **options) -> None:
        self._mark = uuid.uuid4().hex
        environment = {**os.environ, MARK: self._mark, "COLUMNS": "120", "TERM": "xterm"}
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
        # A test run in the background of a script passes an ignored Ctrl-C on.
        options.setdefault("preexec_fn", lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        self.process = subprocess.Popen([str(word) for word in words], env=environment, **options)

    def alive(self) -> list[int]:
        """Process numbers of the command and all that it started, except those only waiting to be reaped."""
        found = []
        for folder in Path("/proc").iterdir():
            try:
                if not folder.name.isdigit() or f"{MARK}={self._mark}" not in (folder / "environ").read_text():
                    continue
                if (folder / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                    found.append(int(folder.name))
            except OSError:  # it ended meanwhile
                continue
        return found

    def wait_until_all_are_gone(self, seconds: float = 10.0) -> None:
        end = time.monotonic() + seconds
        while left := self.alive():
            assert time.monotonic() < end, f"processes {left} outlived the command"
            time.sleep(0.05)

    def finish(self) -> subprocess.CompletedProcess[str]:
        try:
            out, err = self.process.communicate(timeout=GUARD)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return subprocess.CompletedProcess(self.process.args, self.process.returncode, out, err)


@pytest.fixture(scope="session")
def start() -> Callable[..., Command]:
    """Start any program."""
    return Command


@pytest.fixture(scope="session")
def start_sorep() -> Callable[..., Command]:
    """Start the installed ``sorep`` command."""
    return lambda *words, **options: Command(SOREP, *words, **options)


@pytest.fixture(scope="session")
def sorep(start_sorep) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the installed ``sorep`` command; whatever happens, no user may meet a traceback."""

    def run(*words: str | Path, **options) -> subprocess.CompletedProcess[str]:
        result = start_sorep(*words, **options).finish()
        assert "Traceback" not in result.stdout + result.stderr, result.stderr
        return result

    return run


@pytest.fixture(scope="session")
def write_crystals() -> Callable[[Path, int], list[str]]:
    """Fill a folder with different small crystals, half in one file; returns their ids."""

    def fill(folder: Path, number: int) -> list[str]:
        folder.mkdir()
        crystals = []
        for n in range(number):
            prototype = (("Si", "diamond", 5.2), ("MgO", "rocksalt", 4.0), ("GaAs", "zincblende", 5.4))[n % 3]
            crystal = bulk(prototype[0], prototype[1], a=prototype[2] + 0.01 * n, cubic=n % 2 == 0)
            crystal.rattle(0.02, seed=n)
            crystals.append(crystal)
        half = number // 2
        write(folder / "frames.xyz", crystals[:half], format="extxyz")
        for n in range(half, number):
            write(folder / f"file{n}.vasp", crystals[n])
        return sorted([*(f"frames:{n}" for n in range(half)), *(f"file{n}" for n in range(half, number))])

    return fill


# pw.x


@pytest.fixture(scope="session")
def pw_x() -> PwX:
    """The patched pw.x that a run on this machine would use."""
    try:
        found = probe(find_pw_x())
    except PwError as error:
        pytest.skip(f"no pw.x: {error}")
    if not found.is_patched:
        pytest.skip(f"{found.path} is not patched: `sorep pw build` makes one that is")
    return found


@pytest.fixture(scope="session")
def stock_pw_x(tmp_path_factory: pytest.TempPathFactory) -> PwX:
    """An unpatched pw.x of the same version to compare with."""
    script = runpy.run_path(str(Path(__file__).parents[1] / "stock_pw_x.py"))
    path = script["stock_recipe"](tmp_path_factory.mktemp("stock")).executable
    if not path.exists():
        pytest.skip("no unpatched pw.x: python tests/stock_pw_x.py builds one")
    found = probe(path)
    assert not found.is_patched, f"{found.path} is patched"
    return found


@pytest.fixture(scope="session")
def mpi_pw_x() -> Iterator[PwX]:
    """A patched pw.x built for MPI, started as two processes."""
    launcher = shutil.which("mpirun")
    named = os.environ.get("SOREP_MPI_PW_X")
    builds = cache_folder().joinpath(BUILDS).glob(f"*/{RECORD}")
    mpi_builds = [b for b in builds if "--enable-parallel" in json.loads(b.read_text())["configure"]]
    if not (launcher and (named or mpi_builds)):
        pytest.skip("no mpirun" if not launcher else "no pw.x for MPI: SOREP_MPI_PW_X names none, nor is one built")
    path = named or max(mpi_builds, key=lambda build: build.stat().st_mtime).with_name("bin") / "pw.x"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "OMPI_MCA_rmaps_base_oversubscribe"):
            patch.setenv(name, "1")
        found = probe(path, (launcher, "-n", "2"))
        assert found.is_patched
        yield found

"""The real command as a subprocess, crystals for it to work on, and the pw.x and pseudopotentials of this machine."""

from __future__ import annotations

import fcntl
import json
import os
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

from sorep.errors import PseudoError, PwError
from sorep.paths import cache_folder, data_folder
from sorep.single_shot.executable import BUILDS, RECORD, PwX, find_pw_x, probe
from sorep.single_shot.pseudo_install import install_family
from sorep.single_shot.pseudos import PseudoFamily, load_family

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
def stock_pw_x() -> PwX:
    """An unpatched pw.x to compare with."""
    named = os.environ.get("SOREP_STOCK_PW_X")
    if not named:
        pytest.skip("SOREP_STOCK_PW_X names no unpatched pw.x")
    found = probe(find_pw_x(named))
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


@pytest.fixture(scope="session")
def get_family(tmp_path_factory, request) -> Callable[[str], PseudoFamily]:
    """Real families by name: as installed on this machine, else fetched once for all test processes, else skip."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "pseudos"
    installed = data_folder() / "pseudos"  # before any test sets $SOREP_DATA

    def get(name: str) -> PseudoFamily:
        try:
            family = load_family(name, folder=installed)
            family.verify()
            return family
        except PseudoError:
            archive = None
        if name.startswith("sssp"):
            kind = "PBESOL" if "pbesol" in name else "PBE"
            shared = request.getfixturevalue("shared_folder")
            archive = shared / "pseudos" / f"SSSP_1.3.0_{kind}_efficiency_noLnAn.tar.xz"
        root.mkdir(exist_ok=True)
        with (root / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                return install_family(name, archive=archive, folder=root).family
            except PseudoError as error:
                if error.code not in ("download-failed", "unreadable-archive"):
                    raise
                pytest.skip(f"{name} is not installed and cannot be: {error}")

    return get

"""Find a pw.x, and find out what it is."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sorep.errors import SET_UP, PwError
from sorep.paths import cache_folder
from sorep.single_shot.build import Recipe, patch_folder
from sorep.single_shot.failures import diagnose
from sorep.single_shot.process import OUTPUT, ProcessLimits, run_process

VARIABLE = "SOREP_PW_X"
"""Environment variable that names the pw.x to use."""

BUILDS = "pw"
"""Folder in `cache_folder` that holds the builds, each in a folder with ``bin/pw.x`` and, once complete, `RECORD`."""

RECORD = "build.json"

_PROBE_SECONDS = 30.0
_PROBE_INPUT = "&control\n/\n&system\n ibrav = 0\n/\n&electrons\n/\n"  # enough for all that pw.x prints at the start
_VERSION = re.compile(r"Program PWSCF v\.(\S+) starts")
_PATCH = re.compile(r"^ *Single-shot mode available: sorep patch, revision \d+", re.MULTILINE)
_BUILD = "build one with `sorep pw build` (--force to replace one that stopped working), or name an existing one"


@dataclass(frozen=True)
class PwX:
    """A pw.x that was seen to start.

    Attributes
    ----------
    path : Path
        The executable.
    launcher : tuple of str
        MPI launcher with its arguments, e.g. ``("mpirun", "-n", "4")``.
    is_patched : bool
        Whether it has sorep's single-shot mode.
    version : str
        As in its first line, e.g. ``"6.7MaX"``.
    """

    path: Path
    launcher: tuple[str, ...]
    is_patched: bool
    version: str

    @property
    def command(self) -> tuple[str, ...]:
        """What to run, up to the arguments of pw.x itself."""
        return (*self.launcher, str(self.path))


def find_pw_x(given: str | None = None, *, mpi: bool = False) -> Path:
    """The pw.x to use: ``given``, else ``$SOREP_PW_X``, else a build in the cache, else the one on the PATH.

    Of several builds the one with this version's patches is taken, else the newest.

    Parameters
    ----------
    given : str, optional
        A path, or a name that is looked up on the PATH.
    mpi : bool
        Prefer the build for MPI.

    Raises
    ------
    PwError
        In stage ``"set-up"``, codes ``pw-x-not-found`` and ``pw-x-not-executable``.
    """
    named = given or os.environ.get(VARIABLE)
    if named:
        return _resolve(named, "" if given else f" (named by {VARIABLE})")
    builds = sorted(cache_folder().joinpath(BUILDS).glob(f"*/{RECORD}"), key=lambda r: r.stat().st_mtime, reverse=True)
    for pw_x in (Recipe(patch_folder(), mpi=mpi).executable, *(r.with_name("bin") / "pw.x" for r in builds)):
        if os.access(pw_x, os.X_OK):
            return pw_x
    return _resolve("pw.x", " on the PATH")


def probe(path: Path | str, launcher: tuple[str, ...] = ()) -> PwX:
    """Start a pw.x with an input that holds nothing, and read what it says of itself.

    Raises
    ------
    PwError
        In stage ``"set-up"``: ``launcher-not-found``, ``not-pw-x``, ``serial-pw-x``, or why it does not start
        (`run_process`, `KNOWN_FAILURES`).
    """
    if launcher and shutil.which(launcher[0]) is None:
        raise PwError(
            f"there is no MPI launcher {launcher[0]!r} on the PATH",
            code="launcher-not-found",
            stage=SET_UP,
            remedy="install MPI or load its module, or run without a launcher",
        )
    path = Path(path).absolute()
    with tempfile.TemporaryDirectory(prefix="sorep-probe-") as name:
        folder = Path(name)
        (folder / "pw.in").write_text(_PROBE_INPUT)
        limits = ProcessLimits(seconds=_PROBE_SECONDS)
        finished = run_process([*launcher, str(path), "-in", "pw.in"], folder, limits=limits)
        output = (folder / OUTPUT).read_text(errors="replace")
        diagnosis = diagnose(finished, folder)
    versions = _VERSION.findall(output)
    if len(versions) > 1:
        raise PwError(
            f"{launcher[0]} starts {len(versions)} copies of {path}, which was built without MPI",
            code="serial-pw-x",
            stage=SET_UP,
            remedy="leave out the launcher, or build one with `sorep pw build --mpi` and name it",
        )
    if versions:
        return PwX(path, tuple(launcher), _PATCH.search(output) is not None, versions[0])
    if diagnosis.stage == SET_UP:
        raise diagnosis.error()
    raise PwError(
        f"{path} is not a pw.x, or one that does not work: {diagnosis.message}",
        code="not-pw-x",
        stage=SET_UP,
        remedy=_BUILD,
    )


def _resolve(named: str, where: str) -> Path:
    """The executable of this path or name."""
    path = Path(named).expanduser()
    if path.name == named:
        found = shutil.which(named)
        if found:
            return Path(found).absolute()
    if not path.is_file():
        raise PwError(f"there is no {named}{where}", code="pw-x-not-found", stage=SET_UP, remedy=_BUILD)
    if path.name == named or not os.access(path, os.X_OK):
        raise PwError(
            f"{named}{where} is not an executable program",
            code="pw-x-not-executable",
            stage=SET_UP,
            remedy="name the program with its folder, and check its permissions",
        )
    return path.absolute()

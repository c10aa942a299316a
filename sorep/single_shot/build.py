"""From the source of Quantum ESPRESSO to a patched pw.x that was checked and is kept.

A patch folder (``qe_patches/6.7``) says all there is to say: ``source.json`` which source, ``*.f90`` and ``*.patch``
what to change, ``golden.json`` which eigenvalues must come out. The executable goes to a folder of the cache whose
name depends on all of these and on how it is configured, so that what is there need not be built again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import IO

from sorep.errors import SET_UP, PwError, UsageError
from sorep.paths import cache_folder
from sorep.single_shot.golden import run_golden
from sorep.single_shot.source import Pin, download_and_unpack, unpack

SUPPORTED_VERSION = "6.7"

Report = Callable[[str], None]

# Of an outer make, and compiler flags: configure would take them in place of its own, which pw.x needs.
_NOT_INHERITED = (
    "MAKEFLAGS",
    "MFLAGS",
    "GNUMAKEFLAGS",
    "MAKELEVEL",
    "FFLAGS",
    "FCFLAGS",
    "F90FLAGS",
    "CFLAGS",
    "CPPFLAGS",
)


def build(
    source: str | Path | None = None,
    *,
    mpi: bool = False,
    jobs: int | None = None,
    force: bool = False,
    patches: Path | None = None,
    report: Report = lambda step: None,
) -> Path:
    """Build pw.x, or find that it has been built; returns the path of the executable.

    Nothing outside the cache folder and the folder for temporary files changes. Two builds of the same at one time
    do the work once: the second waits for the first.

    Parameters
    ----------
    source : path, optional
        Folder or tarball of Quantum ESPRESSO; without it, it is downloaded.
    mpi : bool
        Build for MPI, for cells too large for one core.
    jobs : int, optional
        Files compiled at one time; by default as many as there are cores.
    force : bool
        Build also where there is one already.
    patches : Path, optional
        Patch folder; by default `patch_folder`.
    report : callable
        Called with a few words at the start of each step.

    Raises
    ------
    PwError
        Of stage ``"set-up"``: ``missing-tools``, ``library-not-used``, ``patch-failed``, ``configure-failed``,
        ``compilation-failed``, ``golden-failed``, ``cannot-write``, and those of `sorep.single_shot.source`.
    UsageError
        ``invalid-jobs``.
    """
    if jobs is not None and jobs < 1:
        raise UsageError(f"jobs is {jobs}", code="invalid-jobs", remedy="give 1 or more")
    recipe = Recipe(patches or patch_folder(), mpi)
    if recipe.executable.is_file() and not force:
        return recipe.executable
    try:
        recipe.folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(recipe.beside(".lock"), report):
            if force or not recipe.executable.is_file():  # another process may have built it meanwhile
                _build(recipe, Path(source) if source else None, jobs or os.cpu_count() or 1, report)
    except OSError as error:
        raise _failure(
            str(error),
            "cannot-write",
            f"have 300 MB free and writable in {tempfile.gettempdir()} and {recipe.folder.parent}, or choose other "
            "folders by the environment variables TMPDIR and SOREP_CACHE",
        ) from error
    return recipe.executable


def patch_folder() -> Path:
    """The patches of this package: installed inside it, or beside it in a source checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "qe_patches"
    return (installed if installed.is_dir() else package.with_name("qe_patches")) / SUPPORTED_VERSION


@dataclass(frozen=True)
class Recipe:
    """All that determines an executable, apart from the machine."""

    patches: Path
    mpi: bool

    @cached_property
    def pin(self) -> Pin:
        return Pin.read(self.patches / "source.json")

    @property
    def new_files(self) -> list[Path]:
        return sorted(self.patches.glob("*.f90"))

    @property
    def patch_files(self) -> list[Path]:
        return sorted(self.patches.glob("*.patch"))

    @property
    def configure(self) -> list[str]:
        """How Quantum ESPRESSO is configured: only what every machine of a kind can run, so no -march=native."""
        if self.mpi:
            kind = ["--enable-parallel", "--with-scalapack=no", "MPIF90=mpif90"]
        else:
            kind = ["--disable-parallel", "MPIF90=gfortran"]
        return ["./configure", *kind, "--disable-openmp", "F90=gfortran", "CC=gcc"]

    @cached_property
    def checksums(self) -> dict[str, str]:
        """SHA-256 of the files of the patch folder that have a say, by name."""
        files = [self.patches / "source.json", self.patches / "golden.json", *self.new_files, *self.patch_files]
        try:
            return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
        except OSError as error:
            raise _failure(
                f"{self.patches} is no patch folder: {error}", "unreadable-patches", "install the package again"
            ) from None

    @cached_property
    def key(self) -> str:
        return hashlib.sha256(json.dumps([self.checksums, self.configure]).encode()).hexdigest()[:16]

    @cached_property
    def folder(self) -> Path:
        return cache_folder() / "pw" / f"{SUPPORTED_VERSION}-{self.key}"

    def beside(self, ending: str) -> Path:
        return self.folder.with_name(self.folder.name + ending)

    @property
    def executable(self) -> Path:
        return self.folder / "bin" / "pw.x"


def _build(recipe: Recipe, source: Path | None, jobs: int, report: Report) -> None:
    start = time.monotonic()
    check_tools(recipe.mpi)
    log_file = recipe.beside(".log")
    with tempfile.TemporaryDirectory(prefix="sorep-pw-") as work, log_file.open("w+", errors="replace") as log:
        tree = Path(work, "qe")
        report(f"source of Quantum ESPRESSO {recipe.pin.version}")
        if source:
            digest = unpack(source, recipe.pin, tree)
        else:
            kept = cache_folder() / "pw" / "sources" / f"quantum-espresso-{recipe.pin.version}.tar.gz"
            digest = download_and_unpack(recipe.pin, tree, kept, report)
        report(f"patch: {len(recipe.new_files)} new and {len(recipe.patch_files)} patched files")
        apply_patches(recipe, tree)
        report("configure")
        _run(recipe.configure, tree, log, "configure-failed", makes=tree / "make.inc")
        _check_configuration(tree / "make.inc", recipe.mpi)
        report(f"compile, {jobs} at a time: takes minutes")
        # The rules for pw.x are not safe to run beside those for its libraries.
        executable = tree / "PW" / "src" / "pw.x"
        for command, product in (
            (["make", f"-j{jobs}", "pwlibs"], executable.with_name("libpw.a")),
            (["make", f"-j{jobs}", "-C", "PW", "TLDEPS=", "pw"], executable),
            (["strip", str(executable)], executable),
        ):
            _run(command, tree, log, "compilation-failed", makes=product)
        report("golden calculations")
        deviation = run_golden(executable, recipe.patches / "golden.json", tree)
        about = {
            "quantum_espresso": recipe.pin.version,
            "source": str(source) if source else "downloaded",
            "source_sha256": digest,
            "patches_sha256": recipe.checksums,
            "configure": recipe.configure,
            "compiler": _first_line("mpif90" if recipe.mpi else "gfortran", "--version"),
            "golden_deviation_hartree": deviation,
            "sorep": version("sorep"),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - start, 1),
        }
        _install(recipe, executable, about, log_file)


def _failure(message: str, code: str, remedy: str) -> PwError:
    return PwError(message, code=code, stage=SET_UP, remedy=remedy)


@contextmanager
def _locked(file: Path, report: Report) -> Iterator[None]:
    """Hold a lock that ends with this process, however it ends."""
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("wait for another process that builds the same")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# Steps


def check_tools(mpi: bool = False) -> None:
    """Look for compilers and libraries before anything is started.

    Raises
    ------
    PwError
        ``missing-tools``, naming all of them, and what to install.
    """
    packages = {"gfortran": "gfortran", "gcc": "gcc", "make": "make", "patch": "patch", "strip": "binutils"}
    if mpi:
        packages |= {"mpif90": "libopenmpi-dev openmpi-bin"}
    missing = {name: package for name, package in packages.items() if not shutil.which(name)}
    for name, package in {"fftw3": "libfftw3-dev", "openblas": "libopenblas-dev"}.items():
        if "gfortran" in missing or not _links(name):
            missing[f"lib{name} with its development files"] = package
    if missing:
        raise _failure(
            f"not found: {', '.join(missing)}",
            "missing-tools",
            f"on Debian or Ubuntu, as root: apt-get install {' '.join(missing.values())}. Elsewhere, install the same "
            "(gfortran and gcc 9 or newer, make, patch, FFTW 3, OpenBLAS, for --mpi an MPI library) from the system's "
            "packages or conda-forge, and name folders off the beaten track in LIBRARY_PATH and CPATH",
        )


def _links(library: str) -> bool:
    with tempfile.TemporaryDirectory(prefix="sorep-link-") as folder:
        program = Path(folder, "program.f90")
        program.write_text("end\n", encoding="ascii")
        command = ["gfortran", str(program), f"-l{library}", "-o", f"{folder}/program"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def apply_patches(recipe: Recipe, tree: Path) -> None:
    """Copy every ``*.f90`` of the patch folder to PW/src, then apply every ``*.patch`` in the order of their names.

    Raises
    ------
    PwError
        ``patch-failed``, naming the patch and the files it does not fit.
    """
    for file in recipe.new_files:
        shutil.copy(file, tree / "PW" / "src")
    for file in recipe.patch_files:
        # The source is known to the byte, so that a patch fits exactly or not at all.
        command = ["patch", "-p1", "--batch", "--forward", "--fuzz=0", f"--input={file.absolute()}"]
        result = subprocess.run(command, cwd=tree, env=_environment(), capture_output=True, text=True, check=False)
        if result.returncode:
            output = result.stdout + result.stderr
            raise _failure(
                f"patch {file.name} does not apply to {', '.join(_misfits(output)) or 'the source'}: "
                f"{' '.join(output.split())}",
                "patch-failed",
                f"restore {file} as it came with the package; if it is your own, make it against the patched files "
                "that come before it",
            )


def _misfits(output: str) -> list[str]:
    """Files that ``patch`` complained about."""
    files, current = [], ""
    for line in output.splitlines():
        if match := re.match(r"patching file '?(.*?)'?$|\|\+\+\+ [^/]+/(\S+)", line):
            current = match[1] or match[2]
        elif re.search(r"FAILED|ignored|malformed|No file to patch", line):
            files.append(current)
    return list(dict.fromkeys(file for file in files if file))


def _environment() -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    return inherited | {"LC_ALL": "C", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _run(command: list[str], folder: Path, log: IO[str], code: str, *, makes: Path) -> None:
    """Run a command that writes to the log; it and its descendants do not outlive this function.

    Success is that it made a file: configure of Quantum ESPRESSO ends with status 0 also where it fails.
    """
    log.write(f"\n$ {' '.join(command)}\n")
    log.flush()
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        status = process.wait()
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if status or not makes.is_file():
        log.seek(0)
        last = "\n".join(log.read().splitlines()[-15:])
        raise _failure(
            f"`{' '.join(command)}` ended with status {status}, without {makes.name}; its last lines:\n{last}\n",
            code,
            f"read {log.name}; if the disk is full or programs may not be run in {tempfile.gettempdir()}, choose "
            "another folder by the environment variable TMPDIR; if it is the compiler, try another version of gfortran",
        )


def _check_configuration(make_inc: Path, mpi: bool) -> None:
    """Refuse what configure falls back to without a word: own slow libraries, or a serial code in place of MPI."""
    settings = dict(re.findall(r"^(\w+)[ \t]*=[ \t]*(.*?)[ \t]*$", make_inc.read_text(encoding="utf-8"), re.MULTILINE))
    problems = []
    if not re.search("openblas|mkl", settings["BLAS_LIBS"]) or settings["LAPACK_LIBS_SWITCH"] != "external":
        problems.append(f"OpenBLAS (BLAS_LIBS = {settings['BLAS_LIBS']}), which makes pw.x two to three times faster")
    if "-D__FFTW3" not in settings["DFLAGS"]:
        problems.append(f"FFTW 3 (DFLAGS = {settings['DFLAGS']})")
    if mpi and "-D__MPI" not in settings["DFLAGS"]:
        problems.append(f"MPI (DFLAGS = {settings['DFLAGS']})")
    if problems:
        raise _failure(
            f"configure of Quantum ESPRESSO does not use {', nor '.join(problems)}",
            "library-not-used",
            "unset environment variables that point it elsewhere (BLAS_LIBS, LAPACK_LIBS, FFT_LIBS, LIBDIRS, MKLROOT), "
            "and see that gfortran finds these libraries without further options",
        )


def _install(recipe: Recipe, executable: Path, about: dict[str, object], log_file: Path) -> None:
    """Move each file into place at once, and the executable last: where it is, the rest is too."""
    recipe.executable.parent.mkdir(parents=True, exist_ok=True)
    staged_about, staged_executable = recipe.beside(".json"), recipe.beside(".x")
    staged_about.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    shutil.copy(executable, staged_executable)
    log_file.replace(recipe.folder / "build.log")
    staged_about.replace(recipe.folder / "build.json")
    staged_executable.replace(recipe.executable)


def _first_line(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.partition("\n")[0]

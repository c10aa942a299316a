"""Run one external program so that it can neither outlive this process nor take more than it may.

The program leads a process group of its own. Whatever ends the call (the program itself, a limit, an exception, Ctrl-C,
SIGKILL to this process) ends the whole group.
"""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from types import MappingProxyType
from typing import Literal

from sorep.errors import SET_UP, PwError

OUTPUT = "pw.out"
ERRORS = "pw.err"
"""Names of the files that standard output and standard error go to."""

SECONDS_TO_END = 2.0
"""How long a program that is told to end (SIGTERM) has before it is killed (SIGKILL)."""

_ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "BLIS_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
    ),
    "1",
)
_FIRST_LOOK, _LONGEST_PAUSE, _PAUSE_GROWTH = 0.01, 0.2, 1.5  # seconds between looks at a running program
_HARD_LIMIT = 1.5  # times the memory limit, plus what libraries set aside and do not touch. OpenBLAS takes 128 MiB, and
_SET_ASIDE = 512 * 2**20  # where that is refused it asks again for ever.
_PAGE_BYTES = resource.getpagesize()

Violation = Literal["time", "memory", "silent"]


@dataclass(frozen=True)
class ProcessLimits:
    """What one program may use; None is no limit.

    Attributes
    ----------
    seconds : float or None
        Wall-clock time.
    memory_bytes : int or None
        Resident memory of the program and all its descendants together.
    silent_seconds : float or None
        Time without new output on standard output or standard error.
    """

    seconds: float | None = None
    memory_bytes: int | None = None
    silent_seconds: float | None = None


@dataclass(frozen=True)
class Finished:
    """How a program ended.

    Attributes
    ----------
    returncode : int
        Exit status; minus the signal's number if a signal ended it.
    seconds : float
        Wall-clock time.
    cpu_seconds : float
        CPU time of the program and of those children it waited for.
    violation : {"time", "memory", "silent"} or None
        The limit for which it was stopped.
    peak_memory_bytes : int
        Largest resident memory seen, of the program and its descendants; 0 if it ended before the first look.
    """

    returncode: int
    seconds: float
    cpu_seconds: float
    violation: Violation | None
    peak_memory_bytes: int


NO_LIMITS = ProcessLimits()


def run_process(
    command: Sequence[str],
    folder: Path,
    *,
    limits: ProcessLimits = NO_LIMITS,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Finished:
    """Run ``command`` in ``folder`` and wait for its end.

    Standard input is empty, output and error go to the files `OUTPUT` and `ERRORS` in ``folder``, and linear-algebra
    libraries are told to use one thread. A program over a limit is told to end and, `SECONDS_TO_END` later, killed. No
    process of its group is left when this function returns or raises.

    Memory is the sum over the program and its descendants, MPI ranks included. As a backstop between two looks,
    no single process may allocate more than one and a half times the limit plus 512 MiB (RLIMIT_DATA). None dumps core.

    Parameters
    ----------
    command : sequence of str
        Program and arguments; with an MPI launcher, the launcher comes first.
    folder : Path
        Working directory; it must exist.
    limits : ProcessLimits, optional
        What the program may use.
    environment : mapping of str to str, optional
        Variables beside those of this process.

    Raises
    ------
    PwError
        In stage ``"set-up"``, if the program cannot be started: ``pw-x-not-found``, ``pw-x-not-executable``,
        ``pw-x-not-started``, or ``needs-linux`` on another system.
    """
    if sys.platform != "linux":
        raise PwError(
            f"pw.x can be run on Linux only, not on {sys.platform}",
            code="needs-linux",
            stage=SET_UP,
            remedy="use Linux, or a Linux container",
        )
    begin = time.monotonic()
    with _lifeline() as lifeline:
        process = _start(command, folder, environment, lifeline)
        watch = _Watch(process.pid, folder, limits, begin)
        violation = None
        try:
            _die_with_this_process(process.pid, lifeline)
            _set_hard_limits(process.pid, limits)
            violation = watch.until_end()
            if violation is not None:
                os.killpg(process.pid, signal.SIGTERM)
                watch.ended.join(SECONDS_TO_END)
        finally:
            # The leader, dead or alive, is not reaped yet, so its number still names this group and no other.
            os.killpg(process.pid, signal.SIGKILL)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
    return Finished(
        returncode=process.returncode,
        seconds=time.monotonic() - begin,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        violation=violation,
        peak_memory_bytes=watch.peak_memory_bytes,
    )


class _Watch:
    """Looks at a running program now and then, at first often; `ended` is alive until the program has ended."""

    def __init__(self, pid: int, folder: Path, limits: ProcessLimits, begin: float) -> None:
        self.peak_memory_bytes = 0
        self.ended = Thread(target=_wait_for_end, args=[pid], daemon=True)
        self._pid = pid
        self._files = (folder / OUTPUT, folder / ERRORS)
        self._limits = limits
        self._begin = self._last_output = begin
        self._output_bytes = 0

    def until_end(self) -> Violation | None:
        """Wait until the program has ended, or until it is over a limit."""
        self.ended.start()
        pause = _FIRST_LOOK
        while True:
            self.ended.join(min(pause, self._seconds_left()))
            if not self.ended.is_alive():
                return None
            violation = self._look()
            if violation is not None:
                return violation
            pause = min(pause * _PAUSE_GROWTH, _LONGEST_PAUSE)

    def _seconds_left(self) -> float:
        if self._limits.seconds is None:
            return _LONGEST_PAUSE
        return max(self._begin + self._limits.seconds - time.monotonic(), 0.0)

    def _look(self) -> Violation | None:
        now = time.monotonic()
        memory = _resident_bytes(self._pid)
        self.peak_memory_bytes = max(self.peak_memory_bytes, memory)
        output_bytes = sum(file.stat().st_size for file in self._files if file.exists())
        if output_bytes != self._output_bytes:
            self._output_bytes, self._last_output = output_bytes, now
        limits = self._limits
        if limits.seconds is not None and now - self._begin >= limits.seconds:
            return "time"
        if limits.memory_bytes is not None and memory > limits.memory_bytes:
            return "memory"
        if limits.silent_seconds is not None and now - self._last_output >= limits.silent_seconds:
            return "silent"
        return None


def _start(command: Sequence[str], folder: Path, environment: Mapping[str, str], lifeline: int) -> subprocess.Popen:
    with (folder / OUTPUT).open("wb") as output, (folder / ERRORS).open("wb") as errors:
        try:
            return subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env={**os.environ, **_ONE_THREAD, **environment},
                process_group=0,
                pass_fds=[lifeline],
            )
        except OSError as error:
            raise _not_started(command[0], error) from None


def _not_started(program: str, error: OSError) -> PwError:
    if isinstance(error, FileNotFoundError):
        code = "pw-x-not-found"
    elif isinstance(error, PermissionError) or error.strerror == "Exec format error":
        code = "pw-x-not-executable"
    else:
        return PwError(
            f"{program} cannot be started: {error}",
            code="pw-x-not-started",
            stage=SET_UP,
            remedy="lower --jobs if the machine is out of memory or processes",
        )
    return PwError(
        f"{program} cannot be started: {error.strerror}",
        code=code,
        stage=SET_UP,
        remedy="build pw.x with `sorep pw build`, or name one that runs on this machine",
    )


@contextmanager
def _lifeline() -> Iterator[int]:
    """The reading end of a pipe whose writing end is in this process alone."""
    read_end, write_end = os.pipe()
    try:
        yield read_end
    finally:
        os.close(write_end)
        os.close(read_end)


def _die_with_this_process(group: int, lifeline: int) -> None:
    """Have the kernel kill the group when the pipe's writing end closes, which it does however this process ends.

    The setting belongs to the open pipe, which the program inherited; so it outlives this process.
    """
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -group)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def _set_hard_limits(pid: int, limits: ProcessLimits) -> None:
    """Set the limits that the kernel keeps; they pass to the children."""
    with suppress(ProcessLookupError):  # it has ended
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
        if limits.memory_bytes is not None:
            _, hard = resource.prlimit(pid, resource.RLIMIT_DATA)
            ceiling = int(_HARD_LIMIT * limits.memory_bytes) + _SET_ASIDE
            new = ceiling if hard == resource.RLIM_INFINITY else min(ceiling, hard)
            resource.prlimit(pid, resource.RLIMIT_DATA, (new, new))


def _wait_for_end(pid: int) -> None:
    with suppress(ChildProcessError):  # it was reaped in the meantime
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def _resident_bytes(pid: int) -> int:
    """Resident memory of a process and its descendants, of whatever group, now."""
    pages = 0
    waiting = [str(pid)]
    while waiting:
        process = Path("/proc", waiting.pop())
        with suppress(OSError):  # it has ended
            pages += int((process / "statm").read_text().split()[1])
            for thread in (process / "task").iterdir():
                waiting += (thread / "children").read_text().split()
    return pages * _PAGE_BYTES

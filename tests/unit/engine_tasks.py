"""Tasks for test_engine.py, in a module that worker processes can import; also a script to be killed."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from sorep.engine import Limits, LocalEngine
from sorep.errors import BasisError

MEBIBYTE = 2**20


def square(x: int) -> int:
    return x * x


def fault(kind: str | int) -> Any:
    """Square a number; do the harm that a word names."""
    if isinstance(kind, int):
        return square(kind)
    return _FAULTS[kind]()


def _raise() -> None:
    raise ValueError("boom")


def _raise_sorep() -> None:
    raise BasisError("no such element", code="missing-element", remedy="another basis")


_FAULTS = {
    "hang": lambda: time.sleep(1000),
    "segfault": lambda: ctypes.string_at(0),
    "exit 0": lambda: os._exit(0),
    "exit 7": lambda: os._exit(7),
    "sys.exit": lambda: sys.exit("stop"),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "interrupt": lambda: os.kill(os.getpid(), signal.SIGINT),
    "allocate": lambda: len(bytearray(1000 * MEBIBYTE)),
    "raise": _raise,
    "raise sorep": _raise_sorep,
    "no pickle": lambda: _raise_sorep.__code__,
}


class NotPicklable:
    def __reduce__(self):
        raise RuntimeError("not this one")


class NotReadable:
    """Can be pickled, cannot be read back."""

    def __reduce__(self):
        return _raise, ()


def make_not_readable(_: object) -> NotReadable:
    return NotReadable()


def allocate(n_mebibytes: int) -> int:
    return len(bytearray(n_mebibytes * MEBIBYTE))


_kept: list[bytearray] = []


def keep(n_mebibytes: int) -> int:
    """Allocate, and never give back."""
    _kept.append(bytearray(n_mebibytes * MEBIBYTE))
    return len(_kept)


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def pid(_: object) -> int:
    return os.getpid()


def threads(_: object) -> list[int]:
    """Threads of every linear-algebra library loaded here."""
    import numpy as np
    from threadpoolctl import threadpool_info

    np.ones((2, 2)) @ np.ones((2, 2))
    return [library["num_threads"] for library in threadpool_info()]


def start_program_and_hang(file: str) -> None:
    """Start another program, write its process number, and never return."""
    program = subprocess.Popen(["sleep", "1000"])
    partial = Path(f"{file}.partial")
    partial.write_text(f"{os.getpid()} {program.pid}")
    partial.rename(file)
    program.wait()


def start_program_and_crash(file: str) -> None:
    """Start another program that inherits every open file, write its process number, and die."""
    program = subprocess.Popen(["sleep", "1000"], close_fds=False)
    Path(file).write_text(str(program.pid))
    os._exit(7)


def fail_to_start() -> None:
    raise ImportError("nothing here")


if __name__ == "__main__":
    how, *files = sys.argv[1:]
    if how == "leave open":
        engine = LocalEngine(4).__enter__()
        print(next(engine.map_unordered(square, [3])).value)
    else:
        with LocalEngine(len(files), Limits(seconds=500)) as engine:
            for outcome in engine.map_unordered(start_program_and_hang, files):
                print(outcome)

"""Calls side by side in worker processes, which share large arrays through files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from sorep.engine import LocalEngine

LARGE = 100_000
"""Bytes from which on an array is written to a file once, instead of sent with every call."""


@dataclass(frozen=True)
class _Filed:
    path: Path


@dataclass(frozen=True, eq=False)
class _Call:
    number: int
    function: Callable[..., Any]
    arguments: tuple


def in_parallel(function: Callable[..., Any], arguments: Sequence[tuple], jobs: int) -> Iterator[tuple[tuple, Any]]:
    """The arguments and the value of each call, in order.

    Parameters
    ----------
    function : callable
        Importable from its module.
    arguments : sequence of tuple
        Of each call. Arrays may be read-only where the function gets them.
    jobs : int
        Processes, of one thread each; with 1 the calls are made in this one.

    Raises
    ------
    SorepError
        The first, in the order of calls, that one of them raised.
    """
    if jobs == 1:
        for each in arguments:
            yield each, function(*each)
        return
    with TemporaryDirectory() as folder, LocalEngine(min(jobs, max(len(arguments), 1))) as engine:
        calls = _filed(function, arguments, Path(folder))
        done: dict[int, Any] = {}
        following = 0
        for outcome in engine.map_unordered(_answer, calls):
            done[outcome.item.number] = outcome
            while following in done:
                found = done.pop(following)
                if found.error is not None:
                    raise found.error
                yield arguments[following], found.value
                following += 1


def _filed(function: Callable[..., Any], arguments: Sequence[tuple], folder: Path) -> Iterator[_Call]:
    files: dict[int, _Filed] = {}

    def filed(argument: Any) -> Any:
        if not isinstance(argument, np.ndarray) or argument.nbytes < LARGE:
            return argument
        if id(argument) not in files:  # `arguments` keeps the array, and with it the number, alive
            path = folder / f"{len(files)}.npy"
            np.save(path, argument)
            files[id(argument)] = _Filed(path)
        return files[id(argument)]

    for number, each in enumerate(arguments):
        yield _Call(number, function, tuple(map(filed, each)))


def _answer(call: _Call) -> Any:
    arguments = (np.load(a.path, mmap_mode="r") if isinstance(a, _Filed) else a for a in call.arguments)
    return call.function(*arguments)

"""The worker's side: one thread, gone when the parent is gone, each task within its memory limit.

A task is a pickled ``(function, item)``; its answer is a pickled ``(value, error)``. Both are pickled here and in
`local`, not by the pool, so that what cannot be pickled becomes an answer.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import pickle
import resource
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sorep.engine.outcome import Item, Value
from sorep.errors import SorepError

_THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
_TRACEBACK_FRAMES = 3


def start(initializer: Callable[[], object] | None) -> None:
    """Prepare a new worker process."""
    _die_with_parent()
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))  # with the programs it started
    _use_one_thread()
    if initializer is not None:
        initializer()


def attempt(
    function: Callable[[Item], Value], item: Item, memory_bytes: int | None = None
) -> tuple[Value | None, SorepError | None]:
    """Call ``function(item)`` within ``memory_bytes`` and return its value, or its exception as an error.

    A `SorepError` is returned as it is. `MemoryError` becomes code ``memory-limit``, anything else code
    ``unexpected-error`` with the end of its traceback.
    """
    try:
        with _memory_limit(memory_bytes):
            return function(item), None
    except SorepError as error:
        return None, error
    except MemoryError as error:
        limit = f"its limit of {memory_bytes / 2**20:.0f} MiB" if memory_bytes else "there is"
        return None, SorepError(
            f"the task needs more memory than {limit}: {_describe(error)}",
            code="memory-limit",
            stage="run",
            remedy="raise --memory (with fewer --jobs if the machine is full), or leave this item out",
        )
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)[1:][-_TRACEBACK_FRAMES:]  # the first is this one
        return None, SorepError(
            "\n".join([_describe(error), *traceback.format_list(frames)]).rstrip(),
            code="unexpected-error",
            stage="run",
            remedy="report this with the input that caused it: it is a defect of sorep, not of the input",
        )


def not_picklable(what: str, error: Exception) -> SorepError:
    """The error for an item or a value that cannot travel between processes."""
    return SorepError(
        f"the {what} cannot be sent between processes: {_describe(error)}",
        code="not-picklable",
        stage="run",
        remedy="use picklable items and values, functions and classes of importable modules, or SerialEngine",
    )


def answer(request: bytes, memory_bytes: int | None) -> bytes:
    """The pickled ``(value, error)`` of a pickled task."""
    try:
        function, item = pickle.loads(request)
    except Exception as error:
        return pickle.dumps((None, not_picklable("function or item", error)))
    answer = attempt(function, item, memory_bytes)
    try:
        return pickle.dumps(answer)
    except Exception as error:
        return pickle.dumps((None, not_picklable("value or error of the function", error)))


def _describe(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(error)).strip()


def _die_with_parent() -> None:
    """Have the kernel kill this process, and every program it started, when the parent is gone.

    The worker leads a process group of its own (so Ctrl-C in a terminal does not reach it). The pipe to the
    parent's `multiprocessing.Process` object closes when the parent ends, however it ends; that event is
    made to send SIGKILL to the group, which works even while compiled code holds the interpreter. Where
    the system lacks this (it is Linux's), a worker ends with its present task.
    """
    os.setpgid(0, 0)
    parent = multiprocessing.parent_process()
    if parent is not None and hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(parent.sentinel, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(parent.sentinel, fcntl.F_SETOWN, -os.getpid())
        fcntl.fcntl(parent.sentinel, fcntl.F_SETFL, fcntl.fcntl(parent.sentinel, fcntl.F_GETFL) | os.O_ASYNC)


def _use_one_thread() -> None:
    """One thread for each linear-algebra library, whether it is loaded already or loaded later."""
    from threadpoolctl import threadpool_limits

    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    threadpool_limits(1)


@contextmanager
def _memory_limit(memory_bytes: int | None) -> Iterator[None]:
    """Let this process allocate ``memory_bytes`` more than it holds now; more raises `MemoryError`."""
    if memory_bytes is None:
        yield
        return
    before = soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    ceilings = [_allocated_bytes() + memory_bytes, soft, hard]
    new = min(ceiling for ceiling in ceilings if ceiling != resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_DATA, (new, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _allocated_bytes() -> int:
    """The memory that Linux counts against RLIMIT_DATA."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmData:")[1].split()[0]) * 1024

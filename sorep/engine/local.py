"""Run a function over many items in local worker processes, so that one item cannot hurt another.

Processes, time limits and the detection of dead workers are pebble's; what a worker does before and around a task is in
`sorep.engine.worker`.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Self

from pebble import ProcessExpired, ProcessPool

from sorep.engine.outcome import Item, Limits, Outcome, Value, check_positive
from sorep.engine.worker import answer, not_picklable, start
from sorep.errors import SorepError, UsageError

IN_FLIGHT_PER_JOB = 4
"""Items of one map that are pulled but not yet yielded, for each worker."""

MOST_BREAKS = 3
"""How often in a row the pool may break before the engine gives up."""

SECONDS_BETWEEN_LOOKS = 5.0
"""How long a map waits before it asks whether the pool still works."""

_SPAWN = multiprocessing.get_context("spawn")  # a forked copy of a parent with threads can lock up


class LocalEngine:
    """Worker processes on this machine, one linear-algebra thread each.

    Used as a context manager; the workers live as long as it does and die with this process, however it ends.
    A task that crashes, hangs or takes too much memory costs its own outcome only:

    ========================  ===============================================================
    code of the error         meaning
    ========================  ===============================================================
    ``time-limit``            over its time limit; the worker was killed
    ``memory-limit``          an allocation over its memory limit was refused
    ``worker-died``           the process died: crash, exit, or killed from outside
    ``not-picklable``         the item, its value or its error cannot travel between processes
    ``unexpected-error``      any exception that is not a `SorepError`
    ========================  ===============================================================

    A `SorepError` raised by the function is passed on as it is. A task that ends its process with exit status
    0 looks to pebble like a worker that retires: it is noticed when its time limit has passed.

    Parameters
    ----------
    jobs : int
        Number of worker processes.
    limits : Limits, optional
        What one task may use; without it as much as it wants.
    initializer : callable, optional
        Called without arguments in each new worker before its first task, outside all limits; the place
        for slow imports.

    Raises
    ------
    UsageError
        If ``jobs`` is less than one, or a memory limit is asked for on a system other than Linux.
    """

    def __init__(
        self, jobs: int = 1, limits: Limits | None = None, *, initializer: Callable[[], object] | None = None
    ) -> None:
        if jobs < 1:
            raise UsageError(f"{jobs} worker processes were asked for", remedy="give --jobs of at least 1")
        self.jobs = jobs
        self.limits = limits or Limits()
        if self.limits.memory_bytes is not None and sys.platform != "linux":
            raise UsageError("memory limits need Linux", remedy="leave out --memory on this system")
        self._initializer = initializer
        self._pool: ProcessPool | None = None
        self._maps: list[_Map] = []
        self._breaks = 0  # of the pool, since the last answer

    def __enter__(self) -> Self:
        self._pool = self._new_pool()
        return self

    def __exit__(self, *exception: object) -> None:
        """Kill the workers, whatever they are doing."""
        pool, self._pool = self._pool, None
        for current in self._maps:
            current.answered.put(None)  # a map that is still waiting learns that nothing will come
        _stop(pool)

    def map_unordered(
        self, function: Callable[[Item], Value], items: Iterable[Item], *, seconds: float | None = None
    ) -> Iterator[Outcome[Item, Value]]:
        """Apply ``function`` to every item; see `Engine.map_unordered`.

        At most `IN_FLIGHT_PER_JOB` items per worker are in hand. Closing the iterator, or Ctrl-C while it
        waits, cancels this map's tasks; the engine stays usable.

        Raises
        ------
        UsageError
            If the engine is not open, or ``function`` cannot be pickled.
        """
        check_positive("time limit", seconds)
        if self._pool is None:
            raise UsageError("the engine is not open", remedy="use it in a with statement")
        try:
            pickle.dumps(function)
        except Exception as error:
            raise UsageError(
                f"{function!r} cannot be sent to a worker process: {error}",
                remedy="use a function of an importable module, or SerialEngine",
            ) from error
        return self._map(function, items, seconds or self.limits.seconds)

    def _map(self, function: Callable, items: Iterable, seconds: float | None) -> Iterator[Outcome]:
        current = _Map(seconds)
        self._maps.append(current)
        try:
            for item in items:
                try:
                    request = pickle.dumps((function, item))
                except Exception as error:
                    yield Outcome(item, error=not_picklable("item", error))
                    continue
                self._submit(current, _Task(item, request))
                while len(current.pending) == IN_FLIGHT_PER_JOB * self.jobs or not current.answered.empty():
                    yield from self._next(current)
            while current.pending:
                yield from self._next(current)
        finally:
            self._maps.remove(current)
            for future in current.pending:
                future.cancel()

    def _submit(self, current: _Map, task: _Task) -> None:
        while True:
            pool = self._open_pool()
            try:
                future = pool.schedule(answer, args=[task.request, self.limits.memory_bytes], timeout=current.seconds)
            except RuntimeError as error:
                self._mend(pool, error)
            else:
                break
        task.pool = pool
        current.pending[future] = task
        future.add_done_callback(current.answered.put)

    def _next(self, current: _Map) -> Iterator[Outcome]:
        """The next outcome; none where the pool broke, and what it held was submitted again."""
        pool = self._open_pool()
        try:
            future = current.answered.get(timeout=SECONDS_BETWEEN_LOOKS)
        except Empty:
            if not pool.active:
                self._mend(pool, RuntimeError("its threads ended"))
            return
        if future is None:
            self._open_pool()  # raises: the engine was closed
            return
        task = current.pending.get(future)
        if task is None:
            return  # given up with a broken pool, and submitted again
        try:
            outcome = _read_answer(task.item, future.result())
        except (BrokenProcessPool, CancelledError) as error:
            self._mend(task.pool, error)
            return
        except TimeoutError:
            outcome = Outcome(task.item, error=_time_limit(current.seconds))
        except ProcessExpired as error:
            if error.pid is not None:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(error.pid, signal.SIGKILL)  # the programs that it had started
            outcome = Outcome(task.item, error=_worker_died(error))
        del current.pending[future]
        self._breaks = 0
        yield outcome

    def _open_pool(self) -> ProcessPool:
        if self._pool is None:
            raise UsageError("the engine is closed", remedy="use it in a with statement, and exhaust its maps in it")
        return self._pool

    def _mend(self, broken: ProcessPool | None, reason: BaseException) -> None:
        """Replace a pool that pebble gave up, as it does where an idle worker is killed from outside.

        Whatever the broken pool held starts again in the new one; nothing of it was answered.
        """
        if broken is None or self._open_pool() is not broken:
            return  # mended already
        self._breaks += 1
        if self._breaks > MOST_BREAKS:
            raise SorepError(
                f"worker processes do not start or do not stay alive: {reason}",
                code="worker-start",
                stage="run",
                remedy="see the messages above; a script needs its code under if __name__ == '__main__'",
            )
        self._pool = self._new_pool()
        _stop(broken)
        for current in self._maps:
            for future, task in list(current.pending.items()):
                if task.pool is broken and not _has_answer(future):
                    del current.pending[future]
                    self._submit(current, task)

    def _new_pool(self) -> ProcessPool:
        return ProcessPool(max_workers=self.jobs, initializer=start, initargs=[self._initializer], context=_SPAWN)


@dataclass(eq=False)
class _Task:
    item: Any
    request: bytes
    pool: ProcessPool | None = None


class _Map:
    """One call of `LocalEngine.map_unordered`: what is in flight, and what came back."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.pending: dict[Future, _Task] = {}
        self.answered: SimpleQueue[Future | None] = SimpleQueue()


def _has_answer(future: Future) -> bool:
    """Whether a future holds the answer of its task, rather than the end of its pool."""
    if not future.done() or future.cancelled():
        return False
    return not isinstance(future.exception(), BrokenProcessPool)


def _stop(pool: ProcessPool | None) -> None:
    if pool is not None:
        pool.stop()
        pool.join()


def _read_answer(item: Any, answer: bytes) -> Outcome:
    try:
        value, error = pickle.loads(answer)
    except Exception as error:
        return Outcome(item, error=not_picklable("value or error of the function", error))
    return Outcome(item, value, error)


def _time_limit(seconds: float | None) -> SorepError:
    return SorepError(
        f"the task ran longer than its limit of {seconds:g} s and was stopped",
        code="time-limit",
        stage="run",
        remedy="raise --timeout, or leave this item out",
    )


def _worker_died(error: ProcessExpired) -> SorepError:
    return SorepError(
        f"the worker process ended with exit code {error.exitcode} while it ran this task",
        code="worker-died",
        stage="run",
        remedy="a negative code is a signal: -9 means that the machine probably ran out of memory (lower --jobs, "
        "or set --memory); -11 is a crash of compiled code (report this with the input)",
    )

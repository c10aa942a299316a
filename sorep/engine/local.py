"""Run a function over many items in local worker processes, so that one item cannot hurt another.

Processes, time limits and the detection of dead workers are pebble's; what a worker does before and around a task is in
`sorep.engine.worker`. Every worker is a pool of its own that holds one task at a time: pebble's workers share a pipe
within a pool, and a death there can be laid at the wrong task's door while the parent is busy.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import RLock, Thread
from typing import Any, Self

from pebble import ProcessExpired, ProcessPool

from sorep.engine.outcome import Item, Limits, Outcome, Value, check_positive
from sorep.engine.worker import answer, not_picklable, start
from sorep.errors import SorepError, UsageError

IN_FLIGHT_PER_JOB = 4
"""Items of one map that are pulled but not yet yielded, for each worker."""

MOST_ATTEMPTS = 3
"""How often a task is handed out to workers that vanish before they say that they took it."""

SECONDS_BETWEEN_LOOKS = 5.0
"""How long a map waits before it asks whether the workers are still there."""

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
        self._workers = [_Worker() for _ in range(jobs)]
        self._endings: list[Thread] = []
        self._waiting: deque[_Task] = deque()
        self._lock = RLock()  # tasks end in pebble's threads
        self._is_open = False
        self._has_answered = False

    def __enter__(self) -> Self:
        self._is_open = True
        return self

    def __exit__(self, *exception: object) -> None:
        """Kill the workers, whatever they are doing."""
        with self._lock:
            self._is_open = False
            unfinished = [worker.task for worker in self._workers if worker.task] + list(self._waiting)
            for worker in self._workers:
                self._retire(worker)
        for task in unfinished:
            task.map.answers.put((task, _closed()))
        for ending in self._endings:
            ending.join()

    def map_unordered(
        self, function: Callable[[Item], Value], items: Iterable[Item], *, seconds: float | None = None
    ) -> Iterator[Outcome[Item, Value]]:
        """Apply ``function`` to every item; see `Engine.map_unordered`.

        At most `IN_FLIGHT_PER_JOB` items per worker are in hand. Closing the iterator, or Ctrl-C while it
        waits, drops this map's waiting tasks and kills its running ones; the engine stays usable.

        Raises
        ------
        UsageError
            If the engine is not open, or ``function`` cannot be pickled.
        SorepError
            With code ``worker-start`` if worker processes do not start.
        """
        check_positive("time limit", seconds)
        if not self._is_open:
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
        in_flight = 0
        try:
            for item in items:
                try:
                    request = pickle.dumps((function, item))
                except Exception as error:
                    yield Outcome(item, error=not_picklable("item", error))
                    continue
                self._submit(_Task(current, item, request))
                in_flight += 1
                while in_flight == IN_FLIGHT_PER_JOB * self.jobs or not current.answers.empty():
                    yield self._next_outcome(current)
                    in_flight -= 1
            for _ in range(in_flight):
                yield self._next_outcome(current)
        finally:
            self._abandon(current)

    def _submit(self, task: _Task) -> None:
        with self._lock:
            if not self._is_open:
                raise _closed()
            self._waiting.append(task)
            self._hand_out()

    def _next_outcome(self, current: _Map) -> Outcome:
        while True:
            try:
                task, end = current.answers.get(timeout=SECONDS_BETWEEN_LOOKS)
            except Empty:
                self._look_after_workers()
            else:
                break
        if isinstance(end, SorepError):
            raise end
        try:
            value, error = pickle.loads(end.result())
        except TimeoutError:
            return Outcome(task.item, error=_time_limit(current.seconds))
        except ProcessExpired as error:
            if error.pid is not None:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(error.pid, signal.SIGKILL)  # the programs that it had started
            return Outcome(task.item, error=_worker_died(f"ended with exit code {error.exitcode}"))
        except BrokenProcessPool as error:
            return Outcome(task.item, error=_worker_died(f"vanished ({error})"))
        except Exception as error:
            return Outcome(task.item, error=not_picklable("value or error of the function", error))
        return Outcome(task.item, value, error)

    # What follows runs under the lock, in the caller's thread or in one of pebble's.

    def _hand_out(self) -> None:
        """Give every idle worker a task."""
        for worker in self._workers:
            if self._waiting and worker.task is None:
                self._begin(worker, self._waiting.popleft())

    def _begin(self, worker: _Worker, task: _Task) -> None:
        future = None
        while future is None:
            if worker.pool is None:
                worker.pool = ProcessPool(1, initializer=start, initargs=[self._initializer], context=_SPAWN)
            try:
                memory = self.limits.memory_bytes
                future = worker.pool.schedule(answer, args=[task.request, memory], timeout=task.map.seconds)
            except RuntimeError:  # the worker was killed while it was idle, and pebble gave the pool up
                self._retire(worker)
        worker.task = task
        future.add_done_callback(lambda ended: self._end(worker, task, ended))

    def _end(self, worker: _Worker, task: _Task, ended: Future) -> None:
        with self._lock:
            if worker.task is not task:
                return  # given up already
            worker.task = None
            broken = ended.cancelled() or isinstance(ended.exception(), BrokenProcessPool)
            if broken:
                self._retire(worker)
                task.attempts += 1
            if not broken:
                self._has_answered = True
                task.map.answers.put((task, ended))
            elif task.attempts < MOST_ATTEMPTS:
                self._waiting.appendleft(task)
            else:
                task.map.answers.put((task, ended if self._has_answered else _no_start()))
            if self._is_open:
                self._hand_out()

    def _look_after_workers(self) -> None:
        """Start tasks again whose pool ended without a word."""
        with self._lock:
            for worker in self._workers:
                if worker.task and worker.pool and not worker.pool.active:
                    self._waiting.appendleft(worker.task)
                    self._retire(worker)
            self._hand_out()

    def _abandon(self, current: _Map) -> None:
        with self._lock:
            self._waiting = deque(task for task in self._waiting if task.map is not current)
            for worker in self._workers:
                if worker.task and worker.task.map is current:
                    self._retire(worker)
            if self._is_open:
                self._hand_out()

    def _retire(self, worker: _Worker) -> None:
        """Stop a worker's pool, whatever it does. Ending the process takes time, and is left to a thread."""
        pool, worker.pool, worker.task = worker.pool, None, None
        if pool is not None:
            pool.stop()
            ending = Thread(target=pool.join, name="sorep-ending", daemon=True)
            ending.start()
            self._endings = [thread for thread in self._endings if thread.is_alive()] + [ending]


@dataclass(eq=False)
class _Map:
    """One call of `LocalEngine.map_unordered`, and what came back for it."""

    seconds: float | None
    answers: SimpleQueue[tuple[_Task, Future | SorepError]] = field(default_factory=SimpleQueue)


@dataclass(eq=False)
class _Task:
    map: _Map
    item: Any
    request: bytes
    attempts: int = 0


@dataclass(eq=False)
class _Worker:
    """One process, as a pool of pebble's, and the task it is on."""

    pool: ProcessPool | None = None
    task: _Task | None = None


def _closed() -> SorepError:
    return UsageError("the engine is closed", remedy="use it in a with statement, and exhaust its maps in it")


def _time_limit(seconds: float | None) -> SorepError:
    return SorepError(
        f"the task ran longer than its limit of {seconds:g} s and was stopped",
        code="time-limit",
        stage="run",
        remedy="raise --timeout, or leave this item out",
    )


def _worker_died(how: str) -> SorepError:
    return SorepError(
        f"the worker process {how} while it ran this task",
        code="worker-died",
        stage="run",
        remedy="a negative code is a signal: -9 means that the machine probably ran out of memory (lower --jobs, "
        "or set --memory); -11 is a crash of compiled code (report this with the input)",
    )


def _no_start() -> SorepError:
    return SorepError(
        "worker processes do not start",
        code="worker-start",
        stage="run",
        remedy="see the messages above; a script needs its code under if __name__ == '__main__'",
    )

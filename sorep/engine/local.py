"""Run a function over many items in local worker processes, so that one item cannot hurt another.

Each worker has a pipe of its own and holds one task at a time. A closed pipe therefore says, at once and
without doubt, which task a dead worker was running; nothing is shared between workers that a dying one
could leave locked or half written. One thread of the parent, the dispatcher, starts the workers, hands
out tasks, takes answers, and replaces a worker that died or ran out of time.
"""

from __future__ import annotations

import atexit
import math
import multiprocessing
import os
import pickle
import selectors
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from queue import SimpleQueue
from typing import Any, Self

from sorep.engine.outcome import Item, Limits, Outcome, Value, check_positive
from sorep.engine.worker import not_picklable, serve
from sorep.errors import SorepError, UsageError

IN_FLIGHT_PER_JOB = 4
"""Items of one map that are pulled but not yet yielded, for each worker."""

_SPAWN = multiprocessing.get_context("spawn")  # a forked copy of a parent with threads can lock up
_SECONDS_TO_EXIT = 2.0  # an ending process that is stuck, in a file system perhaps, is not waited for longer


class LocalEngine:
    """Worker processes on this machine, one linear-algebra thread each.

    Used as a context manager; the workers live as long as it does and die with this process, however it
    ends. A task that crashes, hangs or takes too much memory costs its own outcome only:

    ========================  ===============================================================
    code of the error         meaning
    ========================  ===============================================================
    ``time-limit``            over its time limit; the worker was killed
    ``memory-limit``          an allocation over its memory limit was refused
    ``worker-died``           the process died: crash, exit, or killed from outside
    ``not-picklable``         the item, its value or its error cannot travel between processes
    ``unexpected-error``      any exception that is not a `SorepError`
    ========================  ===============================================================

    A `SorepError` raised by the function is passed on as it is.

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
        self,
        jobs: int = 1,
        limits: Limits | None = None,
        *,
        initializer: Callable[[], object] | None = None,
    ) -> None:
        if jobs < 1:
            raise UsageError(f"{jobs} worker processes were asked for", remedy="give --jobs of at least 1")
        self.jobs = jobs
        self.limits = limits or Limits()
        if self.limits.memory_bytes is not None and sys.platform != "linux":
            raise UsageError("memory limits need Linux", remedy="leave out --memory on this system")
        self._initializer = initializer
        self._waiting: deque[_Task] = deque()
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()
        self._bell, self._ear = socket.socketpair()  # a byte in it wakes the dispatcher
        self._bell.setblocking(False)
        self._dispatcher = threading.Thread(target=self._dispatch, name="sorep-dispatcher", daemon=True)
        self._closing = False
        self._stopped: BaseException | None = None

    def __enter__(self) -> Self:
        self._dispatcher.start()
        atexit.register(self.__exit__)  # for an open engine in a generator that nothing finishes
        return self

    def __exit__(self, *exception: object) -> None:
        """Kill the workers, whatever they are doing."""
        atexit.unregister(self.__exit__)
        self._closing = True
        self._ring()
        self._dispatcher.join()
        self._bell.close()
        self._ear.close()

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
            With code ``worker-start`` if a worker process cannot be started.
        """
        check_positive("time limit", seconds)
        if not self._dispatcher.is_alive() and self._stopped is None:
            raise UsageError("the engine is not open", remedy="use it in a with statement")
        try:
            pickle.dumps(function)
        except Exception as error:
            raise UsageError(
                f"{function!r} cannot be sent to a worker process: {error}",
                remedy="use a function of an importable module, or SerialEngine",
            ) from error
        return self._map(function, items, seconds or self.limits.seconds or math.inf)

    def _map(self, function: Callable, items: Iterable, seconds: float) -> Iterator[Outcome]:
        current = _Map()
        in_flight = 0
        try:
            for item in items:
                self._submit(_Task(current, function, item, seconds))
                in_flight += 1
                while in_flight == IN_FLIGHT_PER_JOB * self.jobs or not current.answers.empty():
                    yield self._next_outcome(current)
                    in_flight -= 1
            for _ in range(in_flight):
                yield self._next_outcome(current)
        finally:
            current.abandoned = True
            self._ring()

    def _submit(self, task: _Task) -> None:
        try:
            task.request = pickle.dumps((task.function, task.item))
        except Exception as error:
            task.answer(not_picklable("item", error))
            return
        self._waiting.append(task)
        self._ring()
        if self._stopped is not None:  # checked after appending, so that no task is left unanswered
            raise self._stopped

    def _next_outcome(self, current: _Map) -> Outcome:
        item, answer = current.answers.get()
        if answer is None:
            raise self._stopped or RuntimeError("the dispatcher ended without a reason")
        if isinstance(answer, SorepError):
            return Outcome(item, error=answer)
        try:
            value, error = pickle.loads(answer)
        except Exception as error:
            return Outcome(item, error=not_picklable("value or error of the function", error))
        return Outcome(item, value, error)

    def _ring(self) -> None:
        with suppress(OSError):  # full: the dispatcher will wake anyway; closed: there is nothing to wake
            self._bell.send(b"\0")

    # What follows runs in the dispatcher thread, the only one that touches workers.

    def _dispatch(self) -> None:
        reason: BaseException = UsageError("the engine is closed", remedy="exhaust its maps first")
        try:
            resource_tracker.ensure_running()  # it unblocks SIGINT, so it comes before the next line
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # new workers inherit this
            self._selector.register(self._ear, selectors.EVENT_READ)
            while not self._closing:
                self._replace_workers()
                self._hand_out()
                self._listen()
        except BaseException as error:
            reason = error
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.wait()
        self._selector.close()
        self._stopped = reason
        for task in [worker.task for worker in self._workers if worker.task] + list(self._waiting):
            task.answer(None)

    def _replace_workers(self) -> None:
        """Kill the workers whose task is over its limit or no longer wanted; bring the number up to jobs."""
        now = time.monotonic()
        for worker in list(self._workers):
            task = worker.task
            if task and (task.map.abandoned or now >= worker.deadline):
                self._bury(worker)
                task.answer(_time_limit(task.seconds))
        while len(self._workers) < self.jobs:
            worker = _Worker(self.limits.memory_bytes, self._initializer)
            self._workers.append(worker)
            self._selector.register(worker.pipe, selectors.EVENT_READ, worker)

    def _hand_out(self) -> None:
        for worker in self._workers:
            if worker.ready and worker.task is None:
                while self._waiting and self._waiting[0].map.abandoned:
                    self._waiting.popleft()
                if not self._waiting:
                    return
                task = self._waiting.popleft()
                try:
                    worker.begin(task)
                except OSError:  # it died while idle; its closed pipe is noticed next
                    self._waiting.appendleft(task)

    def _listen(self) -> None:
        """Wait for an answer, a death, the next deadline or the bell."""
        deadline = min((worker.deadline for worker in self._workers if worker.task), default=math.inf)
        timeout = None if deadline == math.inf else max(0.0, deadline - time.monotonic())
        for key, _ in self._selector.select(timeout):
            if key.fileobj is self._ear:
                self._ear.recv(4096)
            else:
                self._receive(key.data)

    def _receive(self, worker: _Worker) -> None:
        try:
            message = worker.pipe.recv_bytes()
        except (EOFError, OSError):
            worker.process.join(_SECONDS_TO_EXIT)  # it is ending: let it, to learn its own exit code
            exit_code = self._bury(worker)
            if not worker.ready:
                raise _no_start(_exit(exit_code)) from None
            if worker.task:
                worker.task.answer(_worker_died(exit_code))
            return
        task, worker.task, worker.ready = worker.task, None, True
        if task:
            task.answer(message)

    def _bury(self, worker: _Worker) -> int | None:
        self._selector.unregister(worker.pipe)
        self._workers.remove(worker)
        worker.kill()
        return worker.wait()


@dataclass
class _Map:
    """One call of `LocalEngine.map_unordered`."""

    answers: SimpleQueue[tuple[Any, bytes | SorepError | None]] = field(default_factory=SimpleQueue)
    abandoned: bool = False


@dataclass
class _Task:
    map: _Map
    function: Callable
    item: Any
    seconds: float
    request: bytes = b""

    def answer(self, answer: bytes | SorepError | None) -> None:
        """Hand over a worker's message, or an error; None says that the engine has stopped."""
        self.map.answers.put((self.item, answer))


class _Worker:
    """A process, the pipe to it, and the task it is on."""

    def __init__(self, memory_bytes: int | None, initializer: Callable[[], object] | None) -> None:
        self.pipe, remote = _SPAWN.Pipe()
        self.process = _SPAWN.Process(
            target=serve, args=(remote, memory_bytes, initializer), name="sorep-worker", daemon=True
        )
        try:
            self.process.start()
        except OSError as error:
            raise _no_start(str(error)) from error
        remote.close()
        self.ready = False
        self.task: _Task | None = None
        self.deadline = math.inf

    def begin(self, task: _Task) -> None:
        self.pipe.send_bytes(task.request)
        self.task = task
        self.deadline = time.monotonic() + task.seconds

    def kill(self) -> None:
        """Kill the process and the programs it started."""
        if self.process.pid is not None:
            with suppress(ProcessLookupError, PermissionError):  # no such group: it did not get that far
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()

    def wait(self) -> int | None:
        """Reap the killed process and return its exit code."""
        self.process.join(_SECONDS_TO_EXIT)
        self.pipe.close()
        return self.process.exitcode


def _time_limit(seconds: float) -> SorepError:
    return SorepError(
        f"the task ran longer than its limit of {seconds:g} s and was stopped",
        code="time-limit",
        stage="run",
        remedy="raise --timeout, or leave this item out",
    )


def _worker_died(exit_code: int | None) -> SorepError:
    killed = exit_code == -signal.SIGKILL
    return SorepError(
        f"the worker process {_exit(exit_code)} while it ran this task",
        code="worker-died",
        stage="run",
        remedy="the machine probably ran out of memory: lower --jobs, or set --memory"
        if killed
        else "compiled code crashed: raise --memory if one is set, otherwise report this with the input",
    )


def _no_start(reason: str) -> SorepError:
    return SorepError(
        f"a worker process did not start: {reason}",
        code="worker-start",
        stage="run",
        remedy="see the messages above; a script needs its code under if __name__ == '__main__'",
    )


def _exit(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return f"ended with exit status {exit_code}"
    return f"was killed by {signal.Signals(-exit_code).name}"

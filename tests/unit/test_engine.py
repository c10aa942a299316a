"""The engines, with real processes and real harm done to them."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from sorep.engine import Engine, Limits, LocalEngine, Outcome, SerialEngine
from sorep.engine.local import IN_FLIGHT_PER_JOB
from sorep.errors import BasisError, SorepError, UsageError

HERE = Path(__file__).parent
GUARD = 60.0  # seconds after which something that ought to be quick is taken to hang

pytestmark = pytest.mark.timeout(2 * GUARD)


@pytest.fixture(scope="module")
def tasks() -> Iterator[ModuleType]:
    """The module of task functions; workers look for modules where this process does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        yield importlib.import_module("engine_tasks")


@pytest.fixture(scope="module")
def local(tasks: ModuleType) -> Iterator[LocalEngine]:
    with LocalEngine(2, Limits(memory_bytes=200 * tasks.MEBIBYTE)) as engine:
        yield engine


@pytest.fixture(scope="module", params=["local", "serial"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if request.param == "local":
        yield request.getfixturevalue("local")
    else:
        with SerialEngine() as serial:
            yield serial


def values(outcomes: Iterator[Outcome]) -> dict:
    """Value by item; raises where an item has none."""
    found = {}
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
        found[outcome.item] = outcome.value
    return found


def error_of(outcome: Outcome) -> SorepError:
    assert outcome.error is not None
    return outcome.error


def one_error(engine: Engine, function, item, seconds: float | None = None) -> SorepError:
    """The error of ``item`` among healthy items, after checking that the others came back right."""
    outcomes = list(engine.map_unordered(function, [1, 2, item, 3, 4], seconds=seconds))
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    healthy = {outcome.item: outcome.value for outcome in outcomes if outcome.error is None}
    assert healthy == {1: 1, 2: 4, 3: 9, 4: 16}
    assert [outcome.item for outcome in failed] == [item]
    assert failed[0].value is None
    return error_of(failed[0])


def is_running(pid: int) -> bool:
    """Whether a process exists and is not just waiting to be reaped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_until(condition) -> None:
    end = time.monotonic() + GUARD
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


# Both engines


def test_every_item_comes_back_once(engine, tasks):
    items = list(range(300))
    assert values(engine.map_unordered(tasks.square, items)) == {x: x * x for x in items}
    assert list(engine.map_unordered(tasks.square, [])) == []


def test_items_are_pulled_lazily(engine, tasks):
    pulled = 0

    def endless() -> Iterator[int]:
        nonlocal pulled
        while True:
            pulled += 1
            yield pulled

    outcomes = engine.map_unordered(tasks.square, endless())
    for n_yielded in range(1, 100):
        next(outcomes)
        assert n_yielded <= pulled <= n_yielded + IN_FLIGHT_PER_JOB * 2
    outcomes.close()


def test_a_map_may_feed_another(engine, tasks):
    inner = (outcome.value for outcome in engine.map_unordered(tasks.square, range(50)))
    assert values(engine.map_unordered(tasks.square, inner)) == {x**2: x**4 for x in range(50)}


def test_maps_may_alternate(engine, tasks):
    first = engine.map_unordered(tasks.square, range(40))
    second = engine.map_unordered(tasks.square, range(100, 140))
    pairs = list(zip(first, second, strict=True))
    assert {a.item for a, _ in pairs} == set(range(40))
    assert {b.item for _, b in pairs} == set(range(100, 140))


def test_a_sorep_error_passes_through(engine, tasks):
    error = one_error(engine, tasks.fault, "raise sorep")
    assert type(error) is BasisError
    assert (error.code, error.stage, error.remedy) == ("missing-element", "basis", "another basis")


@pytest.mark.parametrize(("item", "name"), [("raise", "ValueError: boom"), ("sys.exit", "SystemExit: stop")])
def test_an_exception_becomes_an_error_with_its_place(engine, tasks, item, name):
    error = one_error(engine, tasks.fault, item)
    assert (error.code, error.stage) == ("unexpected-error", "run")
    assert error.message.startswith(name)
    assert "engine_tasks.py" in error.message
    assert "worker.py" not in error.message


def test_an_exception_of_the_items_reaches_the_caller(engine, tasks):
    def items() -> Iterator[int]:
        yield 1
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        list(engine.map_unordered(tasks.square, items()))
    assert values(engine.map_unordered(tasks.square, [5])) == {5: 25}


def test_a_function_that_returns_none_has_no_error(engine, tasks):
    assert list(engine.map_unordered(print, [""])) == [Outcome("", None, None)]


# Harm


@pytest.mark.parametrize(
    ("item", "word"),
    [("segfault", "-11"), ("exit 7", "code 7"), ("kill", "-9")],
)
def test_a_dead_worker_costs_one_item(local, tasks, item, word):
    error = one_error(local, tasks.fault, item)
    assert (error.code, error.stage) == ("worker-died", "run")
    assert word in error.message


def test_a_hang_costs_one_item(local, tasks):
    error = one_error(local, tasks.fault, "hang", seconds=1.5)
    assert (error.code, error.stage) == ("time-limit", "run")
    assert "1.5 s" in error.message
    assert "--timeout" in error.remedy


def test_a_quiet_exit_is_noticed_by_the_time_limit(local, tasks):
    assert one_error(local, tasks.fault, "exit 0", seconds=1.5).code == "time-limit"


def test_a_large_allocation_costs_one_item(local, tasks):
    error = one_error(local, tasks.fault, "allocate")
    assert (error.code, error.stage) == ("memory-limit", "run")
    assert "200 MiB" in error.message
    assert "--memory" in error.remedy


def test_the_memory_limit_is_for_each_task(local, tasks):
    outcomes = list(local.map_unordered(tasks.allocate, [150, 250] * 4))
    for outcome in outcomes:
        assert (outcome.error is None) == (outcome.item == 150), outcome
    workers = set(values(local.map_unordered(tasks.pid, range(20))).values())
    assert len(workers) <= 2  # a refused allocation costs no worker


def test_what_a_worker_holds_already_does_not_count(tasks):
    with LocalEngine(1, Limits(memory_bytes=200 * tasks.MEBIBYTE)) as engine:
        outcomes = list(engine.map_unordered(tasks.keep, [150, 151]))
    assert [outcome.value for outcome in outcomes] == [1, 2]


def test_what_cannot_be_pickled_costs_one_item(local, tasks):
    assert one_error(local, tasks.fault, "no pickle").code == "not-picklable"
    assert one_error(local, tasks.fault, tasks.NotPicklable()).code == "not-picklable"
    assert one_error(local, tasks.fault, tasks.NotReadable()).code == "not-picklable"
    (outcome,) = local.map_unordered(tasks.make_not_readable, [0])
    assert error_of(outcome).code == "not-picklable"


def test_many_deaths_among_many_items(local, tasks):
    items = [i if i % 10 else "exit 7" for i in range(1, 101)]
    outcomes = list(local.map_unordered(tasks.fault, items))
    assert sorted(o.item for o in outcomes if o.error is None) == [i for i in range(1, 101) if i % 10]
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    assert [error_of(outcome).code for outcome in failed] == ["worker-died"] * 10


def test_deaths_are_laid_at_the_right_door_while_the_parent_is_busy(local, tasks):
    stop = threading.Event()

    def keep_busy() -> None:
        while not stop.is_set():
            sum(range(1000))

    busy = threading.Thread(target=keep_busy)
    busy.start()
    try:
        items = [i if i % 5 else "exit 7" for i in range(1, 101)]
        outcomes = list(local.map_unordered(tasks.fault, items, seconds=30))
    finally:
        stop.set()
        busy.join()
    assert sorted(o.item for o in outcomes if o.error is None) == [i for i in range(1, 101) if i % 5]
    assert {error_of(o).code for o in outcomes if o.error} == {"worker-died"}


def test_a_worker_killed_while_idle_costs_nothing(local, tasks):
    for worker in set(values(local.map_unordered(tasks.pid, range(20))).values()):
        with contextlib.suppress(ProcessLookupError):  # the pool may have ended it, after the first
            os.kill(worker, signal.SIGKILL)
        wait_until(lambda process=worker: not is_running(process))
    assert values(local.map_unordered(tasks.square, range(20))) == {x: x * x for x in range(20)}


def test_a_program_does_not_outlive_the_worker_that_started_it(local, tasks, tmp_path):
    (outcome,) = local.map_unordered(tasks.start_program_and_crash, [tmp_path / "pid"], seconds=GUARD)
    assert error_of(outcome).code == "worker-died"
    wait_until(lambda: not is_running(int((tmp_path / "pid").read_text())))


def test_an_interrupt_does_not_reach_a_worker(local, tasks):
    assert values(local.map_unordered(tasks.fault, ["interrupt", 3])) == {"interrupt": None, 3: 9}


def test_the_limit_of_the_engine_holds_where_the_map_has_none(tasks):
    with LocalEngine(1, Limits(seconds=0.3)) as engine:
        (outcome,) = engine.map_unordered(tasks.sleep, [1000])
        assert error_of(outcome).code == "time-limit"
        (outcome,) = engine.map_unordered(tasks.sleep, [0.6], seconds=GUARD)
        assert outcome.value == 0.6


# Workers


def test_workers_use_one_thread(local, tasks):
    for threads in values(local.map_unordered(tasks.threads, range(4))).values():
        assert threads
        assert set(threads) == {1}


def test_a_closed_map_frees_its_workers(local, tasks):
    outcomes = local.map_unordered(tasks.sleep, [0.3, *[1000.0] * 7])  # as many as may be in flight
    assert next(outcomes).value == 0.3
    outcomes.close()  # two are running, five wait
    assert values(local.map_unordered(tasks.square, [6])) == {6: 36}


def test_closing_kills_running_tasks(tasks):
    with LocalEngine(1) as engine:
        worker = next(engine.map_unordered(tasks.pid, [0])).value
        outcomes = engine.map_unordered(tasks.sleep, [0.0, 1000.0])
        next(outcomes)
    assert not Path(f"/proc/{worker}").exists()  # gone, and reaped
    with pytest.raises(UsageError, match="closed"):
        next(outcomes)


def test_a_worker_that_cannot_start_stops_the_map(tasks):
    with (
        LocalEngine(1, initializer=tasks.fail_to_start) as engine,
        pytest.raises(SorepError, match="do not start") as caught,
    ):
        list(engine.map_unordered(tasks.square, [1]))
    assert caught.value.code == "worker-start"


def test_wrong_use_is_refused(tasks):
    with pytest.raises(UsageError, match="0 worker"):
        LocalEngine(0)
    with pytest.raises(UsageError, match="memory limit is -1"):
        Limits(memory_bytes=-1)
    with pytest.raises(UsageError, match="not open"):
        LocalEngine(1).map_unordered(tasks.square, [1])
    with SerialEngine() as engine, pytest.raises(UsageError, match="time limit"):
        engine.map_unordered(tasks.square, [1], seconds=1.0)


def test_a_function_that_cannot_be_sent_is_refused(local):
    with pytest.raises(UsageError, match="lambda"):
        local.map_unordered(lambda x: x, [1])


# The whole program, killed from outside


def start_script(*arguments: str | Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(HERE / "engine_tasks.py"), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(Path.cwd()), *sys.path]))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A test run in the background of a script passes an ignored Ctrl-C on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, and Linux's signal for a closed pipe")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_the_program(tmp_path, how):
    files = [tmp_path / "1", tmp_path / "2"]
    script = start_script("run", *files)
    wait_until(lambda: script.poll() is not None or all(file.exists() for file in files))
    processes = [int(word) for file in files for word in file.read_text().split()]
    assert all(is_running(process) for process in processes)
    if how == signal.SIGINT:
        os.killpg(script.pid, how)  # as a terminal does
    else:
        script.send_signal(how)
    _, messages = script.communicate(timeout=GUARD)
    assert script.returncode == -how
    wait_until(lambda: not any(is_running(process) for process in processes))
    assert messages.count("KeyboardInterrupt") == (how == signal.SIGINT)  # of the parent alone


def test_an_engine_left_open_does_not_keep_the_program():
    output, messages = start_script("leave open").communicate(timeout=GUARD)
    assert (output, messages) == ("9\n", "")

"""Running one program: what it may use, how it ends, and that nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sorep.errors import PwError
from sorep.single_shot import process
from sorep.single_shot.process import ERRORS, OUTPUT, Finished, ProcessLimits, run_process

FAKE = Path(__file__).parents[2] / "fake_pw_x.py"
INPUT = "&control\n/\n&system\n/\n&electrons\n/\nATOMIC_POSITIONS\n"
MEBIBYTE = 2**20
GUARD = 60.0  # seconds after which something that ought to be quick is taken to hang

pytestmark = [
    pytest.mark.timeout(2 * GUARD),
    pytest.mark.skipif(sys.platform != "linux", reason="pw.x is run on Linux only"),
]


def run_fake(folder: Path, fault: str, limits: ProcessLimits = process.NO_LIMITS) -> Finished:
    (folder / "pw.in").write_text(f"! fake: {fault}\n{INPUT}")
    return run_process([sys.executable, str(FAKE), "-in", "pw.in"], folder, limits=limits)


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


def child_is_gone(folder: Path) -> bool:
    return not is_running(int((folder / "child").read_text()))


def test_output_status_and_environment(tmp_path):
    names = "os.environ['OMP_NUM_THREADS'], os.getpgid(0) == os.getpid(), os.environ['MINE'], sys.stdin.read()"
    code = f"import os, sys; print({names})"
    command = [sys.executable, "-c", f"{code}; print('woe', file=sys.stderr); sys.exit(5)"]
    finished = run_process(command, tmp_path, environment={"MINE": "given"})
    assert (finished.returncode, finished.violation) == (5, None)
    assert (tmp_path / OUTPUT).read_text() == "1 True given \n"
    assert (tmp_path / ERRORS).read_text() == "woe\n"


def test_cpu_time_is_that_of_the_program_and_its_children(tmp_path):
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    both = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])\n{burn}"
    finished = run_process([sys.executable, "-c", both], tmp_path)
    assert finished.cpu_seconds >= 0.4
    assert finished.seconds >= 0.2


def test_a_signal_is_a_negative_status(tmp_path):
    assert run_fake(tmp_path, "segfault").returncode == -signal.SIGSEGV


@pytest.mark.parametrize(
    ("fault", "limits", "violation"),
    [
        ("hang", ProcessLimits(seconds=0.5, silent_seconds=30), "time"),
        ("silent", ProcessLimits(seconds=GUARD, silent_seconds=0.5), "silent"),
        ("memory", ProcessLimits(memory_bytes=100 * MEBIBYTE), "memory"),
        ("memory-of-child", ProcessLimits(memory_bytes=100 * MEBIBYTE), "memory"),
    ],
)
def test_a_program_over_a_limit_is_ended(tmp_path, fault, limits, violation):
    finished = run_fake(tmp_path, fault, limits)
    assert finished.violation == violation
    assert finished.returncode == -signal.SIGTERM
    assert finished.seconds < GUARD
    if violation == "memory":
        assert finished.peak_memory_bytes > 100 * MEBIBYTE


def test_output_is_no_silence(tmp_path):
    assert run_fake(tmp_path, "hang", ProcessLimits(seconds=1.5, silent_seconds=1.0)).violation == "time"


def test_a_single_huge_allocation_is_refused(tmp_path):
    finished = run_fake(tmp_path, "memory-at-once", ProcessLimits(memory_bytes=100 * MEBIBYTE))
    assert (finished.returncode, finished.violation) == (1, None)
    assert "Error allocating" in (tmp_path / ERRORS).read_text()
    assert run_fake(tmp_path, "memory-at-once").returncode == 0


def test_what_ignores_sigterm_is_killed_with_its_child(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "SECONDS_TO_END", 0.2)
    finished = run_fake(tmp_path, "hang-with-child", ProcessLimits(seconds=1.0))
    assert finished.returncode == -signal.SIGKILL
    wait_until(lambda: child_is_gone(tmp_path))


def test_a_child_that_stays_behind_is_killed(tmp_path):
    assert run_fake(tmp_path, "leave-child").returncode == 0
    wait_until(lambda: child_is_gone(tmp_path))


def test_ctrl_c_kills_the_group(tmp_path):
    def interrupt(*_: object) -> None:
        if (tmp_path / "child").exists():
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_fake(tmp_path, "hang-with-child", ProcessLimits(seconds=GUARD))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    wait_until(lambda: child_is_gone(tmp_path))


def test_the_group_dies_with_a_killed_parent(tmp_path):
    (tmp_path / "pw.in").write_text(f"! fake: hang-with-child\n{INPUT}")
    code = (
        "import sys; from pathlib import Path; from sorep.single_shot.process import run_process; "
        "run_process([sys.executable, sys.argv[1], '-in', 'pw.in'], Path(sys.argv[2]))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(FAKE), str(tmp_path)])
    try:
        wait_until((tmp_path / "child").exists)
        child = int((tmp_path / "child").read_text())
        (program,) = (int(pid) for pid in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split())
        assert os.getpgid(child) == program
        assert is_running(program)
        assert is_running(child)
    finally:
        parent.kill()
        parent.wait()
    wait_until(lambda: not is_running(program))
    wait_until(lambda: not is_running(child))


def test_no_descriptor_is_left_open(tmp_path):
    run_process(["true"], tmp_path)
    before = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208
    run_process(["true"], tmp_path)
    with pytest.raises(PwError):
        run_process([str(tmp_path / "missing")], tmp_path)
    assert sorted(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_what_cannot_be_started(tmp_path):
    text, binary = tmp_path / "text", tmp_path / "binary"
    text.write_text("not a program")
    binary.write_bytes(b"\x7fELF, but not for this machine")
    binary.chmod(0o755)
    for program, code in [
        (tmp_path / "missing", "pw-x-not-found"),
        (text, "pw-x-not-executable"),
        (binary, "pw-x-not-executable"),
    ]:
        with pytest.raises(PwError) as raised:
            run_process([str(program)], tmp_path)
        assert (raised.value.code, raised.value.stage) == (code, "set-up")
        assert str(program) in raised.value.message
        assert "sorep pw build" in raised.value.remedy

"""One calculation, whatever pw.x does: the right error, at most two retries, and nothing left behind."""

from __future__ import annotations

import re
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from sorep.cells import canonical_cell
from sorep.errors import OutputError, PseudoError, PwError, SorepError
from sorep.meshes import irreducible_mesh
from sorep.single_shot import process
from sorep.single_shot.executable import PwX, find_pw_x, probe
from sorep.single_shot.inputs import CONVERGED, Plan
from sorep.single_shot.method import SingleShot, SingleShotSettings
from sorep.single_shot.process import ProcessLimits
from sorep.single_shot.pseudo_family import Orbital, Pseudopotential
from sorep.single_shot.runner import PwRunner
from sorep.single_shot.scratch import file_name
from sorep.structure import Structure

FAKE = Path(__file__).parents[2] / "fake_pw_x.py"
MARK = "SOREP_TEST_PROCESS"
GUARD = 60.0  # seconds after which something that ought to be quick is taken to hang
ID = "mp-149/a"
KEPT = file_name(ID)
SILICON = Structure.from_ase(bulk("Si", "diamond", a=5.43), id=ID)
SPACING = 1.3  # 1/Angstrom: a mesh of 2 x 2 x 2

pytestmark = [
    pytest.mark.timeout(2 * GUARD),
    pytest.mark.skipif(sys.platform != "linux", reason="pw.x is run on Linux only"),
]


@pytest.fixture(autouse=True)
def leaves_no_process(monkeypatch) -> Iterator[None]:
    """What a test starts carries a mark in its environment; at the end nothing with it may be alive."""
    mark = f"{MARK}={uuid.uuid4().hex}"
    monkeypatch.setenv(*mark.split("="))
    yield
    end = time.monotonic() + 10.0
    while left := [folder.name for folder in Path("/proc").iterdir() if is_alive(folder, mark)]:
        assert time.monotonic() < end, f"processes {left} outlived their calculation"
        time.sleep(0.02)


def is_alive(process: Path, mark: str) -> bool:
    try:
        if not process.name.isdigit() or mark not in (process / "environ").read_text():
            return False
        return (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:  # it ended meanwhile
        return False


@pytest.fixture
def scratch(tmp_path) -> Iterator[Path]:
    """A folder for calculations, which they must leave empty."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def plan() -> Plan:
    """A calculation of silicon with a pseudopotential that is not there, which the fake does not mind."""
    cell = canonical_cell(SILICON)
    silicon = Pseudopotential("Si", "Si.upf", "", 4.0, "NC", (Orbital("3S", 0, 2.0), Orbital("3P", 1, 2.0)), 12.0, 48.0)
    mesh = irreducible_mesh(cell, SPACING)
    return Plan(cell, mesh, {"Si": silicon}, Path("/nowhere"), 12.0, 48.0, {}, iterations=0)


@pytest.fixture
def runner(scratch, tmp_path, monkeypatch) -> Callable[..., PwRunner]:
    """A runner of the fake, which misbehaves as it is told."""

    def make(faults: str, limits: ProcessLimits = process.NO_LIMITS, *, is_patched: bool = True) -> PwRunner:
        monkeypatch.setenv("FAKE_PW_X", faults)
        pw_x = PwX(FAKE, (sys.executable,), is_patched, "6.7MaX")
        return PwRunner(pw_x, scratch, limits, keep_failed=tmp_path / "failed")

    return make


@pytest.fixture
def failed(tmp_path) -> Path:
    """Where the folder of a failed calculation is kept."""
    return tmp_path / "failed" / KEPT


def error_of(runner: PwRunner, plan: Plan) -> SorepError:
    with pytest.raises(SorepError) as raised:
        runner.run(plan, ID)
    return raised.value


def n_tries(failed: Path) -> int:
    """How often the fake was called, where its faults are several."""
    return len((failed / "tries").read_text())


# Without a calculation

LIMITS = ProcessLimits(seconds=GUARD, memory_bytes=100 * 2**20, silent_seconds=GUARD)
FAULTS = {
    "segfault": ("pw-x-crash", "pw.x", "SIGSEGV"),
    "killed": ("pw-x-killed", "pw.x", "SIGKILL"),
    "error": ("overlap-not-positive", "pw.x", "S matrix not positive definite"),
    "memory": ("pw-x-memory", "pw.x", "MiB after"),
    "memory-of-child": ("pw-x-memory", "pw.x", "MiB after"),
    "memory-at-once": ("pw-x-memory", "pw.x", "Error allocating"),
    "disk-full": ("disk-full", "set-up", "No space left on device"),
    "missing-library": ("missing-library", "set-up", "libopenblas.so.0"),
    "wrong-cpu": ("wrong-cpu", "set-up", "SIGILL"),
    "stop-0": ("no-xml", "output", "Max angular momentum"),
    "leave-child": ("no-xml", "output", "Max angular momentum"),
    "unknown": ("pw-x-failed", "pw.x", "the fake pw.x knows no unknown"),
}
"""Code and stage of the error, and a part of its message."""


@pytest.mark.parametrize("fault", FAULTS)
def test_every_way_to_fail_has_its_error(runner, plan, failed, fault):
    code, stage, words = FAULTS[fault]
    error = error_of(runner(fault, LIMITS), plan)
    assert (error.code, error.stage) == (code, stage)
    assert type(error) is (OutputError if stage == "output" else PwError)
    assert words in error.message
    assert error.remedy
    assert (failed / "pw.in").read_text() == plan.input_text()
    assert (failed / "pw.out").exists()
    assert [folder.name for folder in failed.parent.iterdir()] == [KEPT]


@pytest.mark.parametrize(
    ("fault", "limits", "code"),
    [
        ("hang", ProcessLimits(seconds=0.7, silent_seconds=GUARD), "pw-x-timeout"),
        ("hang-with-child", ProcessLimits(seconds=0.7, silent_seconds=GUARD), "pw-x-timeout"),
        ("silent", ProcessLimits(seconds=GUARD, silent_seconds=0.7), "pw-x-silent"),
    ],
)
def test_what_takes_too_long_is_ended(runner, plan, failed, monkeypatch, fault, limits, code):
    monkeypatch.setattr(process, "SECONDS_TO_END", 0.2)
    error = error_of(runner(fault, limits), plan)
    assert (type(error), error.code, error.stage) == (PwError, code, "pw.x")
    assert re.search(r"after \d+ s", error.message)
    assert error.remedy
    assert (failed / "pw.in").exists()


def test_a_folder_is_kept_only_where_that_is_asked_for(runner, plan, failed):
    error_of(replace(runner("error"), keep_failed=None), plan)
    assert not failed.parent.exists()


def test_a_scratch_folder_that_cannot_be_written_lies_in_the_machine(runner, plan, tmp_path):
    error = error_of(replace(runner("none"), scratch=tmp_path / "gone"), plan)
    assert (error.code, error.stage) == ("scratch-unusable", "set-up")
    assert "--scratch" in error.remedy


def test_a_program_that_is_gone_lies_in_the_machine(runner, plan, tmp_path):
    error = error_of(replace(runner("none"), pw_x=PwX(tmp_path / "gone", (), True, "6.7MaX")), plan)
    assert (error.code, error.stage) == ("pw-x-not-found", "set-up")


@pytest.mark.parametrize(
    ("faults", "tries", "code", "overcome"),
    [
        ("segfault+segfault+none", 2, "pw-x-crash", "(after pw-x-crash)"),
        ("segfault+killed+segfault+none", 3, "pw-x-crash", "(after pw-x-crash, pw-x-killed)"),
        ("segfault+killed+bands+none", 3, "diagonalization", "(after pw-x-crash, pw-x-killed)"),
        ("killed+error+none", 2, "overlap-not-positive", "(after pw-x-killed)"),
        ("error+none", 1, "overlap-not-positive", ""),
        ("disk-full+none", 1, "disk-full", ""),
        ("missing-library+none", 1, "missing-library", ""),
        ("stop-0+none", 1, "no-xml", ""),
    ],
)
def test_at_most_two_retries_and_none_twice_for_one_reason(runner, plan, failed, faults, tries, code, overcome):
    error = error_of(runner(faults), plan)
    assert error.code == code
    assert overcome in error.message
    assert overcome or "(after" not in error.message
    assert n_tries(failed) == tries


def test_retries_add_up_what_they_change(runner, plan, failed):
    assert error_of(runner("bands+symmetry+error"), plan).code == "overlap-not-positive"
    changes = {"electrons": {"diagonalization": "cg"}, "system": {"nosym": True}}
    assert (failed / "pw.in").read_text() == plan.input_text(changes)
    assert "diagonalization = 'cg'" in plan.input_text(changes)


def test_an_scf_that_does_not_converge_is_tried_once_more(runner, plan, failed):
    error = error_of(runner("no-convergence+no-convergence+none"), replace(plan, iterations=CONVERGED))
    assert error.code == "no-convergence"
    assert n_tries(failed) == 2
    assert "mixing_beta = 0.3" in (failed / "pw.in").read_text()


def test_the_second_status_of_a_patched_pw_x_is_a_failure(runner, plan):
    """It ends with 0 where there is nothing to converge, and Fortran's run-time library ends with 2."""
    assert error_of(runner("no-convergence"), plan).code == "no-convergence"
    assert error_of(runner("disk-full", is_patched=False), plan).code == "disk-full"
    # A stock one prints that it is done. Then it is the file that counts.
    assert error_of(runner("no-convergence", is_patched=False), plan).code == "no-xml"


# With one


@pytest.fixture(scope="module")
def real() -> PwX:
    try:
        return probe(find_pw_x())
    except PwError as error:
        pytest.skip(f"no pw.x: {error.message}")


@pytest.fixture
def method(real, runner, monkeypatch) -> Callable[..., SingleShot]:
    """The single shot by the fake, with the real pw.x behind it."""
    monkeypatch.setenv("FAKE_PW_X_REAL", str(real.path))
    settings = SingleShotSettings(k_spacing=SPACING)
    try:
        settings.load_family()
    except PseudoError as error:
        pytest.skip(f"no pseudopotentials: {error.message}")

    def make(faults: str) -> SingleShot:
        return SingleShot(settings, runner(faults, ProcessLimits(seconds=GUARD), is_patched=real.is_patched))

    return make


@pytest.mark.pwx
def test_the_fake_without_a_fault_is_the_real_one(method, real, failed):
    fake = method("none")
    direct = replace(fake, runner=replace(fake.runner, pw_x=real))
    first, second = (one.calculate(SILICON).spectrum for one in (fake, direct))
    np.testing.assert_array_equal(first.energies, second.energies)
    assert first.flags == second.flags
    assert first.is_complete
    assert not failed.exists()


WRONG_OUTPUTS = {
    "no-xml": "no-xml",
    "truncated-xml": "truncated-xml",
    "nan": "non-finite-eigenvalues",
    "descending": "unsorted-eigenvalues",
    "missing-kpoint": "malformed-output",
    "missing-bands": "malformed-output",
    "fewer-kpoints": "unexpected-output",
    "other-kpoints": "unexpected-output",
    "fewer-bands": "unexpected-output",
}


@pytest.mark.pwx
@pytest.mark.parametrize("fault", WRONG_OUTPUTS)
def test_an_output_that_is_not_what_was_asked_for_is_refused(method, failed, fault):
    with pytest.raises(OutputError) as raised:
        method(f"{fault}+none").calculate(SILICON)
    error = raised.value
    assert (error.code, error.stage) == (WRONG_OUTPUTS[fault], "output")
    assert "pw.x ended with: " in error.message
    assert error.remedy
    assert n_tries(failed) == 1
    assert (failed / "pw.out").exists()


WRONG_MATRICES = {
    "no-matrices": "no-matrices",
    "truncated-matrices": "truncated-matrices",
    "fewer-matrices": "unexpected-output",
    "matrices-of-other-kpoints": "unexpected-output",
}


@pytest.mark.pwx
@pytest.mark.parametrize("fault", WRONG_MATRICES)
def test_matrices_that_are_not_those_asked_for_are_refused(method, real, failed, fault):
    if not real.is_patched:
        pytest.skip(f"{real.path} is not patched")
    one = method(f"{fault}+none")
    plan = replace(one.plan(SILICON), writes_matrices=True)
    with pytest.raises(OutputError) as raised:
        one.runner.run(plan, ID)
    assert raised.value.code == WRONG_MATRICES[fault]
    assert n_tries(failed) == 1
    assert len(method("none").runner.run(plan, ID).matrices) == len(plan.mesh)


@pytest.mark.pwx
def test_what_was_overcome_is_a_flag_of_the_spectrum(method, failed):
    undisturbed = method("none").calculate(SILICON).spectrum
    spectrum = method("segfault+killed+none").calculate(SILICON).spectrum
    assert spectrum.flags == (*undisturbed.flags, "retried:pw-x-crash", "retried:pw-x-killed")
    np.testing.assert_array_equal(spectrum.energies, undisturbed.energies)
    assert not failed.exists()


@pytest.mark.pwx
def test_after_a_crash_there_is_room_behind_every_array(method):
    """A library that reads beyond an array, which the fake does unless told otherwise, crashes the first try only."""
    spectrum = method("reads-beyond").calculate(SILICON).spectrum
    assert spectrum.flags[-1] == "retried:pw-x-crash"
    np.testing.assert_array_equal(spectrum.energies, method("none").calculate(SILICON).spectrum.energies)


@pytest.mark.pwx
def test_what_an_earlier_try_left_is_not_taken_for_a_result(method, failed):
    """The first try writes everything and crashes on its way out; the second one does nothing and says all is well."""
    with pytest.raises(OutputError) as raised:
        method("segfault-at-the-end+stop-0").calculate(SILICON)
    assert raised.value.code == "no-xml"
    assert n_tries(failed) == 2
    spectrum = method("segfault-at-the-end+none").calculate(SILICON).spectrum
    assert spectrum.flags[-1] == "retried:pw-x-crash"


@pytest.mark.pwx
def test_a_status_of_2_is_a_success_of_a_stock_pw_x_only(method, runner, real):
    stock = method("status-2")
    stock = replace(stock, runner=runner("status-2", ProcessLimits(seconds=GUARD), is_patched=False))
    np.testing.assert_array_equal(
        stock.calculate(SILICON).spectrum.energies, method("none").calculate(SILICON).spectrum.energies
    )
    if not real.is_patched:
        pytest.skip(f"{real.path} is not patched")
    with pytest.raises(PwError):
        method("status-2").calculate(SILICON)


@pytest.mark.pwx
def test_a_failed_folder_can_be_run_again(method, real, failed, tmp_path, monkeypatch):
    with pytest.raises(OutputError):
        method("nan").calculate(SILICON)
    shutil.rmtree(failed / "out")
    finished = process.run_process([*real.command, "-in", "pw.in"], failed)
    assert "JOB DONE" in (failed / "pw.out").read_text()
    assert finished.violation is None
    assert list(failed.rglob("data-file-schema.xml"))

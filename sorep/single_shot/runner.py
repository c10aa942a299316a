"""One pw.x calculation from plan to accepted output: run, judge, at most two retries.

An output is accepted only if pw.x ended as it should and its XML file is complete and matches the plan: atoms, k
points, spins, bands, finite ascending eigenvalues. Everything else is an error with a code, the last lines of output
and a remedy.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sorep.errors import OutputError, PwError
from sorep.outputs import Output
from sorep.outputs.espresso import read_espresso
from sorep.single_shot.executable import PwX
from sorep.single_shot.failures import CRASHED, SET_UP, diagnose, last_words
from sorep.single_shot.inputs import CONVERGED, OUTPUT_FOLDER, PREFIX, Namelists, Plan
from sorep.single_shot.matrices import KPointMatrices, read_matrices
from sorep.single_shot.process import NO_LIMITS, OUTPUT, Finished, ProcessLimits, run_process
from sorep.single_shot.scratch import calculation_folder

MOST_RETRIES = 2

_INPUT = "pw.in"
_JOB_DONE = "JOB DONE"
_ROOMY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TOP_PAD_": str(2**26)}
"""After a crash, for glibc: all arrays in one heap with room behind it. The matrix-vector product of OpenBLAS 0.3.21
reads a little beyond its arrays, which ends a run only where nothing lies there."""
_UNCONVERGED = 2  # exit status of pw.x where the SCF loop ended before it converged


@dataclass(frozen=True, eq=False)
class PwResult:
    """An accepted output, the codes of failures that retries overcame, and matrices where the plan asks for them."""

    output: Output
    overcome: tuple[str, ...]
    matrices: tuple[KPointMatrices, ...] = ()


@dataclass(frozen=True)
class PwRunner:
    """Where and within which limits pw.x runs; nothing here changes a result.

    Attributes
    ----------
    pw_x : PwX
    scratch : Path
        Every calculation gets a folder of its own below, removed afterwards.
    limits : ProcessLimits
        Of one attempt.
    keep_failed : Path or None
        Folder to which that of a failed calculation is moved.
    """

    pw_x: PwX
    scratch: Path
    limits: ProcessLimits = NO_LIMITS
    keep_failed: Path | None = None

    def run(self, plan: Plan, name: str) -> PwResult:
        """Run pw.x in a folder named after ``name``; raises as `folder`."""
        with self.folder(name) as run:
            return run(plan)

    @contextmanager
    def folder(self, name: str) -> Iterator[Callable[[Plan], PwResult]]:
        """Make a folder named after ``name``, and give what runs pw.x in it, any number of times.

        A plan whose k points are a path starts from what the one before left. Results are read before the next run
        replaces them.

        Raises
        ------
        PwError
            With the code of `sorep.single_shot.failures`; ``scratch-unusable`` where the folder cannot be written.
        OutputError
            Where pw.x seemed to end well and its XML file does not hold what was asked for.
        """
        try:
            with calculation_folder(self.scratch, name, keep_failed=self.keep_failed) as folder:
                yield lambda plan: self._until_it_ends_well(plan, folder)
        except OSError as error:
            raise PwError(
                f"files cannot be written or read in the scratch folder {self.scratch}: {error}",
                code="scratch-unusable",
                stage=SET_UP,
                remedy="free space, or name another scratch folder with --scratch",
            ) from error

    def _until_it_ends_well(self, plan: Plan, folder: Path) -> PwResult:
        overcome: list[str] = []
        changes: Namelists = {}
        while True:
            finished = self._attempt(plan, changes, folder, roomy=CRASHED in overcome)
            if self._ended_well(finished, plan, folder):
                output = _checked(folder, plan)
                return PwResult(output, tuple(overcome), _matrices(folder, plan) if plan.writes_matrices else ())
            diagnosis = diagnose(finished, folder)
            if diagnosis.changes is None or len(overcome) == MOST_RETRIES or diagnosis.code in overcome:
                raise diagnosis.error(overcome)
            overcome.append(diagnosis.code)
            changes = _merged(changes, diagnosis.changes)

    def _attempt(self, plan: Plan, changes: Namelists, folder: Path, *, roomy: bool) -> Finished:
        if not plan.on_path:
            shutil.rmtree(folder / OUTPUT_FOLDER, ignore_errors=True)
        (folder / "CRASH").unlink(missing_ok=True)
        (folder / _INPUT).write_text(plan.input_text(changes))
        return run_process(
            [*self.pw_x.command, "-in", _INPUT], folder, limits=self.limits, environment=_ROOMY if roomy else {}
        )

    def _ended_well(self, finished: Finished, plan: Plan, folder: Path) -> bool:
        if finished.violation or finished.returncode not in (0, _UNCONVERGED):
            return False
        if finished.returncode == 0:
            return True
        may_stop_early = plan.iterations != CONVERGED and not (plan.is_single_shot and self.pw_x.is_patched)
        # The run-time library of Fortran ends with the same status where it meets an error of its own.
        return may_stop_early and _JOB_DONE in (folder / OUTPUT).read_text(errors="replace")


def _merged(first: Namelists, second: Namelists) -> Namelists:
    return {name: {**first.get(name, {}), **second.get(name, {})} for name in first.keys() | second.keys()}


def _matrices(folder: Path, plan: Plan) -> tuple[KPointMatrices, ...]:
    """What a patched pw.x wrote, if it is what was planned."""
    found = tuple(read_matrices(folder / OUTPUT_FOLDER / f"{PREFIX}.save"))
    expected = np.tile(plan.mesh.kpoints, (plan.n_spin, 1))
    if (
        len(found) != len(expected)
        or any(len(m.overlap) != plan.n_functions for m in found)
        or not np.allclose([m.kpoint for m in found], expected, atol=1e-6)
    ):
        raise OutputError(
            f"pw.x wrote {len(found)} matrices, and {len(expected)} of {plan.n_functions} functions were planned, or "
            "at other k points",
            code="unexpected-output",
            remedy="run with --keep-failed and look at the files; give a pw.x of a supported version",
        )
    return found


def _checked(folder: Path, plan: Plan) -> Output:
    """The output of a calculation that ended well, if it is what was planned."""
    try:
        return _as_planned(folder / OUTPUT_FOLDER / f"{PREFIX}.save" / "data-file-schema.xml", plan)
    except OutputError as error:
        message = f"{error.message}; pw.x ended with: {last_words(folder)}"
        raise OutputError(message, code=error.code, remedy=error.remedy) from None


def _as_planned(xml: Path, plan: Plan) -> Output:
    if not xml.exists():
        raise OutputError(
            "pw.x wrote no XML file",
            code="no-xml",
            remedy="run with --keep-failed and look at the output; check `sorep doctor`",
        )
    output = read_espresso(xml)
    spectrum, structure = output.spectrum, plan.cell.structure
    expected = {
        "atoms": (structure.n_atoms, output.structure.n_atoms),
        "spins": (plan.n_spin, spectrum.n_spin),
        "calculations of bands": (int(plan.on_path), int(output.on_path)),  # not what the run before left there
        "bands": (plan.n_bands * spectrum.band_counts.size, spectrum.band_counts.sum() + spectrum.n_removed),
    }
    has_given_points = plan.is_single_shot or plan.on_path  # an SCF may need more, where pw.x finds less symmetry
    if has_given_points:
        expected["k points"] = (len(plan.mesh), len(spectrum.weights))
    wrong = [f"{found} {what} in place of {planned}" for what, (planned, found) in expected.items() if planned != found]
    if not wrong and has_given_points and not np.allclose(spectrum.kpoints, plan.mesh.kpoints, atol=1e-6):
        wrong = ["other k points than planned"]
    if wrong:
        raise OutputError(
            f"the output of pw.x holds {', '.join(wrong)}",
            code="unexpected-output",
            remedy="run with --keep-failed and look at the files; give a pw.x of a supported version",
        )
    return output

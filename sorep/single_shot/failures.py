"""What pw.x's ways to fail mean: a table from its messages, exit statuses and signals to code, remedy and retry.

The messages are those of Quantum ESPRESSO 6.x and 7.x (``CALL errore`` in PW, Modules, LAXlib and upflib), of the
Fortran runtime, the dynamic loader and the MPI launchers. Whether a run failed is for the caller to judge: an
unpatched pw.x with no SCF step ends with status 2 after doing all that was asked, and prints JOB DONE; gfortran's
runtime errors end with status 2 as well.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sorep.errors import SET_UP, PwError
from sorep.single_shot.process import ERRORS, OUTPUT, Finished

CRASHED = "pw-x-crash"

Changes = Mapping[str, Mapping[str, object]]
"""Settings by namelist, e.g. ``{"electrons": {"mixing_beta": 0.3}}``."""

_CRASH = "CRASH"  # written by MPI builds, one block a process
_LINES_SHOWN = 5
_LONGEST_LINE = 160
_ERROR_BLOCK = re.compile(r"^ *%{20,} *\n(.*?)^ *%{20,} *$", re.MULTILINE | re.DOTALL)
_CRASH_ERROR = re.compile(r"from +(\S.*?) *: error # *(\d+)")  # how the file CRASH says "Error in routine"
_NOISE = re.compile(
    r"[%\-=*#\s]*$|stopping \.\.\.|STOP\b|#\d+ |at /\S+:\d+$|Error termination|Backtrace for this error"
    r"|Note: The following floating|IEEE_\w+$|from test_input_xml|JOB DONE"
    r"|This run was terminated on|.*\bCPU\b.*\bWALL\b|General routines$"
    r"|Called by \S+:$"
)


@dataclass(frozen=True)
class KnownFailure:
    """One way to fail.

    Attributes
    ----------
    code : str
        Code of the error.
    message, remedy : str
        What it means, and what can be done about it.
    patterns : tuple of str
        Regular expressions, any of which identifies it in what pw.x or its launcher printed; case is ignored.
    signals : tuple of int
        Signals, any of which identifies it.
    stage : str
        ``"pw.x"``, or `SET_UP`.
    changes : mapping or None
        Settings to try again with; empty to try again unchanged; None where another try makes no sense.
    """

    code: str
    message: str
    remedy: str
    patterns: tuple[str, ...] = ()
    signals: tuple[int, ...] = ()
    stage: str = "pw.x"
    changes: Changes | None = None


@dataclass(frozen=True)
class Diagnosis:
    """Why pw.x failed: a `KnownFailure` with pw.x's own last words in the message."""

    code: str
    message: str
    remedy: str
    stage: str
    changes: Changes | None

    def error(self, overcome: Sequence[str] = ()) -> PwError:
        """The error to raise when there is no further try; ``overcome`` are the codes of the tries before."""
        after = f" (after {', '.join(overcome)})" if overcome else ""
        return PwError(f"{self.message}{after}", code=self.code, stage=self.stage, remedy=self.remedy)


_MEMORY = KnownFailure(
    "pw-x-memory",
    "pw.x needs more memory than it may use",
    "raise --memory (with fewer --jobs if the machine is full), lower the cutoffs, or leave this structure out",
    (
        r"error allocating",
        r"(can ?not|failed to|unable to) allocate",
        r"allocation (failed|would exceed)",
        r"out of memory|oom.kill|memory allocation still failed",
        r"bad_alloc|insufficient virtual memory",
    ),
)

_VIOLATIONS = {
    "time": KnownFailure(
        "pw-x-timeout",
        "pw.x was stopped at its time limit",
        "raise the time limit, use fewer k points, or leave this structure out",
        (r"maximum cpu time exceeded",),
    ),
    "memory": _MEMORY,
    "silent": KnownFailure(
        "pw-x-silent",
        "pw.x was stopped because it had stopped printing",
        "check the disk and network that it works on; raise the limit if structures are large",
        changes={},
    ),
}

_UNKNOWN = KnownFailure("pw-x-failed", "pw.x failed", "read the message; keep the folder of failed runs to see more")

KNOWN_FAILURES: tuple[KnownFailure, ...] = (
    # The machine, before pw.x begins
    KnownFailure(
        "missing-library",
        "a library that pw.x needs is missing or of another version",
        "build pw.x on this machine with `sorep pw build`, or load the modules it was built with",
        (r"error while loading shared libraries", r"symbol lookup error", r"version .*GLIBC\w*_[\d.]+.* not found"),
        stage=SET_UP,
    ),
    KnownFailure(
        "wrong-cpu",
        "pw.x was built for another kind of processor",
        "build pw.x on this machine with `sorep pw build`, without -march=native where machines differ",
        (r"SIGILL\b|illegal instruction", r"CPU (ISA level|does not support)"),
        (signal.SIGILL,),
        stage=SET_UP,
    ),
    KnownFailure(
        "pw-x-not-executable",
        "pw.x is not a program for this machine",
        "build pw.x on this machine with `sorep pw build`",
        (r"exec format error", r"cannot execute binary file"),
        stage=SET_UP,
    ),
    KnownFailure(
        "mpi-slots",
        "the MPI launcher has fewer processors than were asked for",
        "ask for fewer processes, or run inside a larger allocation",
        (
            r"not enough slots available",
            r"unable to create step",
            r"more processors requested than",
            r"all nodes which are allocated for this job are already filled",
        ),
        stage=SET_UP,
    ),
    KnownFailure(
        "mpi-root",
        "the MPI launcher refuses to run as root",
        "run as another user, or set what the launcher's message names",
        (r"attempt to run as root",),
        stage=SET_UP,
    ),
    KnownFailure(
        "pw-x-not-found",
        "the MPI launcher finds no pw.x",
        "give the full path of pw.x, as all nodes see it; build one with `sorep pw build`",
        (r"unable to find the specified executable", r"(could not (access or )?execute|execve).*no such file"),
        stage=SET_UP,
    ),
    KnownFailure(
        "launcher-not-found",
        "the MPI launcher is not there",
        "install MPI or load its module, or run without a launcher",
        (r"(mpirun|mpiexec|srun|prun)\S*: (command )?not found",),
        stage=SET_UP,
    ),
    KnownFailure(
        "mpi-start",
        "MPI did not start",
        "try the launcher with another program; one process needs no launcher",
        (r"MPI_Init(_thread)?\b.*(error|fail)", r"PMIX? ?ERROR|ORTE_ERROR_LOG|PMI_Init"),
        stage=SET_UP,
        changes={},
    ),
    # The disk
    KnownFailure(
        "disk-full",
        "no space is left where pw.x writes",
        "free space, or name another scratch folder with --scratch",
        (r"no space left on device", r"disk quota exceeded", r"file too large"),
        (signal.SIGXFSZ,),
        stage=SET_UP,
    ),
    KnownFailure(
        "scratch-unusable",
        "pw.x cannot make or write its scratch folder",
        "name another scratch folder with --scratch",
        (
            r"unable to create directory",
            r"non existent or non writable",
            r"cannot be created or accessed",
            r"read-only file system",
        ),
        stage=SET_UP,
    ),
    KnownFailure(
        "pw-x-files",
        "pw.x could not read or write one of its own files",
        "try again; if it stays, name a scratch folder on a local disk with --scratch",
        (
            r"error in routine +(davcio|diropn|seqopn|open_buffer)",
            r"opening xml output file",
            r"can ?not open (file|unit)",
            r"stale (NFS )?file handle|input/output error",
        ),
        changes={},
    ),
    # Pseudopotentials and input
    KnownFailure(
        "pseudo-not-found",
        "pw.x does not find a pseudopotential file",
        "fetch the pseudopotentials again",
        (r"error in routine +read_?p\w* .*\n +file .* not found",),
        stage=SET_UP,
    ),
    KnownFailure(
        "pseudo-unreadable",
        "pw.x cannot read a pseudopotential file, or the files do not go together",
        "fetch the pseudopotentials again, of one family and one functional",
        (
            r"error in routine +(readpp|read_?upf\w*|read_ncpp|readvan|readrrkj|readgth|read_psml|read_pseudo\w*"
            r"|scan_(begin|end)|upf\w*|check_mesh|pseudo_upf\w*)",
            r"pseudo file is empty or wrong",
            r"of file (xmltools|read_upf\w*|read_pseudo\w*)\.f90",
        ),
    ),
    KnownFailure(
        "functional",
        "pw.x does not have this functional with these pseudopotentials",
        "use another pseudopotential family",
        (
            r"meta-?gga not implemented",
            r"error in routine +(set_dft_from_name|setup_?dft)",
            r"conflicting (values for )?(igcx|functional)",
        ),
    ),
    KnownFailure(
        "pw-x-input",
        "pw.x does not accept its input",
        "correct the settings that were given for pw.x; without any, report this as a defect of sorep",
        (
            r"error in routine +(read_namelists|read_cards|card_\w+|iosys|input|set_cutoff|init_pos|cell_base_init)",
            r"error in routine +(read_input|latgen|system_checkin|control_checkin|electrons_checkin|add_kpoints)",
            r"(unexpected )?end of file (while|reading)|fortran runtime error: end of file",
        ),
    ),
    KnownFailure(
        "atoms-overlap",
        "two atoms are at the same place",
        "correct the structure",
        (r"error in routine +check_atoms", r"overlapping atoms", r"atoms # *\d+ and # *\d+ (overlap|differ)"),
    ),
    KnownFailure(
        "too-many-kpoints",
        "there are more k points than pw.x has room for",
        "use a coarser k-point mesh",
        (r"too many k[- ]points", r"number of k-points exceeded"),
    ),
    KnownFailure(
        "too-few-bands",
        "there are fewer bands than the electrons fill",
        "use pseudopotentials with atomic orbitals for all valence electrons",
        (r"too few (spin (up|dw) )?bands *$",),
    ),
    KnownFailure(
        "too-few-plane-waves",
        "there are fewer plane waves than bands",
        "raise the wavefunction cutoff",
        (
            r"too many bands, or too few plane waves",
            r"more bands than PWs",
            r"(smooth )?g-vectors missing",
            r"mesh too small",
        ),
    ),
    KnownFailure(
        "too-many-processes",
        "pw.x was started on more processes or pools than this structure can use",
        "use fewer processes or pools; a small structure needs one",
        (
            r"some (nodes|processors) have no (k-points|g-vectors|planes)",
            r"running on too many processors",
            r"invalid number of (pools|band groups)",
            r"too few bands for required ndiag",
            r"nkstot/kunit is not an integer",
        ),
    ),
    # The numbers
    KnownFailure(
        "overlap-not-positive",
        "the atomic orbitals are linearly dependent",
        "use the patched pw.x (`sorep pw build`), which removes what is dependent; check that no atoms are too close",
        (r"s matrix not positive definite", r"problems computing (cholesky|inverse)", r"zhegvd? failed"),
    ),
    KnownFailure(
        "diagonalization",
        "the diagonalisation did not converge",
        "check the structure for atoms that are too close, and the pseudopotentials",
        (
            r"eigenvectors failed to converge",
            r"too many bands are not converged",
            r"error in routine +\w*(diaghg|cegterg|regterg|cgg|ppcg|paro)\w*",
            r"\[q, r\] = qr\(x, 0\) failed",
        ),
        changes={"electrons": {"diagonalization": "cg"}},
    ),
    KnownFailure(
        "smearing-needed",
        "the charge is wrong, as it is for a metal with fixed occupations",
        "use smearing",
        (r"charge is wrong: smearing is needed",),
        changes={"system": {"occupations": "smearing", "smearing": "cold", "degauss": 0.01}},
    ),
    KnownFailure(
        "charge-wrong",
        "the charge does not agree with the number of electrons",
        "check the structure and the pseudopotentials",
        (r"charge is wrong", r"starting and expected charges differ"),
        changes={"electrons": {"mixing_beta": 0.3, "diagonalization": "cg"}},
    ),
    KnownFailure(
        "no-fermi-energy",
        "pw.x found no Fermi energy",
        "check that there are more bands than the electrons fill",
        (r"cannot bracket ef", r"error in routine +efermi\w*"),
    ),
    KnownFailure(
        "no-convergence",
        "the self-consistent field did not converge",
        "give more steps or a smaller mixing_beta",
        (r"convergence not achieved",),
        changes={"electrons": {"mixing_beta": 0.3, "electron_maxstep": 200}},
    ),
    KnownFailure(
        "symmetry",
        "pw.x took the structure for more symmetric than it is",
        "symmetrise the structure, or run it without symmetry",
        (
            r"not orthogonal operation",
            r"symmetry operations? (is )?not satisfied",
            r"error in routine +(inverse_s|checkallsym|sgama|multable|divide_class\w*)",
        ),
        changes={"system": {"nosym": True}},
    ),
    KnownFailure(
        "cell-contracted",
        "the cell contracted more than the tables of the pseudopotentials allow",
        "start from a cell nearer to equilibrium",
        (r"not enough space allocated for radial fft",),
        changes={"cell": {"cell_factor": 2.5}},
    ),
    _MEMORY,
    _VIOLATIONS["time"],
    # Crashes; what was printed says more, so these come last
    KnownFailure(
        CRASHED,
        "pw.x crashed",
        "raise the stack limit (ulimit -s unlimited); build pw.x with `sorep pw build`; report it with the structure",
        (r"SIG(SEGV|BUS|ABRT)\b", r"segmentation fault"),
        (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT),
        changes={},
    ),
    KnownFailure(
        "floating-point",
        "pw.x divided by zero or met a number out of range",
        "check the structure for atoms that are too close, and the pseudopotentials",
        (r"SIGFPE\b", r"floating point exception"),
        (signal.SIGFPE,),
    ),
    KnownFailure(
        "pw-x-killed",
        "pw.x was killed from outside",
        "the machine probably ran out of memory: lower --jobs, or set --memory",
        (r"exited on signal (9|15)\b",),
        (signal.SIGKILL, signal.SIGTERM),
        changes={},
    ),
)
"""Searched from the top; the first that matches is the diagnosis."""


def diagnose(finished: Finished, folder: Path) -> Diagnosis:
    """Say why a run of pw.x in ``folder``, which the caller judges a failure, went wrong; see `diagnose_text`."""
    files = (folder / name for name in (OUTPUT, ERRORS, _CRASH))
    return diagnose_text(finished, *(file.read_text(errors="replace") if file.exists() else "" for file in files))


def last_words(folder: Path) -> str:
    """The last lines that pw.x printed in ``folder``."""
    return " | ".join(_last_lines((folder / OUTPUT).read_text(errors="replace"))) or "nothing printed"


def diagnose_text(finished: Finished, output: str, errors: str = "", crash: str = "") -> Diagnosis:
    """Say why a run of pw.x went wrong.

    Parameters
    ----------
    finished : Finished
        How it ended.
    output, errors, crash : str
        Standard output, standard error, and the file ``CRASH``.

    Returns
    -------
    Diagnosis
        A limit that was hit comes first, then `KNOWN_FAILURES`; what is not in it has code ``pw-x-failed``.
    """
    failure = _VIOLATIONS[finished.violation] if finished.violation else _match(finished, output, errors, crash)
    message = f"{failure.message} ({_ending(finished)})"
    last_words = [line for text in (output, errors, crash) for line in _last_lines(text)]
    return Diagnosis(
        code=failure.code,
        message=f"{message}: {' | '.join(last_words)}" if last_words else f"{message}; it printed nothing",
        remedy=failure.remedy,
        stage=failure.stage,
        changes=failure.changes,
    )


def _match(finished: Finished, output: str, errors: str, crash: str) -> KnownFailure:
    # Where pw.x names its error, the rest of the output is warnings.
    blocks = _ERROR_BLOCK.findall(output)
    crash = _CRASH_ERROR.sub(r"Error in routine \1 (\2):", crash)
    text = "\n".join([*(blocks or [output]), errors, crash])
    ended_by = _signal(finished.returncode)
    for failure in KNOWN_FAILURES:
        if any(re.search(pattern, text, re.IGNORECASE | re.MULTILINE) for pattern in failure.patterns):
            return failure
        if ended_by in failure.signals:
            return failure
    return _UNKNOWN


def _signal(returncode: int) -> int | None:
    """The signal that ended a program, which shells and launchers report as 128 plus its number."""
    number = -returncode if returncode < 0 else returncode - 128
    return number if number in set(signal.Signals) else None


def _ending(finished: Finished) -> str:
    if finished.violation == "memory":
        return f"{finished.peak_memory_bytes / 2**20:.0f} MiB after {finished.seconds:.0f} s"
    if finished.violation:
        return f"after {finished.seconds:.0f} s"
    number = _signal(finished.returncode)
    return f"signal {signal.Signals(number).name}" if number else f"exit status {finished.returncode}"


def _last_lines(text: str) -> list[str]:
    lines = (" ".join(line.split()) for line in text.splitlines())
    telling = [line for line in lines if not _NOISE.match(line)][-_LINES_SHOWN:]
    return [line if len(line) <= _LONGEST_LINE else f"{line[: _LONGEST_LINE - 3]}..." for line in telling]

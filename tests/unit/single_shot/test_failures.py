"""The table of failures, on real messages and on a real pw.x."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from sorep.errors import SET_UP, PwError
from sorep.single_shot.executable import find_pw_x
from sorep.single_shot.failures import KNOWN_FAILURES, Diagnosis, diagnose, diagnose_text
from sorep.single_shot.process import OUTPUT, Finished, ProcessLimits, Violation, run_process

ROOT = Path(__file__).parents[3]
FAKE = ROOT / "tests" / "fake_pw_x.py"
SHARED = Path(os.environ.get("SOREP_SHARED", ROOT.parent / "shared"))
SSSP = SHARED / "pseudos" / "SSSP_1.3.0_PBE_efficiency_noLnAn.tar.xz"


def ended(returncode: int = 1, violation: Violation | None = None) -> Finished:
    return Finished(returncode, 12.0, 11.0, violation, 300 * 2**20)


def block(routine: str, message: str, number: int = 1) -> str:
    """What pw.x prints when it stops, after some other output."""
    bar = "%" * 78
    return (
        "     Warning: convergence NOT achieved, no space left on device\n"
        f"\n {bar}\n     Error in routine {routine} ({number}):\n     {message}\n {bar}\n\n     stopping ...\n"
    )


@pytest.mark.parametrize(
    ("code", "routine", "message"),
    [
        ("overlap-not-positive", "cdiaghg", "S matrix not positive definite"),
        ("overlap-not-positive", " cdiaghg ", " problems computing cholesky "),
        ("diagonalization", "cdiaghg", "eigenvectors failed to converge"),
        ("diagonalization", "c_bands", "too many bands are not converged"),
        ("too-few-bands", "setup", "too few bands"),
        ("too-few-bands", "setup", "too few spin up bands"),
        ("too-many-processes", "check_para_diag", "Too few bands for required ndiag"),
        ("smearing-needed", "electrons", "charge is wrong: smearing is needed"),
        ("charge-wrong", "electrons", "charge is wrong"),
        ("charge-wrong", "potinit", "starting and expected charges differ"),
        ("symmetry", "checkallsym", "not orthogonal operation"),
        ("symmetry", "checkallsym", "some of the original symmetry operations not satisfied "),
        ("symmetry", "inverse_s", " Not a group"),
        ("cell-contracted", "scale_h", "Not enough space allocated for radial FFT: try restarting with a larger cell"),
        ("pseudo-not-found", "readpp", "file ./pseudo/Si.upf not found"),
        ("pseudo-unreadable", "readpp", "file ./Si.upf not readable"),
        ("pseudo-unreadable", "readpp", "inconsistent DFT read from PP files"),
        ("pseudo-unreadable", "scan_begin", "No PP_HEADER block"),
        ("functional", "setup", "Meta-GGA not implemented with USPP/PAW"),
        ("atoms-overlap", "check_atoms", "atoms #   1 and #   2 overlap!"),
        ("atoms-overlap", "check_atoms", "atoms #   1 and #   2 differ by lattice vector ( 1, 0, 0) in crystal axis"),
        ("too-many-kpoints", "kpoint_grid", "too many k-points"),
        ("too-many-kpoints", "setup", "too many k points"),
        ("too-few-plane-waves", "diag_bands", "too many bands, or too few plane waves"),
        ("too-many-processes", "n_plane_waves", "No plane waves found: running on too many processors?"),
        ("too-many-processes", "mp_start_pools", "invalid number of pools, out of range"),
        ("pw-x-memory", " diag_bands ", " cannot allocate h_diag "),
        ("pw-x-memory", " fft_buffers ", " Allocation failed "),
        ("pw-x-files", "davcio", 'error writing file "./out/si.wfc1"'),
        ("pw-x-files", "diropn", "error opening ./out/si.wfc1"),
        ("scratch-unusable", "check_tempdir", "temporary directory ./out/ cannot be created or accessed"),
        ("pw-x-input", " read_namelists ", " could not find namelist &electrons"),
        ("pw-x-input", "read_cards", "end of file reading atomic positions"),
        ("pw-x-input", "set_cutoff", " ecutwfc not set "),
        ("no-fermi-energy", "efermig", "internal error, cannot bracket Ef"),
        ("pw-x-failed", "some_routine", "something unheard of"),
    ],
)
def test_error_blocks(code, routine, message):
    diagnosis = diagnose_text(ended(), block(routine, message))
    assert diagnosis.code == code
    assert " ".join(message.split()) in diagnosis.message
    assert "%%" not in diagnosis.message
    assert diagnosis.remedy
    crash = f"\n {'%' * 78}\n     task #         3\n     from {routine} : error #         1\n     {message}\n"
    assert diagnose_text(ended(), "", crash=crash).code == code  # an MPI build whose output was lost


@pytest.mark.parametrize(
    ("code", "returncode", "errors"),
    [
        ("missing-library", 127, "pw.x: error while loading shared libraries: libopenblas.so.0: cannot open shared"),
        ("missing-library", 1, "pw.x: /lib64/libm.so.6: version `GLIBC_2.29' not found (required by pw.x)"),
        ("missing-library", 127, "pw.x: symbol lookup error: pw.x: undefined symbol: zhegvx_"),
        ("wrong-cpu", 132, "Program received signal SIGILL: Illegal instruction."),
        ("pw-x-not-executable", 126, "/bin/sh: ./pw.x: cannot execute binary file: Exec format error"),
        ("mpi-slots", 1, "There are not enough slots available in the system to satisfy the 8\nslots"),
        ("mpi-slots", 1, "srun: error: Unable to create step for job 12: More processors requested than permitted"),
        ("mpi-root", 1, "mpirun has detected an attempt to run as root."),
        ("pw-x-not-found", 134, "mpirun was unable to find the specified executable file, and therefore did not"),
        ("launcher-not-found", 127, "/bin/sh: 1: mpirun: not found"),
        ("disk-full", 2, "Fortran runtime error: No space left on device"),
        ("disk-full", 2, "forrtl: Disk quota exceeded"),
        ("pw-x-memory", 1, "Error allocating 8589934592 bytes\nError termination. Backtrace:"),
        ("pw-x-memory", 1, "Operating system error: Cannot allocate memory\nAllocation would exceed memory limit"),
        ("pw-x-input", 2, "At line 12 of file read_cards.f90\nFortran runtime error: End of file"),
        ("pw-x-crash", 139, "mpirun noticed that process rank 0 exited on signal 11 (Segmentation fault)."),
        ("pw-x-killed", 137, "mpirun noticed that process rank 0 with PID 7 on node a exited on signal 9 (Killed)."),
        ("pw-x-killed", 137, ""),
        ("pw-x-crash", -signal.SIGSEGV, ""),
        ("floating-point", -signal.SIGFPE, ""),
        ("pw-x-failed", 255, ""),
        ("pw-x-failed", 3, ""),
    ],
)
def test_what_the_machine_says(code, returncode, errors):
    diagnosis = diagnose_text(ended(returncode), "     Program PWSCF v.6.7MaX starts\n", errors)
    assert diagnosis.code == code
    assert errors.splitlines()[0] in diagnosis.message if errors else "PWSCF" in diagnosis.message


def test_output_is_searched_where_there_is_no_error_block():
    output = "     convergence NOT achieved after 100 iterations: stopping\n     fft : 0.1s CPU 0.2s WALL ( 12 calls)\n"
    diagnosis = diagnose_text(ended(2), output)
    assert diagnosis.code == "no-convergence"
    assert diagnosis.changes == {"electrons": {"mixing_beta": 0.3, "electron_maxstep": 200}}
    assert "100 iterations" in diagnosis.message
    assert "WALL" not in diagnosis.message


@pytest.mark.parametrize(
    ("violation", "code", "number"),
    [("time", "pw-x-timeout", "12 s"), ("memory", "pw-x-memory", "300 MiB"), ("silent", "pw-x-silent", "12 s")],
)
def test_a_limit_comes_first(violation, code, number):
    diagnosis = diagnose_text(ended(-15, violation), block("cdiaghg", "S matrix not positive definite"))
    assert diagnosis.code == code
    assert number in diagnosis.message


def test_messages_are_short_and_errors_complete():
    diagnosis = diagnose_text(ended(), "\n".join(f"{number} {'x' * 500}" for number in range(100)))
    assert "95 xxx" in diagnosis.message
    assert "94 xxx" not in diagnosis.message
    assert len(diagnosis.message) < 1000
    error = diagnosis.error(["disk-full", "pw-x-crash"])
    assert isinstance(error, PwError)
    assert (error.code, error.stage, error.remedy) == ("pw-x-failed", "pw.x", diagnosis.remedy)
    assert error.message.endswith("(after disk-full, pw-x-crash)")
    assert diagnosis.error().message == diagnosis.message
    assert "printed nothing" in diagnose_text(ended(), "").message


def test_the_table_is_consistent():
    assert max(Counter(failure.code for failure in KNOWN_FAILURES).values()) == 1
    for failure in KNOWN_FAILURES:
        assert failure.patterns or failure.signals
        assert failure.message
        assert failure.remedy
        assert failure.stage in ("pw.x", SET_UP)
        assert set(failure.changes or {}) <= {"control", "system", "electrons", "ions", "cell"}


# A program that fails: the fake one always, the real one where there is one


def fails(folder: Path, command: list[str], text: str, limits: ProcessLimits | None = None) -> Diagnosis:
    (folder / "pw.in").write_text(text)
    finished = run_process([*command, "-in", "pw.in"], folder, limits=limits or ProcessLimits(seconds=60))
    assert finished.returncode != 0
    return diagnose(finished, folder)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("segfault", "pw-x-crash"),
        ("killed", "pw-x-killed"),
        ("error", "overlap-not-positive"),
        ("disk-full", "disk-full"),
        ("missing-library", "missing-library"),
        ("wrong-cpu", "wrong-cpu"),
        ("memory-at-once", "pw-x-memory"),
    ],
)
def test_faults_of_the_fake(tmp_path, fault, code):
    text = f"! fake: {fault}\n&control\n/\nATOMIC_POSITIONS\n"
    limits = ProcessLimits(seconds=60, memory_bytes=100 * 2**20)
    assert fails(tmp_path, [sys.executable, str(FAKE)], text, limits).code == code


@pytest.fixture(scope="module")
def pw_x() -> str:
    try:
        return str(find_pw_x())
    except PwError as error:
        pytest.skip(error.message)


@pytest.fixture(scope="module")
def silicon(tmp_path_factory) -> Path:
    """A real pseudopotential file."""
    if not SSSP.exists():
        pytest.skip(f"there is no {SSSP.name}")
    folder = tmp_path_factory.mktemp("pseudos")
    with tarfile.open(SSSP) as archive:
        for member in archive:
            if Path(member.name).name == "Si.upf":
                content = archive.extractfile(member)
                assert content is not None
                (folder / "Si.upf").write_bytes(content.read())
                break
    return folder / "Si.upf"


def si_input(more: str = "", outdir: str = "./out", second: str = "0.25 0.25 0.25", cards: str = "") -> str:
    return (
        f"&control\n outdir = '{outdir}'\n pseudo_dir = './'\n/\n"
        f"&system\n ibrav = 2, celldm(1) = 10.2, nat = 2, ntyp = 1, ecutwfc = 12 {more}\n/\n&electrons\n/\n"
        f"ATOMIC_SPECIES\n Si 28.0 Si.upf\nATOMIC_POSITIONS crystal\n Si 0 0 0\n Si {second}\nK_POINTS gamma\n{cards}"
    )


@pytest.mark.pwx
def test_real_failures_before_the_calculation(tmp_path, pw_x):
    assert fails(tmp_path, [pw_x], "").code == "pw-x-input"
    assert fails(tmp_path, [pw_x], si_input(", no_such_keyword = 1")).code == "pw-x-input"
    assert fails(tmp_path, [pw_x], si_input()).code == "pseudo-not-found"
    (tmp_path / "Si.upf").write_text("<UPF version='2.0.1'>\n this is no pseudopotential\n")
    assert fails(tmp_path, [pw_x], si_input()).code == "pseudo-unreadable"
    (tmp_path / "file").write_text("")
    assert fails(tmp_path, [pw_x], si_input(outdir="./file/out")).code == "scratch-unusable"


@pytest.mark.pwx
def test_real_failures_of_a_structure(tmp_path, pw_x, silicon):
    shutil.copy(silicon, tmp_path)
    assert fails(tmp_path, [pw_x], si_input(second="0 0 0")).code == "atoms-overlap"
    diagnosis = fails(tmp_path, [pw_x], si_input(", nbnd = 2"))
    assert diagnosis.code == "too-few-bands"
    assert "Error in routine setup (1): | too few bands" in diagnosis.message
    finished = run_process([pw_x, "-in", "pw.in"], tmp_path, limits=ProcessLimits(seconds=0.001))
    assert diagnose(finished, tmp_path).code == "pw-x-timeout"
    assert (tmp_path / OUTPUT).exists()

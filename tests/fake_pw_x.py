#!/usr/bin/env python3
"""A pw.x that misbehaves as it is told, for the tests of everything that runs one.

It is called as pw.x is (``-in FILE``, or the input on standard input). What it does wrong is named by the environment
variable ``FAKE_PW_X``, or by a comment line ``! fake: NAME`` in the input; see `AT_ONCE`, `INSTEAD` and `AFTERWARDS`.
``hang:Ge,nan:Si`` is for inputs with these elements, the first that fits; ``segfault+none`` is for the first, the
second, ... try in one folder, the last one from then on.

``FAKE_PW_X_REAL``
    A real pw.x, which does the calculation where one is needed; without a misbehaviour, the fake is this one.
``FAKE_PW_X_PATCHED``
    If set, the fake says at its start that it has the single-shot mode.

An input without atoms gets the answer of pw.x 6.7, unless the misbehaviour is one of `AT_ONCE`.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

HEADER = """
     Program PWSCF v.6.7MaX starts on  1Jan2026 at 12: 0: 0 

     This program is part of the open-source Quantum ESPRESSO suite
     for quantum simulation of materials; please cite
         "P. Giannozzi et al., J. Phys.:Condens. Matter 21 395502 (2009);
         "P. Giannozzi et al., J. Phys.:Condens. Matter 29 465901 (2017);
          URL http://www.quantum-espresso.org", 
     in publications or presentations arising from this work. More details at
     http://www.quantum-espresso.org/quote

     Serial version
"""  # noqa: W291 -- as pw.x prints it
DIMENSIONS = """
     Current dimensions of program PWSCF are:
     Max number of different atomic species (ntypx) = 10
     Max number of k-points (npk) =  40000
     Max angular momentum in pseudopotentials (lmaxx) =  3
"""
PATCHED = "     Single-shot mode available: sorep patch, revision 1\n"
UNCONVERGED = 2
MEBIBYTE = 2**20
MOST_MEBIBYTES = 1024  # where a memory limit does not work, this is all the harm that is done


def say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def start() -> None:
    say(HEADER + DIMENSIONS + (PATCHED if os.environ.get("FAKE_PW_X_PATCHED") else ""))


def complain(text: str, status: int) -> NoReturn:
    sys.stderr.write(f"{text}\n")
    sys.exit(status)


def stop(routine: str, number: int, message: str) -> NoReturn:
    """What CALL errore(routine, message, number) does."""
    bar = "%" * 78
    say(f"\n {bar}\n     Error in routine {routine} ({number}):\n     {message}\n {bar}\n\n     stopping ...\n")
    complain("STOP 1", 1)


def print_for_ever() -> NoReturn:
    while True:
        say("     working\n")
        time.sleep(0.02)


def die_of(number: int) -> NoReturn:
    os.kill(os.getpid(), number)
    time.sleep(1000)
    sys.exit("the signal did not come")


def start_child(code: str) -> None:
    """Start a process in the same group, write its number to the file ``child``, and wait for its readiness."""
    program = f"import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); {code}"
    child = subprocess.Popen([sys.executable, "-c", f"{program}; print(flush=True); time.sleep(1000)"], stdout=-1)
    if child.stdout is not None:
        child.stdout.readline()
    Path("child.partial").write_text(str(child.pid))
    Path("child.partial").rename("child")


def segfault() -> NoReturn:
    sys.stderr.write("\nProgram received signal SIGSEGV: Segmentation fault - invalid memory reference.\n")
    sys.stderr.write("\nBacktrace for this error:\n#0  0x7f0000000000 in ???\n")
    sys.stderr.flush()
    die_of(signal.SIGSEGV)


def hang_with_child() -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    start_child("pass")
    print_for_ever()


def leave_child() -> NoReturn:
    start_child("pass")
    sys.exit(0)


def kill_parent() -> NoReturn:
    start_child("pass")
    os.kill(os.getppid(), signal.SIGKILL)
    print_for_ever()


def fill_memory() -> NoReturn:
    kept = []
    while len(kept) * 8 < MOST_MEBIBYTES:
        kept.append(bytearray(b"x") * (8 * MEBIBYTE))
        time.sleep(0.01)
    print_for_ever()


def fill_memory_of_child() -> NoReturn:
    start_child(f"kept = bytearray(b'x') * ({MOST_MEBIBYTES // 8} * {MEBIBYTE})")
    print_for_ever()


def allocate_at_once() -> NoReturn:
    try:
        kept = bytearray(MOST_MEBIBYTES * MEBIBYTE)
    except MemoryError:
        complain(f"Error allocating {MOST_MEBIBYTES * MEBIBYTE} bytes\nError termination. Backtrace:", 1)
    say(f"     {len(kept)} bytes allocated\n")
    sys.exit(0)


def end_without_convergence() -> NoReturn:
    say("\n     convergence NOT achieved after 200 iterations: stopping\n\n   JOB DONE.\n")
    sys.exit(UNCONVERGED)


def truncate(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 2 // 3])


def edit_eigenvalues(xml: Path, edit: Callable[[list[str]], list[str]]) -> None:
    """Change the eigenvalues of every k point."""

    def replace(found: re.Match) -> str:
        return f"{found[1]}\n{' '.join(edit(found[2].split()))}\n{found[3]}"

    pattern = r"(<eigenvalues\b[^>]*>)(.*?)(</eigenvalues>)"
    xml.write_text(re.sub(pattern, replace, xml.read_text(), flags=re.DOTALL))


def drop_kpoint(xml: Path) -> None:
    xml.write_text(re.sub(r"<ks_energies>.*?</ks_energies>\s*", "", xml.read_text(), count=1, flags=re.DOTALL))


def use_fewer_kpoints(xml: Path) -> None:
    drop_kpoint(xml)
    number = r"(<nks>\s*)(\d+)"
    xml.write_text(re.sub(number, lambda found: f"{found[1]}{int(found[2]) - 1}", xml.read_text()))


def use_other_kpoints(xml: Path) -> None:
    coordinate = r"(<k_point\b[^>]*>\s*)([^\s<]+)"
    xml.write_text(re.sub(coordinate, lambda found: f"{found[1]}{float(found[2]) + 0.1}", xml.read_text()))


def matrix_files(xml: Path) -> list[Path]:
    return sorted(xml.parent.glob("hs*.dat"))


def move_matrices(xml: Path) -> None:
    """The second k point's file in place of the last one's."""
    _, second, *_, last = matrix_files(xml)
    last.write_bytes(second.read_bytes())


def use_fewer_bands(xml: Path) -> None:
    per_band = r"(<(eigenvalues|occupations)\b[^>]*>.*?)\S+\s*(</\2>)"
    xml.write_text(re.sub(per_band, r"\1\3", xml.read_text(), flags=re.DOTALL))


AT_ONCE: dict[str, Callable[[], NoReturn]] = {
    "missing-library": lambda: complain(
        "pw.x: error while loading shared libraries: libopenblas.so.0: "
        "cannot open shared object file: No such file or directory",
        127,
    ),
    "wrong-cpu": lambda: die_of(signal.SIGILL),
    "not-pw-x": lambda: (say("hello\n"), sys.exit(0))[1],
}
"""In place of everything, whatever the input."""

INSTEAD: dict[str, Callable[[], object]] = {
    "segfault": segfault,
    "reads-beyond": lambda: None if os.environ.get("MALLOC_MMAP_MAX_") == "0" else segfault(),
    "killed": lambda: die_of(signal.SIGKILL),
    "error": lambda: stop("cdiaghg", 12, "S matrix not positive definite"),
    "disk-full": lambda: complain(
        "At line 594 of file io_files.f90 (unit = 10)\nFortran runtime error: No space left on device", 2
    ),
    "stop-0": lambda: (say("     stopping ...\n"), complain("STOP", 0)),
    "hang": print_for_ever,
    "hang-with-child": hang_with_child,
    "leave-child": leave_child,
    "kill-parent": kill_parent,
    "silent": lambda: time.sleep(1000),
    "memory": fill_memory,
    "memory-of-child": fill_memory_of_child,
    "memory-at-once": allocate_at_once,
    "bands": lambda: stop("c_bands", 1, "too many bands are not converged"),
    "symmetry": lambda: stop("checkallsym", 3, "not orthogonal operation"),
    "no-convergence": end_without_convergence,
}
"""After the first lines, instead of the calculation; where one returns, the calculation follows."""

AFTERWARDS: dict[str, Callable[[Path], int | None]] = {
    "no-xml": lambda xml: xml.unlink(),
    "truncated-xml": truncate,
    "missing-kpoint": drop_kpoint,
    "nan": lambda xml: edit_eigenvalues(xml, lambda values: ["NaN", *values[1:]]),
    "descending": lambda xml: edit_eigenvalues(xml, lambda values: values[::-1]),
    "missing-bands": lambda xml: edit_eigenvalues(xml, lambda values: values[:-1]),
    "fewer-kpoints": use_fewer_kpoints,
    "other-kpoints": use_other_kpoints,
    "fewer-bands": use_fewer_bands,
    "no-matrices": lambda xml: [path.unlink() for path in matrix_files(xml)] and None,
    "fewer-matrices": lambda xml: matrix_files(xml)[-1].unlink(),
    "truncated-matrices": lambda xml: truncate(matrix_files(xml)[-1]),
    "matrices-of-other-kpoints": move_matrices,
    "status-2": lambda xml: UNCONVERGED,
    "segfault-at-the-end": lambda xml: segfault(),
}
"""After a real calculation, to its XML file; a value is the exit status."""


def setting(text: str, key: str, default: str) -> str:
    """A character variable of the input."""
    found = re.search(rf"^\s*{key}\s*=\s*['\"]([^'\"]*)['\"]", text, re.MULTILINE | re.IGNORECASE)
    return found[1] if found else default


def read_input(arguments: list[str]) -> str:
    for flag, value in pairwise(arguments):
        if flag in ("-i", "-in", "-inp", "-input"):
            return Path(value).read_text()
    return sys.stdin.read()


def calculate(text: str) -> int:
    """Run the real pw.x on the input, and return its exit status."""
    real = os.environ.get("FAKE_PW_X_REAL")
    if not real:
        complain("the fake pw.x calculates nothing: FAKE_PW_X_REAL names no real one", 64)
    return subprocess.run([real], input=text, text=True, check=False).returncode


def choose(faults: str, text: str) -> str:
    """The fault that is meant for this input, and for this try in this folder; empty where there is none."""
    for choice in faults.split(","):
        tries, _, element = choice.partition(":")
        if re.search(rf"^ *{element} +\S+ +\S+\.upf", text, re.MULTILINE | re.IGNORECASE) or not element:
            names = tries.split("+")
            if len(names) > 1 and "ATOMIC_POSITIONS" in text:
                with Path("tries").open("a+") as record:
                    record.write("x")
                    record.flush()
                    names = names[record.tell() - 1 :] or names[-1:]
            return names[0].replace("none", "")
    return ""


def main() -> int:
    text = read_input(sys.argv[1:])
    comment = re.search(r"^\s*! fake: *(\S+)", text, re.MULTILINE)
    fault = choose(comment[1] if comment else os.environ.get("FAKE_PW_X", ""), text)
    if fault in AT_ONCE:
        AT_ONCE[fault]()
    if "&control" not in text.lower():
        say(HEADER)
        stop(" read_namelists", 2, " could not find namelist &control")
    if "ATOMIC_POSITIONS" not in text.upper():
        start()
        stop("init_pos", 1, "atomic species info missing")
    if fault in INSTEAD:
        start()
        INSTEAD[fault]()
    elif fault and fault not in AFTERWARDS:
        complain(f"the fake pw.x knows no {fault}", 64)
    status = calculate(text)
    if fault in AFTERWARDS:
        folder = Path(setting(text, "outdir", "./")) / f"{setting(text, 'prefix', 'pwscf')}.save"
        return AFTERWARDS[fault](folder / "data-file-schema.xml") or status
    return status


if __name__ == "__main__":
    sys.exit(main())

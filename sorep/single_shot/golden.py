"""Golden calculations: the eigenvalues that a newly built pw.x has to reproduce.

The references in ``golden.json`` come from the unpatched pw.x, which diagonalises in the same basis of atomic
wavefunctions when it is told to do no iteration, but then ends with an error status.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from itertools import chain
from math import inf, isfinite
from pathlib import Path
from xml.etree import ElementTree

from sorep.errors import SET_UP, PwError

_TIME_LIMIT = 300.0  # seconds; it takes less than one


def run_golden(executable: Path, golden: Path, tree: Path) -> float:
    """Run the golden calculations; returns the largest deviation of an eigenvalue, Hartree.

    Parameters
    ----------
    executable : Path
        The pw.x to check.
    golden : Path
        ``golden.json``: inputs, eigenvalues (Hartree), and the line by which a patched pw.x announces itself.
    tree : Path
        Source tree of Quantum ESPRESSO, which has the pseudopotentials.

    Raises
    ------
    PwError
        ``golden-failed``: a crash, an exit status other than 0, no announcement, or an eigenvalue that is off.
    """
    reference = json.loads(golden.read_text(encoding="utf-8"))
    deviations = []
    for calculation in reference["calculations"]:
        name = calculation["name"]
        with tempfile.TemporaryDirectory(prefix="sorep-golden-") as folder:
            shutil.copy(tree / calculation["pseudopotential"], folder)
            Path(folder, "golden.in").write_text("\n".join([*calculation["input"], ""]), encoding="ascii")
            output, eigenvalues = _run(executable, Path(folder), name)
        if reference["banner"] not in output:
            raise _failure(name, f'pw.x does not print "{reference["banner"]}"')
        if [len(levels) for levels in eigenvalues] != [len(levels) for levels in calculation["eigenvalues"]]:
            raise _failure(name, "the number of eigenvalues is wrong")
        pairs = zip(chain(*eigenvalues), chain(*calculation["eigenvalues"]), strict=True)
        deviation = max(abs(found - expected) if isfinite(found) else inf for found, expected in pairs)
        if deviation > reference["tolerance"]:
            allowed = f"{reference['tolerance']:.0e}"
            raise _failure(name, f"an eigenvalue is off by {deviation:.1e} Hartree (allowed: {allowed})")
        deviations.append(deviation)
    return max(deviations)


def _run(executable: Path, folder: Path, name: str) -> tuple[str, list[list[float]]]:
    """Standard output, and eigenvalues by k point, Hartree."""
    try:
        result = subprocess.run(
            [executable, "-in", "golden.in"],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIME_LIMIT,
        )
    except subprocess.TimeoutExpired:
        raise _failure(name, f"not finished after {_TIME_LIMIT:.0f} s") from None
    if result.returncode:
        last = "\n".join((result.stdout + result.stderr).splitlines()[-15:])
        raise _failure(name, f"pw.x ended with status {result.returncode}; its last lines:\n{last}\n")
    try:
        levels = ElementTree.parse(folder / "golden.save" / "data-file-schema.xml").iter("eigenvalues")
        return result.stdout, [[float(word) for word in (element.text or "").split()] for element in levels]
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise _failure(name, f"no eigenvalues in what pw.x wrote: {error}") from None


def _failure(name: str, reason: str) -> PwError:
    return PwError(
        f"the new pw.x failed its check ({name}) and was not installed: {reason}",
        code="golden-failed",
        stage=SET_UP,
        remedy="try another version of gfortran or of OpenBLAS; if you changed a patch, it is wrong",
    )

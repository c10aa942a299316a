"""Kinetic spectra: CPU time against the number of atoms and of k points, and the share of the eigensolver.

Supercells of cubic BaTiO3, its atoms displaced at random so that no symmetry is left: matrices are complex but for
the few k points that are their own negatives. Times are those of one thread with warm tables. Everything from the
structure to the eigenvalues counts; what is not the eigensolver is the search for symmetry, the integrals, and the
Fourier and plane-wave sums. The last line shows the memory of a calculation of 1,026 functions and about 590 k
points.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from unittest.mock import patch

from _common import supercell, use_one_thread

import sorep.bloch
from sorep.kinetic.method import KineticSettings
from sorep.structure import Structure

SUPERCELLS = ((1, 1, 1), (1, 1, 2), (1, 2, 2), (1, 2, 3), (2, 2, 3), (1, 4, 5), (2, 4, 5))
SPACINGS = (0.4, 0.2, 0.1)
SMALL = "si"
DISPLACEMENT = 0.05  # Angstrom
MEMORY_CASE = ((3, 3, 6), 0.043)  # repeated BaTiO3 and k spacing: 1,026 functions, about 590 k points


class Stopwatch:
    """Sums up the CPU time spent inside a function."""

    def __init__(self, function) -> None:
        self.function, self.seconds = function, 0.0

    def __call__(self, *arguments):
        start = time.process_time()
        result = self.function(*arguments)
        self.seconds += time.process_time() - start
        return result


def measure(label: str, structure: Structure, settings: KineticSettings, repetitions: int) -> None:
    """One row: the fastest of several calls."""
    settings.calculate(structure)  # computes missing tables
    rows = []
    for _ in range(repetitions):
        solver = Stopwatch(sorep.bloch.generalized_eigenvalues)
        with patch.object(sorep.bloch, "generalized_eigenvalues", solver):
            start = time.process_time()
            work = settings.estimate(structure)
            start = time.process_time()
            settings.calculate(structure)
            rows.append((time.process_time() - start, solver.seconds))
    seconds, in_solver = min(rows)
    print(
        f"{label:22} {structure.n_atoms:5} {work.n_functions:9} {work.n_kpoints:5} {seconds:9.4f}"
        f" {100 * (1 - in_solver / seconds):8.0f} % {work.seconds / seconds:10.2f}",
        flush=True,
    )


def memory() -> None:
    """Resident memory of a process that does the large case, and of one that only imports."""
    repeats, spacing = MEMORY_CASE
    kibibytes = {}
    for label, limit in (("imports", 0), ("large", 1)):
        code = (
            "import sys; sys.path.insert(0, sys.argv[1])\n"
            "from _common import supercell, use_one_thread; use_one_thread()\n"
            "from sorep.kinetic.method import KineticSettings\n"
            f"structure = supercell('batio3_cubic', {repeats}, displacement={DISPLACEMENT})\n"
            f"settings = KineticSettings(k_spacing={spacing})\n"
            "work = settings.estimate(structure); print(work.n_functions, work.n_kpoints)\n"
            f"{limit} and settings.calculate(structure)"
        )
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        done = subprocess.run(
            [sys.executable, "-c", code, str(sys.path[0])], capture_output=True, text=True, check=True
        )
        kibibytes[label] = max(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, before)
        functions, kpoints = done.stdout.split()
    print(
        f"\n{functions} functions, {kpoints} k points: {kibibytes['large'] / 1024:.0f} MiB resident at most, of which"
        f" {kibibytes['imports'] / 1024:.0f} MiB before the calculation"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3, help="calls of which the fastest counts [%(default)s]")
    parser.add_argument("--memory", action="store_true", help="also the memory of a large case (several minutes)")
    options = parser.parse_args()
    use_one_thread()
    print(
        f"{'system':22} {'atoms':>5} {'functions':>9} {'k':>5} {'seconds':>9} {'not solver':>10} {'estimate':>10}"
        "  (over measured)"
    )
    for basis, discard_below in (("ano-ml-os", 0.0), ("ano-ml-os-published", 0.1)):
        settings = KineticSettings(basis=basis, discard_below=discard_below)
        for repeats in SUPERCELLS:
            structure = supercell("batio3_cubic", repeats, displacement=DISPLACEMENT)
            measure(f"BaTiO3 {'x'.join(map(str, repeats))}", structure, settings, options.repetitions)
    pair = supercell(SMALL, (1, 1, 1), displacement=DISPLACEMENT)
    for spacing in SPACINGS:
        measure(f"Si, {spacing:g} 1/A", pair, KineticSettings(k_spacing=spacing), options.repetitions)
    if options.memory:
        memory()


if __name__ == "__main__":
    main()

"""What the benchmarks share: one thread, CPU time, the example crystals."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pyscf.lib
from ase import Atoms
from threadpoolctl import threadpool_limits

from sorep.errors import Failure
from sorep.sources import structures_from
from sorep.structure import Structure

STRUCTURES = Path(__file__).parents[1] / "examples" / "structures"

Result = TypeVar("Result")


def use_one_thread() -> None:
    """Keep BLAS and PySCF from spreading over cores."""
    threadpool_limits(1)
    pyscf.lib.num_threads(1)


def cpu_seconds(function: Callable[[], Result], repetitions: int) -> tuple[float, Result]:
    """Median CPU time of several calls, and what the first of them returned."""

    def timed() -> tuple[float, Result]:
        start = time.process_time()
        result = function()
        return time.process_time() - start, result

    calls = [timed() for _ in range(repetitions)]
    return statistics.median(seconds for seconds, _ in calls), calls[0][1]


def example(name: str) -> Structure:
    """A crystal of examples/structures, by the stem of its file."""
    (structure,) = structures_from(STRUCTURES / f"{name}.cif")
    if isinstance(structure, Failure):
        raise SystemExit(structure.message)
    return structure


def supercell(name: str, repeats: tuple[int, int, int], *, displacement: float = 0.0) -> Structure:
    """Repeated cell of an example crystal, its atoms displaced at random (standard deviation, Angstrom)."""
    atoms: Atoms = example(name).to_ase().repeat(repeats)
    if displacement:
        atoms.rattle(displacement, seed=0)
    return Structure.from_ase(atoms, id=f"{name}-{'x'.join(map(str, repeats))}")

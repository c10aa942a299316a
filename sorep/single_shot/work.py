"""How much work a pw.x calculation is, before any of it is done: orders the queue and tells a dry run what to expect.

The constants were fitted to one core of an ordinary server (benchmarks/single_shot_throughput.py).
"""

from __future__ import annotations

import numpy as np

from sorep.method import Work
from sorep.single_shot.inputs import CONVERGED, Plan
from sorep.units import BOHR_IN_ANGSTROM

_START = 0.1  # s; tables and pseudopotential files
_FFT = 1.0e-9  # s for one grid point, doubling and orbital, forth and back
_MULTIPLY_ADD = 3e-10
_ITERATION = 4.0  # of an SCF, in units of a single shot
_ITERATIONS = 12
_BANDS = 4  # the diagonalisation at one k point of a path, in units of an SCF iteration
_BASE_MEMORY = 60 * 2**20
_MATRICES = 6  # of each k point of a whole coarse mesh, alive at once
_BYTES_PER_POINT = 600  # of the density grid: densities, potentials, G vectors and structure factors


def estimate_work(plan: Plan) -> Work:
    """Orbitals, k points, seconds and memory of pw.x; the last two within a factor of a few."""
    volume = plan.cell.structure.volume / BOHR_IN_ANGSTROM**3
    plane_waves = volume * plan.ecutwfc**1.5 / (6 * np.pi**2)
    grid = np.prod(
        2 * np.linalg.norm(plan.cell.structure.lattice, axis=1) / BOHR_IN_ANGSTROM / (2 * np.pi) * plan.ecutrho**0.5 + 1
    )
    n = plan.n_functions
    projectors = 2 * n
    n_matrices = len(plan.mesh) * plan.n_spin
    one = n * grid * np.log2(grid) * _FFT + plane_waves * n * (n + projectors) * _MULTIPLY_ADD
    iterations = _ITERATIONS if plan.iterations == CONVERGED else plan.iterations
    iterations = _BANDS if plan.on_path else iterations
    seconds = _START + n_matrices * one * (1 + _ITERATION * iterations)
    kept = n_matrices if iterations else 1
    memory = _BASE_MEMORY + _BYTES_PER_POINT * grid + 16 * plane_waves * (n * (kept + 1) + projectors)
    if plan.writes_matrices:  # read back and unfolded
        memory = max(memory, _BASE_MEMORY + _MATRICES * 16 * n * n * float(np.prod(plan.mesh.divisions)))
    return Work(n, len(plan.mesh), float(seconds), float(memory))

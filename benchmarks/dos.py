"""Density of states: moments about grid nodes against the compiled double loop.

A Gaussian-smeared density at 1,024 energies (the paper's BaTiO3 grid, 0-6.5 Ha, width 0.03 Ha) from 100,000 weighted
eigenvalues between 0 and 10 Ha. Compared are `sorep.dos.density_of_states` and the straightforward double loop over
energies and eigenvalues, compiled by numba, in two forms: every exponential evaluated, and those with |x| >= 6 left out
by a branch. All on one thread, CPU time, medians.
"""

from __future__ import annotations

import argparse
import math

import numba
import numpy as np
from _common import cpu_seconds, use_one_thread
from numpy.typing import NDArray

from sorep import _fortran
from sorep.dos import density_of_states
from sorep.smearing import GAUSSIAN

N_ENERGIES = 1024
N_EIGENVALUES = 100_000
WIDTH = 0.03
CUTOFF = 6.0


@numba.njit
def every_pair(energies, eigenvalues, weights, width):
    density = np.zeros(len(energies))
    for i in range(len(energies)):
        for j in range(len(eigenvalues)):
            x = (energies[i] - eigenvalues[j]) / width
            density[i] += weights[j] * math.exp(-x * x)
    return density / (width * math.sqrt(math.pi))


@numba.njit
def pairs_within_cutoff(energies, eigenvalues, weights, width):
    density = np.zeros(len(energies))
    for i in range(len(energies)):
        for j in range(len(eigenvalues)):
            x = (energies[i] - eigenvalues[j]) / width
            if abs(x) < CUTOFF:
                density[i] += weights[j] * math.exp(-x * x)
    return density / (width * math.sqrt(math.pi))


def moments(energies, eigenvalues, weights, width) -> NDArray[np.float64]:
    return density_of_states(energies, eigenvalues, weights, GAUSSIAN, width)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5, help="calls of which the median counts [%(default)s]")
    options = parser.parse_args()
    use_one_thread()

    rng = np.random.default_rng(0)
    energies = np.linspace(0.0, 6.5, N_ENERGIES)
    eigenvalues = rng.uniform(0.0, 10.0, N_EIGENVALUES)
    weights = rng.uniform(0.0, 1.0, N_EIGENVALUES)
    few = (energies[:2], eigenvalues, weights, WIDTH)
    arguments = (energies, eigenvalues, weights, WIDTH)

    print(f"{N_ENERGIES} energies, {N_EIGENVALUES} eigenvalues; compiled kernel of sorep: {_fortran.ACTIVE}")
    moments(*few)
    own_seconds, own = cpu_seconds(lambda: moments(*arguments), options.repetitions)
    print(f"{'sorep.dos':24} {1e3 * own_seconds:9.2f} ms")
    for label, loop in (("double loop", every_pair), ("double loop, |x| < 6", pairs_within_cutoff)):
        loop(*few)  # compiles
        seconds, density = cpu_seconds(lambda loop=loop: loop(*arguments), options.repetitions)
        difference = np.abs(own - density).max() / density.max()
        ratio = f"{seconds / own_seconds:7.1f}x the time of sorep.dos"
        print(f"{label:24} {1e3 * seconds:9.2f} ms {ratio}; largest difference {difference:.1e} of the maximum")


if __name__ == "__main__":
    main()

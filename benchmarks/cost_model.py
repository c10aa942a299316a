"""How the constants of sorep/kinetic/work.py are fitted.

The example crystals and a few supercells are set up at several split exponents. Counts of elementary steps come
from `CostModel`; the CPU seconds of the integrals, of the Fourier sums and of the plane waves are measured on one
thread, with warm tables. Non-negative least squares of the relative error gives the seconds of each step. Prints the
fitted constants beside those in use, and for both the 5th, 50th and 95th percentile of predicted over measured time;
and for every system how much the split exponent that the model chooses loses to the best one. The time of the
eigensolver does not depend on the split exponent; it is fitted apart for real and complex matrices.

Where the constants in use predict worse than the fitted ones, copy those into sorep/kinetic/work.py.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
from _common import STRUCTURES, cpu_seconds, example, supercell, use_one_thread
from numpy.typing import NDArray
from scipy.optimize import nnls

from sorep.cells import canonical_cell
from sorep.eigen import generalized_eigenvalues
from sorep.kinetic import work
from sorep.kinetic.method import KineticSettings
from sorep.kinetic.operators import KINETIC
from sorep.kinetic.orbitals import Orbitals
from sorep.kinetic.work import SPLITS, CostModel
from sorep.meshes import irreducible_mesh
from sorep.structure import Structure

SUPERCELLS = (
    ("si", (1, 2, 2)),
    ("batio3_cubic", (1, 1, 2)),
    ("nacl", (1, 1, 2)),
    ("sno2", (1, 1, 2)),
    ("cu", (2, 1, 1)),
)
DISPLACEMENT = 0.05  # Angstrom; breaks all symmetry
N_EIGENPROBLEMS = 16  # of each structure at most
SHORTEST = 1e-3  # seconds; shorter times weigh as much as this one
MOST_WAVES = 3e7  # plane waves times functions; splits that need more are not timed


class Samples:
    """Counts of steps, (n, n_kinds), and the seconds that they took."""

    def __init__(self) -> None:
        self._rows: list[tuple[NDArray[np.float64], float]] = []

    def add(self, counts: NDArray[np.float64], seconds: float) -> None:
        self._rows.append((counts, seconds))

    def fit(self) -> NDArray[np.float64]:
        """Seconds of each kind of step, by least squares of the relative error."""
        counts, seconds = self._arrays()
        weights = 1 / np.maximum(seconds, SHORTEST)
        return nnls(counts * weights[:, None], seconds * weights)[0]

    def spread(self, constants: NDArray[np.float64]) -> str:
        """Predicted over measured time: 5th, 50th and 95th percentile over the samples."""
        counts, seconds = self._arrays()
        ratio = (counts @ constants) / np.maximum(seconds, SHORTEST)
        return " ".join(f"{p:6.2f}" for p in np.percentile(ratio, [5, 50, 95]))

    def _arrays(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        counts, seconds = zip(*self._rows, strict=True)
        return np.array(counts), np.array(seconds)


def measure(structure: Structure, repetitions: int, samples: dict[str, Samples]) -> None:
    """Time the parts of one structure's calculation at every split exponent."""
    settings = KineticSettings()
    cell = canonical_cell(structure)
    mesh = irreducible_mesh(cell, settings.k_spacing)
    orbitals = Orbitals.of(cell.structure, settings.load_basis())
    inversion = orbitals.inversion(cell)
    model = CostModel(orbitals, settings.precision, has_inversion=inversion is not None)
    totals = {}
    for split in (0.0, *(a for a in SPLITS if a > orbitals.lowest_exponent)):
        counts, waves = model.real_space(split), len(mesh) * model.reciprocal(split)
        if waves[1] > MOST_WAVES:
            continue
        build = partial(
            KINETIC.bloch_operator, orbitals, precision=settings.precision, split=split, inversion=inversion
        )
        build()  # computes missing tables
        set_up, operator = cpu_seconds(build, repetitions)
        fourier, _ = cpu_seconds(partial(operator.terms[0].matrices, mesh.kpoints), repetitions)
        samples["pair of atoms, matrix element"].add(counts, set_up)
        samples["matrix element at a k point"].add(len(mesh) * counts[1:], fourier)
        totals[split] = set_up + fourier
        if len(operator.terms) > 1:
            seconds, _ = cpu_seconds(partial(operator.terms[1].matrices, mesh.kpoints), repetitions)
            samples["Gaussian, function, multiply-add of a wave"].add(waves, seconds)
            totals[split] += seconds
    few = np.resize(mesh.kpoints[-N_EIGENPROBLEMS:], (N_EIGENPROBLEMS, 3))
    matrices, overlaps = operator.matrices(few)
    assert overlaps is not None
    seconds, _ = cpu_seconds(partial(generalized_eigenvalues, matrices, overlaps), repetitions)
    n = float(orbitals.n_functions)
    kind = "complex" if inversion is None else "real"
    samples[f"{kind} eigenproblem: n^2, n^3"].add(len(matrices) * np.array([n**2, n**3]), seconds)
    chosen, best = model.cheapest_split(len(mesh)), min(totals, key=lambda a: totals[a])
    loss = f"{totals[chosen] / totals[best]:6.2f}" if chosen in totals else "not timed"
    print(f"{structure.id:24} {orbitals.n_functions:9} {len(mesh):5} {chosen:8g} {best:8g} {loss}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3, help="calls of which the median counts [%(default)s]")
    options = parser.parse_args()
    use_one_thread()
    structures = [example(path.stem) for path in sorted(STRUCTURES.glob("*.cif"))]
    structures += [supercell(name, repeats, displacement=DISPLACEMENT) for name, repeats in SUPERCELLS]
    in_use = {
        "pair of atoms, matrix element": CostModel.REAL_SPACE_SECONDS,
        "matrix element at a k point": np.array([CostModel.FOURIER_SECONDS]),
        "Gaussian, function, multiply-add of a wave": CostModel.RECIPROCAL_SECONDS,
        "real eigenproblem: n^2, n^3": np.array(work.REAL_EIGENPROBLEM_SECONDS),
        "complex eigenproblem: n^2, n^3": np.array(work.COMPLEX_EIGENPROBLEM_SECONDS),
    }
    samples = {label: Samples() for label in in_use}
    print("Split exponents, Bohr^-2; loss: time at the chosen one over time at the best one, eigensolver apart")
    print(f"{'structure':24} {'functions':>9} {'k':>5} {'chosen':>8} {'best':>8} {'loss':>6}")
    for structure in structures:
        measure(structure, options.repetitions, samples)
    print("\nSeconds of one step, and predicted over measured time (5 %, median, 95 %)")
    for label, constants in in_use.items():
        fitted = samples[label].fit()
        print(f"{label}\n  fitted {' '.join(f'{c:.1e}' for c in fitted)}   {samples[label].spread(fitted)}")
        print(f"  in use {' '.join(f'{c:.1e}' for c in constants)}   {samples[label].spread(constants)}")


if __name__ == "__main__":
    main()

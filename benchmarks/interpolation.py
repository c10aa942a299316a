"""Interpolated single shots: CPU time and error against the direct dense mesh, and convergence of features.

First tables, for each crystal: CPU time (pw.x and Python, the smallest of three runs) of the spectrum on meshes of 0.15
and 0.10 1/Angstrom (or ``--k-spacing``), computed directly and interpolated from the coarse mesh, their ratio, and the
root mean square difference of the occupied levels and of all up to 5 eV above the CBM or Fermi energy. Last table: how
far the feature lies from that of an interpolated mesh of 0.04 1/Angstrom (norm of the difference over the norm), for
the direct mesh of 0.15 and interpolated ones, and the CPU time of each.

    python benchmarks/interpolation.py --convergence si cu
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from _common import example, use_one_thread

from sorep.features import FEATURES, compute_feature
from sorep.interpolation import level_difference
from sorep.levels import find_levels
from sorep.single_shot.executable import find_pw_x, probe
from sorep.single_shot.method import SingleShot, SingleShotSettings
from sorep.single_shot.runner import PwRunner
from sorep.smearing import COLD
from sorep.spectrum import Spectrum
from sorep.structure import Structure

TIMED = ["si", "mgo", "batio3_cubic", "zno", "cu", "k2sn2o3"]
FOLLOWED = ["si", "diamond", "gaas", "nacl", "mgo", "zno", "batio3_cubic", "tio2_rutile", "al", "cu"]
DENSE, FINEST, ABOVE = 0.15, 0.04, 5.0  # 1/Angstrom twice, eV
REPETITIONS = 3
SPACINGS = [0.25, 0.15, 0.10, 0.06]

Made = Callable[..., SingleShot]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crystals", nargs="*", help=f"of examples/structures [{' '.join(TIMED)}]")
    parser.add_argument("--convergence", action="store_true", help="only the last table")
    parser.add_argument("--k-spacing", type=float, nargs="+", default=[DENSE, 0.10], help="of the first tables")
    parser.add_argument("--supercell", type=float, default=22.0, help="Angstrom [%(default)s]")
    parser.add_argument("--pw-x", help="default: as sorep single-shot finds it")
    options = parser.parse_args()
    use_one_thread()
    pw_x = probe(find_pw_x(options.pw_x))
    with tempfile.TemporaryDirectory() as folder:
        runner = PwRunner(pw_x, Path(folder))

        def made(**settings: float) -> SingleShot:
            return SingleShot(SingleShotSettings.checked(**settings), runner)

        made(supercell=options.supercell).calculate(example("si"))  # what only the first calculation costs
        if not options.convergence:
            for dense in options.k_spacing:
                time_and_error(made, options.crystals or TIMED, options.supercell, dense)
        convergence(made, options.crystals or FOLLOWED, options.supercell)


def time_and_error(made: Made, crystals: list[str], supercell: float, dense: float) -> None:
    print(f"mesh of {dense} 1/A, directly and from a supercell of {supercell:g} A")
    print(f"{'crystal':<13} {'k points':>9} {'direct, s':>9} {'pw.x, s':>8} {'Python, s':>9} ratio", end="")
    print("   rms of occupied levels, up to 5 eV above, meV")
    ratios = []
    for name in crystals:
        structure = example(name)
        one, direct = made(supercell=supercell, k_spacing=dense), made(interpolate=False, k_spacing=dense)
        _, *slow, reference = min(cpu_seconds(direct, structure) for _ in range(REPETITIONS))
        _, *fast, spectrum = min(cpu_seconds(one, structure) for _ in range(REPETITIONS))
        ratios.append(sum(slow) / sum(fast))
        points = f"{one.estimate(structure).n_kpoints}/{len(reference.weights)}"
        row = f"{name:<13} {points:>9} {sum(slow):>9.2f} {fast[0]:>8.2f} {fast[1]:>9.3f} {ratios[-1]:>5.1f}"
        levels = find_levels(reference, COLD, 0.1)
        highest = (levels.vbm, (levels.vbm if levels.cbm is None else levels.cbm) + ABOVE)
        levels_of = reference.energies, spectrum.energies, reference.state_weights
        errors = (1000 * level_difference(*levels_of, energy) for energy in highest)
        print(row, "  ", ", ".join(f"{error:.3f}" for error in errors), " ".join(spectrum.flags), flush=True)
    print(f"geometric mean of the ratios: {statistics.geometric_mean(ratios):.1f}\n")


def convergence(made: Made, crystals: list[str], supercell: float) -> None:
    print(f"distance of features from those of {FINEST} 1/A, %; CPU seconds in brackets")
    names = [f"direct {DENSE}", *(str(spacing) for spacing in SPACINGS)]
    print(f"{'crystal':<13} {'feature':<8}" + "".join(f"{name:>15}" for name in names))
    everything = []
    for name in crystals:
        structure = example(name)
        methods = [made(interpolate=False, k_spacing=DENSE)]
        methods += [made(supercell=supercell, k_spacing=spacing) for spacing in (*SPACINGS, FINEST)]
        runs = [cpu_seconds(one, structure) for one in methods]
        metal = find_levels(runs[-1][-1], COLD, 0.1).is_metal
        feature = FEATURES["fermi" if metal else "vbm"]
        *values, finest = (compute_feature(spectrum, feature) for *_, spectrum in runs)
        distances = [100 * np.linalg.norm(x - finest) / np.linalg.norm(finest) for x in values]
        everything.append(distances)
        cells = (f"{d:.1f} ({seconds:.2f})" for d, (seconds, *_) in zip(distances, runs, strict=False))
        print(f"{name:<13} {feature.name:<8}" + "".join(f"{cell:>15}" for cell in cells), flush=True)
    medians = (f"{x:.1f}" for x in np.median(everything, axis=0))
    print(f"{'median':<22}" + "".join(f"{x:>15}" for x in medians))


def cpu_seconds(method: SingleShot, structure: Structure) -> tuple[float, float, float, Spectrum]:
    """CPU time in all, of pw.x, and of Python, and the spectrum."""

    def children() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before, start = children(), time.process_time()
    spectrum = method.calculate(structure).spectrum
    own, others = time.process_time() - start, children() - before
    return own + others, others, own, spectrum


if __name__ == "__main__":
    main()

"""CPU time of a single shot against the self-consistent calculation with the same inputs, by the same pw.x.

For each crystal, in one run and one after the other: the single shot (the smallest of several repetitions) and the SCF
to convergence. Cell, k points, cutoffs, pseudopotentials and number of bands are the same; the SCF symmetrises its
density and iterates until its energy error is below 1e-9 Ry for each atom (`sorep single-shot --scf`). Meshes are
coarse, to keep the SCFs affordable.

    python benchmarks/single_shot_vs_scf.py si batio3_cubic
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from _common import example

from sorep.single_shot.executable import find_pw_x, probe
from sorep.single_shot.inputs import CONVERGED, Plan
from sorep.single_shot.method import SingleShot, SingleShotSettings
from sorep.single_shot.process import run_process
from sorep.single_shot.runner import PwRunner

SPACINGS = {"si": 0.15, "batio3_cubic": 0.2, "k2sn2o3": 0.3, "in2o3": 0.6}
"""k spacing of each crystal, 1/Angstrom."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crystals", nargs="*", default=list(SPACINGS), help="of examples/structures [%(default)s]")
    parser.add_argument("--k-spacing", type=float, help="1/Angstrom, for all [one for each crystal]")
    parser.add_argument("--repetitions", type=int, default=3, help="of the single shot [%(default)s]")
    parser.add_argument("--pw-x", help="default: as sorep single-shot finds it")
    options = parser.parse_args()
    pw_x = probe(find_pw_x(options.pw_x))
    print(f"pw.x {pw_x.version}, {'patched' if pw_x.is_patched else 'stock'}; CPU seconds on one thread")
    print(f"{'crystal':<14} {'atoms':>5} {'k':>4} {'bands':>5} {'single shot':>11} {'SCF':>8} {'iterations':>10} ratio")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.crystals:
            settings = SingleShotSettings(k_spacing=options.k_spacing or SPACINGS.get(name, 0.3), interpolate=False)
            plan = SingleShot(settings, PwRunner(pw_x, Path(folder))).plan(example(name))
            single = min(cpu_seconds(plan, pw_x.command)[0] for _ in range(options.repetitions))
            iterated = replace(plan, iterations=CONVERGED)
            scf, output = cpu_seconds(iterated, pw_x.command)
            n, bands = plan.cell.structure.n_atoms, f"{plan.n_bands}/{iterated.n_bands}"
            iterations = output.count("iteration #")
            row = f"{name:<14} {n:>5} {len(plan.mesh):>4} {bands:>5} {single:>11.2f} {scf:>8.1f} {iterations:>10}"
            print(f"{row} {scf / single:.1f}", flush=True)


def cpu_seconds(plan: Plan, command: tuple[str, ...]) -> tuple[float, str]:
    """CPU time of pw.x, and what it printed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pw.in").write_text(plan.input_text())
        finished = run_process([*command, "-in", "pw.in"], folder)
        output = (folder / "pw.out").read_text()
    if "JOB DONE" not in output:
        raise SystemExit(output[-2000:])
    return finished.cpu_seconds, output


if __name__ == "__main__":
    main()

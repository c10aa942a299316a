"""Figure 5 of the SOREP paper: the density of states of silicon and K2Sn2O3 as the self-consistent field converges.

A single shot (0 iterations) diagonalises the Hamiltonian of superposed atomic densities once, in the pseudo-atomic
orbitals. An SCF starts from the same density, in plane waves, and improves it step by step: from 0 to 1 the basis
changes, and from 1 on the density. The valence bands of silicon are close to their end from the beginning; its
conduction bands come down with the plane waves, since s and p orbitals alone describe them badly. In K2Sn2O3 charge
has to move between the atoms first, and it overshoots.

For each step the script prints the band gap and how far the curve is from the converged one (Euclidean distance over
the length of the converged curve), and draws the curves aligned at their valence band maxima. Single-shot gaps are not
SCF gaps, and both are gaps on a mesh: where the band edges lie between its points, they are too wide.

Cell, k points, pseudopotentials and cutoffs are the same at all steps. There are about as many bands as orbitals, so
that the curves end a few eV above the gap.

Needs a pw.x (`sorep pw build`) and pseudopotentials (`sorep pseudos install`). Takes seven minutes on one core, nearly
all of it for the SCFs of K2Sn2O3.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from ase.formula import Formula
from matplotlib.axes import Axes
from numpy.typing import NDArray

from sorep import FeatureStore
from sorep.engine import LocalEngine
from sorep.errors import Failure, SorepError
from sorep.features import FeatureSpec, Window, compute_feature
from sorep.featurize import featurize
from sorep.levels import find_levels
from sorep.single_shot.executable import find_pw_x, probe
from sorep.single_shot.inputs import CONVERGED
from sorep.single_shot.method import SingleShot, SingleShotSettings
from sorep.single_shot.runner import PwRunner
from sorep.single_shot.scratch import Scratch
from sorep.smearing import COLD
from sorep.sources import find_items, structures_from

STRUCTURES = Path(__file__).parent / "structures"
CURVE = FeatureSpec(name="figure-5", windows=(Window(anchor="vbm", start=-15, stop=6, points=1051),), width=0.3)


@dataclass(frozen=True, eq=False)
class Step:
    """One step of one crystal: iterations, gap (eV, 0 for a metal, None without empty bands), and the curve."""

    iterations: int
    gap: float | None
    density: NDArray[np.float64]

    @property
    def label(self) -> str:
        return "converged" if self.iterations == CONVERGED else str(self.iterations)

    def distance(self, other: Step) -> float:
        """Euclidean distance of the curves, as a share of the other's length."""
        return float(np.linalg.norm(self.density - other.density) / np.linalg.norm(other.density))


def main() -> None:
    options = parse_options()
    try:
        crystals = evolution(options)
    except SorepError as error:
        raise SystemExit(f"figure_5: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit(
            f"interrupted: what was computed is in {options.store}, and a rerun goes on from there"
        ) from None
    for name, steps in crystals.items():
        print(f"\n{name}\n  SCF iterations  gap (eV)  distance to converged")
        for step in steps:
            gap = "none" if step.gap is None else f"{step.gap:.2f}"
            print(f"  {step.label:>14}  {gap:>8}  {step.distance(steps[-1]):>21.3f}")
    draw(crystals, options.out)
    print(f"\nWrote {options.out}")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "structures",
        nargs="*",
        type=Path,
        default=[STRUCTURES / "si.cif", STRUCTURES / "k2sn2o3.cif"],
        help="crystals, one panel each [silicon and K2Sn2O3 of this folder]",
    )
    parser.add_argument(
        "--steps",
        type=lambda text: [int(number) for number in text.split(",")],
        default="0,1,2,3,5",
        metavar="N,N,...",
        help="SCF iterations to show besides the converged one; 0 is the single shot [%(default)s]",
    )
    parser.add_argument(
        "--k-spacing", type=float, default=0.25, help="of the k points, 1/Angstrom; the paper takes 0.15 [%(default)s]"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="calculations at a time [all cores]")
    parser.add_argument(
        "--store", type=Path, default=Path("figure_5-store"), help="keeps the spectra; a rerun only draws [%(default)s]"
    )
    parser.add_argument("--out", type=Path, default=Path("figure_5.png"), help="image to write [%(default)s]")
    return parser.parse_args()


def evolution(options: argparse.Namespace) -> dict[str, list[Step]]:
    """Steps of every crystal, the converged one last, by formula. What the store lacks is computed."""
    items = list(find_items(options.structures))
    found: dict[str, list[Step]] = {}
    with Scratch() as scratch, LocalEngine(options.jobs) as engine:
        runner = PwRunner(probe(find_pw_x()), scratch.root)
        for iterations in (*sorted({*options.steps} - {CONVERGED}), CONVERGED):
            settings = SingleShotSettings.checked(k_spacing=options.k_spacing, iterations=iterations)
            method = SingleShot(settings, runner)
            progress = featurize(items, method, (), options.store, engine)
            print(f"{method.operator}: {progress.computed} computed, {progress.stored_before} were there", flush=True)
            for structure in structures_from(options.structures):
                if isinstance(structure, Failure):
                    raise SystemExit(structure.message)
                step = stored_step(FeatureStore(options.store), structure.id, method)
                found.setdefault(Formula(structure.formula).reduce()[0].format("metal"), []).append(step)
    return found


def stored_step(store: FeatureStore, id: str, method: SingleShot) -> Step:
    """One curve from the store."""
    spectrum = store.spectrum(id, identity=method.identity().hash)
    levels = find_levels(spectrum, COLD, CURVE.fermi_width)
    return Step(method.settings.iterations, levels.band_gap, compute_feature(spectrum, CURVE, levels))


def draw(crystals: dict[str, list[Step]], path: Path) -> None:
    """One panel for each crystal: its curves one above the other, the converged one on top and in grey behind each."""
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "lines.linewidth": 1.0})
    size = (4.5 * len(crystals), 1.5 + 0.7 * max(map(len, crystals.values())))
    figure, panels = plt.subplots(1, len(crystals), figsize=size, layout="constrained", squeeze=False)
    for axes, (formula, steps), letter in zip(panels.flat, crystals.items(), "abcdefghij", strict=False):
        axes.set_title(f"{letter}  {Formula(formula).format('latex')}", loc="left", fontweight="bold")
        draw_steps(axes, steps)
    panels[0, 0].set_ylabel("Density of states, by SCF iterations")
    figure.savefig(path, dpi=200)


def draw_steps(axes: Axes, steps: list[Step]) -> None:
    """One panel."""
    energies, converged = CURVE.energies, steps[-1]
    shift = converged.density.max()
    colors = [*plt.get_cmap("plasma")(np.linspace(0.7, 0.1, len(steps) - 1)), "black"]
    for level, (step, color) in enumerate(zip(steps, colors, strict=True)):
        bottom = level * shift
        axes.fill_between(energies, bottom, bottom + converged.density, color="0.88", lw=0)
        axes.plot(energies, bottom + step.density, color=color)
        gap = "no empty band" if step.gap is None else f"gap {step.gap:.2f} eV" if step.gap else "no gap"
        where = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        axes.annotate(gap, (1, bottom), (4, 3), color=color, **where)
    axes.axvline(0, color="0.5", lw=0.6, ls=":")
    axes.set(
        xlabel="Energy above the valence band maximum (eV)",
        xlim=(energies[0], energies[-1]),
        ylim=(0, None),
        yticks=shift * np.arange(len(steps)),
        yticklabels=[step.label for step in steps],
    )


if __name__ == "__main__":
    main()

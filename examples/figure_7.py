"""Figure 7 of the SOREP paper: distances between single-shot features against distances between SCF features.

If two crystals are about as far apart in single-shot features as in those of converged calculations, whatever works
with distances (neighbours, clusters, maps) can work with the cheaper ones. The paper shows this for a database of
relaxed crystals, with features around the Fermi energy. Here the crystals are textbook binaries and elements, and a
second panel shows the features around the valence band maximum, which the paper uses for screening.

Both calculations share cell, k points, pseudopotentials, cutoffs and feature grid. They differ in the density
(superposed atoms against self-consistent) and in the basis (the pseudo-atomic orbitals against plane waves). Distances
are Euclidean, as in the paper; densities of states are per volume. Where one of the two features does not exist, as
where the orbitals are all full and there is no conduction band, the crystal is left out and named.

Most pairs far from the diagonal share one crystal, and the script names the worst: in Cu, BeCu and AlNi the d bands of
the single shot lie an eV or two too deep, and drop out of the window.

Lattice parameters are those of the standard tables (R. W. G. Wyckoff, Crystal Structures, 2nd ed., vol. 1, Wiley 1963;
N. W. Ashcroft and N. D. Mermin, Solid State Physics, 1976, chapter 4), rounded to 0.01 Angstrom and not compared with
the books again: they make crystals that exist, and are no reference. The elements are ASE's reference states. All are
computed without spin polarisation and spin-orbit coupling.

Needs a pw.x (`sorep pw build`) and pseudopotentials (`sorep pseudos install`). On one core the single shots take a
minute and the SCFs twenty; an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pyarrow.compute as pc
from ase import Atoms
from ase.build import bulk
from ase.formula import Formula
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform
from scipy.stats import rankdata

from sorep import FeatureStore
from sorep.engine import LocalEngine
from sorep.errors import SorepError
from sorep.features import FeatureSpec, get_feature
from sorep.featurize import Outlook, feature_identity, featurize
from sorep.ledger import Progress
from sorep.levels import find_levels
from sorep.single_shot.executable import find_pw_x, probe
from sorep.single_shot.inputs import CONVERGED
from sorep.single_shot.method import SingleShot, SingleShotSettings
from sorep.single_shot.runner import PwRunner
from sorep.single_shot.scratch import Scratch
from sorep.smearing import COLD
from sorep.sources import find_items

SINGLE_SHOT = 0
SHOWN = ("Si", "C", "GaAs", "ZnS", "MgO", "NaCl", "CaF2", "PbTe")
"""Crystals whose gaps are printed."""

FEWEST = 4
"""Crystals, below which a correlation of their distances means nothing."""

ANCHORS = {"fermi": "Fermi energy", "vbm": "valence band maximum"}
"""Features, one a panel, and what their grids are centred at."""

# Formula and edge of the cubic cell, Angstrom.
BINARIES = {
    "rocksalt": """
        LiH 4.08 NaH 4.88 RbH 6.04 CsH 6.38
        LiF 4.02 LiCl 5.13 LiBr 5.50 LiI 6.00 NaF 4.62 NaCl 5.64 NaBr 5.97 NaI 6.47 KF 5.35 KCl 6.29 KBr 6.60 KI 7.07
        RbF 5.64 RbCl 6.58 RbBr 6.85 RbI 7.34 CsF 6.01 AgF 4.92 AgCl 5.55 AgBr 5.77
        MgO 4.21 MgS 5.20 MgSe 5.45 CaO 4.81 CaS 5.69 CaTe 6.35 SrO 5.16 SrS 6.02 SrTe 6.47
        BaO 5.52 BaS 6.39 PbS 5.94 PbTe 6.45 SnTe 6.31
        ScN 4.44 TiC 4.32 TiN 4.24 VC 4.18 VN 4.13 YN 4.88 ZrC 4.68 ZrN 4.57 NbC 4.47 HfC 4.64 TaC 4.45
        ScSb 5.86""",
    "zincblende": """
        BN 3.62 BP 4.54 BAs 4.78 AlP 5.45 AlAs 5.66 AlSb 6.13 GaP 5.45 GaAs 5.65 GaSb 6.12 InP 5.87 InAs 6.06 InSb 6.48
        SiC 4.35 BeS 4.85 BeSe 5.07 BeTe 5.54 ZnS 5.41 ZnTe 6.09 HgS 5.85
        CuCl 5.41 CuBr 5.69 AgI 6.47""",
    "cesiumchloride": """
        CsCl 4.12 CsBr 4.29 CsI 4.57 TlCl 3.83 TlBr 3.97 TlI 4.20 LiAg 3.17 LiHg 3.29 LiTl 3.42 MgAg 3.28 MgAu 3.26
        MgTl 3.63 CaTl 3.85 SrTl 4.02 BeCu 2.70 BePd 2.81 CuZn 2.95 AgZn 3.16 AlNi 2.88""",
    "fluorite": """
        CaF2 5.46 SrF2 5.80 BaF2 6.20 PbF2 5.93 SrCl2 6.98 ZrO2 5.07 Be2C 4.33
        Li2O 4.62 Li2S 5.71 Li2Se 6.00 Na2O 5.55 K2S 7.39 Rb2S 7.65
        Mg2Si 6.34 Mg2Ge 6.38 AuAl2 6.00 CoSi2 5.36""",
}
ELEMENTS = "C Si Ge Al Cu Ag Au Rh Pd Ir Pt Pb Li Na K Rb Cs V Nb Mo Ta W Mg Hf Os Tl"


def main() -> None:
    options = parse_options()
    compounds = crystals()
    if options.limit is not None:  # spread over all kinds
        every = np.linspace(0, len(compounds) - 1, min(options.limit, len(compounds))).round().astype(int)
        names = list(compounds)
        compounds = {names[index]: compounds[names[index]] for index in every}
    try:
        methods = compute(compounds, options.k_spacing, options.store, options.jobs)
        store = FeatureStore(options.store)
        comparisons = [compare(get_feature(name), list(compounds), methods, store) for name in ANCHORS]
        gaps = {iterations: band_gaps(method, list(compounds), store) for iterations, method in methods.items()}
        seconds = {iterations: cpu_seconds(method, list(compounds), store) for iterations, method in methods.items()}
    except SorepError as error:
        raise SystemExit(f"figure_7: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit(
            f"interrupted: what was computed is in {options.store}, and a rerun goes on from there"
        ) from None
    single_shots, scfs = seconds[SINGLE_SHOT], seconds[CONVERGED]
    print(f"CPU time: single shots {single_shots:.0f} s, SCFs {scfs:.0f} s, {scfs / single_shots:.0f} times as much")
    for comparison in comparisons:
        print(comparison.summary())
    print(summary_of_gaps(gaps[SINGLE_SHOT], gaps[CONVERGED]))
    draw(comparisons, options.out)
    print(f"Wrote {options.out}")


def band_gaps(method: SingleShot, names: list[str], store: FeatureStore) -> dict[str, float | None]:
    """Of the crystals whose levels exist, eV; None where the basis has no empty band."""
    gaps = {}
    for name in names:
        try:
            spectrum = store.spectrum(name, identity=method.identity().hash)
            gaps[name] = find_levels(spectrum, COLD, get_feature("vbm").fermi_width).band_gap
        except SorepError:  # it is among the failures
            continue
    return gaps


def summary_of_gaps(single_shot: dict[str, float | None], scf: dict[str, float | None]) -> str:
    """How the two kinds of band gaps differ, over the insulators of the SCF."""
    insulators = [name for name in scf if scf[name] and single_shot.get(name) is not None]
    pairs = np.array([(single_shot[name], scf[name]) for name in insulators], dtype=float)
    if len(pairs) < FEWEST:
        return "gaps: too few insulators to compare"
    mean, difference = pairs.mean(axis=0), np.abs(pairs[:, 0] - pairs[:, 1])
    known = ", ".join(f"{n} {single_shot[n]:.2f}/{scf[n]:.2f}" for n in SHOWN if n in insulators)
    closed = sum(single_shot[name] == 0 for name in insulators)
    return (
        f"gaps of {len(pairs)} insulators: mean {mean[0]:.2f} eV (single shot) and {mean[1]:.2f} eV (SCF), "
        f"mean absolute difference {difference.mean():.2f} eV, correlation {np.corrcoef(pairs.T)[0, 1]:.2f}, "
        f"{closed} metallic in the single shot\n  {known}"
    )


@dataclass(frozen=True, eq=False)
class Comparison:
    """All pairs of crystals in one feature.

    Attributes
    ----------
    feature : FeatureSpec
    names : list of str
        Crystals that have the feature from both calculations.
    left_out : dict of str to str
        The others, and the code of what hindered them.
    scf, single_shot : (n_pairs,) arrays
        Distances, states / (eV cubic Angstrom).
    """

    feature: FeatureSpec
    names: list[str]
    left_out: dict[str, str]
    scf: NDArray[np.floating]
    single_shot: NDArray[np.floating]

    @property
    def correlations(self) -> str:
        """Of the two kinds of distances."""
        pearson = np.corrcoef(self.scf, self.single_shot)[0, 1]
        spearman = np.corrcoef(rankdata(self.scf), rankdata(self.single_shot))[0, 1]
        return f"Pearson {pearson:.3f}, Spearman {spearman:.3f}"

    @property
    def size(self) -> str:
        return f"{len(self.names)} crystals, {len(self.scf)} pairs"

    def summary(self) -> str:
        off = squareform(np.abs(self.scf - self.single_shot)).mean(axis=0)
        farthest = ", ".join(self.names[index] for index in np.argsort(-off)[:5])
        lines = [f"{self.feature.name}: {self.size}, {self.correlations}", f"  farthest from the diagonal: {farthest}"]
        if self.left_out:
            left_out = ", ".join(f"{name} ({code})" for name, code in self.left_out.items())
            lines.append(f"  left out: {left_out}")
        return "\n".join(lines)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--limit", type=int, metavar="N", help=f"a quick look at N of the crystals, of all kinds; at least {FEWEST}"
    )
    parser.add_argument(
        "--k-spacing", type=float, default=0.3, help="of the k points, 1/Angstrom; the paper takes 0.15 [%(default)s]"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="calculations at a time [all cores]")
    parser.add_argument(
        "--store",
        type=Path,
        default=Path("figure_7-store"),
        help="keeps what was computed: a rerun goes on from there, and one with nothing left only draws [%(default)s]",
    )
    parser.add_argument("--out", type=Path, default=Path("figure_7.png"), help="image to write [%(default)s]")
    options = parser.parse_args()
    if options.limit is not None and options.limit < FEWEST:
        parser.error(f"--limit {options.limit} leaves too few pairs for a correlation: give at least {FEWEST}")
    return options


def crystals() -> dict[str, Atoms]:
    """All structures of the tables above, by formula."""
    found = {}
    for prototype, text in BINARIES.items():
        words = text.split()
        for name, edge in zip(words[::2], words[1::2], strict=True):
            counts = Formula(name).count()
            symbols = sorted(counts, key=lambda symbol: counts[symbol])  # of a fluorite, the single atom first
            formula = "".join(symbol + str(counts[symbol]) * (counts[symbol] > 1) for symbol in symbols)
            found[name] = bulk(formula, prototype, a=float(edge))
    return found | {name: bulk(name) for name in ELEMENTS.split()}


def compute(compounds: dict[str, Atoms], k_spacing: float, store: Path, jobs: int) -> dict[int, SingleShot]:
    """Leave both features of all crystals in the store, by single shots and by SCFs; the methods by iterations."""
    store.mkdir(parents=True, exist_ok=True)
    table = store / f"{len(compounds)}-crystals.jsonl"  # a name of its own: failures remember file and line
    table.write_text("".join(json.dumps(row(name, atoms)) + "\n" for name, atoms in compounds.items()))
    items = list(find_items(table))
    specs = [get_feature(name) for name in ANCHORS]
    methods = {}
    with Scratch() as scratch, LocalEngine(jobs) as engine:
        runner = PwRunner(probe(find_pw_x()), scratch.root)
        for iterations in (SINGLE_SHOT, CONVERGED):
            settings = SingleShotSettings.checked(k_spacing=k_spacing, iterations=iterations)
            method = methods[iterations] = SingleShot(settings, runner)
            show = partial(report, method.operator)
            featurize(items, method, specs, store, engine, on_progress=show, on_planned=partial(announce, jobs))
            print(file=sys.stderr)
    return methods


def announce(jobs: int, outlook: Outlook) -> None:
    if outlook.n_structures:
        minutes = np.ceil(outlook.seconds / jobs / 60)
        print(f"\n{outlook.n_structures} to compute, about {minutes:.0f} minutes on {jobs} cores", file=sys.stderr)


def report(operator: str, progress: Progress) -> None:
    print(f"\r{operator}: {progress.finished} of {progress.total}", end="", file=sys.stderr, flush=True)


def row(name: str, atoms: Atoms) -> dict[str, object]:
    """One line of a table that sorep reads."""
    return {
        "id": name,
        "lattice": atoms.cell.array.tolist(),
        "species": atoms.get_chemical_symbols(),
        "frac_coords": atoms.get_scaled_positions().tolist(),
    }


def compare(spec: FeatureSpec, names: list[str], methods: dict[int, SingleShot], store: FeatureStore) -> Comparison:
    """Distances between those crystals that have the feature from both methods."""
    identities = {n: feature_identity(method.identity(), spec).hash for n, method in methods.items()}
    there = [set(store.matrix(spec.name, identity=identity).ids) for identity in identities.values()]
    both = [name for name in names if all(name in ids for ids in there)]
    if len(both) < FEWEST:
        raise SystemExit(f"only {len(both)} crystals have the feature {spec.name}: raise --limit")
    distances = {
        n: pdist(store.matrix(spec.name, identity=identity, ids=both).values) for n, identity in identities.items()
    }
    hashes = [*identities.values(), *(method.identity().hash for method in methods.values())]
    failures = store.failures().to_dict("records")
    codes = {failure["id"]: failure["code"] for failure in failures if failure["identity"] in hashes}
    left_out = {name: codes[name] for name in names if name not in both}
    return Comparison(spec, both, left_out, distances[CONVERGED], distances[SINGLE_SHOT])


def cpu_seconds(method: SingleShot, names: list[str], store: FeatureStore) -> float:
    """What the spectra of these crystals took, whenever they were computed."""
    keys = store.content_keys()
    where = pc.field("identity") == method.identity().hash
    rows = store.tables.read("spectra", ["content_key", "cpu_seconds"], where).to_pylist()
    seconds = {row["content_key"]: row["cpu_seconds"] for row in rows}
    return sum(seconds.get(keys.get(name, ""), 0.0) for name in names)


def draw(comparisons: list[Comparison], path: Path) -> None:
    """One panel for each feature."""
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, panels = plt.subplots(1, len(comparisons), figsize=(9, 4.2), layout="constrained")
    for axes, comparison, letter in zip(panels, comparisons, "ab", strict=True):
        axes.set_title(f"{letter}  Around the {ANCHORS[comparison.feature.name]}", loc="left", fontweight="bold")
        draw_pairs(axes, comparison)
    figure.savefig(path, dpi=200)


def draw_pairs(axes: Axes, comparison: Comparison) -> None:
    """Every pair of crystals: SCF distance to the right, single-shot distance upwards."""
    end = 1.02 * max(comparison.scf.max(), comparison.single_shot.max())
    axes.plot([0, end], [0, end], color="0.6", lw=0.8, zorder=0)
    bins = axes.hexbin(
        comparison.scf,
        comparison.single_shot,
        gridsize=70,
        extent=(0, end, 0, end),
        mincnt=1,
        bins="log",
        linewidths=0.1,
        cmap="viridis_r",
    )
    bar = axes.figure.colorbar(bins, ax=axes, label="Pairs of crystals", shrink=0.7, format="%g")
    bar.ax.minorticks_off()
    axes.annotate(f"{comparison.size}\n{comparison.correlations}", (0.03, 0.98), xycoords="axes fraction", va="top")
    axes.set(
        xlabel="Distance of SCF features (eV$^{-1}$ Å$^{-3}$)",
        ylabel="Distance of single-shot features (eV$^{-1}$ Å$^{-3}$)",
        xlim=(0, end),
        ylim=(0, end),
        aspect="equal",
    )


if __name__ == "__main__":
    main()

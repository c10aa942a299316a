"""Figures 2-4 of the SOREP paper in small: which crystals of BaTiO3 are the same, by kinetic features.

The paper groups 127 entries of a database. Here the four phases of `structures/` stand for them, each with copies such
as a database holds: a supercell in another orientation with its atoms in another order (the same crystal), cells
strained by 0.05 and 0.1 %, and atoms displaced at random by 0.002 and 0.005 Angstrom; and one entry with barium and
titanium interchanged, as the paper's set has one too. Grid, smearing and N_min = 1 are those of the paper.

a  Fig. 2: how many crystals have their nearest neighbour within epsilon (the k-distance curve, on its side), and how
   many groups DBSCAN finds.
b  Fig. 3: the matrix of cosine distances.
c  Fig. 4: how groups merge as epsilon grows.

What order of merges is sensible follows from the phases themselves. They differ by the axes along which titanium has
left the centre of its octahedron: none (cubic), one (tetragonal), two (orthorhombic), three (rhombohedral). In this
order they follow each other on cooling too. So phases must merge with their neighbours in it, and cubic, the only one
with an inversion centre and measured 200 K above the next, after the other three; interchanged cations are farther
away than any phase. The script ends with an error where this is not so.

Takes a few seconds on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from ase.build import make_supercell
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.cluster.hierarchy import dendrogram
from scipy.spatial.distance import squareform
from scipy.spatial.transform import Rotation

from sorep import KineticSOREP
from sorep.cells import canonical_cell
from sorep.errors import Failure
from sorep.similarity import MergeTree, condensed, k_distances, merge_tree
from sorep.sources import structures_from
from sorep.structure import Structure

STRUCTURES = Path(__file__).parent / "structures"
PHASES = ("cubic", "tetragonal", "orthorhombic", "rhombohedral")
"""By the number of axes along which titanium is displaced."""

INTERCHANGED = "interchanged"
STRAINS = (-0.001, -0.0005, 0.0005, 0.001)
DISPLACEMENTS = (0.002, 0.005)  # Angstrom, standard deviation
SEEDS = (1, 2)
SUPERCELL = ((1, 1, 0), (-1, 1, 0), (0, 0, 1))
ROTATION = Rotation.from_rotvec([0.3, -0.7, 0.5])

SHORTEST = 1e-6
"""Where the logarithmic axes begin: nearer crystals are drawn there."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Figures 2-4 of the SOREP paper, on the phases of BaTiO3.")
    parser.add_argument("--out", type=Path, default=Path("batio3.png"), help="image to write [%(default)s]")
    options = parser.parse_args()
    crystals = [entry for phase in PHASES for entry in entries(phase)]
    crystals.append((INTERCHANGED, interchanged(read("cubic"))))
    kinds = [kind for kind, _ in crystals]
    features = KineticSOREP().fit_transform([structure for _, structure in crystals])
    tree = merge_tree(features)
    analysis = analyse(kinds, tree)
    print(analysis.summary(len(crystals)))
    draw(kinds, features, tree, analysis, options.out)
    print(f"Wrote {options.out}")
    if analysis.complaint:
        raise SystemExit(f"batio3: {analysis.complaint}")


def read(phase: str) -> Structure:
    """Primitive cell of a phase."""
    (structure,) = structures_from(STRUCTURES / f"batio3_{phase}.cif")
    if isinstance(structure, Failure):
        raise SystemExit(structure.message)
    return canonical_cell(structure).structure


def entries(phase: str) -> list[tuple[str, Structure]]:
    """A phase and its copies."""
    crystal = read(phase)
    lattice, numbers, positions = crystal.lattice, crystal.numbers, crystal.positions
    copies = [crystal, turned_supercell(crystal)]
    copies += [Structure(phase, (1 + strain) * lattice, numbers, positions) for strain in STRAINS]
    for deviation in DISPLACEMENTS:
        for seed in SEEDS:
            atoms = crystal.to_ase()
            atoms.rattle(deviation, seed=seed)
            copies.append(Structure.from_ase(atoms, id=phase))
    return [(phase, copy) for copy in copies]


def turned_supercell(crystal: Structure) -> Structure:
    """The same crystal in a cell twice as large, rotated, its atoms in reverse order."""
    atoms = make_supercell(crystal.to_ase(), SUPERCELL)[::-1]
    lattice, positions = ROTATION.apply(atoms.cell.array), atoms.get_scaled_positions()
    return Structure(crystal.id, lattice, atoms.numbers, positions)


def interchanged(crystal: Structure) -> Structure:
    """Barium where titanium was and the other way round, as in a faulty entry."""
    barium, titanium = 56, 22
    other = {barium: titanium, titanium: barium}
    numbers = np.array([other.get(number, number) for number in crystal.numbers.tolist()])
    return Structure(crystal.id, crystal.lattice, numbers, crystal.positions)


@dataclass(frozen=True)
class Analysis:
    """What the merges say about kinds that are known.

    Attributes
    ----------
    within : float
        Epsilon at which the last kind has all its copies in one group.
    between : list of (float, list of str, list of str)
        Merges of kinds: epsilon, and the kinds on both sides.
    complaint : str
        What is not as it must be; empty where all is.
    """

    within: float
    between: list[tuple[float, list[str], list[str]]]
    complaint: str

    def summary(self, n: int) -> str:
        lines = [f"{n} crystals; epsilon from {self.within:.1e} to {self.between[0][0]:.1e} gives the kinds as groups"]
        lines += [f"epsilon {at:.1e}: {' + '.join(a)} joins {' + '.join(b)}" for at, a, b in self.between]
        return "\n".join(lines)


def analyse(kinds: list[str], tree: MergeTree) -> Analysis:
    """Merges within and between kinds, and whether their order is sensible."""
    within, between = 0.0, []
    for merge in tree.merges():
        first, second = (unique(kinds[row] for row in rows) for rows in (merge.first, merge.second))
        if first == second and len(first) == 1:
            within = max(within, merge.epsilon)
        else:
            between.append((merge.epsilon, first, second))
    return Analysis(within, between, complaint(within, between))


def unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def complaint(within: float, between: list[tuple[float, list[str], list[str]]]) -> str:
    """Empty if the kinds are separate groups at some epsilon, and merge in the order that their structures suggest."""
    order = [*PHASES, INTERCHANGED]
    if len(between) != len(order) - 1 or within >= between[0][0]:
        return "the phases are not separated: copies of one are farther apart than two phases"
    joined = [sorted(map(order.index, first + second)) for _, first, second in between]
    for ranks in joined:
        if ranks != list(range(ranks[0], ranks[-1] + 1)):
            return f"{' and '.join(order[rank] for rank in ranks)} merge, and what is between them is left out"
    if joined[-1] != [0, 1, 2, 3, 4] or joined[-2] != [0, 1, 2, 3] or joined[-3] != [1, 2, 3]:
        return "cubic does not join after the other phases, or interchanged cations before it"
    return ""


def draw(kinds: list[str], features: NDArray[np.float64], tree: MergeTree, analysis: Analysis, path: Path) -> None:
    """The three panels."""
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "lines.linewidth": 1.0})
    figure, panels = plt.subplot_mosaic(
        [["a", "c"], ["b", "c"]], figsize=(9, 7), height_ratios=(1, 1.5), layout="constrained"
    )
    for letter, axes in panels.items():
        axes.set_title(letter, loc="left", fontweight="bold")
    draw_curves(panels["a"], features, tree, analysis)
    draw_matrix(panels["b"], kinds, squareform(condensed(features)))
    draw_tree(panels["c"], kinds, tree, analysis)
    figure.savefig(path, dpi=110)


def draw_curves(axes: Axes, features: NDArray[np.float64], tree: MergeTree, analysis: Analysis) -> None:
    """Panel a. Both curves have epsilon to the right; the first is the k-distance curve on its side."""
    nearest = np.maximum(k_distances(features, 1), SHORTEST)
    epsilons = np.geomspace(SHORTEST, 1, 400)
    axes.step(nearest, np.arange(1, len(nearest) + 1), where="post", color="C0", label="have a neighbour")
    axes.step(epsilons, tree.n_clusters(epsilons), color="C3", label="groups")
    axes.axvspan(analysis.within, analysis.between[0][0], color="0.9", lw=0, label="groups are the kinds")
    axes.set(xscale="log", xlabel="ε (cosine distance)", ylabel="Crystals, groups", xlim=(SHORTEST, 1), ylim=(0, None))
    axes.legend(frameon=False, fontsize=8, loc="center right", handlelength=1.2)


def draw_matrix(axes: Axes, kinds: list[str], distances: NDArray[np.float64]) -> None:
    """Panel b, rows and columns by kind."""
    image = axes.imshow(np.maximum(distances, SHORTEST), norm="log", cmap="viridis", interpolation="nearest")
    edges = [kinds.index(kind) for kind in PHASES] + [kinds.index(INTERCHANGED)]
    for edge in edges[1:]:
        axes.axhline(edge - 0.5, color="w", lw=0.6)
        axes.axvline(edge - 0.5, color="w", lw=0.6)
    middles = [(start + stop - 1) / 2 for start, stop in zip(edges, [*edges[1:], len(kinds)], strict=True)]
    axes.set_yticks(middles, [*PHASES, INTERCHANGED])
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0)
    axes.figure.colorbar(image, ax=axes, label="Cosine distance", shrink=0.8)


def draw_tree(axes: Axes, kinds: list[str], tree: MergeTree, analysis: Analysis) -> None:
    """Panel c: epsilon to the right, each fork a merge."""
    linkage = tree.linkage()
    linkage[:, 2] = np.maximum(linkage[:, 2], SHORTEST)
    drawn = dendrogram(linkage, no_plot=True)
    for heights, epsilons in zip(drawn["icoord"], drawn["dcoord"], strict=True):
        axes.plot(np.maximum(epsilons, SHORTEST), heights, color="0.3")
    heights = 10 * np.arange(len(kinds)) + 5  # of the leaves, where SciPy draws them
    leaves = [kinds[leaf] for leaf in drawn["leaves"]]
    order = [*PHASES, INTERCHANGED]
    middles = [heights[[leaf == kind for leaf in leaves]].mean() for kind in order]
    axes.set_yticks(middles, [f"{kind} ({kinds.count(kind)})" for kind in order])
    for index, kind in enumerate(order):
        of_kind = heights[[leaf == kind for leaf in leaves]]
        axes.plot(np.full(len(of_kind), SHORTEST), of_kind, "o", ms=4, color=f"C{index}", clip_on=False)
    axes.axvspan(analysis.within, analysis.between[0][0], color="0.9", lw=0)
    axes.set(xscale="log", xlabel="ε (cosine distance)", xlim=(SHORTEST, 1), ylim=(0, 10 * len(kinds)))
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0, pad=6)


if __name__ == "__main__":
    main()

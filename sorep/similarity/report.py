"""One HTML file that shows how structures fall into groups, and where epsilon lies: the paper's Figures 2 to 4."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sorep.errors import SimilarityError
from sorep.html_report import embedded, png, rendered, report_files, write_files
from sorep.similarity.clustering import MergeTree, elbow, merge_tree
from sorep.similarity.distances import condensed
from sorep.similarity.groups import Groups
from sorep.store import FeatureMatrix

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_IN_MATRIX = 1500
"""Structures up to which the distance matrix is drawn."""

MOST_IN_TREE = 30_000
"""Structures of one set up to which all its distances are computed for the report."""

_LEAVES = 40
_ROWS = 20
_FLOOR = 1e-14  # the precision of distances, on logarithmic axes
_UNITS = {"wasserstein": " (eV)"}


@dataclass(frozen=True)
class Section:
    """A heading, a text, and a picture or a table."""

    title: str
    text: str
    figure: Figure | None = None
    name: str = ""  # of the picture's file
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def write_report(matrix: FeatureMatrix, groups: Groups, out: str | Path, *, formula: str | None = None) -> list[Path]:
    """Write the report, and its pictures as PNG files beside it.

    The figures that need all distances of a set show one composition: ``formula``, or else that with the most
    structures (or all structures, where the groups were formed across compositions).

    Parameters
    ----------
    matrix : FeatureMatrix
    groups : Groups
        Of the rows of ``matrix``.
    out : str or Path
        The HTML file. Pictures get its name and an ending, as in ``out-tree.png``.
    formula : str or None
        Reduced; report of this composition only.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    SimilarityError
        ``unwritable-file``.
    """
    out = Path(out)
    if formula is not None:
        groups = groups.of_composition(formula)
    sections = list(_sections(matrix, groups))
    pictures = {section.name: png(section.figure) for section in sections if section.figure is not None}
    shown = [{**vars(s), "picture": embedded(pictures.get(s.name, b""))} for s in sections]
    text = rendered("sorep.similarity", title=formula or matrix.name, facts=_facts(groups), sections=shown)
    contents = report_files(out, text, pictures)
    write_files(contents, SimilarityError)
    return list(contents)


def _facts(groups: Groups) -> list[tuple[str, str]]:
    rule = groups.rule
    return [
        ("feature", f"{rule.feature}, identity {rule.identity}"),
        ("rule", f"{rule.metric} distance up to {rule.epsilon:g}{_UNITS.get(rule.metric, '')}, N_min {rule.n_min}"),
        ("compared", "all with all" if rule.across_compositions else "within each reduced formula"),
        *((name, str(count)) for name, count in groups.counts().items()),
    ]


def _sections(matrix: FeatureMatrix, groups: Groups) -> Iterator[Section]:
    yield _largest(groups)
    yield _near_epsilon(groups)
    if np.isfinite(groups.distance_to_nearest).any():
        yield _nearest_section(groups)
    rows, what = _shown(groups)
    if len(rows) < 2:
        yield Section("Merges", "Every structure has a composition of its own: there is nothing to merge.")
        return
    if len(rows) > MOST_IN_TREE:
        text = f"{what}: more than {MOST_IN_TREE}, for which merges are not worked out. Choose a composition."
        yield Section("Merges", text)
        return
    order = np.argsort(matrix.ids)
    values = matrix.values[order[np.searchsorted(matrix.ids[order], groups.ids[rows])]]
    rule = groups.rule
    tree = merge_tree(values, rule.n_min, rule.metric, matrix.grid)
    yield _count_section(tree, groups, what)
    yield _tree_section(tree, groups, groups.ids[rows], what)
    if len(rows) <= MOST_IN_MATRIX:
        distances = condensed(values, rule.metric, matrix.grid)
        yield _matrix_section(distances, tree, groups, groups.group[rows], what)
    else:
        text = f"{what}: more than {MOST_IN_MATRIX}, for which the matrix of distances is not drawn."
        yield Section("Distance matrix", text)


def _shown(groups: Groups) -> tuple[NDArray[np.intp], str]:
    """Rows of the set whose distances are drawn, and its name."""
    names, counts = np.unique(groups.formula, return_counts=True)
    if groups.rule.across_compositions and len(names) > 1:
        return np.arange(len(groups)), f"All {len(groups)} structures"
    chosen = str(names[counts.argmax()])
    which = ", the composition with the most of them" if len(names) > 1 else ""
    rows = np.flatnonzero(groups.formula == chosen)
    return rows, f"{len(rows)} structures of {chosen}{which}"


def _largest(groups: Groups) -> Section:
    rows = [(one, formula, str(n), f"{distance:.3g}") for one, formula, n, distance in groups.largest(_ROWS)]
    text = f"The {len(rows)} with the most members." if rows else "No two structures are equivalent."
    return Section("Largest groups", text, header=("representative", "formula", "members", "farthest"), rows=(*rows,))


def _near_epsilon(groups: Groups) -> Section:
    epsilon, distance = groups.rule.epsilon, groups.distance_to_nearest
    order = np.argsort(distance, kind="stable")
    order = order[np.isfinite(distance[order])]
    border = int(np.searchsorted(distance[order], epsilon, side="right"))
    chosen = order[max(border - _ROWS // 2, 0) : border + _ROWS // 2]
    rows = tuple(
        (
            str(groups.ids[row]),
            str(groups.nearest[row]),
            f"{distance[row]:.3g}",
            "within" if distance[row] <= epsilon else "beyond",
        )
        for row in chosen
    )
    text = "Structures whose nearest neighbour is just within or just beyond epsilon: the decisions to look at."
    return Section("Where the line is drawn", text, header=("structure", "nearest", "distance", "epsilon"), rows=rows)


def _nearest_section(groups: Groups) -> Section:
    from matplotlib.figure import Figure

    curve = np.sort(groups.distance_to_nearest[np.isfinite(groups.distance_to_nearest)])
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axis = figure.subplots()
    axis.plot(np.arange(1, len(curve) + 1), np.maximum(curve, _FLOOR), color="C0", drawstyle="steps-mid")
    axis.set_yscale("log")
    axis.set_xlabel("structures, by distance")
    axis.set_ylabel(f"distance to the nearest{_UNITS.get(groups.rule.metric, '')}")
    _draw_epsilon(axis.axhline, groups)
    suggestion = elbow(curve)
    if suggestion is not None:
        axis.axhline(suggestion, color="C2", linestyle=":", label=f"elbow {suggestion:.2g}")
    _finish(axis)
    text = (
        f"Of {len(curve)} structures that have another one to be compared with. A step in the curve is a gap in which "
        "epsilon may lie. The elbow is the point farthest below the chord on these axes."
    )
    return Section("Distance to the nearest structure", text, figure, "nearest")


def _count_section(tree: MergeTree, groups: Groups, what: str) -> Section:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    finite = tree.epsilons[np.isfinite(tree.epsilons)]
    lowest = _lowest(tree, groups)
    epsilons = np.geomspace(lowest, 3 * max(finite.max(initial=lowest), groups.rule.epsilon), 1000)
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axis = figure.subplots()
    axis.plot(epsilons, tree.n_clusters(epsilons), color="k")
    axis.set_xscale("log")
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel(f"epsilon{_UNITS.get(groups.rule.metric, '')}")
    axis.set_ylabel("clusters")
    _draw_epsilon(axis.axvline, groups)
    _finish(axis)
    text = f"{what}. Where the curve is level, the groups do not depend on the choice of epsilon."
    return Section("Number of groups over epsilon", text, figure, "count")


def _tree_section(tree: MergeTree, groups: Groups, ids: NDArray[np.str_], what: str) -> Section:
    from matplotlib.figure import Figure
    from scipy.cluster.hierarchy import dendrogram

    drawing = dendrogram(tree.linkage(), p=_LEAVES, truncate_mode="lastp", labels=ids.tolist(), no_plot=True)
    names = [str(name).replace("$", r"\$") for name in drawing["ivl"]]  # else the beginning of a formula
    lowest = _lowest(tree, groups)
    figure = Figure(figsize=(7, 1.2 + 0.2 * len(names)), layout="constrained")
    axis = figure.subplots()
    for ends, epsilons in zip(drawing["icoord"], drawing["dcoord"], strict=True):
        axis.plot(np.maximum(epsilons, lowest), ends, color="C0", linewidth=1.0)
    axis.set_xscale("log")
    axis.set_xlabel(f"epsilon{_UNITS.get(groups.rule.metric, '')}")
    axis.set_yticks(5.0 + 10.0 * np.arange(len(names)), names, fontsize=7)
    _draw_epsilon(axis.axvline, groups)
    _finish(axis)
    text = f"{what}. Clusters merge from left to right as epsilon grows."
    if len(names) < len(ids):
        text += (
            f" Only the last {len(names) - 1} merges are drawn; a number in parentheses counts the members of a leaf."
        )
    return Section("Merge tree", text, figure, "tree")


def _matrix_section(
    distances: NDArray[np.float64], tree: MergeTree, groups: Groups, group: NDArray[np.intp], what: str
) -> Section:
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure
    from scipy.cluster.hierarchy import leaves_list
    from scipy.spatial.distance import squareform

    order = leaves_list(tree.linkage())
    square = np.maximum(squareform(distances)[np.ix_(order, order)], _FLOOR)
    lowest = max(1e-3 * groups.rule.epsilon, _FLOOR)
    highest = max(float(square.max()), 10 * lowest)
    figure = Figure(figsize=(6.4, 5.4), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(square, norm=LogNorm(lowest, highest, clip=True), cmap="viridis", interpolation="nearest")
    figure.colorbar(image, label=f"{groups.rule.metric} distance{_UNITS.get(groups.rule.metric, '')}")
    borders = np.flatnonzero(np.diff(group[order])) + 0.5
    if len(borders) <= _LEAVES:
        for draw in (axis.axhline, axis.axvline):
            for border in borders:
                draw(border, color="w", linewidth=0.5)
    axis.set_xticks([])
    axis.set_yticks([])
    text = f"{what}, in the order of the merge tree, so that groups are squares on the diagonal."
    return Section("Distance matrix", text, figure, "matrix")


def _lowest(tree: MergeTree, groups: Groups) -> float:
    """Where a logarithmic axis of epsilon begins."""
    seen = np.append(tree.epsilons[tree.epsilons > 0], groups.rule.epsilon or 1.0)
    return max(float(seen.min()) / 3, _FLOOR)


def _draw_epsilon(draw: Any, groups: Groups) -> None:
    if groups.rule.epsilon > 0:
        draw(groups.rule.epsilon, color="C3", linestyle="--", label=f"epsilon {groups.rule.epsilon:g}")


def _finish(axis: Any) -> None:
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)

"""Pictures of features, spectra and bands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sorep.band_path import BandPath
from sorep.bands import BandStructure
from sorep.errors import FeatureError
from sorep.features import anchor_energy
from sorep.levels import Levels, find_levels
from sorep.smearing import get_smearing
from sorep.spectrum import Spectrum
from sorep.store import FeatureMatrix

_UNITS = {"volume": "states / (eV Å³)", "atom": "states / (eV atom)", "cell": "states / (eV cell)"}
_ANCHORS = {"absolute": "energy", "vbm": "energy - VBM", "fermi": "energy - Fermi energy", "cbm": "energy - CBM"}
_SPINS, _COLORS = ("spin up", "spin down"), ("C0", "C3")
_WINDOW = (-10.0, 10.0)  # eV
_SAME_ENERGY = 1e-4  # eV; equivalent k points on different lines
_LETTERS_APART = 0.04  # of the axis


def plot_features(
    matrix: FeatureMatrix,
    ids: Sequence[str],
    out: str | Path,
    *,
    spectra: Mapping[str, Spectrum] | None = None,
) -> None:
    """Draw one panel for each structure, all on the same axes, and write the picture.

    Parameters
    ----------
    matrix : FeatureMatrix
    ids : sequence of str
        Rows of the matrix to draw.
    out : str or Path
        Its suffix chooses the format.
    spectra : mapping of id to Spectrum, or None
        Drawn as ticks below the feature; k points with larger weight are darker.

    Raises
    ------
    FeatureError
        ``unwritable-picture``.
    """
    from matplotlib.figure import Figure

    spec = matrix.spec
    rows = {id: matrix.values[np.flatnonzero(matrix.ids == id)[0]] for id in ids}
    figure = Figure(figsize=(3.2 + 4.3 * len(spec.windows), 0.9 + 1.15 * len(ids)), layout="constrained")
    axes = figure.subplots(len(ids), len(spec.windows), sharex="col", squeeze=False)
    edges = np.cumsum([0, *(w.points for w in spec.windows)])
    for line, (id, values) in enumerate(rows.items()):
        for column, window in enumerate(spec.windows):
            axis = axes[line, column]
            part = slice(edges[column], edges[column + 1])
            color = f"C{line % 10}"
            axis.plot(spec.energies[part], values[part], color=color, linewidth=1.2)
            axis.fill_between(spec.energies[part], values[part], color=color, alpha=0.15, linewidth=0)
            axis.set_xlim(window.start, window.stop)
            axis.spines[["top", "right"]].set_visible(False)
            axis.set_ylim(bottom=min(0.0, float(values[part].min())))
            if spectra is not None:
                _draw_levels(axis, spectra[id], matrix, window.anchor, color)
            if column == 0:
                axis.set_ylabel(id, rotation=0, ha="right", va="center")
    for axis, window in zip(axes[-1], spec.windows, strict=True):
        axis.set_xlabel(f"{_ANCHORS[window.anchor]} (eV)")
    operator = matrix.identity.words.get("operator", "")
    figure.suptitle(f"{operator} SOREP, {matrix.name}: {_UNITS[spec.normalization]}", fontsize=10)
    _save(figure, out)


def plot_bands(bands: BandStructure, out: str | Path, *, window: tuple[float, float] | None = None) -> None:
    """Draw a band structure and write the picture.

    Energies are relative to `BandStructure.reference`. Where the operator counts electrons, the gap is shaded between
    the band edges of the mesh, and a dot marks where the path comes nearest to each.

    Parameters
    ----------
    bands : BandStructure
    out : str or Path
        Its suffix chooses the format.
    window : (lowest, highest) energy in eV or None
        By default 10 eV to both sides of the reference, or all bands where there is none.

    Raises
    ------
    FeatureError
        ``unwritable-picture``.
    """
    from matplotlib.figure import Figure

    path, levels = bands.path, bands.levels
    figure = Figure(figsize=(np.clip(2.0 + 0.75 * path.distances[-1], 5.0, 12.0), 4.5), layout="constrained")
    axis = figure.subplots()
    energies = bands.energies - bands.reference
    for spin in range(bands.n_spin):
        for segment in path.segments:
            part = segment.slice
            # The first spin lies on top of the second.
            curves = axis.plot(path.distances[part], energies[spin, part], color=_COLORS[spin], lw=1.0, zorder=3 - spin)
        curves[0].set_label(_SPINS[spin])
    ticks = _labelled_distances(path)
    axis.set_xticks(list(ticks), list(ticks.values()))
    axis.vlines(list(ticks), 0, 1, transform=axis.get_xaxis_transform(), color="0.75", linewidth=0.6, zorder=0)
    axis.set_xlim(0, path.distances[-1])
    if window or levels:
        axis.set_ylim(window or _WINDOW)
    if levels:
        _draw_edges(axis, bands, levels)
    if bands.n_spin == 2:
        axis.legend(loc="upper right", fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    operator = bands.identity.words["operator"]
    anchor = "absolute" if levels is None else "fermi" if levels.is_metal else "vbm"
    axis.set_ylabel("overlap" if operator == "overlap" else f"{_ANCHORS[anchor]} (eV)")
    axis.set_title(f"{bands.structure.id} ({bands.structure.formula}), {operator} operator", fontsize=10)
    _save(figure, out)


def _labelled_distances(path: BandPath) -> dict[float, str]:
    """Where labels stand; the two of a break share a place, and one too near to that before stands lower."""
    ticks: dict[float, str] = {}
    for index, label in path.labels.items():
        place = float(path.distances[index])
        ticks[place] = f"{ticks[place]}|{_letters(label)}" if place in ticks else _letters(label)
    nearest = _LETTERS_APART * float(path.distances[-1])
    before, was_lowered = -np.inf, False
    for place in ticks:
        was_lowered = place - before < nearest and not was_lowered
        ticks[place] = "\n" * was_lowered + ticks[place]
        before = place
    return ticks


def _letters(label: str) -> str:
    """A label as it is printed: seekpath's ``SIGMA_0`` is a Greek letter with an index."""
    letter, _, number = label.partition("_")
    name = rf"\{letter.capitalize()}" if len(letter) > 1 else letter
    return rf"$\mathrm{{{name}}}_{{{number}}}$" if number else rf"$\mathrm{{{name}}}$"


def _draw_edges(axis, bands: BandStructure, levels: Levels) -> None:
    axis.axhline(0.0, color="0.4", linewidth=0.6, linestyle="--")
    if levels.is_metal or levels.cbm is None:
        return
    gap = levels.cbm - levels.vbm
    axis.axhline(gap, color="0.4", linewidth=0.6, linestyle="--")
    axis.axhspan(0.0, gap, color="0.93", zorder=0)
    axis.set_title(f"gap {gap:.2f} eV", fontsize=8, loc="right")
    energies = bands.energies - bands.reference
    is_filled = energies < gap / 2
    for edge in (energies[is_filled].max(initial=-np.inf), energies[~is_filled].min(initial=np.inf)):
        k = np.flatnonzero((np.abs(energies - edge) < _SAME_ENERGY).any(axis=(0, 2)))
        axis.plot(bands.path.distances[k], np.full(len(k), edge), "o", color="k", markersize=3.5)


def _save(figure, out: str | Path) -> None:
    try:
        figure.savefig(out, dpi=150)
    except (OSError, ValueError) as error:
        raise FeatureError(
            f"cannot write {out}: {error}", code="unwritable-picture", remedy="give a .png, .pdf or .svg file"
        ) from None


def _draw_levels(axis, spectrum: Spectrum, matrix: FeatureMatrix, anchor, color: str) -> None:
    spec = matrix.spec
    levels = None
    if anchor != "absolute":
        levels = find_levels(spectrum, get_smearing(spec.fermi_smearing), spec.fermi_width)
    energies = spectrum.energies - anchor_energy(anchor, levels)
    weights = spectrum.state_weights
    bottom, top = axis.get_ylim()
    height = 0.22 * (top - bottom)
    axis.vlines(
        energies,
        bottom - height,
        bottom - 0.1 * height,
        color=color,
        alpha=np.clip(weights / weights.max(), 0.05, 1.0) * 0.6,
        linewidth=0.6,
    )
    axis.set_ylim(bottom - 1.1 * height, top)

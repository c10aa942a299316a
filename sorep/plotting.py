"""Pictures of features and spectra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sorep.errors import FeatureError
from sorep.features import anchor_energy
from sorep.levels import find_levels
from sorep.smearing import get_smearing
from sorep.spectrum import Spectrum
from sorep.store import FeatureMatrix

_UNITS = {"volume": "states / (eV Å³)", "atom": "states / (eV atom)", "cell": "states / (eV cell)"}
_ANCHORS = {"absolute": "energy", "vbm": "energy - VBM", "fermi": "energy - Fermi energy", "cbm": "energy - CBM"}


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

"""When a predicted spectrum can be trusted: its error against what is known before, or without, the true spectrum.

Kong et al. (Nat. Commun. 13, 949, 2022, Figures S3 to S6) relate the error on test crystals to how complicated a
crystal is, to how much like it there was in the training data, and to how sharp the features of its spectrum are. The
same is done here, one row for each crystal. Errors are those of spectra of unit sum, so that large cells and dense
spectra do not count more than others.

Fourier content. The amplitudes of a spectrum of unit sum, without the constant one, are added up in `N_BANDS` ranges of
equal width, from slow to fast; each is given as its share of all. Those of the prediction can be known in advance,
those of the target cannot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sorep.mat2spec.baselines import composition_distances
from sorep.mat2spec.data import Inputs, SpectrumData
from sorep.mat2spec.metrics import wasserstein_each
from sorep.mat2spec.scaling import Scaling
from sorep.mat2spec.subclass import symmetries
from sorep.similarity import nearest

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

N_BANDS = 5
"""Ranges of Fourier components."""

ERRORS = ("mae", "wd")
"""Columns that hold errors of unit-sum spectra: mean absolute (of a bin), Wasserstein (unit of the grid)."""

LABELS = {
    "n_elements": "elements",
    "n_sites": "atoms in the primitive cell",
    "composition_distance": "distance to the nearest training composition",
    "sorep_distance": "cosine distance to the nearest training SOREP",
    "n_same_elements": "training crystals of the same elements",
    "n_same_space_group": "training crystals of the same space group",
    **{
        f"{kind}_band_{band}": f"Fourier share {band} of {N_BANDS}, {name}"
        for kind, name in (("predicted", "prediction"), ("target", "target"))
        for band in range(1, N_BANDS + 1)
    },
}
"""Columns that errors are compared with, and their names on axes."""


def fourier_bands(spectra: NDArray[np.float64], n_bands: int = N_BANDS) -> NDArray[np.float64]:
    """Share of the Fourier amplitudes, the constant one left out, in each range of components.

    Parameters
    ----------
    spectra : (n, n_bins) array
        Scale does not count; a constant spectrum has zeros.
    n_bands : int

    Returns
    -------
    (n, n_bands) array
        From slow to fast; rows sum to 1.
    """
    amplitudes = np.abs(np.fft.rfft(spectra, axis=1))[:, 1:]
    rounding = 1e-12 * np.abs(spectra).sum(axis=1, keepdims=True)
    amplitudes = np.where(amplitudes > rounding, amplitudes, 0.0)
    bands = np.stack([part.sum(axis=1) for part in np.array_split(amplitudes, n_bands, axis=1)], axis=1)
    total = bands.sum(axis=1, keepdims=True)
    return np.divide(bands, total, out=np.zeros_like(bands), where=total > 0)


def trust_table(test: SpectrumData, predicted: NDArray[np.float64], train: Inputs) -> pd.DataFrame:
    """Errors of predictions, and what they may depend on, one row for each crystal.

    Parameters
    ----------
    test : SpectrumData
        Crystals that the model was not trained on.
    predicted : (n, n_bins) array
        In any scale.
    train : Inputs
        Those that it was trained on.

    Returns
    -------
    DataFrame
        Columns ``id``, ``formula``, those of `ERRORS` and of `LABELS` (``sorep_distance`` only where there are SOREPs).
    """
    import pandas as pd

    scaling = Scaling("sumnorm")
    true, guess = scaling.transform(test.spectra), scaling.transform(np.maximum(predicted, 0.0))
    groups, known = symmetries(test.inputs), symmetries(train)
    elements, known_elements = _element_sets(test.inputs), _element_sets(train)
    columns = {
        "id": test.ids,
        "formula": test.formulas,
        "mae": np.abs(guess - true).mean(axis=1),
        "wd": wasserstein_each(guess, true, test.bin_width),
        "n_elements": [len(one) for one in elements],
        "n_sites": [sites for sites, _ in groups],
        "composition_distance": composition_distances(test.inputs, train).min(axis=1),
        "n_same_elements": [known_elements.count(one) for one in elements],
        "n_same_space_group": [sum(0 < number == other for _, other in known) for _, number in groups],
    }
    if test.inputs.sorep is not None and train.sorep is not None:
        columns["sorep_distance"] = nearest(test.inputs.sorep, 1, among=train.sorep).distances[:, 0]
    for kind, spectra in (("predicted", guess), ("target", true)):
        for band, share in enumerate(fourier_bands(spectra).T, start=1):
            columns[f"{kind}_band_{band}"] = share
    return pd.DataFrame(columns)


def correlations(table: pd.DataFrame) -> pd.DataFrame:
    """Rank correlation (Spearman) of errors with everything else, and how likely chance alone gives as large a one.

    Returns
    -------
    DataFrame
        Columns ``descriptor``, ``error``, ``spearman``, ``p_value`` and ``n``; NaN where a descriptor or an error is
        the same for all crystals.
    """
    import pandas as pd
    from scipy.stats import spearmanr

    rows = []
    for descriptor in (name for name in LABELS if name in table):
        for error in ERRORS:
            x, y = table[descriptor].to_numpy(), table[error].to_numpy()
            varies = len(table) > 2 and np.ptp(x) > 0 and np.ptp(y) > 0
            found = np.asarray(spearmanr(x, y) if varies else (np.nan, np.nan), dtype=float)
            rows.append((descriptor, error, *found.tolist(), len(table)))
    return pd.DataFrame(rows, columns=["descriptor", "error", "spearman", "p_value", "n"])


def trust_figure(table: pd.DataFrame, error: str = "wd", unit: str = "") -> Figure:
    """The error of every crystal over each descriptor, with medians of quarters of the crystals."""
    from matplotlib.figure import Figure

    found = correlations(table).query("error == @error").set_index("descriptor")
    names = found.index.tolist()
    n_columns = 4
    n_rows = -(-len(names) // n_columns)
    figure = Figure(figsize=(3.1 * n_columns, 2.6 * n_rows), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axis, name in zip(axes, names, strict=False):
        x, y = table[name].to_numpy(dtype=float), table[error].to_numpy()
        axis.scatter(x, y, s=6, color="C0", alpha=0.5, linewidths=0)
        axis.plot(*_medians(x, y), color="C3", marker="o", markersize=4)
        axis.set_xlabel(LABELS[name], fontsize=8)
        axis.set_title(f"rank correlation {found.loc[name, 'spearman']:.2f}", fontsize=8)
        axis.set_ylabel(f"{error.upper()}{f' ({unit})' if unit else ''}", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    return figure


def _medians(x: NDArray[np.float64], y: NDArray[np.float64], n_parts: int = 4) -> tuple[list[float], list[float]]:
    """Medians of both in parts of the crystals, by x: one for each value of a few, else parts of equal size."""
    values, part = np.unique(x, return_inverse=True)
    if len(values) > n_parts:
        part = np.searchsorted(np.quantile(x, np.linspace(0, 1, n_parts + 1)[1:-1]), x, side="right")
    chosen = [part == one for one in np.unique(part)]
    return [float(np.median(x[rows])) for rows in chosen], [float(np.median(y[rows])) for rows in chosen]


def _element_sets(inputs: Inputs) -> Sequence[frozenset[int]]:
    return [frozenset(structure.numbers.tolist()) for structure in inputs.structures]

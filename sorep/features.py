"""Feature vectors: smeared densities of states on fixed grids, each with its identity.

A `FeatureSpec` is one or several windows, each a uniform grid in absolute energies or relative to the valence band
maximum, the Fermi energy or the conduction band minimum. The published grids are in `FEATURES`; any other comes from a
TOML or JSON file or from Python. A spec is a view of a stored spectrum: changing it never reruns a calculation.
It may end with the numbers of `sorep.band_edges`, which say outright what a grid only implies.

    x_i = (1/N) sum_s sum_k w_k sum_n f d((E_i - e_snk) / w) / w                       (SOREP paper, eq. 10)

The paper prints the density with both 1/V and 1/N_nu and with sqrt(pi) inside the exponent; with both factors a
supercell would not equal its cell, against the text. N is the volume here by default: states / (eV Angstrom^3).
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sorep.band_edges import SCALARS, band_edge_scalars
from sorep.dos import binned_density_of_states, density_of_states
from sorep.errors import FeatureError, UsageError
from sorep.levels import Levels, find_levels
from sorep.smearing import SMEARINGS, get_smearing
from sorep.spectrum import Spectrum
from sorep.units import HARTREE_IN_EV

Anchor = Literal["absolute", "vbm", "fermi", "cbm"]
Normalization = Literal["volume", "atom", "cell"]

_KINETIC_WIDTH = 0.03 * HARTREE_IN_EV
_KOHN_SHAM_WIDTH = 0.05
_MODEL = ConfigDict(frozen=True, extra="forbid")


class Window(BaseModel):
    """A uniform grid of ``points`` energies from ``start`` to ``stop`` (eV, relative to ``anchor``).

    With sampling ``point`` both ends are grid points; with ``bin`` they are the outer edges of ``points`` bins.
    """

    model_config = _MODEL

    anchor: Anchor = "absolute"
    start: float
    stop: float
    points: Annotated[int, Field(ge=1, le=1_000_000)]

    @model_validator(mode="after")
    def _ordered(self) -> Window:
        if not (np.isfinite([self.start, self.stop]).all() and self.stop > self.start):
            raise ValueError(f"stop ({self.stop}) must be a finite number above start ({self.start})")
        return self


class FeatureSpec(BaseModel):
    """What a feature vector consists of.

    Attributes
    ----------
    name : str
    windows : tuple of Window
        Concatenated in this order.
    smearing : str
        One of `sorep.smearing.SMEARINGS`.
    width : float
        Smearing width w, eV.
    sampling : {"point", "bin"}
        Density at the grid energies, or its exact average over bins.
    normalization : {"volume", "atom", "cell"}
        Per cubic Angstrom, per atom, or per computed cell.
    spin_factor : bool
        Multiply Kohn-Sham states by 2 / n_spin.
    band_edges : bool
        Append the numbers named in `sorep.band_edges.SCALARS`.
    cutoff : float or None
        Ignore eigenvalues farther than this many widths; only the published recipe needs it.
    fermi_smearing, fermi_width : str, float
        Smearing (eV) that defines a metal's Fermi energy.
    """

    model_config = _MODEL

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    windows: Annotated[tuple[Window, ...], Field(min_length=1)]
    smearing: str = "gaussian"
    width: Annotated[float, Field(gt=0, allow_inf_nan=False)] = _KOHN_SHAM_WIDTH
    sampling: Literal["point", "bin"] = "point"
    normalization: Normalization = "volume"
    spin_factor: bool = True
    band_edges: bool = False
    cutoff: Annotated[float, Field(gt=0)] | None = None
    fermi_smearing: str = "cold"
    fermi_width: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.1

    @field_validator("smearing", "fermi_smearing")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in SMEARINGS:
            raise ValueError(f"unknown smearing {name!r}; choose from {', '.join(SMEARINGS)}")
        return name

    @model_validator(mode="after")
    def _cutoff_needs_points(self) -> FeatureSpec:
        if self.cutoff is not None and self.sampling == "bin":
            raise ValueError("a cutoff applies to point sampling only; bin averages are exact")
        return self

    @property
    def n_features(self) -> int:
        return sum(w.points for w in self.windows) + len(SCALARS) * self.band_edges

    @property
    def is_anchored(self) -> bool:
        """Whether anything needs band edges or a Fermi energy."""
        return self.band_edges or any(w.anchor != "absolute" for w in self.windows)

    @property
    def energies(self) -> NDArray[np.float64]:
        """Energies of all windows relative to their anchors (bin centres for bins), eV, (sum of points,)."""
        return np.concatenate([_grid(w, self.sampling) for w in self.windows])

    @property
    def feature_names(self) -> list[str]:
        """Column names such as ``vbm-1.000eV``, unique within the spec."""
        names = []
        for index, window in enumerate(self.windows):
            prefix = "" if window.anchor == "absolute" else window.anchor
            label = f"{index}:" if sum(w.anchor == window.anchor for w in self.windows) > 1 else ""
            spacing = (window.stop - window.start) / window.points
            digits = max(4, 1 - int(np.floor(np.log10(spacing))))
            names += [f"{label}{prefix}{e:+.{digits}f}eV" for e in _grid(window, self.sampling)]
        return names + list(SCALARS) * self.band_edges

    def words(self) -> dict:
        """All that the numbers depend on; the name is only a label."""
        return self.model_dump(mode="json", exclude={"name"} if self.band_edges else {"name", "band_edges"})

    def published(self) -> FeatureSpec:
        """The same grid by the published recipe: per cell, no spin factor, eigenvalues cut off.

        The cut-off is |x| = 6, and sqrt(8) for the published transparent-conductor features.
        """
        if self.sampling == "bin" or self.band_edges:
            raise UsageError(
                f"the published recipe samples points and nothing else, and {self.name} is not made in this way",
                code="no-published-recipe",
                remedy="choose another grid",
            )
        changes = {
            "name": f"{self.name}-published",
            "normalization": "cell",
            "spin_factor": False,
            "cutoff": 8**0.5 if self.is_anchored else 6.0,
        }
        return self.model_copy(update=changes)


def _grid(window: Window, sampling: str) -> NDArray[np.float64]:
    if sampling == "point":
        return np.linspace(window.start, window.stop, window.points)
    edges = np.linspace(window.start, window.stop, window.points + 1)
    return 0.5 * (edges[1:] + edges[:-1])


def compute_feature(spectrum: Spectrum, spec: FeatureSpec, levels: Levels | None = None) -> NDArray[np.float64]:
    """The feature vector of a spectrum.

    Parameters
    ----------
    spectrum : Spectrum
    spec : FeatureSpec
    levels : Levels or None
        Band edges, if they are known already; found from the spectrum where an anchored window needs them.

    Returns
    -------
    (spec.n_features,) array
        Density of states, 1/eV per unit of the normalisation; then the band-edge scalars, if these are asked for.

    Raises
    ------
    LevelsError
        Where an anchor is needed that the spectrum does not determine.
    FeatureError
        ``no-empty-band`` where a window is anchored at a Fermi energy or CBM that does not exist.
    """
    if levels is None and spec.is_anchored:
        levels = find_levels(spectrum, get_smearing(spec.fermi_smearing), spec.fermi_width)
    smearing = get_smearing(spec.smearing)
    weights = spectrum.state_weights / _normalizer(spectrum, spec.normalization)
    if spec.spin_factor:
        weights = weights * spectrum.degeneracy
    parts = []
    for window in spec.windows:
        shifted = spectrum.energies - anchor_energy(window.anchor, levels)
        if spec.sampling == "bin":
            args = (window.start, window.stop, window.points, shifted, weights, smearing, spec.width)
            parts.append(binned_density_of_states(*args))
        else:
            grid = _grid(window, "point")
            parts.append(density_of_states(grid, shifted, weights, smearing, spec.width, cutoff=spec.cutoff))
    if spec.band_edges and levels is not None:
        parts.append(band_edge_scalars(spectrum, levels, spec.width))
    return np.concatenate(parts)


def anchor_energy(anchor: Anchor, levels: Levels | None) -> float:
    """Energy (eV) that a window's grid is relative to."""
    if anchor == "absolute":
        return 0.0
    energy = None
    if levels is not None:
        energy = {"vbm": levels.vbm, "fermi": levels.fermi_energy, "cbm": levels.cbm}[anchor]
    if energy is None:
        raise FeatureError(
            f"the basis has no empty band, so the anchor {anchor!r} does not exist",
            code="no-empty-band",
            remedy="use a feature anchored at the VBM, or a basis with empty functions",
        )
    return energy


def _normalizer(spectrum: Spectrum, normalization: Normalization) -> float:
    return {"volume": spectrum.volume, "atom": float(spectrum.n_atoms), "cell": 1.0}[normalization]


def _spec(name: str, *windows: tuple[Anchor, float, float, int], **options) -> FeatureSpec:
    named = tuple(Window(anchor=a, start=x, stop=y, points=n) for a, x, y, n in windows)
    return FeatureSpec(name=name, windows=named, **options)


_W = _KOHN_SHAM_WIDTH
_HA = HARTREE_IN_EV

FEATURES: dict[str, FeatureSpec] = {
    spec.name: spec
    for spec in (
        _spec("kinetic", ("absolute", 0.0, 6.5 * _HA, 1024), width=_KINETIC_WIDTH),
        _spec("kinetic-methods", ("absolute", -0.15 * _HA, 6.5 * _HA, 512), width=_KINETIC_WIDTH),
        _spec("overlap", ("absolute", 0.0, 8.0, 512), width=0.05),
        _spec("vbm", ("vbm", -2.0, 6.0, 513)),
        _spec("fermi", ("fermi", -5.0, 5.0, 513)),
        _spec("cbm", ("cbm", -6.0, 2.0, 513)),
        _spec("vbm-fermi-cbm", ("vbm", -1.0, 1.0, 171), ("fermi", -1.0, 1.0, 171), ("cbm", -1.0, 1.0, 171)),
        _spec("vbm-cbm", ("vbm", -2.0, 3 * _W, 257), ("cbm", -3 * _W, 2.0, 257)),
        _spec(
            "band-edges",
            ("vbm", -1.0, 1.0, 10),
            ("fermi", -1.0, 1.0, 10),
            ("cbm", -1.0, 1.0, 10),
            sampling="bin",
            band_edges=True,
        ),
        _spec("mat2spec-edos", ("vbm", -4.0, 0.0, 64), ("cbm", 0.0, 4.0, 64), sampling="bin"),
    )
}
"""Named grids: the published ones (SOREP paper, Methods), one for the eigenvalues of the overlap (pure numbers, so
"eV" does not apply to it), ``band-edges`` for screening (coarse densities around the three anchors, then gap, masses
and widths), and the gap-removed one of Mat2Spec."""


def get_feature(name: str | Path | FeatureSpec) -> FeatureSpec:
    """A built-in grid by name (``NAME-published`` for the published recipe), or one from a .toml or .json file.

    Raises
    ------
    UsageError
        ``unknown-feature`` or ``bad-feature-file``, naming the offending key.
    """
    if isinstance(name, FeatureSpec):
        return name
    text = str(name)
    if text in FEATURES:
        return FEATURES[text]
    if text.removesuffix("-published") in FEATURES:
        return FEATURES[text.removesuffix("-published")].published()
    path = Path(text)
    if path.suffix not in (".toml", ".json"):
        raise UsageError(
            f"unknown feature {text!r}",
            code="unknown-feature",
            remedy=f"choose from {', '.join(FEATURES)}, or give a .toml or .json file",
        )
    try:
        content = path.read_text()
        fields = tomllib.loads(content) if path.suffix == ".toml" else json.loads(content)
        return FeatureSpec.model_validate({"name": path.stem, **fields})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, json.JSONDecodeError, TypeError) as error:
        raise UsageError(
            f"cannot read {path}: {error}", code="bad-feature-file", remedy="see `sorep features --example`"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise UsageError(
            f"{path}: {where}: {first['msg']}",
            code="bad-feature-file",
            remedy="see `sorep features --example`",
        ) from None

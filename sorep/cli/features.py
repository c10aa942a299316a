"""`sorep refeaturize` and `sorep features`, and the options that describe a grid."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from sorep.features import FeatureSpec

StoreOption = Annotated[Path, typer.Option("--store", help="Folder of the store.")]
FeatureOption = Annotated[
    list[str],
    typer.Option(
        "--feature",
        help="Grid of the density of states: a name from `sorep features`, NAME-published, or a .toml or .json file. "
        "Repeat for several. Default: that of the operator's own name; vbm, fermi, cbm and band-edges for Kohn-Sham "
        "spectra.",
    ),
]
WindowOption = Annotated[
    list[str],
    typer.Option(
        "--window",
        help="A grid of your own, ANCHOR:START:STOP:POINTS in eV with ANCHOR one of absolute, vbm, fermi, cbm. "
        "Repeat to join several windows into one feature called 'custom'.",
    ),
]
WidthOption = Annotated[float | None, typer.Option(help="Smearing width w in eV, instead of the grid's own.")]
SmearingOption = Annotated[
    str | None, typer.Option(help="gaussian, fermi-dirac, cold or methfessel-paxton, instead of the grid's own.")
]
NormalizationOption = Annotated[
    str | None, typer.Option(help="volume (states / eV / cubic Angstrom), atom or cell, instead of the grid's own.")
]
SamplingOption = Annotated[
    str | None, typer.Option(help="point, or bin (exact averages over bins), instead of the grid's own.")
]


def refeaturize(
    store: StoreOption = Path("sorep-store"),
    feature: FeatureOption = [],  # noqa: B006
    window: WindowOption = [],  # noqa: B006
    width: WidthOption = None,
    smearing: SmearingOption = None,
    normalization: NormalizationOption = None,
    sampling: SamplingOption = None,
    operator: Annotated[str | None, typer.Option(help="Only spectra of this operator. Default: all.")] = None,
) -> None:
    """Make other features from the stored spectra, without computing any spectrum again.

    Example: sorep refeaturize --feature kinetic --width 1.5 --normalization atom
    """
    from sorep.errors import StoreError
    from sorep.featurize import refeaturize as run
    from sorep.store import FeatureStore

    overrides = {"width": width, "smearing": smearing, "normalization": normalization, "sampling": sampling}
    spectra = FeatureStore(store).spectrum_identities(operator)
    if not spectra:
        raise StoreError(
            f"{store} holds no spectra" + (f" of operator {operator!r}" if operator else ""),
            code="no-spectra",
            remedy="run `sorep featurize` first",
        )
    for identity in spectra:
        of = identity.words["operator"]
        for spec in chosen_specs(feature, window, overrides, default_features(of)):
            if spec.is_anchored and of in WITHOUT_ELECTRONS:
                typer.echo(f"{spec.name}: not made of {of} spectra {identity.hash}, which have no electrons")
                continue
            added = run(store, spec, identity, command=" ".join(sys.argv))
            typer.echo(f"{spec.name}: {added} vectors added for spectra {identity.hash}")


WITHOUT_ELECTRONS = ("kinetic", "overlap")


def default_features(operator: str) -> list[str]:
    """Grids made where none is asked for."""
    return [operator] if operator in WITHOUT_ELECTRONS else ["vbm", "fermi", "cbm", "band-edges"]


EXAMPLE = """\
# my-grid.toml -- use it with `--feature my-grid.toml`; energies and widths in eV
smearing = "gaussian"          # gaussian, fermi-dirac, cold, methfessel-paxton
width = 0.05                   # w; a Gaussian's standard deviation is w / sqrt(2)
sampling = "point"             # or "bin": exact averages over bins
normalization = "volume"       # states / eV / cubic Angstrom; or "atom", "cell"

[[windows]]                    # one or several, joined in this order
anchor = "vbm"                 # absolute, vbm, fermi, cbm
start = -2.0
stop = 6.0
points = 513
"""


def features(
    example: Annotated[bool, typer.Option("--example", help="Print a file that describes a grid of your own.")] = False,
) -> None:
    """List the built-in feature grids, and the descriptors."""
    from sorep.descriptors import DESCRIPTORS
    from sorep.features import FEATURES

    if example:
        typer.echo(EXAMPLE, nl=False)
        return
    for spec in FEATURES.values():
        windows = ", ".join(f"{w.anchor} {w.start:+g}..{w.stop:+g} eV ({w.points})" for w in spec.windows)
        windows += f"; gap, masses, widths ({spec.n_features - len(spec.energies)})" * spec.band_edges
        typer.echo(
            f"{spec.name:<16} {spec.n_features:>5} features  w = {spec.width:.4g} eV  {spec.sampling}: {windows}"
        )
    for name, descriptor in DESCRIPTORS.items():
        typer.echo(f"{name:<16} {len(descriptor.feature_names):>5} features  `sorep featurize --descriptor {name}`")


def chosen_specs(
    names: list[str], windows: list[str], overrides: dict[str, Any], default: list[str], preset: str = "default"
) -> list[FeatureSpec]:
    from pydantic import ValidationError

    from sorep.errors import UsageError
    from sorep.features import FeatureSpec, Window, get_feature

    if preset == "published":
        default = [f"{name}-published" for name in default]
    specs = [get_feature(name) for name in names or ([] if windows else default)]
    changes = {name: value for name, value in overrides.items() if value is not None}
    try:
        if windows:
            parsed = tuple(Window.model_validate(_window_fields(text)) for text in windows)
            specs.append(FeatureSpec(name="custom", windows=parsed))
        specs = [FeatureSpec(**{**dict(spec), **changes}) for spec in specs]
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(
            f"{'.'.join(map(str, first['loc'])) or 'feature'}: {first['msg']}",
            code="bad-feature",
            remedy="see `sorep features` and `sorep featurize --help`",
        ) from None
    doubled = {spec.name for spec in specs if sum(other.name == spec.name for other in specs) > 1}
    if doubled:
        raise UsageError(
            f"feature {min(doubled)!r} is asked for twice", code="bad-feature", remedy="give every feature one name"
        )
    return specs


def _window_fields(text: str) -> dict[str, str]:
    from sorep.errors import UsageError

    parts = text.split(":")
    if len(parts) != 4:
        raise UsageError(
            f"--window {text!r} has {len(parts)} parts",
            code="bad-feature",
            remedy="give ANCHOR:START:STOP:POINTS, e.g. fermi:-5:5:513",
        )
    return dict(zip(("anchor", "start", "stop", "points"), parts, strict=True))

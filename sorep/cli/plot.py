"""`sorep plot`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sorep.cli.features import StoreOption


def plot(
    ids: Annotated[list[str], typer.Argument(help="Structures to draw; none: the first eight.")] = [],  # noqa: B006
    store: StoreOption = Path("sorep-store"),
    feature: Annotated[str, typer.Option(help="Name of the feature.")] = "kinetic",
    operator: Annotated[str | None, typer.Option(help="Where several operators have this feature.")] = None,
    identity: Annotated[str | None, typer.Option(help="First digits, where one name has several identities.")] = None,
    out: Annotated[Path, typer.Option(help="Picture to write: .png, .pdf, .svg.")] = Path("sorep.png"),
    spectra: Annotated[bool, typer.Option("--spectra", help="Draw the eigenvalues below each feature too.")] = False,
) -> None:
    """Draw features, and spectra if asked, of chosen structures."""
    from sorep.plotting import plot_features
    from sorep.store import FeatureStore

    opened = FeatureStore(store)
    matrix = opened.matrix(feature, operator=operator, identity=identity, ids=ids or None)
    shown = matrix.ids[: None if ids else 8].tolist()
    levels = None
    if spectra:
        of_spectrum = opened.spectrum_identity(matrix.identity)
        levels = {id: opened.spectrum(id, identity=of_spectrum.hash) for id in shown}
    plot_features(matrix, shown, out, spectra=levels)
    typer.echo(f"{out}: {', '.join(shown)}" + ("" if ids else f" (of {len(matrix.ids)}; name others to see them)"))

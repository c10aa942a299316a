"""Properties that labels are made of, from the calculations of a store: gap and line effective masses.

The gap is that of mesh and lines together: lowest conduction band minus highest valence band, over all their k points.
A metal on the mesh has a gap of 0 and no masses, and so has a crystal whose lines close the gap of its mesh.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from sorep.bands import BandStructure
from sorep.errors import IdentityError, LevelsError, ScreeningError, StoreError
from sorep.identity import Identity
from sorep.levels import find_levels
from sorep.screening.effective_mass import from_band_structure
from sorep.single_shot.converged import OPERATOR
from sorep.single_shot.method import FERMI_WIDTH
from sorep.smearing import COLD
from sorep.spectrum import Spectrum
from sorep.store import FeatureStore

if TYPE_CHECKING:
    import pandas as pd

METAL = "metal"
"""Flag of a material without a gap, whose masses are missing."""


class Properties(NamedTuple):
    """Of one material; NaN where missing. Both masses are positive, in electron masses, and the gap is in eV."""

    gap: float = math.nan
    electron_mass: float = math.nan
    hole_mass: float = math.nan
    flags: tuple[str, ...] = ()


def store_properties(store: FeatureStore, identity: str | None = None) -> pd.DataFrame:
    """Gap and masses of every structure of a store with a converged calculation.

    Parameters
    ----------
    store : FeatureStore
    identity : str or None
        First digits of the hash of the calculations; needed where there are several kinds.

    Returns
    -------
    DataFrame
        Indexed by id, sorted: gap (eV), electron_mass, hole_mass (electron masses, both positive), flags (joined by
        commas). Masses of metals are NaN (flag ``metal``), and so is everything that could not be had, with the code
        of the error as a flag.

    Raises
    ------
    StoreError
        ``no-calculations``.
    IdentityError
        ``mixed-identity`` where the choice is not unique.
    """
    import pandas as pd

    chosen = _identity(store, identity).hash
    found = dict(_properties(store, chosen))
    names = sorted((id, key) for id, key in store.content_keys().items() if key in found)
    index = pd.Index([id for id, _ in names], name="id", dtype="str")
    rows = [found[key]._replace(flags=",".join(found[key].flags)) for _, key in names]  # type: ignore[arg-type]
    return pd.DataFrame(rows, index=index, columns=Properties._fields)


def _properties(store: FeatureStore, identity: str) -> Iterator[tuple[str, Properties]]:
    """Content key and properties of every calculation."""
    with_bands = set()
    for key, bands in store.bands_of(identity):
        with_bands.add(key)
        yield key, of_bands(bands)
    for key, _, spectrum in store.spectra(identity, with_bands):
        yield key, of_mesh(spectrum)


def of_bands(bands: BandStructure) -> Properties:
    """Of an insulator on its mesh, whose bands along lines are known."""
    try:
        masses = from_band_structure(bands)
    except ScreeningError as error:
        gap = 0.0 if error.code == METAL else math.nan
        return Properties(gap, flags=(error.code, *bands.flags))
    return Properties(masses.band_gap, masses.electron, masses.hole, masses.flags)


def of_mesh(spectrum: Spectrum) -> Properties:
    """Of a metal, and of a spectrum that does not say what it is."""
    try:
        levels = find_levels(spectrum, COLD, FERMI_WIDTH)
    except LevelsError:
        return Properties(flags=spectrum.flags)
    return Properties(0.0, flags=(METAL, *spectrum.flags)) if levels.is_metal else Properties(flags=spectrum.flags)


def _identity(store: FeatureStore, given: str | None) -> Identity:
    offers = [one for one in store.spectrum_identities(OPERATOR) if one.hash.startswith(given or "")]
    if not offers:
        raise StoreError(
            f"{store.path} holds no converged calculation" + (f" {given}" if given else ""),
            code="no-calculations",
            remedy="`sorep label --run` makes them",
        )
    if len(offers) > 1:
        raise IdentityError(
            f"{store.path} holds {len(offers)} kinds of calculations ({', '.join(one.hash for one in offers)}); the "
            f"first two differ in {'; '.join(offers[0].differences(offers[1]))}",
            remedy="choose one with --identity, or label them in stores of their own",
        )
    return offers[0]

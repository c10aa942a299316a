"""Spectral operator representations: electronic-structure features of crystals.

The names below are all that most scripts need; everything heavy is imported when it is first used.

>>> import sorep
>>> x = sorep.kinetic_feature(atoms)                              # doctest: +SKIP
>>> X = sorep.KineticSOREP(n_jobs=2).fit_transform(structures)    # doctest: +SKIP
>>> X = sorep.FeatureStore("sorep-store").matrix("kinetic")       # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sorep.bands import BandStructure as BandStructure
    from sorep.bands import band_structure as band_structure
    from sorep.errors import SorepError as SorepError
    from sorep.features import FEATURES as FEATURES
    from sorep.features import FeatureSpec as FeatureSpec
    from sorep.features import Window as Window
    from sorep.features import compute_feature as compute_feature
    from sorep.kinetic.method import KineticSettings as KineticSettings
    from sorep.levels import Levels as Levels
    from sorep.levels import find_levels as find_levels
    from sorep.single_shot.method import SingleShotSettings as SingleShotSettings
    from sorep.sources import structures_from as structures_from
    from sorep.spectrum import Spectrum as Spectrum
    from sorep.store import FeatureStore as FeatureStore
    from sorep.structure import Structure as Structure
    from sorep.transformers import KineticSOREP as KineticSOREP
    from sorep.transformers import kinetic_feature as kinetic_feature
    from sorep.transformers import kinetic_spectrum as kinetic_spectrum
    from sorep.transformers import single_shot_feature as single_shot_feature
    from sorep.transformers import single_shot_spectrum as single_shot_spectrum

_HOMES = {
    "BandStructure": "sorep.bands",
    "FEATURES": "sorep.features",
    "FeatureSpec": "sorep.features",
    "FeatureStore": "sorep.store",
    "KineticSOREP": "sorep.transformers",
    "KineticSettings": "sorep.kinetic.method",
    "Levels": "sorep.levels",
    "SingleShotSettings": "sorep.single_shot.method",
    "SorepError": "sorep.errors",
    "Spectrum": "sorep.spectrum",
    "Structure": "sorep.structure",
    "Window": "sorep.features",
    "band_structure": "sorep.bands",
    "compute_feature": "sorep.features",
    "find_levels": "sorep.levels",
    "kinetic_feature": "sorep.transformers",
    "kinetic_spectrum": "sorep.transformers",
    "single_shot_feature": "sorep.transformers",
    "single_shot_spectrum": "sorep.transformers",
    "structures_from": "sorep.sources",
}

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("sorep")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

"""The Python surface: one structure by a function, many by a scikit-learn transformer."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from functools import partial
from numbers import Integral
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from sorep.engine import LocalEngine, SerialEngine
from sorep.errors import Failure, SorepError, UsageError
from sorep.features import FeatureSpec, compute_feature, get_feature
from sorep.featurize import feature_identity
from sorep.identity import Identity
from sorep.kinetic.method import KineticSettings
from sorep.spectrum import Spectrum
from sorep.structure import DEFAULT_MINIMUM_DISTANCE, Structure


class FailedStructuresWarning(UserWarning):
    """Some structures have no features; their rows are NaN."""


def kinetic_spectrum(structure: Any, **settings: Any) -> Spectrum:
    """Kinetic-energy spectrum of one structure.

    Parameters
    ----------
    structure : Structure, ase.Atoms or pymatgen.core.Structure
    **settings
        Fields of `KineticSettings`, e.g. ``basis="ano-ml-ae"``, ``k_spacing=0.1``, ``operator="overlap"``.

    Returns
    -------
    Spectrum
        Eigenvalues in eV (pure numbers for the overlap).

    Raises
    ------
    StructureError, BasisError, SpectrumError
        Each names what is wrong and what to do.
    """
    return KineticSettings(**settings).calculate(Structure.from_any(structure).validate()).spectrum


def kinetic_feature(structure: Any, feature: str | FeatureSpec = "kinetic", **settings: Any) -> NDArray[np.float64]:
    """Kinetic SOREP of one structure: `kinetic_spectrum`, then `compute_feature`.

    Parameters
    ----------
    structure, **settings
        As for `kinetic_spectrum`.
    feature : str or FeatureSpec
        Name of a built-in grid, path of a .toml or .json file, or a specification.

    Returns
    -------
    (n_features,) array
        Density of states, 1/(eV Angstrom^3) with the default normalisation.
    """
    return compute_feature(kinetic_spectrum(structure, **settings), get_feature(feature))


def single_shot_spectrum(structure: Any, *, pw_x: str | None = None, **settings: Any) -> Spectrum:
    """Kohn-Sham spectrum of the superposed atomic densities of one structure, by one run of pw.x.

    Parameters
    ----------
    structure : Structure, ase.Atoms or pymatgen.core.Structure
    pw_x : str, optional
        Path of the executable; by default as `sorep.single_shot.executable.find_pw_x` finds it.
    **settings
        Fields of `SingleShotSettings`, e.g. ``family="sssp-1.3-pbe-efficiency"``, ``k_spacing=0.3``, ``spin=True``;
        ``iterations=-1`` converges the calculation instead.

    Returns
    -------
    Spectrum
        Eigenvalues in eV, with the number of valence electrons.

    Raises
    ------
    StructureError, PseudoError, PwError, OutputError
        Each names what is wrong and what to do.
    """
    from sorep.single_shot.executable import find_pw_x, probe
    from sorep.single_shot.method import SingleShot, SingleShotSettings
    from sorep.single_shot.runner import PwRunner
    from sorep.single_shot.scratch import Scratch

    with Scratch() as scratch:
        runner = PwRunner(probe(find_pw_x(pw_x)), scratch.root)
        method = SingleShot(SingleShotSettings.checked(**settings), runner)
        return method.calculate(Structure.from_any(structure).validate()).spectrum


def single_shot_feature(
    structure: Any, feature: str | FeatureSpec = "vbm", *, pw_x: str | None = None, **settings: Any
) -> NDArray[np.float64]:
    """Single-shot SOREP of one structure: `single_shot_spectrum`, then `compute_feature`.

    Parameters
    ----------
    structure, pw_x, **settings
        As for `single_shot_spectrum`.
    feature : str or FeatureSpec
        Name of a built-in grid, path of a .toml or .json file, or a specification.

    Returns
    -------
    (n_features,) array
        Density of states, 1/(eV Angstrom^3) with the default normalisation.
    """
    return compute_feature(single_shot_spectrum(structure, pw_x=pw_x, **settings), get_feature(feature))


class KineticSOREP(TransformerMixin, BaseEstimator):
    """Structures to a matrix of kinetic SOREPs, as a scikit-learn transformer.

    Parameters
    ----------
    feature : str or FeatureSpec
        Grid of the density of states.
    operator : {"kinetic", "overlap"}
    basis : str
        Name or path of a basis set.
    discard_below : float
        Drop primitives with smaller exponents, Bohr^-2.
    k_spacing : float
        1/Angstrom.
    k_rounding : {"ceil", "round"}
    keep_cell : bool
        Compute in the given cells; features then depend on how a crystal is written down.
    minimum_distance : float
        Angstrom; structures with atoms closer than this are refused.
    on_error : {"raise", "nan"}
        What a structure without a feature does: stop, or become a row of NaN with a `FailedStructuresWarning`.
        Either way `failures_` tells which and why.
    n_jobs : int
        Worker processes; 1 computes in this process.

    Attributes
    ----------
    failures_ : list of Failure
        Of the last `transform`; the id of a structure without one is its index.

    Examples
    --------
    >>> from ase.build import bulk
    >>> KineticSOREP().fit_transform([bulk("Si"), bulk("Ge")]).shape
    (2, 1024)
    """

    def __init__(
        self,
        feature: str | FeatureSpec = "kinetic",
        *,
        operator: str = "kinetic",
        basis: str = "ano-ml-os",
        discard_below: float = 0.0,
        k_spacing: float = 0.2,
        k_rounding: str = "ceil",
        keep_cell: bool = False,
        minimum_distance: float = DEFAULT_MINIMUM_DISTANCE,
        on_error: Literal["raise", "nan"] = "raise",
        n_jobs: int = 1,
    ) -> None:
        self.feature = feature
        self.operator = operator
        self.basis = basis
        self.discard_below = discard_below
        self.k_spacing = k_spacing
        self.k_rounding = k_rounding
        self.keep_cell = keep_cell
        self.minimum_distance = minimum_distance
        self.on_error = on_error
        self.n_jobs = n_jobs

    def fit(self, X: Iterable[Any] | None = None, y: Any = None) -> KineticSOREP:
        """Check the parameters; nothing is learned from ``X``."""
        self._settings()
        get_feature(self.feature)
        if self.on_error not in ("raise", "nan"):
            raise UsageError(f"on_error={self.on_error!r}", code="bad-option", remedy="choose 'raise' or 'nan'")
        if not isinstance(self.n_jobs, Integral) or self.n_jobs < 1:
            raise UsageError(f"n_jobs={self.n_jobs!r}", code="bad-option", remedy="give a number of 1 or more")
        return self

    def transform(self, X: Iterable[Any]) -> NDArray[np.float64]:
        """Features of structures.

        Parameters
        ----------
        X : iterable of Structure, ase.Atoms or pymatgen.core.Structure

        Returns
        -------
        (n, n_features) array, one row for each structure, in order

        Raises
        ------
        SorepError
            Of the first structure that fails, with ``on_error="raise"``.
        """
        self.fit()
        spec = get_feature(self.feature)
        task = partial(_numbered_feature, settings=self._settings(), spec=spec, minimum_distance=self.minimum_distance)
        if hasattr(X, "get_chemical_formula") or hasattr(X, "lattice"):
            raise UsageError("X is one structure", code="bad-option", remedy="give a list: transform([structure])")
        materials = list(X)
        values = np.full((len(materials), spec.n_features), np.nan)
        self.failures_: list[Failure] = []
        with SerialEngine() if self.n_jobs == 1 else LocalEngine(self.n_jobs) as engine:
            for outcome in engine.map_unordered(task, enumerate(materials)):
                index, material = outcome.item
                if outcome.error is None:
                    values[index] = outcome.value
                    continue
                id = getattr(material, "id", None) or str(index)
                if self.on_error == "raise":
                    raise _naming(outcome.error, id)
                self.failures_.append(Failure.from_error(outcome.error, id=id, source=f"X[{index}]"))
        if self.failures_:
            self.failures_.sort(key=lambda failure: int(failure.source[2:-1]))
            first = self.failures_[0]
            warnings.warn(
                f"{len(self.failures_)} of {len(materials)} structures have no features and are rows of NaN; "
                f"the first is {first.id} ({first.code}: {first.message}); see failures_",
                FailedStructuresWarning,
                stacklevel=2,
            )
        return values

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Column names that tell anchor and energy, e.g. ``+1.2103eV``."""
        return np.array(get_feature(self.feature).feature_names, dtype=object)

    @property
    def identity(self) -> Identity:
        """Identity of the features, equal to that of the same options in a store."""
        return feature_identity(self._settings().identity(), get_feature(self.feature))

    def _settings(self) -> KineticSettings:
        return KineticSettings.checked(
            operator=self.operator,
            basis=self.basis,
            discard_below=self.discard_below,
            k_spacing=self.k_spacing,
            k_rounding=self.k_rounding,
            keep_cell=self.keep_cell,
        )

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.no_validation = True
        tags.input_tags.two_d_array = False
        return tags


def _numbered_feature(
    numbered: tuple[int, Any], settings: KineticSettings, spec: FeatureSpec, minimum_distance: float
) -> NDArray[np.float64]:
    structure = Structure.from_any(numbered[1]).validate(minimum_distance=minimum_distance)
    return compute_feature(settings.calculate(structure).spectrum, spec)


def _naming(error: SorepError, id: str) -> SorepError:
    return type(error)(f"structure {id}: {error.message}", code=error.code, stage=error.stage, remedy=error.remedy)

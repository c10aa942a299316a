"""A trained model as one file: the estimator, and all that must hold where it is used.

The file is a zip of ``card.json``, which anything can read, and of estimators in the format of skops, which is read
without running code that the file brings along: types other than scikit-learn's and imbalanced-learn's own are refused.
"""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sorep.errors import ScreeningError
from sorep.identity import Identity
from sorep.screening.dataset import Dataset, Part, identity_of, load_dataset
from sorep.screening.models import predicted
from sorep.store.feature_store import FeatureStore

FORMAT = 1
_CARD, _ESTIMATOR, _CALIBRATOR = "card.json", "estimator.skops", "calibrator.skops"
_LIBRARIES = ("sorep", "scikit-learn", "imbalanced-learn", "numpy")
_TRUSTED_TYPES = (
    "sklearn.tree._tree.Tree",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sorep.screening.models.Scaler",
)


def versions() -> dict[str, str]:
    """Versions of the libraries that a fitted model depends on."""
    return {name: version(name) for name in _LIBRARIES}


@dataclass(frozen=True, eq=False)
class ScreeningModel:
    """A fitted estimator and where it came from.

    Attributes
    ----------
    estimator : fitted scikit-learn estimator
    parts : tuple of Part
        Features that it was trained on, with their identity.
    feature_names : list of str
    training_ids : list of str
    label : str
        Name of what is predicted: a column of labels, or a numeric target.
    is_regression : bool
    model : str
        Preset or class that was asked for.
    params : dict of str to Any
        Parameters that were changed.
    seed : int
    metrics : dict of str to (dict of str to float)
        Of each feature set, by grouped cross-validation.
    criteria : str
        How the labels came about, in words.
    calibrator : fitted scikit-learn estimator or None
        Turns scores into probabilities: ``predict_proba`` of a column of scores, or ``predict`` of scores.
    threshold : float or None
        Score from which on a structure is a candidate; None for the usual 0.5.
    calibration : dict of str to Any
        What was asked of the calibration and what it gave, in words and numbers.
    versions : dict of str to str
        Of the libraries, when it was trained.
    """

    estimator: Any
    parts: tuple[Part, ...]
    feature_names: list[str]
    training_ids: list[str]
    label: str
    is_regression: bool = False
    model: str = "default"
    params: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    criteria: str = ""
    calibrator: Any = None
    threshold: float | None = None
    calibration: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=versions)

    @property
    def identity(self) -> Identity:
        """What the features depend on."""
        return identity_of(self.parts)

    @property
    def features(self) -> str:
        """Name of the feature set, to load the same from a store that has several identities."""
        return "+".join(f"{part.name}@{part.identity.hash}" for part in self.parts)

    @property
    def plain_features(self) -> str:
        """Name of the feature set, whatever the identity."""
        return "+".join(part.name for part in self.parts)

    def scores(self, dataset: Dataset) -> NDArray[np.float64]:
        """What the estimator says: its probability of the positive class, or the value of a regression, (n,).

        Raises
        ------
        IdentityError
            ``mixed-identity`` where the features are not those that it was trained on; the message tells the
            differences.
        ScreeningError
            ``other-features``, ``non-finite-features``.
        """
        for mine, given in zip(self.parts, dataset.parts, strict=False):
            mine.identity.require_equal(given.identity)
        if dataset.feature_names != self.feature_names or dataset.values.shape[1] != len(self.feature_names):
            raise ScreeningError(
                f"the model was trained on {len(self.feature_names)} features of {self.plain_features}, and given "
                f"{dataset.values.shape[1]} of {dataset.name}",
                code="other-features",
                remedy=f"load the features {self.plain_features}",
            )
        is_finite = np.isfinite(dataset.values).all(axis=1)
        if not is_finite.all():
            raise ScreeningError(
                f"features of {dataset.ids[~is_finite][0]} are not finite",
                code="non-finite-features",
                remedy="compute this structure anew, or leave it out",
            )
        return predicted(self.estimator, dataset.values)

    def predict(self, dataset: Dataset) -> NDArray[np.float64]:
        """Probabilities, calibrated if the model is, or the values of a regression, (n,); raises as `scores`."""
        return self.calibrated(self.scores(dataset))

    def calibrated(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities of scores; the scores themselves where the model is not calibrated."""
        if self.calibrator is None:
            return scores
        if hasattr(self.calibrator, "predict_proba"):
            return predicted(self.calibrator, scores[:, np.newaxis])
        return self.calibrator.predict(scores)

    def dataset(self, store: FeatureStore) -> Dataset:
        """The features that it was trained on, of all structures of a store that have them.

        Raises
        ------
        IdentityError
            ``mixed-identity`` where the store has these features with another identity only.
        SorepError
            As `load_dataset`.
        """
        offers = store.features()
        for part in self.parts:
            hashes = offers.loc[offers["name"] == part.name, "identity"].tolist()
            if hashes and part.identity.hash not in hashes:
                part.identity.require_equal(store.identities()[hashes[0]])
        return load_dataset(store, self.features)

    def version_differences(self) -> list[str]:
        """Libraries whose version is another one now than at training."""
        now = versions()
        return [
            f"{name}: {then} at training, {now.get(name)} now"
            for name, then in self.versions.items()
            if now.get(name) != then
        ]

    def save(self, path: str | Path) -> None:
        """Write one file, whole or not at all.

        Raises
        ------
        ScreeningError
            ``not-savable`` where a type is not one that `load` trusts, ``unwritable-file``.
        """
        files = {_CARD: json.dumps(self._card(), indent=1, allow_nan=False).encode(), _ESTIMATOR: _dump(self.estimator)}
        if self.calibrator is not None:
            files[_CALIBRATOR] = _dump(self.calibrator)
        path = Path(path)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, content in files.items():
                    archive.writestr(name, content)
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise ScreeningError(
                f"cannot write {path}: {error}", code="unwritable-file", remedy="check folder, permissions and space"
            ) from None

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote; the predictions are the same to the last bit.

        Raises
        ------
        ScreeningError
            ``no-model`` where there is no file, ``bad-model`` where it is truncated or something else,
            ``untrusted-model`` where it holds types that are neither scikit-learn's nor imbalanced-learn's.
        """
        path = Path(path)
        try:
            with zipfile.ZipFile(path) as archive:
                card = json.loads(archive.read(_CARD))
                if card["format"] != FORMAT:
                    raise ValueError(f"its format is {card['format']}, and this version of sorep reads {FORMAT}")
                estimator = _load(archive.read(_ESTIMATOR), path)
                has_calibrator = _CALIBRATOR in archive.namelist()
                calibrator = _load(archive.read(_CALIBRATOR), path) if has_calibrator else None
            return cls._from_card(card, estimator, calibrator)
        except FileNotFoundError:
            raise ScreeningError(
                f"there is no {path}", code="no-model", remedy="`sorep screen fit` makes one"
            ) from None
        except ScreeningError:
            raise
        except Exception as error:  # a damaged file can fail anywhere in three libraries
            raise ScreeningError(
                f"{path} cannot be read as a screening model: {type(error).__name__}: {error}",
                code="bad-model",
                remedy="train it again with `sorep screen fit`",
            ) from error

    def _card(self) -> dict[str, Any]:
        card = {name: value for name, value in vars(self).items() if name not in ("estimator", "calibrator", "parts")}
        parts = [asdict(part) | {"identity": part.identity.words} for part in self.parts]
        return _jsonable({"format": FORMAT, "parts": parts, **card})

    @classmethod
    def _from_card(cls, card: dict[str, Any], estimator: Any, calibrator: Any) -> Self:
        fields = {name: value for name, value in card.items() if name not in ("format", "parts")}
        parts = tuple(
            Part(part["name"], Identity(_canonical(part["identity"])), part["n_features"]) for part in card["parts"]
        )
        fields["metrics"] = {
            name: {key: math.nan if value is None else value for key, value in of.items()}
            for name, of in card["metrics"].items()
        }
        return cls(estimator=estimator, calibrator=calibrator, parts=parts, **fields)


def require_savable(estimator: Any) -> None:
    """Refuse an estimator, fitted or not, that could be trained but not be loaded again."""
    _dump(estimator)


def _dump(estimator: Any) -> bytes:
    import skops.io

    data = skops.io.dumps(estimator)
    _trusted(data, "not-savable", "the model")
    return data


def _load(data: bytes, path: Path) -> Any:
    import skops.io

    return skops.io.loads(data, trusted=_trusted(data, "untrusted-model", str(path)))


def _trusted(data: bytes, code: str, what: str) -> list[str]:
    """The types in this dump that skops does not know, all of them ours to trust."""
    import skops.io

    types = skops.io.get_untrusted_types(data=data)
    foreign = [name for name in types if not _is_trusted(name)]
    if foreign:
        raise ScreeningError(
            f"{what} holds {', '.join(foreign)}, which are neither scikit-learn's nor imbalanced-learn's",
            code=code,
            remedy="use a model of these libraries; a file that names other types could run code that it brings along",
        )
    return types


def _is_trusted(name: str) -> bool:
    from sklearn.base import BaseEstimator

    if name in _TRUSTED_TYPES:
        return True
    module, _, kind = name.rpartition(".")
    if module.split(".")[0] not in ("sklearn", "imblearn"):
        return False
    found = getattr(import_module(module), kind, None)
    return isinstance(found, type) and issubclass(found, BaseEstimator)


def _canonical(words: Mapping[str, Any]) -> str:
    return json.dumps(words, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _jsonable(value: Any) -> Any:
    """Numbers of NumPy as Python's, NaN as null."""
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _jsonable(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_jsonable(item) for item in value]
    if isinstance(value, np.generic):
        return _jsonable(value.item())
    return None if isinstance(value, float) and math.isnan(value) else value

"""A trained model on disk: weights as safetensors, and everything else that must hold where it is used as JSON.

    model.json           what the model is, what it was trained on, and how the training ended
    model.safetensors    the weights of the best epoch

Neither can carry code. Weights name the run that they belong to, so a mixture of two runs is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from sorep.errors import Mat2SpecError
from sorep.identity import Identity
from sorep.mat2spec.config import ModelConfig, TrainingConfig
from sorep.mat2spec.networks import Network, get_network
from sorep.mat2spec.scaling import Scaling
from sorep.mat2spec.split import Split
from sorep.mat2spec.sums import SizeModel
from sorep.settings import Settings

ABOUT, WEIGHTS, SPLIT = "model.json", "model.safetensors", "split.csv"

_LIBRARIES = ("sorep", "torch", "safetensors", "numpy", "scikit-learn")


def versions() -> dict[str, str]:
    """Versions of the libraries that a model depends on."""
    return {name: version(name) for name in _LIBRARIES}


class Result(Settings):
    """How a training ended.

    ``loss`` is that of the feature branch on the validation part, at the best epoch; ``diagnostics`` tell whether the
    latent space is used (`sorep.mat2spec.diagnostics`), and ``warnings`` what they mean.
    """

    epochs: int
    best_epoch: int
    loss: float
    diagnostics: dict[str, float | None]
    warnings: tuple[str, ...]


class About(Settings):
    """All of a model but its weights.

    Attributes
    ----------
    format : int
    run : str
        Hash of everything that the weights depend on.
    network : str
        Name of the network.
    model, training : ModelConfig, TrainingConfig
    target : str
        What the spectra are, in the words of the user.
    energies, unit : tuple of float, str
        Bin centres.
    features : dict of str to str
        Names of the features that the SOREP is made of, and texts of their identities; empty for a model that reads
        graphs only.
    n_sorep : int
        Length of the SOREP.
    scaling : dict
        State of `Scaling`.
    size_model : dict or None
        State of `SizeModel`, where the scaling takes sizes away that differ.
    formulas : tuple of str
        Reduced formulas of the training part.
    data : dict of str to str
        Checksums of the training and the validation part.
    versions : dict of str to str
        Of libraries, at training.
    result : Result or None
        None while the training goes on.
    """

    format: int = 1
    run: str
    network: str
    model: ModelConfig
    training: TrainingConfig
    target: str
    energies: tuple[float, ...]
    unit: str
    features: dict[str, str]
    n_sorep: int
    scaling: dict[str, Any]
    size_model: dict[str, Any] | None = None
    formulas: tuple[str, ...]
    data: dict[str, str]
    versions: dict[str, str]
    result: Result | None = None

    def save(self, folder: Path) -> None:
        """Write ``model.json``, whole or not at all."""
        write_whole(folder / ABOUT, json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False).encode())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read ``model.json``.

        Raises
        ------
        Mat2SpecError
            ``no-model``, ``bad-model``.
        """
        path = folder / ABOUT
        if not path.is_file():
            raise Mat2SpecError(f"there is no {path}", code="no-model", remedy="`sorep mat2spec train` makes one")
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise _bad_model(path, error) from None


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A model that can predict.

    Attributes
    ----------
    about : About
    model : torch.nn.Module
        With the weights of the best epoch, in evaluation mode.
    weights : str
        Hash of these weights.
    split : Split
        Ids that it was trained on, stopped by, and is to be tested on.
    """

    about: About
    model: nn.Module
    weights: str
    split: Split

    @cached_property
    def network(self) -> Network:
        return get_network(self.about.network, self.about.model)

    @cached_property
    def scaling(self) -> Scaling:
        return Scaling.from_state(self.about.scaling)

    @cached_property
    def size_model(self) -> SizeModel | None:
        """None where a prediction needs no sizes."""
        return None if self.about.size_model is None else SizeModel.from_state(self.about.size_model)

    @property
    def energies(self) -> NDArray[np.float64]:
        return np.array(self.about.energies)

    @property
    def features(self) -> dict[str, Identity]:
        """Identities of the features that it reads, by name."""
        return {name: Identity(text) for name, text in self.about.features.items()}

    @property
    def feature(self) -> str:
        """These features as `sorep.mat2spec.data.load_inputs` takes them; empty for a model that reads graphs only."""
        return "+".join(f"{name}@{identity.hash}" for name, identity in self.features.items())

    @property
    def words(self) -> dict[str, Any]:
        """What a predicted spectrum depends on besides the crystal, its SOREP, and where its size came from."""
        about = self.about
        return {
            "network": about.network,
            "weights": self.weights,
            "target": about.target,
            "grid": [about.energies[0], about.energies[-1], len(about.energies)],
            "unit": about.unit,
            "inputs": {name: identity.hash for name, identity in self.features.items()},
        }

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> Self:
        """Read a run's folder; predictions are the same to the last bit as before it was written.

        Raises
        ------
        Mat2SpecError
            ``no-model``, ``bad-model``.
        """
        folder = Path(folder)
        about = About.load(folder)
        with torch.random.fork_rng([]):  # random weights, to be replaced at once
            model = get_network(about.network, about.model).build(about.model, len(about.energies), about.n_sorep)
        try:
            tensors, words = read_tensors(folder / WEIGHTS)
            if words.get("run") != about.run:
                raise ValueError(f"its weights belong to the run {words.get('run')}, and not to {about.run}")
            model.load_state_dict(tensors)
            split = Split.load(folder / SPLIT)
        except (OSError, SafetensorError, ValueError, RuntimeError) as error:
            raise _bad_model(folder, error) from None
        model.to(device).eval()
        return cls(about, model, _hash(folder / WEIGHTS), split)


def write_tensors(path: Path, tensors: dict[str, Tensor], words: dict[str, str]) -> None:
    """Write a safetensors file, whole or not at all."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_whole(path, save(plain, words))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and words of a safetensors file."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file in one step: a killed process leaves the old one or the new one.

    Raises
    ------
    Mat2SpecError
        ``unwritable-file``.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise Mat2SpecError(
            f"cannot write {path}: {error}", code="unwritable-file", remedy="check folder, permissions and space"
        ) from None


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _bad_model(path: Path, error: Exception) -> Mat2SpecError:
    return Mat2SpecError(
        f"{path} cannot be read as a model: {type(error).__name__}: {str(error).splitlines()[0]}",
        code="bad-model",
        remedy="train it again with `sorep mat2spec train`, into a new folder",
    )

"""Networks that can be trained to predict spectra, by name: Mat2Spec, and those that it is compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from sorep.errors import UsageError
from sorep.mat2spec.config import EncoderKind, ModelConfig
from sorep.mat2spec.data import Inputs
from sorep.mat2spec.encoders import make_encoder
from sorep.mat2spec.model import Mat2Spec
from sorep.mat2spec.perceptron import CompositionEncoder, Perceptron


@dataclass(frozen=True)
class Network:
    """How a network is made.

    Attributes
    ----------
    build : callable
        ``(config, n_bins, n_sorep) -> network`` with random weights, a `sorep.mat2spec.model.SpectrumRegressor` whose
        ``loss`` has the terms ``feature``, by which the epoch to stop at is chosen, and ``total``.
    encoders : tuple of str
        Encoders of `ModelConfig` with which it goes.
    prepare : callable
        Turns inputs into those that the network reads.
    """

    build: Callable[[ModelConfig, int, int], nn.Module]
    encoders: tuple[EncoderKind, ...] = ("graph",)
    prepare: Callable[[Inputs], Inputs] = lambda inputs: inputs


def _mat2spec(config: ModelConfig, n_bins: int, n_sorep: int) -> nn.Module:
    return Mat2Spec(config, n_bins, make_encoder(config, n_sorep))


def _composition(config: ModelConfig, n_bins: int, n_sorep: int) -> nn.Module:
    return Perceptron(config, n_bins, CompositionEncoder())


def _gatgnn(config: ModelConfig, n_bins: int, n_sorep: int) -> nn.Module:
    return Perceptron(config, n_bins, make_encoder(config))


def _e3nn(config: ModelConfig, n_bins: int, n_sorep: int) -> nn.Module:
    from sorep.mat2spec.equivariant import EquivariantEncoder

    return Perceptron(config, n_bins, EquivariantEncoder())


def _with_directions(inputs: Inputs) -> Inputs:
    from sorep.mat2spec.equivariant import EquivariantInputs

    return EquivariantInputs.of(inputs)


NETWORKS: dict[str, Network] = {
    "mat2spec": Network(_mat2spec, ("graph", "sorep", "both")),
    "composition": Network(_composition),
    "gatgnn": Network(_gatgnn),
    "e3nn": Network(_e3nn, prepare=_with_directions),
}


def get_network(name: str, config: ModelConfig) -> Network:
    """By name, for an encoder that it goes with.

    Raises
    ------
    UsageError
        ``unknown-network``, ``bad-encoder``.
    """
    if name not in NETWORKS:
        raise UsageError(f"unknown network {name!r}", code="unknown-network", remedy=f"use {', '.join(NETWORKS)}")
    if config.encoder not in NETWORKS[name].encoders:
        raise UsageError(
            f"the network {name} has no encoder {config.encoder!r}",
            code="bad-encoder",
            remedy=f"choose {' or '.join(NETWORKS[name].encoders)}",
        )
    return NETWORKS[name]


def chosen_device(name: str) -> torch.device:
    """``auto`` is the first CUDA device where there is one, and else the CPU.

    Raises
    ------
    UsageError
        ``unknown-device``.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"device {name!r}: {str(error).splitlines()[0]}", code="unknown-device", remedy="use auto, cpu or cuda"
        ) from None
    return device

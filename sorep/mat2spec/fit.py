"""The loop over epochs: a network, its optimizer, and how far they are. Nothing here touches the disk.

All chance in epoch n comes from generators that are seeded with the run's seed and n, so none of it has to be stored.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sorep.errors import Mat2SpecError
from sorep.mat2spec.config import TrainingConfig
from sorep.mat2spec.data import Inputs
from sorep.mat2spec.encoders import Batch

MOST_AT_ONCE = 256
"""Crystals in a batch from which nothing is learned."""


@dataclass(frozen=True)
class Epoch:
    """One line of the log.

    Attributes
    ----------
    epoch : int
        From 1.
    learning_rate : float
    train : dict of str to float
        Terms of the loss, means over the crystals as they were trained on: with dropout, and with weights that changed
        meanwhile.
    val : float
        Loss of the feature branch on the validation part.
    is_best : bool
        Whether it is the lowest so far.
    cpu_seconds : float
    """

    epoch: int
    learning_rate: float
    train: dict[str, float]
    val: float
    is_best: bool
    cpu_seconds: float


@dataclass
class State:
    """Where a run stands after an epoch."""

    epoch: int = 0
    best_epoch: int = 0
    best_loss: float = math.inf


class Fit:
    """A network while it is trained.

    Parameters
    ----------
    network : torch.nn.Module
        A `sorep.mat2spec.model.SpectrumRegressor`, on the device.
    training : TrainingConfig
    inputs : mapping of str to Inputs
        Of the parts ``train`` and ``val``, as the network reads them.
    scaled : mapping of str to tensor
        Their scaled spectra (n, n_bins), on the device.
    """

    def __init__(
        self, network: nn.Module, training: TrainingConfig, inputs: Mapping[str, Inputs], scaled: Mapping[str, Tensor]
    ) -> None:
        self.network, self.training, self.inputs, self.scaled = network, training, inputs, scaled
        self.device = scaled["train"].device
        self.state = State()
        self.best = self._weights()
        self.optimizer = torch.optim.AdamW(
            network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
        )

    @property
    def is_finished(self) -> bool:
        state = self.state
        return state.epoch >= self.training.epochs or state.epoch - state.best_epoch >= self.training.patience

    def epoch(self) -> Epoch:
        """Train for one epoch, and validate."""
        number, training, start = self.state.epoch + 1, self.training, time.process_time()
        rate = training.learning_rate * 0.5 ** (4 * (number - 1) // training.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with chance(training.seed, number, self.device):
            terms = self._train()
        loss = self.loss("val")
        if not math.isfinite(loss + terms["total"]):
            raise Mat2SpecError(
                f"the loss is not finite in epoch {number}",
                code="diverged",
                remedy="lower the learning rate; weights and log of the epochs before are in the folder",
            )
        is_best = loss < self.state.best_loss
        self.state.epoch = number
        if is_best:
            self.state.best_epoch, self.state.best_loss = number, loss
            self.best = self._weights()
        return Epoch(number, rate, terms, loss, is_best, round(time.process_time() - start, 3))

    def _train(self) -> dict[str, float]:
        self.network.train()
        n, sums = len(self.scaled["train"]), {}
        for rows in batches(torch.randperm(n), self.training.batch_size):
            terms = self._terms("train", rows)
            self.optimizer.zero_grad(set_to_none=True)
            terms["total"].backward()
            self.optimizer.step()
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + len(rows) * value.detach()
        return {name: float(value) / n for name, value in sums.items()}

    @torch.no_grad()
    def loss(self, part: str) -> float:
        """Loss of the feature branch, without dropout or sampling."""
        self.network.eval()
        n, total = len(self.scaled[part]), 0.0
        for rows in torch.arange(n).split(MOST_AT_ONCE):
            total += len(rows) * float(self._terms(part, rows)["feature"])
        return total / n

    def _terms(self, part: str, rows: Tensor) -> dict[str, Tensor]:
        network: Any = self.network  # of which `torch.nn.Module` does not know all methods
        batch, y = self.batch(part, rows)
        return network.loss(network.training_outputs(batch, y), y)

    def batch(self, part: str, rows: Tensor) -> tuple[Batch, Tensor]:
        """Inputs and scaled targets of these rows, on the device."""
        return self.inputs[part].batch(rows.numpy()).to(self.device), self.scaled[part][rows.to(self.device)]

    def tensors(self) -> dict[str, Tensor]:
        """With `state`, all that `restore` needs to go on from here."""
        tensors = {f"model/{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"best/{name}": tensor for name, tensor in self.best.items()}
        for number, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{number}/{name}": tensor for name, tensor in moments.items()}
        return tensors

    def restore(self, tensors: Mapping[str, Tensor], state: State) -> None:
        """Go on from what `tensors` and `state` were."""
        self.state = state
        self.network.load_state_dict(_below(tensors, "model/"))
        self.best = {name: tensor.to(self.device) for name, tensor in _below(tensors, "best/").items()}
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _below(tensors, "optimizer/").items():
            number, _, key = name.partition("/")
            moments.setdefault(int(number), {})[key] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self.network.state_dict().items()}


def batches(order: Tensor, size: int) -> list[Tensor]:
    """Rows in batches of ``size``; a single one that is left joins the last batch, since it has no variance."""
    parts = list(order.split(size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


@contextmanager
def chance(seed: int, epoch: int, device: torch.device) -> Iterator[None]:
    """Random numbers that depend on seed and epoch only; those of the caller are left as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0]))
        yield


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

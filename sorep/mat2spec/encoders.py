"""From a crystal to a vector: its graph, its SOREP, or both. What follows in a model sees the vector only.

Graph attention, after GATGNN (Louis et al., Phys. Chem. Chem. Phys. 22, 18141, 2020) as Mat2Spec uses it (eqs. 2-5).
With h_i the state of atom i and u_ij that of an edge, for each of several heads

    x_i = softplus(W [h_i, u_ij]),  x_j = softplus(W [h_j, u_ij])
    e_ij = softplus(norm(softplus(a . [x_i, x_j]))),  w_ij = exp(e_ij) / sum over neighbours k of exp(e_ik)
    h_i <- softplus(norm(h_i')),  h_i' = mean over heads of sum over neighbours j of w_ij x_j

W [h, u] is W_h h + W_u u, so W_h h is computed once an atom and W_u u once a length, and neither for every edge. The
crystal's vector is the sum of its atoms' states, weighted by a softmax over its atoms of a gate that sees the state and
the composition. Everything is symmetric in the atoms and depends on distances only, and a supercell repeats the same
atoms with smaller weights: the vector is the crystal's, whatever cell, orientation or order of atoms describes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional as F

from sorep.errors import Mat2SpecError
from sorep.mat2spec.config import ModelConfig
from sorep.mat2spec.elements import N_FEATURES, element_features
from sorep.mat2spec.graph import CUTOFF, N_FRACTIONS, GraphBatch

_WIDTH = 0.2  # Angstrom, of the Gaussians of a distance and between them
_GATE = 32
_MOMENTUM, _EPSILON = 0.1, 1e-5  # as torch's own batch normalisation
_SPECTRUM_HIDDEN = 256
_SPECTRUM_OUT = 128
_CONSTANT = 1e-6  # of the largest deviation: a feature that never varies


@dataclass(frozen=True, eq=False)
class Batch:
    """Inputs of several crystals: their graphs, their SOREPs (n_crystals, n_features), or both."""

    graphs: GraphBatch | None = None
    sorep: Tensor | None = None

    def __len__(self) -> int:
        return next(len(part) for part in (self.graphs, self.sorep) if part is not None)

    def to(self, device: torch.device | str) -> Batch:
        """The same on a device."""
        graphs, sorep = self.graphs, self.sorep
        return Batch(None if graphs is None else graphs.to(device), None if sorep is None else sorep.to(device))


class Encoder(nn.Module):
    """Turns a batch into vectors (n_crystals, out_dim)."""

    out_dim: int

    def forward(self, batch: Batch) -> Tensor:
        raise TypeError(f"{type(self).__name__} is abstract")


class GraphEncoder(Encoder):
    """Graph attention."""

    def __init__(self, channels: int = 128, n_layers: int = 3, n_heads: int = 4) -> None:
        super().__init__()
        self.out_dim = channels
        centres = torch.arange(0.0, CUTOFF + _WIDTH / 2, _WIDTH)
        self.register_buffer("centres", centres)
        self.register_buffer("elements", torch.tensor(element_features(), dtype=torch.get_default_dtype()))
        self.atom = nn.Linear(N_FEATURES, channels)
        self.edge = nn.Linear(len(centres), channels)
        self.layers = nn.ModuleList(GraphAttention(channels, n_heads) for _ in range(n_layers))
        self.norms = nn.ModuleList(nn.BatchNorm1d(channels) for _ in range(n_layers))
        self.gate = nn.Sequential(nn.Linear(channels + N_FRACTIONS, _GATE), nn.Softplus(), nn.Linear(_GATE, 1))

    def forward(self, batch: Batch) -> Tensor:
        graph = batch.graphs
        if graph is None:
            raise Mat2SpecError("a batch without graphs", code="missing-input", remedy="build the crystals' graphs")
        centres, elements = self.get_buffer("centres"), self.get_buffer("elements")
        lengths, length = torch.unique(graph.distances, return_inverse=True)  # many edges have the same
        gaussians = torch.exp(-(((lengths[:, None] - centres) / _WIDTH) ** 2))
        u = F.leaky_relu(self.edge(gaussians), 0.2)
        h = self.atom(elements[graph.numbers])
        for layer, norm in zip(self.layers, self.norms, strict=True):
            h = F.softplus(norm(layer(h, u, length, graph)))
        logits = self.gate(torch.cat([h, graph.compositions[graph.crystal]], dim=1))
        weights = segment_softmax(logits, graph.crystal, len(graph))
        return h.new_zeros(len(graph), self.out_dim).index_add(0, graph.crystal, weights * h)


class GraphAttention(nn.Module):
    """One layer of graph attention, without the last norm and softplus."""

    def __init__(self, channels: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.of_atom = nn.Linear(channels, n_heads * channels, bias=False)
        self.of_edge = nn.Linear(channels, n_heads * channels, bias=False)
        self.attention = nn.Parameter(torch.empty(2, n_heads, channels))
        self.norm = EdgeNorm(n_heads)
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.xavier_uniform_(self.attention)

    def forward(self, h: Tensor, u: Tensor, length: Tensor, graph: GraphBatch) -> Tensor:
        """States of the atoms, (n_atoms, channels); ``length`` is the row of ``u`` that holds an edge's state."""
        of_atom, of_edge = self.of_atom(h), self.of_edge(u)[length]
        heads = (len(length), self.n_heads, -1)
        receiving = F.softplus(of_atom[graph.receivers] + of_edge).view(heads)
        sending = F.softplus(of_atom[graph.senders] + of_edge).view(heads)
        a = F.softplus((receiving * self.attention[0] + sending * self.attention[1]).sum(dim=2))
        logits = F.softplus(self.norm(a, graph.multiplicities))
        weights = segment_softmax(logits, graph.receivers, len(h), graph.multiplicities)
        messages = (weights[:, None, :] @ sending)[:, 0] / self.n_heads
        return torch.zeros_like(h).index_add(0, graph.receivers, messages) + self.bias


class EdgeNorm(nn.Module):
    """Batch normalisation of (n_edges, n_heads), an edge counted as often as it stands for a neighbour."""

    def __init__(self, n_heads: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_heads))
        self.bias = nn.Parameter(torch.zeros(n_heads))
        self.register_buffer("mean", torch.zeros(n_heads))
        self.register_buffer("variance", torch.ones(n_heads))

    def forward(self, x: Tensor, multiplicities: Tensor) -> Tensor:
        mean, variance = self.get_buffer("mean"), self.get_buffer("variance")
        if self.training:
            total = multiplicities.sum()
            share = (multiplicities / total)[:, None]
            batch_mean = (share * x).sum(dim=0)
            batch_variance = (share * (x - batch_mean) ** 2).sum(dim=0)
            with torch.no_grad():
                mean.lerp_(batch_mean, _MOMENTUM)
                variance.lerp_(batch_variance * total / (total - 1), _MOMENTUM)
            mean, variance = batch_mean, batch_variance
        return (x - mean) * torch.rsqrt(variance + _EPSILON) * self.weight + self.bias


def segment_softmax(logits: Tensor, segment: Tensor, n_segments: int, multiplicities: Tensor | None = None) -> Tensor:
    """Softmax over the rows of each segment, in every column; a row counts as often as its multiplicity says.

    Parameters
    ----------
    logits : (n_rows, n_columns)
    segment : (n_rows,) int64
    n_segments : int
    multiplicities : (n_rows,) or None

    Returns
    -------
    (n_rows, n_columns)
        Weights, those of equal rows in one; they sum to one in each segment.
    """
    rows = segment[:, None].expand_as(logits)
    highest = logits.new_full((n_segments, logits.shape[1]), -torch.inf)
    highest = highest.scatter_reduce(0, rows, logits.detach(), "amax")
    weights = torch.exp(logits - highest[segment])
    if multiplicities is not None:
        weights = weights * multiplicities[:, None]
    sums = logits.new_zeros(highest.shape).index_add(0, segment, weights)
    return weights / sums[segment]


class SpectrumEncoder(Encoder):
    """Two layers on standardised SOREPs; `fit_scaling` comes before everything else.

    The mean and the deviation of each feature over the training set are stored with the weights. A feature that never
    varies there says nothing, and is zero.
    """

    def __init__(self, n_in: int) -> None:
        super().__init__()
        self.out_dim = _SPECTRUM_OUT
        self.register_buffer("mean", torch.zeros(n_in))
        self.register_buffer("inverse_deviation", torch.zeros(n_in))
        self.layers = nn.Sequential(
            nn.Linear(n_in, _SPECTRUM_HIDDEN), nn.ReLU(), nn.Linear(_SPECTRUM_HIDDEN, _SPECTRUM_OUT), nn.ReLU()
        )

    def fit_scaling(self, sorep: ArrayLike) -> Self:
        """Take means and deviations from the SOREPs of the training set, (n, n_in).

        Raises
        ------
        Mat2SpecError
            ``malformed-features``, ``constant-features`` where none varies.
        """
        values = np.asarray(sorep, dtype=float)
        mean = self.get_buffer("mean")
        if values.ndim != 2 or values.shape[1] != len(mean) or not len(values) or not np.isfinite(values).all():
            raise Mat2SpecError(
                f"features of shape {values.shape} for an encoder of {len(mean)}, or values that are not finite",
                code="malformed-features",
                remedy="give the SOREPs of the training set",
            )
        deviation = values.std(axis=0)
        varies = deviation > _CONSTANT * deviation.max()
        if not varies.any():
            raise Mat2SpecError(
                f"the features of {len(values)} crystals are all equal",
                code="constant-features",
                remedy="train on more than one kind of crystal",
            )
        inverse = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
        mean.copy_(torch.tensor(values.mean(axis=0)))
        self.get_buffer("inverse_deviation").copy_(torch.tensor(inverse))
        return self

    def forward(self, batch: Batch) -> Tensor:
        mean, inverse = self.get_buffer("mean"), self.get_buffer("inverse_deviation")
        if batch.sorep is None or batch.sorep.shape[1] != len(mean):
            given = "none" if batch.sorep is None else f"some of length {batch.sorep.shape[1]}"
            raise Mat2SpecError(
                f"the model reads SOREPs of length {len(mean)}, and was given {given}",
                code="missing-input",
                remedy="compute the features that the model was trained on",
            )
        if not inverse.any():
            raise Mat2SpecError("the scaling of the SOREPs is not fitted", code="not-fitted", remedy="call fit_scaling")
        return self.layers((batch.sorep - mean) * inverse)


class BothEncoder(Encoder):
    """Two encoders side by side."""

    def __init__(self, first: Encoder, second: Encoder) -> None:
        super().__init__()
        self.out_dim = first.out_dim + second.out_dim
        self.first, self.second = first, second

    def forward(self, batch: Batch) -> Tensor:
        return torch.cat([self.first(batch), self.second(batch)], dim=1)


def make_encoder(config: ModelConfig, n_sorep: int = 0) -> Encoder:
    """The encoder of a configuration, its weights random; ``n_sorep`` is the length of a SOREP, where one is read."""
    if config.encoder == "sorep":
        return SpectrumEncoder(n_sorep)
    graph = GraphEncoder(config.channels, config.n_layers, config.n_heads)
    return graph if config.encoder == "graph" else BothEncoder(graph, SpectrumEncoder(n_sorep))

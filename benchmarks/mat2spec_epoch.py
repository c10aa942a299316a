"""What an epoch of Mat2Spec costs, and its graphs, on one thread.

1. CPU time of building graphs.
2. CPU time of an epoch of training the default model on graphs (collating, both branches, all losses, gradients,
   AdamW), for each crystal, and of a prediction; against the straightforward graph attention, which has an edge for
   each neighbour and applies its weights to the concatenated states of atom and edge. Both give the same vectors, which
   is checked.

Spectra are random: their values cost nothing. By default the example crystals are taken, each as often as it needs to
make up the number of crystals; the time of a crystal grows with its distinct edges, so give crystals of your own.

    python benchmarks/mat2spec_epoch.py phonons.parquet --id-column jid --structure-column cif
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle, islice

import numpy as np
import torch
from _common import STRUCTURES, use_one_thread
from torch import Tensor
from torch.nn import functional as F

from sorep.errors import Failure
from sorep.mat2spec.config import ModelConfig, TrainingConfig
from sorep.mat2spec.encoders import Batch, GraphAttention, GraphEncoder, segment_softmax
from sorep.mat2spec.graph import CrystalGraph, GraphBatch, build_graph, collate
from sorep.mat2spec.model import Mat2Spec
from sorep.sources import structures_from

N_BINS = 51


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", default=[str(STRUCTURES)], help="input, as of sorep featurize")
    parser.add_argument("--id-column", help="of a table")
    parser.add_argument("--structure-column", help="of a table")
    parser.add_argument("--crystals", type=int, default=512, help="how many [%(default)s]")
    parser.add_argument("--batch", type=int, default=128, help="[%(default)s]")
    parser.add_argument("--repetitions", type=int, default=5, help="of which the fastest counts [%(default)s]")
    options = parser.parse_args()
    use_one_thread()
    torch.set_num_threads(1)

    found = structures_from(options.paths, id_column=options.id_column, structure_column=options.structure_column)
    usable = islice((structure for structure in found if not isinstance(structure, Failure)), options.crystals)
    structures = list(islice(cycle(list(usable)), options.crystals))
    print(f"{len(structures)} crystals, {np.median([s.n_atoms for s in structures]):g} atoms in the median")
    seconds = fastest(lambda: [build_graph(structure) for structure in structures], options.repetitions)
    graphs = [build_graph(structure) for structure in structures]
    edges = np.array([[len(graph.distances), graph.multiplicities.sum()] for graph in graphs]).mean(axis=0)
    print(f"graphs: {1e3 * seconds / len(graphs):.2f} ms a crystal; {edges[0]:.0f} distinct edges of {edges[1]:.0f}")
    measure(graphs, options.batch, options.repetitions)


def measure(graphs: Sequence[CrystalGraph], batch_size: int, repetitions: int) -> None:
    """The second table."""
    model, plain = model_with(GraphEncoder), model_with(StraightforwardEncoder)
    plain.load_state_dict(model.state_dict())
    same = Batch(collate(graphs[:batch_size]))
    vectors, plain_vectors = (one.eval().encoder(same) for one in (model, plain))
    difference = ((vectors - plain_vectors).abs().max() / vectors.abs().max()).item()
    y = torch.softmax(torch.randn(len(graphs), N_BINS), dim=1)
    rows = []
    epochs = [epoch_of(one.train(), graphs, y, batch_size) for one in (model, plain)]
    for epoch in epochs:
        epoch()
    # In turn, so that other work of the machine slows all of them alike.
    training = np.min([[cpu_seconds(epoch) for epoch in epochs] for _ in range(repetitions)], axis=0)
    model.eval()
    plain.eval()
    predicting = [fastest(lambda one=one: predict(one, graphs, batch_size), repetitions) for one in (model, plain)]
    for name, seconds in (("epoch of training", training), ("prediction", predicting)):
        rows.append((name, *(1e3 * np.array(seconds) / len(graphs)), seconds[1] / seconds[0]))
    print(f"{'ms a crystal':20} {'sorep':>8} {'straightforward':>16} {'ratio':>6}")
    for name, ours, theirs, ratio in rows:
        print(f"{name:20} {ours:8.2f} {theirs:16.2f} {ratio:6.1f}")
    print(f"largest difference of vectors, relative to the largest element: {difference:.1e}")


def model_with(encoder: Callable[[], GraphEncoder]) -> Mat2Spec:
    torch.manual_seed(0)
    return Mat2Spec(ModelConfig(), N_BINS, encoder())


def epoch_of(model: Mat2Spec, graphs: Sequence[CrystalGraph], y: Tensor, batch_size: int) -> Callable[[], None]:
    training = TrainingConfig()
    optimizer = torch.optim.AdamW(model.parameters(), training.learning_rate, weight_decay=training.weight_decay)

    def epoch() -> None:
        for rows in torch.randperm(len(graphs)).split(batch_size):
            outputs = model.training_outputs(Batch(collate([graphs[row] for row in rows.tolist()])), y[rows])
            optimizer.zero_grad()
            model.loss(outputs, y[rows])["total"].backward()
            optimizer.step()

    return epoch


@torch.no_grad()
def predict(model: Mat2Spec, graphs: Sequence[CrystalGraph], batch_size: int) -> None:
    for first in range(0, len(graphs), batch_size):
        model(Batch(collate(graphs[first : first + batch_size])))


class StraightforwardEncoder(GraphEncoder):
    """The same parameters, used as the formulas say."""

    def __init__(self) -> None:
        super().__init__()
        for layer in self.layers:
            layer.__class__ = StraightforwardAttention

    def forward(self, batch: Batch) -> Tensor:
        graph = batch.graphs
        if graph is None:
            raise TypeError
        times = graph.multiplicities.long()
        names = ("senders", "receivers", "distances", "multiplicities")
        edges = {name: getattr(graph, name).repeat_interleave(times) for name in names}
        edges["multiplicities"] = torch.ones_like(edges["multiplicities"])
        return super().forward(Batch(replace(graph, **edges)))


class StraightforwardAttention(GraphAttention):
    """Weights times concatenated states, for each edge anew."""

    def forward(self, h: Tensor, u: Tensor, length: Tensor, graph: GraphBatch) -> Tensor:
        weight = torch.cat([self.of_atom.weight, self.of_edge.weight], dim=1)
        heads = (len(length), self.n_heads, -1)
        receiving, sending = (
            F.softplus(torch.cat([h[ends], u[length]], dim=1) @ weight.T).view(heads)
            for ends in (graph.receivers, graph.senders)
        )
        a = F.softplus((torch.cat([receiving, sending], dim=2) * torch.cat([*self.attention], dim=1)).sum(dim=2))
        logits = F.softplus(self.norm(a, graph.multiplicities))
        weights = segment_softmax(logits, graph.receivers, len(h))
        sums = h.new_zeros(len(h), self.n_heads, h.shape[1]).index_add(
            0, graph.receivers, sending * weights[:, :, None]
        )
        return sums.mean(dim=1) + self.bias


def cpu_seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def fastest(function: Callable[[], object], repetitions: int) -> float:
    return min(cpu_seconds(function) for _ in range(repetitions))


if __name__ == "__main__":
    main()

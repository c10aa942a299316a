"""An equivariant network as a baseline, of the kind of E3NN (Chen et al., Adv. Sci. 8, 2004214, 2021), through `e3nn`.

Nodes carry scalars, vectors and tensors of rank two. A node gathers tensor products of its neighbours' features with
the spherical harmonics of the edges, weighted by a small network of the edge's length; gates follow, and at last the
scalars of all atoms are averaged. Turning the crystal turns vectors and tensors with it and leaves the scalars alone.

The products are linear in the harmonics, so those of edges that agree in both atoms and the length are summed before:
the network works on the same merged edges as `sorep.mat2spec.graph`, to which `EquivariantGraph` adds these sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sorep.errors import SET_UP, Mat2SpecError
from sorep.mat2spec.data import Inputs
from sorep.mat2spec.elements import N_ELEMENTS
from sorep.mat2spec.encoders import Batch, Encoder
from sorep.mat2spec.graph import CUTOFF, N_NEIGHBORS, CrystalGraph, GraphBatch, build_graph, collate, nearest_neighbors
from sorep.structure import Structure

_RANK = 2
_SCALARS, _VECTORS, _TENSORS = 32, 8, 8
_RADIAL = 10  # basis functions of the length
_HIDDEN = 32  # neurons between them and the weights of a product
_LAYERS = 2  # before that to the output


@dataclass(frozen=True, eq=False)
class EquivariantGraph(CrystalGraph):
    """A graph that knows directions.

    Attributes
    ----------
    harmonics : (n_edges, 9) float array
        Spherical harmonics of ranks 0, 1 and 2 (e3nn's order, component normalisation) of the vectors from receiver to
        sender, summed over the neighbours that an edge stands for.
    """

    harmonics: NDArray[np.float64]

    @classmethod
    def of(cls, structure: Structure) -> EquivariantGraph:
        """Raises as `sorep.mat2spec.graph.build_graph`, and ``missing-e3nn``."""
        o3 = _e3nn().o3
        graph = build_graph(structure)
        edges = nearest_neighbors(structure)
        order = np.lexsort((edges.distances, edges.second, edges.first))  # as those of the graph
        positions = structure.positions
        vectors = (positions[edges.second] + edges.image - positions[edges.first])[order] @ structure.lattice
        every = o3.spherical_harmonics(
            list(range(_RANK + 1)), torch.from_numpy(vectors), normalize=True, normalization="component"
        )
        starts = np.cumsum(graph.multiplicities) - graph.multiplicities
        return cls(**vars(graph), harmonics=np.add.reduceat(every.numpy(), starts))


@dataclass(frozen=True, eq=False)
class EquivariantBatch(GraphBatch):
    """Graphs of several crystals; ``harmonics`` is (n_edges, 9)."""

    harmonics: Tensor


class EquivariantInputs(Inputs):
    """Crystals whose graphs are of the kind `EquivariantGraph`."""

    @classmethod
    def of(cls, inputs: Inputs) -> EquivariantInputs:
        """The same crystals, their graphs with directions."""
        graphs = tuple(map(EquivariantGraph.of, inputs.structures))
        return cls(**{**{name: getattr(inputs, name) for name in inputs.__dataclass_fields__}, "graphs": graphs})

    def batch(self, rows: NDArray[np.intp]) -> Batch:
        """Tensors of these rows, for `EquivariantEncoder`."""
        graphs: Sequence[Any] = [self.graphs[row] for row in rows.tolist()] if self.graphs else ()
        harmonics = torch.tensor(np.concatenate([graph.harmonics for graph in graphs]), dtype=torch.get_default_dtype())
        return Batch(EquivariantBatch(**vars(collate(graphs)), harmonics=harmonics), None)


class EquivariantEncoder(Encoder):
    """Scalars of a crystal from products that keep directions.

    Parameters
    ----------
    out_dim : int
        Length of the output.

    Raises
    ------
    Mat2SpecError
        ``missing-e3nn``.
    """

    def __init__(self, out_dim: int = 64) -> None:
        super().__init__()
        e3nn = _e3nn()
        o3 = e3nn.o3
        self.out_dim = out_dim
        self.harmonics = o3.Irreps.spherical_harmonics(_RANK)
        scalars, directed = o3.Irreps(f"{_SCALARS}x0e"), o3.Irreps(f"{_VECTORS}x1o+{_TENSORS}x2e")
        gates = o3.Irreps(f"{_VECTORS + _TENSORS}x0e")
        self.gate = e3nn.nn.Gate(scalars, [nn.functional.silu], gates, [torch.sigmoid], directed)
        self.embedding = nn.Embedding(N_ELEMENTS + 1, _SCALARS)
        widths = [scalars] + [self.gate.irreps_out] * _LAYERS
        ends = [self.gate.irreps_in] * _LAYERS + [o3.Irreps(f"{out_dim}x0e")]
        self.layers = nn.ModuleList(_Layer(a, b, self.harmonics) for a, b in zip(widths, ends, strict=True))

    def forward(self, batch: Batch) -> Tensor:
        """(n_crystals, out_dim) from graphs of an `EquivariantInputs`."""
        graphs = batch.graphs
        if not isinstance(graphs, EquivariantBatch):
            raise Mat2SpecError(
                "the equivariant network reads graphs with directions",
                code="no-directions",
                remedy="make the inputs with EquivariantInputs.of",
            )
        smooth = _e3nn().math.soft_one_hot_linspace
        radial = smooth(graphs.distances, 0.0, CUTOFF, _RADIAL, "smooth_finite", cutoff=True) * _RADIAL**0.5
        nodes = self.embedding(graphs.numbers)
        for layer in self.layers[:-1]:
            nodes = self.gate(layer(nodes, graphs, radial))
        nodes = self.layers[-1](nodes, graphs, radial)
        total = nodes.new_zeros(len(graphs), self.out_dim).index_add_(0, graphs.crystal, nodes)
        return total / torch.bincount(graphs.crystal, minlength=len(graphs))[:, None]


class _Layer(nn.Module):
    """New features of nodes: a linear map of their own and one of what they gather."""

    def __init__(self, given: Any, made: Any, harmonics: Any) -> None:
        super().__init__()
        e3nn = _e3nn()
        o3 = e3nn.o3
        products, paths = [], []
        for i, (multiplicity, irrep) in enumerate(given):
            for j, (_, harmonic) in enumerate(harmonics):
                for product in irrep * harmonic:
                    if product in made:
                        paths.append((i, j, len(products), "uvu", True))
                        products.append((multiplicity, product))
        between, position, _ = o3.Irreps(products).sort()
        paths = [(i, j, position[k], mode, trained) for i, j, k, mode, trained in paths]
        self.product = o3.TensorProduct(given, harmonics, between, paths, shared_weights=False, internal_weights=False)
        self.weights = e3nn.nn.FullyConnectedNet([_RADIAL, _HIDDEN, self.product.weight_numel], nn.functional.silu)
        self.own = o3.Linear(given, made)
        self.gathered = o3.Linear(between.simplify(), made)

    def forward(self, nodes: Tensor, graphs: EquivariantBatch, radial: Tensor) -> Tensor:
        messages = self.product(nodes[graphs.senders], graphs.harmonics, self.weights(radial))
        gathered = messages.new_zeros(len(nodes), messages.shape[1]).index_add_(0, graphs.receivers, messages)
        return self.own(nodes) + self.gathered(gathered / N_NEIGHBORS)


def _e3nn() -> Any:
    try:
        import e3nn
        import e3nn.math
        import e3nn.nn
        import e3nn.o3
    except ImportError:
        raise Mat2SpecError(
            "e3nn is not installed",
            code="missing-e3nn",
            stage=SET_UP,
            remedy="pip install 'sorep[e3nn]', or leave this baseline out",
        ) from None
    return e3nn

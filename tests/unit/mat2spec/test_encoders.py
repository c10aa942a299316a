"""Encoders against the formulas written out edge by edge, and against other descriptions of the same crystal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sorep.errors import Mat2SpecError

pytest.importorskip("torch")

import torch
from torch.nn import functional as F

from sorep.mat2spec.config import ModelConfig
from sorep.mat2spec.encoders import (
    Batch,
    BothEncoder,
    EdgeNorm,
    GraphAttention,
    GraphEncoder,
    SpectrumEncoder,
    make_encoder,
    segment_softmax,
)
from sorep.mat2spec.graph import GraphBatch, build_graph, collate


@pytest.fixture
def graphs(crystals, double):
    return [build_graph(structure) for structure in crystals.values()]


@pytest.fixture
def encoder(graphs) -> GraphEncoder:
    """Random weights, with the statistics of these graphs, ready for evaluation."""
    torch.manual_seed(0)
    encoder = GraphEncoder(channels=16, n_layers=3, n_heads=2)
    for norm in (part for part in encoder.modules() if isinstance(part, EdgeNorm)):
        torch.nn.init.normal_(norm.weight, std=3)  # attention that differs much from a mean
    for _ in range(30):
        encoder(Batch(collate(graphs)))
    return encoder.eval()


def one_by_one(graph: GraphBatch) -> GraphBatch:
    """The same graph with an edge for each neighbour."""
    times = graph.multiplicities.long()
    edges = {name: getattr(graph, name).repeat_interleave(times) for name in ("senders", "receivers", "distances")}
    return replace(graph, **edges, multiplicities=torch.ones(int(times.sum())))


def test_attention_is_that_of_the_formulas(graphs) -> None:
    torch.manual_seed(0)
    channels, heads = 6, 2
    layer = GraphAttention(channels, heads).eval()
    torch.nn.init.normal_(layer.norm.weight)
    torch.nn.init.normal_(layer.bias)
    graph = one_by_one(collate(graphs))
    h, u = torch.randn(len(graph.numbers), channels), torch.randn(len(graph.distances), channels)
    weight = torch.cat([layer.of_atom.weight, layer.of_edge.weight], dim=1)
    expected = layer.bias.repeat(len(h), 1)
    for i in range(len(h)):
        edges = torch.nonzero(graph.receivers == i)[:, 0]
        for head in range(heads):
            w = weight[head * channels : (head + 1) * channels]
            x_i = [F.softplus(w @ torch.cat([h[i], u[e]])) for e in edges]
            x_j = [F.softplus(w @ torch.cat([h[graph.senders[e]], u[e]])) for e in edges]
            a = torch.cat([layer.attention[0, head], layer.attention[1, head]])
            logits = torch.stack([F.softplus(a @ torch.cat(pair)) for pair in zip(x_i, x_j, strict=True)])
            scale = layer.norm.weight[head] / (1 + 1e-5) ** 0.5  # statistics that nothing has moved yet
            weights = torch.softmax(F.softplus(logits * scale + layer.norm.bias[head]), dim=0)
            expected[i] += weights @ torch.stack(x_j) / heads
    found = layer(h, u, torch.arange(len(u)), graph)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_merged_edges_count_as_often_as_they_stand_for_neighbours(graphs) -> None:
    """Also while training: same vectors, gradients and statistics as with an edge for each neighbour."""
    merged = collate(graphs)
    found = []
    for graph in (merged, one_by_one(merged)):
        torch.manual_seed(0)
        encoder = GraphEncoder(channels=8, n_layers=2, n_heads=2)
        vectors = encoder(Batch(graph))
        vectors.square().sum().backward()
        gradients = {name: parameter.grad for name, parameter in encoder.named_parameters()}
        found.append((vectors, gradients, encoder.state_dict()))
    assert len(merged.distances) < 0.7 * merged.multiplicities.sum()
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-9)


def test_edge_norm_is_batch_normalisation_of_repeated_rows(double) -> None:
    ours, theirs = EdgeNorm(3), torch.nn.BatchNorm1d(3)
    x, times = torch.randn(20, 3), torch.randint(1, 5, (20,))
    for is_training in (True, True, False):
        ours.train(is_training)
        theirs.train(is_training)
        expected = theirs(x.repeat_interleave(times, dim=0))
        torch.testing.assert_close(ours(x, times.double()).repeat_interleave(times, dim=0), expected)
    torch.testing.assert_close(ours.get_buffer("variance"), theirs.running_var)


def test_segment_softmax_by_segments(double) -> None:
    logits = 300 * torch.randn(10, 2)  # beyond what exp can hold
    segment = torch.tensor([0, 0, 0, 1, 3, 3, 3, 3, 3, 3])
    weights = segment_softmax(logits, segment, 4)
    for number in (0, 1, 3):
        torch.testing.assert_close(weights[segment == number], torch.softmax(logits[segment == number], dim=0))
    times = torch.randint(1, 4, (10,))
    again = segment_softmax(logits, segment, 4, times.double())
    one_each = segment_softmax(logits.repeat_interleave(times, dim=0), segment.repeat_interleave(times), 4)
    summed = torch.zeros(10, 2).index_add(0, torch.arange(10).repeat_interleave(times), one_each)
    torch.testing.assert_close(again, summed)


@pytest.mark.parametrize("supercell", [(1, 1, 1), (2, 1, 1), (1, 2, 2), [[1, 1, 0], [-1, 1, 0], [0, 1, 2]]])
def test_any_description_of_a_crystal_gives_the_same_vector(encoder, crystals, redescribe, supercell) -> None:
    originals = encoder(Batch(collate([build_graph(structure) for structure in crystals.values()])))
    spread = originals.std(dim=0).mean().item()
    for seed in (0, 1):
        again = [build_graph(redescribe(structure, supercell, seed=seed)) for structure in crystals.values()]
        torch.testing.assert_close(encoder(Batch(collate(again))), originals, rtol=0, atol=1e-9 * spread)


def test_a_mirror_image_has_the_same_vector_and_another_crystal_has_not(encoder, crystals) -> None:
    crystal = crystals["triclinic"]
    mirrored = replace(crystal, lattice=crystal.lattice * [1, 1, -1])
    strained = replace(crystal, lattice=crystal.lattice * 1.01)
    vectors = encoder(Batch(collate([build_graph(structure) for structure in (crystal, mirrored, strained)])))
    torch.testing.assert_close(vectors[0], vectors[1], rtol=0, atol=1e-12)
    assert (vectors[0] - vectors[2]).abs().max() > 1e-4


def test_vectors_are_smooth_in_the_positions(encoder, crystals) -> None:
    crystal = crystals["triclinic"]
    move = np.random.default_rng(0).normal(size=crystal.positions.shape)
    vectors = encoder(
        Batch(collate([build_graph(replace(crystal, positions=crystal.positions + x * move)) for x in (0, 1e-7, 2e-7)]))
    )
    first, second = vectors[1] - vectors[0], vectors[2] - vectors[1]
    assert first.abs().max() > 1e-10
    torch.testing.assert_close(first, second, rtol=1e-2, atol=1e-12)


def test_a_crystal_does_not_see_the_others_of_its_batch(encoder, graphs) -> None:
    together = encoder(Batch(collate(graphs)))
    alone = torch.cat([encoder(Batch(collate([graph]))) for graph in graphs])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-13)


def test_spectrum_encoder_standardises_with_the_training_set(double) -> None:
    rng = np.random.default_rng(0)
    train = np.column_stack([rng.normal(5, 2, 30), np.full(30, 0.1 + 0.2), rng.normal(0, 1e-3, 30)])
    encoder = SpectrumEncoder(3).fit_scaling(train)
    seen: list[torch.Tensor] = []
    encoder.layers.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    encoder(Batch(sorep=torch.tensor(train)))
    np.testing.assert_allclose(seen[0].mean(dim=0), 0, atol=1e-12)
    np.testing.assert_allclose(seen[0].std(dim=0, correction=0), [1, 0, 1], atol=1e-12)
    # other crystals: same numbers, and the feature that did not vary says nothing
    encoder(Batch(sorep=torch.tensor([[5.0, 100.0, 0.0]])))
    expected = (np.array([5.0, 0, 0]) - train.mean(axis=0)) / train.std(axis=0)
    np.testing.assert_allclose(seen[1][0], [expected[0], 0, expected[2]], atol=1e-12)


def test_the_scaling_travels_with_the_weights() -> None:
    train = np.random.default_rng(0).normal(size=(9, 5))
    first = SpectrumEncoder(5).fit_scaling(train)
    second = SpectrumEncoder(5)
    second.load_state_dict(first.state_dict())
    batch = Batch(sorep=torch.tensor(train, dtype=torch.float32))
    assert torch.equal(first(batch), second(batch))


def test_both_encoders_side_by_side(graphs, encoder) -> None:
    sorep = torch.randn(len(graphs), 7)
    spectrum = SpectrumEncoder(7).fit_scaling(sorep.numpy())
    batch = Batch(collate(graphs), sorep)
    both = BothEncoder(encoder, spectrum)
    assert both.out_dim == encoder.out_dim + spectrum.out_dim
    torch.testing.assert_close(both(batch), torch.cat([encoder(batch), spectrum(batch)], dim=1))
    assert len(batch) == len(graphs)


def test_missing_input_is_an_error(encoder) -> None:
    config = ModelConfig(encoder="both")
    spectrum = SpectrumEncoder(7).fit_scaling(np.random.default_rng(0).normal(size=(4, 7)))
    for call, code in (
        (lambda: encoder(Batch(sorep=torch.zeros(1, 7))), "missing-input"),
        (lambda: spectrum(Batch()), "missing-input"),
        (lambda: spectrum(Batch(sorep=torch.zeros(1, 6))), "missing-input"),
        (lambda: make_encoder(config, 7).second(Batch(sorep=torch.zeros(1, 7))), "not-fitted"),
        (lambda: spectrum.fit_scaling(np.zeros((4, 6))), "malformed-features"),
        (lambda: spectrum.fit_scaling(np.full((4, 7), np.nan)), "malformed-features"),
        (lambda: spectrum.fit_scaling(np.ones((4, 7))), "constant-features"),
    ):
        with pytest.raises(Mat2SpecError) as caught:
            call()
        assert caught.value.code == code

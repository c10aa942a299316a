"""Networks to compare with: what they see, and what they do not."""

from __future__ import annotations

import numpy as np
import pytest

from sorep.errors import Mat2SpecError

pytest.importorskip("torch")

import torch

from sorep.mat2spec.config import ModelConfig
from sorep.mat2spec.encoders import Batch
from sorep.mat2spec.networks import get_network
from sorep.mat2spec.perceptron import CompositionEncoder


@pytest.fixture
def polymorphs(small):
    """Rock salt and caesium chloride structure of one formula."""
    return small.inputs.batch(np.flatnonzero(np.char.startswith(small.ids, "LiF-")))


def build(name: str):
    torch.manual_seed(0)
    config = ModelConfig()
    return get_network(name, config).build(config, 12, 0)


def test_a_composition_network_cannot_tell_polymorphs_apart_and_a_graph_network_can(polymorphs):
    with torch.no_grad():
        composition, graph = (build(name).eval()(polymorphs) for name in ("composition", "gatgnn"))
    assert torch.equal(composition[0], composition[1])
    assert (graph[0] - graph[1]).abs().max() > 1e-5


@pytest.mark.parametrize("name", ["composition", "gatgnn"])
def test_targets_are_not_looked_at_and_the_loss_is_that_of_the_prediction(polymorphs, name):
    network = build(name).eval()
    y = torch.softmax(torch.randn(2, 12, generator=torch.Generator().manual_seed(1)), dim=1)
    raw = network.training_outputs(polymorphs, y)
    assert torch.equal(raw, network.training_outputs(polymorphs, torch.zeros_like(y)))
    predicted = network(polymorphs)
    by_hand = (y * (y / predicted).log()).sum(dim=1).mean()
    terms = network.loss(raw, y)
    assert terms["total"] is terms["feature"]
    torch.testing.assert_close(terms["total"], by_hand)


def test_a_batch_without_graphs_is_refused():
    with pytest.raises(Mat2SpecError) as caught:
        CompositionEncoder()(Batch(None, torch.zeros(2, 6)))
    assert caught.value.code == "missing-input"

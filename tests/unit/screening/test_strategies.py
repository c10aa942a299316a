"""What is proposed next, on made-up features with a known pattern."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from sorep.errors import ScreeningError, UsageError
from sorep.screening.models import build_model
from sorep.screening.strategies import EXPLORATION, MODEL_STRATEGIES, STRATEGIES, Planner

BUILD = partial(build_model, n_estimators=15)
NOTHING = np.empty(0, dtype=np.intp)
NO_LABELS = np.empty(0, dtype=bool)


def planner(values: np.ndarray, strategy: str, costs: np.ndarray | None = None, seed: int = 0) -> Planner:
    return Planner(values, np.ones(len(values)) if costs is None else costs, strategy, BUILD, seed)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_proposals_are_new_all_different_and_within_the_budget(strategy: str, toy) -> None:
    data = toy()
    known = np.arange(0, 60)
    costs = np.random.default_rng(0).uniform(0.5, 3, len(data))
    proposal = planner(data.values, strategy, costs).propose(known, data.labels[known], 10.0)
    assert len(set(proposal.rows.tolist())) == len(proposal.rows) == len(proposal.reasons)
    assert not set(proposal.rows.tolist()) & set(known.tolist())
    left = np.setdiff1d(np.arange(len(data)), [*known, *proposal.rows])
    assert 10 - costs[left].min() < costs[proposal.rows].sum() <= 10 + 1e-9  # nothing more could be paid
    assert (proposal.scores is not None) == (strategy in MODEL_STRATEGIES)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_same_seed_same_proposal(strategy: str, toy) -> None:
    data = toy()
    known = np.arange(0, 40)

    def rows(seed: int) -> list[int]:
        return planner(data.values, strategy, seed=seed).propose(known, data.labels[known], 8).rows.tolist()

    assert rows(3) == rows(3)
    assert {tuple(rows(seed)) for seed in range(4)} != {tuple(rows(3))} or strategy in ("yield", "uncertainty")


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("label", [None, False, True])
def test_without_both_classes_structures_are_chosen_without_a_model(strategy: str, label: bool | None, toy) -> None:
    data = toy()
    known = NOTHING if label is None else np.arange(5)
    proposal = planner(data.values, strategy).propose(known, np.full(len(known), bool(label)), 6)
    assert len(proposal.rows) == 6
    assert proposal.scores is None
    assert set(proposal.reasons) == {"random" if strategy == "random" else "diversity"}


def test_diversity_takes_one_of_each_kind_and_then_of_those_not_known() -> None:
    rng = np.random.default_rng(1)
    kind = np.repeat(np.arange(6), [30, 25, 20, 15, 10, 5])
    levels = np.array([rng.permutation(6) for _ in range(8)])
    values = 20.0 * levels[:, kind].T + rng.normal(size=(len(kind), 8))
    first = planner(values, "diversity").propose(NOTHING, NO_LABELS, 6).rows
    assert kind[first].tolist() == [0, 1, 2, 3, 4, 5]  # common ones first
    known = np.flatnonzero(np.isin(kind, [0, 2, 4]))[[0, 35, 55]]
    assert set(kind[known]) == {0, 2, 4}
    then = planner(values, "diversity").propose(known, np.ones(3, dtype=bool), 3).rows
    assert set(kind[then]) == {1, 3, 5}


def test_diversity_does_not_depend_on_the_scale_of_a_feature() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(size=(60, 5))
    rows = planner(values, "diversity").propose(NOTHING, NO_LABELS, 8).rows
    warped = np.exp(3 * values) * [1e-3, 1.0, 10.0, 1e3, 1e6]
    assert planner(warped, "diversity").propose(NOTHING, NO_LABELS, 8).rows.tolist() == rows.tolist()


def test_diversity_copes_with_copies() -> None:
    values = np.repeat(np.eye(3), 5, axis=0)
    rows = planner(values, "diversity").propose(NOTHING, NO_LABELS, 10).rows
    assert len(set(rows.tolist())) == 10
    assert {int(row) // 5 for row in rows[:3]} == {0, 1, 2}


def test_yield_takes_the_most_probable_and_uncertainty_the_doubtful(toy) -> None:
    data = toy(n=300)
    known = np.arange(0, 200)
    most, doubtful, both = (
        planner(data.values, strategy).propose(known, data.labels[known], 20)
        for strategy in ("yield", "uncertainty", "mixture")
    )
    left = np.arange(200, 300)
    assert most.scores[most.rows].min() >= np.sort(most.scores[left])[-20]
    assert np.abs(doubtful.scores[doubtful.rows] - 0.5).max() <= np.sort(np.abs(doubtful.scores[left] - 0.5))[19]
    assert data.labels[most.rows].mean() > 2 * data.labels[left].mean()
    assert both.reasons.tolist() == ["yield"] * 18 + ["uncertainty"] * 2
    assert (both.reasons == "uncertainty").mean() == EXPLORATION


def test_a_budget_for_one_is_not_spent_on_exploration(toy) -> None:
    data = toy()
    known = np.arange(60)
    assert planner(data.values, "mixture").propose(known, data.labels[known], 1).reasons.tolist() == ["yield"]


def test_the_cheaper_of_equally_probable_ones_is_taken(toy) -> None:
    data = toy(n=300)
    known = np.arange(200)
    costs = np.where(np.arange(300) % 2, 1.0, 10.0)
    rows = planner(data.values, "yield", costs).propose(known, data.labels[known], 15).rows
    assert (costs[rows] == 1).all()
    assert data.labels[rows].mean() > data.labels[200:].mean()


def test_nothing_is_proposed_when_nothing_is_left_or_affordable(toy) -> None:
    data = toy()
    for strategy in STRATEGIES:
        assert len(planner(data.values, strategy).propose(np.arange(len(data)), data.labels, 5).rows) == 0
        assert len(planner(data.values, strategy).propose(np.arange(50), data.labels[:50], 0.5).rows) == 0


def test_bad_input_is_refused(toy) -> None:
    data = toy()
    with pytest.raises(UsageError, match=r"unknown strategy 'greedy'.*choose from random"):
        planner(data.values, "greedy")
    for wrong in (np.zeros(len(data)), np.ones(3), np.full(len(data), np.nan)):
        with pytest.raises(ScreeningError, match="bad-cost"):
            planner(data.values, "yield", wrong)

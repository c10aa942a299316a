"""Groups of equivalent structures: what they are, and what must not change them."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import squareform

from sorep.errors import SimilarityError, UsageError
from sorep.features import FeatureSpec, Window
from sorep.similarity import METRICS, Groups, condensed, cross, dbscan, find_groups, reduced_formula

SPEC = FeatureSpec(name="few", windows=(Window(start=0.0, stop=1.0, points=24),))
EPSILONS = {"cosine": 1e-5, "euclidean": 1e-2, "tanimoto": 1e-5, "wasserstein": 1e-4}


def assert_same(first: Groups, second: Groups) -> None:
    """To the bit."""
    assert first.rule == second.rule
    assert first.frame().equals(second.frame()), first.frame().compare(second.frame())


# What they are


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("n_min", [1, 3])
@pytest.mark.parametrize("across", [False, True])
def test_groups_are_those_of_dbscan_in_each_composition(sample, metric, n_min, across):
    values, ids, formulas = sample()
    epsilon = EPSILONS[metric]
    groups = find_groups(values, ids, formulas, metric, epsilon, across, n_min=n_min, spec=SPEC)
    order = np.argsort(ids)
    np.testing.assert_array_equal(groups.ids, ids[order])
    reduced = np.array([reduced_formula(f) for f in formulas[order].tolist()])
    np.testing.assert_array_equal(groups.formula, reduced)
    blocks = [np.arange(len(ids))] if across else [np.flatnonzero(reduced == f) for f in np.unique(reduced)]
    assert len(blocks) == (1 if across else 3)
    expected = {}
    for number, rows in enumerate(blocks):
        labels = dbscan(values[order][rows], epsilon, n_min, metric, SPEC)
        expected |= {
            r: (number, f"noise {r}" if c < 0 else c) for r, c in zip(rows.tolist(), labels.tolist(), strict=True)
        }
    pairs = {(groups.group[row], name) for row, name in expected.items()}
    assert len(pairs) == len(set(expected.values())) == groups.n_groups
    assert 3 < groups.n_groups < len(ids)


@pytest.mark.parametrize("metric", METRICS)
def test_each_is_told_why_it_is_where_it_is(sample, metric):
    values, ids, formulas = sample()
    groups = find_groups(values, ids, formulas, metric, EPSILONS[metric], spec=SPEC)
    ordered = values[np.argsort(ids)]
    whole = cross(ordered, ordered, metric, SPEC)
    row = {id: n for n, id in enumerate(groups.ids.tolist())}
    for n, id in enumerate(groups.ids.tolist()):
        others = np.flatnonzero((groups.formula == groups.formula[n]) & (groups.ids != id))
        np.testing.assert_allclose(groups.distance_to_nearest[n], whole[n, others].min(), rtol=1e-6, atol=1e-15)
        np.testing.assert_allclose(whole[n, row[groups.nearest[n]]], whole[n, others].min(), rtol=1e-6, atol=1e-15)
        np.testing.assert_allclose(groups.distance[n], whole[n, row[groups.representative[n]]], rtol=1e-6, atol=1e-15)
        # The nearest one is the reason for being in the group, or out of all.
        is_alone = groups.sizes[groups.group[n]] == 1
        assert is_alone == (groups.distance_to_nearest[n] > EPSILONS[metric])
        assert is_alone == (groups.group[row[groups.nearest[n]]] != groups.group[n])
    for number in range(groups.n_groups):
        members = np.flatnonzero(groups.group == number)
        sums = whole[np.ix_(members, members)].sum(axis=1)
        (representative,) = set(groups.representative[members].tolist())
        assert representative == groups.representatives[number]
        assert representative in groups.ids[members][sums <= sums.min() * (1 + 1e-6)]


def test_equal_structures_are_represented_by_the_first_id():
    values = np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [2.0, 1.0]])
    groups = find_groups(values, ["c", "a", "b", "d"], ["Si"] * 4)
    assert groups.representative.tolist() == ["a", "a", "a", "d"]
    assert groups.nearest.tolist() == ["b", "a", "a", "a"]
    assert groups.distance_to_nearest[:3].tolist() == [0.0, 0.0, 0.0]
    assert groups.counts() == {"structures": 4, "compositions": 1, "groups": 2, "duplicates": 2}
    assert groups.largest(5) == [("a", "Si", 3, 0.0)]


@pytest.mark.parametrize("metric", METRICS)
def test_one_structure_and_two_identical_ones(metric):
    values = np.ones((2, 24))
    one = find_groups(values[:1], ["a"], ["Si"], metric, spec=SPEC)
    assert (one.representative.tolist(), one.nearest.tolist(), one.distance.tolist()) == (["a"], [""], [0.0])
    assert np.isnan(one.distance_to_nearest).all()
    two = find_groups(values, ["b", "a"], ["Si2", "Si"], metric, 0.0, spec=SPEC)
    assert two.representative.tolist() == ["a", "a"]
    assert two.nearest.tolist() == ["b", "a"]


def test_no_structures():
    groups = find_groups(np.empty((0, 24)), [], [])
    assert (len(groups), groups.n_groups, groups.representatives.tolist()) == (0, 0, [])


def test_the_same_feature_in_another_composition():
    """Compared only if asked for."""
    values, ids, formulas = np.ones((3, 4)), ["a", "b", "c"], ["Si", "Ge", "Ge2"]
    assert find_groups(values, ids, formulas).representative.tolist() == ["a", "b", "b"]
    assert find_groups(values, ids, formulas).nearest.tolist() == ["", "c", "b"]
    assert find_groups(values, ids, formulas, across_compositions=True).representative.tolist() == ["a", "a", "a"]


# What must not change them


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), n_min=st.integers(1, 3))
def test_the_order_of_the_rows(sample, metric, seed, n_min):
    values, ids, formulas = sample(seed=seed % 5)
    epsilon, order = EPSILONS[metric], np.random.default_rng(seed).permutation(len(ids))
    groups = find_groups(values, ids, formulas, metric, epsilon, n_min=n_min, spec=SPEC)
    other = find_groups(values[order], ids[order], formulas[order], metric, epsilon, n_min=n_min, spec=SPEC)
    assert_same(groups, other)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("block", [3, 17])
def test_the_size_of_the_blocks(sample, metric, block, monkeypatch):
    groups = find_groups(*sample(), metric, EPSILONS[metric], spec=SPEC)
    monkeypatch.setattr("sorep.similarity.unique.BLOCK", block)
    monkeypatch.setattr("sorep.similarity.unique._MOST_EDGES", 50)
    assert_same(groups, find_groups(*sample(), metric, EPSILONS[metric], spec=SPEC))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("block", [5, 1024])
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), across=st.booleans())
def test_adding_structures_bit_by_bit(sample, metric, block, seed, across):
    values, ids, formulas = sample(seed=seed % 5)
    random = np.random.default_rng(seed)
    order = random.permutation(len(ids))
    cuts = np.sort(random.integers(1, len(ids), 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sorep.similarity.unique.BLOCK", block)
        grown = None
        for cut in [*cuts, len(ids), len(ids)]:
            rows = order[:cut]
            given = values[rows], ids[rows], formulas[rows]
            grown = find_groups(*given, metric, EPSILONS[metric], across, spec=SPEC, previous=grown)
    assert_same(find_groups(values, ids, formulas, metric, EPSILONS[metric], across, spec=SPEC), grown)


def test_only_new_pairs_are_compared(sample, monkeypatch):
    """A known structure is not even prepared where its composition got nothing new."""
    from sorep.similarity import unique

    values, ids, formulas = sample()
    is_old = np.array([reduced_formula(f) == "Si" for f in formulas.tolist()])
    is_old[np.flatnonzero(~is_old)[3:]] = True
    old = find_groups(values[is_old], ids[is_old], formulas[is_old])
    compared: list[tuple[int, int]] = []
    original = unique._Search._compare
    monkeypatch.setattr(unique, "BLOCK", 1)
    monkeypatch.setattr(
        unique._Search,
        "_compare",
        lambda self, rows, columns: (compared.append((rows.start, columns.start)), original(self, rows, columns)),
    )
    grown = find_groups(values, ids, formulas, previous=old)
    is_new = ~is_old
    reduced = np.array([reduced_formula(f) for f in formulas.tolist()])
    expected = 0
    for formula in np.unique(reduced):
        n, m = np.count_nonzero(reduced == formula), np.count_nonzero(is_new & (reduced == formula))
        expected += m * (m + 1) // 2 + m * (n - m)  # the diagonal counts here
    assert len(compared) == expected
    assert_same(grown, find_groups(values, ids, formulas))


def test_answers_of_the_matcher_stay_with_their_pairs(sample):
    values, ids, formulas = sample()
    old = find_groups(values[:-10], ids[:-10], formulas[:-10])
    answers = np.array([None if a == b else len(a) % 2 == 0 for a, b in zip(old.ids, old.representative, strict=True)])
    grown = find_groups(values, ids, formulas, previous=replace(old, confirmed=answers))
    before = dict(zip(old.ids.tolist(), old.representative.tolist(), strict=True))
    for id, representative, answer in zip(
        grown.ids.tolist(), grown.representative.tolist(), grown.confirmed, strict=True
    ):
        is_kept = before.get(id) == representative != id
        assert answer is (len(id) % 2 == 0 if is_kept else None)


# Cost


def test_memory_is_bounded_by_blocks_and_not_by_pairs():
    """6000 near structures of one composition: 18 million pairs, all of them within epsilon."""
    random = np.random.default_rng(0)
    values = 1.0 + 0.1 * random.uniform(size=(6000, 8))
    ids = [f"c{n}" for n in range(len(values))]
    tracemalloc.start()
    try:
        groups = find_groups(values, ids, ["C"] * len(values), epsilon=0.5)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert groups.n_groups == 1
    assert peak < 150 * 2**20  # a matrix of the distances alone would take 275


def test_progress_ends_with_all_pairs(sample):
    values, ids, formulas = sample()
    told: list[tuple[int, int]] = []
    for previous in (None, find_groups(values[:70], ids[:70], formulas[:70])):
        told.clear()
        find_groups(values, ids, formulas, previous=previous, on_progress=lambda *count: told.append(count))
        assert told[-1][0] == told[-1][1] == max(done for done, _ in told)
        assert len({total for _, total in told}) == 1


# Refusals


@pytest.mark.parametrize(
    ("value", "columns", "code"),
    [(np.nan, slice(1, 2), "non-finite-features"), (0.0, slice(None), "empty-feature")],
)
def test_a_structure_that_cannot_be_compared_is_named(sample, value, columns, code):
    values, ids, formulas = sample()
    values[7, columns] = value
    with pytest.raises(SimilarityError) as caught:
        find_groups(values, ids, formulas)
    assert caught.value.code == code
    assert caught.value.message.startswith(f"{ids[7]}: ")
    assert caught.value.remedy


def test_an_empty_feature_of_a_composition_of_its_own_is_named():
    with pytest.raises(SimilarityError, match="empty-feature") as caught:
        find_groups(np.array([[1.0, 2.0], [0.0, 0.0]]), ["a", "b"], ["Si", "Ge"])
    assert caught.value.message.startswith("b: ")


def test_malformed_input(sample):
    values, ids, formulas = sample()
    for wrong in ((values[1:], ids, formulas), (values, ids[1:], formulas), (values, ids, formulas[1:])):
        with pytest.raises(SimilarityError, match="malformed-features"):
            find_groups(*wrong)
    with pytest.raises(SimilarityError, match=r"the id 's00000' names 2 structures.*duplicate-id"):
        find_groups(np.vstack([values, values[:1]]), [*ids, "s00000"], [*formulas, "Si"])
    with pytest.raises(UsageError, match="bad-formula"):
        find_groups(values, ids, ["x!"] * len(ids))


def test_earlier_groups_by_another_rule_or_of_others(sample):
    values, ids, formulas = sample()
    old = find_groups(values, ids, formulas)
    for options in ({"epsilon": 1e-2}, {"metric": "tanimoto"}, {"across_compositions": True}, {"identity": "other"}):
        with pytest.raises(UsageError, match="other-grouping"):
            find_groups(values, ids, formulas, previous=old, **options)
    with pytest.raises(UsageError, match="other-grouping"):
        find_groups(values[1:], ids[1:], formulas[1:], previous=old)


@pytest.mark.parametrize(
    ("formula", "reduced"),
    [("Ba2Ti2O6", "BaO3Ti"), ("Si8", "Si"), ("H2O2", "HO"), ("C60", "C"), ("K2Sn2O3", "K2O3Sn2")],
)
def test_reduced_formulas(formula, reduced):
    assert reduced_formula(formula) == reduced


def test_all_pairs_agree_with_the_condensed_matrix(sample):
    """The nearest distances of all are those in the matrix."""
    values, ids, formulas = sample()
    groups = find_groups(values, ids, formulas, across_compositions=True)
    whole = squareform(condensed(values[np.argsort(ids)]))
    np.fill_diagonal(whole, np.inf)
    np.testing.assert_allclose(groups.distance_to_nearest, whole.min(axis=1), rtol=1e-6, atol=1e-15)

"""Groups in a store: kept with their rule, added to, and absent from stores that have none."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest

from sorep.errors import StoreError, UsageError
from sorep.features import FeatureSpec, Window
from sorep.similarity import Groups, Rule, find_groups, formulas_of, group_store
from sorep.similarity.stored import Outlook, outlook
from sorep.store import FeatureStore
from sorep.store.tables import Tables

WIDER = FeatureSpec(name="wider", windows=(Window(start=0.0, stop=10.0, points=5),), width=2.0)


def fill(filled, start: int = 0, stop: int = 12) -> FeatureStore:
    """Structures of which every third is another name of the one before."""
    filled.commit(*(filled.structure(f"s{n:02}", a=5.0 + 0.01 * (n - (n % 3 == 2))) for n in range(start, stop)))
    return filled.reader


def fresh(store: FeatureStore, rule: Rule) -> Groups:
    matrix = store.matrix("few")
    rule = replace(rule, feature="few", identity=matrix.identity.hash)
    return find_groups(matrix.values, matrix.ids, formulas_of(store, matrix.ids), **asdict(rule), spec=matrix.spec)


def n_runs(store: FeatureStore) -> int:
    return len(set(store.tables.read("groups", ["run_id"])["run_id"].to_pylist()))


@pytest.mark.parametrize("rule", [Rule(), Rule("wasserstein", 1e-6, 2, True)], ids=["default", "another"])
def test_what_was_found_comes_back(filled, rule):
    store = fill(filled)
    found = group_store(store, store.matrix("few"), rule, command="a test")
    assert found.frame().equals(fresh(store, rule).frame())
    assert found.n_groups < len(found)
    back = filled.reader.groups()
    assert back.equals(found.frame())
    assert back.attrs == asdict(found.rule)
    assert Groups.from_frame(back).rule == found.rule
    run = store.runs().to_dict("records")[-1]
    assert (run["command"], run["event"], run["n_done"]) == ("a test", "finished", 12)


def test_a_grouping_is_one_commit(filled):
    from deltalake import DeltaTable

    store = fill(filled)
    for epsilon in (1e-3, 1e-2):
        group_store(store, store.matrix("few"), Rule(epsilon=epsilon))
    operations = [entry["operation"] for entry in DeltaTable(str(filled.path / "groups")).history()]
    assert operations == ["WRITE", "WRITE", "CREATE TABLE"]


def test_a_store_without_the_table_is_a_store(filled):
    """As those are that earlier versions wrote, and those in which nothing was grouped."""
    store = fill(filled)
    assert not (filled.path / "groups").exists()
    with pytest.raises(StoreError, match="no-groups"):
        store.groups()
    assert store.matrix("few").values.shape == (12, 5)
    assert len(Tables(filled.path, create=True).read("groups")) == 0
    assert not (filled.path / "groups").exists()
    group_store(store, store.matrix("few"))
    assert len(filled.reader.groups()) == 12
    shutil.rmtree(filled.path / "groups")
    assert len(filled.reader.structures()) == 12


def test_each_rule_has_its_groups_and_the_last_come_first(filled):
    store = fill(filled)
    matrix = store.matrix("few")
    for epsilon in (1e-3, 1e-9, 2.0):
        group_store(store, matrix, Rule(epsilon=epsilon))
    assert store.groups().attrs["epsilon"] == 2.0
    assert store.groups(epsilon=1e-9).attrs["epsilon"] == 1e-9
    assert store.groups(epsilon=1e-9)["group"].nunique() > store.groups()["group"].nunique() == 1
    assert store.groups(metric="cosine", feature="few").attrs["epsilon"] == 2.0
    with pytest.raises(StoreError, match=r"with metric euclidean.*no-groups"):
        store.groups(metric="euclidean")
    with pytest.raises(UsageError, match=r"'epsilom'.*epsilon"):
        store.groups(epsilom=1e-3)


def test_the_same_again_is_not_stored_again(filled):
    store = fill(filled)
    for _ in range(2):
        group_store(store, store.matrix("few"))
    assert n_runs(store) == 1


@pytest.mark.parametrize("n_min", [1, 2])
def test_structures_added_later_give_what_a_fresh_run_gives(filled, n_min, monkeypatch):
    from sorep.similarity import stored

    rule = Rule(epsilon=1e-2, n_min=n_min)
    store = fill(filled, 0, 5)
    group_store(store, store.matrix("few"), rule)
    store = fill(filled, 5, 12)
    matrix = store.matrix("few")
    n_known = 5 if n_min == 1 else 0
    assert outlook(store, matrix, rule) == Outlook(12, 1, n_known, 12 * 11 // 2 - n_known * (n_known - 1) // 2, 12)
    given = []
    original = stored.find_groups
    monkeypatch.setattr(stored, "find_groups", lambda *a, **k: given.append(k["previous"]) or original(*a, **k))
    found = group_store(store, matrix, rule)
    assert (given[0] is not None) == (n_min == 1)
    assert found.frame().equals(fresh(store, rule).frame())
    assert store.groups().equals(found.frame())


def test_another_feature_has_groups_of_its_own(filled):
    store = fill(filled)
    group_store(store, store.matrix("few"))
    filled.commit(*(filled.structure(f"s{n:02}", a=5.0 + 0.01 * n) for n in (0, 1)), spec=WIDER)
    other = store.matrix("wider")
    assert outlook(store, other, Rule()).n_known == 0
    group_store(store, other)
    assert store.groups().attrs["identity"] == other.identity.hash
    assert store.groups()["id"].tolist() == ["s00", "s01", "s02"]  # the last two are one crystal
    assert len(store.groups(feature="few")) == 12


def test_groups_with_structures_that_are_left_out_now_are_not_added_to(filled):
    store = fill(filled)
    group_store(store, store.matrix("few"))
    part = store.matrix("few", ids=["s03", "s04", "s05"])
    assert outlook(store, part, Rule()) == Outlook(3, 1, 0, 3, 3)
    assert group_store(store, part).ids.tolist() == ["s03", "s04", "s05"]


def test_the_matcher_is_asked_once(filled, monkeypatch):
    store = fill(filled)
    plain = group_store(store, store.matrix("few"))
    told: list[tuple[int, int]] = []
    found = group_store(store, store.matrix("few"), confirm=True, on_confirmed=lambda *count: told.append(count))
    assert told[-1] == (4, 4)
    assert found.counts() == {**plain.counts(), "confirmed": 4, "contradicted": 0}
    assert store.groups().equals(found.frame())
    told.clear()
    for confirm in (True, False):
        again = group_store(store, store.matrix("few"), confirm=confirm, on_confirmed=lambda *count: told.append(count))
        assert again.frame().equals(found.frame())
    assert told == []
    assert n_runs(store) == 2


def test_structures_by_their_ids(filled):
    store = fill(filled)
    found = store.structures_of({"s01", "s07", "nobody"})
    assert found.keys() == {"s01", "s07"}
    for id, structure in found.items():
        np.testing.assert_array_equal(structure.lattice, store.structure(id).lattice)

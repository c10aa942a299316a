"""Groups as a table and back, and parts of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from sorep.errors import SimilarityError
from sorep.similarity import Groups, find_groups


@pytest.fixture
def groups(sample) -> Groups:
    values, ids, formulas = sample()
    found = find_groups(values, ids, formulas, feature="few", identity="0123")
    answers = np.array([None if a == b else a < "s00050" for a, b in zip(found.ids, found.representative, strict=True)])
    alone = found.nearest.copy()
    alone[5] = ""
    distance = found.distance_to_nearest.copy()
    distance[5] = np.nan
    return replace(found, confirmed=answers, nearest=alone, distance_to_nearest=distance)


def assert_equal(first: Groups, second: Groups) -> None:
    assert first.rule == second.rule
    for name, value in vars(first).items():
        if name != "rule":
            np.testing.assert_array_equal(getattr(second, name), value, err_msg=name)
            assert getattr(second, name).dtype.kind == value.dtype.kind


def test_to_a_table_and_back(groups):
    frame = groups.frame()
    columns = "id group representative distance nearest distance_to_nearest formula confirmed"
    assert frame.columns.tolist() == columns.split()
    assert frame["nearest"].isna().tolist() == [n == 5 for n in range(len(groups))]
    assert frame.attrs["epsilon"] == 1e-3
    assert_equal(groups, Groups.from_frame(frame))
    assert_equal(groups, Groups.from_frame(frame.sample(frac=1, random_state=0)))


def test_through_a_file(groups, tmp_path):
    groups.frame().to_parquet(tmp_path / "groups.parquet")
    assert_equal(groups, Groups.from_frame(pd.read_parquet(tmp_path / "groups.parquet")))


def test_an_empty_table():
    nothing = find_groups(np.empty((0, 3)), [], [])
    assert_equal(nothing, Groups.from_frame(nothing.frame()))
    assert nothing.counts() == {"structures": 0, "compositions": 0, "groups": 0, "duplicates": 0}
    assert nothing.largest(3) == []


def test_numbers_of_structures_and_answers(groups):
    counts = groups.counts()
    assert counts["structures"] == len(groups) == groups.sizes.sum()
    assert counts["groups"] == len(groups.representatives) == len(set(groups.representative))
    assert counts["duplicates"] == counts["confirmed"] + counts["contradicted"]
    assert counts["confirmed"] == sum(answer is True for answer in groups.confirmed)


def test_the_largest_groups(groups):
    rows = groups.largest(3)
    assert [row[2] for row in rows] == sorted(groups.sizes, reverse=True)[:3]
    for representative, formula, size, farthest in rows:
        (number,) = groups.group[groups.ids == representative]
        members = np.isin(groups.ids, groups.members(number))
        assert (size, farthest) == (members.sum(), groups.distance[members].max())
        assert set(groups.formula[members]) == {formula}
    assert all(row[2] > 1 for row in groups.largest(1000))


def test_one_composition(groups):
    part = groups.of_composition("Si")
    assert set(part.ids) == set(groups.ids[groups.formula == "Si"])
    assert part.n_groups == len(set(groups.group[groups.formula == "Si"]))
    assert part.sizes.min() > 0
    assert_equal(part, part.of_composition("Si"))
    with pytest.raises(SimilarityError, match="no-such-composition"):
        groups.of_composition("Si2")

"""Criteria: what they say, what they refuse, and three-valued logic where properties are missing."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sorep.errors import UsageError
from sorep.screening.criteria import CRITERIA, Comparison, Criteria, get_criteria

NAN, NA = np.nan, pd.NA
CONDUCTOR = CRITERIA["transparent-conductor"]


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("gap > 0.5", Comparison("gap", ">", 0.5)),
        ("  gap_pbe_eV<=-1e-3 ", Comparison("gap_pbe_eV", "<=", -1e-3)),
        ("a.b-c >= .5", Comparison("a.b-c", ">=", 0.5)),
        ("x < 3.", Comparison("x", "<", 3.0)),
    ],
)
def test_comparisons_are_read_and_written(text: str, parsed: Comparison) -> None:
    assert Comparison.parse(text) == parsed
    assert Comparison.parse(str(parsed)) == parsed


@pytest.mark.parametrize(
    "text",
    [
        "gap = 0.5",
        "gap == 0.5",
        "gap",
        "",
        "> 0.5",
        "0.5 < gap",
        "gap > mass",
        "gap > nan",
        "gap > inf",
        "gap > 0.5 and m < 1",
        "0 < gap < 1",
        "__import__('os') > 1",
        "gap > 0.5;",
        "gap > 1_0",
        "gap\n> 0.5 eV",
    ],
)
def test_what_is_no_comparison(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Comparison.parse(text)
    assert caught.value.code == "bad-comparison"


@pytest.mark.parametrize(
    ("relation", "expected"),
    [
        ("<", [True, False, False, NA]),
        ("<=", [True, True, False, NA]),
        (">", [False, False, True, NA]),
        (">=", [False, True, True, NA]),
    ],
)
def test_every_relation(relation: str, expected: list) -> None:
    held = Comparison("x", relation, 0.5).holds(pd.Series([0.4, 0.5, np.inf, NAN]))
    pd.testing.assert_series_equal(held, pd.Series(expected, dtype="boolean"))


@pytest.mark.parametrize(
    ("gap", "electron", "hole", "label"),
    [
        (1.0, 0.3, 2.0, True),
        (1.0, 0.6, 1.0, True),
        (1.0, 0.5, 9.0, True),
        (1.0, 0.51, 1.01, False),
        (1.0, np.inf, np.inf, False),
        (0.5, 0.1, 0.1, False),
        (0.0, NAN, NAN, False),  # a metal
        (1.0, 0.3, NAN, True),
        (1.0, NAN, 0.3, True),
        (1.0, 0.6, NAN, NA),
        (1.0, NAN, NAN, NA),
        (NAN, 0.3, 0.3, NA),
        (NAN, 0.6, 2.0, False),
        (NAN, NAN, NAN, NA),
    ],
)
def test_transparent_conductors(gap: float, electron: float, hole: float, label: object) -> None:
    frame = pd.DataFrame({"hole_mass": [hole], "gap": [gap], "electron_mass": [electron]}, index=["x"])
    found = CONDUCTOR.apply(frame)
    pd.testing.assert_series_equal(found, pd.Series([label], ["x"], dtype="boolean", name="label"))


def test_missing_means_that_both_answers_are_possible() -> None:
    """Kleene's logic is what trying every value gives here, each property being compared once."""
    low, high = 0.0, 9.0
    for row in itertools.product([low, high, NAN], repeat=3):
        choices = [[low, high] if np.isnan(value) else [value] for value in row]
        answers = {
            bool(CONDUCTOR.apply(pd.DataFrame([case], columns=CONDUCTOR.properties))[0])
            for case in itertools.product(*choices)
        }
        (found,) = CONDUCTOR.apply(pd.DataFrame([row], columns=CONDUCTOR.properties))
        assert (found is NA) == (len(answers) == 2)
        if found is not NA:
            assert {bool(found)} == answers


def test_the_words() -> None:
    assert str(CONDUCTOR) == "gap > 0.5 and (electron_mass <= 0.5 or hole_mass <= 1)"
    assert CONDUCTOR.properties == ["gap", "electron_mass", "hole_mass"]
    assert str(Criteria.model_validate({"name": "x", "any": ["a < 1", "b < 1"]})) == "a < 1 or b < 1"
    window = Criteria.model_validate({"name": "x", "all": ["gap > 1", "gap < 2"]})
    assert (str(window), window.properties) == ("gap > 1 and gap < 2", ["gap"])
    assert window.apply(pd.DataFrame({"gap": [0.5, 1.5, 2.5]})).tolist() == [False, True, False]


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('all = ["gap > 0.5"]\nany = ["electron_mass <= 0.5", "hole_mass <= 1.0"]\n')
    assert get_criteria(path) == CONDUCTOR.model_copy(update={"name": "mine"})
    path.write_text('name = "other"\nall = ["gap > 2"]\n')
    assert get_criteria(str(path)).name == "other"
    assert get_criteria("transparent-conductor") is CONDUCTOR


@pytest.mark.parametrize(
    ("text", "needle"),
    [
        ("all = ['gap > 0.5'", "cannot read"),
        ("all = ['gap ~ 0.5']", "'gap ~ 0.5' is no comparison"),
        ("all = 'gap > 0.5'", "all: Value error, give a list"),
        ("all = [0.5]", "all.0"),
        ("every = ['gap > 0.5']", "every: Extra inputs"),
        ("all = []", "nothing to compare"),
        ("name = ''\nall = ['gap > 0.5']", "name"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, needle: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        get_criteria(path)
    assert caught.value.code == "bad-criteria-file"
    assert needle in caught.value.message


@pytest.mark.parametrize(("name", "code"), [("nothing", "unknown-criteria"), ("absent.toml", "bad-criteria-file")])
def test_unknown_criteria(name: str, code: str) -> None:
    with pytest.raises(UsageError) as caught:
        get_criteria(name)
    assert caught.value.code == code

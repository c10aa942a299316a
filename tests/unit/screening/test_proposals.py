"""Proposals for a store, what they are expected to find, and what calculations cost."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest

from sorep.errors import ScreeningError, TableError, UsageError
from sorep.screening.costs import costs_of
from sorep.screening.dataset import load_dataset
from sorep.screening.models import build_model
from sorep.screening.proposals import labelled_rows, next_calculations
from sorep.store import FeatureStore
from sorep.store.tables import Tables

BUILD = partial(build_model, n_estimators=20)


def test_expected_candidates_are_near_those_found(toy) -> None:
    expected, found, by_chance, there = 0.0, 0, 0.0, 0.0
    for seed in range(6):
        data = toy(n=400, seed=seed)
        known = np.sort(np.random.default_rng(seed).permutation(400)[:150])
        proposed = next_calculations(data, known, data.labels[known], np.ones(400), 50, BUILD, seed=seed)
        expected += proposed.expected or np.nan
        by_chance += proposed.expected_at_random or np.nan
        found += int(data.labels[np.searchsorted(data.ids, proposed.frame["id"])].sum())
        there += 50 * np.delete(data.labels, known).mean()
    assert expected == pytest.approx(found, rel=0.15)
    assert by_chance == pytest.approx(there, rel=0.25)
    assert found > 2 * there


def test_frame_tells_why_and_at_what_cost(toy) -> None:
    data = toy()
    known = np.arange(50)
    costs = np.linspace(0.5, 1.5, len(data))
    proposed = next_calculations(data, known, data.labels[known], costs, 8, BUILD, strategy="mixture")
    frame = proposed.frame
    rows = np.searchsorted(data.ids, frame["id"])
    assert (frame["formula"] == data.groups[rows]).all()
    assert (frame["cost"] == costs[rows]).all() and frame["cost"].sum() <= 8
    assert set(frame["reason"]) <= {"yield", "uncertainty"}
    order = np.argsort(frame["score"])
    assert (np.diff(frame["probability"].to_numpy()[order]) >= 0).all()
    assert (proposed.n_known, proposed.n_candidates) == (50, data.labels[:50].sum())
    assert proposed.expected == pytest.approx(frame["probability"].sum())


def test_labels_too_few_for_probabilities_still_give_scores(toy) -> None:
    data = toy()
    known = np.array([*np.flatnonzero(data.labels)[:1], *np.flatnonzero(~data.labels)[:3]])
    proposed = next_calculations(data, known, data.labels[known], np.ones(len(data)), 5, BUILD)
    assert proposed.expected is None and proposed.expected_at_random is None
    assert proposed.frame["score"].notna().all() and proposed.frame["probability"].isna().all()


def test_nothing_left_and_nothing_affordable_are_errors(toy) -> None:
    data = toy()
    every, some = np.arange(len(data)), np.arange(40)
    with pytest.raises(ScreeningError, match="all 120 structures are labelled"):
        next_calculations(data, every, data.labels, np.ones(120), 5, BUILD)
    with pytest.raises(ScreeningError, match=r"a budget of 0.5 pays for no structure: the least cost is 1"):
        next_calculations(data, some, data.labels[some], np.ones(120), 0.5, BUILD)


def test_labels_of_a_store_are_matched_by_id(salts) -> None:
    data = load_dataset(salts, "kinetic")
    rows, labels = labelled_rows(salts, data, pd.Series({"NaCl": True, "LiF": True, "broken": False}))
    assert data.ids[rows].tolist() == ["LiF", "NaCl"] and labels.tolist() == [True, True]
    assert len(labelled_rows(salts, data, None)[0]) == 0
    typing_error = pd.Series({"NaCl": True, "NaCi": False})
    with pytest.raises(ScreeningError, match=r"1 of 2 labels.*NaCi.*unknown-id"):
        labelled_rows(salts, data, typing_error)
    assert labelled_rows(salts, data, typing_error, ignore_unknown=True)[1].tolist() == [True]


def test_costs_come_from_a_table(salts, tmp_path) -> None:
    ids = np.array(["LiF", "MgO"])
    table = tmp_path / "costs.csv"
    table.write_text("id,hours\nMgO,3\nLiF,1\nother,7\n")
    costs, words = costs_of(salts, ids, f"{table}:hours")
    assert costs.tolist() == [0.5, 1.5] and words == f"hours of {table}"
    for ids, source, code in (
        (["LiF", "KCl"], f"{table}:hours", "no-cost"),
        (["LiF"], "single-shot", "no-cost"),  # these are kinetic spectra
        (["LiF"], f"{table}:minutes", "missing-column"),
    ):
        with pytest.raises((ScreeningError, TableError)) as caught:
            costs_of(salts, np.array(ids), source)
        assert caught.value.code == code
    table.write_text("id,hours\nLiF,0\n")
    with pytest.raises(ScreeningError, match="bad-cost"):
        costs_of(salts, np.array(["LiF"]), f"{table}:hours")
    with pytest.raises(UsageError, match="TABLE:COLUMN"):
        costs_of(salts, np.array(["LiF"]), "time")


def test_without_single_shots_every_calculation_counts_the_same(salts) -> None:
    costs, words = costs_of(salts, np.array(["LiF", "MgO"]))
    assert costs.tolist() == [1, 1] and words == "every calculation counts the same"


def test_cost_of_a_single_shot_is_its_latest_time(tmp_path) -> None:
    tables = Tables(tmp_path, create=True)
    tables.append("structures", [{"id": name, "content_key": name.upper()} for name in ("a", "b", "c")])

    def add(**seconds: float) -> None:
        rows = [{"content_key": key.upper(), "cpu_seconds": value} for key, value in seconds.items()]
        tables.append("spectra", [{"identity": "0", "operator": "single-shot", **row} for row in rows])

    ids = np.array(["a", "b", "c"])
    add(a=9.0, b=2.0)
    tables.append("spectra", [{"identity": "1", "operator": "kinetic", "content_key": "C", "cpu_seconds": 1.0}])
    assert costs_of(FeatureStore(tmp_path), ids)[1] == "every calculation counts the same"  # c has none
    add(a=1.0, c=3.0)
    costs, words = costs_of(FeatureStore(tmp_path), ids)
    assert costs.tolist() == [0.5, 1.0, 1.5] and words == "CPU time of the single shot"
    assert costs_of(FeatureStore(tmp_path), ids, "equal")[0].tolist() == [1, 1, 1]

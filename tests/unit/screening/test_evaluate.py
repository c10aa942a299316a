"""Evaluations: the same numbers whatever the number of workers, the order and the interruptions."""

from __future__ import annotations

import fcntl
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sorep.engine import LocalEngine, SerialEngine
from sorep.errors import ScreeningError, UsageError
from sorep.screening.curves import PARTS, RESULTS, load_curves
from sorep.screening.evaluate import Outlook, estimate, evaluate, expected_seconds
from sorep.screening.plan import find_baselines, make_plan
from sorep.screening.protocol import Protocol
from sorep.screening.trial import REPEATS

QUICK = Protocol(
    sizes=(0.1, 0.3),
    splits=3,
    holdout=0.2,
    models=("sklearn.tree:DecisionTreeClassifier",),
    params={"max_depth": 3},
    permutation=0.3,
)
TIMES = ["seconds", "seconds_predict"]


@pytest.fixture
def sets(toy):
    """Two feature sets of the same structures: one that tells the label, and noise."""
    told = toy(200)
    return [told, replace(toy(200, name="noise", seed=9), labels=told.labels, groups=told.groups)]


def run(plan, folder, engine=None, **options):
    with engine or SerialEngine() as opened:
        return evaluate(plan, folder, opened, **options)


def numbers(folder) -> pd.DataFrame:
    return load_curves(folder).results.drop(columns=TIMES)


def test_what_is_computed(sets, tmp_path) -> None:
    progress = run(make_plan(sets, QUICK), tmp_path / "out")
    curves = load_curves(tmp_path / "out")
    assert (progress.done, progress.total, progress.errors) == (24, 24, [])
    assert curves.arms == {"toy": "toy", "noise": "noise", "chance": "", "constant": ""}
    assert curves.sizes == [20, 60]
    assert curves.results["arm"].tolist() == sorted(curves.results["arm"], key=list(curves.arms).index)
    summary = curves.summary().set_index(["arm", "n_rows"])["roc_auc_mean"]
    assert summary["toy", 60] > 0.8
    assert abs(summary["noise", 60] - 0.5) < 0.2
    assert summary["constant", 60] == 0.5
    permuted = curves.results.query("permutation.notna()")
    assert set(zip(permuted["arm"], permuted["n_rows"], strict=True)) == {("toy", 60), ("noise", 60)}
    assert np.argmax(np.mean(permuted.query("arm == 'toy'")["permutation"].tolist(), axis=0)) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        ".lock",
        RESULTS,
        "settings.json",
        "structures.parquet",
    ]


def test_the_holdout_is_one_for_all_and_shares_no_formula(sets) -> None:
    first, second = (make_plan(sets, replace_protocol(splits=n)) for n in (1, 5))
    assert np.array_equal(first.is_held_out, second.is_held_out)
    groups = sets[0].groups
    assert not set(groups[first.is_held_out]) & set(groups[~first.is_held_out])
    assert first.is_held_out.sum() == 40
    random = make_plan(sets, replace_protocol(split="random"))
    assert set(groups[random.is_held_out]) & set(groups[~random.is_held_out])


def replace_protocol(**changes) -> Protocol:
    return QUICK.model_copy(update=changes)


def test_numbers_do_not_depend_on_the_number_of_workers(sets, tmp_path) -> None:
    plan = make_plan(sets, QUICK)
    run(plan, tmp_path / "serial")
    run(plan, tmp_path / "two", LocalEngine(2))
    pd.testing.assert_frame_equal(numbers(tmp_path / "serial"), numbers(tmp_path / "two"))


def test_an_interrupted_run_goes_on_where_it_was(sets, tmp_path) -> None:
    plan = make_plan(sets, QUICK)
    run(plan, tmp_path / "whole")

    def stop(progress) -> None:
        if progress.done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(plan, tmp_path / "cut", on_progress=stop)
    parts = tmp_path / "cut" / PARTS
    assert len(list(parts.iterdir())) == 10
    (parts / "0-20-9.parquet.tmp").write_bytes(b"half a file")  # what a kill while writing leaves
    assert len(load_curves(tmp_path / "cut").results) == 10
    kept = load_curves(tmp_path / "cut").results.set_index(["arm", "n_rows", "split"])["seconds"]
    seen = []
    run(plan, tmp_path / "cut", on_planned=seen.append)
    assert (seen[0].n_trials, seen[0].n_missing) == (24, 14)
    pd.testing.assert_frame_equal(numbers(tmp_path / "whole"), numbers(tmp_path / "cut"))
    after = load_curves(tmp_path / "cut").results.set_index(["arm", "n_rows", "split"])["seconds"]
    assert after[kept.index].equals(kept)  # not computed again
    again = []
    run(plan, tmp_path / "cut", on_progress=again.append)
    assert again == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"splits": 4}, "protocol.splits: 3 against 4"),
        ({"seed": 1}, "protocol.seed: 0 against 1"),
        ({"params": {"max_depth": 4}}, "max_depth: '3' against '4'"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused(sets, tmp_path, change, told) -> None:
    run(make_plan(sets, QUICK), tmp_path)
    with pytest.raises(UsageError, match=re.escape(told)) as caught:
        run(make_plan(sets, replace_protocol(**change)), tmp_path)
    assert caught.value.code == "other-settings"
    with pytest.raises(UsageError, match=re.escape(told)), SerialEngine() as engine:
        estimate(make_plan(sets, replace_protocol(**change)), engine, tmp_path)


@pytest.mark.parametrize("what", ["values", "labels"])
def test_other_data_in_the_same_folder_are_refused(sets, tmp_path, what) -> None:
    run(make_plan(sets, QUICK), tmp_path)
    changed = getattr(sets[0], what).copy()
    changed[0] = not changed[0] if what == "labels" else changed[0] + 1e-9
    with pytest.raises(UsageError) as caught:
        run(make_plan([replace(each, **{what: changed}) for each in sets], QUICK), tmp_path)
    assert caught.value.code == "other-settings"


def test_folders_that_cannot_be_used(sets, tmp_path) -> None:
    plan = make_plan(sets, QUICK)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("")
    run(plan, tmp_path / "busy")
    with (tmp_path / "busy" / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name, code in (("foreign", "foreign-folder"), ("file", "unwritable-folder"), ("busy", "in-use")):
            with pytest.raises(UsageError) as caught:
                run(plan, tmp_path / name)
            assert caught.value.code == code
    assert [path.name for path in foreign.iterdir()] == ["thesis.txt"]


def test_the_subset_is_scored_on_its_own(sets, tmp_path) -> None:
    inside = pd.Series([True, False, None, True] * 50, index=sets[0].ids, dtype="boolean")
    plan = make_plan(sets, replace_protocol(within="gap > 0"), inside)
    assert plan.is_within.tolist() == [True, False, False, True] * 50
    run(plan, tmp_path)
    curves = load_curves(tmp_path)
    assert "gap > 0: 100 structures" in curves.facts["subset"]
    assert (curves.of("toy")["roc_auc_within"] != curves.of("toy")["roc_auc"]).any()
    with pytest.raises(UsageError, match="not given"):
        make_plan(sets, replace_protocol(within="gap > 0"))
    run(make_plan(sets, QUICK), tmp_path / "all")
    assert load_curves(tmp_path / "all").results["roc_auc_within"].isna().all()


def test_feature_sets_are_compared_on_the_structures_that_all_have(sets) -> None:
    fewer = sets[1].take(np.arange(200) % 10 != 0)
    plan = make_plan([sets[0], fewer], QUICK)
    assert [len(dataset) for dataset in plan.datasets] == [180, 180]
    assert np.array_equal(plan.datasets[0].ids, fewer.ids)


def test_what_cannot_be_evaluated(sets) -> None:
    one_class = [replace(each, labels=np.ones(200, dtype=bool)) for each in sets]
    with pytest.raises(ScreeningError) as caught:
        make_plan(one_class, QUICK)
    assert caught.value.code == "one-class"
    with pytest.raises(UsageError) as refused:
        make_plan(sets, replace_protocol(models=("no.such:Model",)))
    assert refused.value.code == "unknown-model"
    with pytest.raises(UsageError) as refused:
        make_plan(sets, replace_protocol(params={"depth": 3}))
    assert refused.value.code == "unknown-parameter"


def test_failed_trials_are_told_and_tried_again(sets, tmp_path, monkeypatch) -> None:
    import sorep.screening.trial as module

    plan = make_plan(sets, QUICK)

    def break_down(model, values, labels):
        raise RuntimeError("out of order")

    with monkeypatch.context() as broken:
        broken.setattr(module, "fit_model", break_down)
        progress = run(plan, tmp_path)
    assert (progress.done, len(progress.errors)) == (0, 24)
    assert {error.code for _, error in progress.errors} == {"unexpected-error"}
    with pytest.raises(ScreeningError) as caught:
        load_curves(tmp_path)
    assert caught.value.code == "no-evaluation"
    assert run(plan, tmp_path).done == 24


def test_an_estimate_leaves_nothing_behind(sets, tmp_path) -> None:
    plan = make_plan(sets, QUICK)
    with SerialEngine() as engine:
        outlook = estimate(plan, engine, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        assert (outlook.n_trials, outlook.n_missing) == (24, 24)
        assert outlook.seconds > 0
        evaluate(plan, tmp_path / "out", engine)
        assert estimate(plan, engine, tmp_path / "out") == Outlook(24, 0, 0.0)


def test_cost_is_extrapolated_as_a_constant_and_a_power(sets) -> None:
    trials = [replace(t, blocks=()) for t in make_plan(sets, QUICK).trials(Path()) if t.arm.name == "toy"]
    cost = {20: 1.0 + 20**1.4, 60: 1.0 + 60**1.4}
    rows = [{"arm": "toy", "n_rows": n, "seconds": s, "seconds_predict": 0.1} for n, s in cost.items()]
    assert expected_seconds(trials, rows) == pytest.approx([cost[trial.n_rows] for trial in trials])
    permuted = [replace(trial, blocks=((0, 1), (1, 2))) for trial in trials]
    more = np.subtract(expected_seconds(permuted, rows), expected_seconds(trials, rows))
    assert more == pytest.approx(np.full(len(trials), 2 * REPEATS * 0.1))


def test_baselines_are_found_or_missed(salts) -> None:
    found, notes = find_baselines(salts, ["kinetic", "composition"])
    assert found == []
    assert len(notes) == 1
    assert "sorep featurize --descriptor soap" in notes[0]

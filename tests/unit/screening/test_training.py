"""Training with its honest estimate, the grid, and the ranking."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from sorep.errors import ScreeningError, UsageError
from sorep.screening.grid import GRID, N_SPLITS, grid_of, search
from sorep.screening.metrics import regression_scores, scores
from sorep.screening.models import build_model, predicted
from sorep.screening.ranking import rank
from sorep.screening.splits import folds
from sorep.screening.training import CHANCE, train

SMALL_GRID = {"class_weight": [None, "balanced"], "ccp_alpha": [0.0, 1.0]}


@pytest.fixture
def small_grid(monkeypatch):
    monkeypatch.setattr("sorep.screening.grid.GRID", SMALL_GRID)


def forest(**params):
    return build_model("default", 0, **{"n_estimators": 20, **params})


def test_the_estimate_is_that_of_folds_over_whole_formulas(toy):
    data = toy()
    found = train(data, forest(), n_folds=4, seed=3, label="x").metrics["toy"]
    answer = np.zeros(len(data))
    for learn, test in folds(data.labels, data.groups, 4, seed=3):
        answer[test] = predicted(forest().fit(data.values[learn], data.labels[learn]), data.values[test])
    assert found == pytest.approx(scores(data.labels, answer), nan_ok=True)
    assert found["roc_auc"] > 0.85


def test_copies_of_a_formula_do_not_flatter(toy):
    # Labels are noise, but both structures of a formula share label and features: only a split that parts them learns.
    data, random = toy(200), np.random.default_rng(0)
    values = np.repeat(random.normal(size=(100, 6)), 2, axis=0)
    labels = np.repeat(random.random(100) < 0.4, 2)
    twins = replace(data, values=values, labels=labels)
    apart = replace(twins, groups=np.arange(200).astype(str))
    honest, flattered = (train(each, forest(), label="x").metrics["toy"]["roc_auc"] for each in (twins, apart))
    assert honest < 0.65
    assert flattered > 0.8


def test_chance_and_baselines_stand_beside(toy):
    data = toy()
    noise = replace(data, name="noise", values=np.random.default_rng(5).normal(size=data.values.shape))
    metrics = train(data, forest(), baselines=[noise], label="x").metrics
    assert list(metrics) == ["toy", "noise", CHANCE]
    assert metrics[CHANCE]["roc_auc"] == 0.5
    assert metrics[CHANCE]["balanced_accuracy"] == 0
    assert metrics[CHANCE]["average_precision"] == pytest.approx(data.labels.mean())
    assert abs(metrics["noise"]["roc_auc"] - 0.5) < 0.2


def test_the_number_of_jobs_changes_nothing(toy):
    data = toy()
    one, two = (train(data, forest(), jobs=jobs, label="x") for jobs in (1, 2))
    assert one.metrics["toy"] == pytest.approx(two.metrics["toy"], rel=0, abs=0, nan_ok=True)
    assert np.array_equal(one.predict(data), two.predict(data))


def test_progress_counts_every_fit(toy):
    seen = []
    train(
        toy(), forest(n_estimators=2), n_folds=3, label="x", on_progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_regression_beside_the_mean(toy):
    data = replace(toy(), labels=toy().values[:, 0] * 2)
    model = train(data, build_model(regression=True, n_estimators=20), label="gap")
    assert model.is_regression
    assert model.metrics["toy"]["mae"] < 0.5 * model.metrics[CHANCE]["mae"]
    assert model.metrics["toy"]["r2"] > 0.7
    assert model.metrics[CHANCE]["r2"] == pytest.approx(0, abs=0.1)
    constant = regression_scores(data.labels, np.full(len(data), data.labels.mean()))
    assert model.metrics[CHANCE]["rmse"] == pytest.approx(constant["rmse"], rel=0.05)


def test_training_needs_labels(toy):
    with pytest.raises(ScreeningError, match="no-labels"):
        train(replace(toy(), labels=None), forest(), label="x")
    with pytest.raises(ScreeningError, match="no-labels"):
        search(replace(toy(), labels=toy().values[:, 0]), forest())


def test_the_grid_holds_the_published_choice():
    combinations = grid_of(build_model("published"))
    assert len(combinations) == np.prod([len(values) for values in GRID.values()])
    published = build_model("published").named_steps["model"].get_params()
    assert {name: published[name] for name in GRID} in combinations
    assert len(grid_of(build_model("sklearn.ensemble:ExtraTreesClassifier"))) == 3 * 2 * 3
    with pytest.raises(UsageError, match="no-grid"):
        grid_of(build_model("sklearn.naive_bayes:GaussianNB"))


def test_the_search_ranks_by_the_score_on_held_out_formulas(toy, small_grid):
    data = toy()
    ranked = search(data, forest(n_estimators=10), scoring="roc_auc")
    assert [score for _, score in ranked] == sorted((score for _, score in ranked), reverse=True)
    # Pruned to the root, a forest knows nothing.
    assert {choice["ccp_alpha"] for choice, _ in ranked[:2]} == {0.0}
    assert [score for choice, score in ranked if choice["ccp_alpha"]] == pytest.approx([0.5, 0.5], abs=0.15)
    with pytest.raises(UsageError, match="bad-option"):
        search(data, forest(), scoring="accuracy")


def test_a_search_that_was_stopped_goes_on(toy, small_grid, tmp_path):
    data, journal = toy(), tmp_path / "grid.jsonl"
    model, total = forest(n_estimators=3), 4 * N_SPLITS

    def run(data=data, **options) -> tuple[list, list]:
        seen = []
        found = search(data, model, journal=journal, on_progress=lambda done, _: seen.append(done), **options)
        return found, seen

    complete, seen = run()
    assert seen == list(range(total + 1))
    lines = journal.read_text().splitlines(keepends=True)
    assert len(lines) == total + 1
    journal.write_text("".join(lines[:8]) + lines[8][:20])  # killed while writing the eighth
    again, seen = run()
    assert again == complete
    assert seen[0] == 7
    assert run()[1] == [total]
    # Other labels, other splits: nothing of it counts.
    assert run(seed=1)[1][0] == 0
    assert run(replace(data, labels=~data.labels))[1][0] == 0


def test_combinations_that_cannot_be_fitted_are_left_out(toy, monkeypatch):
    monkeypatch.setattr("sorep.screening.grid.GRID", {"sampling_strategy": ["over", "all"]})
    assert [choice for choice, _ in search(toy(), forest(n_estimators=3))] == [{"sampling_strategy": "all"}]
    monkeypatch.setattr("sorep.screening.grid.GRID", {"sampling_strategy": ["over"]})
    with pytest.raises(ScreeningError, match="cannot-fit"):
        search(toy(), forest(n_estimators=3))


def test_journal_lines_are_plain_json(toy, small_grid, tmp_path):
    journal = tmp_path / "grid.jsonl"
    search(toy(), forest(n_estimators=2), journal=journal)
    digest, choice, split, found = json.loads(journal.read_text().splitlines()[-1])
    assert len(digest) == 16
    assert json.loads(choice).keys() == SMALL_GRID.keys()
    assert 0 <= split < N_SPLITS
    assert 0 <= found["roc_auc"] <= 1


def test_the_ranking_puts_the_promising_first(toy):
    data, others = toy(), toy(60, seed=4)
    model = train(data, forest(), label="x")
    mixed = replace(others, ids=np.append(others.ids[:50], data.ids[-10:]))
    ranked = rank(model, mixed)
    assert list(ranked.columns) == ["id", "formula", "probability", "score", "candidate", "known"]
    assert ranked["probability"].is_monotonic_decreasing
    assert (ranked["candidate"] == (ranked["score"] >= 0.5)).all()
    assert set(ranked.loc[ranked["known"], "id"]) == set(mixed.ids.tolist()) & set(data.ids.tolist())
    probability = dict(zip(mixed.ids, model.predict(mixed), strict=True))
    assert ranked["probability"].tolist() == [probability[id] for id in ranked["id"]]
    labels = dict(zip(mixed.ids, mixed.labels, strict=True))
    assert roc_auc_score([labels[id] for id in ranked["id"]], ranked["probability"]) > 0.85
    lenient = rank(replace(model, threshold=0.1), mixed)
    assert lenient["candidate"].sum() > ranked["candidate"].sum()


def test_equal_scores_are_ordered_by_id(toy):
    data = toy()
    model = train(data, forest(), label="x")
    flat = replace(data, values=np.zeros_like(data.values))
    assert rank(model, flat.take(np.arange(len(data))[::-1]))["id"].tolist() == data.ids.tolist()


def test_a_regression_is_ranked_by_value(toy):
    data = replace(toy(), labels=toy().values[:, 0])
    model = train(data, build_model(regression=True, n_estimators=5), label="gap")
    ranked = rank(model, data)
    assert list(ranked.columns) == ["id", "formula", "prediction", "known"]
    assert ranked["prediction"].is_monotonic_decreasing

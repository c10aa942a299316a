"""Replays of a search, against what follows from the data by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sorep.errors import ScreeningError, UsageError
from sorep.screening.simulate import Comparison, Replay, Setting, simulate

QUICK = {"params": {"n_estimators": 10}, "published_params": {"n_estimators": 20}}


@pytest.fixture(scope="module")
def clear(toy):
    """A third of 150 structures are candidates, and one feature tells which."""
    return toy(n=150, noise=0.05)


@pytest.fixture(scope="module")
def comparison(clear) -> Comparison:
    setting = Setting(batch=0.05, until=0.6, train_sizes=(0.1,), **QUICK)
    return simulate(clear.values, clear.labels, np.ones(150), setting, seeds=range(2))


def test_every_procedure_calculates_each_structure_once(comparison) -> None:
    assert {replay.procedure for replay in comparison.replays} == set(comparison.setting.procedures)
    for replay in comparison.replays:
        assert len(np.unique(replay.rows)) == len(replay.rows) >= 0.6 * 150 - 1
    assert comparison.setting.procedures[-1] == "published 0.1"


def test_model_finds_candidates_sooner_than_chance(comparison) -> None:
    found = {name: comparison.found(name, np.array([0.5])).mean() for name in comparison.setting.procedures}
    assert found["random"] == pytest.approx(0.5, abs=0.15)
    assert found["yield"] > 0.95
    assert found["yield"] >= found["mixture"] > found["random"] + 0.2
    assert found["published 0.1"] > found["random"] + 0.2


def test_published_procedure_spends_its_training_set_first_and_ends_with_its_predictions(comparison, clear) -> None:
    spent, found = comparison.ends("published 0.1")
    for replay, cost, share in zip(comparison._of("published 0.1"), spent, found, strict=True):
        assert len(replay.rows) == 150
        assert 15 < replay.end < 150
        assert cost == replay.end / 150
        assert share == clear.labels[replay.rows[: replay.end]].sum() / clear.labels.sum()
    training = [set(replay.rows[:15].tolist()) for replay in comparison._of("published 0.1")]
    assert training[0] != training[1]


def test_result_does_not_depend_on_the_number_of_processes(clear) -> None:
    setting = Setting(strategies=("yield", "random"), batch=0.1, until=0.3, train_sizes=(0.1,), **QUICK)
    one, two = (
        simulate(clear.values, clear.labels, np.ones(150), setting, seeds=range(2), jobs=jobs) for jobs in (1, 2)
    )
    assert [replay.rows.tolist() for replay in one.replays] == [replay.rows.tolist() for replay in two.replays]


def test_found_area_and_table_by_hand() -> None:
    labels = np.array([True, False, False, True, False])
    costs = np.array([2.0, 1.0, 1.0, 4.0, 2.0])
    setting = Setting(strategies=("yield",), train_sizes=(), until=1.0)
    order = np.array([1, 0, 3, 2, 4])
    comparison = Comparison(labels, costs, setting, [Replay("yield", 0, order, 5), Replay("yield", 1, order[::-1], 5)])
    # Spent after each of the first replay: 0.1, 0.3, 0.7, 0.8, 1; candidates are found at 0.3 and 0.7.
    spent = np.array([0.0, 0.1, 0.29, 0.3, 0.69, 0.7, 1.0])
    assert comparison.found("yield", spent)[0].tolist() == [0, 0, 0, 0.5, 0.5, 1, 1]
    # And of the second: 0.2, 0.3, 0.7, 0.9, 1; found at 0.7 and 0.9.
    assert comparison.found("yield", spent)[1].tolist() == [0, 0, 0, 0, 0, 0.5, 1]
    assert comparison.area("yield") == pytest.approx([0.5 * 0.4 + 0.3, 0.5 * 0.2 + 0.1], abs=0.01)
    table = comparison.table()
    assert table["found at 0.3"].item() == 0.25
    assert table["sd at 0.3"].item() == 0.25
    assert np.isnan(table["spent at end"].item())


def test_costs_are_what_is_spent(clear) -> None:
    costs = np.where(np.arange(150) % 3, 1.0, 5.0)
    setting = Setting(strategies=("yield", "random"), batch=0.04, until=0.3, train_sizes=(0.1,), **QUICK)
    found = simulate(clear.values, clear.labels, costs, setting, seeds=range(3))
    for replay in found.replays:
        if replay.procedure != "published 0.1":
            spent = np.cumsum(costs[replay.rows]) / costs.sum()
            assert 0.3 <= spent[-1] < 0.35
    cheap = [np.mean(costs[r.rows[:30]] == 1) for r in found.replays if r.procedure == "yield"]
    assert np.mean(cheap) > 0.8
    assert found.found("yield", np.array([0.25])).mean() > found.found("random", np.array([0.25])).mean() + 0.2


def test_a_structure_dearer_than_a_batch_is_calculated_all_the_same(clear) -> None:
    values, labels = clear.values[:30], np.arange(30) < 10
    costs = np.where(np.arange(30) < 15, 20.0, 1.0)
    setting = Setting(strategies=("random", "diversity"), batch=0.01, until=1.0, train_sizes=(0.2,), **QUICK)
    found = simulate(values, labels, costs, setting, seeds=[0])
    assert all(len(replay.rows) == 30 for replay in found.replays)


def test_figure_shows_every_procedure(comparison, tmp_path) -> None:
    from matplotlib.image import imread

    figure = comparison.figure()
    shown = {text.get_text() for text in figure.legends[0].get_texts()}
    assert shown == {*comparison.setting.procedures, "perfect knowledge"}
    assert figure.axes[0].get_xlabel() == "share of all calculations"
    figure.savefig(tmp_path / "search.png")
    assert imread(tmp_path / "search.png").std() > 0


def test_perfect_knowledge_is_never_beaten(comparison) -> None:
    line = next(line for line in comparison.figure().axes[0].get_lines() if line.get_label() == "perfect knowledge")
    spent, best = np.asarray(line.get_data())
    assert all((comparison.found(name, spent) <= best + 1e-9).all() for name in comparison.setting.procedures)
    assert best[-1] == 1


def test_bad_input_is_refused(clear) -> None:
    with pytest.raises(ScreeningError, match="one-class"):
        simulate(clear.values, np.zeros(150, dtype=bool), np.ones(150), Setting())
    with pytest.raises(UsageError, match="unknown-strategy"):
        simulate(clear.values, clear.labels, np.ones(150), Setting(strategies=("best",)))
    for wrong in ({"batch": 0.0}, {"until": 1.5}, {"train_sizes": (-0.1,)}):
        with pytest.raises(UsageError, match="give a share"):
            Setting(**wrong)

"""The report on learning curves: what it shows, in which colours, and that it needs nothing else."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.image import imread
from sklearn.metrics import roc_auc_score

from sorep.engine import SerialEngine
from sorep.errors import ScreeningError
from sorep.features import FEATURES
from sorep.identity import Identity
from sorep.screening.curves import Curves, load_curves
from sorep.screening.dataset import Part
from sorep.screening.evaluate import evaluate
from sorep.screening.figures import curves_figure, gain_figure, importance_figure, looks
from sorep.screening.plan import make_plan
from sorep.screening.protocol import Protocol
from sorep.screening.report import auc_error, write_report

WINDOWS = FEATURES["vbm-fermi-cbm"].windows
SPEC = FEATURES["vbm-fermi-cbm"].model_copy(
    update={"windows": tuple(window.model_copy(update={"points": 21}) for window in WINDOWS)}
)


@pytest.fixture(scope="module")
def folder(toy, tmp_path_factory) -> Path:
    """Composition, alone and beside a grid of energies whose third window begins with what tells the label."""
    folder = tmp_path_factory.mktemp("report")
    told = toy(240)
    random = np.random.default_rng(4)
    grid = random.normal(size=(240, 63))
    grid[:, 42:45] += 2.0 * told.labels[:, np.newaxis]
    part = Part("edges", Identity.of({"operator": "single-shot", "feature": SPEC.words()}), 63)
    names = replace(toy(240, 5, seed=3).parts[0], name="composition")
    plain = replace(told, name="composition", values=told.values[:, 1:], feature_names=list("abcde"), parts=(names,))
    both = replace(
        told,
        name="edges+composition",
        values=np.hstack([grid, plain.values]),
        feature_names=[*(f"edges:{n}" for n in SPEC.feature_names), *(f"composition:{n}" for n in "abcde")],
        parts=(part, names),
    )
    protocol = Protocol(
        sizes=(0.05, 0.2, 0.5),
        splits=3,
        holdout=0.25,
        within="gap > 0",
        permutation=0.5,
        models=("sklearn.tree:DecisionTreeClassifier",),
        params={"max_depth": 3},
    )
    within = pd.Series(np.arange(240) % 2 == 0, index=told.ids)
    facts = {"labels": "label of <labels>.csv"}
    with SerialEngine() as engine:
        evaluate(make_plan([both, plain], protocol, within, facts), folder, engine)
    write_report(load_curves(folder), folder / "report.html", table=0.2)
    return folder


@pytest.fixture(scope="module")
def curves(folder) -> Curves:
    return load_curves(folder)


@pytest.fixture(scope="module")
def page(folder) -> str:
    return (folder / "report.html").read_text()


def test_one_file_that_needs_no_other(folder, page) -> None:
    assert not re.search(r'(?:src|href)="(?!data:image/png;base64,)', page)
    assert page.count("<img") == 6
    pictures = sorted(folder.glob("report-*.png"))
    assert [path.stem.removeprefix("report-") for path in pictures] == [
        "calibration",
        "confusion",
        "curves",
        "gain",
        "importance-0",
        "importance-1",
    ]
    assert all(imread(path).std() > 0.02 for path in pictures)


def test_what_a_reader_must_know_is_there(page, curves) -> None:
    assert "no formula is on two sides" in page
    assert "label of &lt;labels&gt;.csv" in page
    assert curves.identity.hash in page
    assert re.search(r"imbalanced-learn \d+\.\d+.*numpy \d+\.\d+.*scikit-learn \d+\.\d+", page)
    for heading in ("Learning curves", "Table 1", "Ranking and gain", "Differences in pairs", "Figure 9", "Figure 8"):
        assert heading in page
    for word in ("Adjusted balanced accuracy", "ROC AUC", "Brier score", "Speed-up", "Permutation importance"):
        assert f"<dt>{word}</dt>" in page


def test_table_1_is_of_the_size_asked_for_and_marks_the_best(page, curves) -> None:
    table = re.search(r"<h2>Table 1: hold-out after training on 48 rows.*?<table.*?</table>", page, re.DOTALL)
    assert table
    summary = curves.summary().query("n_rows == 48").set_index("arm")
    for arm in curves.arms:
        line = re.search(rf"<td>{re.escape(arm)}</td>(.*?)</tr>", table[0], re.DOTALL)
        assert line
        mean, sd = summary.loc[arm, ["balanced_accuracy_mean", "balanced_accuracy_sd"]]
        assert f"{mean:.3f} ± {sd:.3f}".replace("-0.000", "0.000") in line[1].replace("-0.000", "0.000")
        assert f"({summary.loc[arm, 'tp_rate_mean']:.3f}" in line[1]
    trained = summary.loc[["edges+composition", "composition"], "balanced_accuracy_mean"]
    best = re.search(rf"<td>{re.escape(trained.idxmax())}</td>(.*?)</tr>", table[0], re.DOTALL)
    assert best and f'class="best">{trained.max():.3f}' in best[1]


def test_an_arm_has_one_colour_in_all_pictures(curves) -> None:
    look = looks(curves)
    assert len({each.color for each in look.values()}) == 3  # chance and constant share theirs
    assert look["composition"].linestyle == "--"
    for figure in (curves_figure(curves, ["roc_auc"]), gain_figure(curves)):
        for axis in figure.axes:
            for line in axis.lines:
                if line.get_label() in look:
                    assert line.get_color() == look[str(line.get_label())].color


def test_importance_stands_where_its_energies_are(curves) -> None:
    figure = importance_figure(curves, "edges+composition", 120)
    assert figure is not None
    axes = np.array(figure.axes).reshape(2, 4)
    impurity = [axis.lines[0].get_xydata() for axis in axes[0, :3]]
    assert [line[[0, -1], 0].tolist() for line in impurity] == [[-1, 1]] * 3
    assert sum(line[:, 1].sum() for line in impurity) + sum(bar.get_width() for bar in axes[0, 3].patches) == (
        pytest.approx(100)
    )
    highest = impurity[2][np.argmax(impurity[2][:, 1]), 0]
    assert highest <= -0.8  # the first three of the third window
    assert max(line[:, 1].max() for line in impurity[:2]) < impurity[2][:, 1].max()
    assert {label.get_text() for label in axes[0, 3].get_yticklabels()} == set("abcde")
    assert to_hex(axes[0, 0].lines[0].get_color()) == looks(curves)["edges+composition"].color.lower()
    assert importance_figure(curves, "constant", 120) is None


def test_error_of_an_auc_against_many_draws() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(150) < 30
    aucs = [roc_auc_score(labels, random.normal(size=150) + 1.5 * labels) for _ in range(500)]
    assert auc_error(float(np.mean(aucs)), 30, 120) == pytest.approx(np.std(aucs), rel=0.2)
    assert auc_error(1.0, 30, 120) == 0.0


def test_nothing_to_report(curves, tmp_path) -> None:
    nothing = replace(curves, results=curves.results.assign(status="too-few-of-a-class"))
    with pytest.raises(ScreeningError, match="too-few-of-a-class") as caught:
        write_report(nothing, tmp_path / "report.html")
    assert caught.value.code == "nothing-computed"


def test_a_place_that_cannot_be_written(curves, tmp_path) -> None:
    with pytest.raises(ScreeningError) as caught:
        write_report(curves, tmp_path / "missing" / "report.html")
    assert caught.value.code == "unwritable-file"

"""`sorep screen fit` and `sorep screen predict` as users type them, on kinetic features of rock salts."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ase.build import bulk
from ase.io import write
from typer.testing import CliRunner, Result

from sorep.cli import app
from sorep.screening.saved import ScreeningModel
from sorep.store import FeatureStore

CATIONS, ANIONS = ("Li", "Na", "K", "Mg", "Ca"), ("F", "Cl", "O", "S")
SALTS = [cation + anion for cation in CATIONS for anion in ANIONS]
FEATURIZE = ["featurize", "--k-spacing", "0.8", "--jobs", "1", "--quiet"]
NEW = ["MgO", "CaS", "KCl"]
QUICK = ["--features", "kinetic", "--param", "n_estimators=20", "--folds", "4", "--jobs", "1"]


def is_light(salt: str) -> bool:
    """Fluorides and oxides: what the kinetic spectrum is asked to tell."""
    return salt[-1] in "FO" and not salt.endswith("Cl")


@pytest.fixture(scope="module")
def folder(sorep, tmp_path_factory) -> Path:
    """A store of twenty rock salts and a table of labels for all but three."""
    folder = tmp_path_factory.mktemp("screen")
    for number, salt in enumerate(SALTS):
        (folder / "salts").mkdir(exist_ok=True)
        write(folder / "salts" / f"{salt}.vasp", bulk(salt, "rocksalt", a=4.8 + 0.05 * (number % 7)))
    result = sorep(*FEATURIZE, folder / "salts", "--store", folder / "store")
    assert result.returncode == 0, result.stderr
    known = [salt for salt in SALTS if salt not in NEW]
    table = pd.DataFrame(
        {"id": known, "label": map(is_light, known), "gap": [5.0 + 4.0 * is_light(salt) for salt in known]}
    )
    table.to_csv(folder / "labels.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def model(sorep, folder) -> Path:
    path = folder / "model.sorep"
    result = sorep("screen", "fit", folder / "store", "--labels", folder / "labels.csv", "--out", path, *QUICK)
    assert result.returncode == 0, result.stderr
    assert "17 structures of 17 reduced formulas, 9 positive (52.9%)" in result.stdout
    assert "left out: 3 structures without a label" in result.stdout
    assert re.search(r"(?m)^\W+chance +\W+0\.500 +\W+0\.529 +\W+0\.000 ", result.stdout)
    assert float(re.search(r"(?m)^\W+kinetic +\W+([\d.]+)", result.stdout)[1]) > 0.9  # type: ignore[index]
    return path


@pytest.fixture(scope="module")
def in_process() -> Callable[..., Result]:
    """The same without the seconds that starting Python takes."""

    def run(*words: str | Path) -> Result:
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert isinstance(result.exception, SystemExit | None), result.exception
        return result

    return run


@pytest.fixture
def fit(in_process, folder, tmp_path):
    """`sorep screen fit` with a table of labels, or the good one."""

    def run(*words: str, labels: str | pd.DataFrame | None = None) -> Result:
        path = folder / "labels.csv"
        if labels is not None:
            path = tmp_path / "labels.csv"
            path.write_text(labels) if isinstance(labels, str) else labels.to_csv(path, index=False)
        out = tmp_path / "model.sorep"
        return in_process("screen", "fit", folder / "store", "--labels", path, "--out", out, *QUICK, *words)

    return run


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "labels.csv")


def test_the_ranked_list_needs_no_labels(sorep, folder, model, tmp_path):
    result = sorep("screen", "predict", model, folder / "store", "--out", tmp_path / "ranked.csv")
    assert result.returncode == 0, result.stderr
    assert "20 structures ranked by label; the model was trained on 17 of the store's" in result.stdout
    ranked = pd.read_csv(tmp_path / "ranked.csv")
    assert list(ranked.columns) == ["id", "formula", "probability", "score", "candidate", "known"]
    assert ranked["probability"].is_monotonic_decreasing
    assert set(ranked.loc[~ranked["known"], "id"]) == set(NEW)
    loaded, data = ScreeningModel.load(model), FeatureStore(folder / "store").matrix("kinetic")
    expected = dict(zip(data.ids.tolist(), loaded.estimator.predict_proba(data.values)[:, 1], strict=True))
    assert ranked.set_index("id")["score"].to_dict() == expected
    assert ranked["score"].is_monotonic_decreasing


def test_a_recall_lowers_the_threshold_and_tells_its_price(in_process, fit, folder, tmp_path):
    result = fit("--recall", "0.9")
    assert result.exit_code == 0, result.output
    told = re.search(r"candidates have a score from ([\d.]+) on: ([\d.]+)% of the structures", result.stdout)
    assert told and "by cross-validation not promised" in result.stdout
    loaded = ScreeningModel.load(tmp_path / "model.sorep")
    assert loaded.threshold == pytest.approx(float(told[1]), rel=1e-2)
    in_process("screen", "predict", tmp_path / "model.sorep", folder / "store", "--out", tmp_path / "ranked.csv")
    ranked = pd.read_csv(tmp_path / "ranked.csv")
    assert (ranked["candidate"] == (ranked["score"] >= loaded.threshold)).all()


def test_structures_kept_out_make_it_a_promise(fit, tmp_path):
    result = fit("--recall", "0.5", "--calibrate-on", "0.3")
    assert result.exit_code == 0, result.output
    assert "5 of them are kept out of training" in result.stdout
    assert "a recall of 0.5 is promised on average" in result.stdout
    assert len(ScreeningModel.load(tmp_path / "model.sorep").training_ids) == 12


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--recall", "0.99"], "too-few-positives"),
        (["--recall", "1"], "bad-option"),
        (["--recall", "0.5", "--calibrate-on", "1.5"], "bad-option"),
        (["--recall", "0.5", "--target", "gap"], "bad-option"),
    ],
)
def test_promises_that_cannot_be_kept_are_refused(fit, words, code):
    result = fit(*words)
    assert result.exit_code != 0
    assert f"[{code}]" in result.output


def test_only_new_structures(in_process, folder, model, tmp_path):
    out = tmp_path / "ranked.parquet"
    result = in_process("screen", "predict", model, folder / "store", "--only-new", "--out", out)
    assert "3 structures ranked by label" in result.stdout
    ranked = pd.read_parquet(out)
    assert ranked["id"].tolist()[0] == "MgO"
    assert set(ranked["id"]) == set(NEW)
    shown = in_process("screen", "predict", model, folder / "store", "--only-new").stdout
    assert all(name in shown for name in NEW)


def test_the_card_tells_where_the_model_came_from(folder, model):
    loaded = ScreeningModel.load(model)
    assert loaded.training_ids == sorted(table(folder)["id"])
    assert (loaded.label, loaded.model, loaded.params) == ("label", "default", {"n_estimators": 20})
    assert loaded.identity == FeatureStore(folder / "store").matrix("kinetic").identity
    assert loaded.metrics["kinetic"]["roc_auc"] > 0.9


def test_a_seed_gives_the_same_model_whatever_the_jobs(in_process, folder, model, tmp_path):
    other = tmp_path / "other.sorep"
    words = ["screen", "fit", folder / "store", "--labels", folder / "labels.csv", "--out", other]
    assert in_process(*words, *QUICK, "--jobs", "2").exit_code == 0
    data = FeatureStore(folder / "store").matrix("kinetic").values
    first, second = (ScreeningModel.load(path) for path in (model, other))
    assert np.array_equal(first.estimator.predict_proba(data), second.estimator.predict_proba(data))
    assert first.metrics == second.metrics


def test_a_store_with_other_features_is_refused_with_the_differences(sorep, in_process, folder, model, tmp_path):
    words = ["--store", tmp_path / "finer", "--k-spacing", "0.6", "--jobs", "1", "--quiet"]
    assert sorep("featurize", folder / "salts" / "LiF.vasp", *words).returncode == 0
    result = in_process("screen", "predict", model, tmp_path / "finer")
    assert result.exit_code == 1
    assert "k_spacing: 0.8 against 0.6" in result.stderr
    assert "mixed-identity" in result.stderr


def test_a_model_file_that_is_cut_off(in_process, folder, model, tmp_path):
    (tmp_path / "cut.sorep").write_bytes(model.read_bytes()[:5000])
    result = in_process("screen", "predict", tmp_path / "cut.sorep", folder / "store")
    assert (result.exit_code, "bad-model" in result.stderr) == (1, True)
    assert "no-model" in in_process("screen", "predict", tmp_path / "none.sorep", folder / "store").stderr


def test_regression_stands_beside_the_mean(fit, in_process, folder, tmp_path):
    result = fit("--target", "gap")
    assert result.exit_code == 0, result.stderr
    found = re.search(r"(?m)^\W+kinetic +\W+([\d.]+) +\W+([\d.]+) ", result.stdout)
    chance = re.search(r"(?m)^\W+chance +\W+([\d.]+) +\W+([\d.]+) ", result.stdout)
    assert float(found[1]) < 0.7 * float(chance[1])
    shown = in_process("screen", "predict", tmp_path / "model.sorep", folder / "store", "--only-new").stdout
    assert "prediction" in shown
    assert "candidate" not in shown


def test_a_dry_run_writes_nothing(fit, tmp_path):
    result = fit("--grid", "--model", "published", "--dry-run")
    assert result.exit_code == 0
    assert f"{72 * 5 + 4 + 1} fits would be made" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_search_on_the_grid(fit, tmp_path, monkeypatch):
    monkeypatch.setattr("sorep.screening.grid.GRID", {"bootstrap": [True, False], "ccp_alpha": [0.0, 1.0]})
    result = fit("--grid", "--scoring", "roc_auc", "--param", "min_samples_leaf=2")
    assert result.exit_code == 0, result.stderr
    params = ScreeningModel.load(tmp_path / "model.sorep").params
    assert params["ccp_alpha"] == 0.0
    assert params["n_estimators"] == 20
    assert "Best of the grid" in result.stdout
    assert (tmp_path / "model.sorep.grid.jsonl").read_text().count("\n") == 4 * 5


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        (lambda t: t.assign(label=True), "one-class", "17"),
        (lambda t: t.assign(label=t["id"].eq("LiF").where(t["id"] != "LiO")), "missing-label", "LiO"),
        (lambda t: t.assign(label=t["label"].astype(object).where(t["id"] != "NaS", 2)), "not-a-label", "NaS"),
        (lambda t: pd.concat([t, t[:1]]), "duplicate-id", "LiF"),
        (lambda t: pd.concat([t, t[:1].assign(id="RbI")]), "unknown-id", "RbI"),
        (lambda t: t.assign(id="x" + t["id"]), "no-overlap", "17 of 17"),
        (lambda t: t.assign(label=t["id"].isin(["LiF", "NaF"])), "too-few-of-a-class", "2 different"),
        (lambda t: t[t["id"].isin(["LiF", "LiS", "NaF"])], "too-few-groups", "there are 3"),
        (lambda t: t.drop(columns="label"), "missing-column", "label"),
        (lambda t: t[:0], "empty-table", "no rows"),
    ],
)
def test_bad_labels_are_refused_with_a_remedy(fit, folder, tmp_path, change, code, told):
    result = fit(labels=change(table(folder)))
    assert result.exit_code == 1, result.stdout
    assert f"[{code}]" in result.stderr
    assert told in result.stderr
    assert "Remedy:" in result.stderr
    assert not (tmp_path / "model.sorep").exists()


def test_unknown_structures_can_be_left_out(fit, folder):
    labels = pd.concat([table(folder), table(folder)[:1].assign(id="RbI")])
    result = fit("--ignore-unknown", labels=labels)
    assert result.exit_code == 0
    assert "left out: 1 labels of unknown structures" in result.stdout


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--target", "gap", "--grid"], "bad-option"),
        (["--param", "n_estimators"], "bad-option"),
        (["--param", "n_trees=3"], "unknown-parameter"),
        (["--model", "no.such:Forest"], "unknown-model"),
        (["--features", "kinetic+"], "bad-feature-set"),
        (["--grid", "--scoring", "accuracy"], "bad-option"),
        (["--out", "no/such/folder/model.sorep"], "unwritable-file"),
    ],
)
def test_options_that_make_no_sense(fit, words, code):
    result = fit(*words)
    assert result.exit_code == 2
    assert f"[{code}]" in result.stderr


def test_a_model_that_could_not_be_loaded_again_is_not_trained(in_process, folder, tmp_path, monkeypatch):
    (tmp_path / "foreign.py").write_text(
        "from sklearn.linear_model import LogisticRegression\nclass Foreign(LogisticRegression): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    words = ["--labels", folder / "labels.csv", "--features", "kinetic", "--model", "foreign:Foreign"]
    result = in_process("screen", "fit", folder / "store", *words, "--out", tmp_path / "model.sorep")
    assert "[not-savable]" in result.stderr
    assert not (tmp_path / "model.sorep").exists()


def test_features_that_the_store_does_not_have(fit, in_process, folder, model, tmp_path):
    result = fit("--features", "vbm")
    assert (result.exit_code, "no-such-feature" in result.stderr) == (1, True)
    other = tmp_path / "other"
    assert (
        in_process(
            *FEATURIZE, "--store", other, "--feature", "kinetic-methods", folder / "salts" / "LiF.vasp"
        ).exit_code
        == 0
    )
    result = in_process("screen", "predict", model, other)
    assert (result.exit_code, "no-such-feature" in result.stderr) == (1, True)


def test_the_composition_is_a_baseline_where_the_store_has_it(in_process, folder, tmp_path):
    store = shutil.copytree(folder / "store", tmp_path / "store")
    assert "no baseline: `sorep featurize --descriptor composition`" in fit_into(in_process, folder, store).stderr
    words = ["featurize", "--descriptor", "composition", folder / "salts", "--store", store, "--jobs", "1", "--quiet"]
    assert in_process(*words).exit_code == 0
    result = fit_into(in_process, folder, store)
    assert result.exit_code == 0, result.stderr
    rows = re.findall(r"(?m)^\W+(kinetic|composition|chance) ", result.stdout)
    assert rows == ["kinetic", "composition", "chance"]
    both = fit_into(in_process, folder, store, "--features", "kinetic+composition")
    assert re.findall(r"(?m)^\W+(kinetic\+composition|composition|chance) ", both.stdout) == [
        "kinetic+composition",
        "chance",
    ]


def fit_into(in_process, folder: Path, store: Path, *words: str) -> Result:
    out = store.with_name("model.sorep")
    return in_process("screen", "fit", store, "--labels", folder / "labels.csv", "--out", out, *QUICK, *words)

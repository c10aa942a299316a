"""Means, differences and choices of learning curves, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sorep.errors import ScreeningError
from sorep.identity import Identity
from sorep.screening.curves import Curves, load_curves
from sorep.screening.protocol import Protocol
from sorep.screening.trial import SCHEMA


@pytest.fixture
def curves() -> Curves:
    """Two arms at 10 and 50 of 100 rows; a split of ten rows could not be computed."""
    lines = [
        ("a", 10, 0, "", 0.7),
        ("a", 10, 1, "", 0.8),
        ("a", 10, 2, "too-few-of-a-class", np.nan),
        ("a", 50, 0, "", 0.9),
        ("b", 10, 0, "", 0.6),
        ("b", 10, 1, "", 0.9),
        ("b", 10, 2, "too-few-of-a-class", np.nan),
        ("b", 50, 0, "", 0.9),
    ]
    results = pd.DataFrame(lines, columns=["arm", "n_rows", "split", "status", "roc_auc"])
    for name in SCHEMA.names:
        if name not in results:
            results[name] = np.nan
    rows = pd.DataFrame({"label": np.arange(100) % 4 == 0, "held_out": np.arange(100) < 20})
    return Curves(Protocol(), Identity.of({}), {"a": "a", "b": "b"}, {}, {}, rows, results)


def test_mean_and_deviation_over_the_splits_that_could_be_computed(curves) -> None:
    summary = curves.summary().set_index(["arm", "n_rows"])
    line = summary.loc[("a", 10)]
    assert (line["n"], line["fraction"]) == (2, 0.1)
    assert line["roc_auc_mean"] == pytest.approx(0.75)
    assert line["roc_auc_sd"] == pytest.approx(0.05 * np.sqrt(2))
    assert np.isnan(summary.loc[("a", 50), "roc_auc_sd"])  # there is one split only


def test_differences_are_split_by_split(curves) -> None:
    (line,) = curves.paired("a", 10, "roc_auc").to_dict("records")
    assert (line["arm"], line["n"], line["better"]) == ("b", 2, 0.5)
    assert line["mean"] == pytest.approx(0.0, abs=1e-12)
    assert line["sd"] == pytest.approx(0.1 * np.sqrt(2))


def test_the_nearest_size_that_could_be_computed(curves) -> None:
    assert curves.nearest_size(0.5) == 50
    assert curves.nearest_size(0.01) == 10
    failed = curves.results.assign(status=np.where(curves.results["n_rows"] == 10, "too-few-of-a-class", ""))
    only_large = Curves(curves.protocol, curves.identity, curves.arms, {}, {}, curves.rows, failed)
    assert only_large.nearest_size(0.01) == 50


def test_labels_of_the_holdout(curves) -> None:
    assert curves.held_out_labels.tolist() == [True, False, False, False] * 5


def test_a_folder_without_curves(tmp_path) -> None:
    with pytest.raises(ScreeningError) as caught:
        load_curves(tmp_path)
    assert caught.value.code == "no-evaluation"
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(ScreeningError, match="sorep screen evaluate"):
        load_curves(tmp_path)

"""Studies: equal conditions for all arms, honest statements about differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp, wasserstein_distance

from sorep.errors import UsageError

pytest.importorskip("torch")

from sorep.mat2spec.config import ModelConfig, TrainingConfig
from sorep.mat2spec.physics import heat_capacity
from sorep.mat2spec.split import make_split
from sorep.mat2spec.studies import (
    METRICS,
    ablation_arms,
    differences,
    encoder_needed,
    finetune_study,
    named_arms,
    run_study,
    scores_of,
    smaller,
    summary,
)
from sorep.mat2spec.study_figures import arms_figure, curves_figure, write_study
from sorep.mat2spec.training import train

QUICK = TrainingConfig(epochs=2, batch_size=8)


def splits(data):
    return lambda seed: make_split(data.ids, data.formulas, val=0.2, test=0.2, seed=seed)


def test_an_ablation_takes_away_one_thing_at_a_time():
    full, *others = ablation_arms(ModelConfig())
    changed = {
        arm.name: {k for k, v in arm.model.model_dump().items() if v != getattr(full.model, k)} for arm in others
    }
    assert changed == {
        "no KL": {"kl_weight"},
        "no contrast": {"contrast_weight"},
        "no label branch": {"kl_weight", "contrast_weight", "label_weight"},
    }
    assert not others[-1].model.has_label_branch
    names = [arm.name for arm in ablation_arms(ModelConfig(contrast_weight=0.0))]
    assert names == ["full", "no KL", "no label branch"]  # what is not there cannot be taken away


def test_arms_have_names_and_need_no_more_than_they_read():
    arms = named_arms(["mean spectrum", "gatgnn", "mat2spec both"], ModelConfig(encoder="sorep"))
    assert [(arm.predictor, arm.model.encoder) for arm in arms[1:]] == [("gatgnn", "graph"), ("mat2spec", "both")]
    assert encoder_needed(arms[:2]) == "graph"
    assert encoder_needed(named_arms(["mat2spec sorep", "ridge on SOREP"], ModelConfig())) == "sorep"
    assert encoder_needed(named_arms(["composition", "ridge on SOREP"], ModelConfig())) == "both"
    with pytest.raises(UsageError) as caught:
        named_arms(["random forest"], ModelConfig())
    assert caught.value.code == "unknown-arm"


def test_smaller_training_parts_are_nested_and_hold_whole_formulas(small):
    split = splits(small)(0)
    parts = [smaller(split, small, share, seed=3) for share in (1.0, 0.5, 0.25)]
    sizes = [len(part.train) for part in parts]
    assert sizes[0] == len(split.train) and sizes[0] > sizes[1] > sizes[2]
    for less, more in zip(parts[1:], parts[:-1], strict=True):
        assert set(less.train) < set(more.train)
        assert (less.val, less.test) == (split.val, split.test)
        formulas = small.formulas[less.rows("train", small.ids)]
        assert (np.unique(formulas, return_counts=True)[1] == 2).all()


def test_scores_by_hand(small):
    test = small.take(np.arange(4))
    shapes = np.roll(test.spectra, 1, axis=1) * 0.1
    found = scores_of(2 * test.spectra, shapes, test)
    assert set(found) == set(METRICS)
    assert found["mae"] == pytest.approx(test.spectra.mean())
    assert found["mae_oracle"] == pytest.approx(np.abs(10 * shapes - test.spectra).mean())
    each = [wasserstein_distance(test.energies, test.energies, p, y) for p, y in zip(shapes, test.spectra, strict=True)]
    assert found["wd"] == pytest.approx(np.mean(each))
    capacities = heat_capacity(np.stack([shapes, test.spectra]), test.energies)
    assert found["cv"] == pytest.approx(np.abs(capacities[0] - capacities[1]).mean())
    assert set(scores_of(shapes, shapes, replace(test, unit="eV"))) == set(METRICS) - {"cv", "omega"}
    shapes[0] = 0.0
    assert np.isnan(scores_of(test.spectra, shapes, test)["wd"])


@pytest.fixture(scope="module")
def study(small, tmp_path_factory):
    """Rules and networks, two seeds, two sizes."""
    folder = tmp_path_factory.mktemp("study")
    arms = named_arms(["mean spectrum", "ridge on SOREP", "composition", "mat2spec both"], ModelConfig())

    def run(told: list[str]) -> pd.DataFrame:
        return run_study(
            arms, small, splits(small), folder, training=QUICK, seeds=(0, 1), sizes=(1.0, 0.5), on_run=told.append
        )

    told: list[str] = []
    return folder, run, run(told), told


def test_all_arms_of_a_seed_have_the_same_crystals(study):
    _, _, table, told = study
    assert len(table) == len(told) == 4 * 2 * 2
    assert np.isfinite(table[list(METRICS)].to_numpy()).all()
    for _, part in table.groupby(["seed", "size"]):
        assert part["n_train"].nunique() == part["n_test"].nunique() == 1
    assert table.groupby("arm")["mae"].nunique().min() > 1  # seeds and sizes make a difference


def test_a_study_that_is_run_again_trains_nothing_and_says_the_same(study):
    folder, run, table, _ = study
    logs = {path: path.read_bytes() for path in folder.rglob("log.jsonl")}
    assert len(logs) == 8
    pd.testing.assert_frame_equal(run([]), table)
    assert {path: path.read_bytes() for path in folder.rglob("log.jsonl")} == logs


def test_tables_and_figures_are_written(study, tmp_path):
    _, _, table, _ = study
    figures = {"arms": arms_figure(table), "curves": curves_figure(table, unit="cm^-1")}
    written = write_study(tmp_path / "out", {"runs": table, "summary": summary(table)}, figures)
    assert [path.name for path in written] == ["runs.csv", "summary.csv", "arms.png", "curves.png"]
    assert len(pd.read_csv(written[0])) == len(table)
    curves = figures["curves"].axes[0].get_lines()
    assert [line.get_label() for line in curves] == list(dict.fromkeys(table["arm"]))
    assert all(line.get_xdata()[0] < line.get_xdata()[1] for line in curves)
    assert all(path.stat().st_size > 5000 for path in written[2:])


def table_of(**errors: list[float]) -> pd.DataFrame:
    rows = [
        {"arm": arm, "size": 1.0, "seed": seed, "n_train": 10, "n_test": 3, "wd": value, "r2_oracle": -value}
        for arm, values in errors.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_means_and_spreads_over_seeds():
    means = summary(table_of(full=[1.0, 2.0, 6.0], other=[5.0])).set_index("arm")
    assert (means.loc["full", "wd"], means.loc["full", "seeds"]) == (3.0, 3)
    assert means.loc["full", "wd_sd"] == pytest.approx(np.sqrt(7.0))
    assert np.isnan(means.loc["other", "wd_sd"])


def test_a_difference_counts_where_it_is_larger_than_the_noise_of_paired_seeds():
    full = [10.0, 14.0, 12.0, 18.0]
    worse, noise = [one + d for one, d in zip(full, (2.0, 2.3, 1.9, 2.1), strict=True)], [12.0, 12.0, 15.0, 17.0]
    found = {one.arm: one for one in differences(table_of(full=full, worse=worse, noise=noise), "full", ("wd",))}
    interval = ttest_1samp(np.subtract(worse, full), 0.0).confidence_interval(0.95)
    assert found["worse"].mean - found["worse"].margin == pytest.approx(interval.low)
    assert found["worse"].is_larger_than_noise and "larger than the noise of seeds, worse" in str(found["worse"])
    assert not found["noise"].is_larger_than_noise and "not larger than the noise of seeds" in str(found["noise"])
    (r2,) = differences(table_of(full=full, better=[one - 2 for one in full]), "full", ("r2_oracle",))
    assert str(r2).endswith("better")


def test_two_seeds_tell_nothing():
    (found,) = differences(table_of(full=[1.0, 1.0], other=[5.0, 5.0]), "full", ("wd",))
    assert not found.is_larger_than_noise and "no statement" in str(found)
    with pytest.raises(UsageError) as caught:
        differences(table_of(full=[1.0]), "none")
    assert caught.value.code == "unknown-arm"


def test_fine_tuning_keeps_to_the_split_and_starts_from_the_model(small, tmp_path):
    data = replace(small, inputs=replace(small.inputs, sorep=None, parts=()))
    split = splits(data)(0)
    whole = train(data, split, tmp_path / "whole", model=ModelConfig(), training=QUICK, network="composition")
    is_member = np.char.find(small.ids, "rocksalt") > 0
    gentle = QUICK.model_copy(update={"learning_rate": 1e-9})
    table = finetune_study(whole, data, is_member, tmp_path / "tuned", training=gentle, seeds=(0,))
    table = table.set_index("arm")
    assert table["n_train"].tolist() == [len(split.train)] + 2 * [len([id for id in split.train if "rocksalt" in id])]
    assert (table["n_test"] == len([id for id in split.test if "rocksalt" in id])).all()
    # With hardly any step, tuning leaves the model where it was; one from nothing is elsewhere.
    assert table.loc["tuned", "wd"] == pytest.approx(table.loc["global", "wd"], rel=1e-4)
    assert table.loc["subclass only", "wd"] != pytest.approx(table.loc["global", "wd"], rel=1e-3)

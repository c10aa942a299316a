"""Parts for training, validation and test: by id, by formula, and independent of the order of a table."""

from __future__ import annotations

import numpy as np
import pytest

from sorep.errors import Mat2SpecError, UsageError

pytest.importorskip("torch")

from sorep.mat2spec.split import PARTS, Split, make_split, shared_formulas

IDS = np.array([f"x{i:03}" for i in range(200)])
FORMULAS = np.array([f"A{i // 4}" for i in range(200)])  # four polymorphs of each


def test_no_formula_is_in_two_parts_and_shares_are_met():
    split = make_split(IDS, FORMULAS, val=0.1, test=0.2)
    formulas = {part: set(FORMULAS[split.rows(part, IDS)]) for part in PARTS}
    assert not (formulas["train"] & formulas["val"] or formulas["train"] & formulas["test"])
    assert not formulas["val"] & formulas["test"]
    assert sorted(split.train + split.val + split.test) == IDS.tolist()
    assert len(split.test) == pytest.approx(40, abs=4)
    assert len(split.val) == pytest.approx(20, abs=4)


def test_a_random_split_parts_polymorphs():
    split = make_split(IDS, FORMULAS, kind="random")
    shared = shared_formulas(FORMULAS[split.rows("test", IDS)], FORMULAS[split.rows("train", IDS)])
    assert shared.any()


def test_the_split_does_not_depend_on_the_order_of_rows_and_depends_on_the_seed():
    order = np.random.default_rng(0).permutation(len(IDS))
    assert make_split(IDS[order], FORMULAS[order]) == make_split(IDS, FORMULAS)
    assert make_split(IDS, FORMULAS, seed=1) != make_split(IDS, FORMULAS)


def test_new_crystals_leave_most_others_where_they_are():
    fewer = make_split(IDS[:180], FORMULAS[:180])
    more = make_split(IDS, FORMULAS)
    assert len(set(fewer.train) - set(more.train)) < 20


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_split_survives_a_file(tmp_path, suffix):
    split = make_split(IDS, FORMULAS)
    split.save(tmp_path / f"split{suffix}")
    assert Split.load(tmp_path / f"split{suffix}") == split


def test_an_unknown_part_in_a_file_is_refused(tmp_path):
    (tmp_path / "split.csv").write_text("id,split\na,train\nb,testing\n")
    with pytest.raises(Mat2SpecError, match="testing") as error:
        Split.load(tmp_path / "split.csv")
    assert error.value.code == "bad-split"


def test_too_few_formulas_are_refused():
    with pytest.raises(Mat2SpecError) as error:
        make_split(IDS[:4], FORMULAS[:4])
    assert error.value.code == "too-few-structures"


@pytest.mark.parametrize("options", [{"kind": "rows"}, {"val": 0.0}, {"val": 0.5, "test": 0.5}])
def test_senseless_options_are_refused(options):
    with pytest.raises(UsageError):
        make_split(IDS, FORMULAS, **options)

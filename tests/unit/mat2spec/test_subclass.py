"""Subclasses of crystals, by conditions and by files."""

from __future__ import annotations

import numpy as np
import pytest

from sorep.errors import Mat2SpecError, UsageError

pytest.importorskip("torch")

from sorep.mat2spec.subclass import subclass_mask, symmetries


def chosen(small, text: str, **options) -> set[str]:
    return set(small.ids[subclass_mask(text, small.inputs, **options)].tolist())


def test_conditions_by_elements_and_their_number(small):
    assert chosen(small, "contains Li") == {id for id in small.ids if id.startswith("Li")}
    assert chosen(small, "contains Li F") == {"LiF-rocksalt", "LiF-cesiumchloride"}
    assert chosen(small, "without Cl Br") == {id for id in small.ids if "F-" in id}
    assert chosen(small, "elements 2") == set(small.ids.tolist())
    assert chosen(small, "contains Na and without F and elements 2") == {
        id for id in small.ids if id.startswith("Na") and "F-" not in id
    }


def test_the_space_group_is_that_of_the_crystal(small):
    assert chosen(small, "space-group 225") == {id for id in small.ids if id.endswith("rocksalt")}
    assert set(symmetries(small.inputs)) == {(2, 225), (2, 221)}


@pytest.mark.parametrize("name", ["ids.txt", "ids.csv"])
def test_a_file_of_ids(small, tmp_path, name):
    header = "name\n" if name.endswith(".csv") else ""
    (tmp_path / name).write_text(f"{header}LiF-rocksalt\nnot-here\n")
    assert chosen(small, str(tmp_path / name), id_column="name") == {"LiF-rocksalt"}


@pytest.mark.parametrize("text", ["", "contains", "contains Xy", "elements two", "with O", "contains O or contains F"])
def test_what_is_no_condition_is_refused(small, text):
    with pytest.raises(UsageError) as caught:
        subclass_mask(text, small.inputs)
    assert caught.value.code == "bad-subclass"


def test_an_empty_subclass_and_a_missing_file_are_refused(small, tmp_path):
    with pytest.raises(Mat2SpecError) as caught:
        subclass_mask("contains O", small.inputs)
    assert caught.value.code == "empty-subclass"
    with pytest.raises(Mat2SpecError) as caught:
        subclass_mask(str(tmp_path / "none.txt"), small.inputs)
    assert caught.value.code == "unreadable-ids"
    assert np.array_equal(subclass_mask("elements 2", small.inputs), np.ones(30, dtype=bool))

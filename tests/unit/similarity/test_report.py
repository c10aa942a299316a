"""The report: one file that needs no other, and its pictures."""

from __future__ import annotations

import base64
import re
from io import BytesIO

import matplotlib.image
import numpy as np
import pytest

from sorep.errors import SimilarityError
from sorep.features import FeatureSpec, Window
from sorep.identity import Identity
from sorep.similarity import find_groups
from sorep.similarity import report as module
from sorep.similarity.report import write_report
from sorep.store import FeatureMatrix

SPEC = FeatureSpec(name="few", windows=(Window(start=0.0, stop=1.0, points=24),))
IDENTITY = Identity.of({"operator": "kinetic", "feature": SPEC.words()})


def inputs(sample, n=120, rename=str, **options):
    values, ids, formulas = sample(n)
    ids = np.array([rename(id) for id in ids])
    matrix = FeatureMatrix(values, ids, IDENTITY, SPEC.name)
    rule = {"feature": SPEC.name, "identity": IDENTITY.hash, **options}
    return matrix, find_groups(values, ids, formulas, **rule, spec=SPEC)


def pictures_in(text: str) -> list[bytes]:
    return [base64.b64decode(code) for code in re.findall(r'src="data:image/png;base64,([^"]+)"', text)]


def test_everything_is_in_one_file_and_pictures_beside_it(sample, tmp_path):
    matrix, groups = inputs(sample)
    files = write_report(matrix, groups, tmp_path / "out.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in files)
    assert {path.name for path in files} == {
        "out.html", "out-nearest.png", "out-count.png", "out-tree.png", "out-matrix.png"
    }  # fmt: skip
    text = (tmp_path / "out.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert [BytesIO(picture).read() for picture in pictures_in(text)] == [path.read_bytes() for path in files[1:]]
    for picture in pictures_in(text):
        assert matplotlib.image.imread(BytesIO(picture)).std() > 0.01
    for name, count in groups.counts().items():
        assert f"<th>{name}</th><td>{count}</td>" in text
    largest = groups.largest(1)[0]
    assert f"<td>{largest[0]}</td><td>{largest[1]}</td><td>{largest[2]}</td>" in text
    names, counts = np.unique(groups.formula, return_counts=True)
    assert f"{counts.max()} structures of {names[counts.argmax()]}, the composition with the most of them" in text


def test_the_decisions_near_epsilon_are_listed(sample, tmp_path):
    matrix, groups = inputs(sample)
    write_report(matrix, groups, tmp_path / "out.html")
    text = (tmp_path / "out.html").read_text()
    within = groups.distance_to_nearest <= groups.rule.epsilon
    last = np.flatnonzero(within)[np.argmax(groups.distance_to_nearest[within])]
    first = np.flatnonzero(~within)[np.argmin(groups.distance_to_nearest[~within])]
    for row, word in ((last, "within"), (first, "beyond")):
        cells = (groups.ids[row], groups.nearest[row], f"{groups.distance_to_nearest[row]:.3g}", word)
        assert "".join(f"<td>{cell}</td>" for cell in cells) in text


def test_a_report_of_one_composition(sample, tmp_path):
    matrix, groups = inputs(sample)
    write_report(matrix, groups, tmp_path / "out.html", formula="Si")
    text = (tmp_path / "out.html").read_text()
    others = groups.ids[groups.formula != "Si"].tolist()
    assert not any(f"<td>{id}</td>" in text for id in others)
    assert f"<th>structures</th><td>{np.count_nonzero(groups.formula == 'Si')}</td>" in text
    with pytest.raises(SimilarityError, match="no-such-composition"):
        write_report(matrix, groups, tmp_path / "no.html", formula="Ge")
    assert not (tmp_path / "no.html").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"across_compositions": True, "metric": "wasserstein", "epsilon": 1e-4},
        {"epsilon": 0.0},
        {"epsilon": 2.0},
        {"n_min": 3},
        {"n_min": 1000},
    ],
    ids=str,
)
def test_every_rule_can_be_reported(sample, tmp_path, options):
    assert len(write_report(*inputs(sample, 40, **options), tmp_path / "out.html")) == 5


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_few_structures(sample, tmp_path, n):
    values, ids, _ = sample()
    for formulas in (["Si"] * n, ["Si", "Ge", "C", "Sn"][:n]):
        matrix = FeatureMatrix(values[:n], ids[:n], IDENTITY, SPEC.name)
        groups = find_groups(values[:n], ids[:n], formulas)
        write_report(matrix, groups, tmp_path / "out.html")
        text = (tmp_path / "out.html").read_text()
        assert ("there is nothing to merge" in text) == (n == 1 or formulas[1] == "Ge")


def test_what_is_too_large_to_draw_is_said(sample, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_IN_MATRIX", 20)
    matrix, groups = inputs(sample)
    assert len(write_report(matrix, groups, tmp_path / "out.html")) == 4
    assert "more than 20, for which the matrix of distances is not drawn" in (tmp_path / "out.html").read_text()
    monkeypatch.setattr(module, "MOST_IN_TREE", 20)
    assert len(write_report(matrix, groups, tmp_path / "less.html")) == 2
    assert "more than 20, for which merges are not worked out" in (tmp_path / "less.html").read_text()


def test_names_are_text_and_not_markup(sample, tmp_path):
    matrix, groups = inputs(sample, 40, rename=lambda id: f"<b>{id}</b>$_{{$")
    write_report(matrix, groups, tmp_path / "out.html")
    text = (tmp_path / "out.html").read_text()
    assert "<b>" not in text
    assert "&lt;b&gt;" in text


def test_a_file_that_cannot_be_written(sample, tmp_path):
    with pytest.raises(SimilarityError, match="unwritable-file"):
        write_report(*inputs(sample, 8), tmp_path / "nowhere" / "out.html")

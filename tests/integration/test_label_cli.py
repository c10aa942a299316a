"""`sorep label` on tables, as users type it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from sorep.cli import app
from sorep.tables import read_labels

TABLE = """id,gap,electron_mass,hole_mass,formula
zno,0.8,0.2,2.0,ZnO
metal,0,,,Al
heavy,3.1,2.5,4.0,X
p-type,1.2,,0.7,Y
open,1.2,0.9,,Z
unknown,,0.1,0.1,W
"""


@pytest.fixture
def table(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "properties.csv"
    path.write_text(TABLE)
    return path


def test_labels_of_a_table(sorep, table):
    result = sorep("label", table)
    assert (result.returncode, result.stderr) == (0, "undecided for want of gap (1), hole_mass (1)\n")
    assert result.stdout == (
        "transparent-conductor: gap > 0.5 and (electron_mass <= 0.5 or hole_mass <= 1)\n"
        "labels.parquet: 2 true, 2 false, 2 undecided\n"
    )
    labels = pd.read_parquet("labels.parquet")
    assert list(labels) == ["id", "gap", "electron_mass", "hole_mass", "label"]
    assert labels["id"].tolist() == ["zno", "metal", "heavy", "p-type", "open", "unknown"]
    assert labels["label"].tolist() == [True, False, False, True, pd.NA, pd.NA]
    assert labels["hole_mass"].isna().tolist() == [False, True, False, False, True, False]


def test_other_columns_criteria_and_formats(sorep, table):
    other = pd.read_csv(table).rename(columns={"id": "material_id", "gap": "gap_pbe_eV"})
    other.to_parquet("other.parquet")
    Path("wide.toml").write_text('all = ["gap > 0.5", "gap <= 3"]\n')
    words = ("--criteria", "wide.toml", "--id-column", "material_id", "--column", "gap=gap_pbe_eV")
    result = sorep("label", "other.parquet", *words, "--out", "out.csv")
    assert (result.returncode, result.stderr) == (0, "undecided for want of gap (1)\n")
    assert result.stdout == "wide: gap > 0.5 and gap <= 3\nout.csv: 3 true, 2 false, 1 undecided\n"
    written = Path("out.csv").read_text().splitlines()
    assert written[:3] == ["id,gap,label", "zno,0.8,True", "metal,0.0,False"]
    assert written[-1] == "unknown,,"


def test_decided_labels_are_what_training_reads(sorep, table):
    pd.read_csv(table).query("id != 'open' and id != 'unknown'").to_csv("some.csv", index=False)
    assert sorep("label", "some.csv", "--out", "some-labels.csv").returncode == 0
    assert read_labels("some-labels.csv").to_dict() == {"zno": True, "metal": False, "heavy": False, "p-type": True}


@pytest.mark.parametrize(
    ("words", "status", "needles"),
    [
        (["absent.csv"], 1, ["[not-a-table]", "no such file"]),
        (["."], 1, ["[no-store]"]),
        (["properties.csv", "--id-column", "name"], 1, ["[missing-column]", "'name'", "hole_mass"]),
        (["properties.csv", "--column", "gap=band_gap"], 1, ["[missing-column]", "'band_gap'"]),
        (["properties.csv", "--column", "gap=formula"], 1, ["[not-a-number]", "'ZnO'"]),
        (["properties.csv", "--column", "gap"], 2, ["[bad-option]", "PROPERTY=COLUMN"]),
        (["properties.csv", "--column", "mass=gap"], 2, ["[bad-option]", "gap, electron_mass, hole_mass"]),
        (["properties.csv", "--column", "gap=a", "--column", "gap=b"], 2, ["[bad-option]", "once"]),
        (["properties.csv", "--criteria", "nice"], 2, ["[unknown-criteria]", "transparent-conductor"]),
        (["properties.csv", "--out", "labels.xls"], 2, ["[unknown-format]", ".parquet"]),
        (["properties.csv", "--out", "properties.csv"], 2, ["[bad-option]", "a file of their own"]),
        (["properties.csv", "--out", "no/labels.csv"], 1, ["[unwritable-file]"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage(table, words, status, needles):
    result = CliRunner().invoke(app, ["label", *words])
    assert result.exit_code == status, result.output
    for needle in needles:
        assert needle in result.stderr
    assert [path.name for path in table.parent.iterdir()] == ["properties.csv"]
    assert table.read_text() == TABLE

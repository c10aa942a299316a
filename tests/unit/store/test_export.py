"""Matrices as files: what is written can be read back, and always tells its identity."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sorep.errors import StoreError, UsageError
from sorep.store import FeatureMatrix
from sorep.store.export import export_matrix

IDS = ["C:3", "Ga₂O₃ β", "a,b", "si"]  # what has commas, spaces and letters of other alphabets is a name too


@pytest.fixture
def matrix(filled) -> FeatureMatrix:
    filled.commit(*(filled.structure(id, 5.0 + n / 10) for n, id in enumerate(IDS)))
    return filled.reader.matrix("few")


def read_back(path: Path) -> tuple[np.ndarray, list[str], np.ndarray | list[str], dict]:
    """Values, ids, energies (or column names) and identity, as a user's script would read them."""
    if path.suffix == ".npz":
        with np.load(path) as file:  # no pickles
            return file["values"], file["ids"].tolist(), file["energies"], json.loads(str(file["identity"]))
    if path.suffix == ".csv":
        frame = pd.read_csv(path, index_col="id")
        identity = json.loads(path.with_suffix(".identity.json").read_text())
    elif path.suffix == ".parquet":
        frame = pd.read_parquet(path)
        identity = {"feature": frame.attrs["feature"], "identity": frame.attrs["identity"]}
        identity["words"] = frame.attrs["identity_words"]
    else:
        import h5py

        with h5py.File(path) as file:
            identity = json.loads(str(file.attrs["identity"]))
            values, energies = np.asarray(file["values"]), np.asarray(file["energies"])
            return values, [id.decode() for id in np.asarray(file["ids"]).tolist()], energies, identity
    return frame.to_numpy(), frame.index.tolist(), frame.columns.tolist(), identity


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".npz", ".h5", ".hdf5"])
def test_a_file_holds_the_matrix_and_its_identity(matrix, tmp_path, suffix):
    path = tmp_path / f"out.v1{suffix}"
    export_matrix(matrix, path)
    values, ids, columns, identity = read_back(path)
    tolerance = 1e-14 if suffix == ".csv" else 0  # some releases of pandas read numbers to the last digit but one
    np.testing.assert_allclose(values, matrix.values, rtol=tolerance, atol=0)
    assert ids == sorted(IDS) == matrix.ids.tolist()
    if suffix in (".parquet", ".csv"):
        assert columns == matrix.spec.feature_names
    else:
        np.testing.assert_array_equal(columns, matrix.spec.energies)
    assert identity == {"feature": "few", "identity": matrix.identity.hash, "words": matrix.identity.words}


def test_a_file_is_replaced(matrix, filled, tmp_path):
    path = tmp_path / "out.h5"
    export_matrix(matrix, path)
    export_matrix(filled.reader.matrix("few", ids=["si"]), path)
    assert read_back(path)[1] == ["si"]


@pytest.mark.parametrize("name", ["out.xls", "out", "out.npy", "csv"])
def test_an_unknown_suffix_is_refused(matrix, tmp_path, name):
    with pytest.raises(UsageError) as caught:
        export_matrix(matrix, tmp_path / name)
    assert caught.value.code == "unknown-format"
    assert ".parquet, .csv, .npz, .h5" in caught.value.remedy
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".npz", ".h5"])
def test_a_place_that_cannot_be_written_is_named(matrix, tmp_path, suffix):
    path = tmp_path / "no folder" / f"out{suffix}"
    with pytest.raises(StoreError) as caught:
        export_matrix(matrix, path)
    assert caught.value.code == "unwritable-file"
    assert str(path) in caught.value.message


def test_without_h5py_the_remedy_says_how_to_get_it(matrix, filled, tmp_path):
    script = """\
import sys
sys.modules["h5py"] = None  # what Python leaves there for a package that it cannot import
from sorep.errors import StoreError
from sorep.store import FeatureStore
from sorep.store.export import export_matrix
matrix = FeatureStore(sys.argv[1]).matrix("few")
export_matrix(matrix, sys.argv[2] + "/out.npz")
try:
    export_matrix(matrix, sys.argv[2] + "/out.h5")
except StoreError as error:
    print(error.code, error.remedy)
"""
    command = [sys.executable, "-c", script, str(filled.path), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.stdout.startswith("missing-package pip install 'sorep[hdf5]'"), result.stderr
    assert (tmp_path / "out.npz").exists()
    assert not (tmp_path / "out.h5").exists()

"""Several processes and one store."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from sorep import kinetic_feature
from sorep.store import FeatureStore

WRITER = """\
import sys
from pathlib import Path

from sorep.identity import Identity
from sorep.store.runs import RunRecord
from sorep.store.tables import Tables

store, name = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
tables = Tables(store, create=True)
for n in range(8):
    row = {"content_key": f"{name}{n}", "identity": "shared", "values": [float(n)], "name": "f", "operator": "o"}
    tables.append("features", [row])
    RunRecord.start(tables, name, {"i": Identity.of({"writer": name})}).end("finished", n, 0)
"""


def test_writers_never_lose_each_others_commits(start, tmp_path):
    """Four processes make one store at the same moment, and commit to it in turns of chance."""
    writers = [start(sys.executable, "-c", WRITER, tmp_path / "store", name, stdin=-1) for name in ("a", "b", "c", "d")]
    for writer in writers:
        assert writer.process.stdout.readline() == "ready\n"
    for writer in writers:
        writer.process.stdin.write("\n")
        writer.process.stdin.flush()
    for writer in writers:
        result = writer.finish()
        assert result.returncode == 0, result.stderr
    store = FeatureStore(tmp_path / "store")
    keys = store.tables.read("features", ["content_key"])["content_key"].to_pylist()
    assert sorted(keys) == [f"{name}{n}" for name in "abcd" for n in range(8)]
    assert len(store.runs()) == 4 * 8 * 2
    assert store.features()["n"].tolist() == [32]


@pytest.mark.slow
def test_two_commands_share_a_store(start_sorep, sorep, write_crystals, tmp_path):
    folder, store = tmp_path / "inputs", tmp_path / "store"
    ids = write_crystals(folder, 18)
    single = sorted(folder.glob("*.vasp"))
    overlapping = ([folder / "frames.xyz", *single[:6]], [folder / "frames.xyz", *single[3:]])
    words = ("--store", store, "--k-spacing", "0.5", "--jobs", "1")
    commands = [start_sorep("featurize", *paths, *words) for paths in overlapping]
    results = [command.finish() for command in commands]
    for result, paths in zip(results, overlapping, strict=True):
        assert result.returncode == 0, result.stderr
        assert result.stdout.startswith(f"{9 + len(paths) - 1} structures in ")

    reader = FeatureStore(store)
    matrix = reader.matrix("kinetic")
    assert matrix.ids.tolist() == ids == reader.structures()["id"].tolist()
    assert len(np.unique(matrix.values, axis=0)) == len(ids)
    assert reader.features()["n"].tolist() == [len(ids)]
    assert len(reader.failures()) == 0
    assert sorted(reader.runs()["event"]) == ["finished"] * 2 + ["started"] * 2
    for id in ids:
        assert reader.spectrum(id).n_atoms in (2, 8)
    assert sorep("export", "kinetic", tmp_path / "out.npz", "--store", store).returncode == 0
    for id in ids[::4]:
        (row,) = matrix.values[matrix.ids == id]
        np.testing.assert_array_equal(row, kinetic_feature(reader.structure(id), k_spacing=0.5))
    # One command over everything finds nothing left to do.
    again = sorep("featurize", folder, *words)
    assert again.returncode == 0
    assert "0 computed" in again.stdout

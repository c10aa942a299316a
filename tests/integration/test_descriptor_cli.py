"""`sorep featurize --descriptor` as users type it: descriptors beside spectra, refusals, and a run that is killed."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write
from typer.testing import CliRunner

from sorep.cli import app
from sorep.descriptors import DESCRIPTORS, Composition
from sorep.errors import StoreError
from sorep.store import FeatureStore

N_CRYSTALS = 72

# Commits of six structures, for something to be killed in between.
DRIVER = """\
import sys

from sorep.descriptors import Composition
from sorep.describe import describe
from sorep.engine import LocalEngine
from sorep.sources import find_items

if __name__ == "__main__":
    paths, store = sys.argv[1:]
    with LocalEngine(2) as engine:
        progress = describe(list(find_items(paths)), Composition(), store, engine, commit_rows=12)
    print(progress.computed, progress.stored_before, progress.all_failed)
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("descriptors") / "inputs"
    folder.mkdir()
    write(folder / "si.cif", bulk("Si"))
    write(folder / "al.xyz", [bulk("Al", a=4.0), bulk("Al", a=4.1)], format="extxyz")
    write(folder / "rf.vasp", Atoms("Rf", cell=[4, 4, 4], pbc=True))
    (folder / "junk.cif").write_text("junk")
    return folder


@pytest.fixture(scope="module")
def store(inputs, sorep) -> Path:
    """Compositions and spectra of the mixed folder."""
    store = inputs.parent / "store"
    described = sorep("featurize", inputs, "--descriptor", "composition", "--store", store, "--jobs", "2")
    assert described.returncode == 3, described.stderr
    assert "3 computed" in described.stdout
    assert "1 missing-element" in described.stderr and "1 unreadable-file" in described.stderr
    assert sorep("featurize", inputs, "--k-spacing", "1.0", "--store", store, "--jobs", "2").returncode == 3
    return store


def here(*words: str | Path):
    """The command in this process: these tests start enough others."""
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_descriptor_lies_beside_spectra_and_is_listed_and_exported(store, tmp_path):
    listed = here("list", "--store", store).output
    assert "feature composition  identity" in listed
    assert "feature kinetic  operator kinetic" in listed
    assert "descriptor composition, element_data" in listed
    assert here("export", "composition", tmp_path / "x.csv", "--store", store).exit_code == 0
    frame = pd.read_csv(tmp_path / "x.csv", index_col="id")
    assert frame.index.tolist() == ["al:0", "al:1", "si"]
    assert frame.loc["si", "fraction-Si"] == 1.0
    assert "descriptor: the composition descriptor ends with Lr" in here("failures", "--store", store).output
    assert "ward2016" in here("cite", store).output
    assert "al:1" in here("similar", store, "al:0", "--feature", "composition", "-k", "1").output


def test_a_second_run_finds_everything_there(sorep, inputs, store):
    again = sorep("featurize", inputs, "--descriptor", "composition", "--store", store, "--jobs", "1")
    assert again.returncode == 3
    assert "0 computed, 0 share another's, 3 were there" in again.stdout


@pytest.mark.parametrize(("more", "code"), [([], "no-grid"), (["--spectra"], "no-spectra")], ids=["plain", "spectra"])
def test_what_has_no_grid_is_not_drawn(store, tmp_path, more, code):
    result = here("plot", "--feature", "composition", "--store", store, "--out", tmp_path / "x.png", *more)
    assert result.exit_code == 1
    assert f"[{code}]" in result.output
    assert not list(tmp_path.iterdir())


def test_what_has_no_grid_has_no_wasserstein_distance(store):
    result = here("similar", store, "si", "--feature", "composition", "--metric", "wasserstein")
    assert result.exit_code == 2
    assert "[metric-needs-grid]" in result.output


def test_both_descriptors_in_one_command(sorep, inputs, tmp_path):
    pytest.importorskip("dscribe")
    both = ("--descriptor", "composition", "--descriptor", "soap")
    result = sorep("featurize", inputs, *both, "--store", tmp_path / "store", "--jobs", "1", "--quiet")
    assert result.returncode == 3
    reader = FeatureStore(tmp_path / "store")
    assert reader.matrix("composition").ids.tolist() == ["al:0", "al:1", "si"]
    soap = reader.matrix("soap")
    assert soap.ids.tolist() == ["al:0", "al:1", "rf", "si"]  # it knows no elements
    assert soap.values.shape == (4, 550)
    np.testing.assert_array_equal(soap.values[3], DESCRIPTORS["soap"].compute(reader.structure("si")))


def test_a_dry_run_tells_refusals_and_stores_nothing(sorep, inputs, tmp_path):
    words = ("featurize", inputs, "--descriptor", "composition", "--store", tmp_path / "store", "--dry-run")
    result = sorep(*words, "--jobs", "1")
    assert result.returncode == 3
    assert "refused [missing-element]" in result.stdout and "refused [unreadable-file]" in result.stdout
    assert result.stdout.splitlines()[-1] == "5 structures: 3 have a composition descriptor, 2 refused"
    assert sum(line.split()[-1] == "155" for line in result.stdout.splitlines()) == 3
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        ["--basis", "ano-ml-ae"],
        ["--operator", "overlap"],
        ["--discard-below", "0.0"],
        ["--k-spacing", "0.2"],
        ["--keep-cell"],
        ["--symprec", "0.01"],
        ["--feature", "kinetic"],
        ["--window", "absolute:0:1:2"],
        ["--width", "1"],
        ["--normalization", "atom"],
        ["--preset", "published"],
        ["--from-outputs"],
        ["--label", "x"],
        ["--config", "x.toml"],
    ],
    ids=lambda words: words[0],
)
def test_options_of_spectra_are_refused(inputs, tmp_path, words):
    result = here("featurize", inputs, "--descriptor", "soap", *words, "--store", tmp_path / "store")
    assert result.exit_code == 2
    assert f"--descriptor and {words[0]}:" in result.output
    assert not list(tmp_path.iterdir())


def test_an_unknown_descriptor_is_refused_and_the_known_ones_are_listed(inputs, tmp_path):
    result = here("featurize", inputs, "--descriptor", "soup", "--store", tmp_path / "store")
    assert result.exit_code == 2
    assert "choose from composition, soap" in result.output
    listed = here("features").output
    assert "composition" in listed and "550 features" in listed


def rows(path: Path) -> list[tuple[str, str]]:
    """Content and run of every raw row of descriptors; none while there is no store yet."""
    try:
        table = FeatureStore(path).tables.read("features", ["content_key", "run_id"])
    except StoreError:
        return []
    return sorted(zip(*(table[name].to_pylist() for name in ("content_key", "run_id")), strict=True))


def test_a_killed_run_goes_on_and_ends_like_an_undisturbed_one(write_crystals, tmp_path, start):
    ids = write_crystals(tmp_path / "inputs", N_CRYSTALS)
    driver, store = tmp_path / "driver.py", tmp_path / "store"
    driver.write_text(DRIVER)
    command = start(sys.executable, driver, tmp_path / "inputs", store)
    end = time.monotonic() + 120
    while len(rows(store)) < 12:
        assert time.monotonic() < end and command.process.poll() is None, "waited in vain"
        time.sleep(0.01)
    command.process.kill()
    command.process.wait()
    command.wait_until_all_are_gone()
    before = rows(store)
    assert len(before) < N_CRYSTALS, "it ended before it could be killed"
    result = start(sys.executable, driver, tmp_path / "inputs", store).finish()
    assert result.stdout.split() == [str(N_CRYSTALS - len(before)), str(len(before)), "0"], result.stderr
    after = rows(store)
    assert set(before) <= set(after)  # no row is lost, none made again
    assert len({key for key, _ in after}) == len(after) == N_CRYSTALS
    reader = FeatureStore(store)
    matrix = reader.matrix("composition")
    assert matrix.ids.tolist() == ids
    for id, values in zip(ids[::10], matrix.values[::10], strict=True):
        np.testing.assert_array_equal(values, Composition().compute(reader.structure(id)))

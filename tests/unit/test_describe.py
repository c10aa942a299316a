"""Descriptors in a store: what is computed, shared, refused and resumed, and what readers of the store make of it."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write

from sorep.describe import describe, warm_up
from sorep.descriptors import Composition, Soap, identity_of
from sorep.engine import LocalEngine, SerialEngine
from sorep.errors import DescriptorError, FeatureError, IdentityError, StoreError, UsageError
from sorep.features import FeatureSpec, Window
from sorep.featurize import featurize, refeaturize
from sorep.intake import Acceptance
from sorep.kinetic.method import KineticSettings
from sorep.ledger import MOST_SET_UP_FAILURES, Progress
from sorep.plotting import plot_features
from sorep.references import store_references
from sorep.similarity import Rule, group_store, nearest
from sorep.similarity.report import write_report
from sorep.sources import find_items
from sorep.store import FeatureStore, StoreWriter
from sorep.store.export import export_matrix
from sorep.structure import Structure

COMPOSITION = Composition()
KINETIC = KineticSettings(k_spacing=0.8)
SPEC = FeatureSpec(name="few", windows=(Window(start=0.0, stop=100.0, points=40),), width=2.0)
TABLES = ("structures", "features", "spectra", "failures")
IDS = ["al:0", "al:1", "rocksalt", "si", "twin"]


@dataclass(frozen=True)
class Absent:
    """Its package is found when the run starts, and broken when it is imported."""

    name: ClassVar[str] = "absent"
    references: ClassVar[tuple[str, ...]] = ()
    feature_names = ("x",)

    def words(self) -> dict[str, Any]:
        return {}

    def compute(self, structure: Structure) -> np.ndarray:
        raise DescriptorError("it is broken", code="missing-package", stage="set-up", remedy="install it")


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """Five structures, two of them of one content, and one that no element list knows."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    write(folder / "si.vasp", bulk("Si"))
    write(folder / "twin.vasp", bulk("Si"))
    write(folder / "rocksalt.vasp", bulk("NaCl", "rocksalt", a=5.64))
    write(folder / "al.xyz", [bulk("Al", a=4.0), bulk("Al", a=4.1)], format="extxyz")
    write(folder / "rf.vasp", Atoms("Rf", cell=[4, 4, 4], pbc=True))
    return folder


@pytest.fixture
def run(tmp_path: Path):
    """Call `describe` in this process; ``engine`` may be replaced."""

    def run(*paths: Path, descriptor=COMPOSITION, store: str = "store", **options) -> Progress:
        options = {"engine": SerialEngine(), **options}
        return describe(list(find_items(paths)), descriptor, tmp_path / store, **options)

    return run


@pytest.fixture
def store(tmp_path: Path):
    return lambda name="store": FeatureStore(tmp_path / name)


@pytest.fixture
def both(run, store, inputs, tmp_path) -> FeatureStore:
    """A store with spectra of the same structures beside the descriptor."""
    run(inputs)
    featurize(list(find_items([inputs])), KINETIC, [SPEC], tmp_path / "store", SerialEngine())
    return store()


def n_rows(store: FeatureStore) -> list[int]:
    return [len(store.tables.read(table)) for table in TABLES]


# What is computed


def test_every_structure_gets_its_own_descriptor(run, store, inputs):
    progress = run(inputs)
    assert (progress.total, progress.computed, progress.shared, progress.failed) == (6, 4, 1, 1)
    matrix = store().matrix("composition")
    assert matrix.ids.tolist() == IDS
    assert matrix.identity == identity_of(COMPOSITION)
    for id, values in zip(matrix.ids, matrix.values, strict=True):
        np.testing.assert_array_equal(values, COMPOSITION.compute(store().structure(str(id))))
    assert n_rows(store()) == [5, 4, 0, 1]
    events = store().runs()
    assert events["event"].tolist() == ["started", "finished"]
    assert (events["n_done"][1], events["n_failed"][1]) == (4, 1)


def test_worker_processes_do_the_same(run, store, inputs):
    here = run(inputs)
    with LocalEngine(2, initializer=partial(warm_up, COMPOSITION)) as engine:
        assert run(inputs, engine=engine, store="there") == here
    np.testing.assert_array_equal(store("there").matrix("composition").values, store().matrix("composition").values)


def test_a_rerun_computes_nothing_and_writes_no_results(run, store, inputs):
    run(inputs)
    before = n_rows(store())
    again = run(inputs)
    assert (again.computed, again.stored_before, again.failed_before) == (0, 5, 1)
    assert n_rows(store()) == before
    write(inputs / "ge.vasp", bulk("Ge"))
    write(inputs / "third.vasp", bulk("Si"))
    again = run(inputs)
    assert (again.computed, again.shared, again.stored_before) == (1, 1, 5)
    assert store().matrix("composition").ids.tolist() == sorted([*IDS, "ge", "third"])


@pytest.mark.parametrize("n_tables", [1, 2])
def test_a_run_cut_between_two_tables_goes_on_without_duplicates(run, store, inputs, monkeypatch, n_tables):
    """What a kill leaves: the first tables of the batch are there, the others are not."""
    whole = StoreWriter.flush

    def cut(self):
        append = self._tables.append
        written = []

        def until_the_kill(name, rows):
            if rows and len(written) == n_tables:
                raise KeyboardInterrupt
            append(name, rows)
            written.extend([name] if rows else [])

        self._tables.append = until_the_kill
        whole(self)

    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "flush", cut)
        with pytest.raises(KeyboardInterrupt):
            run(inputs)
    assert n_rows(store())[:2] == ([5, 0] if n_tables == 1 else [5, 4])
    progress = run(inputs)
    assert (progress.computed, progress.done) == ((4, 5) if n_tables == 1 else (0, 5))
    assert n_rows(store()) == [5, 4, 0, 1]
    run(inputs, store="undisturbed")
    undisturbed = store("undisturbed").matrix("composition")
    np.testing.assert_array_equal(store().matrix("composition").values, undisturbed.values)


def test_spectra_and_descriptors_of_one_crystal_share_its_name(both, inputs):
    assert both.structures()["id"].tolist() == IDS
    assert n_rows(both)[0] == len(IDS)
    assert both.features()[["name", "operator", "n"]].to_dict("records") == [
        {"name": "composition", "operator": "", "n": 4},
        {"name": "few", "operator": "kinetic", "n": 4},
    ]
    assert both.matrix("few").ids.tolist() == both.matrix("composition").ids.tolist()
    np.testing.assert_array_equal(
        both.matrix("composition", operator="").values, both.matrix("composition", ids=IDS).values
    )


# What is refused


def test_a_failure_names_stage_and_remedy_and_is_settled_by_success(run, store, inputs):
    run(inputs)
    (row,) = store().failures().to_dict("records")
    assert (row["id"], row["stage"], row["code"]) == ("rf", "descriptor", "missing-element")
    assert row["remedy"] and row["identity"] == identity_of(COMPOSITION).hash
    write(inputs / "rf.vasp", bulk("Cu"))
    assert run(inputs).failed == 0
    assert store().failures().empty


def test_failures_of_spectra_are_not_settled_by_descriptors(run, store, inputs, tmp_path):
    write(inputs / "fm.vasp", Atoms("Fm", cell=[4, 4, 4], pbc=True))  # no basis set has it
    for _ in range(2):
        featurize(list(find_items([inputs])), KINETIC, [SPEC], tmp_path / "store", SerialEngine())
        run(inputs)
        found = {(row["id"], row["stage"]) for row in store().failures().to_dict("records")}
        assert found == {("fm", "basis"), ("rf", "basis"), ("rf", "descriptor")}
    assert "fm" in store().matrix("composition").ids


def test_one_structure_cannot_hurt_another(run, store, inputs, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))  # workers look for modules where this process does
    treacherous = importlib.import_module("treacherous").Treacherous()
    with LocalEngine(1) as engine:
        progress = run(inputs, descriptor=treacherous, engine=engine)
    assert progress.codes == {"worker-died": 2, "no-aluminium": 2}
    matrix = store().matrix("treacherous")
    assert dict(zip(matrix.ids, matrix.values[:, 0], strict=True)) == {"rf": 1, "rocksalt": 2}


def test_acceptance_and_retries_work_as_for_spectra(run, store, inputs):
    progress = run(inputs, acceptance=Acceptance(max_atoms=1))
    assert (progress.computed, progress.codes["too-many-atoms"]) == (2, 3)
    assert run(inputs).computed == 2
    assert store().failures()["id"].tolist() == ["rf"]
    progress = run(inputs, retry_failed=True)
    assert (progress.computed, progress.failed, progress.failed_before) == (0, 1, 0)


def test_a_broken_package_stops_the_run_and_is_held_against_no_structure(run, store, tmp_path):
    many = [bulk("Na", a=4 + n / 50) for n in range(2 * MOST_SET_UP_FAILURES)]
    write(tmp_path / "many.xyz", many, format="extxyz")
    with pytest.raises(DescriptorError, match="in a row"):
        run(tmp_path / "many.xyz", descriptor=Absent())
    warm_up(Absent())  # a worker starts all the same
    assert store().runs()["event"].tolist() == ["started", "interrupted"]
    with pytest.raises(DescriptorError):  # tried again
        run(tmp_path / "many.xyz", descriptor=Absent())


def test_a_missing_package_is_found_before_a_store_is_made(run, inputs, tmp_path, monkeypatch):
    import importlib.metadata

    from sorep.descriptors import soap

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(soap, "version", missing)
    with pytest.raises(DescriptorError) as caught:
        run(inputs, descriptor=Soap())
    assert (caught.value.code, caught.value.remedy) == ("missing-package", "pip install 'sorep[soap]'")
    assert not (tmp_path / "store").exists()


# What readers make of it


def test_a_frame_has_the_names_of_the_features(both):
    frame = both.frame("composition")
    assert frame.columns.tolist() == COMPOSITION.feature_names == both.matrix("composition").feature_names
    assert frame.loc["rocksalt", "fraction-Na"] == frame.loc["rocksalt", "fraction-Cl"] == 0.5
    assert frame.attrs["identity_words"]["descriptor"] == "composition"
    assert both.matrix("few").feature_names == SPEC.feature_names
    assert both.matrix("few").grid == both.matrix("few").spec == SPEC


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".npz", ".h5"])
def test_a_descriptor_can_be_exported(both, tmp_path, suffix):
    import pandas as pd

    if suffix == ".h5":
        pytest.importorskip("h5py")
    path, matrix = tmp_path / f"out{suffix}", both.matrix("composition")
    export_matrix(matrix, path)
    if suffix in (".parquet", ".csv"):
        frame = pd.read_parquet(path) if suffix == ".parquet" else pd.read_csv(path, index_col="id")
        values, names = frame.to_numpy(), frame.columns.tolist()
    elif suffix == ".npz":
        with np.load(path) as file:
            values, names = file["values"], file["feature_names"].tolist()
            assert json.loads(str(file["identity"]))["words"]["descriptor"] == "composition"
    else:
        import h5py

        with h5py.File(path) as file:
            values, names = np.asarray(file["values"]), [n.decode() for n in np.asarray(file["feature_names"]).tolist()]
    np.testing.assert_allclose(values, matrix.values, rtol=1e-14)
    assert names == COMPOSITION.feature_names


def test_what_needs_a_grid_or_spectra_is_refused(both, tmp_path):
    matrix = both.matrix("composition")
    assert matrix.grid is None
    with pytest.raises(FeatureError, match="not a density") as caught:
        _ = matrix.spec
    assert caught.value.code == "no-grid"
    with pytest.raises(FeatureError) as caught:
        plot_features(matrix, ["si"], tmp_path / "out.png")
    assert caught.value.code == "no-grid"
    with pytest.raises(FeatureError) as caught:
        both.spectrum_identity(matrix.identity)
    assert caught.value.code == "no-spectra"
    assert both.spectrum_identity(both.matrix("few").identity) == KINETIC.identity()
    with pytest.raises(UsageError, match="needs the energies") as caught:
        nearest(matrix.values, 1, "wasserstein", matrix.grid)
    assert caught.value.code == "metric-needs-grid"
    with pytest.raises(UsageError):
        group_store(both, matrix, Rule("wasserstein"))


def test_descriptors_can_be_compared_and_grouped(both, tmp_path):
    matrix = both.matrix("composition")
    groups = group_store(both, matrix, Rule("euclidean", 1e-6))
    together = {tuple(groups.ids[groups.group == group]) for group in np.unique(groups.group)}
    assert together == {("al:0", "al:1"), ("rocksalt",), ("si", "twin")}
    assert write_report(matrix, groups, tmp_path / "report.html")[0].exists()
    assert both.groups()["id"].tolist() == IDS


def test_refeaturize_takes_the_spectra_only(both):
    other = SPEC.model_copy(update={"name": "others"})
    assert [identity.hash for identity in both.spectrum_identities()] == [KINETIC.identity().hash]
    assert refeaturize(both.path, other, KINETIC.identity()) == 4
    assert both.features()["name"].tolist() == ["composition", "few", "others"]


def test_two_identities_of_a_descriptor_are_not_mixed(run, store, inputs):
    pytest.importorskip("dscribe.descriptors")
    coarse, fine = Soap(n_max=2, l_max=1), Soap(n_max=3, l_max=1)
    run(inputs, descriptor=coarse)
    run(inputs, descriptor=fine)
    with pytest.raises(IdentityError, match=r"n_max: [23] against [23]"):
        store().matrix("soap")
    matrix = store().matrix("soap", identity=identity_of(coarse).hash[:6])
    assert matrix.feature_names == coarse.feature_names
    assert matrix.values.shape == (6, len(coarse.feature_names))
    assert store().matrix("soap", identity=identity_of(fine).hash).values.shape == (6, len(fine.feature_names))


def test_what_to_cite_contains_the_descriptors(both):
    entries, _ = store_references(both)
    assert COMPOSITION.references[0] in entries
    assert any("libcint" in entry.lower() for entry in entries)


def test_what_a_store_lacks_is_said(run, store, inputs):
    run(inputs)
    with pytest.raises(StoreError, match="composition") as caught:
        store().matrix("soap")
    assert caught.value.code == "no-such-feature"

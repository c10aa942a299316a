"""From files to a store: what is computed, what is shared, what is refused, and what a rerun does."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write

import sorep.intake
from sorep.engine import Limits, LocalEngine, SerialEngine
from sorep.errors import BasisError, Failure, PwError, SorepError, StoreError, UsageError
from sorep.features import FeatureSpec, Window, compute_feature, get_feature
from sorep.featurize import (
    Outlook,
    Progress,
    estimate,
    feature_identity,
    featurize,
    refeaturize,
)
from sorep.identity import Identity
from sorep.intake import Acceptance
from sorep.kinetic.method import KineticSettings
from sorep.ledger import MOST_SET_UP_FAILURES
from sorep.method import Calculation, Work
from sorep.sources import find_items
from sorep.store import FeatureStore
from sorep.structure import Structure

SETTINGS = KineticSettings(k_spacing=0.5)
SPEC = FeatureSpec(name="few", windows=(Window(start=0.0, stop=100.0, points=40),), width=2.0)
ANCHORED = get_feature("fermi")
SILICON = Structure.from_ase(bulk("Si"), id="silicon")
WARM_UP = partial(SETTINGS.calculate, SILICON)  # imports and the basis set, before any clock runs

CIF = """\
data_{name}
_cell_length_a {a}
_cell_length_b {a}
_cell_length_c {a}
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma {gamma}
{more}
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
{sites}
"""


def cif(*sites: str, name: str = "x", a: float = 4.1, gamma: float = 90, more: str = "") -> str:
    sites = sites or ("Cs1 Cs 0 0 0 1", "Cl1 Cl 0.5 0.5 0.5 1")
    return CIF.format(name=name, a=a, gamma=gamma, more=more, sites="\n".join(sites))


def endless_cif() -> str:
    """Correct, and an afternoon's work for the parser: 3000 sites times 192 operations."""
    sites = np.random.default_rng(1).random((3000, 3))
    rows = [f"Si{n} Si {x:.6f} {y:.6f} {z:.6f} 1" for n, (x, y, z) in enumerate(sites)]
    return cif(*rows, a=500, more="_space_group_IT_number 227\n_symmetry_space_group_name_H-M 'F d -3 m'")


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    with LocalEngine(2, Limits(seconds=600), initializer=WARM_UP) as engine:
        yield engine


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """Six structures: one of them under two names, five contents."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    write(folder / "si.vasp", bulk("Si"))
    write(folder / "frames.xyz", [bulk("Al", a=a) for a in (4.0, 4.05, 4.1)], format="extxyz")
    (folder / "cscl.cif").write_text(cif())
    (folder / "again.cif").write_text(cif(name="another"))
    return folder


IDS = ["again", "cscl", "frames:0", "frames:1", "frames:2", "si"]


@pytest.fixture
def run(engine: LocalEngine, tmp_path: Path):
    """Call `featurize` with the defaults of these tests; ``engine`` may be replaced."""

    def run(*paths: Path, specs=(SPEC,), settings=SETTINGS, store: str = "store", **options) -> Progress:
        options = {"engine": engine, **options}
        return featurize(list(find_items(paths)), settings, specs, tmp_path / store, **options)

    return run


@pytest.fixture
def store(tmp_path: Path):
    """Open the store that `run` writes to."""
    return lambda name="store": FeatureStore(tmp_path / name)


def n_rows(store: FeatureStore, table: str) -> int:
    return len(store.tables.read(table))


def commits(store: FeatureStore, *tables: str) -> list[int]:
    return [len(list((store.path / table / "_delta_log").glob("*.json"))) for table in tables]


def failures(store: FeatureStore) -> dict[str, str]:
    """Code by id; every failure must tell where it comes from and what to do."""
    rows = store.failures().to_dict("records")
    assert all(row["message"] and row["remedy"] and row["stage"] and row["source"] for row in rows)
    codes = {row["id"]: row["code"] for row in rows}
    assert len(codes) == len(rows)
    return codes


# What is computed


def test_every_structure_gets_the_feature_of_its_own_spectrum(run, store, inputs):
    progress = run(inputs)
    assert (progress.total, progress.computed, progress.shared, progress.failed) == (6, 5, 1, 0)
    matrix = store().matrix("few")
    assert matrix.ids.tolist() == IDS
    assert matrix.identity == feature_identity(SETTINGS.identity(), SPEC)
    for id, values in zip(matrix.ids, matrix.values, strict=True):
        direct = SETTINGS.calculate(store().structure(id)).spectrum
        np.testing.assert_array_equal(store().spectrum(id).energies, direct.energies)
        np.testing.assert_array_equal(values, compute_feature(direct, SPEC))


def test_this_process_does_the_same_as_others(run, store, inputs, mixed):
    last = run(inputs, acceptance=Acceptance(max_atoms=15))
    here = run(inputs, acceptance=Acceptance(max_atoms=15), engine=SerialEngine(), store="here")
    assert here == last
    np.testing.assert_array_equal(store("here").matrix("few").values, store().matrix("few").values)
    assert failures(store("here")) == failures(store())


def test_only_the_ids_asked_for_are_looked_at(run, store, inputs, mixed):
    ids = frozenset({"frames:1", "cscl", "no-basis"})
    progress = run(inputs, acceptance=Acceptance(ids=ids))
    assert (progress.total, progress.computed, progress.failed) == (3, 2, 1)
    assert store().matrix("few").ids.tolist() == ["cscl", "frames:1"]
    assert list(failures(store())) == ["no-basis"]


def test_ids_that_are_not_in_the_input_stop_the_run(run, inputs):
    with pytest.raises(UsageError, match="2 of the ids asked for are not in the input, the first of them 'fe'"):
        run(inputs, acceptance=Acceptance(ids=frozenset({"si", "fe", "ni"})))


def test_one_content_is_computed_once_for_all_its_names(run, store, inputs):
    run(inputs)
    assert n_rows(store(), "spectra") == n_rows(store(), "features") == 5
    assert store().ids_of(store().structure("cscl").content_key) == ["again", "cscl"]
    matrix = store().matrix("few", ids=["again", "cscl"])
    np.testing.assert_array_equal(*matrix.values)


def test_a_new_name_of_a_stored_content_is_only_noted_down(run, store, inputs):
    run(inputs)
    before = commits(store(), "spectra", "features")
    (inputs / "third.cif").write_text(cif(name="third"))
    progress = run(inputs)
    assert (progress.computed, progress.shared, progress.stored_before) == (0, 1, 6)
    assert commits(store(), "spectra", "features") == before
    np.testing.assert_array_equal(*store().matrix("few", ids=["third", "cscl"]).values)


def test_naming_a_file_twice_is_no_conflict(run, store, inputs):
    progress = run(inputs / "si.vasp", inputs / "si.vasp", inputs)
    assert (progress.total, progress.computed, progress.failed) == (8, 5, 0)
    assert n_rows(store(), "structures") == 6


def test_a_rerun_computes_nothing_and_writes_no_results(run, store, inputs):
    (inputs / "ghost.cif").write_text(cif("Fm1 Fm 0 0 0 1"))
    (inputs / "broken.cif").write_text("data_x\n")
    first = run(inputs)
    assert (first.computed, first.failed) == (5, 2)
    before = commits(store(), "structures", "spectra", "features", "failures")
    second = run(inputs)
    assert (second.computed, second.shared, second.stored_before) == (0, 0, 6)
    assert (second.failed, second.failed_before) == (0, 2)
    assert second.codes == first.codes
    assert commits(store(), "structures", "spectra", "features", "failures") == before


def test_an_added_feature_reuses_the_spectra(run, store, inputs):
    run(inputs)
    before = commits(store(), "spectra", "structures")
    other = SPEC.model_copy(update={"name": "others", "width": 1.0, "sampling": "bin"})
    write(inputs / "ge.vasp", bulk("Ge"))
    progress = run(inputs, specs=[SPEC, other])
    assert (progress.computed, progress.stored_before) == (1, 6)
    assert [after - n for after, n in zip(commits(store(), "spectra", "structures"), before, strict=True)] == [1, 1]
    assert store().matrix("others").ids.tolist() == store().matrix("few").ids.tolist() == sorted([*IDS, "ge"])
    for id, values in zip(store().matrix("others").ids, store().matrix("others").values, strict=True):
        np.testing.assert_array_equal(values, compute_feature(store().spectrum(id), other))


def test_a_grid_under_a_second_name_is_offered_under_both(run, store, inputs):
    run(inputs)
    progress = run(inputs, specs=[SPEC.model_copy(update={"name": "few-again"})])
    assert progress.computed == 0
    np.testing.assert_array_equal(store().matrix("few-again").values, store().matrix("few").values)
    assert store().matrix("few-again").identity == store().matrix("few").identity


@pytest.mark.parametrize(
    "changes",
    [{}, {"width": 0.7}, {"normalization": "atom"}, {"sampling": "bin"}, {"smearing": "cold", "spin_factor": False}],
    ids=str,
)
def test_refeaturize_equals_the_direct_way(run, store, inputs, changes):
    other = SPEC.model_copy(update={"name": "others", **changes})
    run(inputs, specs=[other], store="direct")
    run(inputs)
    before = commits(store(), "spectra")
    assert refeaturize(store().path, other, SETTINGS.identity()) == 5
    assert commits(store(), "spectra") == before
    direct, derived = store("direct").matrix("others"), store().matrix("others")
    assert derived.identity == direct.identity
    assert derived.ids.tolist() == direct.ids.tolist()
    np.testing.assert_array_equal(derived.values, direct.values)
    n_runs = n_rows(store(), "runs")
    assert refeaturize(store().path, other, SETTINGS.identity()) == 0
    assert n_rows(store(), "runs") == n_runs


def test_spectra_of_two_operators_live_side_by_side(run, store, inputs):
    run(inputs)
    progress = run(inputs, settings=KineticSettings(k_spacing=0.5, operator="overlap"))
    assert progress.computed == 5
    kinetic, overlap = (store().matrix("few", operator=name) for name in ("kinetic", "overlap"))
    assert kinetic.ids.tolist() == overlap.ids.tolist()
    assert np.abs(kinetic.values - overlap.values).max() > 1e-3
    assert overlap.identity.words["operator"] == "overlap"


# What is refused


@pytest.fixture
def mixed(inputs: Path) -> dict[str, str]:
    """Damage of every kind among the good ones; the code that each must get, by id."""
    files = {
        "not-a-cif": "what is this",
        "cut": cif()[:200],
        "empty": "",
        "disordered": cif("X1 Fe 0 0 0 0.5", "X2 Ni 0 0 0 0.5"),
        "dummy": cif("X1 Xx 0 0 0 1"),
        "flat": cif(gamma=180),
        "close": cif("Cs1 Cs 0 0 0 1", "Cl1 Cl 0.05 0 0 1"),
        "formula": cif(more="_chemical_formula_sum 'Cs2 Cl'"),
        "no-basis": cif("Fm1 Fm 0 0 0 1"),
        "nan": cif("Cs1 Cs 0 0 nan 1"),
    }
    for name, content in files.items():
        (inputs / f"{name}.cif").write_text(content)
    cell = np.diag([0.001, 4, 4])
    write(inputs / "thin.vasp", Atoms("Si", cell=cell, pbc=True))
    write(inputs / "water.json", molecule("H2O"))
    write(inputs / "wire.xyz", Atoms("Si", cell=[4, 4, 4], pbc=[False, False, True]), format="extxyz")
    write(inputs / "large.vasp", bulk("Si", cubic=True) * (2, 1, 1))
    (inputs / "table.csv").write_text("name,colour\nx,blue\n")
    (inputs / "z").mkdir()
    write(inputs / "z" / "si.vasp", bulk("Si", a=5.5))
    return {
        "not-a-cif": "unreadable-file",
        "cut": "unreadable-file",
        "empty": "no-structure",
        "disordered": "partial-occupancy",
        "dummy": "unknown-species",
        "flat": "vanishing-volume",
        "close": "atoms-too-close",
        "formula": "formula-mismatch",
        "no-basis": "missing-element",
        "nan": "non-finite",
        "thin": "vanishing-volume",
        "water": "not-periodic",
        "wire": "not-periodic",
        "large": "too-many-atoms",
        "table": "missing-column",
        "si": "duplicate-id",
    }


def test_damage_costs_the_damaged_structures_only(run, store, inputs, mixed):
    progress = run(inputs, acceptance=Acceptance(max_atoms=15))
    assert failures(store()) == mixed
    assert store().matrix("few").ids.tolist() == IDS
    assert (progress.computed, progress.shared, progress.failed) == (5, 1, len(mixed))
    assert progress.codes == Counter(mixed.values())
    assert progress.finished == progress.total == len(IDS) + len(mixed)
    rows = {row["id"]: row for row in store().failures().to_dict("records")}
    assert rows["si"]["source"].endswith("z/si.vasp")
    assert rows["no-basis"]["stage"] == "basis"
    assert rows["close"]["stage"] == "validate"
    assert "Fm" in rows["no-basis"]["message"]


def test_an_estimate_refuses_the_same_and_stores_nothing(engine, inputs, mixed, tmp_path):
    items = list(find_items(inputs))
    answers = list(estimate(items, SETTINGS, engine, acceptance=Acceptance(max_atoms=15)))
    refused = {id: answer.code for id, _, answer in answers if isinstance(answer, Failure)}
    accepted = {id: (formula, answer) for id, formula, answer in answers if isinstance(answer, Work)}
    assert refused == mixed
    assert sorted(accepted) == IDS
    assert len(answers) == len(mixed) + len(IDS)
    formula, work = accepted["si"]
    assert (formula, work) == ("Si2", SETTINGS.estimate(SILICON))
    assert [path.name for path in tmp_path.iterdir()] == ["inputs"]


@pytest.mark.parametrize("first", ["a", "b"])
def test_of_two_contents_with_one_id_the_first_of_the_input_counts(run, store, tmp_path, first):
    a, b = tmp_path / "a", tmp_path / "b"
    a.mkdir()
    b.mkdir()
    # Among much else to read, and in a format that reads slowly or fast: the order must not depend on it.
    (a / "x.cif").write_text(cif("Si1 Si 0 0 0 1"))
    write(b / "x.xyz", Atoms("Al", cell=[4, 4, 4], pbc=True), format="extxyz")
    write(tmp_path / "many.xyz", [bulk("Na", a=4 + n / 50) for n in range(10)], format="extxyz")
    folders = {"a": [a, b], "b": [b, a]}[first]
    progress = run(tmp_path / "many.xyz", *folders)
    assert (progress.computed, progress.failed) == (11, 1)
    assert store().structure("x").formula == {"a": "Si", "b": "Al"}[first]
    (row,) = store().failures().to_dict("records")
    assert (row["id"], row["code"]) == ("x", "duplicate-id")
    assert row["source"].startswith(str(folders[1]))
    # And what is stored keeps its name, whatever comes first later.
    again = run(*reversed(folders))
    assert (again.stored_before, again.failed, again.failed_before) == (1, 0, 1)


def test_a_refused_structure_keeps_its_name_too(run, store, tmp_path):
    for name, site in (("a", "Fm1 Fm 0 0 0 1"), ("b", "Si1 Si 0 0 0 1")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.cif").write_text(cif(site))
    for _ in range(2):
        progress = run(tmp_path / "a", tmp_path / "b")
        assert progress.codes == {"missing-element": 1, "duplicate-id": 1}
        assert progress.done == 0
    assert n_rows(store(), "failures") == 2


def test_all_names_of_a_content_that_fails_are_listed(run, store, tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.cif").write_text(cif("Fm1 Fm 0 0 0 1"))
    progress = run(tmp_path)
    assert (progress.done, progress.failed) == (0, 3)
    assert failures(store()) == dict.fromkeys("abc", "missing-element")
    (tmp_path / "d.cif").write_text(cif("Fm1 Fm 0 0 0 1"))
    progress = run(tmp_path)
    assert (progress.failed, progress.failed_before) == (1, 3)
    assert failures(store()) == dict.fromkeys("abcd", "missing-element")


def test_a_feature_that_a_spectrum_cannot_give_is_listed_and_the_spectrum_kept(run, store, inputs):
    for _ in range(2):  # the second time from the stored spectra: nothing new
        run(inputs, specs=[SPEC, ANCHORED])
        assert store().features()["name"].tolist() == ["few"]
        assert store().matrix("few").ids.tolist() == IDS
        rows = store().failures().to_dict("records")
        assert [row["id"] for row in rows] == IDS
        assert {(row["stage"], row["code"]) for row in rows} == {("levels", "no-electrons")}
        assert {row["identity"] for row in rows} == {feature_identity(SETTINGS.identity(), ANCHORED).hash}
        assert n_rows(store(), "spectra") == 5
        assert n_rows(store(), "failures") == 6


def test_the_same_is_listed_where_the_spectra_were_there_before(run, store, inputs):
    run(inputs)
    assert refeaturize(store().path, ANCHORED, SETTINGS.identity()) == 0
    codes = {row["id"]: row["code"] for row in store().failures().to_dict("records")}
    assert codes == dict.fromkeys(IDS, "no-electrons")
    n_failures, n_runs = n_rows(store(), "failures"), n_rows(store(), "runs")
    assert refeaturize(store().path, ANCHORED, SETTINGS.identity()) == 0
    assert (n_rows(store(), "failures"), n_rows(store(), "runs")) == (n_failures, n_runs)


def test_what_other_limits_accept_is_computed(run, store, inputs):
    write(inputs / "large.vasp", bulk("Si", cubic=True) * (2, 1, 1))
    (inputs / "close.cif").write_text(cif("Si1 Si 0 0 0 1", "Si2 Si 0.1 0 0 1"))
    first = run(inputs, acceptance=Acceptance(max_atoms=15))
    assert first.codes == {"too-many-atoms": 1, "atoms-too-close": 1}
    second = run(inputs, acceptance=Acceptance(minimum_distance=0.3, max_atoms=16))
    assert (second.computed, second.all_failed) == (2, 0)
    assert failures(store()) == {}


def test_a_repaired_file_is_computed_and_its_failure_settled(run, store, inputs):
    (inputs / "late.cif").write_text("data_x\n")
    run(inputs)
    assert failures(store()) == {"late": "no-structure"}
    (inputs / "late.cif").write_text(cif("Si1 Si 0 0 0 1"))
    assert run(inputs).computed == 1
    assert failures(store()) == {}


def test_what_ran_out_of_time_is_tried_again_only_on_demand(run, store, inputs):
    heavy = bulk("GaAs", "zincblende", a=5.65) * (4, 4, 4)
    heavy.rattle(0.02, seed=1)
    write(inputs / "heavy.vasp", heavy)
    with LocalEngine(1, Limits(seconds=0.8), initializer=WARM_UP) as hasty:
        assert run(inputs, engine=hasty).codes == {"time-limit": 1}
    assert failures(store()) == {"heavy": "time-limit"}
    patient = run(inputs)
    assert (patient.computed, patient.failed, patient.failed_before) == (0, 0, 1)
    patient = run(inputs, retry_failed=True)
    assert (patient.computed, patient.failed, patient.failed_before) == (1, 0, 0)
    assert failures(store()) == {}
    assert "heavy" in store().matrix("few").ids


def test_a_row_that_hangs_its_reader_costs_only_itself(store, engine, tmp_path, monkeypatch):
    monkeypatch.setattr(sorep.intake, "READING_SECONDS", 2.0)
    texts = [cif(a=4.0 + n / 10) for n in range(5)]
    texts[2] = endless_cif()
    table = tmp_path / "rows.csv"
    pd.DataFrame({"label": list("abcde"), "crystal": texts}).to_csv(table, index=False)
    items = list(find_items(table, id_column="label", structure_column="crystal"))
    assert len(items) == 1  # one task for all rows
    progress = featurize(items, SETTINGS, [SPEC], tmp_path / "store", engine)
    assert store().matrix("few").ids.tolist() == ["a", "b", "d", "e"]
    assert progress.codes == {"time-limit": 1}
    assert (progress.total, progress.finished) == (5, 5)
    (row,) = store().failures().to_dict("records")
    assert row["source"] == f"{table}#2"


def test_a_crystal_that_is_stored_is_not_lost_to_a_later_failure(run, store, inputs):
    run(inputs)
    (inputs / "cscl.cif").write_text("data_x\n")
    progress = run(inputs)
    assert (progress.stored_before, progress.failed) == (5, 1)
    assert store().matrix("few").ids.tolist() == IDS


# What a run tells and leaves behind while it goes on


def test_progress_adds_up_at_every_step(run, store, inputs, mixed):
    seen: list[Progress] = []
    options = {"acceptance": Acceptance(max_atoms=15), "on_progress": lambda p: seen.append(replace(p))}
    last = run(inputs, **options)
    n_spectra = n_rows(store(), "spectra")
    assert n_spectra == last.computed
    assert len(seen) > len(IDS)
    assert [p.finished for p in seen] == sorted(p.finished for p in seen)
    assert all(p.finished <= p.total for p in seen)
    assert seen[-1] == replace(last)
    assert last.finished == last.total == last.done + last.all_failed
    assert last.computed + last.shared == len(store().structures())
    assert sum(last.codes.values()) == last.all_failed == len(store().failures())
    again = run(inputs, **options)
    assert (again.done, again.all_failed, again.total) == (last.done, last.all_failed, last.total)
    (started, ended) = store().runs().to_dict("records")[:2]
    assert (started["event"], ended["event"]) == ("started", "finished")
    assert (ended["n_done"], ended["n_failed"]) == (last.computed, last.failed)


@pytest.mark.parametrize(
    ("options", "step"),
    [({"commit_seconds": 0.0}, 1), ({"commit_seconds": 1e6, "commit_rows": 6}, 2), ({"commit_seconds": 1e6}, None)],
    ids=["every row", "every second", "at the end"],
)
def test_results_are_committed_while_the_run_goes_on(run, store, tmp_path, options, step):
    write(tmp_path / "many.xyz", [bulk("Na", a=4 + n / 50) for n in range(8)], format="extxyz")
    seen: dict[int, int] = {}
    run(tmp_path, on_progress=lambda p: seen.update({p.computed: n_rows(store(), "spectra")}), **options)
    # Three rows for each structure: its name, its spectrum, its feature.
    assert seen == {n: n // step * step if step else 0 for n in range(9)}
    assert n_rows(store(), "spectra") == 8


def test_an_interrupted_run_keeps_what_was_finished(run, store, inputs):
    def interrupt(progress: Progress) -> None:
        if progress.computed == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(inputs, on_progress=interrupt, commit_seconds=1e6)
    assert n_rows(store(), "spectra") == n_rows(store(), "features") == 3
    last = store().runs().to_dict("records")[-1]
    assert (last["event"], last["n_done"]) == ("interrupted", 3)
    progress = run(inputs)
    assert progress.computed == 2
    assert store().matrix("few").ids.tolist() == IDS


def test_a_store_that_cannot_be_written_stops_the_run(run, store, inputs, tmp_path):
    table, aside = tmp_path / "store" / "spectra", tmp_path / "aside"

    def spoil(progress: Progress) -> None:
        if progress.computed == 2 and not aside.exists():
            table.rename(aside)
            table.write_text("a file where a table should be")

    with pytest.raises(StoreError) as caught:
        run(inputs, on_progress=spoil, commit_seconds=0.0)
    assert caught.value.code == "unwritable-store"
    table.unlink()
    aside.rename(table)
    assert n_rows(store(), "spectra") == 2
    progress = run(inputs)
    assert progress.computed == 3
    assert store().matrix("few").ids.tolist() == IDS


def test_a_run_records_command_references_and_identities(run, store, inputs):
    run(inputs, command="sorep featurize inputs", references=["@misc{a}", "@misc{b}"])
    run(inputs, references=["@misc{b}", "@misc{c}"])
    assert sorted(store().data_references()) == ["@misc{a}", "@misc{b}", "@misc{c}"]
    first = store().runs().to_dict("records")[0]
    assert first["command"] == "sorep featurize inputs"
    identities = {key: json.loads(text) for key, text in first["identities"]}
    assert identities[SETTINGS.identity().hash]["basis"] == "ano-ml-os"


# Methods whose structures take long, on machines that break


def machine_error(code: str = "disk-full") -> PwError:
    return PwError("no space is left", code=code, stage="set-up", remedy="free space")


@dataclass(frozen=True)
class OnMachine:
    """Kinetic spectra, the most expensive first, on a machine where some structures fail.

    ``calculated`` lists what was tried, ``errors`` the error of an id, ``refused`` those of its estimate.
    """

    errors: dict[str, SorepError] = field(default_factory=dict)
    refused: dict[str, SorepError] = field(default_factory=dict)
    calculated: list[str] = field(default_factory=list)
    operator: str = "kinetic"
    counts_electrons: bool = False
    longest_first: bool = True
    follows_from_structure: bool = True

    def identity(self) -> Identity:
        return SETTINGS.identity()

    def estimate(self, structure: Structure) -> Work:
        if structure.id in self.refused:
            raise self.refused[structure.id]
        return replace(SETTINGS.estimate(structure), seconds=structure.volume)

    def calculate(self, structure: Structure) -> Calculation:
        self.calculated.append(structure.id)
        if structure.id in self.errors:
            raise self.errors[structure.id]
        return SETTINGS.calculate(structure)


@pytest.fixture
def run_here(run, tmp_path) -> Callable[..., Progress]:
    """`run` in this process, where everything happens in the order of the input."""
    return lambda method, **options: run(tmp_path / "inputs", settings=method, engine=SerialEngine(), **options)


@pytest.fixture
def write_many(tmp_path) -> Callable[[int], list[str]]:
    """Write crystals of falling size, so that they are computed as they are numbered; returns their ids."""

    def write_frames(number: int) -> list[str]:
        (tmp_path / "inputs").mkdir()
        frames = [bulk("Na", a=4.6 - n / 100) for n in range(number)]
        write(tmp_path / "inputs" / "na.xyz", frames, format="extxyz")
        return [f"na:{n}" for n in range(number)]

    return write_frames


def test_the_longest_comes_first_where_a_method_wants_that(run_here, store, inputs):
    longest, here = OnMachine(), []
    run_here(longest, on_planned=here.append)
    seconds = {id: longest.estimate(store().structure(id)).seconds for id in IDS}
    assert longest.calculated == sorted(set(IDS) - {"cscl"}, key=lambda id: -seconds[id])
    assert here == [Outlook(5, pytest.approx(sum(seconds[id] for id in longest.calculated)), Counter())]
    as_read = OnMachine(longest_first=False)
    run_here(as_read, on_planned=here.append, store="other")
    assert as_read.calculated == ["again", "frames:0", "frames:1", "frames:2", "si"]
    assert len(here) == 1
    np.testing.assert_array_equal(store("other").matrix("few").values, store().matrix("few").values)


def test_an_outlook_counts_what_is_to_be_done_and_says_why_the_rest_is_not(run_here, store, inputs):
    refusal = BasisError("no orbitals", code="missing-element", remedy="choose another basis")
    method = OnMachine(refused={"si": refusal, "frames:1": refusal})
    outlooks: list[Outlook] = []
    progress = run_here(method, on_planned=outlooks.append)
    assert outlooks[0].n_structures == 3
    assert outlooks[0].refused == Counter({str(refusal): 2})
    assert set(method.calculated) == {"again", "frames:0", "frames:2"}
    assert (progress.computed, progress.failed, progress.finished) == (3, 2, 6)
    assert failures(store()) == {"si": "missing-element", "frames:1": "missing-element"}
    again = run_here(method, on_planned=outlooks.append)
    assert outlooks[1] == Outlook(0, 0.0, Counter())
    assert (again.stored_before, again.failed_before) == (4, 2)


def test_a_broken_machine_stops_the_run_and_is_held_against_nobody(run_here, store, write_many):
    ids = write_many(MOST_SET_UP_FAILURES + 2)
    broken = OnMachine(errors=dict.fromkeys(ids, machine_error()))
    for attempt in (1, 2):
        with pytest.raises(PwError) as raised:
            run_here(broken)
        error = raised.value
        assert (error.code, error.stage, error.remedy) == ("disk-full", "set-up", "free space")
        assert f"{MOST_SET_UP_FAILURES} structures in a row" in error.message
        assert "no space is left" in error.message
        assert broken.calculated == ids[:MOST_SET_UP_FAILURES] * attempt
        assert failures(store()) == dict.fromkeys(ids[:MOST_SET_UP_FAILURES], "disk-full")
        last = store().runs().to_dict("records")[-1]
        assert (last["event"], last["n_failed"]) == ("interrupted", MOST_SET_UP_FAILURES)
    repaired = run_here(OnMachine())
    assert (repaired.computed, repaired.all_failed) == (len(ids), 0)
    assert failures(store()) == {}


def machines(ids: Sequence[str]) -> dict[str, dict[str, SorepError]]:
    """Errors by id of machines that fail often, and not hopelessly."""
    always = dict.fromkeys(ids, machine_error())
    refused = BasisError("no orbitals", code="missing-element", remedy="choose another basis")
    tenth = ids[MOST_SET_UP_FAILURES - 1 : MOST_SET_UP_FAILURES]
    return {
        "a success between": {id: error for id, error in always.items() if id not in tenth},
        "a bad structure between": always | dict.fromkeys(tenth, refused),
        "one reason or another": always | dict.fromkeys(ids[::2], machine_error("wrong-cpu")),
    }


@pytest.mark.parametrize("machine", machines([]))
def test_a_machine_that_fails_now_and_then_does_not_stop_the_run(run_here, store, write_many, machine):
    ids = write_many(2 * MOST_SET_UP_FAILURES - 1)
    errors = machines(ids)[machine]
    progress = run_here(OnMachine(errors=errors))
    assert progress.failed == len(errors)
    assert failures(store()) == {id: error.code for id, error in errors.items()}
    repaired = OnMachine()
    progress = run_here(repaired)
    kept = [id for id, error in errors.items() if error.stage != "set-up"]
    assert repaired.calculated == [id for id in errors if id not in kept]
    assert (progress.computed, progress.failed_before) == (len(errors) - len(kept), len(kept))
    assert failures(store()) == dict.fromkeys(kept, "missing-element")

"""Reading a store: what was committed comes back exactly, each once, and never mixed."""

from __future__ import annotations

import shutil
from dataclasses import fields

import numpy as np
import pytest

from sorep.cells import canonical_cell
from sorep.errors import Failure, IdentityError, StoreError
from sorep.features import FeatureSpec, Window
from sorep.featurize import feature_identity
from sorep.identity import Identity
from sorep.spectrum import Spectrum
from sorep.store import FeatureStore
from sorep.store.schema import failure_row, structure_row
from sorep.store.tables import Tables

COARSER = Identity.of({"operator": "kinetic", "k_spacing": 0.4})
OVERLAP = Identity.of({"operator": "overlap", "k_spacing": 0.2})
WIDER = FeatureSpec(name="few", windows=(Window(start=0.0, stop=10.0, points=5),), width=2.0)


def commit_failure(filled, id: str, source: str, code: str = "time-limit", key: str = "", identity=None) -> None:
    failure = Failure(id, source, "spectrum", code, "what happened", "what to do", key)
    row = failure_row(failure, identity=(identity or filled.spectra).hash, run_id="run")
    filled.tables.append("failures", [row])


# Round trips


@pytest.mark.parametrize(
    ("band_counts", "others"),
    [
        (((4, 4, 4),), {}),
        (((4, 2, 3),), {"n_removed": 3, "flags": ("linear-dependence",)}),
        (((5, 5), (5, 5)), {"degeneracy": 1.0, "n_electrons": 7.0, "flags": ("odd-electrons", "another")}),
        (((1,),), {"degeneracy": 2.0, "n_electrons": 2.0}),
    ],
    ids=["uniform", "ragged", "two spins", "smallest"],
)
def test_a_spectrum_comes_back_exactly(filled, band_counts, others):
    structure = filled.structure("si")
    given = filled.spectrum(structure, band_counts, **others)
    filled.commit(structure, spectrum=given)
    back = filled.reader.spectrum("si")
    for field in fields(Spectrum):
        np.testing.assert_array_equal(getattr(back, field.name), getattr(given, field.name), err_msg=field.name)
        assert type(getattr(back, field.name)) is type(getattr(given, field.name))
    assert back.is_ragged == given.is_ragged
    ((key, operator, streamed),) = filled.reader.spectra(filled.spectra.hash, set())
    assert (key, operator) == (structure.content_key, "kinetic")
    np.testing.assert_array_equal(streamed.energies, given.energies)


def test_the_cell_of_the_calculation_is_stored(filled):
    structure = filled.structure("si")
    filled.commit(structure)
    cell = canonical_cell(structure)
    (row,) = filled.tables.read("spectra").to_pylist()
    assert row["cell_lattice"] == cell.structure.lattice.ravel().tolist()
    assert row["cell_numbers"] == cell.structure.numbers.tolist()
    assert row["cell_positions"] == cell.structure.positions.ravel().tolist()
    assert row["transformation"] == cell.transformation.ravel().tolist()
    assert row["rotation"] == cell.rotation.ravel().tolist()
    assert row["space_group"] == 227


def test_a_structure_comes_back_exactly(filled):
    given = filled.structure("a/b c:0", source="/data/x.cif#0")
    filled.commit(given)
    back = filled.reader.structure("a/b c:0")
    assert (back.id, back.source) == (given.id, given.source)
    assert back.content_key == given.content_key
    np.testing.assert_array_equal(back.lattice, given.lattice)
    np.testing.assert_array_equal(back.positions, given.positions)
    (row,) = filled.reader.structures().to_dict("records")
    assert row == {
        "id": given.id,
        "content_key": given.content_key,
        "source": given.source,
        "formula": "Si2",
        "n_atoms": 2,
    }
    assert filled.reader.elements() == [14]


def test_a_matrix_holds_the_vectors_of_all_ids_in_their_order(filled):
    names = ["b", "a:10", "a:9", "Z"]
    vectors = filled.commit(*(filled.structure(id, 5.0 + n) for n, id in enumerate(names)))
    matrix = filled.reader.matrix("few")
    assert matrix.ids.tolist() == sorted(names)
    expected = [vectors[names.index(id)] for id in sorted(names)]
    np.testing.assert_array_equal(matrix.values, expected)
    assert matrix.spec == filled.spec
    assert matrix.identity == feature_identity(filled.spectra, filled.spec)


def test_asked_for_ids_come_in_the_asked_for_order(filled):
    a, _, c = filled.commit(*(filled.structure(id, 5.0 + n) for n, id in enumerate("abc")))
    matrix = filled.reader.matrix("few", ids=["c", "a", "c"])
    assert matrix.ids.tolist() == ["c", "a", "c"]
    np.testing.assert_array_equal(matrix.values, [c, a, c])
    assert filled.reader.matrix("few", ids=[]).values.shape == (0, 5)


def test_a_frame_carries_the_identity(filled):
    filled.commit(filled.structure("b"), filled.structure("a", 5.0))
    matrix, frame = filled.reader.matrix("few"), filled.reader.frame("few")
    assert frame.index.name == "id"
    assert frame.index.tolist() == ["a", "b"]
    assert frame.columns.tolist() == ["+0.0000eV", "+2.5000eV", "+5.0000eV", "+7.5000eV", "+10.0000eV"]
    np.testing.assert_array_equal(frame.to_numpy(), matrix.values)
    assert frame.attrs["feature"] == "few"
    assert frame.attrs["identity"] == matrix.identity.hash
    assert frame.attrs["identity_words"] == matrix.identity.words
    assert frame.attrs["identity_words"]["k_spacing"] == 0.2


# Duplicates


def test_what_two_writers_committed_is_seen_once(filled):
    structures = [filled.structure("a"), filled.structure("b", 5.0)]
    first = filled.commit(*structures)
    filled.commit(*reversed(structures))
    for _ in range(2):
        commit_failure(filled, "c", "/data/c.cif")
    assert len(filled.tables.read("features")) == 4
    reader = filled.reader
    matrix = reader.matrix("few")
    assert matrix.ids.tolist() == ["a", "b"]
    np.testing.assert_array_equal(matrix.values, first)
    assert reader.structures()["id"].tolist() == ["a", "b"]
    assert reader.features()["n"].tolist() == [2]
    assert reader.ids_of(structures[0].content_key) == ["a"]
    keys = [key for key, _, _ in reader.spectra(filled.spectra.hash, set())]
    assert sorted(keys) == sorted(s.content_key for s in structures)
    assert reader.spectrum("a").n_atoms == 2
    assert reader.failures()["id"].tolist() == ["c"]


def test_two_names_share_one_vector(filled):
    structure = filled.structure("a")
    (vector,) = filled.commit(structure)
    filled.commit(filled.structure("twin"))
    matrix = filled.reader.matrix("few")
    assert matrix.ids.tolist() == ["a", "twin"]
    np.testing.assert_array_equal(matrix.values, [vector, vector])
    assert filled.reader.ids_of(structure.content_key) == ["a", "twin"]


def test_the_first_commit_of_an_id_counts_for_ever(filled):
    a = [filled.structure("a", 5.0 + n / 10, source=f"/data/{n}.cif") for n in range(4)]
    b, c = filled.structure("b", 4.0), filled.structure("c", 4.1)
    first, of_b = filled.commit(a[0], b)
    filled.commit(a[1])
    of_c, _ = filled.commit(c, a[2])
    filled.commit(a[3])
    reader = filled.reader
    np.testing.assert_array_equal(reader.matrix("few").values, [first, of_b, of_c])
    assert reader.content_keys() == {s.id: s.content_key for s in (a[0], b, c)}
    assert reader.structure("a").source == "/data/0.cif"
    assert reader.structures()["source"].tolist() == ["/data/0.cif", b.source, c.source]


def test_spectra_that_are_to_be_skipped_are(filled):
    a, b = filled.structure("a"), filled.structure("b", 5.0)
    filled.commit(a, b)
    skip = {a.content_key}
    assert [key for key, _, _ in filled.reader.spectra(filled.spectra.hash, skip)] == [b.content_key]
    assert skip == {a.content_key, b.content_key}
    assert list(filled.reader.spectra(COARSER.hash, set())) == []


# Identities


@pytest.fixture
def mixed(filled):
    """One feature name with four identities: two meshes, two operators, two widths."""
    structure = filled.structure("si")
    for spectra, spec in ((filled.spectra, filled.spec), (COARSER, filled.spec), (OVERLAP, filled.spec)):
        filled.commit(structure, spectra=spectra, spec=spec)
    filled.commit(structure, spec=WIDER)
    return filled


def test_identities_are_never_mixed(mixed):
    with pytest.raises(IdentityError) as caught:
        mixed.reader.matrix("few")
    assert caught.value.code == "mixed-identity"
    assert "4 identities" in caught.value.message
    assert "identity=" in caught.value.remedy


@pytest.mark.parametrize(
    ("spectra", "spec", "difference"),
    [
        (COARSER, None, "k_spacing: "),
        (OVERLAP, None, "operator: "),
        (None, WIDER, "feature.width: "),
    ],
)
def test_the_message_names_what_differs(filled, spectra, spec, difference):
    filled.commit(filled.structure("a"))
    filled.commit(filled.structure("a"), spectra=spectra or filled.spectra, spec=spec or filled.spec)
    with pytest.raises(IdentityError) as caught:
        filled.reader.matrix("few")
    assert caught.value.message.count(" against ") == 1  # only what differs
    assert difference in caught.value.message


def test_an_identity_chooses(mixed):
    for spectra, spec in ((mixed.spectra, mixed.spec), (COARSER, mixed.spec), (mixed.spectra, WIDER)):
        wanted = feature_identity(spectra, spec)
        matrix = mixed.reader.matrix("few", identity=wanted.hash[:9])
        assert matrix.identity == wanted
        assert matrix.spec.width == spec.width
        assert mixed.reader.spectrum_identity(matrix.identity) == spectra


def test_an_operator_chooses_where_that_is_enough(mixed):
    assert mixed.reader.matrix("few", operator="overlap").identity == feature_identity(OVERLAP, mixed.spec)
    with pytest.raises(IdentityError, match="3 identities"):
        mixed.reader.matrix("few", operator="kinetic")


def test_spectra_of_several_identities_need_a_choice(mixed):
    with pytest.raises(IdentityError) as caught:
        mixed.reader.spectrum("si")
    assert all(identity.hash in caught.value.message for identity in (mixed.spectra, COARSER, OVERLAP))
    assert mixed.reader.spectrum("si", operator="overlap").n_atoms == 2
    assert mixed.reader.spectrum("si", identity=COARSER.hash[:8]).n_atoms == 2
    assert set(mixed.reader.spectrum_identities()) == {mixed.spectra, COARSER, OVERLAP}
    assert mixed.reader.spectrum_identities("overlap") == [OVERLAP]


def test_the_store_tells_what_it_offers(mixed):
    offers = mixed.reader.features()
    assert offers.columns.tolist() == ["name", "operator", "identity", "n"]
    assert offers["operator"].tolist() == ["kinetic"] * 3 + ["overlap"]
    known = mixed.reader.identities()
    assert set(offers["identity"]) <= set(known)
    assert all(identity.hash == key for key, identity in known.items())


# Errors


def refusal(call) -> StoreError:
    with pytest.raises(StoreError) as caught:
        call()
    return caught.value


def test_a_folder_without_a_store_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "nothing"):
        error = refusal(lambda path=path: FeatureStore(path))
        assert error.code == "no-store"
        assert str(path) in error.message
    assert list(tmp_path.iterdir()) == []  # looking for a store makes none


def test_an_unknown_feature_is_refused_with_what_there_is(filled):
    filled.commit(filled.structure("a"))
    digits = feature_identity(filled.spectra, filled.spec).hash
    for choice in ({"feature": "fewer"}, {"operator": "overlap"}, {"identity": "zz"}):
        error = refusal(lambda choice=choice: filled.reader.matrix(**{"feature": "few", **choice}))
        assert error.code == "no-such-feature"
        assert next(iter(choice.values())) in error.message
        assert f"few (kinetic, {digits})" in error.remedy


def test_an_unknown_id_is_refused_by_name(filled):
    filled.commit(filled.structure("a"))
    for call in (
        lambda: filled.reader.matrix("few", ids=["a", "b", "c"]),
        lambda: filled.reader.spectrum("b"),
        lambda: filled.reader.spectrum("a", operator="overlap"),
        lambda: filled.reader.structure("b"),
    ):
        error = refusal(call)
        assert error.code == "no-such-id"
        assert "'b'" in error.message or "'a'" in error.message
    assert "2 ids" in refusal(lambda: filled.reader.matrix("few", ids=["a", "b", "c"])).message


def test_a_name_without_a_spectrum_is_not_in_the_matrix(filled):
    """What a kill between the commits of two tables leaves behind."""
    filled.commit(filled.structure("a"))
    filled.tables.append("structures", [structure_row(filled.structure("half", 5.0), "run")])
    assert filled.reader.matrix("few").ids.tolist() == ["a"]
    assert refusal(lambda: filled.reader.matrix("few", ids=["half"])).code == "no-such-id"
    assert refusal(lambda: filled.reader.spectrum("half")).code == "no-such-id"


def test_an_empty_store_is_a_store(filled):
    reader = filled.reader
    error = refusal(lambda: reader.matrix("few"))
    assert error.code == "no-such-feature"
    assert "holds none" in error.remedy
    for frame in (reader.structures(), reader.features(), reader.failures(), reader.runs()):
        assert len(frame) == 0
    assert reader.features().columns.tolist() == ["name", "operator", "identity", "n"]
    assert reader.elements() == []
    assert reader.identities() == reader.content_keys() == {}
    assert reader.spectrum_identities() == reader.data_references() == []
    assert refusal(lambda: reader.spectrum("a")).code == "no-such-id"


@pytest.mark.parametrize("damage", ["lost", "emptied", "log"])
def test_a_damaged_store_is_an_error_that_names_the_table(filled, damage):
    filled.commit(filled.structure("a"))
    (data,) = (filled.path / "features").rglob("*.parquet")
    if damage == "lost":
        data.unlink()
    elif damage == "emptied":
        data.write_bytes(b"")
    else:
        (filled.path / "features" / "_delta_log" / "00000000000000000001.json").write_text("{")
    error = refusal(lambda: filled.reader.matrix("few"))
    assert error.code == "unreadable-store"
    assert "table features" in error.message
    assert "\n" not in error.message
    assert filled.reader.spectrum("a").n_atoms == 2  # the other tables are not lost with it


def test_a_store_with_a_table_missing_is_not_taken_for_whole(filled):
    shutil.rmtree(filled.path / "runs")
    assert refusal(lambda: filled.reader).code == "no-store"


def test_making_a_store_again_keeps_what_is_in_it(filled):
    filled.commit(filled.structure("a"))
    Tables(filled.path, create=True)
    assert filled.reader.matrix("few").ids.tolist() == ["a"]


def test_a_store_cannot_be_made_of_a_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    error = refusal(lambda: Tables(path, create=True))
    assert error.code == "unwritable-store"
    assert str(path) in error.message


# Failures and runs


def open_failures(filled) -> list[tuple[str, str]]:
    return [(row["id"], row["code"]) for row in filled.reader.failures().to_dict("records")]


def test_a_failure_is_listed_with_all_its_words(filled):
    commit_failure(filled, "b", "/data/b.cif", key="some content")
    commit_failure(filled, "a", "/data/a.cif", code="unreadable-file")
    assert filled.reader.failures().to_dict("records")[1] == {
        "id": "b",
        "source": "/data/b.cif",
        "content_key": "some content",
        "identity": filled.spectra.hash,
        "stage": "spectrum",
        "code": "time-limit",
        "message": "what happened",
        "remedy": "what to do",
    }
    assert open_failures(filled) == [("a", "unreadable-file"), ("b", "time-limit")]


def test_a_later_success_settles_a_failure(filled):
    structure = filled.structure("a")
    commit_failure(filled, "a", structure.source, key=structure.content_key)
    commit_failure(filled, "a", structure.source, key=structure.content_key, identity=COARSER)
    filled.commit(structure)
    (row,) = filled.reader.failures().to_dict("records")
    assert row["identity"] == COARSER.hash  # that one has no result yet
    filled.commit(structure, spectra=COARSER)
    assert open_failures(filled) == []


def test_a_repaired_file_settles_its_failure(filled):
    structure = filled.structure("a")
    commit_failure(filled, "a", structure.source, code="unreadable-file")
    commit_failure(filled, "a", structure.source, code="atoms-too-close", key="what it was before")
    commit_failure(filled, "b", "/data/b.cif", code="unreadable-file")
    filled.commit(structure)
    assert open_failures(filled) == [("b", "unreadable-file")]


def test_a_taken_id_stays_listed_while_its_content_has_other_names_only(filled):
    one, other = filled.structure("a", 5.0), filled.structure("b", 5.5)
    filled.commit(one, other)
    # A third file is called "a" too; what is in it is known, as "b".
    commit_failure(filled, "a", "/data/more/a.cif", code="duplicate-id", key=other.content_key)
    # And the file of "b" was replaced by one with other content.
    commit_failure(filled, "b", other.source, code="duplicate-id", key=one.content_key)
    assert open_failures(filled) == [("a", "duplicate-id"), ("b", "duplicate-id")]
    filled.commit(filled.structure("renamed", 5.5, source="/data/more/a.cif"))
    assert open_failures(filled) == [("b", "duplicate-id")]


def test_a_run_tells_what_it_depended_on_and_how_it_ended(filled):
    finished, killed = filled.run(), filled.run(spectra=COARSER)
    finished.end("finished", 3, 1)
    runs = filled.reader.runs()
    assert runs["time"].is_monotonic_increasing
    events = [(row["run_id"], row["event"]) for row in runs.to_dict("records")]
    assert events == [(finished.run_id, "started"), (killed.run_id, "started"), (finished.run_id, "finished")]
    last = runs.to_dict("records")[-1]
    assert (last["n_done"], last["n_failed"], last["command"]) == (3, 1, "a test")
    assert {"sorep", "numpy", "pyscf"} <= dict(last["versions"]).keys()
    assert {filled.spectra.hash, COARSER.hash} <= filled.reader.identities().keys()

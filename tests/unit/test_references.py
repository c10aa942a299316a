"""What a store says must be cited: complete, once, and in BibTeX that parses."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from sorep.errors import PseudoError
from sorep.kinetic.basis import load_basis
from sorep.kinetic.method import KineticSettings
from sorep.outputs import Theory
from sorep.outputs.method import OutputsMethod
from sorep.references import ESPRESSO, EVERYWHERE, INTEGRALS, PAPER, store_references
from sorep.single_shot.executable import PwX
from sorep.single_shot.method import SingleShot, SingleShotSettings
from sorep.single_shot.pseudos import DEFAULT_FAMILY, read_manifest
from sorep.single_shot.runner import PwRunner
from sorep.store import FeatureStore
from sorep.store.runs import RunRecord
from sorep.store.schema import structure_row
from sorep.store.tables import Tables
from sorep.structure import Structure

MINE = """@dataset{mine2024,
    author = {Me, Myself {and} I},
    title = {Crystals},
    year = 2024
}"""

DEFAULT = (KineticSettings(),)


def key_of(entry: str) -> str:
    """The key, after checking that braces balance and that the entry ends where its first brace closes."""
    match = re.match(r"@(\w+)\{([^,\s]+),", entry)
    assert match, entry
    depth = 0
    for position, letter in enumerate(entry):
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if depth == 0 and position > match.end():
            assert entry[position + 1 :].strip() == "", entry
            break
    assert depth == 0, entry
    if match[1] != "dataset":
        assert re.search(r"(?mi)^\s*(author|editor)\s*=", entry), entry
        assert re.search(r"(?mi)^\s*title\s*=", entry), entry
        assert re.search(r"(?mi)^\s*year\s*=", entry), entry
    return match[2]


@pytest.fixture
def make(tmp_path: Path):
    """A store with structures of some elements, and a run for each settings."""

    def make(*numbers: int, settings=DEFAULT, references=()) -> FeatureStore:
        tables = Tables(tmp_path / "store", create=True)
        lattice, position = 4 * np.eye(3), np.zeros((1, 3))
        structures = [Structure(f"z{z}", lattice, np.array([z]), position) for z in numbers]
        tables.append("structures", [structure_row(structure, "run") for structure in structures])
        for options in settings:
            identity = options.identity()
            identities = {i.hash: i for i in (identity, identity.extended(feature={"width": 1.0}))}
            RunRecord.start(tables, "sorep", identities, references).end("finished", 1, 0)
        return FeatureStore(tmp_path / "store")

    return make


def keys(entries: list[str]) -> list[str]:
    found = [key_of(entry) for entry in entries]
    assert len(set(found)) == len(found), found
    return found


@pytest.mark.parametrize("basis", ["ano-ml-os", "ano-ml-ae", "ano-ml-os-published", "def2-svp", "sto-3g"])
def test_entries_are_bibtex_with_keys_of_their_own(make, basis):
    store = make(1, 8, 14, 26, 53, settings=[KineticSettings(basis=basis)], references=[MINE])
    entries, remarks = store_references(store)
    assert "mine2024" in keys(entries)
    assert remarks == []


def test_entries_are_what_a_bibtex_parser_reads(make):
    bibtexparser = pytest.importorskip("bibtexparser", minversion="1.4")
    if not hasattr(bibtexparser, "loads"):
        pytest.skip("another generation of bibtexparser")
    entries, _ = store_references(make(8, 14, 26, references=[MINE]))
    read = bibtexparser.loads("\n\n".join(entries).replace("@dataset", "@misc"))
    assert [entry["ID"] for entry in read.entries] == keys(entries)


def test_the_method_and_its_software_are_always_there(make):
    entries, remarks = store_references(make(14))
    assert entries[0] == PAPER
    assert {*EVERYWHERE.values(), *INTEGRALS.values()} <= set(entries)
    assert "10.1038/s41524-024-01446-9" in PAPER
    assert any("--references" in remark for remark in remarks)


def test_basis_papers_are_those_of_the_elements(make):
    basis = load_basis("ano-ml-os")
    entries, _ = store_references(make(8, 14))
    for number in (8, 14):
        assert basis.references[number]
        assert set(basis.references[number]) <= set(entries)
    others = set(basis.references[26]) - set(basis.references[8]) - set(basis.references[14])
    assert others
    assert not others & set(entries)
    assert set(entries) == {
        PAPER,
        *EVERYWHERE.values(),
        *INTEGRALS.values(),
        *basis.references[8],
        *basis.references[14],
    }


def test_another_basis_brings_its_own_papers(make):
    both = [KineticSettings(), KineticSettings(basis="def2-svp")]
    entries, _ = store_references(make(8, settings=both))
    assert set(load_basis("def2-svp").references[8]) <= set(entries)
    assert set(load_basis("ano-ml-os").references[8]) <= set(entries)
    keys(entries)


def test_data_references_of_all_runs_are_cited_once(make):
    second = MINE.replace("mine2024", "mine2025")
    entries, remarks = store_references(make(14, settings=[KineticSettings()] * 2, references=[MINE, second, MINE]))
    assert entries[-2:] == [MINE, second]
    assert remarks == []


def test_a_basis_file_is_the_users_to_cite(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = Path("mine.nw")
    own.write_text('BASIS "ao basis" SPHERICAL\nH S\n 1.0 1.0\nEND\n')
    store = make(1, settings=[KineticSettings(basis="mine.nw")], references=[MINE])
    entries, remarks = store_references(store)
    assert keys(entries)
    (remark,) = remarks
    assert "mine.nw" in remark
    assert "cite its source yourself" in remark
    own.unlink()  # the store outlives the file
    gone, remarks = store_references(store)
    assert gone == entries
    (remark,) = remarks
    assert "mine.nw" in remark
    assert "cite its source yourself" in remark


def test_an_empty_store_cites_the_method(tmp_path):
    Tables(tmp_path / "store", create=True)
    entries, _ = store_references(FeatureStore(tmp_path / "store"))
    assert entries == [PAPER, *EVERYWHERE.values()]


def test_kohn_sham_spectra_cite_the_code_and_the_pseudopotentials(make, tmp_path):
    pw_x = PwX(Path("pw.x"), (), True, "6.7")
    method = SingleShot(SingleShotSettings(), PwRunner(pw_x, tmp_path))
    try:
        method.identity()
    except PseudoError as error:
        pytest.skip(error.message)
    entries, remarks = store_references(make(14, settings=[method], references=[MINE]))
    family = read_manifest(DEFAULT_FAMILY)["references"]
    assert family
    assert set(entries) == {PAPER, *EVERYWHERE.values(), *ESPRESSO.values(), *family, MINE}
    assert len(keys(entries)) == len(entries)
    assert remarks == []


def test_spectra_of_others_are_the_users_to_cite(make):
    entries, remarks = store_references(make(14, settings=[OutputsMethod(Theory("vasp", "PBE", False))]))
    assert set(entries) == {PAPER, *EVERYWHERE.values()}
    assert any("'outputs' yourself" in remark for remark in remarks)

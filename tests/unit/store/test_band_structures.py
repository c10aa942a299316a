"""Band structures in a store: there and back, resumed without a second row, and kept apart."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from sorep.band_path import band_path
from sorep.bands import BandStructure
from sorep.cells import canonical_cell
from sorep.engine import SerialEngine
from sorep.errors import IdentityError, SpectrumError, StoreError
from sorep.featurize import featurize
from sorep.identity import Identity
from sorep.levels import Levels
from sorep.method import Calculation, Work
from sorep.sources import find_items
from sorep.spectrum import Spectrum
from sorep.store import FeatureStore, StoreWriter
from sorep.structure import Structure

LEVELS = Levels(1.0, 2.0, 1.5, False, ("odd-electrons",))


@dataclass(frozen=True)
class Toy:
    """A method with made-up bands: none for metals, of which aluminium is the only one, and germanium fails."""

    spacing: float = 0.4

    operator = "toy"
    counts_electrons = True
    longest_first = True
    follows_from_structure = True

    def identity(self) -> Identity:
        return Identity.of({"operator": "toy", "spacing": self.spacing})

    def estimate(self, structure: Structure) -> Work:
        return Work(1, 1, float(structure.n_atoms), 1.0)

    def calculate(self, structure: Structure) -> Calculation:
        if structure.formula.startswith("Ge"):
            raise SpectrumError("no", code="toy-failure", remedy="none")
        cell = canonical_cell(structure)
        spectrum = Spectrum(np.arange(4.0), [[2, 2]], np.eye(2, 3), [0.5, 0.5], structure.volume, structure.n_atoms)
        return Calculation(spectrum, cell, None if structure.formula.startswith("Al") else self.bands(structure))

    def bands(self, structure: Structure) -> BandStructure:
        cell = canonical_cell(structure)
        path = band_path(cell, self.spacing)
        energies = np.random.default_rng(structure.n_atoms).normal(size=(2, len(path), 3))
        return BandStructure(cell.structure, self.identity(), path, energies, 1.0, 8.0, LEVELS, ("folded-bands",))


@pytest.fixture
def inputs(tmp_path) -> Path:
    from ase.build import bulk
    from ase.io import write

    (tmp_path / "inputs").mkdir()
    crystals = {"si": bulk("Si"), "again": bulk("Si"), "al": bulk("Al"), "ge": bulk("Ge"), "c": bulk("C")}
    for name, atoms in crystals.items():
        write(tmp_path / "inputs" / f"{name}.vasp", atoms)
    return tmp_path / "inputs"


@pytest.fixture
def compute(inputs, tmp_path):
    def run(method: Toy = Toy(), **options):
        with SerialEngine() as engine:
            return featurize(list(find_items(inputs)), method, [], tmp_path / "store", engine, **options)

    return run


def same(one: BandStructure, other: BandStructure) -> None:
    for name in ("energies", "degeneracy", "n_electrons", "levels", "flags", "identity"):
        np.testing.assert_equal(getattr(one, name), getattr(other, name))
    assert one.path.segments == other.path.segments
    assert one.path.is_folded == other.path.is_folded
    for name in ("kpoints", "lattice", "distances"):
        np.testing.assert_array_equal(getattr(one.path, name), getattr(other.path, name))
    for name in ("lattice", "numbers", "positions"):
        np.testing.assert_array_equal(getattr(one.structure, name), getattr(other.structure, name))


def test_there_and_back(compute, inputs, tmp_path):
    progress = compute()
    assert (progress.computed, progress.shared, progress.failed) == (3, 1, 1)
    store = FeatureStore(tmp_path / "store")
    for name in ("si", "again", "c"):
        found = store.band_structure(name)
        same(found, Toy().bands(store.structure(name)))
        assert (found.structure.id, found.structure.source) == (name, str(inputs / f"{name}.vasp"))
    found.write(tmp_path / "bands.npz")
    same(BandStructure.read(tmp_path / "bands.npz"), found)


def test_missing_levels_stay_missing(filled):
    silicon = filled.structure("si")
    filled.commit(silicon)
    bands = replace(Toy().bands(silicon), identity=filled.spectra, levels=None, n_electrons=None)
    from sorep.store.schema import band_structure_row

    row = band_structure_row(bands, content_key=silicon.content_key, operator="kinetic", run_id="run")
    filled.tables.append("band_structures", [row])
    same(filled.reader.band_structure("si"), bands)


def test_what_there_is(compute, tmp_path):
    compute()
    frame = FeatureStore(tmp_path / "store").band_structures()
    assert frame["id"].tolist() == ["again", "c", "si"]  # no metal, no failure
    assert set(frame["operator"]) == {"toy"}
    assert set(frame["identity"]) == {Toy().identity().hash}
    assert frame["cbm"].tolist() == [2.0] * 3
    assert [list(flags) for flags in frame["flags"]] == [["folded-bands"]] * 3
    pairs = dict(FeatureStore(tmp_path / "store").bands_of(Toy().identity().hash))
    assert {bands.structure.formula for bands in pairs.values()} == {"Si2", "C2"}
    assert len(pairs) == 2


def test_a_metal_and_a_stranger_have_none(compute, tmp_path):
    compute()
    store = FeatureStore(tmp_path / "store")
    assert store.spectrum("al").n_atoms == 1
    for name in ("al", "ge", "nobody"):
        with pytest.raises(StoreError, match="no band structures of") as raised:
            store.band_structure(name)
        assert raised.value.code == "no-such-id"


def test_a_store_without_any_says_so(filled):
    filled.commit(filled.structure("si"))
    assert filled.reader.band_structures().empty
    assert list(filled.reader.bands_of(filled.spectra.hash)) == []
    with pytest.raises(StoreError, match="no band structures"):
        filled.reader.band_structure("si")


def test_identities_are_kept_apart(compute, tmp_path):
    compute()
    compute(Toy(0.2))
    store = FeatureStore(tmp_path / "store")
    with pytest.raises(IdentityError, match="2 identities"):
        store.band_structure("si")
    same(store.band_structure("si", identity=Toy(0.2).identity().hash[:6]), Toy(0.2).bands(store.structure("si")))
    assert len(store.band_structures()) == 6


def raw(store: Path, table: str) -> list[str]:
    return sorted(FeatureStore(store).tables.read(table, ["content_key"])["content_key"].to_pylist())


def test_a_second_run_adds_nothing(compute, tmp_path):
    compute()
    before = {table: raw(tmp_path / "store", table) for table in ("spectra", "band_structures", "failures")}
    progress = compute()
    assert (progress.computed, progress.stored_before, progress.failed_before) == (0, 4, 1)
    assert {table: raw(tmp_path / "store", table) for table in before} == before


def test_bands_that_lost_their_spectrum_are_not_written_twice(compute, tmp_path, monkeypatch):
    """A kill in the middle of a commit: after the bands, before the spectra."""
    with monkeypatch.context() as patch:
        tables = StoreWriter.__init__.__globals__["Tables"]
        append = tables.append

        def dying(self, name, rows):
            if name == "spectra" and rows:
                raise KeyboardInterrupt
            append(self, name, rows)

        patch.setattr(tables, "append", dying)
        with pytest.raises(KeyboardInterrupt):
            compute()
    store = tmp_path / "store"
    bands = raw(store, "band_structures")
    assert len(bands) == 2
    assert raw(store, "spectra") == []
    assert compute().computed == 3
    assert raw(store, "band_structures") == bands
    assert len(raw(store, "spectra")) == 3


def test_the_store_is_read_without_the_heavy_libraries():
    code = (
        "import sys, sorep.store; print([m for m in ('pymatgen', 'ase', 'matplotlib', 'seekpath') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"

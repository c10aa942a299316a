"""Gap and masses from stored calculations: mesh and lines together, metals, and what cannot be had."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sorep.band_path import BandPath, Segment
from sorep.bands import BandStructure
from sorep.cells import canonical_cell
from sorep.errors import IdentityError, StoreError
from sorep.identity import Identity
from sorep.levels import Levels
from sorep.screening.criteria import get_criteria
from sorep.screening.effective_mass import HBAR_SQUARED
from sorep.screening.stored import of_bands, store_properties
from sorep.spectrum import Spectrum
from sorep.store import FeatureStore, StoreWriter
from sorep.store.runs import RunRecord
from sorep.store.schema import band_structure_row, spectrum_row, structure_row
from sorep.store.tables import Tables
from sorep.structure import Structure

IDENTITY = Identity.of({"operator": "scf-bands", "line_spacing": 0.02})
CUBE = Structure("cube", 6.0 * np.eye(3), [3], [[0, 0, 0]])
END = np.pi / 6  # 1/Angstrom, of the zone


def bands(electron: float = 0.3, hole: float = 0.8, gap: float = 1.0, mesh: Levels | None = None) -> BandStructure:
    """Parabolas on one line from GAMMA, band edges there; the mesh's default is the same."""
    k = np.linspace(0, 0.5, 41)
    squares = HBAR_SQUARED * (2 * END * k) ** 2 / 2
    energies = np.stack([-squares / hole, gap + squares / electron, gap + 5 + squares], axis=1)[None]
    path = BandPath(CUBE.lattice, k[:, None] * [1.0, 0, 0], (Segment(("GAMMA", "X"), 0, len(k)),))
    levels = mesh or Levels(0.0, gap, gap / 2, False)
    return BandStructure(CUBE, IDENTITY, path, energies, 2.0, 2.0, levels)


def spectrum(energies: list[list[float]], n_electrons: float, *flags: str) -> Spectrum:
    counts = [[len(row) for row in energies]]
    kpoints = np.linspace(0, 0.5, len(energies))[:, None] * [1.0, 0, 0]
    weights = np.full(len(energies), 1 / len(energies))
    joined = np.concatenate(energies)
    return Spectrum(joined, counts, kpoints, weights, 216.0, 1, 2.0, n_electrons, flags=flags)


INSULATOR = spectrum([[0, 1, 6], [-1, 2, 7]], 2)
METAL = spectrum([[0, 1, 6], [2, 3, 7]], 2, "retried:diagonalization")
TOO_FEW = spectrum([[0.0], [2.0]], 3, "too-few-bands")


def test_masses_of_parabolas():
    found = of_bands(bands())
    assert found.gap == pytest.approx(1.0)
    assert found.electron_mass == pytest.approx(0.3, rel=1e-3)
    assert found.hole_mass == pytest.approx(0.8, rel=1e-3)


def test_the_gap_is_that_of_mesh_and_lines_together():
    inside = Levels(0.2, 0.9, 0.55, False)  # the mesh knows points that no line passes
    assert of_bands(bands(mesh=inside)).gap == pytest.approx(0.7)
    outside = Levels(-0.3, 1.4, 0.55, False)
    assert of_bands(bands(mesh=outside)).gap == pytest.approx(1.0)


def test_lines_that_close_the_gap_make_a_metal():
    found = of_bands(bands(gap=-0.2, mesh=Levels(-0.5, 0.3, -0.1, False)))
    assert (found.gap, found.flags) == (0.0, ("metal",))
    assert np.isnan([found.electron_mass, found.hole_mass]).all()


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    """An insulator under two names, one with a heavy electron, a metal, and one without enough bands."""
    contents = {
        "light": (4.0, INSULATOR, bands()),
        "heavy": (4.1, INSULATOR, bands(electron=3.0, hole=4.0)),
        "metal": (4.2, METAL, None),
        "unclear": (4.3, TOO_FEW, None),
    }
    return fill(tmp_path / "store", IDENTITY, contents)


def fill(path: Path, identity: Identity, contents: dict) -> FeatureStore:
    tables = Tables(path, create=True)
    writer, record = StoreWriter(tables), RunRecord.start(tables, "a test", {identity.hash: identity})
    for name, (a, levels, found) in contents.items():
        structure = Structure(name, a * np.eye(3), [3], [[0, 0, 0]], f"/data/{name}.cif")
        key = structure.content_key
        words = {"content_key": key, "operator": identity.words["operator"], "run_id": record.run_id}
        cell = canonical_cell(structure)
        writer.add("structures", [structure_row(one, record.run_id) for one in _named(structure)])
        writer.add("spectra", [spectrum_row(levels, cell, identity=identity.hash, cpu_seconds=1.0, **words)])
        if found is not None:
            writer.add("band_structures", [band_structure_row(replace(found, identity=identity), **words)])
    writer.flush()
    record.end("finished", len(contents), 0)
    return FeatureStore(path)


def _named(structure: Structure) -> list[Structure]:
    return [structure, replace(structure, id="again")] if structure.id == "light" else [structure]


def test_properties_of_a_store(store):
    found = store_properties(store)
    assert found.index.tolist() == ["again", "heavy", "light", "metal", "unclear"]
    assert found.loc["again"].tolist() == found.loc["light"].tolist()
    assert found["gap"].tolist()[:4] == pytest.approx([1, 1, 1, 0])
    assert found["electron_mass"].tolist()[:3] == pytest.approx([0.3, 3.0, 0.3], rel=1e-2)
    assert found.loc["metal", "flags"] == "metal,retried:diagonalization"
    assert found.loc["unclear", "flags"] == "too-few-bands"
    missing = found[["gap", "electron_mass", "hole_mass"]].isna()
    assert missing.loc["metal"].tolist() == [False, True, True]
    assert missing.loc["unclear"].all()


def test_labels_of_a_store(store):
    labels = get_criteria("transparent-conductor").apply(store_properties(store))
    assert labels.tolist()[:4] == [True, False, True, False]
    assert labels.isna().tolist() == [False, False, False, False, True]


def test_several_kinds_need_a_choice(store):
    other = Identity.of({"operator": "scf-bands", "line_spacing": 0.01})
    both = fill(store.path, other, {"light": (4.0, METAL, None)})
    with pytest.raises(IdentityError, match="line_spacing"):
        store_properties(both)
    assert store_properties(both, other.hash[:8]).loc["light", "gap"] == 0
    assert len(store_properties(both, IDENTITY.hash)) == 5


def test_a_store_without_calculations_says_how_to_make_them(tmp_path):
    kinetic = Identity.of({"operator": "kinetic"})
    store = fill(tmp_path / "store", kinetic, {"light": (4.0, METAL, None)})
    with pytest.raises(StoreError) as raised:
        store_properties(store)
    assert raised.value.code == "no-calculations"
    assert "sorep label --run" in raised.value.remedy

"""Reading structures: formats, identifiers, tables, and what each kind of damage costs."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import sqlite3
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk
from ase.db import connect
from ase.io import write as ase_write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymatgen.core import Lattice, Molecule
from pymatgen.core import Structure as PymatgenStructure
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.cif import CifWriter

from sorep.errors import Failure, StructureError, UsageError
from sorep.sources import Item, find_items, read_item, structures_from
from sorep.structure import Structure

CIF_HEAD = """\
data_{name}
_cell_length_a 4.2
_cell_length_b 4.2
_cell_length_c 4.2
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
"""
SITE_LOOP = """\
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
"""


def cif(*sites: str, name: str = "x", extra: str = "") -> str:
    rows = sites or ("Cs1 Cs 0 0 0 1", "Cl1 Cl 0.5 0.5 0.5 1")
    return CIF_HEAD.format(name=name) + extra + SITE_LOOP + "\n".join(rows) + "\n"


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        content = content.encode()
    path.write_bytes(content)
    return path


def read(*paths: Path, **options) -> list[Structure | Failure]:
    return list(structures_from(paths, **options))


def only_result(*paths: Path, **options) -> Structure | Failure:
    (result,) = read(*paths, **options)
    return result


def only(*paths: Path, **options) -> Structure:
    result = only_result(*paths, **options)
    assert isinstance(result, Structure), result
    return result


def refused(*paths: Path, **options) -> Failure:
    result = only_result(*paths, **options)
    assert isinstance(result, Failure), result
    assert result.stage == "read"
    assert result.remedy
    assert "\n" not in result.message
    return result


def codes(results: Iterable[Structure | Failure]) -> list[str]:
    return [result.code if isinstance(result, Failure) else "ok" for result in results]


def formulas(results: Iterable[Structure | Failure]) -> list[str]:
    return [result.formula for result in results if isinstance(result, Structure)]


def assert_same_crystal(one: Structure, other: Structure, tolerance: float = 1e-6) -> None:
    """Equal up to rotation, order of sites and lattice translations."""
    metric = one.lattice @ one.lattice.T
    np.testing.assert_allclose(other.lattice @ other.lattice.T, metric, rtol=0, atol=tolerance * metric.max())
    assert Counter(one.numbers) == Counter(other.numbers)
    for number, position in zip(one.numbers, one.positions, strict=True):
        shift = other.positions[other.numbers == number] - position
        shift -= np.round(shift)
        assert np.linalg.norm(shift @ other.lattice, axis=1).min() < tolerance


# One crystal in every format


@st.composite
def crystals(draw: st.DrawFn) -> PymatgenStructure:
    lengths = [draw(st.floats(3.5, 9.0)) for _ in range(3)]
    angles = [draw(st.floats(65.0, 115.0)) for _ in range(3)]
    corners = [[i, j, k] for i in (0.1, 0.6) for j in (0.1, 0.6) for k in (0.1, 0.6)]
    n_atoms = draw(st.integers(1, 8))
    shifts = [[draw(st.floats(0, 0.2)) for _ in range(3)] for _ in range(n_atoms)]
    species = [draw(st.sampled_from(["H", "O", "Si", "Fe", "Cs", "Pb"])) for _ in range(n_atoms)]
    positions = np.array(corners[:n_atoms]) + np.array(shifts)
    return PymatgenStructure(Lattice.from_parameters(*lengths, *angles), species, positions)


def write_everywhere(crystal: PymatgenStructure, folder: Path) -> list[Path]:
    atoms = Atoms(crystal.atomic_numbers, scaled_positions=crystal.frac_coords, cell=crystal.lattice.matrix, pbc=True)
    lattice, fractions = crystal.lattice.matrix, crystal.frac_coords
    numeric = {
        "lattice": lattice.tolist(),
        "species": [site.specie.symbol for site in crystal],
        "frac_coords": fractions.tolist(),
    }
    flat = {
        "cell": lattice.ravel().tolist(),
        "numbers": list(crystal.atomic_numbers),
        "positions": crystal.cart_coords.ravel().tolist(),
    }
    parameters = dict(zip(("a", "b", "c", "alpha", "beta", "gamma"), crystal.lattice.parameters, strict=True))
    text = str(CifWriter(crystal, significant_figures=12))
    files = {
        "pymatgen.cif": text,
        "pymatgen.json": json.dumps(crystal.as_dict()),
        "entry.json": json.dumps({"energy": -1.0, "structure": crystal.as_dict()}),
        "numeric.jsonl": json.dumps(numeric),
        "dictionary.jsonl": json.dumps(crystal.as_dict()),
        "cif.csv": pd.DataFrame({"cif": [text]}).to_csv(index=False),
        "numeric.csv": pd.DataFrame({name: [json.dumps(value)] for name, value in flat.items()}).to_csv(),
        "python.csv": pd.DataFrame({name: [value] for name, value in numeric.items()}).to_csv(),
    }
    paths = [put(folder / name, content) for name, content in files.items()]
    for name in ("ase.vasp", "ase.extxyz", "ase.json", "ase.db", "ase.traj"):
        paths.append(folder / name)
        paths[-1].unlink(missing_ok=True)
        ase_write(paths[-1], atoms)
    fractional = {"species": numeric["species"], "frac": fractions.ravel().tolist()}
    for name, row in {
        "numeric": flat,
        "parameters": parameters | fractional,
        "text": {"structure": json.dumps(crystal.as_dict())},
        "poscar": {"poscar": (folder / "ase.vasp").read_text()},
    }.items():
        paths.append(folder / f"{name}.parquet")
        pq.write_table(pa.Table.from_pylist([row]), paths[-1])
    return paths


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(crystals())
def test_every_format_gives_the_same_crystal(tmp_path: Path, crystal: PymatgenStructure) -> None:
    expected = Structure.from_pymatgen(crystal)
    for path in write_everywhere(crystal, tmp_path):
        assert_same_crystal(expected, only(path))


def test_symmetry_operations_of_a_cif_are_applied(tmp_path: Path) -> None:
    salt = PymatgenStructure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    CifWriter(salt, symprec=1e-3).write_file(tmp_path / "salt.cif")
    assert_same_crystal(Structure.from_pymatgen(salt), only(tmp_path / "salt.cif"))


def test_truncated_thirds_are_made_exact_only_where_symmetry_acts(tmp_path: Path) -> None:
    hexagonal = (
        "data_Mg\n_cell_length_a 3.2\n_cell_length_b 3.2\n_cell_length_c 5.2\n_cell_angle_alpha 90\n"
        "_cell_angle_beta 90\n_cell_angle_gamma 120\n"
    )
    site = SITE_LOOP + "Mg1 Mg 0.3333 0.6667 0.25 1\n"
    symmetric = hexagonal + "_symmetry_space_group_name_H-M 'P 63/m m c'\n" + site
    structure = only(put(tmp_path / "Mg.cif", symmetric))
    assert structure.n_atoms == 2
    assert np.isclose(structure.positions, 1 / 3, rtol=0, atol=1e-12).any()
    plain = only(put(tmp_path / "P1.cif", hexagonal + site))
    np.testing.assert_array_equal(plain.positions, [[0.3333, 0.6667, 0.25]])


def test_deuterium_is_hydrogen(tmp_path: Path) -> None:
    sites = ("D1 D 0 0 0 1", "T1 T 0.5 0.5 0.5 1", "O1 O2- 0.5 0 0 1")
    structure = only(put(tmp_path / "x.cif", cif(*sites, extra="_chemical_formula_sum 'H2 O'\n")))
    assert Counter(structure.numbers) == {1: 2, 8: 1}
    row = {"lattice": [4, 0, 0, 0, 4, 0, 0, 0, 4], "species": ["D", "Fe3+"], "frac": [0, 0, 0, 0.5, 0.5, 0.5]}
    assert list(only(put(tmp_path / "x.jsonl", json.dumps(row))).numbers) == [1, 26]


# Identifiers and sources


def test_single_structures_are_named_by_their_file(tmp_path: Path) -> None:
    poscar = tmp_path / "run1" / "POSCAR"
    poscar.parent.mkdir()
    ase_write(poscar, bulk("Si"), format="vasp")
    text = poscar.read_text()
    names = {
        put(tmp_path / "run2" / "CONTCAR", text): "run2",
        put(tmp_path / "run3" / "POSCAR.vasp", text): "run3",
        put(tmp_path / "POSCAR_diamond", text): "POSCAR_diamond",
        put(tmp_path / "Si.poscar", text): "Si",
        put(tmp_path / "mp-1.5.CIF", cif()): "mp-1.5",
        poscar: "run1",
    }
    for path, name in names.items():
        structure = only(path)
        assert (structure.id, structure.source) == (name, str(path))


def test_frames_blocks_and_rows_are_numbered(tmp_path: Path) -> None:
    frames = [bulk("Si"), bulk("Al"), bulk("Cu")]
    ase_write(tmp_path / "many.extxyz", frames)
    ase_write(tmp_path / "one.xyz", frames[0], format="extxyz")
    ase_write(tmp_path / "many.json", frames)
    ase_write(tmp_path / "many.traj", frames)
    ase_write(tmp_path / "base.db", frames)
    connect(tmp_path / "base.db").delete([2])
    publication = "data_global\n_journal_year 1999\n"
    put(tmp_path / "two.cif", publication + cif(name="same") + cif("Ar1 Ar 0 0 0 1", name="same"))
    put(tmp_path / "one.cif", publication + cif())
    put(tmp_path / "list.json", json.dumps([AseAtomsAdaptor.get_structure(a).as_dict() for a in frames]))  # type: ignore

    def ids(name: str) -> list[str]:
        return [structure.id for structure in read(tmp_path / name)]

    assert ids("many.extxyz") == ids("many.traj") == ["many:0", "many:1", "many:2"]
    assert ids("many.json") == ["many:1", "many:2", "many:3"]  # ASE numbers rows from one
    assert ids("one.xyz") == ids("one.cif") == ["one"]
    assert ids("base.db") == ["base:1", "base:3"]
    assert ids("two.cif") == ["two:0", "two:1"]
    assert ids("list.json") == ["list:0", "list:1", "list:2"]
    assert formulas(read(tmp_path / "many.extxyz")) == ["Si2", "Al", "Cu"]
    assert formulas(read(tmp_path / "two.cif")) == ["ClCs", "Ar"]
    assert read(tmp_path / "many.extxyz")[2].source == f"{tmp_path}/many.extxyz#2"


@pytest.mark.parametrize(
    ("columns", "option", "ids"),
    [
        ({"material_id": ["mp-1", "mp-2"]}, {}, ["mp-1", "mp-2"]),
        ({"name": ["a", "b"], "id": [7, 8]}, {}, ["7", "8"]),
        ({"JID": ["J1", None]}, {}, ["J1", "table:1"]),
        ({"parent": ["p", "q"], "id": [7, 8]}, {"id_column": "parent"}, ["p", "q"]),
        ({"gap": [1.0, 2.0]}, {}, ["table:0", "table:1"]),
    ],
)
@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_rows_are_named_by_their_column(tmp_path: Path, kind: str, columns: dict, option: dict, ids: list[str]) -> None:
    path = write_table(tmp_path, kind, pd.DataFrame(columns | {"cif": [cif(), cif()]}))
    results = read(path, **option)
    assert [structure.id for structure in results] == ids
    assert [structure.source for structure in results] == [f"{path}#0", f"{path}#1"]


def write_table(folder: Path, kind: str, frame: pd.DataFrame) -> Path:
    path = folder / f"table.{kind}"
    if kind == "parquet":
        frame.to_parquet(path, row_group_size=4)
    elif kind == "csv":
        frame.to_csv(path)  # with pandas's nameless column of row numbers
    else:
        frame.to_json(path, orient="records", lines=True)
    return path


# Refusals


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (cif("Fe1 Fe 0 0 0 0.5", "O1 O 0.5 0.5 0.5 1"), "partial-occupancy", ["Fe1", "Fe:0.5"]),
        (cif("Fe1 Fe 0 0 0 0.5", "Co1 Co 0 0 0 0.5"), "partial-occupancy", ["Fe:0.5", "Co:0.5"]),
        (cif("Fe1 Fe 0 0 0 1", "Co1 Co 0.00001 0 0 1"), "partial-occupancy", ["Fe", "Co"]),
        (cif("Fe1 Fe 0 0 0 1", "Va1 O 0.5 0 0 0"), "partial-occupancy", ["Va1"]),
        (cif("Fe1 Fe 0 0 0 1.2"), "partial-occupancy", ["Fe1"]),
        (cif("M1 '0.8Nb + 0.2Zr' 0 0 0 1"), "partial-occupancy", ["Nb", "Zr"]),
        (cif("Va1 Va 0 0 0 1", "Fe1 Fe 0.5 0.5 0.5 1"), "unknown-species", ["Va1"]),
        (cif("M1 Fe3+Ni2+ 0 0 0 1"), "unknown-species", ["Fe3+Ni2+"]),
        (cif("OH1 OH 0 0 0 1", "Fe1 Fe 0.5 0.5 0.5 1"), "unknown-species", ["OH1"]),
        (cif("Q1 Q 0 0 0 1"), "unknown-species", ["Q1"]),
        (cif("Fe1 Fe nan 0 0 1"), "non-finite", ["Fe1"]),
        (cif("Fe1 Fe ? 0 0 1"), "unreadable-file", ["Fe1", "x coordinate"]),
        (cif("Fe1 Fe . 0 0 1"), "unreadable-file", ["Fe1", "x coordinate"]),
        (cif().replace("_length_a 4.2", "_length_a inf"), "non-finite", ["inf"]),
        (cif().replace("_length_a 4.2", "_length_a 0"), "vanishing-volume", ["0.0"]),
        (cif().replace("_alpha 90", "_alpha 0"), "vanishing-volume", ["0.0"]),
        (cif().replace(" 90", " 150"), "vanishing-volume", ["150"]),
        (cif(extra="_symmetry_space_group_name_H-M 'F m -9 q'\n"), "unknown-symmetry", ["F m -9 q"]),
        (cif(extra="_chemical_formula_sum 'Cs1 Cl1 H4'\n"), "formula-mismatch", ["Cs1 Cl1 H4"]),
        (cif(extra="_chemical_formula_sum 'Cs2 Cl1'\n"), "formula-mismatch", ["Cs2 Cl1"]),
        (CIF_HEAD.format(name="x"), "empty-cell", []),
        (cif().replace("_cell_length_b 4.2\n", ""), "unreadable-file", []),
        (cif()[:-12], "unreadable-file", []),
        ("data_x\n_journal_year 1999\n", "no-structure", []),
        (cif(name="x_powder_pattern"), "no-structure", []),
        ("this is a letter\n", "unreadable-file", ["data_"]),
        ("", "no-structure", ["empty"]),
        (" \n\n", "no-structure", ["empty"]),
        (bytes(range(256)) * 8, "unreadable-file", ["binary"]),
        (cif().encode("utf-16"), "unreadable-file", ["binary"]),
    ],
)
def test_refused_cifs(tmp_path: Path, content: str | bytes, code: str, words: list[str]) -> None:
    failure = refused(put(tmp_path / "bad.cif", content))
    assert failure.code == code, failure
    assert (failure.id, failure.source) == ("bad", str(tmp_path / "bad.cif"))
    for word in words:
        assert word in failure.message


def test_a_truncated_cif_never_loses_atoms(tmp_path: Path) -> None:
    crystal = PymatgenStructure(Lattice.cubic(4.2), ["Cs", "Cl", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.125]])
    text = str(CifWriter(crystal)).rstrip()
    for length in range(1, len(text), 7):
        assert isinstance(only_result(put(tmp_path / "x.cif", text[:length])), Failure), text[:length][-60:]
    assert_same_crystal(Structure.from_pymatgen(crystal), only(put(tmp_path / "x.cif", text)))


def test_implicit_hydrogens_are_refused(tmp_path: Path) -> None:
    loop = SITE_LOOP.replace("_occupancy", "_attached_hydrogens")
    text = CIF_HEAD.format(name="x") + loop + "C1 C 0 0 0 3\n"
    assert refused(put(tmp_path / "x.cif", text)).code == "implicit-hydrogens"


def test_labels_alone_must_name_elements(tmp_path: Path) -> None:
    loop = SITE_LOOP.replace("_atom_site_type_symbol\n", "")
    head = CIF_HEAD.format(name="x")
    text = head + loop + "O1A 0 0 0 1\nCA2 0.5 0.5 0.5 1\n"
    assert Counter(only(put(tmp_path / "good.cif", text)).numbers) == {8: 1, 20: 1}
    assert refused(put(tmp_path / "bad.cif", head + loop + "Vac1 0 0 0 1\n")).code == "unknown-species"


def test_labels_that_can_be_read_in_two_ways_are_refused(tmp_path: Path) -> None:
    loop = SITE_LOOP.replace("_atom_site_type_symbol\n", "")
    failure = refused(put(tmp_path / "x.cif", CIF_HEAD.format(name="x") + loop + "NO3 0 0 0 1\n"))
    assert failure.code == "unreadable-file"
    assert "ambiguous" in failure.message  # nobelium, or a nitrate's nitrogen


def test_cif_with_a_site_outside_a_loop_is_refused(tmp_path: Path) -> None:
    site = "_atom_site_label Si1\n" + "".join(f"_atom_site_fract_{axis} 0\n" for axis in "xyz")
    assert refused(put(tmp_path / "x.cif", CIF_HEAD.format(name="x") + site)).code == "unreadable-file"


def test_latin_1_text_is_read(tmp_path: Path) -> None:
    text = "data_x\n_publ_author_name 'Schrödinger'\n" + cif().split("\n", 1)[1]
    assert only(put(tmp_path / "old.cif", text.encode("latin-1"))).formula == "ClCs"
    assert only(put(tmp_path / "marked.cif", text.encode("utf-8-sig"))).formula == "ClCs"


def test_one_bad_block_costs_one_structure(tmp_path: Path) -> None:
    results = read(put(tmp_path / "x.cif", cif() + cif("Fe1 Fe 0 0 0 0.5") + cif("Ar1 Ar 0 0 0 1")))
    assert codes(results) == ["ok", "partial-occupancy", "ok"]
    assert [result.id for result in results] == ["x:0", "x:1", "x:2"]


POSCAR = "x\n1.0\n4 0 0\n0 4 0\n0 0 4\n{species}\n{numbers}\nDirect\n0 0 0\n0.5 0.5 0.5\n"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (POSCAR.format(species="Cs Qq", numbers="1 1"), "unknown-species"),
        (POSCAR.format(species="Cs Cl", numbers="2"), "unreadable-file"),
        (POSCAR.format(species="Cs", numbers="3"), "unreadable-file"),
        (POSCAR.replace("\n{species}", "").format(numbers="1 1"), "unreadable-file"),
        (b"\x00\x01\x02" * 100, "unreadable-file"),
        (b"\xff\xfe\xfa" * 100, "unreadable-file"),
        ("", "no-structure"),
    ],
)
def test_refused_poscars(tmp_path: Path, content: str | bytes, code: str) -> None:
    assert refused(put(tmp_path / "run" / "POSCAR", content)).code == code
    if isinstance(content, str):
        table = put(tmp_path / "x.jsonl", json.dumps({"poscar": content}))
        assert refused(table).code == code


def test_vasp_4_files_take_species_from_the_comment_line(tmp_path: Path) -> None:
    text = POSCAR.replace("x\n", "Cs Cl\n", 1).replace("\n{species}", "").format(numbers="1 1")
    assert only(put(tmp_path / "POSCAR", text)).formula == "ClCs"
    row = json.dumps({"poscar": text})
    assert only(put(tmp_path / "x.jsonl", row)).formula == "ClCs"
    put(tmp_path / "POTCAR", "TITEL  = PAW_PBE Rb 08Apr2002\nTITEL  = PAW_PBE Br 08Apr2002\n")
    assert only(put(tmp_path / "POSCAR", text.replace("Cs Cl", "?"))).formula == "BrRb"


LATTICE = 'Lattice="4 0 0 0 4 0 0 0 4"'
FRAME = f"2\n{LATTICE}\nCs 0 0 0\nCl 2 2 2\n"


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (f"3\n{LATTICE}\nCs 0 0 0\nCl 2 2 2\n", "unreadable-file"),
        (f"1\n{LATTICE}\nCs 0 0 0\nCl 2 2 2\n", "unreadable-file"),
        (f"2\n{LATTICE}\nCs 0 0 0\nCl 2 2\n", "unreadable-file"),
        (f"2\n{LATTICE}\nCs 0 0 0\nCl 2 2 two\n", "unreadable-file"),
        ('2\nLattice="4 0 0 0 4 0 0"\nCs 0 0 0\nCl 2 2 2\n', "unreadable-file"),
        (f"2\n{LATTICE}\nCs 0 0 0\nQq 2 2 2\n", "unknown-species"),
        ("2\n\nCs 0 0 0\nCl 2 2 2\n", "not-periodic"),
        (f'2\n{LATTICE} pbc="T T F"\nCs 0 0 0\nCl 2 2 2\n', "not-periodic"),
        (f"2\n{LATTICE}\nCs 0 0 0\n", "unreadable-file"),
    ],
)
def test_a_damaged_frame_costs_itself_alone(tmp_path: Path, frame: str, code: str) -> None:
    assert refused(put(tmp_path / "one.xyz", frame)).code == code
    for place, frames in (("last", [FRAME, FRAME, frame]), ("middle", [FRAME, frame, FRAME])):
        path = put(tmp_path / f"{place}.extxyz", "".join(frames))
        results = read(path)
        expected = ["ok" if each == FRAME else code for each in frames]
        assert codes(results) == expected
        assert [result.id for result in results] == [f"{place}:{k}" for k in range(3)]
        assert [result.source for result in results] == [f"{path}#{k}" for k in range(3)]


def test_integers_that_are_comments_start_no_frame(tmp_path: Path) -> None:
    results = read(put(tmp_path / "x.xyz", "1\n7\nCs 0 0 0\n" * 2 + FRAME))
    assert codes(results) == ["not-periodic", "not-periodic", "ok"]


def test_xyz_without_frames(tmp_path: Path) -> None:
    assert refused(put(tmp_path / "a.xyz", "")).code == "no-structure"
    assert refused(put(tmp_path / "b.xyz", "hello\nworld\n")).code == "unreadable-file"
    assert refused(put(tmp_path / "c.xyz", b"\x80\x00\n" * 99)).code == "unreadable-file"
    results = read(put(tmp_path / "d.xyz", "hello\n" + FRAME))
    assert codes(results) == ["unreadable-file", "ok"]


def test_refused_json(tmp_path: Path) -> None:
    silicon = PymatgenStructure(Lattice.cubic(4), ["Cs", "Cl"], [[0, 0, 0], [0.5] * 3])
    disordered = PymatgenStructure(Lattice.cubic(4), [{"Fe": 0.5, "Co": 0.5}], [[0, 0, 0]])
    dummy = PymatgenStructure(Lattice.cubic(4), ["X"], [[0, 0, 0]])
    slab = PymatgenStructure(Lattice(np.eye(3) * 4, pbc=(True, True, False)), ["Cs"], [[0, 0, 0]])
    molecule = Molecule(["O"], [[0, 0, 0]])
    cases = {
        "partial-occupancy": disordered.as_dict(),
        "unknown-species": dummy.as_dict(),
        "not-periodic": slab.as_dict(),
        "no-structure": {"name": "package", "version": 1},
    }
    for code, content in cases.items():
        assert refused(put(tmp_path / "x.json", json.dumps(content))).code == code
    assert refused(put(tmp_path / "x.json", json.dumps(molecule.as_dict()))).code == "not-periodic"
    assert refused(put(tmp_path / "x.json", "[]")).code == "no-structure"
    assert refused(put(tmp_path / "x.json", "3")).code == "no-structure"
    assert refused(put(tmp_path / "x.json", "")).code == "no-structure"
    assert refused(put(tmp_path / "x.json", json.dumps(silicon.as_dict())[:-9])).code == "unreadable-file"
    assert refused(put(tmp_path / "x.json", "[" * 100_000)).code == "unreadable-file"
    mixed = [silicon.as_dict(), disordered.as_dict(), None, silicon.as_dict()]
    results = read(put(tmp_path / "x.json", json.dumps(mixed)))
    assert codes(results) == ["ok", "partial-occupancy", "no-structure", "ok"]


def test_molecules_in_ase_files_are_refused(tmp_path: Path) -> None:
    molecule = Atoms("H2", [[0, 0, 0], [0, 0, 0.74]])
    ase_write(tmp_path / "x.json", molecule)
    ase_write(tmp_path / "x.db", [bulk("Si"), molecule, bulk("Al")])
    assert refused(tmp_path / "x.json").code == "not-periodic"
    assert codes(read(tmp_path / "x.db")) == ["ok", "not-periodic", "ok"]


def test_damaged_databases(tmp_path: Path) -> None:
    assert refused(put(tmp_path / "text.db", "not a database " * 100)).code == "unreadable-file"
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection, connection:
        connection.execute("CREATE TABLE notes (text)")
    before = other.read_bytes()
    assert refused(other).code == "unreadable-file"
    assert other.read_bytes() == before
    rows = tmp_path / "rows.db"
    ase_write(rows, [bulk("Si"), bulk("Al"), bulk("Cu")])
    with closing(sqlite3.connect(rows)) as connection, connection:
        connection.execute("UPDATE systems SET positions = x'00' WHERE id = 2")
    results = read(rows)
    assert codes(results) == ["ok", "unreadable-file", "ok"]
    assert results[1].id == "rows:2"


# Tables


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_a_bad_row_costs_itself_alone(tmp_path: Path, kind: str, batch: int) -> None:
    texts: list[str | None] = [
        cif(f"{symbol}1 {symbol} 0 0 0 1") for symbol in ("Na", "K", "Rb", "Cs", "Cu", "Ag", "Au")
    ]
    texts[2], texts[5] = "rubbish", None
    path = write_table(tmp_path, kind, pd.DataFrame({"cif": texts}))
    items = list(find_items([path], batch=batch))
    results = [result for item in items for result in read_item(item)]
    assert codes(results) == ["ok", "ok", "unreadable-file", "ok", "ok", "no-structure", "ok"]
    assert [result.id for result in results] == [f"table:{row}" for row in range(7)]
    assert formulas(results) == ["Na", "K", "Cs", "Cu", "Au"]
    assert max(item.count or 0 for item in items) == min(batch, 4 if kind == "parquet" else 7)
    apart = [read_item(item) for item in items[::2]], [read_item(item) for item in items[1::2]]
    assert [formulas(group) for group in apart[0]] == [formulas(read_item(item)) for item in items[::2]]
    backwards = [result for item in items[::-1] for result in read_item(item)[::-1]]
    assert formulas(backwards[::-1]) == formulas(results)


def test_malformed_lines(tmp_path: Path) -> None:
    text = json.dumps(cif())
    lines = f'\n{{"cif": {text}}}\n{{"cif": \n[1]\n\n{{"cif": {text}, "gap": 1}}\n'
    assert codes(read(put(tmp_path / "x.jsonl", lines))) == ["ok", *["unreadable-file"] * 2, "ok"]
    quoted = '"' + cif().replace('"', '""') + '"'
    rows = f"name,cif\na,{quoted}\nb\n\nc,{quoted},9\nd,{quoted}\n"
    results = read(put(tmp_path / "x.csv", rows))
    assert codes(results) == ["ok", *["unreadable-file"] * 2, "ok"]
    assert [result.id for result in results] == ["a", "x:1", "x:2", "d"]


def numeric_rows() -> list[dict]:
    good = {"id": "good", "lattice": [4, 0, 0, 0, 4, 0, 0, 0, 4], "species": ["Cs"], "frac": [0, 0, 0]}
    return [
        good,
        good | {"id": "short", "lattice": [4, 0, 0]},
        good | {"id": "species", "species": ["Qq"]},
        good | {"id": "vacancy", "species": ["Fe0.5Co0.5"]},
        good | {"id": "counts", "species": ["Cs", "Cl"]},
        good | {"id": "empty", "frac": None},
        good | {"id": "last"},
    ]


NUMERIC_CODES = [
    "ok",
    "malformed-structure",
    "unknown-species",
    "unknown-species",
    "malformed-structure",
    "no-structure",
    "ok",
]


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_bad_numeric_rows(tmp_path: Path, kind: str) -> None:
    results = read(write_table(tmp_path, kind, pd.DataFrame(numeric_rows())))
    assert codes(results) == NUMERIC_CODES
    assert [result.id for result in results] == [row["id"] for row in numeric_rows()]


def test_cell_parameters_that_are_no_cell(tmp_path: Path) -> None:
    good = {"a": 4, "b": 4, "c": 4, "alpha": 90, "beta": 90, "gamma": 90, "species": ["Cs"], "frac": [0, 0, 0]}
    rows = [good, good | {"alpha": 0}, good | {"a": float("inf")}, good | {"b": "long"}, good | {"c": None}]
    results = read(put(tmp_path / "x.jsonl", "\n".join(map(json.dumps, rows))))
    assert codes(results) == ["ok", "vanishing-volume", "non-finite", "unreadable-file", "no-structure"]


def test_numbers_that_make_no_crystal_are_left_to_validation(tmp_path: Path) -> None:
    row = {"cell": [4, 0, 0, 0, 4, 0, 0, 0, 4], "symbols": ["Cs"], "positions": [0, 0, 0]}
    for change, code in (
        ({"cell": [4, 0, 0, 4, 0, 0, 0, 0, 4]}, "vanishing-volume"),
        ({"positions": [0, 0, float("nan")]}, "non-finite"),
        ({"symbols": [], "positions": []}, "empty-cell"),
    ):
        structure = only(put(tmp_path / "x.jsonl", json.dumps(row | change)))
        with pytest.raises(StructureError) as raised:
            structure.validate()
        assert raised.value.code == code


def test_long_fields_of_a_csv(tmp_path: Path) -> None:
    text = "# padding\n" * 20_000 + cif()
    assert only(write_table(tmp_path, "csv", pd.DataFrame({"cif": [text]}))).formula == "ClCs"


def test_tables_that_are_not_utf_8(tmp_path: Path) -> None:
    frame = pd.DataFrame({"cif": ["# Schrödinger\n" + cif()]})
    assert only(put(tmp_path / "x.csv", frame.to_csv().encode("latin-1"))).formula == "ClCs"
    line = json.dumps({"cif": frame["cif"][0]}, ensure_ascii=False)
    assert only(put(tmp_path / "x.jsonl", line.encode("latin-1"))).formula == "ClCs"


def test_structure_column_can_be_named(tmp_path: Path) -> None:
    frame = pd.DataFrame({"cif": [cif()], "relaxed": [cif("Ar1 Ar 0 0 0 1")]})
    for kind in ("parquet", "csv", "jsonl"):
        path = write_table(tmp_path, kind, frame)
        assert only(path).formula == "ClCs"
        assert only(path, structure_column="relaxed").formula == "Ar"
        with pytest.raises(UsageError, match="cif, relaxed") as raised:
            find_items([path], structure_column="absent")
        assert raised.value.code == "missing-column"
        with pytest.raises(UsageError, match="'number'"):
            find_items([path], id_column="number")


def test_several_structures_in_a_row_are_refused(tmp_path: Path) -> None:
    assert "2 structures" in refused(put(tmp_path / "x.jsonl", json.dumps({"cif": cif() * 2}))).message


def test_tables_without_rows_or_structures(tmp_path: Path) -> None:
    for kind in ("parquet", "csv", "jsonl"):
        empty = write_table(tmp_path, kind, pd.DataFrame({"cif": pd.Series([], dtype=str)}))
        assert refused(empty).code == "no-structure"
        table = write_table(tmp_path, kind, pd.DataFrame({"gap": [1.0], "formula": ["Si"]}))
        with pytest.raises(UsageError, match="gap, formula") as raised:
            find_items([put(tmp_path / "good.cif", cif()), table])
        assert raised.value.code == "missing-column"
        table.unlink()
    damaged = put(tmp_path / "x.parquet", b"PAR1" + b"\x00rubbish" * 50)
    assert refused(damaged).code == "unreadable-file"
    assert refused(put(tmp_path / "x.jsonl", "one\ntwo\n")).code == "unreadable-file"


def test_a_damaged_row_group_costs_its_own_rows(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    frame = pd.DataFrame({"id": [f"m{i}" for i in range(12)], "cif": [cif(name=f"n{i}") for i in range(12)]})
    frame.to_parquet(path, row_group_size=4, compression="zstd")
    column = pq.ParquetFile(path).metadata.row_group(1).column(1)
    content = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    for offset in range(start, start + column.total_compressed_size):
        content[offset] ^= 0xFF
    path.write_bytes(content)
    results = [result for item in find_items([path], batch=3) for result in read_item(item)]
    assert codes(results) == ["ok"] * 4 + ["unreadable-file"] * 4 + ["ok"] * 4
    assert [result.id for result in results[4:8]] == [f"x:{row}" for row in range(4, 8)]


# Paths


@pytest.fixture
def library(tmp_path: Path) -> Path:
    put(tmp_path / "b.cif", cif())
    put(tmp_path / "a" / "deep" / "c.CIF", cif())
    put(tmp_path / "a" / "d.xyz", FRAME)
    put(tmp_path / "a" / "run" / "POSCAR", POSCAR.format(species="Cs Cl", numbers="1 1"))
    put(tmp_path / "a" / "notes.txt", "nothing here")
    put(tmp_path / ".hidden" / "e.cif", cif())
    put(tmp_path / "a" / "._d.cif", cif())
    return tmp_path


def ids_below(*paths: str | Path) -> list[str]:
    return [result.id for result in structures_from(paths)]


def test_folders_are_searched_in_order(library: Path) -> None:
    assert ids_below(library) == ["d", "c", "run", "b"]
    assert ids_below(library / "b.cif", library / "a" / "run") == ["b", "run"]
    assert [result.id for result in structures_from(str(library / "a"))] == ["d", "c", "run"]


def test_patterns(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ids_below(f"{library}/*.cif") == ["b"]
    assert sorted(ids_below(f"{library}/**")) == ["b", "c", "d", "run"]
    assert ids_below(f"{library}/a/d*") == ["d", "c"]  # a file and a folder
    monkeypatch.chdir(library)
    assert ids_below("a/*.xyz") == ["d"]
    assert ids_below("b.cif") == ["b"]
    put(library / "x[1].cif", cif())
    assert ids_below("x[1].cif") == ["x[1]"]


def test_links(library: Path) -> None:
    (library / "a" / "up").symlink_to(library)
    (library / "a" / "alias.cif").symlink_to(library / "b.cif")
    (library / "a" / "broken.cif").symlink_to(library / "nowhere.cif")
    results = read(library)
    assert [result.id for result in results] == ["alias", "broken", "d", "c", "run", "b"]
    assert codes(results) == ["ok", "unreadable-file", "ok", "ok", "ok", "ok"]


def test_a_table_of_something_else_in_a_folder_is_a_failure(library: Path) -> None:
    put(library / "targets.csv", "id,gap\nb,1.0\n")
    failure = read(library)[-1]
    assert isinstance(failure, Failure)
    assert (failure.id, failure.code, failure.stage) == ("targets", "missing-column", "read")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_closed_folder_is_a_failure(library: Path) -> None:
    (library / "a").chmod(0)
    try:
        assert codes(read(library)) == ["unreadable-file", "ok"]
    finally:
        (library / "a").chmod(0o755)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("absent.cif", "no-such-input"),
        ("absent/*.cif", "no-structures-found"),
        ("empty", "no-structures-found"),
        ("*.txt", "no-structures-found"),
    ],
)
def test_nothing_to_read(tmp_path: Path, path: str, code: str) -> None:
    put(tmp_path / "empty" / "notes.txt", "nothing here")
    put(tmp_path / "notes.txt", "nothing here")
    with pytest.raises(UsageError, match=path.replace("*", r"\*")) as raised:
        find_items([put(tmp_path / "good.cif", cif()), tmp_path / path])
    assert raised.value.code == code
    assert "*.cif" in raised.value.remedy


def test_no_input_and_no_batch(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no input"):
        find_items([])
    with pytest.raises(UsageError, match="batches of 0"):
        find_items([put(tmp_path / "x.cif", cif())], batch=0)


def test_files_of_other_names_are_left_to_ase(tmp_path: Path) -> None:
    ase_write(tmp_path / "si.xsf", bulk("Si"))
    assert only(tmp_path / "si.xsf").formula == "Si2"
    assert refused(put(tmp_path / "notes.txt", "nothing here")).code == "unreadable-file"
    # A CIF in disguise, from which ASE would drop the minority species.
    mixed = cif("Fe1 Fe 0 0 0 0.7", "Co1 Co 0 0 0 0.3")
    assert refused(put(tmp_path / "x.cif.gz", gzip.compress(mixed.encode()))).code == "partial-occupancy"
    assert only(put(tmp_path / "y.cif.gz", gzip.compress(cif().encode()))).formula == "ClCs"


def test_items_are_small_and_travel(tmp_path: Path) -> None:
    ase_write(tmp_path / "many.extxyz", [bulk("Si")] * 100)
    items = list(find_items([tmp_path], batch=30))
    assert [(item.first, item.count) for item in items] == [(0, 30), (30, 30), (60, 30), (90, 10)]
    sent = [pickle.dumps(item) for item in items]
    assert max(map(len, sent)) < 1000
    received = [result for item in sent for result in read_item(pickle.loads(item))]
    assert [result.id for result in received] == [f"many:{k}" for k in range(100)]
    assert all(isinstance(item, Item) for item in items)


def test_file_that_vanished_is_a_failure(tmp_path: Path) -> None:
    paths = [put(tmp_path / "x.cif", cif()), put(tmp_path / "x.jsonl", json.dumps({"cif": cif()}) * 1)]
    items = list(find_items(paths))
    for path in paths:
        path.unlink()
    assert [codes(read_item(item)) for item in items] == [["unreadable-file"], ["unreadable-file"]]


def shared_tables() -> list[Path]:
    shared = Path(os.environ.get("SOREP_SHARED", Path(__file__).parents[3] / "shared"))
    return sorted((shared / "data" / "polymorphs").glob("*.parquet"))


@pytest.mark.skipif(not shared_tables(), reason="shared data not present")
@pytest.mark.parametrize("path", shared_tables(), ids=lambda path: path.stem)
def test_published_tables_are_read(path: Path) -> None:
    items = find_items([path], batch=20)
    for result in read_item(next(items)):
        assert isinstance(result, Structure), result
        result.validate()

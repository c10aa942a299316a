"""Structure files: how each format is cut into items, and how an item becomes entries.

CIF and pymatgen JSON are read by pymatgen, everything else by ASE. ASE never sees a CIF: it drops the
minority species of partially occupied sites without a word.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import partial
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

from sorep.errors import StructureError
from sorep.sources.cif import cif_blocks, parse_cif_block
from sorep.sources.item import (
    Entry,
    Item,
    Options,
    batches,
    decode,
    no_structure,
    unknown_species,
    unreadable,
)


def whole_file(path: str, format: str, options: Options) -> Iterator[Item]:
    """One item for the file, whatever it holds; reads nothing."""
    yield Item(path, format)


def read_cif(item: Item) -> Iterator[Entry]:
    yield from _cif_entries(item, Path(item.path).read_bytes())


def _cif_entries(item: Item, content: bytes) -> Iterator[Entry]:
    blocks = cif_blocks(decode(content))
    for index, block in enumerate(blocks):
        yield item.entry(partial(parse_cif_block, block), key=index if len(blocks) > 1 else None)


def read_poscar(item: Item) -> Iterator[Entry]:
    text = decode(Path(item.path).read_bytes())
    yield item.entry(partial(parse_poscar, text, path=item.path))


def parse_poscar(text: str, path: str | None = None) -> Any:
    """The `ase.Atoms` of a POSCAR; ``path`` lets VASP 4 files find their POTCAR or OUTCAR."""
    lines = [line.split("!")[0].split() for line in text.splitlines()[5:7]]
    if len(lines) == 2 and lines[0] and not lines[0][0].isdigit() and len(lines[0]) != len(lines[1]):
        raise unreadable(f"{len(lines[0])} species but {len(lines[1])} numbers of atoms")
    file = StringIO(text)
    if path is not None:
        file.name = path  # type: ignore[attr-defined]
    try:
        return _ase_read(file, "vasp")
    except AttributeError:  # ASE looked for the name, to find a POTCAR next to the file
        if path is not None:
            raise
        raise unreadable("no species are named", "add the line of symbols that VASP 5 writes") from None


def split_xyz(path: str, format: str, options: Options) -> Iterator[Item]:
    """Frame ranges of an (extended) XYZ file, with the bytes they occupy."""
    with Path(path).open("rb") as file:
        starts = list(_frame_starts(file))
    size = Path(path).stat().st_size
    if len(starts) < 2:
        yield Item(path, format, start=0, stop=size)
        return
    starts.append(size)
    for first, number in batches(len(starts) - 1, options.batch):
        yield Item(path, format, first, number, starts[first], starts[first + number])


def read_xyz(item: Item) -> Iterator[Entry]:
    content = item.content()
    if item.count is None:
        yield item.entry(partial(_parse_xyz, content))
        return
    starts = [*_frame_starts(content.splitlines(keepends=True)), len(content)]
    for index, (start, stop) in enumerate(pairwise(starts), item.first):
        yield item.entry(partial(_parse_xyz, content[start:stop]), key=index)


def _frame_starts(lines: Iterable[bytes]) -> Iterator[int]:
    """Offsets of the lines that announce a number of atoms.

    Frames are told apart by these lines, not by counting atoms, so that a frame with lines missing or
    left over cannot swallow the next. Anything before the first such line is a (damaged) frame too.
    """
    position, started, is_comment = 0, False, False
    for line in lines:
        announces = not is_comment and line.strip().isdigit()
        if announces or not (started or line.isspace()):
            started = True
            yield position
        is_comment = announces
        position += len(line)


def _parse_xyz(content: bytes) -> Any:
    text = decode(content)
    lines = text.strip().splitlines()
    if not lines[0].strip().isdigit():
        raise unreadable(f"a number of atoms was expected, not {lines[0].strip()[:60]!r}")
    rows = max(len(lines) - 2, 0)
    if int(lines[0]) != rows:
        raise unreadable(f"{int(lines[0])} atoms announced, {rows} lines found")
    return _ase_read(StringIO(text.lstrip()), "extxyz")


def split_database(path: str, format: str, options: Options) -> Iterator[Item]:
    """Row ranges of an ASE database in SQLite."""
    with closing(_connect(path)) as connection:
        (total,) = connection.execute("SELECT COUNT(*) FROM systems").fetchone()
    if not total:
        yield Item(path, format, 0, 0)
    for first, number in batches(total, options.batch):
        yield Item(path, format, first, number)


def read_database(item: Item) -> Iterator[Entry]:
    from ase.db import connect

    query = "SELECT id FROM systems ORDER BY id LIMIT ? OFFSET ?"
    with closing(_connect(item.path)) as connection:
        ids = [row[0] for row in connection.execute(query, (item.count, item.first))]
    database: Any = connect(item.path, type="db", use_lock_file=False)
    with database:  # one connection, not one a row
        for row_id in ids:
            yield item.entry(lambda row_id=row_id: database.get(id=row_id).toatoms(), key=row_id)


def _connect(path: str) -> sqlite3.Connection:
    # Read-only, and before ASE, which would create its tables in any other SQLite file.
    return sqlite3.connect(f"{Path(path).as_uri()}?mode=ro", uri=True)


def read_json(item: Item) -> Iterator[Entry]:
    text = decode(Path(item.path).read_bytes())
    content = json.loads(text)
    if isinstance(content, dict) and _is_ase_database(content):
        content = _ase_decode(text)
        row_ids = content.get("ids", [1])
        for row_id in row_ids:
            parse = partial(_parse_ase_row, content, row_id)
            yield item.entry(parse, key=int(row_id) if len(row_ids) > 1 else None)
        return
    structures = content if isinstance(content, list) else [content]
    for index, structure in enumerate(structures):
        yield item.entry(partial(parse_json, structure), key=index if len(structures) > 1 else None)


def parse_json(content: Any) -> Any:
    """The structure in pymatgen's dictionary (or an entry's, under ``structure``) or in ASE's encoding."""
    if isinstance(content, dict) and isinstance(content.get("structure"), dict):
        content = content["structure"]
    if not isinstance(content, dict):
        raise no_structure(f"JSON of type {type(content).__name__} where a structure was expected")
    if content.get("__ase_objtype__") == "atoms":
        return _ase_decode(json.dumps(content))
    if "sites" in content and content.get("lattice"):
        from pymatgen.core import Structure

        return Structure.from_dict(content)
    if "sites" in content:
        raise StructureError("a molecule, without a lattice", code="not-periodic", remedy="give a crystal")
    raise no_structure(f"no structure in JSON with the keys {', '.join(content)[:200]}")


def _is_ase_database(content: dict[str, Any]) -> bool:
    return "ids" in content or (isinstance(content.get("1"), dict) and "numbers" in content["1"])


def _ase_decode(text: str) -> Any:
    from ase.io.jsonio import decode

    return decode(text)


def _parse_ase_row(content: dict[Any, Any], row_id: int) -> Any:
    from ase.db.row import AtomsRow

    return AtomsRow(content[row_id]).toatoms()


def read_espresso(item: Item) -> Iterator[Entry]:
    from sorep.outputs.espresso import read_structure

    yield item.entry(partial(read_structure, item.path))


def read_vasprun(item: Item) -> Iterator[Entry]:
    from sorep.outputs.vasp import read_structure

    yield item.entry(partial(read_structure, item.path))


def read_other(item: Item) -> Iterator[Entry]:
    """A file of unknown name, left to ASE's own detection; whatever turns out to be a CIF is not."""
    from ase.io import iread
    from ase.io.formats import filetype, open_with_compression

    format = filetype(item.path)
    if format == "cif":  # compressed, or its name would have been known
        with open_with_compression(item.path, "rb") as file:
            yield from _cif_entries(item, file.read())
        return
    frames: list[Any] = []
    error = None
    try:
        frames.extend(iread(item.path, index=":", format=format))
    except Exception as caught:  # frames before a damaged one are kept
        error = caught
    for index, frame in enumerate(frames):
        yield item.entry(partial(_itself, frame), key=index if error or len(frames) > 1 else None)
    if error:
        raise error


def _itself(structure: Any) -> Any:
    return structure


def _ase_read(file: StringIO, format: str) -> Any:
    from ase.io import read

    try:
        return read(file, format=format, index=0)
    except KeyError as error:
        # Atoms() looks symbols up in a dictionary.
        if re.fullmatch(r"[A-Z][a-z]{0,2}", str(error.args[0])):
            raise unknown_species(f"{error.args[0]} is not an element") from None
        raise

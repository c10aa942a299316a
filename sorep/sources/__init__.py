"""Reading structures: from paths to `Structure` or `Failure`, one for each structure there is.

Two steps, so that slow or hanging parsers can run in worker processes. `find_items` looks at names, sizes
and record boundaries only and yields small `Item` objects; `read_item` parses one of them and never raises
for what the file holds. Validation (overlapping atoms, vanishing volume) comes after, with
`sorep.structure.Structure.validate`.

Identifiers: the file's stem; ``stem:0``, ``stem:1``, ... for the frames of a file or the data blocks of a CIF
that holds several; a table's id column, else ``stem:row``; ``stem:rowid`` in an ASE database.

Outputs of calculations are called alike in all folders. Their identifier is the path below the deepest folder that
holds all input, without ``data-file-schema.xml``, ``vasprun.xml`` and ``.save``: ``17/out/pwscf`` for
``runs/17/out/pwscf.save/data-file-schema.xml`` where ``runs``, or that file and others next to it, are given. One that
lies in that deepest folder itself takes its name: ``silicon`` for ``silicon.save/data-file-schema.xml`` alone.
"""

from __future__ import annotations

import glob
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path
from typing import Any

from sorep.errors import Failure, UsageError
from sorep.outputs import program_of
from sorep.sources import files, tables
from sorep.sources.item import Entry, Item, Options, as_failure, no_structure
from sorep.structure import Structure

__all__ = ["FORMATS", "Format", "Item", "find_items", "read_item", "structures_from"]


@dataclass(frozen=True)
class Format:
    """How files of some names are cut into items (in the parent) and items into entries (in a worker).

    ``patterns`` are compared with lower-case file names; the first format that matches is taken. An output holds a
    spectrum besides its structure.
    """

    patterns: tuple[str, ...]
    read: Callable[[Item], Iterator[Entry]]
    split: Callable[[str, str, Options], Iterator[Item]] = files.whole_file
    is_output: bool = False


FORMATS = {
    "cif": Format(("*.cif", "*.mcif"), files.read_cif),
    "xyz": Format(("*.xyz", "*.extxyz"), files.read_xyz, files.split_xyz),
    "json": Format(("*.json",), files.read_json),
    "ase-db": Format(("*.db",), files.read_database, files.split_database),
    "parquet": Format(("*.parquet",), tables.read_parquet, tables.split_parquet),
    "csv": Format(("*.csv",), tables.read_csv, tables.split_csv),
    "json-lines": Format(("*.jsonl", "*.ndjson"), tables.read_json_lines, tables.split_json_lines),
    "poscar": Format(("*.vasp", "*.poscar", "poscar", "contcar", "poscar[._-]*", "contcar[._-]*"), files.read_poscar),
    "espresso": Format(
        ("data-file-schema.xml", "data-file-schema.xml.gz"), files.read_espresso, files.whole_file, is_output=True
    ),
    "vasprun": Format(("*vasprun*.xml*",), files.read_vasprun, files.whole_file, is_output=True),
    "other": Format((), files.read_other),
}


_WHAT_IS_READ = "give files, folders or patterns; names read in folders are " + ", ".join(
    pattern for description in FORMATS.values() for pattern in description.patterns
)


def find_items(
    paths: str | Path | Iterable[str | Path],
    *,
    id_column: str | None = None,
    structure_column: str | None = None,
    batch: int = 64,
    outputs: bool = False,
) -> Iterator[Item]:
    """List what there is to read below ``paths``, without parsing structures.

    Parameters
    ----------
    paths : str, Path or iterable of them
        Files; folders, searched recursively (links followed, hidden names and stores skipped) for names that `FORMATS`
        knows; glob patterns, likewise. A file that is named itself is read whatever its name.
    id_column, structure_column : str, optional
        Columns of tables that hold the identifier and the CIF, POSCAR or JSON text; recognised by common
        names where not given.
    batch : int
        Largest number of frames or rows in an item.
    outputs : bool
        What folders are searched for: outputs of calculations and nothing else, or structure files but no outputs
        (next to which programs leave the same structure in other files). Named files and patterns find both.

    Raises
    ------
    UsageError
        Before anything is yielded: ``no-such-input``, ``no-structures-found``, or ``missing-column`` for a
        table named itself (one found in a folder becomes a failure).
    """
    if batch < 1:
        raise UsageError(f"batches of {batch} rows", code="invalid-batch", remedy="give a number above zero")
    if isinstance(paths, str | Path):
        paths = [paths]
    paths = [Path(path).expanduser() for path in paths]
    options = Options(id_column, structure_column, batch, outputs, _common_folder(paths))
    streams = [_started(_items_below(path, options), path) for path in paths]
    if not streams:
        raise UsageError("no input was given", code="no-such-input", remedy=_WHAT_IS_READ)
    return chain.from_iterable(streams)


def read_item(item: Item) -> list[Structure | Failure]:
    """Parse one item: a structure or a failure for each frame, block or row, in order.

    Content never raises: each failure has stage ``read`` and a code such as ``unreadable-file``,
    ``no-structure``, ``partial-occupancy``, ``not-periodic`` or ``unknown-species``.
    """
    if item.failure:
        return [item.failure]
    results: list[Structure | Failure] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for entry in FORMATS[item.format].read(item):
                results.append(_parsed(entry))
            if not results:
                raise no_structure("the file holds no structures")
        except Exception as error:  # the file itself is damaged: what is left of the item is lost with it
            for index in range(len(results), item.count or len(results) + 1):
                key = item.first + index if item.count or results else None
                id, source = item.name(key)
                results.append(as_failure(error, id=id, source=source))
    return results


def structures_from(
    paths: str | Path | Iterable[str | Path],
    *,
    id_column: str | None = None,
    structure_column: str | None = None,
) -> Iterator[Structure | Failure]:
    """`find_items` and `read_item` in this process."""
    for item in find_items(paths, id_column=id_column, structure_column=structure_column):
        yield from read_item(item)


def _items_below(path: Path, options: Options) -> Iterator[Item]:
    if path.is_dir():
        yield from _folder_items(path, options, set())
    elif path.exists() or path.is_symlink():
        yield from _file_items(path, options, is_named=True)
    elif glob.has_magic(str(path)):
        yielded = set()  # a pattern can match both a folder and what is in it
        for match in map(Path, sorted(glob.glob(str(path), recursive=True))):  # noqa: PTH207 (absolute too)
            items = _folder_items(match, options, set()) if match.is_dir() else _file_items(match, options)
            for item in items:
                if (item.path, item.first) not in yielded:
                    yielded.add((item.path, item.first))
                    yield item
    else:
        raise UsageError(f"there is no {path}", code="no-such-input", remedy=_WHAT_IS_READ)


def _folder_items(folder: Path, options: Options, visited: set[Path]) -> Iterator[Item]:
    real = folder.resolve()
    if real in visited:  # a link back up, or two links to one folder
        return
    visited.add(real)
    if (folder / "_delta_log").is_dir():  # a table of a store, whose data files are not input
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        yield _refused(Item(str(folder.absolute()), "other"), error)
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _folder_items(Path(entry.path), options, visited)
            continue
        format = _format_of(entry.name.lower())
        if format and FORMATS[format].is_output == options.outputs:
            yield from _file_items(Path(entry.path), options)


def _file_items(path: Path, options: Options, *, is_named: bool = False) -> Iterator[Item]:
    format = _format_of(path.name.lower()) or (_format_inside(path) if is_named else None)
    if format is None:
        return
    absolute = str(path.absolute())
    try:
        for item in FORMATS[format].split(absolute, format, options):
            yield replace(item, label=_label(Path(absolute), options.root)) if FORMATS[format].is_output else item
    except Exception as error:
        if is_named and isinstance(error, UsageError):
            raise
        yield _refused(Item(absolute, format), error)


def _format_of(name: str) -> str | None:
    for format, description in FORMATS.items():
        if any(fnmatchcase(name, pattern) for pattern in description.patterns):
            return format
    return None


def _format_inside(path: Path) -> str:
    """Of a file whose name says nothing: pw.x also writes its XML as ``prefix.xml``."""
    if path.suffix == ".xml":
        with suppress(OSError):  # shown when it is read
            return "espresso" if program_of(path) == "espresso" else "other"
    return "other"


def _common_folder(paths: list[Path]) -> Path:
    """The deepest folder that holds everything below ``paths``."""
    folders = []
    for path in map(Path.absolute, paths):
        while glob.has_magic(str(path)) and not path.exists():
            path = path.parent
        folders.append(path if path.is_dir() else path.parent)
    return Path(os.path.commonpath(folders)) if folders else Path()


def _label(path: Path, root: Path) -> str:
    folder = path.parent.relative_to(root).as_posix().removesuffix(".save")
    name = re.sub(r"(?i)\.xml(\.(gz|bz2|xz))?$", "", path.name)
    parts = [folder] if folder != "." else []
    if name.lower() not in ("data-file-schema", "vasprun"):
        parts.append(name)
    return "/".join(parts) or root.name.removesuffix(".save")


def _refused(item: Item, error: Exception) -> Item:
    return replace(item, failure=as_failure(error, id=item.stem, source=item.path))


def _started(items: Iterator[Item], path: str | Path) -> Iterator[Item]:
    """The same items with the first already found, so that what is wrong with ``path`` shows now."""
    for first in items:
        return chain([first], items)
    raise UsageError(f"no structure files below {path}", code="no-structures-found", remedy=_WHAT_IS_READ)


def _parsed(entry: Entry) -> Structure | Failure:
    try:
        return _as_structure(entry.parse(), entry)
    except Exception as error:
        return as_failure(error, id=entry.id, source=entry.source)


def _as_structure(material: Any, entry: Entry) -> Structure:
    from ase import Atoms

    if isinstance(material, Structure):
        return replace(material, id=entry.id, source=entry.source)
    convert = Structure.from_ase if isinstance(material, Atoms) else Structure.from_pymatgen
    return convert(material, id=entry.id, source=entry.source)

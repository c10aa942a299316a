"""Tables of structures: Parquet, CSV and JSON-lines files with one structure a row.

A structure is text in one column (CIF, POSCAR or JSON, told apart by content) or numbers in three: lattice
(or the six cell parameters), species, coordinates. Lists may be nested or flat; in CSV they are JSON or
Python literals. Column names are recognised in upper and lower case.
"""

from __future__ import annotations

import ast
import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from io import BytesIO
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sorep.errors import UsageError
from sorep.sources.cif import cif_blocks, element_of, lattice_from_cell, parse_cif_block
from sorep.sources.files import parse_json, parse_poscar
from sorep.sources.item import (
    Columns,
    Entry,
    Item,
    Options,
    batches,
    decode,
    no_structure,
    unknown_species,
    unreadable,
)
from sorep.structure import Structure

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

ID_COLUMNS = ("id", "material_id", "mp_id", "jid", "structure_id", "name", "task_id")
STRUCTURE_COLUMNS = (
    "cif",
    "cif_string",
    "cif_text",
    "cif_str",
    "structure",
    "structure_json",
    "pymatgen_structure",
    "poscar",
    "contcar",
)
POSCAR_COLUMNS = STRUCTURE_COLUMNS[-2:]
LATTICE_COLUMNS = ("lattice", "cell", "lattice_matrix", "lattice_vectors")
CELL_PARAMETER_COLUMNS = ("a", "b", "c", "alpha", "beta", "gamma")
SPECIES_COLUMNS = ("species", "symbols", "elements", "numbers", "atomic_numbers")
FRACTIONAL_COLUMNS = ("frac", "frac_coords", "fractional_coordinates", "scaled_positions", "coords")
CARTESIAN_COLUMNS = ("positions", "cart_coords", "cartesian_coordinates")

_PEEKED_LINES = 20  # of a JSON-lines file, whose rows need not all name the same columns
_LONGEST_FIELD = 2**31 - 1  # the csv module stops at 128 kB unless told otherwise
_PARQUET_BATCH = 256
_PARQUET_BUFFER = 1 << 20  # bytes; reads a column in pieces instead of whole


def find_columns(names: Iterable[str], path: str, options: Options) -> Columns:
    """Decide which columns hold identifiers and structures.

    Raises
    ------
    UsageError
        ``missing-column``, naming the columns there are.
    """
    names = list(names)
    by_lower_case = {name.lower(): name for name in reversed(names)}

    def present(candidates: Iterable[str]) -> list[str]:
        return [by_lower_case[name] for name in candidates if name in by_lower_case]

    def first(candidates: Iterable[str]) -> str:
        return next(iter(present(candidates)), "")

    for wanted in (options.id_column, options.structure_column):
        if wanted is not None and wanted not in names:
            raise _missing_column(f"no column {wanted!r}", names, path)
    id_column = options.id_column or first(ID_COLUMNS)
    if text_column := options.structure_column or first(STRUCTURE_COLUMNS):
        return Columns(id_column, structure=text_column)
    if len(pymatgen_keys := present(("lattice", "sites"))) == 2:
        return Columns(id_column, lattice=tuple(pymatgen_keys[:1]), sites=pymatgen_keys[1])

    lattice = present(LATTICE_COLUMNS)[:1] or present(CELL_PARAMETER_COLUMNS)
    species, fractional, cartesian = map(first, (SPECIES_COLUMNS, FRACTIONAL_COLUMNS, CARTESIAN_COLUMNS))
    if len(lattice) in (1, 6) and species and (fractional or cartesian):
        cartesian = "" if fractional else cartesian
        return Columns(id_column, "", "", tuple(lattice), species, fractional, cartesian)
    raise _missing_column("no structures", names, path)


def _missing_column(what: str, names: list[str], path: str) -> UsageError:
    return UsageError(
        f"{what} in {path}, whose columns are {', '.join(names) or '(none)'}",
        code="missing-column",
        remedy="name the column of CIF, POSCAR or JSON text, or call the columns cif; or lattice (or a, b, "
        "c, alpha, beta, gamma), species, and frac_coords or cart_coords",
    )


def split_parquet(path: str, format: str, options: Options) -> Iterator[Item]:
    """Row ranges, none across two row groups."""
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        columns = find_columns(file.schema_arrow.names, path, options)
        sizes = _row_group_sizes(file)
    if not any(sizes):
        yield Item(path, format, 0, 0, columns=columns)
    for start, size in zip(accumulate(sizes, initial=0), sizes, strict=False):
        for first, number in batches(size, options.batch):
            yield Item(path, format, start + first, number, columns=columns)


def _row_group_sizes(file: ParquetFile) -> list[int]:
    return [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]


def read_parquet(item: Item) -> Iterator[Entry]:
    table = _open_parquet(item.path, Path(item.path).stat().st_mtime_ns, item.columns)
    for index, row in enumerate(table.take(item.first, item.count or 0), item.first):
        yield _row_entry(item, index, row)


class _ParquetRows:
    """A forward cursor over the rows of a Parquet file.

    A row group can only be read from its start. Items of one file reach a worker in rising order, so going
    on from where the last one ended reads the file once, not once an item, and keeps little in memory.
    """

    def __init__(self, path: str, columns: Columns) -> None:
        from pyarrow.parquet import ParquetFile

        self._file = ParquetFile(path, buffer_size=_PARQUET_BUFFER)
        self._columns = sorted({*columns.of_structure, columns.id} - {""})
        self._starts = list(accumulate(_row_group_sizes(self._file), initial=0))
        self._group = -1
        self._position = 0
        self._rows: Iterator[dict[str, Any]] = iter(())

    def take(self, first: int, number: int) -> list[dict[str, Any]]:
        group = int(np.searchsorted(self._starts, first, side="right")) - 1
        if group != self._group or first < self._position:
            self._group, self._position, self._rows = group, self._starts[group], self._read(group)
        skipped = first - self._position
        try:
            rows = list(islice(self._rows, skipped, skipped + number))
        except Exception:
            self._group = -1  # start afresh
            raise
        self._position = first + number
        return rows

    def _read(self, group: int) -> Iterator[dict[str, Any]]:
        for batch in self._file.iter_batches(_PARQUET_BATCH, row_groups=[group], columns=self._columns):
            yield from batch.to_pylist()


@lru_cache(maxsize=1)
def _open_parquet(path: str, modified: int, columns: Columns) -> _ParquetRows:
    return _ParquetRows(path, columns)


def split_csv(path: str, format: str, options: Options) -> Iterator[Item]:
    """Row ranges with the bytes they occupy; quoted fields may span lines."""
    with Path(path).open("rb") as file:
        records = _csv_records(file)
        header, start = next(records, ([], 0))
        if not header:
            raise no_structure("the file is empty")
        columns = find_columns(header, path, options)
        ends = (end for _, end in records)
        yield from _byte_ranges(Item(path, format, start=start, columns=columns), ends, options.batch)


def read_csv(item: Item) -> Iterator[Entry]:
    with Path(item.path).open("rb") as file:
        header, _ = next(_csv_records(file))
    for index, (fields, _) in enumerate(_csv_records(BytesIO(item.content())), item.first):
        if len(fields) == len(header):
            yield _row_entry(item, index, dict(zip(header, fields, strict=True)))
        else:
            error = unreadable(f"the row has {len(fields)} fields, the header {len(header)}")
            yield _row_entry(item, index, error)


def _csv_records(file: BinaryIO) -> Iterator[tuple[list[str], int]]:
    """Fields of each record that is not blank, and the offset of the byte after it."""
    position = 0

    def lines() -> Iterator[str]:
        nonlocal position
        for line in file:
            position += len(line)
            yield line.decode("utf-8-sig", errors="replace")

    csv.field_size_limit(_LONGEST_FIELD)
    for fields in csv.reader(lines()):
        if fields:
            yield fields, position


def split_json_lines(path: str, format: str, options: Options) -> Iterator[Item]:
    """Row ranges with the bytes they occupy."""
    with Path(path).open("rb") as file:
        peeked = [_json_row(line) for line in islice(file, _PEEKED_LINES) if not line.isspace()]
        if not peeked:
            raise no_structure("the file is empty")
        rows = [row for row in peeked if isinstance(row, dict)]
        if not rows:
            raise unreadable(f"none of the first {len(peeked)} lines is a JSON object")
        columns = find_columns(dict.fromkeys(name for row in rows for name in row), path, options)
        file.seek(0)
        ends = _line_ends(file)
        yield from _byte_ranges(Item(path, format, columns=columns), ends, options.batch)


def _line_ends(file: BinaryIO) -> Iterator[int]:
    position = 0
    for line in file:
        position += len(line)
        if not line.isspace():
            yield position


def read_json_lines(item: Item) -> Iterator[Entry]:
    lines = (line for line in item.content().split(b"\n") if line and not line.isspace())
    for index, line in enumerate(lines, item.first):
        yield _row_entry(item, index, _json_row(line))


def _json_row(line: bytes) -> dict[str, Any] | Exception:
    try:
        row = json.loads(decode(line))
    except Exception as error:  # damaged in any way, it costs this row
        return error
    return row if isinstance(row, dict) else unreadable("the line is not a JSON object")


def _byte_ranges(whole: Item, ends: Iterator[int], size: int) -> Iterator[Item]:
    """Cut ``whole``, which starts at the first row, after every ``size`` rows, given where rows end."""
    first, start = 0, whole.start
    while group := list(islice(ends, size)):
        yield replace(whole, first=first, count=len(group), start=start, stop=group[-1])
        first, start = first + len(group), group[-1]
    if not first:
        yield replace(whole, count=0, stop=start)


def _row_entry(item: Item, index: int, row: Mapping[str, Any] | Exception) -> Entry:
    columns = item.columns
    name = row.get(columns.id) if columns.id and not isinstance(row, Exception) else None
    id = "" if _is_blank(name) else str(name)
    return item.entry(partial(_parse_row, row, columns), key=index, id=id)


def _parse_row(row: Mapping[str, Any] | Exception, columns: Columns) -> Any:
    """The structure of one row, as an ASE, pymatgen or sorep object that has no name yet."""
    if isinstance(row, Exception):
        raise row
    values = {name: row.get(name) for name in columns.of_structure}
    for name, value in values.items():
        if _is_blank(value):
            raise no_structure(f"column {name} is empty")
    if columns.structure:
        return _parse_text(columns.structure, values[columns.structure])
    if columns.sites:
        return parse_json({"lattice": values[columns.lattice[0]], "sites": values[columns.sites]})
    lattice = [_numbers(values[name]) for name in columns.lattice]
    if len(lattice) == 6:
        lattice = [lattice_from_cell([float(parameter) for parameter in lattice]).matrix]
    species = np.ravel(np.array(_literal(values[columns.species]), dtype=object))
    numbers = np.array([_atomic_number(name) for name in species])
    structure = Structure("", lattice[0], numbers, _numbers(values[columns.fractional or columns.cartesian]))
    if columns.fractional:
        return structure
    from ase import Atoms

    return Atoms(numbers, structure.positions, cell=structure.lattice, pbc=True)


def _parse_text(column: str, value: Any) -> Any:
    if isinstance(value, bytes):
        value = decode(value)
    if not isinstance(value, str):
        return parse_json(value)
    if value.lstrip().startswith("{"):
        return parse_json(_literal(value))
    if column.lower() in POSCAR_COLUMNS or ("cif" not in column.lower() and "data_" not in value):
        return parse_poscar(value)
    blocks = cif_blocks(value)
    if len(blocks) > 1:
        raise unreadable(f"{len(blocks)} structures in one row", "give each structure a row")
    return parse_cif_block(blocks[0])


def _literal(value: Any) -> Any:
    """A list or dictionary that may have become text, in JSON or (as pandas writes it) in Python."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return ast.literal_eval(value.strip())


def _numbers(value: Any) -> NDArray[np.float64]:
    return np.asarray(_literal(value), dtype=float)


def _atomic_number(species: Any) -> int:
    if isinstance(species, str):
        element = element_of(species)
        if element is None:
            raise unknown_species(f"{species} is not an element")
        return element.Z
    return int(species)


def _is_blank(value: Any) -> bool:
    # nan is how a column of numbers or text says that a value is missing.
    return value is None or value == "" or (isinstance(value, float) and value != value)

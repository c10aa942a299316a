"""What one reading task is, and what one structure inside it is.

An `Item` is found by the parent without parsing anything and handed to a worker, which turns it into
`Entry` objects: one a structure, each with its identifier and the call that parses it, so that what is
damaged in one entry stays there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from sorep.errors import Failure, SorepError, StructureError

_LONGEST_MESSAGE = 300


class Columns(NamedTuple):
    """Which columns of a table hold what; an empty name is a column that the table does not have.

    A structure is ``structure`` (CIF, POSCAR or JSON text), or ``lattice`` and ``sites`` (a pymatgen
    dictionary), or ``lattice`` (one column of nine numbers, or six cell parameters), ``species`` and one
    of ``fractional`` and ``cartesian``. Rows without ``id`` are named by their index.
    """

    id: str = ""
    structure: str = ""
    sites: str = ""
    lattice: tuple[str, ...] = ()
    species: str = ""
    fractional: str = ""
    cartesian: str = ""

    @property
    def of_structure(self) -> list[str]:
        """Names of the columns that the structure is read from."""
        names = (self.structure, self.sites, *self.lattice, self.species, self.fractional, self.cartesian)
        return [name for name in names if name]


_NO_TABLE = Columns()


@dataclass(frozen=True, slots=True)
class Item:
    """A file, or a range of frames or rows of one, that a worker can read in one go. Small and picklable.

    Attributes
    ----------
    path : str
        Absolute path.
    format : str
        Name of the format, a key of `sorep.sources.FORMATS`.
    first, count : int
        Index of the first frame or row, and how many; ``count`` is None for a file with nothing to count.
    start, stop : int
        Bytes these frames or rows occupy, in formats that are text.
    columns : Columns
        For tables.
    label : str
        Identifier where the file's name is no help; see `sorep.sources`.
    failure : Failure or None
        Set where the file could not even be listed: reading the item then returns just this.
    """

    path: str
    format: str
    first: int = 0
    count: int | None = None
    start: int = 0
    stop: int = 0
    columns: Columns = _NO_TABLE
    label: str = ""
    failure: Failure | None = None

    @property
    def stem(self) -> str:
        """The identifier that the file's name gives; VASP's bare POSCAR and CONTCAR take the folder's."""
        if self.label:
            return self.label
        path = Path(self.path)
        is_vasp_name = re.match("(?i)(POSCAR|CONTCAR)", path.name) is not None
        stem = path.name if is_vasp_name and path.suffix.lower() not in (".vasp", ".poscar") else path.stem
        return path.parent.name if stem.upper() in ("POSCAR", "CONTCAR") else stem

    def name(self, key: int | None = None) -> tuple[str, str]:
        """Identifier and source of frame or row ``key`` (None: the only structure of the file)."""
        return (self.stem, self.path) if key is None else (f"{self.stem}:{key}", f"{self.path}#{key}")

    def entry(self, parse: Callable[[], Any], key: int | None = None, id: str = "") -> Entry:
        """The entry of frame or row ``key``; ``id`` replaces the identifier made from the file's name."""
        default_id, source = self.name(key)
        return Entry(id or default_id, source, parse)

    def content(self) -> bytes:
        """The bytes from ``start`` to ``stop``."""
        with Path(self.path).open("rb") as file:
            file.seek(self.start)
            return file.read(self.stop - self.start)


class Entry(NamedTuple):
    """One structure to be parsed: ``parse()`` returns it as an ASE, pymatgen or sorep object, or raises."""

    id: str
    source: str
    parse: Callable[[], Any]


class Options(NamedTuple):
    """What the user chose for all files together."""

    id_column: str | None
    structure_column: str | None
    batch: int
    outputs: bool = False
    root: Path = Path()  # the deepest folder that holds all input


def batches(total: int, size: int) -> Iterator[tuple[int, int]]:
    """``(first, count)`` of consecutive ranges."""
    for first in range(0, total, size):
        yield first, min(size, total - first)


def as_failure(error: Exception, *, id: str, source: str) -> Failure:
    """The record of an error met in reading; a parser's own exception becomes code ``unreadable-file``."""
    if isinstance(error, SorepError):
        return replace(Failure.from_error(error, id=id, source=source), stage="read")
    message = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return Failure(
        id,
        source,
        "read",
        "unreadable-file",
        message if len(message) <= _LONGEST_MESSAGE else message[: _LONGEST_MESSAGE - 3] + "...",
        "check that the file is complete and in the format its name says",
    )


def unreadable(message: str, remedy: str = "check that the file is complete") -> StructureError:
    return StructureError(message, code="unreadable-file", stage="read", remedy=remedy)


def no_structure(message: str) -> StructureError:
    return StructureError(message, code="no-structure", stage="read", remedy="remove it from the input, or complete it")


def unknown_species(message: str) -> StructureError:
    return StructureError(
        message,
        code="unknown-species",
        stage="read",
        remedy="name real elements (dummy and ghost atoms have no basis functions)",
    )


def decode(content: bytes) -> str:
    """Text of a file in UTF-8 or, where it is not (old CIFs with author names), in Latin-1."""
    if b"\0" in content:
        raise unreadable("binary content where text was expected")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    if not text or text.isspace():
        raise no_structure("the file is empty")
    return text

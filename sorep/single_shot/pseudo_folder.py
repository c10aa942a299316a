"""A folder of UPF files as a pseudopotential family, and pinning one in a manifest.

Beside the UPF files lies one table of cutoffs in Ry, as JSON or TOML ``{"Si": {"cutoff_wfc": 30, "cutoff_rho": 240}}``
or as CSV with columns ``element,cutoff_wfc,cutoff_rho``; this is the form in which SSSP and AiiDA hand them out. A
``filename`` may be given for each element, and must be where an element has several files. Entries with an ``md5`` are
checked against it.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from sorep.errors import SET_UP, PseudoError
from sorep.single_shot.pseudo_family import NORM_CONSERVING_DUAL, PseudoFamily, Pseudopotential, family_from_manifest
from sorep.single_shot.upf import UpfFacts, read_upf

MANIFEST = "sorep-family.json"


def read_folder(folder: Path) -> PseudoFamily:
    """The family in a folder of UPF files, read again only where a file changed.

    Norm-conserving pseudopotentials get ecutrho = 3 ecutwfc whatever the table says; the others need a
    ``cutoff_rho``. A manifest ``sorep-family.json`` written by `pin` takes the place of a table and pins the files.

    Raises
    ------
    PseudoError
        ``no-cutoff-table``, ``several-cutoff-tables``, ``malformed-cutoff-table``, ``ambiguous-pseudopotential``,
        ``missing-file``, ``damaged-pseudopotential``, ``mixed-functionals`` or the errors of `upf.read_upf`.
    """
    folder = folder.absolute()
    state = tuple(
        (path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.iterdir()) if path.is_file()
    )
    return _read_folder(folder, state)


@cache
def _read_folder(folder: Path, state: tuple[tuple[str, int, int], ...]) -> PseudoFamily:
    # `state` is part of the cache key, so that an edited folder is read again.
    names = [name for name, _, _ in state]
    if MANIFEST in names:
        try:
            return family_from_manifest(_parsed(folder / MANIFEST), folder)
        except (KeyError, TypeError, AttributeError) as error:
            raise _malformed(folder / MANIFEST, f"not a manifest ({type(error).__name__}: {error})") from None
    tables = [name for name in names if Path(name).suffix.lower() in _PARSERS]
    if len(tables) != 1:
        found = f"several tables: {', '.join(tables)}" if tables else "no table of cutoffs"
        raise PseudoError(
            f"{folder} holds {found}",
            code="several-cutoff-tables" if tables else "no-cutoff-table",
            remedy='keep one JSON, TOML or CSV file there, such as {"Si": {"cutoff_wfc": 30, "cutoff_rho": 240}} in Ry',
        )
    return _family(folder.name, folder, folder / tables[0])


def pin(folder: Path, table: Path, name: str, out: Path, *, licence: str = "", references: str = "") -> PseudoFamily:
    """Write the manifest of a folder of UPF files: checksum, valence, orbitals and cutoffs of each.

    Parameters
    ----------
    folder, table : Path
        UPF files, and the table of cutoffs (module docstring).
    name : str
    out : Path
        File to write. As ``sorep-family.json`` in ``folder`` it pins that folder for `load_family`.
    licence, references : str
        Of the pseudopotentials; references as BibTeX.

    Raises
    ------
    PseudoError
        As `read_folder`; ``cannot-write``.
    """
    entries = tuple(entry.strip() for entry in re.split(r"^(?=@)", references, flags=re.MULTILINE) if entry.strip())
    family = _family(name, folder.absolute(), table, licence, entries)
    try:
        out.write_text(manifest_text(family), encoding="utf-8")
    except OSError as error:
        raise PseudoError(
            f"cannot write {out}: {error}", code="cannot-write", stage=SET_UP, remedy="name another file"
        ) from None
    return family


def manifest_text(family: PseudoFamily, **more: Any) -> str:
    """The manifest of a family as JSON with one line for each element; ``more`` goes before the elements."""
    lines = []
    for element, pseudo in family.pseudos.items():
        facts: dict[str, Any] = {key: value for key, value in asdict(pseudo).items() if key != "element"}
        facts["orbitals"] = [[o.label, o.l, o.occupation] for o in pseudo.orbitals]
        lines.append(f"    {json.dumps(element)}: {json.dumps(facts)}")
    head = {
        "name": family.name,
        "functional": family.functional,
        "licence": family.licence,
        "references": family.references,
        **more,
    }
    body = json.dumps(head, indent=2, ensure_ascii=False).removesuffix("\n}")
    return body + ',\n  "pseudos": {\n' + ",\n".join(lines) + "\n  }\n}\n"


def _family(name: str, folder: Path, table: Path, licence: str = "", references: tuple[str, ...] = ()) -> PseudoFamily:
    from ase.data import atomic_numbers

    rows = _rows(table)
    facts = {path.name: read_upf(path) for path in sorted(folder.iterdir()) if path.suffix.lower() == ".upf"}
    chosen = _choose(rows, facts, folder, table)
    functionals: dict[str, list[str]] = {}
    for element, filename in chosen.items():
        functionals.setdefault(facts[filename].functional, []).append(element)
    if len(functionals) > 1:
        found = "; ".join(f"{functional}: {', '.join(elements)}" for functional, elements in functionals.items())
        raise PseudoError(
            f"{folder} mixes functionals: {found}",
            code="mixed-functionals",
            remedy="keep pseudopotentials of one functional in a folder",
        )
    pseudos, damaged = {}, []
    for element in sorted(chosen, key=atomic_numbers.__getitem__):
        filename, row = chosen[element], rows[element]
        content = (folder / filename).read_bytes()
        if row.get("md5") and hashlib.md5(content).hexdigest() != row["md5"]:
            damaged.append(filename)
        upf = facts[filename]
        ecutwfc = _cutoff(row, "cutoff_wfc", element, table)
        pseudos[element] = Pseudopotential(
            element,
            filename,
            hashlib.sha256(content).hexdigest(),
            upf.z_valence,
            upf.kind,
            upf.orbitals,
            ecutwfc,
            NORM_CONSERVING_DUAL * ecutwfc if upf.kind == "NC" else _cutoff(row, "cutoff_rho", element, table),
        )
    if damaged:
        raise PseudoError(
            f"these files in {folder} do not have the md5 that {table.name} gives: {', '.join(damaged)}",
            code="damaged-pseudopotential",
            remedy="fetch these files again",
        )
    return PseudoFamily(name, folder, next(iter(functionals)), pseudos, licence, references)


def _choose(rows: Mapping[str, Any], facts: Mapping[str, UpfFacts], folder: Path, table: Path) -> dict[str, str]:
    """The file of each element in the table."""
    chosen: dict[str, str] = {}
    absent: list[str] = []
    for element, row in rows.items():
        files = [name for name, upf in facts.items() if upf.element == element]
        if wanted := row.get("filename"):
            files = [name for name in files if name == wanted]
        elif len(files) > 1:
            raise PseudoError(
                f"{folder} holds several files for {element} ({', '.join(files)}), and {table.name} names none",
                code="ambiguous-pseudopotential",
                remedy=f'add "filename" to {element} in {table.name}, or remove the other files',
            )
        if files:
            chosen[element] = files[0]
        else:
            absent.append(f"{element} ({wanted})" if wanted else element)
    if absent:
        raise PseudoError(
            f"{table.name} lists elements for which {folder} holds no such UPF file: {', '.join(absent)}",
            code="missing-file",
            remedy="add the files, or remove these elements from the table",
        )
    return chosen


def _read_csv(text: str) -> dict[str, Any]:
    return {row.pop("element"): row for row in csv.DictReader(text.splitlines(), skipinitialspace=True)}


_PARSERS = {".json": json.loads, ".toml": tomllib.loads, ".csv": _read_csv}


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return _PARSERS[path.suffix.lower()](path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, KeyError) as error:  # of JSON and TOML too, of a CSV without column "element"
        raise _malformed(path, f"{type(error).__name__}: {error}") from None


def _rows(table: Path) -> dict[str, Any]:
    """Rows of a table by element symbol."""
    from ase.data import atomic_numbers

    if table.suffix.lower() not in _PARSERS:
        raise _malformed(table, "not a .json, .toml or .csv file")
    rows = _parsed(table)
    if not (isinstance(rows, dict) and rows and all(isinstance(row, dict) for row in rows.values())):
        raise _malformed(table, "not a table of elements")
    if strange := [element for element in rows if element not in atomic_numbers or element == "X"]:
        raise _malformed(table, f"{', '.join(map(repr, strange))} where an element symbol belongs")
    return rows


def _cutoff(row: Mapping[str, Any], key: str, element: str, table: Path) -> float:
    try:
        value = float(row[key])
    except (KeyError, TypeError, ValueError):
        raise _malformed(table, f"{element} has no number as {key}") from None
    if not (math.isfinite(value) and value > 0):
        raise _malformed(table, f"{key} of {element} is {value}")
    return value


def _malformed(table: Path, reason: str) -> PseudoError:
    return PseudoError(
        f"table of cutoffs {table}: {reason}",
        code="malformed-cutoff-table",
        remedy='give each element in Ry: {"Si": {"cutoff_wfc": 30, "cutoff_rho": 240}}',
    )

"""Derive the ANO-ML basis sets from ANO-RCC and write them next to this script.

ANO-ML-OS (Zadoks, Marrazzo & Marzari, 2024) keeps of the relativistic ANO basis set ANO-RCC only "the
orbitals corresponding to the smallest closed-shell configuration". Contractions of ANO-RCC are ordered by
shell (s: 1s, 2s, ...; p: 2p, 3p, ...; d: 3d, ...; f: 4f), so an orbital is an angular momentum and a column.
The README next to this script says what each derived file is for.

    python basis_sets/derive.py            # write the files
    python basis_sets/derive.py --check    # exit with status 1 if a file is not what would be written
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import basis_set_exchange as bse
from basis_set_exchange.refconverters.bib import write_bib

SOURCE = "ANO-RCC"
VERSION = "0"  # version 1 differs for Eu and Yb in the contractions kept here
PERIOD_ENDS = (2, 10, 18, 36, 54, 86)

OUTER_SHELLS = {
    # last element : contractions kept, 1-based, of the elements up to it
    2: {"s": 1},
    4: {"s": 2},
    10: {"s": 2, "p": 1},
    12: {"s": 3},
    18: {"s": 3, "p": 2},
    20: {"s": 4},
    30: {"s": 4, "d": 1},
    36: {"s": 4, "p": 3, "d": 1},
    38: {"s": 5},
    48: {"s": 5, "d": 2},
    54: {"s": 5, "p": 4, "d": 2},
    56: {"s": 6},
    57: {"s": 6, "d": 3},
    71: {"s": 6, "d": 3, "f": 1},
    80: {"s": 6, "d": 3},
    86: {"s": 6, "p": 5, "d": 3},
}
"""The rule: one contraction for each shell of the smallest closed-shell configuration."""

Columns = dict[int, tuple[int, ...]]
"""Angular momentum -> 1-based contractions kept."""


def outer_shells(number: int) -> Columns:
    """Contractions of ANO-ML-OS for atomic number ``number``."""
    shells = next(shells for last, shells in OUTER_SHELLS.items() if number <= last)
    return {"spdf".index(letter): (column,) for letter, column in shells.items()}


def all_shells(number: int) -> Columns:
    """Contractions of ANO-ML-AE: those of ANO-ML-OS and every shell of the noble-gas and 4f cores."""
    outer = outer_shells(number)
    period = next(n for n, last in enumerate(PERIOD_ENDS, start=1) if number <= last)
    core = {0: period - 1, 1: period - 2, 2: period - 4, 3: int(number > 57)}
    highest = core | {momentum: columns[0] for momentum, columns in outer.items()}
    return {momentum: tuple(range(1, last + 1)) for momentum, last in highest.items() if last > 0}


def published_shells(number: int) -> Columns:
    """Contractions of the published file: the rule, with its three deviations."""
    if number in (55, 56):  # Cs, Ba: the core was left in
        return all_shells(number)
    if number == 76:  # Os: 3d and 4d were left in
        return {**outer_shells(number), 2: (1, 2, 3)}
    return outer_shells(number)


FILES: dict[str, tuple[Callable[[int], Columns], str]] = {
    "ano-ml-os": (outer_shells, "ANO-ML-OS, outer shells, by its rule"),
    "ano-ml-os-published": (
        published_shells,
        "ANO-ML-OS with the deviations of the published file: Cs and Ba keep the 12 contractions of all\n"
        " their occupied shells (28 functions), Os keeps d1, d2 and d3",
    ),
    "ano-ml-ae": (
        all_shells,
        "ANO-ML-AE, all electrons: contractions 1 up to the one of the rule, and those of the core for\n"
        " angular momenta that the rule does not list",
    ),
}

HEADER = """ {title}
 Covers H to Rn. Spherical harmonics.

 Origin: {source} of the Basis Set Exchange, version {version}; selected by basis_sets/derive.py, do not edit.
 Rule (last element of a range: 1-based contraction kept for each angular momentum):
{rule}

 References:
{references}"""


def select(source: dict[str, Any], shells_of: Callable[[int], Columns]) -> dict[str, Any]:
    """The part of the Basis Set Exchange record ``source`` that ``shells_of`` keeps."""
    elements = {}
    for number in range(1, PERIOD_ENDS[-1] + 1):
        element = source["elements"][str(number)]
        shells = {shell["angular_momentum"][0]: shell for shell in element["electron_shells"]}
        kept = [
            {**shells[momentum], "coefficients": [shells[momentum]["coefficients"][n - 1] for n in columns]}
            for momentum, columns in sorted(shells_of(number).items())
        ]
        elements[str(number)] = {**element, "electron_shells": kept}
    return {**source, "elements": elements}


def references(source: dict[str, Any]) -> dict[str, Any]:
    """BibTeX entries, the keys that every user of the files cites, and the keys for each element."""
    elements = {
        str(number): [key for entry in source["elements"][str(number)]["references"] for key in entry["reference_keys"]]
        for number in range(1, PERIOD_ENDS[-1] + 1)
    }
    always = ["zadoks2024a", "pritchard2019a", "feller1996a", "schuchardt2007a"]
    known = bse.get_reference_data() | {
        "zadoks2024a": {
            "_entry_type": "article",
            "authors": ["Zadoks, Austin", "Marrazzo, Antimo", "Marzari, Nicola"],
            "title": "Spectral operator representations",
            "journal": "npj Comput. Mater.",
            "year": "2024",
            "doi": "10.1038/s41524-024-01446-9",
        }
    }
    keys = dict.fromkeys([*always, *(key for keys in elements.values() for key in keys)])
    entries = {key: write_bib(key, known[key]) for key in keys}
    return {"entries": entries, "always": always, "elements": elements}


def derived_files() -> dict[str, str]:
    """File name -> content of every derived file."""
    source = bse.get_basis(SOURCE, version=VERSION)
    cited = references(source)
    rule = "\n".join(
        f"   to Z = {last:2d}: " + " ".join(f"{letter}{column}" for letter, column in shells.items())
        for last, shells in OUTER_SHELLS.items()
    )
    dois = "\n".join(
        f"   {key}: doi:{line.partition('{')[2].rstrip('},')}"
        for key, entry in cited["entries"].items()
        for line in entry.splitlines()
        if line.strip().startswith("doi")
    )
    files = {"references.json": json.dumps(cited, indent=1, ensure_ascii=False) + "\n"}
    for name, (shells_of, title) in FILES.items():
        header = HEADER.format(title=title, source=SOURCE, version=VERSION, rule=rule, references=dois)
        files[f"{name}.nw"] = bse.write_formatted_basis_str(select(source, shells_of), "nwchem", header)
    return files


def main() -> int:
    parser = argparse.ArgumentParser(description="Derive the ANO-ML basis sets from ANO-RCC.")
    parser.add_argument("--check", action="store_true", help="only compare with the files there")
    check = parser.parse_args().check
    folder = Path(__file__).resolve().parent
    stale = []
    for name, content in derived_files().items():
        path = folder / name
        if check and (not path.is_file() or path.read_text(encoding="utf-8") != content):
            stale.append(name)
        elif not check:
            path.write_text(content, encoding="utf-8", newline="\n")
    if stale:
        print(f"not what derive.py writes: {', '.join(stale)}; run python basis_sets/derive.py")
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())

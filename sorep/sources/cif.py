"""CIF text to pymatgen structures, refusing what pymatgen would repair, merge or drop.

pymatgen parses; this module then compares the result with the file's own words. A site that was skipped,
a species that was guessed from two letters, symmetry that was not understood, a coordinate given as ``.``,
a sum formula that the sites do not add up to (atoms that the experiment could not see, a truncated file):
each would otherwise give a plausible structure that is not the one in the file.

Coordinates within 1e-4 of 1/3 or 2/3 are made exact only where symmetry operations act on them (0.3333
would otherwise be multiplied into several atoms); a file in P1 keeps the digits it gives.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sorep.errors import StructureError
from sorep.sources.item import no_structure, unknown_species, unreadable

if TYPE_CHECKING:
    from pymatgen.core import Composition, Element, Lattice
    from pymatgen.core import Structure as PymatgenStructure
    from pymatgen.io.cif import CifParser

_CELL = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
_SYMMETRY_TAG = re.compile(
    r"(?i)_(symmetry|space_group)[._](space_group_name|name|int_tables_number|it_number|equiv_pos|symop)"
)
_NO_SYMMETRY = {"", "?", ".", "p1", "1"}
_VANISHING_VOLUME = 1e-3  # cubic Angstrom
_FORMULA_TOLERANCE = 1e-3  # relative; formulas may carry rounded amounts such as C5.333
_ROUND_FRACTIONS = 1e-4

# A species is an element and perhaps a charge or a number ("Fe", "Fe3+", "O2-", "Fe1"); in a site label
# anything may follow that is not a letter ("O1A", "C_12").
_SPECIES = re.compile(r"([A-Za-z]{1,2})(\d*|\d*\.?\d*[+-]\d*)")
_LABEL = re.compile(r"([A-Za-z]{1,2})(?![A-Za-z]).*", re.DOTALL)


def cif_blocks(text: str) -> list[str]:
    """The data blocks that describe a structure, in order; others (publication, powder pattern) are left out.

    Raises
    ------
    StructureError
        ``unreadable-file`` where there is no data block at all, ``no-structure`` where none has a cell.
    """
    blocks = re.split(r"(?m)^[ \t]*(?=data_)", f"\n{text}")[1:]
    if not blocks:
        raise unreadable("no data_ block: this is not a CIF")
    described = [
        block
        for block in blocks
        if ("_cell_length_" in block or "_atom_site_fract_" in block)
        and "powder_pattern" not in block.partition("\n")[0]  # pymatgen skips these
    ]
    if not described:
        raise no_structure("no data block has a cell or atom sites")
    return described


def parse_cif_block(text: str) -> PymatgenStructure:
    """The structure of one data block, sites in full; occupancies are left for the caller to judge.

    Raises
    ------
    StructureError
        ``empty-cell``, ``unreadable-file``, ``unknown-species``, ``non-finite``, ``vanishing-volume``,
        ``unknown-symmetry``, ``implicit-hydrogens`` or ``formula-mismatch``.
    Exception
        Whatever pymatgen's parser raises.
    """
    from pymatgen.io.cif import CifParser

    def parser_rounding(tolerance: float) -> CifParser:
        return CifParser.from_str(text, frac_tolerance=tolerance, check_cif=False)

    parser = parser_rounding(0.0)
    block = next(iter(parser.as_dict().values()))
    _check_cell(block)
    species_of_rows = _check_sites(block)
    structure = _structure_of(parser)
    if len(parser.symmetry_operations) > 1:
        parser = parser_rounding(_ROUND_FRACTIONS)
        structure = _structure_of(parser)
    _check_symmetry(block, parser.warnings)
    if any("implicit hydrogens" in warning for warning in parser.warnings):
        raise StructureError(
            "hydrogens are attached to sites but have no coordinates",
            code="implicit-hydrogens",
            remedy="add the hydrogen positions",
        )
    if all(site.is_ordered for site in structure):
        _check_nothing_was_dropped(structure, species_of_rows)
        _check_formula(block, structure)
    return structure


def _structure_of(parser: CifParser) -> PymatgenStructure:
    # check_occu=False keeps occupancies as written; True would scale them and drop empty sites.
    return parser.parse_structures(primitive=False, check_occu=False, on_error="raise")[0]


@lru_cache(maxsize=1024)
def element_of(species: str) -> Element | None:
    """The element that ``species`` names, perhaps with a charge; None where it is not one element."""
    return _element_in(species, _SPECIES)


def _element_in(name: str, pattern: re.Pattern[str]) -> Element | None:
    from pymatgen.core import Element

    match = pattern.fullmatch(name)
    symbol = match[1].title() if match else ""
    return Element(symbol) if Element.is_valid_symbol(symbol) else None


def lattice_from_cell(parameters: Sequence[float]) -> Lattice:
    """The lattice of a, b, c (Angstrom), alpha, beta and gamma (degrees).

    Raises
    ------
    StructureError
        ``non-finite``, or ``vanishing-volume`` also for angles that no cell has.
    """
    from pymatgen.core import Lattice

    if not all(math.isfinite(value) for value in parameters):
        raise StructureError(f"cell parameters {parameters}", code="non-finite", remedy="repair the file")
    lattice = Lattice.from_parameters(*parameters)
    if not lattice.volume > _VANISHING_VOLUME:  # nan for impossible angles
        raise StructureError(
            f"cell parameters {parameters} enclose no volume",
            code="vanishing-volume",
            remedy="check lengths (Angstrom) and angles (degrees)",
        )
    return lattice


def _check_cell(block: Mapping[str, Any]) -> None:
    from pymatgen.io.cif import str2float

    tags = [f"_cell_{name}" for name in _CELL]
    if all(tag in block for tag in tags):  # else pymatgen may still know them from the crystal system
        lattice_from_cell([str2float(block[tag]) for tag in tags])


def _check_sites(block: Mapping[str, Any]) -> set[tuple[str, int]]:
    """Check every row of the site loop; return the pairs of label and atomic number found there."""
    from pymatgen.io.cif import str2float

    labels = block.get("_atom_site_label", [])
    if not labels and not block.get("_atom_site_type_symbol"):
        raise StructureError(
            "the cell holds no atom sites", code="empty-cell", remedy="check that the file is complete"
        )
    if not labels or isinstance(labels, str):
        raise unreadable("the sites have no loop with _atom_site_label", "write the atom sites as a loop_")
    symbols = block.get("_atom_site_type_symbol")
    species = set()
    for row, label in enumerate(labels):
        name = symbols[row] if symbols else label
        element = element_of(name) if symbols else _element_in(name, _LABEL)
        if element is None:
            raise unknown_species(f"site {label} is of type {name}, which does not name one element")
        species.add((label, element.Z))
        for axis in "xyz":
            value = block[f"_atom_site_fract_{axis}"][row]
            if value in (".", "?"):
                raise unreadable(f"site {label} has no {axis} coordinate", "complete the file")
            if not math.isfinite(str2float(value)):
                raise StructureError(
                    f"site {label} has {axis} coordinate {value}", code="non-finite", remedy="repair the file"
                )
    return species


def _check_symmetry(block: Mapping[str, Any], parser_warnings: list[str]) -> None:
    if not any("Defaulting to P1" in warning for warning in parser_warnings):
        return
    for tag, value in block.items():
        if _SYMMETRY_TAG.match(tag) and re.sub(r"[\s_]", "", str(value)).lower() not in _NO_SYMMETRY:
            raise StructureError(
                f"symmetry {str(value)[:80]} ({tag}) is not understood",
                code="unknown-symmetry",
                remedy="add the loop _space_group_symop_operation_xyz, or write the cell in P1",
            )


def _check_nothing_was_dropped(structure: PymatgenStructure, written: set[tuple[str, int]]) -> None:
    read = {(site.label, site.specie.Z) for site in structure}
    if read != written:
        label, _ = min(written ^ read)
        raise unreadable(f"site {label} is ambiguous", "give _atom_site_type_symbol as an element")


def _check_formula(block: Mapping[str, Any], structure: PymatgenStructure) -> None:
    from pymatgen.core import Composition

    formula = str(block.get("_chemical_formula_sum") or "?")
    try:
        stated = Composition(formula)
    except (ValueError, KeyError):
        return  # not a formula ('?'): the file states nothing that the sites could contradict
    if not stated:
        return
    if not _fractions_agree(_fractions(stated), _fractions(structure.composition)):
        raise StructureError(
            f"the file states {formula} but its sites add up to {structure.composition.formula}",
            code="formula-mismatch",
            remedy="complete the sites (missing hydrogens, a truncated file), or correct _chemical_formula_sum",
        )


def _fractions(composition: Composition) -> dict[int, float]:
    """Share of each atomic number, to which deuterium and tritium are hydrogen."""
    amounts: dict[int, float] = {}
    for specie, amount in composition.items():
        amounts[specie.Z] = amounts.get(specie.Z, 0.0) + amount / composition.num_atoms
    return amounts


def _fractions_agree(one: dict[int, float], other: dict[int, float]) -> bool:
    return one.keys() == other.keys() and all(
        math.isclose(one[number], other[number], rel_tol=_FORMULA_TOLERANCE) for number in one
    )

"""Derive ``elements.json``, the properties behind the node features, from the tables of pymatgen and ASE.

The result is kept as a file because a trained model depends on it: another version of these libraries must not change
what a model sees.

    python -m sorep.mat2spec.derive_elements            # write the file
    python -m sorep.mat2spec.derive_elements --check    # exit with status 1 if the file is not what would be written
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import warnings
from typing import Any

from sorep.mat2spec.elements import N_ELEMENTS, TABLE

_LAST_RADIUS = 96  # Cm; Cordero et al., Dalton Trans. 2832 (2008)
_NOBLE_GASES = (0, 2, 10, 18, 36, 54, 86)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    text = derived()
    if not parser.parse_args().check:
        TABLE.write_text(text)
    elif not TABLE.is_file() or TABLE.read_text() != text:
        sys.exit(f"{TABLE} is not what would be written")


def derived() -> str:
    """Content of the file: one line an element; what is not known is null."""
    from pymatgen.core import Element

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on what is not known
        lines = [json.dumps(properties(Element.from_Z(number))) for number in range(1, N_ELEMENTS + 1)]
    return "[\n" + ",\n".join(lines) + "\n]\n"


def properties(element: Any) -> dict[str, Any]:
    """Of one pymatgen element."""
    from ase.data import covalent_radii

    return {
        "symbol": element.symbol,
        "group": element.group,
        "period": element.row,
        "block": element.block,
        "valence": valence(element),
        "electronegativity": _known(element.X),
        "covalent_radius": _known(float(covalent_radii[element.Z])) if element.Z <= _LAST_RADIUS else None,
        "ionization_energy": _known(element.ionization_energy),
        "electron_affinity": _known(element.electron_affinity),
        "molar_volume": _known(element.molar_volume),
    }


def valence(element: Any) -> int:
    """Electrons beyond the last noble gas, less the full f shell from Lu on and the full d shell from group 13 on."""
    electrons = element.Z - max(z for z in _NOBLE_GASES if z < element.Z)
    f_shell = 14 if 71 <= element.Z <= 86 else 0
    d_shell = 10 if element.row > 3 and element.group >= 13 else 0
    return electrons - f_shell - d_shell


def _known(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), 6)


if __name__ == "__main__":
    main()

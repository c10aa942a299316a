"""What a graph knows of an element: 92 bits, in the manner of CGCNN (Xie & Grossman, PRL 120, 145301, 2018).

    bits     property                                     bins
    0-17     group                                        1 to 18
    18       lanthanoid or actinoid (group 3 otherwise)
    19-25    period                                       1 to 7
    26-35    electronegativity (Pauling)                  10 from 0.5 to 4
    36-45    covalent radius, Angstrom                    10 from 0.25 to 2.5
    46-57    valence electrons                            1 to 12 or more
    58-67    logarithm of the ionisation energy in eV     10 from 1.3 to 3.3
    68-77    electron affinity, eV                        10 from -3 to 3.7
    78-81    block                                        s, p, d, f
    82-91    logarithm of the molar volume in cm^3/mol    10 from 1.5 to 4.3

One bit of each property is set: none where the property is not known (the electronegativity of He, Ne and Ar, the
radius beyond Cm, the volume of At, Fr and Fm), the first or last of a range for what lies beyond it. Only Dy, Ho and Er
have the same bits; the composition, which a model is given too, tells them apart. The properties are those of
``elements.json``, which `sorep.mat2spec.derive_elements` derives.
"""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TABLE = Path(__file__).with_name("elements.json")

N_ELEMENTS = 100
"""H to Fm."""

N_FEATURES = 92

_BLOCKS = ("s", "p", "d", "f")
_N_BINS = 10


@cache
def element_features() -> NDArray[np.float32]:
    """Bits of all elements, (N_ELEMENTS + 1, N_FEATURES): a row for each atomic number, row 0 empty; read-only."""
    table = np.zeros((N_ELEMENTS + 1, N_FEATURES), dtype=np.float32)
    for number, element in enumerate(json.loads(TABLE.read_text()), start=1):
        table[number, _bits(number, element)] = 1
    table.flags.writeable = False
    return table


def _bits(number: int, element: dict[str, Any]) -> list[int]:
    is_f_series = 57 <= number <= 71 or number >= 89
    known = {name: math.log(element[name]) for name in ("ionization_energy", "molar_volume") if element[name]}
    return [
        18 if is_f_series else element["group"] - 1,
        18 + element["period"],
        *_binned(26, element["electronegativity"], 0.5, 4.0),
        *_binned(36, element["covalent_radius"], 0.25, 2.5),
        45 + min(element["valence"], 12),
        *_binned(58, known.get("ionization_energy"), 1.3, 3.3),
        *_binned(68, element["electron_affinity"], -3.0, 3.7),
        78 + _BLOCKS.index(element["block"]),
        *_binned(82, known.get("molar_volume"), 1.5, 4.3),
    ]


def _binned(first: int, value: float | None, low: float, high: float) -> list[int]:
    if value is None:
        return []
    position = int(_N_BINS * (value - low) / (high - low))
    return [first + min(max(position, 0), _N_BINS - 1)]

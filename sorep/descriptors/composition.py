"""What a chemical formula tells: element fractions, and statistics of elemental properties over them.

With x_e the fraction of element e in the crystal and v_e a property of it, the columns are, after Magpie (Ward et al.,
npj Comput. Mater. 2, 16028, 2016),

    x_e                                               for H to Lr
    number of elements, (sum_e x_e^p)^(1/p)           for p = 2, 3, 5, 7
    sum_e x_e v_e, min v, max v, max v - min v, sum_e x_e |v_e - mean|      for every property
    min |sum_e x_e q_e|                               over all common oxidation states q_e of every element
    number of electrons modulo 2                      in the reduced formula

The last but one is zero where the elements can balance their charges; the last is one where, without magnetism, bands
must cross the Fermi energy. Only properties are used that all these elements have, so nothing is ever filled in: no
Pauling electronegativity, for instance, which is not defined for He, Ne and Ar.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sorep.errors import SET_UP, DescriptorError
from sorep.settings import Settings
from sorep.structure import Structure

N_ELEMENTS = 103
"""H to Lr."""

PROPERTIES = (
    "mendeleev",
    "group",
    "row",
    "ionization-energy",
    "electron-affinity",
    "valence",
    "valence-s",
    "valence-p",
    "valence-d",
)
STATISTICS = ("mean", "min", "max", "range", "deviation")

_NORMS = (2, 3, 5, 7)
_NOBLE_GASES = (2, 10, 18, 36, 54, 86)

_WARD = """@article{ward2016,
    author = {Ward, Logan and Agrawal, Ankit and Choudhary, Alok and Wolverton, Christopher},
    title = {A general-purpose machine learning framework for predicting properties of inorganic materials},
    journal = {npj Comput. Mater.},
    volume = {2},
    pages = {16028},
    year = {2016},
    doi = {10.1038/npjcompumats.2016.28}
}"""


class Composition(Settings):
    """Fractions and statistics of the elements of a crystal; the same for all polymorphs and cells."""

    name: ClassVar[str] = "composition"
    references: ClassVar[tuple[str, ...]] = (_WARD,)

    @property
    def feature_names(self) -> list[str]:
        """Such as ``fraction-O``, ``norm-2``, ``mendeleev-mean``."""
        from ase.data import chemical_symbols

        return [
            *(f"fraction-{symbol}" for symbol in chemical_symbols[1 : N_ELEMENTS + 1]),
            "n-elements",
            *(f"norm-{p}" for p in _NORMS),
            *(f"{name}-{statistic}" for name in PROPERTIES for statistic in STATISTICS),
            "charge-imbalance",
            "odd-electrons",
        ]

    def words(self) -> dict[str, Any]:
        """A checksum of the elements' properties, which pymatgen supplies."""
        return {"element_data": _element_data().checksum}

    def compute(self, structure: Structure) -> NDArray[np.float64]:
        """The vector of a validated structure.

        Raises
        ------
        DescriptorError
            ``missing-element`` for elements beyond Lr.
        """
        unknown = sorted({s for s, z in zip(structure.symbols, structure.numbers, strict=True) if z > N_ELEMENTS})
        if unknown:
            raise DescriptorError(
                f"the composition descriptor ends with Lr and does not know {', '.join(unknown)}",
                code="missing-element",
                remedy="leave the structure out",
            )
        data = _element_data()
        elements, counts = np.unique(structure.numbers, return_counts=True)
        counts //= np.gcd.reduce(counts)
        x = counts / counts.sum()
        fractions = np.zeros(N_ELEMENTS)
        fractions[elements - 1] = x
        norms = [(x**p).sum() ** (1 / p) for p in _NORMS]
        values = data.properties[elements - 1]
        mean, low, high = x @ values, values.min(axis=0), values.max(axis=0)
        statistics = np.stack([mean, low, high, high - low, x @ np.abs(values - mean)], axis=1)
        charges = np.zeros(1)
        for element, count in zip(elements, counts, strict=True):
            charges = np.unique(np.add.outer(charges, count * np.array(data.oxidation_states[element - 1])))
        last = [np.abs(charges).min() / counts.sum(), (elements @ counts) % 2]
        return np.concatenate([fractions, [len(elements), *norms], statistics.ravel(), last])


@dataclass(frozen=True, eq=False)
class _ElementData:
    """Properties (N_ELEMENTS, n_properties), energies in eV, and oxidation states."""

    properties: NDArray[np.float64]
    oxidation_states: list[list[int]]

    @property
    def checksum(self) -> str:
        content = json.dumps([self.properties.tolist(), self.oxidation_states])
        return hashlib.sha256(content.encode()).hexdigest()[:16]


@cache
def _element_data() -> _ElementData:
    from pymatgen.core import Element

    elements = [Element.from_Z(number) for number in range(1, N_ELEMENTS + 1)]
    rows = [[e.mendeleev_no, e.group, e.row, e.ionization_energy, e.electron_affinity, *_valence(e)] for e in elements]
    properties = np.array(rows, dtype=float)
    holes = np.argwhere(~np.isfinite(properties))
    if len(holes):
        element, column = holes[0]
        raise DescriptorError(
            f"the installed pymatgen does not know the {PROPERTIES[column]} of {elements[element]}",
            code="element-data",
            stage=SET_UP,
            remedy="install a newer pymatgen",
        )
    # Noble gases have no common oxidation state.
    return _ElementData(properties, [sorted(set(e.common_oxidation_states)) or [0] for e in elements])


def _valence(element: Any) -> list[int]:
    """Electrons outside the core in total and in s, p and d: all beyond the last noble gas, less filled d and f shells.

    A d shell counts as core from group 13 on, an f shell where it is full.
    """
    core = max((z for z in _NOBLE_GASES if z < element.Z), default=0)
    inside = {(n, kind) for n, kind, _ in type(element).from_Z(core).full_electronic_structure} if core else set()
    electrons = dict.fromkeys("spdf", 0)
    for n, kind, count in element.full_electronic_structure:
        if (n, kind) not in inside:
            electrons[kind] += count
    if element.group >= 13:
        electrons["d"] = 0
    if electrons["f"] == 14:
        electrons["f"] = 0
    return [sum(electrons.values()), electrons["s"], electrons["p"], electrons["d"]]

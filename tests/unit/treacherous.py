"""A descriptor that ends its process, for `test_describe.py`; in a module of its own, where workers find it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from sorep.errors import DescriptorError
from sorep.structure import Structure


@dataclass(frozen=True)
class Treacherous:
    """Ends its process on silicon, refuses aluminium, and describes everything else by its number of atoms."""

    name: ClassVar[str] = "treacherous"
    references: ClassVar[tuple[str, ...]] = ()
    feature_names = ("n-atoms",)

    def words(self) -> dict[str, Any]:
        return {}

    def compute(self, structure: Structure) -> np.ndarray:
        if 14 in structure.numbers:
            os._exit(1)
        if 13 in structure.numbers:
            raise DescriptorError("aluminium", code="no-aluminium", remedy="use another element")
        return np.array([float(structure.n_atoms)])

"""What every way from a structure to a spectrum has in common.

`Method` is the one seam between the physics and everything that runs, stores and screens: a frozen, picklable set of
options that knows its identity and can turn a structure into a `Calculation`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sorep.bands import BandStructure
from sorep.cells import Cell
from sorep.identity import Identity
from sorep.spectrum import Spectrum
from sorep.structure import Structure


@dataclass(frozen=True, eq=False)
class Calculation:
    """A spectrum, the cell in which it was computed, and the bands along lines where the method computes any."""

    spectrum: Spectrum
    cell: Cell
    bands: BandStructure | None = None


@dataclass(frozen=True)
class Work:
    """Cost of a structure before it is computed: functions, irreducible k points, seconds of one core, bytes."""

    n_functions: int
    n_kpoints: int
    seconds: float
    memory_bytes: float


class Method(Protocol):
    """Options of one operator representation."""

    @property
    def operator(self) -> str:
        """Name under which spectra and features are stored, e.g. ``"kinetic"``."""
        ...

    @property
    def counts_electrons(self) -> bool:
        """Whether spectra know their number of electrons, without which no grid can be anchored at band edges."""
        ...

    @property
    def longest_first(self) -> bool:
        """Whether a run estimates all structures before it starts, and begins with the most expensive ones.

        Worth it where a structure takes seconds; where it takes milliseconds, structures are computed as they are read.
        """
        ...

    @property
    def follows_from_structure(self) -> bool:
        """Whether equal structures have equal spectra: not where these are read from finished calculations."""
        ...

    def identity(self) -> Identity:
        """All that a spectrum depends on besides the structure."""
        ...

    def estimate(self, structure: Structure) -> Work:
        """Expected cost; raises what `calculate` would raise for a structure that it refuses."""
        ...

    def calculate(self, structure: Structure) -> Calculation:
        """The spectrum of a validated structure."""
        ...

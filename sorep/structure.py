"""One crystal structure: an immutable, validated record with a content key.

A `Structure` is periodic in three directions, fully occupied, finite and free of overlapping atoms:
`Structure.validate` refuses anything else with a stable code, so nothing after it needs to check again.
Two structures with equal content have equal `content_key`, whatever they are called.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sorep.errors import StructureError

if TYPE_CHECKING:
    from ase import Atoms

DEFAULT_MINIMUM_DISTANCE = 0.5
"""Angstrom; atoms closer than this (H2 is 0.74) mean a damaged file."""

_MINIMUM_VOLUME_PER_ATOM = 0.1  # cubic Angstrom; no crystal comes near it
_KEY_DECIMALS = 8


@dataclass(frozen=True, eq=False)
class Structure:
    """A periodic crystal.

    Attributes
    ----------
    id : str
        The user's name for it: file stem and frame, or a table's id column.
    lattice : (3, 3) float array
        Lattice vectors as rows, Angstrom.
    numbers : (n_atoms,) int array
        Atomic numbers.
    positions : (n_atoms, 3) float array
        Fractional coordinates.
    source : str
        File, frame or row it was read from; empty for objects made in Python.
    """

    id: str
    lattice: NDArray[np.float64]
    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    source: str = ""

    def __post_init__(self) -> None:
        for name, kind, shape in (
            ("lattice", np.float64, (3, 3)),
            ("numbers", np.int64, (-1,)),
            ("positions", np.float64, (-1, 3)),
        ):
            try:
                given = np.array(getattr(self, name))
                with np.errstate(invalid="ignore"):
                    array = given.astype(kind).reshape(shape)
                if kind is np.int64 and not np.array_equal(array, given.reshape(shape)):
                    raise ValueError("not whole numbers")
            except (TypeError, ValueError) as error:
                raise StructureError(
                    f"{name} cannot be read as an array of shape {shape}: {error}",
                    code="malformed-structure",
                    remedy="give 3x3 lattice vectors, one atomic number and one coordinate triple per atom",
                ) from None
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if len(self.numbers) != len(self.positions):
            raise StructureError(
                f"{len(self.numbers)} species but {len(self.positions)} positions",
                code="malformed-structure",
                remedy="give one species and one coordinate triple per atom",
            )

    @property
    def n_atoms(self) -> int:
        return len(self.numbers)

    @property
    def volume(self) -> float:
        """Cell volume, cubic Angstrom."""
        return float(abs(np.linalg.det(self.lattice)))

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """Element symbol of every atom."""
        return tuple(_symbol(number) for number in self.numbers)

    @cached_property
    def formula(self) -> str:
        """Formula in Hill order, e.g. ``BaO3Ti``."""
        from ase.formula import Formula

        return str(Formula.from_list(list(self.symbols)).format("hill"))

    @cached_property
    def content_key(self) -> str:
        """Hash of lattice, species and fractional coordinates (to 1e-8), independent of `id` and `source`."""
        digest = hashlib.sha256()
        for array in (self.lattice, self.positions):
            # Adding 0.0 turns -0.0 into 0.0, which would hash differently.
            digest.update((np.round(array, _KEY_DECIMALS) + 0.0).tobytes())
        digest.update(self.numbers.tobytes())
        return digest.hexdigest()[:32]

    def validate(
        self, *, minimum_distance: float = DEFAULT_MINIMUM_DISTANCE, max_atoms: int | None = None
    ) -> Structure:
        """Return the structure itself if it can be used, else raise.

        Parameters
        ----------
        minimum_distance : float
            Angstrom; any two atoms (periodic images included) closer than this refuse the structure.
        max_atoms : int or None
            Largest number of atoms accepted; None accepts any.

        Raises
        ------
        StructureError
            With code ``empty-cell``, ``unknown-species``, ``too-many-atoms``, ``non-finite``,
            ``vanishing-volume`` or ``atoms-too-close``.
        """
        if self.n_atoms == 0:
            raise StructureError("the cell holds no atoms", code="empty-cell", remedy="check the file")
        if self.numbers.min() < 1 or self.numbers.max() > 118:
            raise StructureError(
                f"atomic numbers range from {self.numbers.min()} to {self.numbers.max()}",
                code="unknown-species",
                remedy="name real elements (dummy and ghost atoms have no basis functions)",
            )
        if max_atoms is not None and self.n_atoms > max_atoms:
            raise StructureError(
                f"{self.n_atoms} atoms, more than the {max_atoms} allowed",
                code="too-many-atoms",
                remedy="raise --max-atoms",
            )
        if not (np.isfinite(self.lattice).all() and np.isfinite(self.positions).all()):
            raise StructureError("lattice or coordinates are not finite", code="non-finite", remedy="repair the file")
        if self.volume < _MINIMUM_VOLUME_PER_ATOM * self.n_atoms:
            raise StructureError(
                f"cell volume {self.volume:.3g} cubic Angstrom for {self.n_atoms} atoms",
                code="vanishing-volume",
                remedy="check that the lattice vectors are independent and in Angstrom",
            )
        self._refuse_close_atoms(minimum_distance)
        return self

    def _refuse_close_atoms(self, minimum_distance: float) -> None:
        if minimum_distance <= 0:
            return
        from sorep.neighbors import neighbor_pairs

        pairs = neighbor_pairs(self.lattice, self.positions, minimum_distance)
        if len(pairs.distances) == 0:
            return
        closest = int(np.argmin(pairs.distances))
        i, j = int(pairs.first[closest]), int(pairs.second[closest])
        raise StructureError(
            f"atoms {i} ({_symbol(self.numbers[i])}) and {j} ({_symbol(self.numbers[j])}) are "
            f"{pairs.distances[closest]:.3f} Angstrom apart, closer than {minimum_distance:g}",
            code="atoms-too-close",
            remedy="repair the structure, or lower --min-distance",
        )

    @classmethod
    def from_any(cls, material: Any, id: str = "") -> Structure:
        """Accept a `Structure`, an `ase.Atoms` or a `pymatgen.core.Structure`.

        Raises
        ------
        StructureError
            ``not-periodic``, ``partial-occupancy`` or ``unknown-structure-type``.
        """
        if isinstance(material, Structure):
            return material
        module = type(material).__module__.partition(".")[0]
        if module == "ase":
            return cls.from_ase(material, id=id)
        if module == "pymatgen" or hasattr(material, "lattice"):
            return cls.from_pymatgen(material, id=id)
        raise StructureError(
            f"cannot read a {type(material).__name__} as a structure",
            code="unknown-structure-type",
            stage="read",
            remedy="give a sorep.Structure, an ase.Atoms or a pymatgen Structure",
        )

    @classmethod
    def from_ase(cls, atoms: Atoms, id: str = "", source: str = "") -> Structure:
        """Convert an `ase.Atoms`; it must be periodic in three directions and fully occupied."""
        refuse_partial_occupancy_of_ase(atoms)
        if not all(atoms.pbc):
            raise StructureError(
                f"periodic along {int(sum(atoms.pbc))} of 3 directions",
                code="not-periodic",
                remedy="give a three-dimensional cell (for a slab, wire or molecule, one with vacuum, "
                "and set pbc=True)",
            )
        lattice = np.asarray(atoms.cell)
        if not np.isfinite(lattice).all() or abs(np.linalg.det(lattice)) < 1e-12:
            positions = np.zeros((len(atoms), 3))  # validate() refuses the cell itself
        else:
            positions = np.linalg.solve(lattice.T, atoms.positions.T).T
        return cls(id or atoms.get_chemical_formula(), lattice, atoms.numbers, positions, source)

    @classmethod
    def from_pymatgen(cls, structure: Any, id: str = "", source: str = "") -> Structure:
        """Convert a `pymatgen.core.Structure`; every site must hold one fully occupied element."""
        for index, site in enumerate(structure):
            if not site.is_ordered or abs(sum(site.species.values()) - 1.0) > 1e-6:
                raise StructureError(
                    f"site {index} ({site.label}) holds {site.species_string}",
                    code="partial-occupancy",
                    remedy="order the structure first (for example with pymatgen's "
                    "OrderDisorderedStructureTransformation)",
                )
        if not all(structure.lattice.pbc):
            raise StructureError(
                f"periodic along {sum(structure.lattice.pbc)} of 3 directions",
                code="not-periodic",
                remedy="give a three-dimensional cell",
            )
        numbers = np.array([_atomic_number(site.specie) for site in structure], dtype=np.int64)
        return cls(id or structure.formula, structure.lattice.matrix, numbers, structure.frac_coords, source)

    def to_ase(self) -> Atoms:
        """The same cell as an `ase.Atoms`."""
        from ase import Atoms

        return Atoms(numbers=self.numbers, scaled_positions=self.positions, cell=self.lattice, pbc=True)


def refuse_partial_occupancy_of_ase(atoms: Atoms) -> None:
    """Raise `StructureError` where ASE carries an occupancy table with a value below one."""
    for site, species in (atoms.info.get("occupancy") or {}).items():
        if len(species) != 1 or abs(sum(species.values()) - 1.0) > 1e-6:
            raise StructureError(
                f"site {site} holds {species}",
                code="partial-occupancy",
                remedy="order the structure first",
            )


def _symbol(number: int) -> str:
    from ase.data import chemical_symbols

    return chemical_symbols[int(number)]


def _atomic_number(specie: Any) -> int:
    # Deuterium and tritium are hydrogen to the electrons; dummy species have no electrons at all.
    number = getattr(specie, "Z", 0)
    if not number or type(specie).__name__ == "DummySpecies":
        raise StructureError(
            f"species {specie} is not an element",
            code="unknown-species",
            remedy="name real elements (dummy and ghost atoms have no basis functions)",
        )
    return int(number)

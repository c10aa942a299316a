"""Records of pseudopotentials: what is known of a file without opening it, and a family with one for each element."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from sorep.errors import PseudoError

MANIFESTS = Path(__file__).with_name("families")
FAMILIES = tuple(sorted(path.stem for path in MANIFESTS.glob("*.json")))
"""Names of the pinned families, each with a manifest in this package."""

Kind = Literal["NC", "US", "PAW"]

# A pw.x dual of 3 moves the levels of norm-conserving pseudopotentials by at most 0.1 meV (a dual of 2 by 55 meV).
# The augmentation charges of the other kinds need at least the dual of 4 that pw.x has by default.
NORM_CONSERVING_DUAL, LEAST_AUGMENTED_DUAL = 3, 4


@dataclass(frozen=True)
class Orbital:
    """A pseudo-atomic orbital (PP_CHI) of a UPF file: label such as ``"3S"``, angular momentum l, electrons in it."""

    label: str
    l: int  # noqa: E741
    occupation: float


@dataclass(frozen=True)
class Pseudopotential:
    """What is known of one UPF file without opening it.

    Attributes
    ----------
    element, filename, sha256 : str
    z_valence : float
        Valence electrons.
    kind : str
        ``"NC"`` (norm-conserving), ``"US"`` (ultrasoft) or ``"PAW"``.
    orbitals : tuple of Orbital
        Every PP_CHI of the file, in its order. pw.x uses those with occupation >= 0.
    ecutwfc, ecutrho : float
        Plane-wave cutoffs of wavefunctions and density, Ry.
    """

    element: str
    filename: str
    sha256: str
    z_valence: float
    kind: Kind
    orbitals: tuple[Orbital, ...]
    ecutwfc: float
    ecutrho: float

    @property
    def angular_momenta(self) -> tuple[int, ...]:
        """l of each orbital that pw.x uses, in its order."""
        return tuple(orbital.l for orbital in self.orbitals if orbital.occupation >= 0)

    @property
    def n_functions(self) -> int:
        """Basis functions of one atom: 2l+1 for each orbital that pw.x uses."""
        return sum(2 * l + 1 for l in self.angular_momenta)  # noqa: E741

    @property
    def capacity(self) -> int:
        """Electrons that the orbitals of one atom can hold.

        Where it is below `z_valence` the atom's own electrons find no place in them. Where it equals `z_valence`
        they are all filled, and a crystal of such atoms only has no conduction band in this basis.
        """
        return 2 * self.n_functions


@dataclass(frozen=True, eq=False)
class PseudoFamily:
    """Pseudopotentials of one functional, one for each element.

    Attributes
    ----------
    name : str
    folder : Path
        Where the UPF files lie.
    functional : str
        ``"PBE"``, ``"PBEsol"``, or another as the UPF files call it.
    pseudos : mapping of str to Pseudopotential
        By element symbol, in the order of atomic numbers.
    licence : str
    references : tuple of str
        BibTeX entries to cite.
    """

    name: str
    folder: Path
    functional: str
    pseudos: Mapping[str, Pseudopotential]
    licence: str
    references: tuple[str, ...]

    def select(self, numbers: Iterable[int]) -> dict[str, Pseudopotential]:
        """Pseudopotentials of the elements with the given atomic numbers, by symbol, their files checked.

        A file is read and compared with its checksum when a process first asks for it, and not again.

        Raises
        ------
        PseudoError
            One for all elements concerned: ``missing-pseudopotential`` where the family has none,
            ``no-orbitals`` where it has one without atomic orbitals, ``damaged-pseudopotential`` or
            ``missing-file`` where the files are not what they should be.
        """
        symbols = [_symbol(number) for number in sorted({int(number) for number in numbers})]
        missing = [symbol for symbol in symbols if symbol not in self.pseudos]
        if missing:
            raise PseudoError(
                f"family {self.name} has no pseudopotential for {', '.join(missing)}",
                code="missing-pseudopotential",
                remedy="choose a family that covers these elements, or leave such structures out",
            )
        chosen = {symbol: self.pseudos[symbol] for symbol in symbols}
        bare = [f"{symbol} ({pseudo.filename})" for symbol, pseudo in chosen.items() if pseudo.n_functions == 0]
        if bare:
            raise PseudoError(
                f"in family {self.name} these pseudopotentials come without atomic orbitals: {', '.join(bare)}",
                code="no-orbitals",
                remedy="choose a family whose files have PP_CHI sections: they are the basis of a single shot",
            )
        self._check(chosen.values(), _require_checksum_once)
        return chosen

    def verify(self) -> None:
        """Read every file and compare it with its checksum.

        Raises
        ------
        PseudoError
            ``damaged-pseudopotential`` or ``missing-file``, naming all files concerned.
        """
        self._check(self.pseudos.values(), _require_checksum)

    def _check(self, pseudos: Iterable[Pseudopotential], require_checksum: Callable[[Path, str], None]) -> None:
        missing, damaged = [], []
        for pseudo in pseudos:
            try:
                require_checksum(self.folder / pseudo.filename, pseudo.sha256)
            except FileNotFoundError:
                missing.append(pseudo.filename)
            except (OSError, ValueError) as error:
                damaged.append(f"{pseudo.filename} ({error})")
        if not (missing or damaged):
            return
        found = [f"missing: {', '.join(missing)}"] if missing else []
        found += [f"damaged: {', '.join(damaged)}"] if damaged else []
        pinned = self.name in FAMILIES
        raise PseudoError(
            f"files of family {self.name} in {self.folder} are not as they should be; {'; '.join(found)}",
            code="damaged-pseudopotential" if damaged else "missing-file",
            remedy=f"sorep pseudos install {self.name}" if pinned else "restore these files",
        )

    def cutoffs(self, elements: Iterable[str]) -> tuple[float, float]:
        """Plane-wave cutoffs (ecutwfc, ecutrho) in Ry that suit every one of these elements at once."""
        pseudos = [self.pseudos[element] for element in elements]
        ecutwfc = max(pseudo.ecutwfc for pseudo in pseudos)
        augmented = any(pseudo.kind != "NC" for pseudo in pseudos)
        dual = LEAST_AUGMENTED_DUAL if augmented else NORM_CONSERVING_DUAL
        return ecutwfc, max(dual * ecutwfc, *(pseudo.ecutrho for pseudo in pseudos))


def family_from_manifest(manifest: Mapping[str, Any], folder: Path) -> PseudoFamily:
    """The family that a manifest (`read_manifest`, `pseudo_folder.pin`) describes, with its files in ``folder``."""
    pseudos = {
        element: Pseudopotential(
            **{**facts, "element": element, "orbitals": tuple(Orbital(*orbital) for orbital in facts["orbitals"])}
        )
        for element, facts in manifest["pseudos"].items()
    }
    return PseudoFamily(
        manifest["name"],
        folder,
        manifest["functional"],
        pseudos,
        manifest["licence"],
        tuple(manifest["references"]),
    )


def _require_checksum(path: Path, sha256: str) -> None:
    """Raise ValueError where ``path`` has another checksum."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise ValueError(f"sha256 {found[:16]} instead of {sha256[:16]}")


_require_checksum_once = cache(_require_checksum)  # what passed once is not read again; errors are not kept


def _symbol(number: int) -> str:
    from ase.data import chemical_symbols

    return chemical_symbols[number] if 0 < number < len(chemical_symbols) else f"element {number}"

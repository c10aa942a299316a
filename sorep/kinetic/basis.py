"""Basis sets of contracted Gaussians: which functions sit on which element.

A contracted function is phi_lm(r) = sum_p c_p r^l exp(-a_p r^2) Y_lm(r/|r|), with real spherical harmonics
Y_lm and <phi|phi> = 1. Basis sets come from three places: the ANO-ML sets of this package (the README in the
folder ``basis_sets`` says how they are derived), the Basis Set Exchange, and NWChem files.
Atomic units: exponents in Bohr^-2.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gamma

from sorep.errors import BasisError, UsageError

OWN_BASIS_NAMES = ("ano-ml-os", "ano-ml-os-published", "ano-ml-ae")

_HIGHEST_ANGULAR_MOMENTUM = 14  # of libcint


@dataclass(frozen=True, eq=False)
class Shell:
    """Contracted functions of one element that share an angular momentum and primitives.

    Attributes
    ----------
    angular_momentum : int
    exponents : (n_primitives,) float array
        Bohr^-2.
    coefficients : (n_primitives, n_contractions) float array
        Of the normalised functions with respect to the bare primitives r^l exp(-a r^2), which is what libcint
        takes. Functions are ordered as in libcint: contraction by contraction, m within each.
    """

    angular_momentum: int
    exponents: NDArray[np.float64]
    coefficients: NDArray[np.float64]

    @property
    def n_functions(self) -> int:
        return self.coefficients.shape[1] * (2 * self.angular_momentum + 1)


@dataclass(frozen=True, eq=False)
class BasisSet:
    """Shells for every element that a basis set covers.

    Attributes
    ----------
    name : str
        As asked for; of a Basis Set Exchange set with its version, of a file its name.
    checksum : str
        16 hexadecimal digits that change with any number in use: elements, angular momenta, exponents,
        contraction coefficients (as tabulated) and `min_exponent`.
    shells : mapping of int to tuple of Shell
        By atomic number, in the order of the source.
    min_exponent : float
        Primitives with smaller exponents were discarded, Bohr^-2; 0 keeps all.
    references : mapping of int to tuple of str
        BibTeX entries to cite, by atomic number; empty for the sets read from files.
    """

    name: str
    checksum: str
    shells: Mapping[int, tuple[Shell, ...]]
    min_exponent: float
    references: Mapping[int, tuple[str, ...]]

    def shells_of(self, number: int) -> tuple[Shell, ...]:
        """Shells of the element with atomic number ``number``.

        Raises
        ------
        BasisError
            ``missing-element`` where the basis set has no function for it.
        """
        try:
            return self.shells[int(number)]
        except KeyError:
            from ase.data import chemical_symbols

            symbol = chemical_symbols[number] if 0 < number < len(chemical_symbols) else "unknown"
            discarded = f" (primitives below {self.min_exponent:g} discarded)" if self.min_exponent else ""
            raise BasisError(
                f"basis set {self.name}{discarded} has no functions for element {number} ({symbol})",
                code="missing-element",
                remedy="choose a basis set that covers the element, or leave the structure out",
            ) from None

    def n_functions(self, numbers: Iterable[int]) -> int:
        """Number of functions on atoms with the given atomic numbers.

        Raises
        ------
        BasisError
            ``missing-element``.
        """
        return sum(shell.n_functions for number in numbers for shell in self.shells_of(number))


def basis_names() -> tuple[str, ...]:
    """All names that `load_basis` accepts: the sets of this package, then the Basis Set Exchange."""
    import basis_set_exchange as bse

    return (*OWN_BASIS_NAMES, *bse.get_all_basis_names())


def load_basis(name_or_path: str | Path, *, discard_below: float = 0.0) -> BasisSet:
    """Load a basis set; a second call with the same arguments returns the same object.

    Effective core potentials that come with a set are ignored, as kinetic energy and overlap do not involve
    them. Functions are real spherical harmonics also where the source means Cartesian ones.

    Parameters
    ----------
    name_or_path : str or Path
        ``"ano-ml-os"``, ``"ano-ml-os-published"``, ``"ano-ml-ae"``, the name of a Basis Set Exchange set
        (optionally with a version, ``"ANO-RCC@0"``; without one the latest), or the path to an NWChem file:
        a `Path`, or a string that ends in ``.nw``. Names do not depend on case.
    discard_below : float
        Drop primitives with smaller exponents (Bohr^-2) and functions that have no primitive left; what is
        left of a function is normalised again. The published ANO-ML-OS calculations used 0.1.

    Raises
    ------
    BasisError
        ``unknown-basis``, ``unreadable-basis`` or ``malformed-basis``.
    UsageError
        ``invalid-threshold`` where ``discard_below`` is negative or not finite.
    """
    if not (np.isfinite(discard_below) and discard_below >= 0):
        raise UsageError(
            f"discard_below is {discard_below}",
            code="invalid-threshold",
            remedy="give an exponent in Bohr^-2, or 0 to keep all primitives",
        )
    name, discard_below = str(name_or_path), float(discard_below)
    if isinstance(name_or_path, Path) or name.lower().endswith(".nw"):
        return _load_file(Path(name).absolute(), _modification_time(Path(name)), discard_below)
    if name.lower() in OWN_BASIS_NAMES:
        return _load_own(name.lower(), discard_below)
    return _load_from_exchange(*_exchange_name_and_version(name), discard_below)


@cache
def _load_own(name: str, discard_below: float) -> BasisSet:
    cited = json.loads(_text(_own_file("references.json")))
    references = {
        int(number): tuple(cited["entries"][key] for key in [*cited["always"], *keys])
        for number, keys in cited["elements"].items()
    }
    return _basis_set(name, _read_nwchem(_own_file(f"{name}.nw")), discard_below, references)


@cache
def _load_file(path: Path, modified: int, discard_below: float) -> BasisSet:
    # `modified` is part of the cache key, so that an edited file is read again.
    return _basis_set(path.name, _read_nwchem(path), discard_below, {})


@cache
def _load_from_exchange(name: str, version: str, discard_below: float) -> BasisSet:
    import basis_set_exchange as bse
    from basis_set_exchange.refconverters.bib import write_bib
    from basis_set_exchange.refconverters.common import get_library_citation

    elements = bse.get_basis(name, version=version)["elements"]
    known = bse.get_reference_data()
    references = {
        int(number): tuple(
            write_bib(key, known[key])
            for key in dict.fromkeys(
                [*get_library_citation()[1], *(k for r in element["references"] for k in r["reference_keys"])]
            )
        )
        for number, element in elements.items()
    }
    return _basis_set(f"{name}@{version}", elements, discard_below, references)


def _exchange_name_and_version(asked: str) -> tuple[str, str]:
    """Name as the Basis Set Exchange writes it, and version (its latest where none is asked for)."""
    import basis_set_exchange as bse

    name, _, version = asked.partition("@")
    known = {entry["display_name"].lower(): entry for entry in bse.get_metadata().values()}
    if name.lower() not in known:
        close = difflib.get_close_matches(name.lower(), [*OWN_BASIS_NAMES, *known], n=5)
        hint = f"did you mean {', '.join(close)}? " if close else ""
        raise BasisError(
            f"there is no basis set {asked!r}",
            code="unknown-basis",
            remedy=f"{hint}Give {', '.join(OWN_BASIS_NAMES)}, a name of the Basis Set Exchange, "
            "or the path to an NWChem file ending in .nw",
        )
    entry = known[name.lower()]
    version = version or entry["latest_version"]
    if version not in entry["versions"]:
        raise BasisError(
            f"basis set {entry['display_name']} has no version {version!r}",
            code="unknown-basis",
            remedy=f"choose among versions {', '.join(sorted(entry['versions']))}",
        )
    return entry["display_name"], version


def _own_file(name: str) -> Traversable:
    """A file of the folder basis_sets: installed inside the package, or beside it in a source checkout."""
    installed = resources.files("sorep") / "basis_sets" / name
    return installed if installed.is_file() else Path(__file__).resolve().parents[2] / "basis_sets" / name


def _modification_time(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError as error:
        raise _unreadable(path, error) from None


def _text(file: Traversable) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(file, error) from None


def _unreadable(file: Traversable, error: Exception) -> BasisError:
    return BasisError(
        f"cannot read {file}: {error}",
        code="unreadable-basis",
        remedy="check that the path names a text file that you may read",
    )


def _read_nwchem(file: Traversable) -> dict[str, Any]:
    """Elements of an NWChem file, as a Basis Set Exchange record."""
    import basis_set_exchange as bse

    text = _text(file)
    try:
        return bse.read_formatted_basis_str(text, "nwchem")["elements"]
    except (RuntimeError, LookupError, ValueError) as error:
        raise _malformed(file, f"{error}") from None


def _malformed(source: object, reason: str) -> BasisError:
    return BasisError(
        f"{source}: {reason}",
        code="malformed-basis",
        remedy='give NWChem format: a line BASIS "ao basis" SPHERICAL, blocks of exponents and coefficients '
        "headed by element and shell letter, and a line END",
    )


def _basis_set(
    name: str,
    elements: Mapping[str, Any],
    discard_below: float,
    references: Mapping[int, tuple[str, ...]],
) -> BasisSet:
    """Build shells from the elements of a Basis Set Exchange record, and hash the numbers they use."""
    if not any(element.get("electron_shells") for element in elements.values()):
        raise _malformed(name, "it holds no functions")
    digest = hashlib.sha256(f"{discard_below.hex()}\n".encode())
    shells: dict[int, tuple[Shell, ...]] = {}
    for number in sorted(int(key) for key in elements):
        of_element = []
        for table in _tables(elements[str(number)].get("electron_shells", ())):
            _refuse_malformed(name, number, table)
            table = _discard(table, discard_below)
            if table.coefficients.size:
                values = [*table.exponents.tolist(), *table.coefficients.ravel().tolist()]
                line = f"{number} {table.angular_momentum} {table.coefficients.shape}"
                digest.update(" ".join([line, *(value.hex() for value in values), "\n"]).encode())
                of_element.append(_normalized(table))
        if of_element:
            shells[number] = tuple(of_element)
    return BasisSet(name, digest.hexdigest()[:16], shells, discard_below, references)


def _tables(records: Iterable[Mapping[str, Any]]) -> Iterator[Shell]:
    """Shells with coefficients as tabulated; one that fuses s and p on one set of exponents becomes two."""
    for record in records:
        exponents = np.array(record["exponents"], dtype=float)
        coefficients = np.array(record["coefficients"], dtype=float).T
        momenta = record["angular_momentum"]
        if len(momenta) == 1:
            yield Shell(momenta[0], exponents, coefficients)
        else:
            for momentum, column in zip(momenta, coefficients.T, strict=True):
                yield Shell(momentum, exponents, column[:, np.newaxis])


def _refuse_malformed(name: str, number: int, table: Shell) -> None:
    if table.angular_momentum > _HIGHEST_ANGULAR_MOMENTUM:
        raise _malformed(name, f"element {number} has functions of angular momentum {table.angular_momentum}")
    if not (np.isfinite(table.exponents).all() and (table.exponents > 0).all()):
        raise _malformed(name, f"element {number} has exponents that are not positive and finite")
    if not np.isfinite(table.coefficients).all():
        raise _malformed(name, f"element {number} has coefficients that are not finite")
    if not table.coefficients.any(axis=0).all() or not (_self_overlaps(table) > 0).all():
        raise _malformed(name, f"element {number} has a contraction of zero norm")


def _discard(table: Shell, threshold: float) -> Shell:
    """Drop primitives with exponents below ``threshold``, then functions without a primitive."""
    kept = table.exponents >= threshold
    coefficients = table.coefficients[kept]
    return Shell(table.angular_momentum, table.exponents[kept], coefficients[:, coefficients.any(axis=0)])


def _normalized(table: Shell) -> Shell:
    """From coefficients of normalised primitives to those of bare primitives in normalised functions."""
    bare = table.coefficients * _primitive_norms(table)[:, np.newaxis] / np.sqrt(_self_overlaps(table))
    bare.flags.writeable = table.exponents.flags.writeable = False  # loaded once, shared by all callers
    return Shell(table.angular_momentum, table.exponents, bare)


def _self_overlaps(table: Shell) -> NDArray[np.float64]:
    """<phi|phi> of each contraction of normalised primitives, shape (n_contractions,)."""
    norms = _primitive_norms(table)
    overlap = _radial_integral(table, np.add.outer(table.exponents, table.exponents)) * np.outer(norms, norms)
    return np.einsum("pi,pq,qi->i", table.coefficients, overlap, table.coefficients)


def _primitive_norms(table: Shell) -> NDArray[np.float64]:
    return 1 / np.sqrt(_radial_integral(table, 2 * table.exponents))


def _radial_integral(table: Shell, exponent: NDArray[np.float64]) -> NDArray[np.float64]:
    """Integral of r^(2l+2) exp(-a r^2) from 0 to infinity."""
    power = table.angular_momentum + 1.5
    return gamma(power) / (2 * exponent**power)

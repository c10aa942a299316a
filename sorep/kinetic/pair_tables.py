"""Two-centre integrals between the functions of two elements, tabulated against distance.

An integral of a scalar operator between two functions depends on the vector R between them as (Wigner-Eckart theorem)

    <l1 m1, 0| A |l2 m2, R> = sum_L f_L(|R|) sum_M <Y_l1m1 Y_l2m2 Y_LM> Y_LM(R / |R|),

so that libcint need be asked along one line only. The radial functions f_L are kept as cardinal B-splines of degree 7
over a coordinate x(R) = (R + s ln R) / h, whose nodes are dense where functions of cores vary quickly. The splines
reproduce libcint to 1e-10 Hartree or better.

A table belongs to two elements' shells, the operators and a precision, and to nothing else: its name is a hash of
these. Tables are computed when first wanted, written to the cache folder, and mapped into memory from there. Any number
of processes may compute the same table at once: each writes a file of its own and renames it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from sorep._fortran.blocks import DEGREE
from sorep.kinetic.angular import gaunt
from sorep.kinetic.integrals import pair_cutoff, two_centre_integrals
from sorep.kinetic.orbitals import ElementShells
from sorep.paths import cache_folder

SHORTEST_DISTANCE = 0.5
"""Bohr; tables say nothing of distances between zero and this."""

FINEST_PRECISION = 1e-11
"""Hartree; what the splines can be trusted to."""

HIGHEST_ANGULAR_MOMENTUM = 4

STEP = 0.15
STRETCH = 4.0

_VERSION = 1
_TAIL = 1e-4  # of the precision; integrals beyond the distance where all are below this are not looked at
_DENSITY = 0.02  # atoms per cubic Bohr: a dense solid
_MARGIN = 50  # nodes before the shortest distance, over which the influence of the end dies away (0.54 for each)
_MOST_TABLES = 384  # open at once, of which each holds a file descriptor


@dataclass(frozen=True, eq=False)
class ChannelLayout:
    """How a row of a table is to be read: one entry for each pair of shells.

    Attributes
    ----------
    shells : (n_shell_pairs, 8) int array
        Both angular momenta, both numbers of contractions, first function of both among their elements' functions,
        first radial function (those of one pair of shells are ordered by contraction of the first, contraction of the
        second, and L), and first angular function.
    n_channels : int
        Radial functions of all pairs of shells.
    gaunt : (n_angular, n_lm) array
        Angular functions in terms of spherical harmonics: for each two angular momenta the rows of
        `sorep.kinetic.angular.gaunt`, ordered by L and both m.
    """

    shells: NDArray[np.int32]
    n_channels: int
    gaunt: NDArray[np.float64]

    @classmethod
    @lru_cache(maxsize=4096)
    def of(cls, one: ElementShells, other: ElementShells) -> ChannelLayout:
        highest = max((s.angular_momentum for e in (one, other) for s in e.shells), default=0)
        parts: dict[tuple[int, int], int] = {}
        angular = [np.empty((0, (2 * highest + 1) ** 2))]
        rows, n_channels, n_angular = [], 0, 0
        for s, i in zip(one.shells, one.functions, strict=True):
            for t, j in zip(other.shells, other.functions, strict=True):
                momenta = (s.angular_momentum, t.angular_momentum)
                if momenta not in parts:
                    parts[momenta] = n_angular
                    coefficients = gaunt(*momenta)
                    flat = coefficients.reshape(-1, coefficients.shape[-1])
                    angular.append(np.pad(flat, ((0, 0), (0, angular[0].shape[1] - flat.shape[1]))))
                    n_angular += len(flat)
                contractions = (s.coefficients.shape[1], t.coefficients.shape[1])
                rows.append((*momenta, *contractions, i[0], j[0], n_channels, parts[momenta]))
                n_channels += contractions[0] * contractions[1] * (min(momenta) + 1)
        return cls(np.array(rows, dtype=np.int32).reshape(-1, 8), n_channels, np.concatenate(angular))

    @cached_property
    def gaunt_terms(self) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
        """Angular function, harmonic and coefficient of all entries of `gaunt` that do not vanish."""
        function, harmonic = np.nonzero(self.gaunt)
        return function.astype(np.int32), harmonic.astype(np.int32), self.gaunt[function, harmonic]

    def channels(self, shell: NDArray[np.int32]) -> slice:
        """Radial functions of one row of `shells`."""
        one, other, c, d, _, _, start, _ = shell.tolist()
        return slice(start, start + c * d * (min(one, other) + 1))


@dataclass(frozen=True, eq=False)
class PairTable:
    """Radial functions of all integrals between one element's functions and another's.

    Attributes
    ----------
    one, other : ElementShells
    layout : ChannelLayout
    coefficients : (n_rows, n_operators * n_channels) array
        Row 0 holds the values at distance zero (both functions on one atom), row 1 the distance (Bohr) beyond which a
        channel is negligible, the others B-spline coefficients, of the node `first_node` and those after it.
    first_node : int
    n_operators : int
    """

    one: ElementShells
    other: ElementShells
    layout: ChannelLayout
    coefficients: NDArray[np.float64]
    first_node: int
    n_operators: int

    @cached_property
    def reaches(self) -> NDArray[np.float64]:
        """Distance (Bohr) beyond which all integrals of a pair of shells are negligible, (n_shell_pairs,)."""
        per_channel = self.coefficients[1].reshape(self.n_operators, -1).max(axis=0)
        return np.array([per_channel[self.layout.channels(shell)].max() for shell in self.layout.shells])

    @cached_property
    def reach(self) -> float:
        """Distance (Bohr) beyond which everything is negligible."""
        return float(self.reaches.max(initial=0.0))


def coordinate(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """x(R), in which nodes are the integers; R in Bohr."""
    return (distance + STRETCH * np.log(distance)) / STEP


def distance_of(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse of `coordinate`, by Newton's method for ln R, which never leaves the positive numbers."""
    logarithm = np.where(x * STEP > 1, np.log(np.maximum(x * STEP, 1.0)), x * STEP / STRETCH)
    for _ in range(50):
        distance = np.exp(logarithm)
        logarithm = logarithm - (distance + STRETCH * logarithm - x * STEP) / (distance + STRETCH)
    return np.exp(logarithm)


@lru_cache(maxsize=_MOST_TABLES)
def pair_table(one: ElementShells, other: ElementShells, integrals: tuple[str, ...], precision: float) -> PairTable:
    """The table of two elements: from the cache, or computed and added to it.

    Parameters
    ----------
    one, other : ElementShells
    integrals : tuple of str
        libcint's names of two-centre integrals of scalar operators over real spherical functions.
    precision : float
        Beyond the reach of two shells, the integrals of a function with all atoms of a dense crystal amount to less
        than this; at least `FINEST_PRECISION`.
    """
    path = cache_folder() / "pair-tables" / f"{_name(one, other, integrals, precision)}.npy"
    first_node = int(np.floor(coordinate(np.array(SHORTEST_DISTANCE)))) - _MARGIN
    layout = ChannelLayout.of(one, other)
    coefficients = _load(path, len(integrals) * layout.n_channels)
    if coefficients is None:
        coefficients = _compute(one, other, integrals, precision, first_node)
        _save(path, coefficients)
    return PairTable(one, other, layout, coefficients, first_node, len(integrals))


def _name(one: ElementShells, other: ElementShells, integrals: Sequence[str], precision: float) -> str:
    parameters = (_VERSION, STEP, STRETCH, SHORTEST_DISTANCE, _MARGIN, precision, *integrals)
    digest = hashlib.sha256(repr(parameters).encode())
    for element in (one, other):
        for shell, index in zip(element.shells, element.functions, strict=True):
            digest.update(f"{shell.angular_momentum} {shell.coefficients.shape} {index[0]}\n".encode())
            digest.update(np.ascontiguousarray(shell.exponents).tobytes())
            digest.update(np.ascontiguousarray(shell.coefficients).tobytes())
        digest.update(f"{element.n_functions}\n".encode())
    return digest.hexdigest()[:32]


def _load(path: Path, n_columns: int) -> NDArray[np.float64] | None:
    """The table in a file; None where there is none that can be used."""
    try:
        table = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    usable = table.ndim == 2 and table.dtype == np.float64 and table.shape[1] == n_columns and len(table) > DEGREE + 2
    return table if usable else None


def _save(path: Path, table: NDArray[np.float64]) -> None:
    """Write a table so that readers see all of it or nothing; a cache that cannot be written is not an error."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, table)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def _compute(
    one: ElementShells, other: ElementShells, integrals: Sequence[str], precision: float, first_node: int
) -> NDArray[np.float64]:
    farthest = max(pair_cutoff(one, other, _TAIL * precision), 2.0)
    last_node = int(np.ceil(coordinate(np.array(farthest))))
    distances = distance_of(np.arange(first_node, last_node + 1, dtype=float))
    # A node at distance zero comes first: what one atom's functions have with each other.
    values = radial_functions(one, other, integrals, np.concatenate([[0.0], distances]))
    own, values = values[0], values[1:]
    # What all atoms beyond a distance would add to one row of a matrix, per channel.
    shells = 4 * np.pi * distances**2 * np.gradient(distances) * _DENSITY
    beyond = np.cumsum((np.abs(values) * shells[:, None])[::-1], axis=0)[::-1]
    last = np.count_nonzero(beyond > precision, axis=0)
    reaches = distances[np.minimum(last, len(distances) - 1)]
    # Beyond the farthest node all functions are taken for zero; so many coefficients act beyond their node.
    values = np.concatenate([values[: last.max(initial=0) + 1], np.zeros((DEGREE + 1, values.shape[1]))])
    return np.concatenate([own[None], reaches[None], _spline_coefficients(values)])


def radial_functions(
    one: ElementShells, other: ElementShells, integrals: Sequence[str], distances: NDArray[np.float64]
) -> NDArray[np.float64]:
    """f_L of all channels by libcint, (n_distances, n_operators * n_channels); at distance zero only L = 0 is asked."""
    layout = ChannelLayout.of(one, other)
    along_z = np.zeros((len(distances), 3))
    along_z[:, 2] = distances
    result = np.zeros((len(distances), len(integrals), layout.n_channels))
    for operator, blocks in enumerate(two_centre_integrals(integrals, one, other, along_z)):
        for shell in layout.shells:
            p, q, c, d, i, j, _, _ = shell.tolist()
            part = blocks[:, i : i + c * (2 * p + 1), j : j + d * (2 * q + 1)]
            part = part.reshape(len(distances), c, 2 * p + 1, d, 2 * q + 1)
            radial = np.einsum("rcmdn,Lmn->rcdL", part, _projection(p, q), optimize=True)
            if p != q:  # on one atom only equal l and m meet, through L = 0, and every harmonic but Y_00 vanishes
                radial[distances == 0.0] = 0.0
            result[:, operator, layout.channels(shell)] = radial.reshape(len(distances), -1)
    return result.reshape(len(distances), -1)


def _projection(one: int, other: int) -> NDArray[np.float64]:
    """From a block along z to its radial functions, (n_L, 2 l1 + 1, 2 l2 + 1)."""
    highest = one + other
    on_axis = np.zeros((highest + 1) ** 2)
    for degree in range(highest + 1):
        zonal = degree**2 + (2 if degree == 1 else degree)  # m = 0; libcint orders p functions x, y, z
        on_axis[zonal] = np.sqrt((2 * degree + 1) / (4 * np.pi))
    from_channels = (gaunt(one, other) @ on_axis).reshape(min(one, other) + 1, -1)
    return np.asarray(np.linalg.pinv(from_channels.T), dtype=float).reshape(-1, 2 * one + 1, 2 * other + 1)


def _spline_coefficients(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coefficients of the cardinal B-spline of degree 7 through ``values`` (n_nodes, n), zero outside."""
    band = np.array([1, 120, 1191, 2416, 1191, 120, 1]) / 5040
    return scipy.linalg.solve_banded((3, 3), np.repeat(band[:, None], len(values), axis=1), values)

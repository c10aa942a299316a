"""Blocks of two-centre integrals from tabulated radial functions: blocks.f90, and its twin in NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sorep._fortran.load import load

if TYPE_CHECKING:
    from sorep.kinetic.pair_tables import PairTable

KERNEL = load("blocks")

DEGREE = 7
"""Of the splines."""

_FIRST_COEFFICIENT = 2  # row of a table
_BEFORE = 3  # the spline that begins an interval is that of the third node before it


def pair_blocks(
    table: PairTable,
    coordinates: NDArray[np.float64],
    distances: NDArray[np.float64],
    harmonics: NDArray[np.float64],
    blocks: NDArray[np.float64],
) -> None:
    """Blocks between two atoms of given elements.

    Parameters
    ----------
    table : PairTable
    coordinates : (n_pairs,) array
        `sorep.kinetic.pair_tables.coordinate` of the distances, of at least that of the shortest tabulated distance;
        any number for distance zero.
    distances : (n_pairs,) array
        Bohr; zero stands for both functions on one atom.
    harmonics : (n_lm, n_pairs) array
        Real spherical harmonics of the directions, degree after degree up to twice the highest l of the table.
    blocks : (n_pairs, n_operators, n_one, n_other) array
        Zeros, in C order; the result is written here.
    """
    if KERNEL.module is None:
        pair_blocks_numpy(table, coordinates, distances, harmonics, blocks)
        return
    rows, offsets = _intervals(table, coordinates, distances)
    layout, n_pairs = table.layout, len(distances)
    harmonics = np.asfortranarray(harmonics[: layout.gaunt.shape[1]])
    functions, of_harmonic, factors = layout.gaunt_terms
    KERNEL.module.f90wrap_blocks__pair_blocks(
        table.coefficients.T,
        rows.astype(np.int32),
        offsets,
        np.ascontiguousarray(distances),
        harmonics,
        layout.shells.T,
        table.reaches,
        functions,
        of_harmonic,
        factors,
        table.coefficients.shape[1],
        len(table.coefficients),
        n_pairs,
        len(harmonics),
        len(layout.shells),
        len(factors),
        len(layout.gaunt),
        layout.n_channels,
        *blocks.shape[:0:-1],
        blocks.T,
    )


def pair_blocks_numpy(
    table: PairTable,
    coordinates: NDArray[np.float64],
    distances: NDArray[np.float64],
    harmonics: NDArray[np.float64],
    blocks: NDArray[np.float64],
) -> None:
    """`pair_blocks` in NumPy: the same result, up to rounding, without a compiler."""
    rows, offsets = _intervals(table, coordinates, distances)
    layout, n_pairs = table.layout, len(distances)
    radial = np.zeros((n_pairs, table.coefficients.shape[1]))
    last = len(table.coefficients) - 1
    for k, weight in enumerate(spline_weights(offsets)):
        used = np.where(rows + k <= last, weight, 0.0)
        radial += used[:, None] * table.coefficients[np.minimum(rows + k, last)]
    radial[rows < 0] = table.coefficients[0]
    radial = radial.reshape(n_pairs, table.n_operators, -1)
    angular = layout.gaunt @ harmonics[: layout.gaunt.shape[1]]
    for shell, reach in zip(layout.shells, table.reaches, strict=True):
        one, other, c, d, i, j, _, start = shell.tolist()
        near = distances <= reach
        m, n = 2 * one + 1, 2 * other + 1
        size = min(one, other) + 1
        of_shells = radial[near][..., layout.channels(shell)].reshape(near.sum(), table.n_operators, c, d, size)
        of_momenta = angular[start : start + size * m * n, near].reshape(size, m, n, -1)
        block = np.einsum("pocdL,Lmnp->pocmdn", of_shells, of_momenta, optimize=True)
        blocks[near, :, i : i + c * m, j : j + d * n] = block.reshape(-1, table.n_operators, c * m, d * n)


def spline_weights(offsets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cardinal B-splines of degree 7 at ``offsets`` (n,) in [0, 1) from a node, (8, n); Cox-de Boor recursion."""
    weights = np.ones((1, len(offsets)))
    for order in range(1, DEGREE + 1):
        rising = (offsets + np.arange(order - 1, -1, -1)[:, None]) / order
        grown = np.zeros((order + 1, len(offsets)))
        grown[1:] += rising * weights
        grown[:-1] += (1 - rising) * weights
        weights = grown
    return weights


def _intervals(
    table: PairTable, coordinates: NDArray[np.float64], distances: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """First row of coefficients and position within the interval; row -1 for distance zero."""
    node = np.floor(coordinates)
    rows = node.astype(np.int64) - table.first_node + _FIRST_COEFFICIENT - _BEFORE
    if (rows[distances > 0] < _FIRST_COEFFICIENT).any():
        raise ValueError("a distance is below the shortest of the table")
    return np.where(distances > 0, rows, -1), coordinates - node

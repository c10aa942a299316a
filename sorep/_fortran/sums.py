"""Fourier sums of real-space blocks, A(R) -> A(k): sums.f90, and its twin in NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sorep._fortran.load import load

if TYPE_CHECKING:
    from sorep.bloch import BlockGroups, Inversion

KERNEL = load("sums")


def bloch_sums(
    groups: BlockGroups, kpoints: NDArray[np.float64], n_functions: int, inversion: Inversion | None
) -> NDArray[Any]:
    """Matrices B(k) + B(k)^dagger of all operators, B the Fourier sum of the groups' blocks.

    Parameters
    ----------
    groups : BlockGroups
    kpoints : (n_k, 3) array
        Fractional.
    n_functions : int
    inversion : Inversion or None
        With one, matrices between the real combinations that it describes.

    Returns
    -------
    (n_operators, n_k, n, n) array
        Complex, or real with an inversion centre.

    Raises
    ------
    MemoryError
    """
    if KERNEL.module is None:
        return bloch_sums_numpy(groups, kpoints, n_functions, inversion)
    n_k, n_components = len(kpoints), 2 if inversion is None else 1
    result = np.zeros((groups.n_operators, n_k, n_functions, n_functions, n_components))
    if inversion is None:
        positions, partner, parity = np.zeros((n_functions, 3)), np.arange(n_functions), np.ones(n_functions)
    else:
        positions, partner, parity = inversion.positions, inversion.partner, inversion.parity
    status = KERNEL.module.f90wrap_sums__bloch_sums(
        np.ascontiguousarray(kpoints, dtype=float).T,
        _integers(groups.translations).T,
        _integers(groups.rows).T,
        _integers(groups.columns).T,
        _integers(groups.starts),
        _integers(groups.offsets),
        _integers(groups.images),
        groups.data,
        int(inversion is not None),
        np.ascontiguousarray(positions).T,
        _integers(partner),
        np.ascontiguousarray(parity),
        n_k,
        len(groups.translations),
        len(groups.rows),
        len(groups.images),
        len(groups.data),
        n_functions,
        groups.n_operators,
        n_components,
        result.T,
    )
    if status != 0:
        raise MemoryError("no memory for the work space of a Fourier sum")
    return result[..., 0] if inversion is not None else result.view(complex)[..., 0]


def _integers(values: NDArray[np.int64]) -> NDArray[np.int32]:
    return np.ascontiguousarray(values, dtype=np.int32)


def phase_factors(translations: NDArray[np.int64], kpoints: NDArray[np.float64]) -> NDArray[np.complex128]:
    """exp(2 pi i k.R), (n_k, n_R), as products of one factor for each axis."""
    result = np.ones((len(kpoints), len(translations)), dtype=complex)
    for axis in range(3):
        along = translations[:, axis]
        lowest = along.min(initial=0)
        multiples = np.arange(lowest, along.max(initial=0) + 1)
        result *= np.exp(2j * np.pi * np.multiply.outer(kpoints[:, axis], multiples))[:, along - lowest]
    return result


def bloch_sums_numpy(
    groups: BlockGroups, kpoints: NDArray[np.float64], n_functions: int, inversion: Inversion | None
) -> NDArray[Any]:
    """`bloch_sums` in NumPy: the same result, up to rounding, without a compiler."""
    n_k = len(kpoints)
    phases = phase_factors(groups.translations, kpoints)
    shape = (groups.n_operators, n_k, n_functions, n_functions)
    result = np.zeros(shape, dtype=complex if inversion is None else float)
    for group, (start, stop) in enumerate(zip(groups.starts[:-1], groups.starts[1:], strict=True)):
        (row, n_rows), (column, n_columns) = groups.rows[group], groups.columns[group]
        factors = phases[:, groups.images[start:stop]]
        if inversion is not None:
            between = inversion.positions[column] - inversion.positions[row]
            factors = factors * np.exp(2j * np.pi * (kpoints @ between))[:, None]
        blocks = groups.data[groups.offsets[group] : groups.offsets[group + 1]].reshape(stop - start, -1)
        sums = np.concatenate([factors.real, factors.imag]) @ blocks
        cosine, sine = sums.reshape(2, n_k, groups.n_operators, n_rows, n_columns).transpose(0, 2, 1, 3, 4)
        rows, columns = slice(row, row + n_rows), slice(column, column + n_columns)
        if inversion is None:
            result[..., rows, columns] += cosine + 1j * sine
        else:
            _add_real(result, cosine, sine, rows, columns, inversion)
    return result + result.conj().swapaxes(-1, -2)


def _add_real(
    result: NDArray[np.float64],
    cosine: NDArray[np.float64],
    sine: NDArray[np.float64],
    rows: slice,
    columns: slice,
    inversion: Inversion,
) -> None:
    """Add one group's share between the real combinations of `sorep.bloch.Inversion`."""
    partner_of_row, partner_of_column = inversion.partner[rows.start], inversion.partner[columns.start]
    opposite_rows = slice(partner_of_row, partner_of_row + rows.stop - rows.start)
    row_parity, parity = inversion.parity[rows][:, None], inversion.parity[columns]
    row_alone, column_alone = partner_of_row == rows.start, partner_of_column == columns.start
    if column_alone:  # the column's combination is x (even) or i x (odd)
        cosine, sine = np.where(parity > 0, cosine, -sine), np.where(parity > 0, sine, cosine)
        if row_alone:
            result[..., rows, columns] += np.where(row_parity > 0, cosine, sine)
        else:
            result[..., rows, columns] += np.sqrt(2) * cosine
            result[..., opposite_rows, columns] += np.sqrt(2) * sine
        return
    first, second = sorted((columns.start, partner_of_column))
    n_columns = columns.stop - columns.start
    plus, minus = slice(first, first + n_columns), slice(second, second + n_columns)
    if row_alone:
        result[..., rows, plus] += np.sqrt(2) * np.where(row_parity > 0, cosine, sine)
        result[..., rows, minus] += np.sqrt(2) * np.where(row_parity > 0, -sine, cosine)
        return
    sign = 1.0
    if columns.start == second:  # a function after its partner
        cosine, sine, sign = parity * cosine, parity * sine, -1.0
    result[..., rows, plus] += cosine
    result[..., rows, minus] -= sign * sine
    result[..., opposite_rows, plus] += sine
    result[..., opposite_rows, minus] += sign * cosine

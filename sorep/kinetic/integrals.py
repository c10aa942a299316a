"""Two-centre integrals by libcint through PySCF: the plain route, which tables are made of and compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pyscf import gto
from pyscf.gto import moleintor

from sorep.kinetic.basis import Shell
from sorep.kinetic.orbitals import ElementShells

_EXPONENT_CUTOFF = 60.0  # libcint skips primitive pairs whose exponential factor is below exp(-60)
_MOST_SHELLS = 20_000  # in one call: libcint's arrays are of 32-bit integers


def two_centre_integrals(
    integrals: Sequence[str], one: ElementShells, other: ElementShells, vectors: NDArray[np.float64]
) -> list[NDArray[np.float64]]:
    """<0|A|R> between all functions of two elements.

    Parameters
    ----------
    integrals : sequence of str
        libcint's names of the operators A, over real spherical functions, e.g. ``"int1e_ovlp_sph"``.
    one, other : ElementShells
        Functions at the origin and at R.
    vectors : (n, 3) array
        R, Bohr.

    Returns
    -------
    list of (n, n_one, n_other) arrays
        One for each operator. Functions without a shell (see `ElementShells.compact`) have zeros.
    """
    result = [np.zeros((len(vectors), one.n_functions, other.n_functions)) for _ in integrals]
    if not (one.shells and other.shells):
        return result
    rows, columns = one.function_indices, other.function_indices
    size = max(1, _MOST_SHELLS // len(other.shells))
    for start in range(0, len(vectors), size):
        chunk = vectors[start : start + size]
        atm, bas, env = _libcint_arrays(one, other, chunk)
        shells = (0, len(one.shells), len(one.shells), len(bas))
        for name, out in zip(integrals, result, strict=True):
            block = moleintor.getints(name, atm, bas, env, shls_slice=shells)
            block = block.reshape(len(rows), len(chunk), len(columns)).transpose(1, 0, 2)
            out[np.ix_(np.arange(start, start + len(chunk)), rows, columns)] = block
    return result


def _libcint_arrays(one: ElementShells, other: ElementShells, vectors: NDArray[np.float64]) -> tuple:
    """One atom of the first element at the origin and atoms of the second at all vectors: atm, bas, env."""
    env = [np.zeros(gto.PTR_ENV_START)]
    env[0][gto.PTR_EXPCUTOFF] = _EXPONENT_CUTOFF
    pointer = gto.PTR_ENV_START
    tables = []
    for element in (one, other):
        rows = []
        for shell in element.shells:
            n_primitives, n_contractions = shell.coefficients.shape
            rows.append(
                (0, shell.angular_momentum, n_primitives, n_contractions, 0, pointer, pointer + n_primitives, 0)
            )
            env += [shell.exponents, shell.coefficients.T.ravel()]
            pointer += n_primitives * (1 + n_contractions)
        tables.append(np.array(rows, dtype=np.int32))
    coordinates = np.concatenate([np.zeros((1, 3)), vectors])
    atm = np.zeros((len(coordinates), gto.ATM_SLOTS), dtype=np.int32)
    atm[:, gto.PTR_COORD] = pointer + 3 * np.arange(len(coordinates))
    bas = np.concatenate([tables[0], np.tile(tables[1], (len(vectors), 1))])
    bas[len(tables[0]) :, gto.ATOM_OF] = np.repeat(np.arange(1, len(coordinates)), len(tables[1]))
    return atm, bas, np.concatenate([*env, coordinates.ravel()])


def pair_cutoff(one: ElementShells, other: ElementShells, precision: float) -> float:
    """Distance (Bohr) beyond which every integral between two elements' functions is below ``precision``.

    Bounds an overlap of primitives by the Gaussian product theorem, times the factor that the kinetic energy adds.
    """
    return max((_shell_cutoff(s, t, precision) for s in one.shells for t in other.shells), default=0.0)


def _shell_cutoff(one: Shell, other: Shell, precision: float) -> float:
    # The most diffuse primitives decide at large distance; summed coefficients bound all contractions.
    i, j = np.argmin(one.exponents), np.argmin(other.exponents)
    a, b = one.exponents[i], other.exponents[j]
    reduced = a * b / (a + b)
    scale = np.abs(one.coefficients).sum(0).max() * np.abs(other.coefficients).sum(0).max()
    scale *= (np.pi / (a + b)) ** 1.5
    power = one.angular_momentum + other.angular_momentum
    distance = 1.0
    for _ in range(8):  # the logarithm converges within a few steps
        growth = scale * max(distance, 1.0) ** power * max(1.0, 2 * (reduced * distance) ** 2)
        distance = np.sqrt(max(np.log(growth / precision), 1.0) / reduced)
    return float(distance)

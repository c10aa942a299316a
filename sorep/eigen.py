"""Eigenvalues of Hermitian pencils A c = e S c, one for each k point: which route for which size.

Small pencils are solved many at a time, large ones one after the other (_fortran.eigen). Where S is nearly
singular the functions that span its null space are removed first (canonical orthogonalisation: P.-O. Loewdin,
Adv. Quantum Chem. 5, 185 (1970)). Real matrices stay real, which is about four times cheaper.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from sorep._fortran.eigen import KERNEL, Matrices, each_eigenvalues, large_pencil_eigenvalues, pencil_eigenvalues
from sorep.errors import SpectrumError

LINEAR_DEPENDENCE_THRESHOLD = 1e-8
"""Eigenvectors of the overlap below this eigenvalue are removed (canonical orthogonalisation)."""

_LANES = 4 if KERNEL.active else 1  # problems that the kernel solves side by side, if there are as many
_LARGE = 200 if KERNEL.active else 16  # functions; from here on one problem after the other is faster


def generalized_eigenvalues(a: Matrices, s: Matrices) -> list[NDArray[np.float64]]:
    """Eigenvalues of the Hermitian pencils A c = e S c, with canonical orthogonalisation where S is near singular.

    Parameters
    ----------
    a, s : (n_k, n, n) Hermitian arrays, both real or both complex

    Returns
    -------
    list of n_k ascending arrays; shorter than n where functions were removed

    Raises
    ------
    SpectrumError
        ``non-finite-matrix`` where an element is not a finite number.
    """
    n_k, n, _ = a.shape
    solve = pencil_eigenvalues if _side_by_side(n_k, n) else large_pencil_eigenvalues
    eigenvalues, smallest = solve(a, s)
    is_solved = (smallest > 0) & ~np.isnan(eigenvalues[:, 0])
    for k in np.flatnonzero(is_solved & (smallest <= LINEAR_DEPENDENCE_THRESHOLD)):
        is_solved[k] = _is_above_threshold(s[k])
    return [eigenvalues[k] if is_solved[k] else _canonical_eigenvalues(a[k], s[k]) for k in range(n_k)]


def hermitian_eigenvalues(a: Matrices) -> NDArray[np.float64]:
    """Eigenvalues of Hermitian or real symmetric matrices (n_k, n, n), as (n_k, n), ascending.

    Raises
    ------
    SpectrumError
        ``non-finite-matrix`` where an element is not a finite number.
    """
    n_k, n, _ = a.shape
    if _side_by_side(n_k, n):
        eigenvalues, _ = pencil_eigenvalues(a, None)
    else:
        eigenvalues = each_eigenvalues((matrix.T for matrix in a), n_k, n)
    for k in np.flatnonzero(np.isnan(eigenvalues[:, 0])):
        _check_finite(a[k])
        eigenvalues[k] = np.linalg.eigvalsh(a[k])
    return eigenvalues


def _side_by_side(n_k: int, n: int) -> bool:
    """Whether the kernel for small problems is the faster one; with lanes unused it takes as long as with all."""
    return n * -(-n_k // _LANES) * _LANES < _LARGE * n_k


def _is_above_threshold(s: Matrices) -> bool:
    """Whether no eigenvalue of S is below the threshold, so that it can be subtracted from all."""
    (potrf,) = scipy.linalg.get_lapack_funcs(("potrf",), (s,))
    return potrf(s - LINEAR_DEPENDENCE_THRESHOLD * np.eye(len(s)), clean=0)[1] == 0


def _canonical_eigenvalues(a: Matrices, s: Matrices) -> NDArray[Any]:
    _check_finite(a)
    _check_finite(s)
    values, vectors = scipy.linalg.eigh(s)
    keep = values > LINEAR_DEPENDENCE_THRESHOLD
    orthogonal = vectors[:, keep] / np.sqrt(values[keep])
    return np.linalg.eigvalsh(orthogonal.conj().T @ a @ orthogonal)


def _check_finite(matrix: Matrices) -> None:
    if not np.isfinite(matrix).all():
        raise SpectrumError(
            "a matrix between Bloch sums holds non-finite numbers",
            code="non-finite-matrix",
            remedy="check the structure and the basis set for extreme values",
        )

"""Eigenvalues of Hermitian and real symmetric matrices and pencils, without eigenvectors: eigen.f90, and its twins.

`pencil_eigenvalues` is for many small problems, which the kernel solves side by side in the vector registers;
`each_eigenvalues` for large matrices, one after the other. Neither raises for matrices that cannot be solved: it
says which they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sorep._fortran.load import load

KERNEL = load("eigen")

Matrices = NDArray[np.inexact[Any]]


def pencil_eigenvalues(a: Matrices, s: Matrices | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues of A c = e S c, or of A c = e c, for many small matrices at once.

    A problem's result has the same bits whatever others are solved with it.

    Parameters
    ----------
    a, s : (n_k, n, n) arrays, both complex or both real
        Hermitian or symmetric; their lower triangles count. S is the identity where None.

    Returns
    -------
    eigenvalues : (n_k, n) array
        Ascending; NaN where a matrix is not finite, S is not positive definite, or its magnitude is extreme.
    bound : (n_k,) array
        Lower bound on the smallest eigenvalue of S, 1 / tr S^-1; zero or NaN where S is not positive definite.

    Raises
    ------
    ValueError
        Where shapes make no sense.
    """
    a, s = _checked(a, s)
    module = KERNEL.module
    if module is None:
        return pencil_eigenvalues_numpy(a, s)
    n_k, n, _ = a.shape
    overlaps = a[:0] if s is None else s
    diagonal, squares, bound = np.empty((n_k, n)), np.empty((n_k, n)), np.empty(n_k)
    reduce = module.f90wrap_eigen__reduce_complex if np.iscomplexobj(a) else module.f90wrap_eigen__reduce_real
    reduce(a.T, overlaps.T, n, n_k, len(overlaps), diagonal.T, squares.T, bound)
    return _tridiagonal_eigenvalues(module, diagonal, squares), bound


def pencil_eigenvalues_numpy(a: Matrices, s: Matrices | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`pencil_eigenvalues` in NumPy: the same result, up to rounding, without a compiler."""
    a, s = _checked(a, s)
    if s is None:
        return _eigvalsh(a), np.ones(len(a))
    if not np.isfinite(s).all():
        usable = np.all(np.isfinite(s), axis=(1, 2))
        eigenvalues, bound = pencil_eigenvalues_numpy(a, np.where(usable[:, None, None], s, np.eye(s.shape[-1])))
        eigenvalues[~usable], bound[~usable] = np.nan, np.nan
        return eigenvalues, bound
    try:
        lower = np.linalg.cholesky(s)
    except np.linalg.LinAlgError:
        if len(a) == 1:
            return np.full(a.shape[:2], np.nan), np.zeros(1)
        each = [pencil_eigenvalues_numpy(a[k : k + 1], s[k : k + 1]) for k in range(len(a))]
        return np.concatenate([values for values, _ in each]), np.concatenate([bound for _, bound in each])
    inverse = np.linalg.inv(lower)
    # || L^-1 ||_F^2 = tr S^-1 >= 1 / (smallest eigenvalue)
    bound = 1.0 / np.einsum("kij,kij->k", inverse, inverse.conj()).real
    with np.errstate(invalid="ignore"):
        reduced = inverse @ a @ inverse.conj().transpose(0, 2, 1)
    return _eigvalsh(reduced), bound


def each_eigenvalues(matrices: Iterable[Matrices], n_k: int, n: int) -> NDArray[np.float64]:
    """Eigenvalues of large matrices, which are asked for one after the other.

    Parameters
    ----------
    matrices : iterable of n_k (n, n) arrays
        Hermitian or symmetric, column-major for speed; their lower triangles count.

    Returns
    -------
    (n_k, n) array
        Ascending; NaN where a matrix is not finite or its magnitude is extreme.
    """
    module = KERNEL.module
    if module is None:
        return each_eigenvalues_numpy(matrices, n_k, n)
    diagonal, squares = np.empty((n_k, n)), np.empty((n_k, n))
    for matrix, *tridiagonal in zip(matrices, diagonal, squares, strict=True):
        _check_shape(matrix, (n, n))
        if np.iscomplexobj(matrix):
            module.f90wrap_eigen__tridiagonalize_complex(np.asfortranarray(matrix, np.complex128), n, *tridiagonal)
        else:
            module.f90wrap_eigen__tridiagonalize_real(np.asfortranarray(matrix, np.float64), n, *tridiagonal)
    return _tridiagonal_eigenvalues(module, diagonal, squares)


def each_eigenvalues_numpy(matrices: Iterable[Matrices], n_k: int, n: int) -> NDArray[np.float64]:
    """`each_eigenvalues` in NumPy: the same result, up to rounding, without a compiler."""
    eigenvalues = np.empty((n_k, n))
    for out, matrix in zip(eigenvalues, matrices, strict=True):
        _check_shape(matrix, (n, n))
        out[:] = _eigvalsh(matrix[None])[0]
    return eigenvalues


def _checked(a: Matrices, s: Matrices | None) -> tuple[Matrices, Matrices | None]:
    """Contiguous, and of one type."""
    is_complex = np.iscomplexobj(a) or (s is not None and np.iscomplexobj(s))
    dtype = np.complex128 if is_complex else np.float64
    a = np.ascontiguousarray(a, dtype=dtype)
    _check_shape(a, (len(a), a.shape[-1], a.shape[-1]))
    if s is not None:
        s = np.ascontiguousarray(s, dtype=dtype)
        _check_shape(s, a.shape)
    return a, s


def _check_shape(matrices: Matrices, expected: tuple[int, ...]) -> None:
    if matrices.shape != expected:
        raise ValueError(f"matrices have the shape {matrices.shape} instead of {expected}")


def _tridiagonal_eigenvalues(
    module: ModuleType, diagonal: NDArray[np.float64], squares: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Eigenvalues of tridiagonal matrices (n_k, n), in the place of their diagonals."""
    n_k, n = diagonal.shape
    converged = np.empty(n_k, dtype=np.intc)
    module.f90wrap_eigen__tridiagonal_eigenvalues(diagonal.T, squares.T, n, n_k, converged)
    diagonal[converged == 0] = np.nan
    diagonal.sort(axis=1)
    return diagonal


def _eigvalsh(matrices: Matrices) -> NDArray[Any]:
    # LAPACK may hang or raise where an element is not finite.
    unusable = ~np.all(np.isfinite(matrices), axis=(1, 2))
    if unusable.any():
        matrices = np.where(unusable[:, None, None], 0, matrices)
    eigenvalues = np.linalg.eigvalsh(matrices)
    eigenvalues[unusable] = np.nan
    return eigenvalues

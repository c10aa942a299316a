"""Eigenvalues of Hermitian and real symmetric matrices and pencils, without eigenvectors: eigen.f90, and its twins.

`pencil_eigenvalues` is for many small problems, which the kernel solves side by side in the vector registers;
`large_pencil_eigenvalues` and, without S, `each_eigenvalues` for large ones, one after the other. None raises for
matrices that cannot be solved: it says which they are. Large pencils are reduced by products of real matrices, for
which the kernel is given the dgemm of the BLAS library that SciPy came with (scipy.linalg.cython_blas).
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import numpy as np
import scipy.linalg
import scipy.linalg.cython_blas
from numpy.typing import NDArray

from sorep._fortran.load import load

KERNEL = load("eigen")

Matrices = NDArray[np.inexact[Any]]


def _dgemm_address() -> int:
    """Address of SciPy's dgemm, or 0 where its integers are not of C's type."""
    capsule = scipy.linalg.cython_blas.__pyx_capi__["dgemm"]  # pyright: ignore[reportAttributeAccessIssue]
    name = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", ctypes.pythonapi))
    address = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi)
    )
    signature = name(capsule)
    has_c_integers = signature.startswith(b"void (char *, char *, int *, int *, int *, ")
    return address(capsule, signature) if has_c_integers else 0


_DGEMM = _dgemm_address()
_PROBES = 8  # vectors that S^-1 is judged by, and what their verdict is multiplied by: see large_pencil_eigenvalues
_PROBE_MARGIN = 0.01


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


def large_pencil_eigenvalues(a: Matrices, s: Matrices) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues of A c = e S c for large matrices, one problem after the other.

    Parameters
    ----------
    a, s : (n_k, n, n) Hermitian or symmetric arrays, both complex or both real

    Returns
    -------
    eigenvalues : (n_k, n) array
        As `pencil_eigenvalues` gives them.
    estimate : (n_k,) array
        The smallest eigenvalue of S is larger than this, beyond reasonable doubt; zero or NaN where S is not positive
        definite.

    Raises
    ------
    ValueError
        Where shapes make no sense.

    Notes
    -----
    For a vector p of independent random elements with mean square one, |L^-1 p|^2 is at least |u.p|^2 / e, where u is
    the eigenvector of S to its smallest eigenvalue e. The estimate is 0.01 / |L^-1 p|^2 for the best of eight p: it can
    be too large only if |u.p|^2 < 0.01 for all of them, which has a chance of about 1e-9 where S is real and 1e-16
    where it is complex. The vectors are the same for every S.
    """
    a, s = _checked_pencils(a, s)
    module = KERNEL.module
    if module is None or _DGEMM == 0:
        return large_pencil_eigenvalues_numpy(a, s)
    n_k, n, _ = a.shape
    diagonal, squares = np.empty((n_k, n)), np.empty((n_k, n))
    norms = [_solve_large(module, *problem) for problem in zip(a, s, diagonal, squares, strict=True)]
    with np.errstate(divide="ignore"):
        estimate = np.where(norms, _PROBE_MARGIN / np.array(norms), 0.0)
    return _tridiagonal_eigenvalues(module, diagonal, squares), estimate


def large_pencil_eigenvalues_numpy(a: Matrices, s: Matrices) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`large_pencil_eigenvalues` by LAPACK: the same eigenvalues, up to rounding; its own estimate, divided by ten."""
    a, s = _checked_pencils(a, s)
    eigenvalues, estimate = np.full(a.shape[:2], np.nan), np.zeros(len(a))
    names = ("potrf", "pocon", "hegst") if np.iscomplexobj(a) else ("potrf", "pocon", "sygst")
    potrf, pocon, gst = scipy.linalg.get_lapack_funcs(names, (a, s))
    for k, (a_k, s_k) in enumerate(zip(a, s, strict=True)):
        # A transposed Hermitian matrix has the same eigenvalues, and LAPACK's order.
        factor, info = potrf(s_k.T, lower=1, clean=0)
        if info == 0 and np.isfinite(s_k.trace()):
            estimate[k] = 0.1 * pocon(factor, 1.0, uplo="L")[0]
            eigenvalues[k] = _eigvalsh(gst(a_k.T, factor, itype=1, lower=1)[0][None])[0]
    return eigenvalues, estimate


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
        dtype = np.complex128 if np.iscomplexobj(matrix) else np.float64
        _solve_large(module, np.ascontiguousarray(matrix.T, dtype), None, *tridiagonal)
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
    return (_checked_pencils(a, a)[0], None) if s is None else _checked_pencils(a, s)


def _checked_pencils(a: Matrices, s: Matrices) -> tuple[Matrices, Matrices]:
    dtype = np.complex128 if np.iscomplexobj(a) or np.iscomplexobj(s) else np.float64
    a, s = np.ascontiguousarray(a, dtype=dtype), np.ascontiguousarray(s, dtype=dtype)
    _check_shape(a, (len(a), a.shape[-1], a.shape[-1]))
    _check_shape(s, a.shape)
    return a, s


def _check_shape(matrices: Matrices, expected: tuple[int, ...]) -> None:
    if matrices.shape != expected:
        raise ValueError(f"matrices have the shape {matrices.shape} instead of {expected}")


def _solve_large(
    module: ModuleType,
    a: Matrices,
    s: Matrices | None,
    diagonal: NDArray[np.float64],
    squares: NDArray[np.float64],
) -> float:
    """Tridiagonal form of A c = e S c or A c = e c, for C-contiguous matrices of which the upper triangle counts.

    Returns the largest |L^-1 p|^2 of the probes, or zero where S is not positive definite.
    """
    n = len(a)
    parts = 2 if np.iscomplexobj(a) else 1
    n_probes, planes = (_PROBES, 2 * parts - 1) if s is not None else (0, parts)
    rows = 8 * ((n + 7) // 16 * 2 + 1)  # whole cache lines, an odd number of them so that columns spread over the cache
    probes = np.random.default_rng(0).uniform(-1, 1, (n_probes, n, parts)) * np.sqrt(3 / parts)
    overlaps = np.empty((0, n, n, parts)) if s is None else s.view(np.float64).reshape(1, n, n, parts)
    work_a, work_s = _aligned(planes, n_probes + n, rows), _aligned(len(overlaps), planes, n, rows)
    norm = np.empty(1)
    module.f90wrap_eigen__solve_large(
        a.view(np.float64).reshape(n, n, parts).T,
        overlaps.T,
        probes.T,
        n,
        len(overlaps),
        n_probes,
        parts,
        planes,
        rows,
        _DGEMM,
        work_a.T,
        work_s.T,
        diagonal,
        squares,
        norm,
    )
    return norm[0]


def _aligned(*shape: int) -> NDArray[np.float64]:
    """An empty array that begins at a cache line."""
    size = math.prod(shape)
    memory = np.empty(size + 8)
    start = -memory.ctypes.data % 64 // 8
    return memory[start : start + size].reshape(shape)


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

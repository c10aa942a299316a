"""Matrices between Bloch sums at any k, and their generalised eigenvalues.

Localised functions phi_mu in every cell form Bloch sums; an operator between them is (SOREP paper, eqs. 8-9)

    A_mu,nu(k) = sum_R exp(i k.R) <phi_mu,0 | A | phi_nu,R>,          A(k) c = e S(k) c   (eq. 4).

A `BlochOperator` adds up terms, each of which can give its share of the matrices at any k: `RealSpaceTerm` sums
blocks over lattice vectors; kinetic.reciprocal adds what converges faster over reciprocal vectors. Eigenvalues
are found in chunks of k points, so memory does not grow with the mesh.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray

from sorep.errors import SpectrumError

LINEAR_DEPENDENCE_THRESHOLD = 1e-8
"""Eigenvectors of the overlap below this eigenvalue are removed (canonical orthogonalisation)."""

DEFAULT_CHUNK_BYTES = 96 * 2**20
"""Memory that the matrices of one chunk of k points may take, workspace included."""

_DENSE_BLOCK_ELEMENTS = 2_000_000
_SMALL = 16  # functions; below this one call for all k points beats LAPACK's best for each
_ESTIMATE_MARGIN = 0.1  # LAPACK's estimate of a condition number is rarely off by more than a factor of three


_POTRF, _POCON, _HEGST = scipy.linalg.get_lapack_funcs(("potrf", "pocon", "hegst"), dtype=complex)


class BlochTerm(Protocol):
    """A share of one or several operators' matrices between Bloch sums."""

    def matrices(self, kpoints: NDArray[np.float64]) -> NDArray[np.complex128]:
        """Matrices at fractional ``kpoints`` (n_k, 3), as (n_operators, n_k, n, n)."""
        ...


class RealSpaceTerm:
    """Blocks <0|A|R>, kept for half of all pairs: the other half is their Hermitian conjugate.

    Parameters
    ----------
    n_functions : int
        Functions per cell, n.
    translations : (n_R, 3) int array
        Distinct lattice vectors, fractional.
    index : tuple of three (n_elements,) int arrays
        For each stored matrix element its lattice vector, row and column. Elements with the same three indices
        are added.
    elements : sequence of (n_elements,) float arrays
        The stored elements of each operator. ``A(k) = B(k) + B(k)^dagger`` with B their Fourier sum, so the
        caller stores each pair once and halves those that are their own conjugate.
    """

    def __init__(
        self,
        n_functions: int,
        translations: NDArray[np.int64],
        index: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
        elements: Sequence[NDArray[np.float64]],
    ) -> None:
        self.n_functions = n_functions
        self.translations = translations
        image, row, column = index
        shape = (n_functions * n_functions, len(translations))
        flat = (row * n_functions + column, image)
        self._blocks = [scipy.sparse.csr_array((values, flat), shape=shape) for values in elements]
        if shape[0] * shape[1] <= _DENSE_BLOCK_ELEMENTS:
            self._blocks = [block.toarray() for block in self._blocks]

    def matrices(self, kpoints: NDArray[np.float64]) -> NDArray[np.complex128]:
        phase = 2 * np.pi * self.translations @ kpoints.T
        cosine_sine = np.concatenate([np.cos(phase), np.sin(phase)], axis=1)
        n, n_k = self.n_functions, len(kpoints)
        result = np.empty((len(self._blocks), n_k, n, n), dtype=complex)
        for out, block in zip(result, self._blocks, strict=True):
            half = (block @ cosine_sine).T.reshape(2, n_k, n, n)
            out.real = half[0] + half[0].transpose(0, 2, 1)
            out.imag = half[1] - half[1].transpose(0, 2, 1)
        return result


class BlochOperator:
    """An operator between Bloch sums: A(k), S(k) and their eigenvalues at any k.

    Parameters
    ----------
    n_functions : int
        Functions per cell, n.
    terms : sequence of BlochTerm
        Their matrices are added. Each gives two operators, A and S, or one, A, where ``orthonormal``.
    orthonormal : bool
        Solve A(k) c = e c, without an overlap matrix.
    """

    def __init__(self, n_functions: int, terms: Sequence[BlochTerm], *, orthonormal: bool = False) -> None:
        self.n_functions = n_functions
        self.terms = tuple(terms)
        self.orthonormal = orthonormal

    def matrices(self, kpoints: NDArray[np.float64]) -> tuple[NDArray[np.complex128], NDArray[np.complex128] | None]:
        """A(k) and S(k), each (n_k, n, n); S is None for an orthonormal problem."""
        kpoints = np.atleast_2d(np.asarray(kpoints, dtype=float))
        total = self.terms[0].matrices(kpoints)
        for term in self.terms[1:]:
            total += term.matrices(kpoints)
        return total[0], None if self.orthonormal else total[1]

    def eigenvalues(
        self, kpoints: NDArray[np.float64], *, chunk_bytes: int = DEFAULT_CHUNK_BYTES
    ) -> list[NDArray[np.float64]]:
        """Ascending eigenvalues at each k point, in the unit of A.

        Where the overlap has eigenvalues below `LINEAR_DEPENDENCE_THRESHOLD` the functions that span them are
        removed, so that a k point has fewer than n eigenvalues; nothing is padded.

        Parameters
        ----------
        kpoints : (n_k, 3) array
            Fractional coordinates.
        chunk_bytes : int
            Bound on the memory for the matrices of one chunk of k points; at least one k point is done at a time.

        Returns
        -------
        list of (n_band,) arrays, one for each k point

        Raises
        ------
        SpectrumError
            ``non-finite-matrix`` where a matrix element is not a finite number.
        """
        result: list[NDArray[np.float64]] = []
        for chunk in self._chunks(np.atleast_2d(np.asarray(kpoints, dtype=float)), chunk_bytes):
            a, s = self.matrices(chunk)
            if not (np.isfinite(a).all() and (s is None or np.isfinite(s).all())):
                raise SpectrumError(
                    "a matrix between Bloch sums holds non-finite numbers",
                    code="non-finite-matrix",
                    remedy="check the structure and the basis set for extreme values",
                )
            result.extend(np.linalg.eigvalsh(a) if s is None else generalized_eigenvalues(a, s))
        return result

    def _chunks(self, kpoints: NDArray[np.float64], chunk_bytes: int) -> Iterator[NDArray[np.float64]]:
        # A, S, a Fourier sum and the reduced matrix are alive at once: about six complex matrices a k point.
        size = max(1, chunk_bytes // (6 * 16 * self.n_functions**2))
        for start in range(0, len(kpoints), size):
            yield kpoints[start : start + size]


def generalized_eigenvalues(a: NDArray[np.complex128], s: NDArray[np.complex128]) -> list[NDArray[np.float64]]:
    """Eigenvalues of the Hermitian pencils A c = e S c, with canonical orthogonalisation where S is near singular.

    Parameters
    ----------
    a, s : (n_k, n, n) Hermitian arrays

    Returns
    -------
    list of n_k ascending arrays; shorter than n where functions were removed
    """
    reduce = _reduce_together if a.shape[-1] < _SMALL else _reduce_each
    reduced, smallest = reduce(a, s)
    eigenvalues = np.linalg.eigvalsh(reduced)
    return [
        e if bound > LINEAR_DEPENDENCE_THRESHOLD else _canonical_eigenvalues(a[k], s[k])
        for k, (e, bound) in enumerate(zip(eigenvalues, smallest, strict=True))
    ]


def _reduce_together(
    a: NDArray[np.complex128], s: NDArray[np.complex128]
) -> tuple[NDArray[np.complex128], NDArray[np.float64]]:
    """L^-1 A L^-dagger with S = L L^dagger for all k at once, and a lower bound on each S's smallest eigenvalue."""
    try:
        lower = np.linalg.cholesky(s)
    except np.linalg.LinAlgError:
        return _reduce_each(a, s)
    inverse = np.linalg.inv(lower)
    # || L^-1 ||_F^2 = tr S^-1 >= 1 / (smallest eigenvalue)
    smallest = 1.0 / np.einsum("kij,kij->k", inverse, inverse.conj()).real
    return inverse @ a @ inverse.conj().transpose(0, 2, 1), smallest


def _reduce_each(
    a: NDArray[np.complex128], s: NDArray[np.complex128]
) -> tuple[NDArray[np.complex128], NDArray[np.float64]]:
    """The same for one k after the other, which is faster for larger matrices; the bound is LAPACK's estimate."""
    reduced = np.zeros_like(a)
    smallest = np.zeros(len(a))
    for k, (a_k, s_k) in enumerate(zip(a, s, strict=True)):
        factor, info = _POTRF(s_k, lower=1, clean=0)
        if info != 0:
            continue  # not positive definite to working precision: the bound stays zero
        norm = np.abs(s_k).sum(axis=0).max()
        reciprocal_condition, _ = _POCON(factor, norm, uplo="L")
        smallest[k] = _ESTIMATE_MARGIN * reciprocal_condition * norm
        reduced[k], _ = _HEGST(a_k, factor, itype=1, lower=1)
    return reduced, smallest


def _canonical_eigenvalues(a: NDArray[np.complex128], s: NDArray[np.complex128]) -> NDArray[Any]:
    values, vectors = scipy.linalg.eigh(s)
    keep = values > LINEAR_DEPENDENCE_THRESHOLD
    orthogonal = vectors[:, keep] / np.sqrt(values[keep])
    return np.linalg.eigvalsh(orthogonal.conj().T @ a @ orthogonal)

"""Matrices between Bloch sums at any k, and their generalised eigenvalues.

Localised functions phi_mu in every cell form Bloch sums; an operator between them is (SOREP paper, eqs. 8-9)

    A_mu,nu(k) = sum_R exp(i k.R) <phi_mu,0 | A | phi_nu,R>,          A(k) c = e S(k) c   (eq. 4).

A `BlochOperator` adds up terms, each of which can give its share of the matrices at any k: `RealSpaceTerm` sums
blocks over lattice vectors; kinetic.reciprocal adds what converges faster over reciprocal vectors. Eigenvalues
are found in chunks of k points, so memory does not grow with the mesh.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sorep._fortran.sums import bloch_sums
from sorep.cells import Cell
from sorep.eigen import generalized_eigenvalues, hermitian_eigenvalues

DEFAULT_CHUNK_BYTES = 96 * 2**20
"""Memory that the matrices of one chunk of k points may take, workspace included."""


class BlochTerm(Protocol):
    """A share of one or several operators' matrices between Bloch sums."""

    @property
    def is_real(self) -> bool:
        """Whether an inversion centre makes the matrices real at every k."""
        ...

    def matrices(self, kpoints: NDArray[np.float64]) -> NDArray[Any]:
        """Matrices at fractional ``kpoints`` (n_k, 3), as (n_operators, n_k, n, n); real where made so by inversion."""
        ...


@dataclass(frozen=True, eq=False)
class Inversion:
    """An inversion centre of the crystal, by which all matrices between Bloch sums can be made real.

    With k-dependent phases exp(ik.tau) the Bloch sum of a function goes over, by inversion and complex conjugation,
    into that of its image on the opposite atom, times its parity (-1)^l. Two such Bloch sums x and x' have the
    combinations (x + p x') / sqrt(2) and i (x - p x') / sqrt(2), a function that is its own image x or i x; between
    these, an operator that is real and keeps the symmetry has real matrix elements.

    Attributes
    ----------
    positions : (n, 3) array
        Of each function's centre, fractional, relative to the inversion centre.
    partner : (n,) int array
        The function on the opposite atom; a function may be its own.
    parity : (n,) array
        +1 or -1.
    """

    positions: NDArray[np.float64]
    partner: NDArray[np.int64]
    parity: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BlockGroups:
    """Blocks <0|A|R> of the operators between groups of neighbouring functions, flat for compiled loops.

    A group are the blocks between two ranges of functions (those of two atoms, say) for several R.

    Attributes
    ----------
    rows, columns : (n_groups, 2) int arrays
        First function and number of functions.
    starts : (n_groups + 1,) int array
        First block of each group.
    images : (n_blocks,) int array
        Lattice vector of each block, as an index into `translations`.
    translations : (n_R, 3) int array
        Distinct lattice vectors, fractional.
    data : (n_elements,) float array
        Blocks one after the other, each as (n_operators, n_rows, n_columns).
    n_operators : int
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    starts: NDArray[np.int64]
    images: NDArray[np.int64]
    translations: NDArray[np.int64]
    data: NDArray[np.float64]
    n_operators: int

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Of each group's elements in `data`, and the end, (n_groups + 1,)."""
        sizes = self.n_operators * self.rows[:, 1] * self.columns[:, 1] * np.diff(self.starts)
        return np.concatenate([[0], np.cumsum(sizes)])


class RealSpaceTerm:
    """Fourier sums of blocks <0|A|R>, kept for half of all pairs: the other half is their Hermitian conjugate.

    Parameters
    ----------
    n_functions : int
        Functions per cell, n.
    groups : BlockGroups
        ``A(k) = B(k) + B(k)^dagger`` with B the Fourier sum of all groups, so that each pair is given once, and
        halved if it is its own conjugate.
    inversion : Inversion or None
        Give real matrices between the combinations that it describes. Rows must then be functions that do not come
        after their partners, and every pair that inversion maps onto another is given once.
    """

    def __init__(self, n_functions: int, groups: BlockGroups, inversion: Inversion | None = None) -> None:
        self.n_functions = n_functions
        self.groups = groups
        self.inversion = inversion

    @property
    def is_real(self) -> bool:
        return self.inversion is not None

    def matrices(self, kpoints: NDArray[np.float64]) -> NDArray[Any]:
        return bloch_sums(self.groups, kpoints, self.n_functions, self.inversion)


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

    def matrices(self, kpoints: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """A(k) and S(k), each (n_k, n, n); S is None for an orthonormal problem.

        Hermitian in the gauge of the module's first formula; real symmetric where terms have an `Inversion`.
        """
        kpoints = np.atleast_2d(np.asarray(kpoints, dtype=float))
        total = self.terms[0].matrices(kpoints)
        for term in self.terms[1:]:
            total += term.matrices(kpoints)
        return total[0], None if self.orthonormal else total[1]

    def eigenvalues(
        self, kpoints: NDArray[np.float64], *, chunk_bytes: int = DEFAULT_CHUNK_BYTES
    ) -> list[NDArray[np.float64]]:
        """Ascending eigenvalues at each k point, in the unit of A.

        Where the overlap has eigenvalues below `sorep.eigen.LINEAR_DEPENDENCE_THRESHOLD` the functions that span them
        are removed, so that a k point has fewer than n eigenvalues; nothing is padded.

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
        kpoints = np.atleast_2d(np.asarray(kpoints, dtype=float))
        result: list[NDArray[np.float64]] = [np.empty(0)] * len(kpoints)
        # Functions are real, so that A(-k) is A(k)*: where -k is k, up to a reciprocal vector, A(k) is real.
        becomes_real = (2 * kpoints == np.rint(2 * kpoints)).all(axis=1)
        if all(term.is_real for term in self.terms):
            becomes_real[:] = False  # they are real already
        for real in (True, False):
            for indices in self._chunks(np.flatnonzero(becomes_real == real), chunk_bytes):
                a, s = self.matrices(kpoints[indices])
                if real:
                    a, s = np.real(a).copy(), None if s is None else np.real(s).copy()
                found = hermitian_eigenvalues(a) if s is None else generalized_eigenvalues(a, s)
                for index, values in zip(indices, found, strict=True):
                    result[index] = values
        return result

    def _chunks(self, indices: NDArray[np.int64], chunk_bytes: int) -> Iterator[NDArray[np.int64]]:
        # A, S, a Fourier sum and the reduced matrix are alive at once: about six complex matrices a k point.
        size = max(1, chunk_bytes // (6 * 16 * self.n_functions**2))
        for start in range(0, len(indices), size):
            yield indices[start : start + size]


@dataclass(frozen=True, eq=False)
class Operators:
    """The operators of a structure, with which its bands can be had at any k point.

    Attributes
    ----------
    cell : Cell
        To which fractional k points refer.
    operators : tuple of BlochOperator
        One for each spin; eigenvalues times ``unit`` are eV.
    degeneracy : float
        Electrons that one eigenvalue can hold: 2 / n_spin for a Kohn-Sham spectrum, 1 for a kinetic one.
    n_electrons : float or None
        Per cell; None where the operator has no electrons to count.
    flags : tuple of str
        Remarks that a user should see.
    unit : float
        Factor from the operators' eigenvalues to eV (1 also for pure numbers, such as overlaps).
    """

    cell: Cell
    operators: tuple[BlochOperator, ...]
    degeneracy: float = 1.0
    n_electrons: float | None = None
    flags: tuple[str, ...] = ()
    unit: float = 1.0

"""Bloch sums and their generalised eigenvalues, on matrices made for the purpose."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from numpy.typing import NDArray

import sorep.bloch
from sorep._fortran.sums import bloch_sums_numpy
from sorep.bloch import BlochOperator, BlockGroups, RealSpaceTerm
from sorep.errors import SpectrumError

KPOINTS = np.array([[0, 0, 0], [0.5, 0, 0.5], [0.13, -0.29, 0.41], [1.13, -0.29, -1.59]])


def pencils(n: int, n_k: int, seed: int = 0) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Random Hermitian A and well-conditioned, positive S."""
    rng = np.random.default_rng(seed)
    a, b = (rng.normal(size=(n_k, n, n)) + 1j * rng.normal(size=(n_k, n, n)) for _ in range(2))
    return a + a.conj().transpose(0, 2, 1), b @ b.conj().transpose(0, 2, 1) + n * np.eye(n)


class Matrices:
    """A term that gives the same matrices at every k point, and counts how many it was asked for at a time."""

    is_real = False

    def __init__(self, *operators: NDArray) -> None:
        self.operators = np.array(operators, dtype=complex)
        self.asked: list[int] = []

    def matrices(self, kpoints: NDArray[np.float64]) -> NDArray[np.complex128]:
        self.asked.append(len(kpoints))
        return np.repeat(self.operators[:, None], len(kpoints), axis=1)


def groups_of(
    blocks: dict[tuple[int, int, int], NDArray[np.float64]], factors: tuple[float, ...] = (1.0,)
) -> BlockGroups:
    """One group with all blocks, for operators that are multiples of each other."""
    n = len(next(iter(blocks.values())))
    return BlockGroups(
        rows=np.array([[0, n]]),
        columns=np.array([[0, n]]),
        starts=np.array([0, len(blocks)]),
        images=np.arange(len(blocks)),
        translations=np.array(list(blocks)),
        data=np.array([[factor * block for factor in factors] for block in blocks.values()]).ravel(),
        n_operators=len(factors),
    )


class TestRealSpaceTerm:
    @pytest.fixture(autouse=True, params=["kernel", "twin"])
    def route(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        if request.param == "twin":
            monkeypatch.setattr(sorep.bloch, "bloch_sums", bloch_sums_numpy)

    @staticmethod
    def blocks(n: int = 3) -> dict[tuple[int, int, int], NDArray[np.float64]]:
        """Real blocks for R and -R, transposes of each other."""
        rng = np.random.default_rng(1)
        home = rng.normal(size=(n, n))
        found = {(0, 0, 0): home + home.T}
        for image in ((1, 0, 0), (0, 1, -2), (1, 1, 1)):
            block = rng.normal(size=(n, n))
            found[image] = block
            found[(-image[0], -image[1], -image[2])] = block.T
        return found

    @pytest.mark.parametrize("n", [1, 3, 20])
    @pytest.mark.parametrize("n_k", [1, 4, 7])
    def test_fourier_sum(self, n: int, n_k: int) -> None:
        blocks = self.blocks(n)
        half = {image: 0.5 * b if image == (0, 0, 0) else b for image, b in blocks.items() if image >= (0, 0, 0)}
        kpoints = np.concatenate([KPOINTS, np.random.default_rng(0).uniform(-1, 1, (3, 3))])[:n_k]
        expected = [sum(np.exp(2j * np.pi * np.dot(k, image)) * b for image, b in blocks.items()) for k in kpoints]
        once, twice = RealSpaceTerm(n, groups_of(half, (1.0, 2.0))).matrices(kpoints)
        np.testing.assert_allclose(once, expected, atol=1e-13)
        np.testing.assert_allclose(twice, 2 * np.array(expected), atol=1e-13)
        np.testing.assert_array_equal(once, once.conj().transpose(0, 2, 1))

    def test_groups_add_to_their_rows_and_columns(self) -> None:
        rng = np.random.default_rng(2)
        home, between = rng.normal(size=(2, 2)), rng.normal(size=(2, 2, 3))
        groups = BlockGroups(
            rows=np.array([[1, 2], [1, 2]]),
            columns=np.array([[1, 2], [3, 3]]),
            starts=np.array([0, 1, 3]),
            images=np.array([0, 0, 1]),
            translations=np.array([[0, 0, 0], [2, -1, 0]]),
            data=np.concatenate([home.ravel(), between.ravel()]),
            n_operators=1,
        )
        (found,) = RealSpaceTerm(6, groups).matrices(KPOINTS)
        expected = np.zeros((len(KPOINTS), 6, 6), dtype=complex)
        expected[:, 1:3, 1:3] = home + home.T
        phases = np.exp(2j * np.pi * KPOINTS @ [2, -1, 0])[:, None, None]
        expected[:, 1:3, 3:] = between[0] + phases * between[1]
        expected[:, 3:, 1:3] = expected[:, 1:3, 3:].conj().transpose(0, 2, 1)
        np.testing.assert_allclose(found, expected, atol=1e-14)

    def test_no_groups(self) -> None:
        nothing = np.zeros((0, 2), dtype=int)
        images, translations = np.zeros(0, dtype=int), np.zeros((0, 3), dtype=int)
        groups = BlockGroups(nothing, nothing, np.zeros(1, dtype=int), images, translations, np.zeros(0), 2)
        np.testing.assert_array_equal(RealSpaceTerm(4, groups).matrices(KPOINTS), np.zeros((2, len(KPOINTS), 4, 4)))

    def test_a_chain_has_the_band_of_the_textbook(self) -> None:
        # <0|A|1> = t and <0|S|1> = s: e(k) = (e0 + 2 t cos k) / (1 + 2 s cos k)
        e0, t, s = 0.3, -1.0, 0.2
        one = np.array([[0, 1]])
        groups = BlockGroups(
            one, one, np.array([0, 2]), np.arange(2), np.array([[0, 0, 0], [1, 0, 0]]), np.array([e0 / 2, 0.5, t, s]), 2
        )
        k = np.linspace(-0.5, 0.5, 11)
        found = BlochOperator(1, [RealSpaceTerm(1, groups)]).eigenvalues(np.outer(k, [1, 0, 0]))
        expected = (e0 + 2 * t * np.cos(2 * np.pi * k)) / (1 + 2 * s * np.cos(2 * np.pi * k))
        np.testing.assert_allclose(np.ravel(found), expected, atol=1e-13)


class TestBlochOperator:
    def test_terms_add_up(self) -> None:
        (a,), (s,) = pencils(4, 1)
        kpoints = KPOINTS[2:]
        parts = [Matrices(0.25 * a, 0.5 * s), Matrices(0.5 * a, 0.25 * s), Matrices(0.25 * a, 0.25 * s)]
        found = BlochOperator(4, parts).eigenvalues(kpoints)
        expected = scipy.linalg.eigh(a, s, eigvals_only=True)
        np.testing.assert_allclose(found, [expected] * len(kpoints), atol=1e-12)

    def test_orthonormal(self) -> None:
        (a,), _ = pencils(4, 1)
        operator = BlochOperator(4, [Matrices(a)], orthonormal=True)
        assert operator.matrices(KPOINTS)[1] is None
        kpoints = KPOINTS[2:]
        np.testing.assert_allclose(operator.eigenvalues(kpoints), [np.linalg.eigvalsh(a)] * len(kpoints), atol=1e-12)

    def test_one_k_point_may_be_given_as_a_vector(self) -> None:
        operator = BlochOperator(4, [Matrices(*(m[0] for m in pencils(4, 1)))])
        np.testing.assert_array_equal(operator.eigenvalues(KPOINTS[0]), operator.eigenvalues(KPOINTS[:1]))

    def test_matrices_are_real_where_minus_k_is_k(self) -> None:
        """Solved as real ones there: the imaginary part of a term, which is rounding, does not enter."""
        (a,), (s,) = (np.array([m[0].real + 1e-3j * np.triu(np.ones((4, 4)), 1)]) for m in pencils(4, 1))
        a, s = (m + m.conj().T for m in (a, s))
        own_reverse, general = BlochOperator(4, [Matrices(a, s)]).eigenvalues(
            np.array([[0.5, 0, -1.5], [0.5, 0, 0.25]])
        )
        np.testing.assert_allclose(own_reverse, scipy.linalg.eigh(a.real, s.real, eigvals_only=True), atol=1e-13)
        np.testing.assert_allclose(general, scipy.linalg.eigh(a, s, eigvals_only=True), atol=1e-13)

    def test_chunks_bound_the_matrices_alive_at_once(self) -> None:
        (a,), (s,) = pencils(4, 1)
        one_k = 6 * 16 * 4**2
        kpoints = np.full((10, 3), 0.1)
        for chunk_bytes, expected in ((1, [1] * 10), (3 * one_k, [3, 3, 3, 1]), (1000 * one_k, [10])):
            term = Matrices(a, s)
            found = BlochOperator(4, [term]).eigenvalues(kpoints, chunk_bytes=chunk_bytes)
            assert term.asked == expected
            np.testing.assert_allclose(found, [scipy.linalg.eigh(a, s, eigvals_only=True)] * 10, atol=1e-12)

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("which", [0, 1])
    def test_non_finite_matrices_stop_here(self, bad: float, which: int) -> None:
        matrices = [np.eye(3), np.eye(3)]
        matrices[which][0, 1] = matrices[which][1, 0] = bad
        with pytest.raises(SpectrumError) as caught:
            BlochOperator(3, [Matrices(*matrices)]).eigenvalues(KPOINTS)
        assert (caught.value.code, caught.value.stage) == ("non-finite-matrix", "spectrum")
        with pytest.raises(SpectrumError):
            BlochOperator(3, [Matrices(matrices[which])], orthonormal=True).eigenvalues(KPOINTS)

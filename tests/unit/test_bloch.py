"""Bloch sums and their generalised eigenvalues, on matrices made for the purpose."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from numpy.typing import NDArray

import sorep.bloch
from sorep.bloch import LINEAR_DEPENDENCE_THRESHOLD, BlochOperator, RealSpaceTerm, generalized_eigenvalues
from sorep.errors import SpectrumError

KPOINTS = np.array([[0, 0, 0], [0.5, 0, 0.5], [0.13, -0.29, 0.41], [1.13, -0.29, -1.59]])


def pencils(n: int, n_k: int, seed: int = 0) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Random Hermitian A and well-conditioned, positive S."""
    rng = np.random.default_rng(seed)
    a, b = (rng.normal(size=(n_k, n, n)) + 1j * rng.normal(size=(n_k, n, n)) for _ in range(2))
    return a + a.conj().transpose(0, 2, 1), b @ b.conj().transpose(0, 2, 1) + n * np.eye(n)


class Matrices:
    """A term that gives the same matrices at every k point, and counts how many it was asked for at a time."""

    def __init__(self, *operators: NDArray) -> None:
        self.operators = np.array(operators, dtype=complex)
        self.asked: list[int] = []

    def matrices(self, kpoints: NDArray[np.float64]) -> NDArray[np.complex128]:
        self.asked.append(len(kpoints))
        return np.repeat(self.operators[:, None], len(kpoints), axis=1)


class TestRealSpaceTerm:
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

    def term(self) -> tuple[RealSpaceTerm, dict]:
        blocks = self.blocks()
        half = {image: block for image, block in blocks.items() if image >= (0, 0, 0)}
        translations = np.array(list(half))
        image, row, column = np.meshgrid(np.arange(len(half)), np.arange(3), np.arange(3), indexing="ij")
        stored = np.array([0.5 * block if image == (0, 0, 0) else block for image, block in half.items()])
        index = (image.ravel(), row.ravel(), column.ravel())
        return RealSpaceTerm(3, translations, index, [stored.ravel(), 2 * stored.ravel()]), blocks

    @pytest.mark.parametrize("dense_elements", [0, 10**9])
    def test_fourier_sum(self, monkeypatch: pytest.MonkeyPatch, dense_elements: int) -> None:
        monkeypatch.setattr(sorep.bloch, "_DENSE_BLOCK_ELEMENTS", dense_elements)
        term, blocks = self.term()
        expected = [sum(np.exp(2j * np.pi * np.dot(k, image)) * b for image, b in blocks.items()) for k in KPOINTS]
        once, twice = term.matrices(KPOINTS)
        np.testing.assert_allclose(once, expected, atol=1e-13)
        np.testing.assert_allclose(twice, 2 * np.array(expected), atol=1e-13)
        np.testing.assert_array_equal(once, once.conj().transpose(0, 2, 1))

    def test_elements_with_one_index_are_added(self) -> None:
        index = (np.array([0, 0, 0]), np.array([0, 0, 1]), np.array([1, 1, 1]))
        term = RealSpaceTerm(2, np.zeros((1, 3), dtype=int), index, [np.array([1.0, 2.0, 0.5])])
        np.testing.assert_array_equal(term.matrices(np.zeros((1, 3)))[0, 0].real, [[0, 3], [3, 1]])

    def test_a_chain_has_the_band_of_the_textbook(self) -> None:
        # <0|A|1> = t and <0|S|1> = s: e(k) = (e0 + 2 t cos k) / (1 + 2 s cos k)
        e0, t, s = 0.3, -1.0, 0.2
        index = (np.array([0, 1]), np.zeros(2, dtype=int), np.zeros(2, dtype=int))
        term = RealSpaceTerm(1, np.array([[0, 0, 0], [1, 0, 0]]), index, [np.array([e0 / 2, t]), np.array([0.5, s])])
        k = np.linspace(-0.5, 0.5, 11)
        found = BlochOperator(1, [term]).eigenvalues(np.outer(k, [1, 0, 0]))
        expected = (e0 + 2 * t * np.cos(2 * np.pi * k)) / (1 + 2 * s * np.cos(2 * np.pi * k))
        np.testing.assert_allclose(np.ravel(found), expected, atol=1e-13)


class TestGeneralizedEigenvalues:
    @pytest.fixture(autouse=True, params=["all at once", "one by one"])
    def route(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sorep.bloch, "_SMALL", 10**6 if request.param == "all at once" else 0)

    @pytest.mark.parametrize(("n", "n_k"), [(1, 1), (1, 3), (7, 1), (7, 5), (40, 2)])
    def test_against_lapack(self, n: int, n_k: int) -> None:
        a, s = pencils(n, n_k)
        for found, ak, sk in zip(generalized_eigenvalues(a, s), a, s, strict=True):
            np.testing.assert_allclose(found, scipy.linalg.eigh(ak, sk, eigvals_only=True), atol=1e-12)

    def test_sum_rules(self) -> None:
        a, s = pencils(9, 4)
        found = np.array(generalized_eigenvalues(a, s))
        inverse = np.linalg.inv(s) @ a
        np.testing.assert_allclose(found.sum(axis=1), np.trace(inverse, axis1=1, axis2=2).real, atol=1e-11)
        np.testing.assert_allclose(
            (found**2).sum(axis=1), np.trace(inverse @ inverse, axis1=1, axis2=2).real, atol=1e-11
        )

    @pytest.mark.parametrize("extra", [1, 3])
    @pytest.mark.parametrize("singular", [(True,), (True, True), (False, True, False), (True, False)])
    def test_functions_that_add_nothing_are_removed(self, extra: int, singular: tuple[bool, ...]) -> None:
        """Combinations of functions that are there already change neither the space nor the eigenvalues."""
        n, rng = 6, np.random.default_rng(4)
        a, s = pencils(n + extra, len(singular))
        exact = []
        for k, is_singular in enumerate(singular):
            combine = np.eye(n + extra)
            if is_singular:
                combine[:, n:] = np.vstack([rng.normal(size=(n, extra)), np.zeros((extra, extra))])
                exact.append(scipy.linalg.eigh(a[k, :n, :n], s[k, :n, :n], eigvals_only=True))
            else:
                exact.append(scipy.linalg.eigh(a[k], s[k], eigvals_only=True))
            a[k], s[k] = combine.T @ a[k] @ combine, combine.T @ s[k] @ combine
        found = generalized_eigenvalues(a, s)
        assert [len(e) for e in found] == [n if is_singular else n + extra for is_singular in singular]
        for e, expected in zip(found, exact, strict=True):
            np.testing.assert_allclose(e, expected, atol=1e-10)

    def test_the_threshold(self) -> None:
        small = LINEAR_DEPENDENCE_THRESHOLD
        kept, removed = generalized_eigenvalues(
            np.array([np.diag([1, 6 * small]), np.diag([1, 6 * small])]).astype(complex),
            np.array([np.diag([1, 2 * small]), np.diag([1, 0.5 * small])]).astype(complex),
        )
        np.testing.assert_allclose(kept, [1, 3], rtol=1e-12)
        np.testing.assert_allclose(removed, [1], rtol=1e-12)

    def test_many_functions_above_the_threshold_are_all_kept(self) -> None:
        # The quick bound from the Cholesky factor is below the threshold although no eigenvalue of S is.
        n = 8
        s = np.diag(np.full(n, 3 * LINEAR_DEPENDENCE_THRESHOLD)).astype(complex)[None]
        a = s * np.arange(1, n + 1)
        np.testing.assert_allclose(generalized_eigenvalues(a, s)[0], np.arange(1, n + 1), rtol=1e-10)

    @pytest.mark.parametrize("n_k", [1, 3])
    def test_an_overlap_that_rounding_made_indefinite(self, n_k: int) -> None:
        rng = np.random.default_rng(2)
        q = np.linalg.qr(rng.normal(size=(5, 5)))[0]
        s = (q * [1, 2, 0.5, 1, -1e-13]) @ q.T
        a = (q * [3, 2, 1, 5, 7]) @ q.T
        found = generalized_eigenvalues(np.array([a] * n_k).astype(complex), np.array([s] * n_k).astype(complex))
        assert len(found) == n_k
        for e in found:
            np.testing.assert_allclose(e, [1, 2, 3, 5], atol=1e-10)

    def test_no_function_left(self) -> None:
        (found,) = generalized_eigenvalues(np.ones((1, 1, 1), complex), np.full((1, 1, 1), 1e-12, complex))
        assert found.shape == (0,)

    @pytest.mark.parametrize("n", [2, 12, 60])
    @pytest.mark.parametrize("factor", [0.1, 0.9, 1.1, 10])
    def test_the_count_is_that_of_the_overlaps_spectrum(self, n: int, factor: float) -> None:
        # However the smallest eigenvalue of S hides in it, it is found or let through for what it is.
        for seed in range(5):
            rng = np.random.default_rng(seed)
            q = np.linalg.qr(rng.normal(size=(n, n)) + 1j * rng.normal(size=(n, n)))[0]
            values = np.geomspace(factor * LINEAR_DEPENDENCE_THRESHOLD, 10, n)
            s = (q * values) @ q.conj().T
            (found,) = generalized_eigenvalues(s[None] * 2, 0.5 * (s + s.conj().T)[None])
            assert len(found) == np.count_nonzero(values > LINEAR_DEPENDENCE_THRESHOLD)
            np.testing.assert_allclose(found, 2, atol=1e-5)


class TestBlochOperator:
    def test_terms_add_up(self) -> None:
        (a,), (s,) = pencils(4, 1)
        parts = [Matrices(0.25 * a, 0.5 * s), Matrices(0.5 * a, 0.25 * s), Matrices(0.25 * a, 0.25 * s)]
        found = BlochOperator(4, parts).eigenvalues(KPOINTS)
        expected = scipy.linalg.eigh(a, s, eigvals_only=True)
        np.testing.assert_allclose(found, [expected] * len(KPOINTS), atol=1e-12)

    def test_orthonormal(self) -> None:
        (a,), _ = pencils(4, 1)
        operator = BlochOperator(4, [Matrices(a)], orthonormal=True)
        assert operator.matrices(KPOINTS)[1] is None
        np.testing.assert_allclose(operator.eigenvalues(KPOINTS), [np.linalg.eigvalsh(a)] * len(KPOINTS), atol=1e-12)

    def test_one_k_point_may_be_given_as_a_vector(self) -> None:
        operator = BlochOperator(4, [Matrices(*(m[0] for m in pencils(4, 1)))])
        np.testing.assert_array_equal(operator.eigenvalues(KPOINTS[0]), operator.eigenvalues(KPOINTS[:1]))

    def test_chunks_bound_the_matrices_alive_at_once(self) -> None:
        (a,), (s,) = pencils(4, 1)
        one_k = 6 * 16 * 4**2
        kpoints = np.zeros((10, 3))
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

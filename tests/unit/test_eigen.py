"""Eigenvalues of pencils by every route against LAPACK, on matrices that are easy, extreme or wrong."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.linalg

import sorep._fortran.eigen
import sorep.eigen
from sorep._fortran.eigen import large_pencil_eigenvalues
from sorep._fortran.load import Kernel
from sorep.eigen import LINEAR_DEPENDENCE_THRESHOLD, generalized_eigenvalues, hermitian_eigenvalues
from sorep.errors import SpectrumError

EPSILON = np.finfo(float).eps


def hermitian(shape, rng, *, is_real=False):
    matrices = rng.normal(size=shape) + (0 if is_real else 1j * rng.normal(size=shape))
    return matrices + matrices.conj().swapaxes(-1, -2)


def pencils(n, n_k, *, is_real=False, seed=0):
    """Random A, and a well-conditioned, positive S."""
    rng = np.random.default_rng(seed)
    b = rng.normal(size=(n_k, n, n)) + (0 if is_real else 1j * rng.normal(size=(n_k, n, n)))
    return hermitian((n_k, n, n), rng, is_real=is_real), b @ b.conj().swapaxes(-1, -2) + n * np.eye(n)


def unitary(n, rng):
    return np.linalg.qr(rng.normal(size=(n, n)) + 1j * rng.normal(size=(n, n)))[0]


def with_spectrum(values, rng):
    q = unitary(len(values), rng)
    matrix = (q * values) @ q.conj().T
    return 0.5 * (matrix + matrix.conj().T)


@pytest.fixture(autouse=True, params=["side by side", "one by one"])
def route(request, monkeypatch):
    monkeypatch.setattr(sorep.eigen, "_LARGE", 10**6 if request.param == "side by side" else 0)


@pytest.fixture(autouse=True, params=["as installed", "numpy"])
def kernel(request, monkeypatch):
    if request.param == "numpy":
        monkeypatch.setattr(sorep._fortran.eigen, "KERNEL", Kernel(None, "the twin is tested"))


class TestGeneralizedEigenvalues:
    @pytest.mark.parametrize("is_real", [True, False])
    def test_every_small_size_against_lapack(self, is_real):
        for n in range(1, 71):
            a, s = pencils(n, 1 + n % 3, is_real=is_real, seed=n)
            expected = [scipy.linalg.eigh(*pencil, eigvals_only=True) for pencil in zip(a, s, strict=True)]
            np.testing.assert_allclose(generalized_eigenvalues(a, s), expected, rtol=0, atol=1e-13 * abs(a).max())

    @pytest.mark.parametrize("is_real", [True, False])
    @pytest.mark.parametrize("n", [127, 128, 201, 264, 401])
    def test_large_ones(self, n, is_real):
        (a,), (s,) = pencils(n, 1, is_real=is_real)
        (found,) = generalized_eigenvalues(a[None], s[None])
        expected = scipy.linalg.eigh(a, s, eigvals_only=True)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14 * n * abs(expected).max())

    def test_sum_rules(self):
        a, s = pencils(9, 5)
        found = np.array(generalized_eigenvalues(a, s))
        inverse = np.linalg.inv(s) @ a
        np.testing.assert_allclose(found.sum(axis=1), np.trace(inverse, axis1=1, axis2=2).real, atol=1e-11)
        np.testing.assert_allclose(
            (found**2).sum(axis=1), np.trace(inverse @ inverse, axis1=1, axis2=2).real, atol=1e-11
        )

    def test_no_pencil(self):
        assert generalized_eigenvalues(np.empty((0, 3, 3)), np.empty((0, 3, 3))) == []

    @pytest.mark.parametrize("extra", [1, 3])
    @pytest.mark.parametrize("singular", [(True,), (True, True), (False, True, False, False, True), (True, False)])
    def test_functions_that_add_nothing_are_removed(self, extra, singular):
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

    @pytest.mark.parametrize("dtype", [float, complex])
    def test_the_threshold(self, dtype):
        small = LINEAR_DEPENDENCE_THRESHOLD
        kept, removed = generalized_eigenvalues(
            np.array([np.diag([1, 6 * small]), np.diag([1, 6 * small])]).astype(dtype),
            np.array([np.diag([1, 2 * small]), np.diag([1, 0.5 * small])]).astype(dtype),
        )
        np.testing.assert_allclose(kept, [1, 3], rtol=1e-12)
        np.testing.assert_allclose(removed, [1], rtol=1e-12)

    def test_many_functions_above_the_threshold_are_all_kept(self):
        # The quick bound is below the threshold although no eigenvalue of S is.
        n = 8
        s = np.diag(np.full(n, 3 * LINEAR_DEPENDENCE_THRESHOLD)).astype(complex)[None]
        a = s * np.arange(1, n + 1)
        np.testing.assert_allclose(generalized_eigenvalues(a, s)[0], np.arange(1, n + 1), rtol=1e-10)

    @pytest.mark.parametrize("smallest", [-1e-13, -0.3, 0.0])
    def test_an_overlap_that_is_not_positive_definite(self, smallest):
        rng = np.random.default_rng(2)
        q = unitary(5, rng)
        s = (q * [1, 2, 0.5, 1, smallest]) @ q.conj().T
        a = (q * [3, 2, 1, 5, 7]) @ q.conj().T
        good_a, good_s = pencils(5, 1)
        found = generalized_eigenvalues(np.array([a, good_a[0], a]), np.array([s, good_s[0], s]))
        for e in (found[0], found[2]):
            np.testing.assert_allclose(e, [1, 2, 3, 5], atol=1e-10)
        np.testing.assert_allclose(found[1], scipy.linalg.eigh(good_a[0], good_s[0], eigvals_only=True), atol=1e-12)

    def test_no_function_left(self):
        (found,) = generalized_eigenvalues(np.ones((1, 1, 1), complex), np.full((1, 1, 1), 1e-12, complex))
        assert found.shape == (0,)

    @pytest.mark.parametrize("n", [2, 12, 60])
    @pytest.mark.parametrize("factor", [0.1, 0.9, 1.1, 10])
    def test_the_count_is_that_of_the_overlaps_spectrum(self, n, factor):
        # However the smallest eigenvalue of S hides in it, it is found or let through for what it is.
        for seed in range(5):
            values = np.geomspace(factor * LINEAR_DEPENDENCE_THRESHOLD, 10, n)
            s = with_spectrum(values, np.random.default_rng(seed))[None]
            (found,) = generalized_eigenvalues(2 * s, s)
            assert len(found) == np.count_nonzero(values > LINEAR_DEPENDENCE_THRESHOLD)
            np.testing.assert_allclose(found, 2, atol=1e-5)

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("which", [0, 1])
    @pytest.mark.parametrize("dtype", [float, complex])
    def test_numbers_that_are_not_finite(self, bad, which, dtype):
        for n, element in ((1, (0, 0)), (7, (0, 0)), (7, (6, 6)), (7, (5, 2)), (20, (11, 3))):
            both = np.array(pencils(n, 3)).real.astype(dtype)
            row, column = element
            both[which, 1, row, column] = both[which, 1, column, row] = bad
            with pytest.raises(SpectrumError) as caught:
                generalized_eigenvalues(*both)
            assert (caught.value.code, caught.value.stage) == ("non-finite-matrix", "spectrum")


@pytest.mark.parametrize("is_real", [True, False])
class TestLargePencils:
    def test_a_result_does_not_depend_on_its_neighbours(self, is_real):
        for n in (5, 33, 150):
            a, s = pencils(n, 4, is_real=is_real)
            s[1] = -s[1]
            a[2, 0, 0] = np.nan
            together, estimates = large_pencil_eigenvalues(a, s)
            np.testing.assert_array_equal(np.isnan(together).all(axis=1), [False, True, True, False])
            np.testing.assert_array_equal(estimates > 0, [True, False, True, True])
            for k in range(4):
                alone, estimate = large_pencil_eigenvalues(a[k : k + 1], s[k : k + 1])
                np.testing.assert_array_equal(together[k], alone[0])
                assert estimates[k] == estimate[0]

    @pytest.mark.parametrize("smallest", [1e-12, 1e-8, 1e-4, 1e-1])
    @pytest.mark.parametrize("n", [1, 2, 20, 100])
    def test_the_estimate_is_below_the_smallest_eigenvalue_of_the_overlap(self, n, smallest, is_real):
        for seed in range(4):
            q = unitary(n, np.random.default_rng(seed))
            q = np.linalg.qr(q.real)[0] if is_real else q
            s = (q * np.geomspace(smallest, 10, n)) @ q.conj().T
            _, (estimate,) = large_pencil_eigenvalues(np.eye(n, dtype=s.dtype)[None], 0.5 * (s + s.conj().T)[None])
            assert 1e-3 * smallest / n < estimate < smallest

    def test_localised_and_sparse_null_vectors_are_found_as_well(self, is_real):
        n = 60
        for column in range(n):
            s = np.eye(n, dtype=float if is_real else complex)
            s[column, column] = 1e-9
            s[(column + 7) % n, column - 3] = s[column - 3, (column + 7) % n] = 1 - 1e-9
            _, (estimate,) = large_pencil_eigenvalues(s[None], s[None])
            assert estimate < 1e-9 * (1 + 1e-6)

    def test_without_a_blas_that_fits(self, is_real, monkeypatch):
        a, s = pencils(40, 2, is_real=is_real)
        expected, _ = large_pencil_eigenvalues(a, s)
        monkeypatch.setattr(sorep._fortran.eigen, "_DGEMM", 0)
        found, _ = large_pencil_eigenvalues(a, s)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * abs(expected).max())

    def test_shapes_that_make_no_sense_are_refused(self, is_real):
        a, s = pencils(4, 3, is_real=is_real)
        for arguments in ((a[0], s[0]), (a, s[:2]), (a[:, :3], s[:, :3])):
            with pytest.raises(ValueError):
                large_pencil_eigenvalues(*arguments)


class TestExtremeMatrices:
    @staticmethod
    def assert_eigenvalues(matrix):
        expected = np.linalg.eigvalsh(matrix)
        tolerance = 30 * EPSILON * abs(expected).max()
        np.testing.assert_allclose(hermitian_eigenvalues(matrix[None])[0], expected, rtol=0, atol=tolerance)
        (found,) = generalized_eigenvalues(matrix[None], np.eye(len(matrix), dtype=matrix.dtype)[None])
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)

    @pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 18, 47])
    def test_degenerate_and_sparse(self, n):
        rng = np.random.default_rng(n)
        band = np.eye(n, k=1) + np.eye(n, k=-1)
        self.assert_eigenvalues(np.zeros((n, n)))
        self.assert_eigenvalues(np.zeros((n, n), complex))
        self.assert_eigenvalues(3.7 * np.eye(n))
        self.assert_eigenvalues(np.ones((n, n)))
        self.assert_eigenvalues(band)  # a zero diagonal
        self.assert_eigenvalues(2 * np.eye(n) - band)
        self.assert_eigenvalues(band + np.diag(abs(np.arange(n) - n // 2.0)))  # Wilkinson's close pairs
        self.assert_eigenvalues(np.kron(np.eye(3), band) + 1e-14)  # weakly coupled copies
        self.assert_eigenvalues(with_spectrum(np.repeat([1.0, 2.0, 5.0], n)[:n], rng))
        self.assert_eigenvalues(np.diag(rng.normal(size=n)) + 1e-18 * hermitian((n, n), rng))

    @pytest.mark.parametrize("n", [2, 18, 47])
    @pytest.mark.parametrize("is_real", [True, False])
    def test_elements_over_twelve_orders_of_magnitude(self, n, is_real):
        rng = np.random.default_rng(n)
        matrix = hermitian((n, n), rng, is_real=is_real)
        for scale in (
            np.geomspace(1e-9, 2e3, n),
            np.geomspace(2e3, 1e-9, n),
            rng.permutation(np.geomspace(1e-9, 2e3, n)),
        ):
            self.assert_eigenvalues(matrix * np.sqrt(np.outer(scale, scale)))

    @pytest.mark.parametrize("scale", [1e-200, 1e-90, 1e-60, 1e60, 1e90, 1e150])
    def test_every_unit_of_energy(self, scale):
        self.assert_eigenvalues(scale * hermitian((12, 12), np.random.default_rng(0)))
        self.assert_eigenvalues(scale * hermitian((12, 12), np.random.default_rng(0), is_real=True))


class TestHermitianEigenvalues:
    @pytest.mark.parametrize("n", [1, 2, 9, 64, 150])
    @pytest.mark.parametrize("is_real", [True, False])
    def test_against_lapack(self, n, is_real):
        a = hermitian((3, n, n), np.random.default_rng(n), is_real=is_real)
        expected = np.linalg.eigvalsh(a)
        np.testing.assert_allclose(hermitian_eigenvalues(a), expected, rtol=0, atol=1e-14 * n * abs(expected).max())

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_numbers_that_are_not_finite(self, bad):
        a = hermitian((3, 8, 8), np.random.default_rng(0))
        a[1, 4, 2] = a[1, 2, 4] = bad
        with pytest.raises(SpectrumError, match="non-finite"):
            hermitian_eigenvalues(a)


@pytest.mark.parametrize("is_real", [True, False])
@pytest.mark.parametrize("n", [5, 46, 90])
def test_threads_get_the_same_bits(n, is_real):
    problems = [pencils(n, 1 + seed % 6, is_real=is_real, seed=seed) for seed in range(12)]
    alone = [generalized_eigenvalues(a, s) for a, s in problems]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda problem: generalized_eigenvalues(*problem), problems))
    for found, expected in zip(together, alone, strict=True):
        np.testing.assert_array_equal(found, expected)

"""Eigenvalues of Hermitian pencils: `sorep.eigen` against SciPy's `eigh`, and with the kernel's NumPy twin.

Random A and well-conditioned S, real symmetric and complex Hermitian, as many of each size as k points may be solved
together. All on one thread, CPU time, best of several calls since the shortest is the least disturbed one.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
from _common import use_one_thread
from numpy.typing import NDArray

import sorep._fortran.eigen
import sorep.eigen
from sorep._fortran.load import Kernel

SIZES = (4, 8, 18, 32, 46, 64, 128, 276, 544)


def pencils(n: int, n_k: int, is_complex: bool) -> tuple[NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(n)
    a, b = (rng.normal(size=(n_k, n, n)) + (1j * rng.normal(size=(n_k, n, n)) if is_complex else 0) for _ in range(2))
    return a + a.conj().transpose(0, 2, 1), b @ b.conj().transpose(0, 2, 1) / n + np.eye(n)


def best_seconds(function: Callable[[], Any], repetitions: int) -> tuple[float, Any]:
    best = np.inf
    for _ in range(repetitions):
        start = time.process_time()
        result = function()
        best = min(best, time.process_time() - start)
    return best, result


def by_scipy(a: NDArray[Any], s: NDArray[Any]) -> list[NDArray[np.float64]]:
    return [scipy.linalg.eigh(a_k, s_k, eigvals_only=True) for a_k, s_k in zip(a, s, strict=True)]


def by_twin(a: NDArray[Any], s: NDArray[Any]) -> list[NDArray[np.float64]]:
    own = sorep._fortran.eigen.KERNEL, sorep.eigen._LANES, sorep.eigen._LARGE
    sorep._fortran.eigen.KERNEL, sorep.eigen._LANES, sorep.eigen._LARGE = Kernel(None), 1, 16
    try:
        return sorep.eigen.generalized_eigenvalues(a, s)
    finally:
        sorep._fortran.eigen.KERNEL, sorep.eigen._LANES, sorep.eigen._LARGE = own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5, help="calls of which the best counts [%(default)s]")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="functions [%(default)s]")
    options = parser.parse_args()
    use_one_thread()

    print(f"eigenvalues: {sorep._fortran.eigen.KERNEL.route}")
    print(f"{'n':>4} {'':7} {'k points':>8} {'ms':>9} {'SciPy eigh':>12} {'twin':>8}   largest difference")
    for n in options.sizes:
        n_k = min(64, max(4, round(2e7 / n**3)))
        for is_complex in (False, True):
            a, s = pencils(n, n_k, is_complex)
            seconds = {}
            for label, route in (("own", sorep.eigen.generalized_eigenvalues), ("scipy", by_scipy), ("twin", by_twin)):
                seconds[label], result = best_seconds(lambda route=route, a=a, s=s: route(a, s), options.repetitions)
                if label == "own":
                    own = np.array(result)
                elif label == "scipy":
                    difference = np.abs(own - result).max() / np.abs(own).max()
            ratios = [seconds[label] / seconds["own"] for label in ("scipy", "twin")]
            print(
                f"{n:4} {'complex' if is_complex else 'real':7} {n_k:8} {1e3 * seconds['own'] / n_k:9.4f}"
                f" {ratios[0]:11.1f}x {ratios[1]:7.1f}x   {difference:.1e}"
            )


if __name__ == "__main__":
    main()

"""Real solid harmonics and Gaunt coefficients, in libcint's order of m and its normalisation.

Both what Gaussians transform to in reciprocal space and what two-centre integrals do with a direction are real
spherical harmonics.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pyscf import gto


def solid_harmonics(degree: int, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Real solid harmonics r^l Y_lm of degree l in libcint's order of m, (2 l + 1, n), for vectors (n, 3)."""
    powers, coefficients = _cartesian_expansion(degree)
    table = np.ones((degree + 1, 3, len(vectors)))
    for power in range(1, degree + 1):
        np.multiply(table[power - 1], vectors.T, out=table[power])
    monomials = table[powers[:, 0], 0] * table[powers[:, 1], 1] * table[powers[:, 2], 2]
    return coefficients.T @ monomials


@lru_cache
def gaunt(one: int, other: int) -> NDArray[np.float64]:
    """Integrals of three real spherical harmonics over the sphere.

    Parameters
    ----------
    one, other : int
        Degrees l1, l2.

    Returns
    -------
    (n_L, 2 l1 + 1, 2 l2 + 1, (l1 + l2 + 1)^2) array
        Of Y_(l1 m1) Y_(l2 m2) Y_(LM), for the degrees L = |l1 - l2|, |l1 - l2| + 2, ..., l1 + l2 (all others vanish);
        the last index runs over all (L, M), degree after degree. By a quadrature that is exact for these degrees.
    """
    highest = one + other
    cosine, weight = np.polynomial.legendre.leggauss(highest + 1)
    azimuth = 2 * np.pi * np.arange(2 * highest + 1) / (2 * highest + 1)
    sine = np.sqrt(1 - cosine**2)
    x, y = np.multiply.outer(sine, np.cos(azimuth)), np.multiply.outer(sine, np.sin(azimuth))
    z = np.repeat(cosine[:, None], len(azimuth), axis=1)
    points = np.stack([x, y, z], -1).reshape(-1, 3)
    weights = np.repeat(weight * 2 * np.pi / len(azimuth), len(azimuth))
    harmonics = [solid_harmonics(degree, points) for degree in range(highest + 1)]
    degrees = np.repeat(np.arange(highest + 1), 2 * np.arange(highest + 1) + 1)
    every = np.einsum("ap,bp,cp,p->abc", harmonics[one], harmonics[other], np.concatenate(harmonics), weights)
    every[np.abs(every) < 1e-14] = 0.0
    return np.stack([every * (degrees == degree) for degree in range(abs(one - other), highest + 1, 2)])


@lru_cache
def _cartesian_expansion(degree: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    powers = [(x, y, degree - x - y) for x in range(degree, -1, -1) for y in range(degree - x, -1, -1)]
    if degree <= 1:  # libcint leaves the angular factors of s and p to cart2sph's normalisation
        return np.array(powers), np.eye(2 * degree + 1) * np.sqrt((2 * degree + 1) / (4 * np.pi))
    return np.array(powers), np.asarray(gto.cart2sph(degree))

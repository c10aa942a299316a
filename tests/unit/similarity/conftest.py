"""Made-up features of made-up structures, with duplicates among them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

Sample = tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="session")
def sample() -> Callable[..., Sample]:
    """Values, ids in no order, and formulas of cells of different size."""

    def make(n: int = 120, seed: int = 0, n_features: int = 24) -> Sample:
        random = np.random.default_rng(seed)
        kinds = random.uniform(0.1, 1.0, size=(n // 4 + 1, n_features))
        which = random.integers(len(kinds), size=n)
        noise = 10.0 ** random.choice([-9.0, -4.0, -2.0], size=(n, 1)) * random.uniform(size=(n, n_features))
        values = kinds[which] * (1 + noise)
        values[n // 2 : n // 2 + 4] = values[0]
        ids = np.array([f"s{i:05}" for i in random.permutation(n)])
        cells = np.array([["BaTiO3", "Ba2Ti2O6", "O3TiBa"], ["Si", "Si2", "Si8"], ["NaCl", "Na4Cl4", "ClNa"]])
        return values, ids, cells[which % 3, random.integers(3, size=n)]

    return make

"""One thread, and one precision for a test that asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    pytest.importorskip("torch").set_num_threads(1)


@pytest.fixture
def double() -> Iterator[None]:
    """New tensors are of double precision."""
    torch = pytest.importorskip("torch")
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session")
def small():
    """Thirty crystals of fifteen formulas, their graphs and SOREPs of 6 numbers, and spectra of 12 bins that follow."""
    pytest.importorskip("torch")
    from ase.build import bulk

    from sorep.identity import Identity
    from sorep.mat2spec.data import Inputs, SpectrumData
    from sorep.mat2spec.graph import build_graph
    from sorep.screening.dataset import Part
    from sorep.structure import Structure

    pairs = [(a, b) for a in ("Li", "Na", "K", "Rb", "Cs") for b in ("F", "Cl", "Br")]
    made = {}
    for number, (a, b) in enumerate(pairs):
        for kind, length in (("rocksalt", 5.0), ("cesiumchloride", 3.3)):
            made[f"{a}{b}-{kind}"] = bulk(a + b, kind, a=length + 0.05 * number)
    ids = np.array(sorted(made))
    structures = tuple(Structure.from_ase(made[id], id=id) for id in ids)
    heavy = np.array([s.numbers.mean() for s in structures])
    dense = np.array([s.n_atoms / s.volume for s in structures]) * 20
    energies = np.linspace(0.0, 11.0, 12)
    centres = 8.0 - heavy / 8 + dense
    spectra = (1 + heavy / 10)[:, None] * np.exp(-((energies - centres[:, None]) ** 2) / 4)
    sorep = np.stack([heavy, dense, heavy * dense, heavy**2, dense**2, np.ones(len(ids))], axis=1)
    parts = (Part("made-up", Identity.of({"descriptor": "made-up"}), 6),)
    inputs = Inputs(ids, structures, tuple(map(build_graph, structures)), sorep, parts)
    return SpectrumData(inputs, spectra, energies, "cm^-1")

"""Made-up feature vectors with a known pattern, and a store of real kinetic features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write

from sorep.engine import SerialEngine
from sorep.features import get_feature
from sorep.featurize import featurize
from sorep.identity import Identity
from sorep.kinetic.method import KineticSettings
from sorep.screening.dataset import Dataset, Part
from sorep.sources import find_items
from sorep.store import FeatureStore

HALIDES = {"LiF": 4.03, "LiCl": 5.13, "NaF": 4.62, "NaCl": 5.64, "KF": 5.35, "KCl": 6.29}
OXIDES = {"MgO": 4.21, "CaO": 4.81, "MgS": 5.20, "CaS": 5.69}


def make_dataset(n: int = 120, n_features: int = 6, name: str = "toy", noise: float = 0.3, seed: int = 0) -> Dataset:
    """Structures in pairs of one formula; the first feature tells the label, the others nothing."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(n, n_features))
    labels = values[:, 0] + noise * random.normal(size=n) > 0.8
    identity = Identity.of({"operator": "toy", "n_features": n_features})
    return Dataset(
        name=name,
        ids=np.array([f"s{row:04d}" for row in range(n)]),
        values=values,
        feature_names=[f"x{column}" for column in range(n_features)],
        parts=(Part(name, identity, n_features),),
        groups=np.array([f"F{row // 2}" for row in range(n)]),
        labels=labels,
    )


@pytest.fixture(scope="session")
def toy() -> Callable[..., Dataset]:
    """`make_dataset`."""
    return make_dataset


@pytest.fixture(scope="session")
def salts(tmp_path_factory) -> FeatureStore:
    """Kinetic features of ten rock salts and of a second, stretched, MgO; one file that fails."""
    folder = tmp_path_factory.mktemp("salts")
    for name, a in {**HALIDES, **OXIDES}.items():
        write(folder / f"{name}.vasp", bulk(name, "rocksalt", a=a))
    write(folder / "stretched.vasp", bulk("MgO", "rocksalt", a=4.5))
    (folder / "broken.vasp").write_text("not a structure\n")
    specs = [get_feature(name) for name in ("kinetic", "kinetic-methods")]
    method = KineticSettings(k_spacing=0.8)
    progress = featurize(list(find_items([folder])), method, specs, Path(folder / "store"), SerialEngine())
    assert (progress.done, progress.all_failed) == (11, 1)
    return FeatureStore(folder / "store")

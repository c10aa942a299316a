"""Which crystals the kinetic feature calls equal, on sets of polymorphs and duplicates, next to pymatgen's StructureMatcher.

Takes a folder that holds any of these tables (Parquet, one structure a row); a set that is not there is skipped.

- `synthetic_duplicates_dev`: parents and their variants (columns `parent`, `variant`, `exact_duplicate`). How far each kind
  of variant is from its parent, and precision and recall of "the same crystal" over epsilon and by the matcher.
- `mp_polymorphs`: polymorphs by `formula` with the group that the matcher put them in (`match_group`). Agreement over
  epsilon (adjusted Rand index, pairs), and the merges of BaTiO3.
- `acwf_unaries_oxides`: the same crystals (`group`) relaxed with several functionals (`xc`). How far one crystal moves
  between functionals, against the distances between the crystals of one formula.
- `jarvislb_carbon24_energy_per_atom_structures`: thousands of allotropes of one element. Number of groups over epsilon,
  time and memory.

Distances are cosine distances. Features are kept in `--store`, so that a rerun computes only what is missing; the first
takes about twenty minutes of CPU, most of it for carbon. CPU times are of one thread.

    python benchmarks/polymorphs.py my_data --store polymorphs-store
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from _common import peak_memory, use_one_thread
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from sorep import FeatureStore
from sorep.engine import LocalEngine
from sorep.errors import Failure
from sorep.features import FEATURES
from sorep.featurize import feature_identity, featurize
from sorep.kinetic.method import KineticSettings
from sorep.sources import find_items, structures_from
from sorep.structure import Structure

FEATURE = FEATURES["kinetic"]
EPSILONS = (1e-6, 1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
COUNTING = 0.1
"""Carbon is scanned by single linkage up to this distance."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="of the tables; without one nothing is done")
    parser.add_argument(
        "--store", type=Path, default=Path("polymorphs-store"), help="keeps what was computed [%(default)s]"
    )
    parser.add_argument("--k-spacing", type=float, default=0.2, help="of the k points, 1/Angstrom [%(default)s]")
    parser.add_argument("--only", choices=list(SETS), nargs="+", default=list(SETS), help="some of the sets")
    options = parser.parse_args()
    use_one_thread()
    if options.folder is None:
        print("no folder of tables given: nothing to compare (see --help)")
        return
    method = KineticSettings.checked(k_spacing=options.k_spacing)
    for name in options.only:
        path = options.folder / f"{name}.parquet"
        if not path.exists():
            print(f"== {name}: {path} is not there")
            continue
        print(f"== {name}", flush=True)
        SETS[name](load(path, method, options.store))


def load(path: Path, method: KineticSettings, store: Path) -> pd.DataFrame:
    """The table, with columns `structure` and `feature` in place of those that hold the crystal; without failures."""
    frame = pd.read_parquet(path)
    structures = list(structures_from(path))
    ids = [f"{path.stem}:{row}" for row in range(len(frame))]
    frame = frame.drop(columns=["cif", "poscar", "lattice", "species", "frac"], errors="ignore")
    frame = frame.assign(structure=structures, name=ids)[[not isinstance(s, Failure) for s in structures]]
    store.mkdir(parents=True, exist_ok=True)
    table = store / f"{path.stem}.jsonl"
    table.write_text("".join(map(row, frame["name"], frame["structure"])))
    with LocalEngine(1) as engine:
        progress = featurize(list(find_items(table)), method, [FEATURE], store, engine)
    identity = feature_identity(method.identity(), FEATURE).hash
    known = FeatureStore(store).matrix(FEATURE.name, identity=identity)
    features = dict(zip(known.ids, known.values, strict=True))
    frame = frame[frame["name"].isin(features.keys())]
    print(f"{len(frame)} of {len(structures)} structures have a feature", flush=True)
    return frame.assign(feature=[features[name] for name in frame["name"]]).reset_index(drop=True)

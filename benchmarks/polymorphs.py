"""Which crystals the kinetic feature calls the same, on sets of duplicates and polymorphs, next to StructureMatcher.

Takes a folder with any of these tables (Parquet, one structure a row); a set that is not there is skipped.

- `synthetic_duplicates_dev`: parents and variants of them (columns `parent`, `variant`, `exact_duplicate`). How far
  each variant is from its parent; precision and recall of "the same crystal", over epsilon and by pymatgen's matcher.
- `mp_polymorphs`: polymorphs by `formula`, with the groups that the matcher found (`match_group`). Agreement over
  epsilon (pairs, and the adjusted Rand index of each formula), and the merges of BaTiO3.
- `acwf_unaries_oxides`: the same crystals (`group`) relaxed with several functionals (`xc`). How far a crystal moves
  from one functional to another, against the distances of the crystals of one formula.
- `jarvislb_carbon24_energy_per_atom_structures`: thousands of allotropes of carbon. Number of groups over epsilon, time
  and memory.

Distances are cosine distances; times are of the CPU and of one thread. Features are kept in `--store`: a rerun computes
only what is missing. The first takes about fifteen minutes, nearly all of them for carbon.

    python benchmarks/polymorphs.py my_data --store polymorphs-store
"""

from __future__ import annotations

import argparse
import json
import tracemalloc
import warnings
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations, permutations
from pathlib import Path
from string import ascii_lowercase

import numpy as np
import pandas as pd
from _common import use_one_thread
from numpy.typing import NDArray
from pymatgen.analysis.structure_matcher import StructureMatcher
from scipy.spatial.distance import pdist
from similarity import timed, to_pymatgen
from sklearn.metrics import adjusted_rand_score

from sorep import FeatureStore
from sorep.engine import LocalEngine
from sorep.errors import Failure
from sorep.features import FEATURES
from sorep.featurize import feature_identity, featurize
from sorep.kinetic.method import KineticSettings
from sorep.similarity import condensed, cross, elbow, find_groups, k_distances, merge_tree
from sorep.sources import find_items, structures_from
from sorep.structure import Structure

FEATURE = FEATURES["kinetic"]
RATTLED = "rattle_0.01A"
EPSILONS = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 3e-4, 1e-3, 2e-3, 3e-3, 1e-2, 3e-2, 1e-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="of the tables; without one there is nothing to do")
    parser.add_argument(
        "--store", type=Path, default=Path("polymorphs-store"), help="keeps what was computed [%(default)s]"
    )
    parser.add_argument("--k-spacing", type=float, default=0.2, help="of the k points, 1/Angstrom [%(default)s]")
    parser.add_argument("--only", choices=list(SETS), nargs="+", default=list(SETS), help="some of the sets")
    options = parser.parse_args()
    use_one_thread()
    warnings.simplefilter("ignore")
    if options.folder is None:
        print("no folder of tables was given (see --help)")
        return
    method = KineticSettings.checked(k_spacing=options.k_spacing)
    for name in options.only:
        path = options.folder / f"{name}.parquet"
        print(f"\n== {name}" + ("" if path.exists() else ": not there"), flush=True)
        if path.exists():
            SETS[name](load(path, method, options.store))


def load(path: Path, method: KineticSettings, store: Path) -> pd.DataFrame:
    """The table without what failed, with the columns ``id``, ``structure`` and ``feature``."""
    frame = pd.read_parquet(path)
    frame = frame.assign(structure=list(structures_from(path)), id=[f"{path.stem}:{row}" for row in range(len(frame))])
    there = chosen(frame, [not isinstance(structure, Failure) for structure in frame["structure"]])
    store.mkdir(parents=True, exist_ok=True)
    table = store / f"{path.stem}.jsonl"  # with names that are unique in the store
    table.write_text("".join(map(row, there["id"], there["structure"])))
    with LocalEngine(1) as engine:
        featurize(list(find_items(table)), method, [FEATURE], store, engine)
    identity = feature_identity(method.identity(), FEATURE).hash
    matrix = FeatureStore(store).matrix(FEATURE.name, identity=identity)
    known = dict(zip(matrix.ids.tolist(), matrix.values, strict=True))
    there = chosen(there, [id in known for id in there["id"]])
    print(f"{len(there)} of {len(frame)} structures", flush=True)
    return there.assign(feature=[known[id] for id in there["id"]])


def row(id: str, structure: Structure) -> str:
    """One line of a table that sorep reads."""
    fields = {"id": id, "lattice": structure.lattice.tolist(), "species": structure.symbols}
    return json.dumps(fields | {"frac_coords": structure.positions.tolist()}) + "\n"


def duplicates(frame: pd.DataFrame) -> None:
    """Variants of parents. Pairs are those of one parent, and the same crystal are two that are both exact copies."""
    print(f"{'distance to the parent':22}{'exact':>8}{quantile_names()}")
    is_exact = dict(zip(frame["variant"], frame["exact_duplicate"], strict=True))
    families = [family for _, family in frame.groupby("parent")]
    to_parent = {variant: [] for variant in is_exact if variant != "original"}
    for family in families:
        variants = family["variant"].tolist()
        distances = cross(features(chosen(family, family["variant"] == "original")), features(family))[0]
        for variant, distance in zip(variants, distances, strict=True):
            if variant in to_parent:
                to_parent[variant].append(distance)
    for variant, found in sorted(to_parent.items(), key=lambda item: np.median(item[1])):
        print(f"{variant:22}{'yes' if is_exact[variant] else 'no':>8}{quantiles(found)}")

    distances = np.concatenate([condensed(features(family)) for family in families])
    exact = np.concatenate([both(family["exact_duplicate"]) for family in families])
    near = np.concatenate([both(f["exact_duplicate"] | (f["variant"] == RATTLED)) for f in families])
    print(f"exact copies are at most {distances[exact].max():.1e} apart, others at least {distances[~exact].min():.1e}")
    print(f"\n{len(exact)} pairs of one parent; the same crystal are ({exact.sum()}) two exact copies,")
    print(f"or ({near.sum()}) two that are exact copies but for a random displacement")
    print(f"{'the same by':22}" + 2 * f"{'pairs':>8}{'precision':>11}{'recall':>9}")

    def print_line(name: str, answer: NDArray[np.bool_], remark: str = "") -> None:
        print(f"{name:22}{agreement(answer, exact)}{agreement(answer, near)}{remark}")

    for epsilon in EPSILONS:
        print_line(f"distance <= {epsilon:g}", distances <= epsilon)
    crystals = [pair for f in families for pair in combinations(map(to_pymatgen, f["structure"]), 2)]
    seconds, matches = timed(lambda: np.array([StructureMatcher().fit(*pair) for pair in crystals]))
    print_line("StructureMatcher", matches, f"   ({1e3 * seconds / len(exact):.1f} ms a pair)")


def both(flags: Iterable[bool]) -> NDArray[np.bool_]:
    """Whether two are flagged, for all pairs in SciPy's order."""
    flagged = np.array(list(flags))
    i, j = np.triu_indices(len(flagged), 1)
    return flagged[i] & flagged[j]


def polymorphs(frame: pd.DataFrame) -> None:
    """Groups within formulas against those of the matcher."""
    values, ids, formulas = features(frame), frame["id"].to_numpy(str), frame["formula"].to_numpy(str)
    rows = [np.flatnonzero(formulas == formula) for formula in np.unique(formulas)]
    known = frame["match_group"].to_numpy()
    same = np.concatenate([of_pairs(known[part]) for part in rows])
    print(f"{len(rows)} formulas, {len(same)} pairs within them, of which the matcher calls {same.sum()} the same")
    print(f"{'in one group at':22}{'pairs':>8}{'precision':>11}{'recall':>9}{'groups':>8}{'mean Rand':>11}")
    for epsilon in EPSILONS:
        groups = find_groups(values, ids, formulas, epsilon=epsilon)
        found = groups.group[np.searchsorted(groups.ids, ids)]
        answer = np.concatenate([of_pairs(found[part]) for part in rows])
        rand = np.mean([adjusted_rand_score(known[part], found[part]) for part in rows])
        print(f"{f'epsilon {epsilon:g}':22}{agreement(answer, same)}{groups.n_groups:8}{rand:11.3f}")
    titanate = chosen(frame, frame["formula"] == "BaO3Ti")
    entries = zip(*(titanate[column] for column in ("material_id", "spacegroup", "match_group")), strict=True)
    print("\nBaTiO3, letters for the entries")
    for letter, (id, number, group) in zip(ascii_lowercase, entries, strict=False):
        print(f"{letter}  {id:12} space group {number:3}, matcher's group {group}")
    for merge in merge_tree(features(titanate)).merges():
        first, second = ("".join(ascii_lowercase[row] for row in side) for side in (merge.first, merge.second))
        print(f"{merge.epsilon:9.1e}  {first} + {second}")


def functionals(frame: pd.DataFrame) -> None:
    """One crystal by several functionals against the crystals of one formula by one functional."""
    per_pair: dict[str, list[tuple[float, float]]] = {}
    for _, crystal in frame.groupby("group"):
        distances = condensed(features(crystal))
        changes = pdist(np.log(crystal[["volume_per_atom"]]))
        for pair, *found in zip(combinations(crystal["xc"], 2), distances, changes, strict=True):
            per_pair.setdefault(" - ".join(sorted(pair)), []).append(tuple(found))
    others, hits = [], []
    for _, formula in frame.groupby("formula"):
        if len(set(formula["group"])) > 1:
            others += [condensed(features(alike)) for _, alike in formula.groupby("xc")]
            hits += list(finds_itself(formula))
    print(f"{'distances':22}{'pairs':>8}{quantile_names()}   median volume change")
    for pair, found in per_pair.items():
        distances, changes = np.array(found).T
        print(f"{pair:22}{len(found):8}{quantiles(distances)}{100 * np.median(changes):12.1f} %")
    apart = np.concatenate(others)
    print(f"{'of one formula':22}{len(apart):8}{quantiles(apart)}")
    same = np.concatenate([np.array(found)[:, 0] for found in per_pair.values()])
    print(f"{'the same at':22}{'crystals':>9}{'others':>9}")
    for epsilon in EPSILONS[4:]:
        print(f"{f'epsilon {epsilon:g}':22}{(same <= epsilon).mean():9.3f}{(apart <= epsilon).mean():9.3f}")
    print(f"the nearest crystal of a formula by another functional is the same in {np.mean(hits):.3f} of {len(hits)}")


def finds_itself(formula: pd.DataFrame) -> Iterable[bool]:
    """For each structure and each other functional, whether the same crystal is the nearest."""
    for (_, one), (_, other) in permutations(formula.groupby("xc"), 2):
        nearest = cross(features(one), features(other)).argmin(axis=1)
        yield from other["group"].to_numpy()[nearest] == one["group"].to_numpy()


def carbon(frame: pd.DataFrame) -> None:
    """Thousands of structures of one composition."""
    values, ids = features(frame), frame["id"].to_numpy(str)
    formulas = np.full(len(ids), "C")
    seconds, curve = timed(lambda: k_distances(values))
    print(f"distance to the nearest other structure: {quantile_names()}\n{'':41}{quantiles(curve)}")
    print(f"elbow of this curve at {elbow(curve):.1e}; {seconds:.1f} s")
    seconds, tree = timed(lambda: merge_tree(values))
    counts = ", ".join(f"{n} at {epsilon:g}" for epsilon, n in zip(EPSILONS, tree.n_clusters(EPSILONS), strict=True))
    print(f"groups over epsilon: {counts}; {seconds:.1f} s")
    seconds, groups = timed(lambda: find_groups(values, ids, formulas))
    tracemalloc.start()
    find_groups(values, ids, formulas)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"epsilon {groups.rule.epsilon:g}: {groups.n_groups} groups, the largest of {groups.sizes.max()}")
    print(f"find_groups: {seconds:.1f} s, {peak / 2**20:.0f} MiB beyond {values.nbytes / 2**20:.0f} MiB of features")


def chosen(frame: pd.DataFrame, which: Iterable[bool]) -> pd.DataFrame:
    """Some rows, numbered anew."""
    return frame.take(np.flatnonzero(list(which))).reset_index(drop=True)


def features(frame: pd.DataFrame) -> NDArray[np.float64]:
    return np.stack(frame["feature"].to_list())


def of_pairs(labels: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Whether two labels are equal, for all pairs in SciPy's order."""
    i, j = np.triu_indices(len(labels), 1)
    return labels[i] == labels[j]


def agreement(answer: NDArray[np.bool_], truth: NDArray[np.bool_]) -> str:
    """Number of pairs that are called the same, precision and recall."""
    right = np.count_nonzero(answer & truth)
    return f"{answer.sum():8}{right / max(answer.sum(), 1):11.3f}{right / truth.sum():9.3f}"


def quantile_names() -> str:
    return "".join(f"{name:>10}" for name in ("least", "5 %", "median", "95 %", "largest"))


def quantiles(values: Sequence[float] | NDArray[np.float64]) -> str:
    return "".join(f"{value:10.1e}" for value in np.quantile(values, [0, 0.05, 0.5, 0.95, 1]))


SETS: dict[str, Callable[[pd.DataFrame], None]] = {
    "synthetic_duplicates_dev": duplicates,
    "mp_polymorphs": polymorphs,
    "acwf_unaries_oxides": functionals,
    "jarvislb_carbon24_energy_per_atom_structures": carbon,
}


if __name__ == "__main__":
    main()

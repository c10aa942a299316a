"""What finding duplicates costs: groups of many features, and features against StructureMatcher on real crystals.

1. CPU time of `sorep.similarity.find_groups`, and its memory beyond the features themselves, for 100,000 structures of
   mixed composition and for 10,000 of one. Features are random numbers of a fixed seed, 1,024 for each structure; every
   second structure is a slightly disturbed copy of another one of its composition. A few compositions are frequent and
   most are rare, as in databases.
2. The crystals of the given files, folders or tables, each with a copy (supercell, rotated, atoms in reverse order).
   CPU time of kinetic features, of their cosine distances within compositions, and of pymatgen's StructureMatcher on
   such pairs (all, or some where there are many); and whether both find that crystals are the copies', and others not.
   The matcher reduces each structure once, before, as features are computed once.

    python benchmarks/similarity.py my_structures.parquet
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from itertools import combinations, product
from typing import TypeVar

import numpy as np
from _common import STRUCTURES, use_one_thread
from ase.data import chemical_symbols
from numpy.typing import NDArray
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Structure as PymatgenStructure
from scipy.spatial.distance import squareform
from scipy.spatial.transform import Rotation

from sorep.errors import Failure, SorepError
from sorep.features import FEATURES, compute_feature
from sorep.kinetic.method import KineticSettings
from sorep.similarity import DEFAULT_EPSILON, condensed, find_groups, reduced_formula
from sorep.sources import structures_from
from sorep.structure import Structure

Result = TypeVar("Result")

N_FEATURES = 1024
ROTATION = Rotation.from_rotvec([0.3, -0.7, 0.5])
DISTURBANCE = 1e-3  # relative, of every feature: a cosine distance of 2e-6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", default=[str(STRUCTURES)], help="input, as of sorep featurize")
    parser.add_argument("--mixed", type=int, default=100_000, help="structures of mixed composition [%(default)s]")
    parser.add_argument("--one", type=int, default=10_000, help="structures of one composition [%(default)s]")
    parser.add_argument("--most-pairs", type=int, default=2000, help="of crystals, for the matcher [%(default)s]")
    options = parser.parse_args()
    use_one_thread()
    print(f"{'structures':>10} {'compositions':>13} {'groups':>8} {'CPU s':>8} {'MiB':>8} {'features MiB':>13}")
    measure_groups(mixed_formulas(options.mixed))
    measure_groups(np.full(options.one, "C"))
    compare(options.paths, options.most_pairs)


def measure_groups(formulas: NDArray[np.str_]) -> None:
    """One line of the first table."""
    values = copies_and_others(formulas)
    ids = np.array([f"s{row:06d}" for row in range(len(formulas))])
    start = time.process_time()
    groups = find_groups(values, ids, formulas)
    seconds = time.process_time() - start
    tracemalloc.start()
    find_groups(values, ids, formulas)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    counts = f"{len(formulas):10} {len(np.unique(groups.formula)):13} {groups.n_groups:8}"
    print(f"{counts} {seconds:8.1f} {peak / 2**20:8.0f} {values.nbytes / 2**20:13.0f}", flush=True)


def mixed_formulas(n: int) -> NDArray[np.str_]:
    """Ternary formulas, a third as many as structures; how often each comes falls as a power of its rank."""
    rng = np.random.default_rng(0)
    amounts = list(product((1, 2, 3), (1, 2, 3, 4), (1, 2, 3, 4, 5, 6)))
    metals = combinations(chemical_symbols[19:52], 2)  # K to Sb
    names = [f"{a}{i}{b}{j}{x}{k}" for a, b in metals for x in ("O", "S", "F", "N") for i, j, k in amounts]
    chosen = rng.permutation(names)[: max(n // 3, 1)]
    frequencies = np.arange(1, len(chosen) + 1) ** -0.7
    return rng.choice(chosen, size=n, p=frequencies / frequencies.sum())


def copies_and_others(formulas: NDArray[np.str_]) -> NDArray[np.float64]:
    """Random features; the second, fourth, ... structure of a composition is nearly the one before it."""
    rng = np.random.default_rng(1)
    values = rng.random((len(formulas), N_FEATURES))
    order = np.argsort(formulas, kind="stable")
    ordered = formulas[order]
    starts = np.r_[True, ordered[1:] != ordered[:-1]]
    place = np.arange(len(order)) - np.flatnonzero(starts)[np.cumsum(starts) - 1]
    copies = np.flatnonzero(place % 2)
    for part in np.array_split(copies, 1 + len(copies) // 1000):
        disturbance = rng.normal(scale=DISTURBANCE, size=(len(part), N_FEATURES))
        values[order[part]] = values[order[part - 1]] * (1 + disturbance)
    return values


def compare(paths: list[str], most_pairs: int) -> None:
    """The second part."""
    method = KineticSettings()

    def feature(structure: Structure) -> NDArray[np.float64]:
        return compute_feature(method.calculate(structure).spectrum, FEATURES["kinetic"])

    structures = list(usable(paths, method))  # which also loads tables of integrals and compiled code
    n = len(structures)
    everything = structures + [copy_of(structure) for structure in structures]
    feature_seconds, features = timed(lambda: np.array([feature(structure) for structure in everything]))
    compositions = list(rows_of_compositions(structures))
    distance_seconds, distances = timed(lambda: [squareform(condensed(features[rows])) for rows in compositions])
    of_pair = dict(distances_of_pairs(compositions, distances))
    pairs = evenly_spread([pair for pair in of_pair if pair[1] < n], most_pairs) + [(row, n + row) for row in range(n)]

    matcher = StructureMatcher()
    crystals = [to_pymatgen(structure) for structure in everything]
    warnings.simplefilter("ignore")
    reduce_seconds, reduced = timed(lambda: [reduce(crystal) for crystal in crystals])
    match_seconds, matches = timed(
        lambda: [matcher.fit(reduced[i], reduced[j], skip_structure_reduction=True) for i, j in pairs]
    )
    distance, match = distance_seconds / len(of_pair), match_seconds / len(pairs)
    report_costs(len(everything), len(of_pair), feature_seconds, distance, reduce_seconds, match)
    report_answers(n, np.array([of_pair[pair] for pair in pairs]), np.array(matches, dtype=bool))


def report_costs(n: int, n_pairs: int, feature: float, distance: float, reduction: float, match: float) -> None:
    """Seconds of all features and reductions, and of one distance and match."""
    print(f"\n{n} crystals with {n_pairs} pairs within compositions; CPU time")
    print(f"kinetic features        {1e3 * feature / n:10.2f} ms a crystal")
    print(f"cosine distances        {1e3 * distance:10.4f} ms a pair")
    print(f"matcher's reduction     {1e3 * reduction / n:10.2f} ms a crystal")
    print(f"StructureMatcher.fit    {1e3 * match:10.2f} ms a pair")
    whole = (reduction + n_pairs * match) / (feature + n_pairs * distance)
    print(
        f"matcher / cosine: {match / distance:.0f}x a pair; {whole:.2f}x all pairs with the preparation of all crystals"
    )


def report_answers(n_same: int, distances: NDArray[np.float64], matches: NDArray[np.bool_]) -> None:
    """Of all pairs, the last ``n_same`` of which are crystals and their copies."""
    print(f"\n{'':24}{'pairs':>7}{'both: the same':>16}{'neither':>9}{'matcher only':>14}{'distance only':>15}")
    near = distances <= DEFAULT_EPSILON
    for label, part in (("crystal and copy", slice(-n_same, None)), ("two of a composition", slice(-n_same))):
        a, b = near[part], matches[part]
        counts = f"{(a & b).sum():16}{(~a & ~b).sum():9}{(~a & b).sum():14}{(a & ~b).sum():15}"
        print(f"{label:24}{len(a):7}{counts}")
    print(f"epsilon {DEFAULT_EPSILON:g}; largest distance of a crystal and its copy {distances[-n_same:].max():.1e}")


def usable(paths: list[str], method: KineticSettings) -> Iterator[Structure]:
    """Crystals that have features."""
    for structure in structures_from(paths):
        try:
            if isinstance(structure, Failure):
                print(f"{structure.id}: {structure.message}")
                continue
            method.calculate(structure.validate())
            yield structure
        except SorepError as error:
            print(f"{structure.id}: {error}")


def copy_of(structure: Structure) -> Structure:
    """The same crystal in a doubled cell, rotated, its atoms in reverse order."""
    atoms = structure.to_ase().repeat((1, 1, 2))[::-1]
    lattice = ROTATION.apply(atoms.cell.array)
    return Structure(f"{structure.id}-copy", lattice, atoms.numbers, atoms.get_scaled_positions())


def rows_of_compositions(structures: list[Structure]) -> Iterator[NDArray[np.intp]]:
    """Rows of the crystals of each composition, then those of their copies."""
    formulas = np.array([reduced_formula(structure.formula) for structure in structures])
    for formula in np.unique(formulas):
        rows = np.flatnonzero(formulas == formula)
        yield np.concatenate([rows, rows + len(structures)])


def distances_of_pairs(
    compositions: list[NDArray[np.intp]], distances: list[NDArray[np.float64]]
) -> Iterator[tuple[tuple[int, int], float]]:
    for rows, square in zip(compositions, distances, strict=True):
        for (i, a), (j, b) in combinations(enumerate(rows.tolist()), 2):
            yield (a, b), square[i, j]


def evenly_spread(pairs: list[tuple[int, int]], most: int) -> list[tuple[int, int]]:
    return pairs if len(pairs) <= most else [pairs[row] for row in np.linspace(0, len(pairs) - 1, most).astype(int)]


def to_pymatgen(structure: Structure) -> PymatgenStructure:
    return PymatgenStructure(structure.lattice, structure.numbers.tolist(), structure.positions)


def reduce(crystal: PymatgenStructure) -> PymatgenStructure:
    """What the matcher does to each structure first."""
    return crystal.get_primitive_structure().get_reduced_structure(reduction_algo="niggli")


def timed(function: Callable[[], Result]) -> tuple[float, Result]:
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


if __name__ == "__main__":
    main()

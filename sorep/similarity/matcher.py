"""A second opinion on equivalent structures, by the positions of their atoms."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sorep.similarity.distances import slices
from sorep.similarity.groups import Groups
from sorep.structure import Structure

_AT_ONCE = 4096  # structures in memory


def confirm(
    groups: Groups,
    structures_of: Callable[[Collection[str]], Mapping[str, Structure]],
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Groups:
    """Compare each structure with its group's representative by pymatgen's `StructureMatcher`.

    The matcher has its default tolerances: it scales cells to one volume, and maps atoms onto each other within 0.3 of
    (V / N)^(1/3). It says yes or no, and may deny what the features find near as well as accept what they tell apart;
    only the former is asked here. Pairs that have an answer are not asked again.

    Parameters
    ----------
    groups : Groups
    structures_of : callable
        From ids to structures, such as `FeatureStore.structures_of`.
    on_progress : callable
        Told the number of pairs done and of all pairs.

    Returns
    -------
    Groups
        With `confirmed` filled.
    """
    from pymatgen.analysis.structure_matcher import StructureMatcher

    matcher = StructureMatcher()
    confirmed = groups.confirmed.copy()
    asked = np.flatnonzero((groups.ids != groups.representative) & _is_none(confirmed))
    asked = asked[np.argsort(groups.group[asked], kind="stable")]
    for part in slices(len(asked), _AT_ONCE):
        rows = asked[part]
        names = {*groups.ids[rows].tolist(), *groups.representative[rows].tolist()}
        structures = {id: _pymatgen(structure) for id, structure in structures_of(names).items()}
        for done, row in enumerate(rows, part.start + 1):
            pair = structures[str(groups.ids[row])], structures[str(groups.representative[row])]
            confirmed[row] = bool(matcher.fit(*pair))
            on_progress(done, len(asked))
    return replace(groups, confirmed=confirmed)


def _is_none(answers: NDArray[np.object_]) -> NDArray[np.bool_]:
    return np.array([answer is None for answer in answers], dtype=bool)


def _pymatgen(structure: Structure) -> Any:
    from pymatgen.core import Structure as Crystal

    return Crystal(structure.lattice, structure.numbers.tolist(), structure.positions)

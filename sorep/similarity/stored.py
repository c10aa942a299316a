"""Groups of equivalent structures of a store: found, added to, and kept in its table `groups`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sorep.errors import StoreError
from sorep.similarity.groups import Groups, Rule
from sorep.similarity.matcher import confirm as confirm_groups
from sorep.similarity.unique import find_groups, reduced_formulas
from sorep.store import FeatureMatrix, FeatureStore
from sorep.store.runs import RunRecord

Count = Callable[[int, int], None]
_DEFAULT = Rule()


@dataclass(frozen=True)
class Outlook:
    """What grouping a store would take.

    ``n_pairs`` are to be compared: those of one composition (or all), less those among the ``n_known`` structures that
    were grouped by the same rule before. ``largest`` is the number of structures of the largest composition.
    """

    n_structures: int
    n_compositions: int
    n_known: int
    n_pairs: int
    largest: int


def formulas_of(store: FeatureStore, ids: NDArray[np.str_]) -> NDArray[np.str_]:
    """Reduced formulas of structures."""
    structures = store.structures()
    formula_of = dict(zip(structures["id"], structures["formula"], strict=True))
    return reduced_formulas(np.array([formula_of[id] for id in ids.tolist()], dtype=str))


def outlook(store: FeatureStore, matrix: FeatureMatrix, rule: Rule) -> Outlook:
    """What `group_store` would do; nothing is compared."""
    previous = previous_groups(store, matrix, rule)
    formula = formulas_of(store, matrix.ids)
    if rule.across_compositions:
        formula = np.full(len(formula), "")
    is_known = np.isin(matrix.ids, previous.ids) if previous else np.zeros(len(matrix.ids), dtype=bool)
    all_counts = np.unique(formula, return_counts=True)[1]
    known_counts = np.unique(formula[is_known], return_counts=True)[1]
    n_pairs = sum(int((n * (n - 1)).sum()) // 2 * sign for n, sign in ((all_counts, 1), (known_counts, -1)))
    return Outlook(len(formula), len(all_counts), int(is_known.sum()), n_pairs, int(all_counts.max(initial=0)))


def group_store(
    store: FeatureStore,
    matrix: FeatureMatrix,
    rule: Rule = _DEFAULT,
    *,
    confirm: bool = False,
    command: str = "",
    on_compared: Count = lambda done, total: None,
    on_confirmed: Count = lambda done, total: None,
) -> Groups:
    """Group the structures of a store and leave the result there, for `FeatureStore.groups`.

    Structures that were grouped by the same rule before are not compared with each other again, and a result that is
    the same as the stored one is not stored again. The rows are committed together: all or none.

    Parameters
    ----------
    store : FeatureStore
    matrix : FeatureMatrix
        Of this store; names feature and identity of the rule.
    rule : Rule
    confirm : bool
        Ask pymatgen's matcher too (`sorep.similarity.confirm`).
    command : str
        Recorded with the run.
    on_compared, on_confirmed : callable
        Told the number of pairs done and of all pairs.

    Returns
    -------
    Groups

    Raises
    ------
    SorepError
        As `find_groups`; or where the store cannot be written.
    """
    rule = replace(rule, feature=matrix.name, identity=matrix.identity.hash)
    previous = previous_groups(store, matrix, rule)
    groups = find_groups(
        matrix.values,
        matrix.ids,
        formulas_of(store, matrix.ids),
        **asdict(rule),
        spec=matrix.grid,
        previous=previous,
        on_progress=on_compared,
    )
    if confirm:
        groups = confirm_groups(groups, store.structures_of, on_progress=on_confirmed)
    if previous is None or not groups.frame().equals(previous.frame()):
        _commit(store, groups, command)
    return groups


def previous_groups(store: FeatureStore, matrix: FeatureMatrix, rule: Rule) -> Groups | None:
    """What was found by the same rule before, if that can be added to."""
    rule = replace(rule, feature=matrix.name, identity=matrix.identity.hash)
    try:
        groups = Groups.from_frame(store.groups(**asdict(rule)))
    except StoreError as error:
        if error.code != "no-groups":
            raise
        return None
    return groups if rule.n_min == 1 and np.isin(groups.ids, matrix.ids).all() else None


def _commit(store: FeatureStore, groups: Groups, command: str) -> None:
    record = RunRecord.start(store.tables, command, {})
    columns = {
        "id": groups.ids,
        "group": groups.group,
        "representative": groups.representative,
        "distance": groups.distance,
        "nearest": np.array([id or None for id in groups.nearest.tolist()], dtype=object),
        "distance_to_nearest": groups.distance_to_nearest,
        "formula": groups.formula,
        "confirmed": groups.confirmed,
    }
    lines = zip(*(column.tolist() for column in columns.values()), strict=True)
    common = {**asdict(groups.rule), "run_id": record.run_id}
    store.tables.append("groups", [dict(zip(columns, line, strict=True)) | common for line in lines])
    record.end("finished", len(groups), 0)

"""Reading many structures in an engine's workers: parsed, validated, in order, and each bad one for itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from sorep.engine import Engine
from sorep.errors import Failure, SorepError, StructureError, UsageError
from sorep.sources import Item, find_items, read_item
from sorep.structure import DEFAULT_MINIMUM_DISTANCE, Structure

READING_SECONDS = 120.0
"""Time limit for reading one item (a file, or up to a few dozen rows)."""


@dataclass(frozen=True)
class Acceptance:
    """Which structures are accepted.

    Attributes
    ----------
    minimum_distance : float
        Smallest distance between atoms, Angstrom.
    max_atoms : int or None
        Largest number of atoms.
    ids : frozenset of str or None
        Only these are looked at; None means all.
    """

    minimum_distance: float = DEFAULT_MINIMUM_DISTANCE
    max_atoms: int | None = None
    ids: frozenset[str] | None = None

    def chosen(self, entries: Iterable[Structure | Failure]) -> list[Structure | Failure]:
        """Those whose ids are asked for."""
        return [entry for entry in entries if self.ids is None or entry.id in self.ids]


def read_structures(
    items: Iterable[Item],
    acceptance: Acceptance,
    engine: Engine,
    on_more: Callable[[int], None] = lambda _: None,
) -> Iterator[Structure | Failure]:
    """One entry for each structure, in the order of the items: which of two equal names comes second is no accident.

    Parameters
    ----------
    items : iterable of Item
        From `sorep.sources.find_items`.
    acceptance : Acceptance
    engine : Engine
        Open. An item that crashes or outlasts `READING_SECONDS` is read again row by row.
    on_more : callable
        Told how many more structures an item held than it was listed with; negative where not all are asked for.

    Raises
    ------
    UsageError
        ``no-such-id``, when everything has been read and some of the ids asked for were not there.
    """
    missing = set(acceptance.ids or ())
    read = partial(_read_and_validate, acceptance=acceptance)
    early: dict[int, list[Structure | Failure]] = {}
    following = 0
    for outcome in engine.map_unordered(read, enumerate(items), seconds=_reading_limit(engine)):
        number, item = outcome.item
        entries = outcome.value
        if entries is None:
            entries = acceptance.chosen(_read_one_by_one(item, outcome.error, read, engine))
        missing.difference_update(entry.id for entry in entries)
        on_more(len(entries) - (item.count or 1))
        early[number] = entries
        while following in early:
            yield from early.pop(following)
            following += 1
    if missing:
        raise UsageError(
            f"{len(missing)} of the ids asked for are not in the input, the first of them {min(missing)!r}",
            code="no-such-id",
            remedy="check their spelling, and --id-column; `sorep list --structures` shows what a store has",
        )


def _read_and_validate(numbered: tuple[int, Item], acceptance: Acceptance) -> list[Structure | Failure]:
    entries: list[Structure | Failure] = []
    for entry in acceptance.chosen(read_item(numbered[1])):
        if isinstance(entry, Structure):
            try:
                entry.validate(minimum_distance=acceptance.minimum_distance, max_atoms=acceptance.max_atoms)
            except SorepError as error:
                entry = Failure.from_error(error, id=entry.id, source=entry.source, content_key=entry.content_key)
        entries.append(entry)
    return entries


def _reading_limit(engine: Engine) -> float | None:
    return READING_SECONDS if engine.limits.seconds else None  # an engine without limits has none for reading either


def _read_one_by_one(
    item: Item, error: SorepError | None, read: Callable[[Any], list[Structure | Failure]], engine: Engine
) -> Iterator[Structure | Failure]:
    """An item of several rows crashed or hung: only the row that did it fails."""
    if item.count is None or item.count == 1:
        id, source = item.name(None if item.count is None else item.first)
        yield Failure.from_error(error or StructureError("unreadable"), id=id, source=source)
        return
    inside = range(item.first, item.first + item.count)
    id, structure = item.columns.id or None, item.columns.structure or None
    singles = find_items([item.path], id_column=id, structure_column=structure, batch=1)
    numbered = enumerate(single for single in singles if single.first in inside)
    found: dict[int, list[Structure | Failure]] = {}
    for outcome in engine.map_unordered(read, numbered, seconds=_reading_limit(engine)):
        number, single = outcome.item
        entries = outcome.value
        found[number] = list(_read_one_by_one(single, outcome.error, read, engine)) if entries is None else entries
    for number in sorted(found):
        yield from found[number]

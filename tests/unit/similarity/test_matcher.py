"""The second opinion, by the real matcher on real crystals."""

from __future__ import annotations

import numpy as np
from ase.build import bulk, make_supercell

from sorep.similarity import confirm, find_groups
from sorep.structure import Structure


def test_a_supercell_is_confirmed_and_another_crystal_contradicted():
    diamond = bulk("Si", "diamond", a=5.43)
    structures = {
        "a": Structure.from_ase(diamond),
        "b": Structure.from_ase(make_supercell(diamond, [[1, 0, 1], [0, 1, 0], [0, 0, 2]])),
        "c": Structure.from_ase(bulk("Si", "bcc", a=3.1)),
        "d": Structure.from_ase(bulk("Si", "fcc", a=3.9)),
    }
    values = np.array([[1.0, 1.0], [1.0, 1.0], [1.0, 1.001], [0.0, 1.0]])  # as if bcc were near diamond
    groups = find_groups(values, list(structures), ["Si"] * 4)
    asked: list[set[str]] = []
    told: list[tuple[int, int]] = []

    def structures_of(ids):
        asked.append(set(ids))
        return {id: structures[id] for id in ids}

    confirmed = confirm(groups, structures_of, on_progress=lambda *count: told.append(count))
    assert confirmed.confirmed.tolist() == [None, True, False, None]
    assert asked == [{"a", "b", "c"}]
    assert told == [(1, 2), (2, 2)]
    assert groups.confirmed.tolist() == [None] * 4  # what was given is as before
    again = confirm(confirmed, structures_of)
    assert again.confirmed.tolist() == [None, True, False, None]
    assert len(asked) == 1

"""The bits of the elements."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("torch")

from sorep.mat2spec.derive_elements import derived
from sorep.mat2spec.elements import N_ELEMENTS, N_FEATURES, TABLE, element_features

GROUPS = {
    "group": slice(0, 19),
    "period": slice(19, 26),
    "electronegativity": slice(26, 36),
    "radius": slice(36, 46),
    "valence": slice(46, 58),
    "ionization energy": slice(58, 68),
    "electron affinity": slice(68, 78),
    "block": slice(78, 82),
    "volume": slice(82, 92),
}
UNKNOWN = {
    "electronegativity": [2, 10, 18],
    "radius": [97, 98, 99, 100],
    "volume": [85, 87, 100],
}


def test_the_table_is_what_the_libraries_give() -> None:
    assert TABLE.read_text() == derived()


def test_one_bit_a_property_and_none_where_it_is_unknown() -> None:
    table = element_features()
    assert table.shape == (N_ELEMENTS + 1, N_FEATURES)
    assert not table[0].any()
    for name, bits in GROUPS.items():
        counts = table[1:, bits].sum(axis=1)
        empty = (np.flatnonzero(counts == 0) + 1).tolist()
        assert counts.max() == 1
        assert empty == UNKNOWN.get(name, []), name


def test_bits_of_some_elements() -> None:
    table = element_features()
    oxygen, neodymium, gold = (set(np.flatnonzero(table[number]).tolist()) for number in (8, 60, 79))
    # group 16, period 2, 3.44, 0.66 A, 6 electrons, ln 13.6 = 2.61, 1.46 eV, p, ln 17.36 = 2.85
    assert oxygen == {15, 20, 34, 37, 51, 64, 74, 79, 86}
    assert {18, 24, 51, 81} < neodymium
    assert {10, 24, 56, 80} < gold


def test_all_elements_differ_but_three() -> None:
    _, which = np.unique(element_features()[1:], axis=0, return_inverse=True)
    same = [np.flatnonzero(which == pattern) + 1 for pattern in np.unique(which)]
    assert [group.tolist() for group in same if len(group) > 1] == [[66, 67, 68]]


def test_valence_electrons() -> None:
    symbols = {row["symbol"]: row["valence"] for row in json.loads(TABLE.read_text())}
    expected = {
        "H": 1,
        "He": 2,
        "Na": 1,
        "Ar": 8,
        "Zn": 12,
        "Ga": 3,
        "I": 7,
        "Yb": 16,
        "Lu": 3,
        "W": 6,
        "Pb": 4,
        "U": 6,
    }
    assert {symbol: symbols[symbol] for symbol in expected} == expected

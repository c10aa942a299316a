"""Identities: equal exactly where numbers may stand in one matrix."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import pytest

import sorep.identity
from sorep.errors import IdentityError
from sorep.identity import Identity

WORDS = {"operator": "kinetic", "k_spacing": 0.2, "feature": {"width": 0.05, "windows": [{"points": 3}]}}


def test_order_does_not_matter_and_values_do() -> None:
    identity = Identity.of(WORDS)
    assert Identity.of(dict(reversed(WORDS.items()))) == identity
    assert Identity.of({**WORDS, "k_spacing": 0.2000001}) != identity
    assert Identity.of({**WORDS, "more": None}) != identity
    assert len(identity.hash) == 16
    assert int(identity.hash, 16) >= 0
    assert identity.hash != Identity.of({**WORDS, "operator": "overlap"}).hash


def test_words_come_back() -> None:
    assert Identity.of(WORDS).words == {**WORDS, "revision": sorep.identity.REVISION}
    assert json.loads(Identity.of(WORDS).text) == Identity.of(WORDS).words
    assert pickle.loads(pickle.dumps(Identity.of(WORDS))) == Identity.of(WORDS)


def test_the_revision_of_the_code_is_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Identity.of(WORDS)
    monkeypatch.setattr(sorep.identity, "REVISION", sorep.identity.REVISION + 1)
    assert Identity.of(WORDS) != before
    assert Identity.of(WORDS).differences(before) == [
        f"revision: {sorep.identity.REVISION} against {sorep.identity.REVISION - 1}"
    ]


def test_extended() -> None:
    whole = Identity.of({"operator": "kinetic"}).extended(feature={"width": 0.05})
    assert whole == Identity.of({"operator": "kinetic", "feature": {"width": 0.05}})


def test_differences_are_named() -> None:
    one = Identity.of(WORDS)
    other = Identity.of({**WORDS, "feature": {"width": 0.06, "windows": [{"points": 3}]}, "symprec": 1e-5})
    assert one.differences(one) == []
    assert one.differences(other) == ["feature.width: 0.05 against 0.06", "symprec: None against 1e-05"]
    one.require_equal(Identity.of(WORDS))
    with pytest.raises(IdentityError, match=r"feature\.width: 0\.05 against 0\.06") as caught:
        one.require_equal(other)
    assert caught.value.code == "mixed-identity"
    assert one.hash in caught.value.message
    assert other.hash in caught.value.message


def test_the_hash_is_the_same_in_another_process() -> None:
    script = f"from sorep.identity import Identity; print(Identity.of({WORDS!r}).hash)"
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert other.stdout.strip() == Identity.of(WORDS).hash


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_a_number_has_no_identity(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Identity.of({"width": value})

"""What a number depends on, in words and as a hash.

Two feature vectors may stand in one matrix only if their identities are equal: same operator, basis or
pseudopotentials, cell and mesh policy, grid, smearing, normalisation, and the same revision of this code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sorep.errors import IdentityError

REVISION = 2
"""Raised whenever a change of this package alters the numbers that it computes for the same options."""


@dataclass(frozen=True)
class Identity:
    """An immutable set of words, compared by value.

    ``words`` may nest mappings and sequences of numbers and strings; `hash` is stable across platforms and sessions.
    """

    text: str

    @classmethod
    def of(cls, words: Mapping[str, Any]) -> Identity:
        """From a mapping; the code's revision is added."""
        complete = {**words, "revision": REVISION}
        return cls(json.dumps(complete, sort_keys=True, separators=(",", ":"), allow_nan=False))

    @cached_property
    def words(self) -> dict[str, Any]:
        return json.loads(self.text)

    @property
    def hash(self) -> str:
        """16 hexadecimal digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    def extended(self, **words: Any) -> Identity:
        """The identity of something computed from what this one describes."""
        return Identity.of({**self.words, **words})

    def differences(self, other: Identity) -> list[str]:
        """Human-readable list of the words in which two identities differ."""
        mine, theirs = _flatten(self.words), _flatten(other.words)
        return [
            f"{key}: {mine.get(key)!r} against {theirs.get(key)!r}"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        ]

    def require_equal(self, other: Identity) -> None:
        """Raise `IdentityError` that names every difference."""
        if self != other:
            raise IdentityError(
                f"identities {self.hash} and {other.hash} differ in " + "; ".join(self.differences(other)),
                remedy="compute both with the same options, or rebuild one with `sorep refeaturize`",
            )


def _flatten(words: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(words, dict):
        return {prefix: words}
    flat: dict[str, Any] = {}
    for key, value in words.items():
        flat |= _flatten(value, f"{prefix}.{key}" if prefix else key)
    return flat

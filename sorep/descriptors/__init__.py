"""Features that come from a structure without any operator: what a spectrum has to be better than.

A `Descriptor` is a frozen, picklable set of options, as a `Method` is, and turns a structure into a vector at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from sorep.descriptors.composition import Composition
from sorep.descriptors.soap import Soap
from sorep.errors import UsageError
from sorep.identity import Identity
from sorep.structure import Structure

__all__ = ["DESCRIPTORS", "Composition", "Descriptor", "Soap", "descriptor_from_words", "get_descriptor", "identity_of"]


class Descriptor(Protocol):
    """Options of one descriptor."""

    name: ClassVar[str]
    """Name under which its features are stored."""

    references: ClassVar[tuple[str, ...]]
    """What to cite, as BibTeX."""

    @property
    def feature_names(self) -> list[str]:
        """Column names, unique within the descriptor; no package of an extra is needed to tell them."""
        ...

    def words(self) -> dict[str, Any]:
        """All that the numbers depend on besides the structure and this package."""
        ...

    def compute(self, structure: Structure) -> NDArray[np.float64]:
        """The (n_features,) vector of a validated structure."""
        ...


DESCRIPTORS: dict[str, Composition | Soap] = {descriptor.name: descriptor for descriptor in (Composition(), Soap())}
"""Descriptors by name, with their default options."""


def get_descriptor(name: str) -> Composition | Soap:
    """A descriptor with its default options.

    Raises
    ------
    UsageError
        ``unknown-descriptor``.
    """
    if name not in DESCRIPTORS:
        raise UsageError(
            f"unknown descriptor {name!r}",
            code="unknown-descriptor",
            remedy=f"choose from {', '.join(DESCRIPTORS)}",
        )
    return DESCRIPTORS[name]


def identity_of(descriptor: Descriptor) -> Identity:
    """Identity of the features of a descriptor."""
    return Identity.of({"descriptor": descriptor.name, **descriptor.words()})


def descriptor_from_words(words: Mapping[str, Any]) -> Descriptor:
    """The descriptor of an identity with these words."""
    kind = type(get_descriptor(words["descriptor"]))
    return kind(**{option: words[option] for option in kind.model_fields})

"""Criteria that label materials as candidates: comparisons of properties with thresholds.

A TOML file says which must all hold and of which any must hold:

    name = "transparent-conductor"
    all = ["gap > 0.5"]
    any = ["electron_mass <= 0.5", "hole_mass <= 1.0"]

These are the SOREP paper's (Fig. 6c) for gaps in eV and line effective masses in electron masses, both positive.

Where a property is missing, a label is given only if the others decide it: a metal is no candidate whatever its
masses, and one light carrier is enough. What stays open is missing, never false (three-valued logic of Kleene).
"""

from __future__ import annotations

import operator
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sorep.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

_RELATIONS: dict[str, Callable[[Any, float], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_COMPARISON = re.compile(r"\s*([A-Za-z_][\w.-]*)\s*(<=|>=|<|>)\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*")


@dataclass(frozen=True)
class Comparison:
    """A property compared with a number."""

    property: str
    relation: str
    threshold: float

    @classmethod
    def parse(cls, text: str) -> Comparison:
        """Read e.g. ``gap > 0.5``: a name, one of < <= > >=, and a number.

        Raises
        ------
        UsageError
            ``bad-comparison``.
        """
        match = _COMPARISON.fullmatch(text)
        if match is None:
            raise UsageError(
                f"{text!r} is no comparison", code="bad-comparison", remedy="write it like 'gap > 0.5', with < <= > >="
            )
        return cls(match[1], match[2], float(match[3]))

    def __str__(self) -> str:
        return f"{self.property} {self.relation} {self.threshold:g}"

    def holds(self, values: pd.Series) -> pd.Series:
        """For each of these floats: true, false, or missing where it is NaN (nullable boolean)."""
        return _RELATIONS[self.relation](values, self.threshold).astype("boolean").mask(values.isna())


class Criteria(BaseModel):
    """Comparisons of ``all`` must hold, and where there are any in ``any``, at least one of them.

    Comparisons are given as text, see `Comparison.parse`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1)]
    all: tuple[Comparison, ...] = ()
    any: tuple[Comparison, ...] = ()

    @field_validator("all", "any", mode="before")
    @classmethod
    def _parsed(cls, given: Any) -> Any:
        if not isinstance(given, list | tuple):
            raise ValueError("give a list of comparisons")
        try:
            return tuple(Comparison.parse(one) if isinstance(one, str) else one for one in given)
        except UsageError as error:
            raise ValueError(f"{error.message}; {error.remedy}") from None

    @model_validator(mode="after")
    def _something_to_compare(self) -> Criteria:
        if not (*self.all, *self.any):
            raise ValueError("there is nothing to compare: give comparisons in 'all' or 'any'")
        return self

    @property
    def properties(self) -> list[str]:
        """Names of the properties, each once, in the order of the comparisons."""
        return list(dict.fromkeys(one.property for one in (*self.all, *self.any)))

    def __str__(self) -> str:
        alternatives = " or ".join(map(str, self.any))
        if self.all and len(self.any) > 1:
            alternatives = f"({alternatives})"
        return " and ".join([*map(str, self.all), *([alternatives] if alternatives else [])])

    def apply(self, properties: pd.DataFrame) -> pd.Series:
        """Label every row.

        Parameters
        ----------
        properties : DataFrame
            A column of floats for each of `properties`, NaN where missing.

        Returns
        -------
        Series of nullable boolean
            Named ``label``; missing where the properties there are do not decide.
        """
        parts = [one.holds(properties.loc[:, one.property]) for one in self.all]
        if self.any:
            parts.append(reduce(operator.or_, [one.holds(properties.loc[:, one.property]) for one in self.any]))
        return reduce(operator.and_, parts).rename("label")


CRITERIA: Mapping[str, Criteria] = {
    criteria.name: criteria
    for criteria in (
        Criteria.model_validate(
            {
                "name": "transparent-conductor",
                "all": ["gap > 0.5"],
                "any": ["electron_mass <= 0.5", "hole_mass <= 1.0"],
            }
        ),
    )
}
"""By name; those of the SOREP paper."""


def get_criteria(name: str | Path) -> Criteria:
    """Built-in criteria by name, or those of a .toml file.

    Raises
    ------
    UsageError
        ``unknown-criteria``, ``bad-criteria-file``.
    """
    if str(name) in CRITERIA:
        return CRITERIA[str(name)]
    path = Path(name)
    if path.suffix != ".toml":
        raise UsageError(
            f"unknown criteria {str(name)!r}",
            code="unknown-criteria",
            remedy=f"choose from {', '.join(CRITERIA)}, or give a .toml file",
        )
    try:
        return Criteria.model_validate({"name": path.stem, **tomllib.loads(path.read_text(encoding="utf-8"))})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _bad_file(f"cannot read {path}: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise _bad_file(f"{path}: {where + ': ' if where else ''}{first['msg']}") from None


def _bad_file(what: str) -> UsageError:
    example = 'all = ["gap > 0.5"] and any = ["electron_mass <= 0.5", "hole_mass <= 1.0"]'
    return UsageError(what, code="bad-criteria-file", remedy=f"give a TOML file with lists like {example}")

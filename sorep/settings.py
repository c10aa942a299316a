"""What the options of all operators have in common: immutable, nothing unknown accepted, errors that name them."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from sorep.errors import UsageError


class Settings(BaseModel):
    """Base of `KineticSettings` and `SingleShotSettings`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def checked(cls, **options: Any) -> Self:
        """The same as the constructor, with a `UsageError` that names the option (code ``bad-option``)."""
        try:
            return cls(**options)
        except ValidationError as error:
            first = error.errors()[0]
            option = ".".join(map(str, first["loc"]))
            raise UsageError(
                f"{option}: {first['msg']} (given: {first.get('input')!r})",
                code="bad-option",
                remedy=f"options are {', '.join(cls.model_fields)}",
            ) from None

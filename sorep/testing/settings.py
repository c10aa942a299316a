"""A method with one setting changed, for each of its settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError

from sorep.method import Method
from sorep.testing.comparison import not_applicable, require


def changed_methods(method: Method, changes: Mapping[str, Any]) -> dict[str, Method]:
    """The method with another value of each setting, by the setting's name.

    Settings are the fields of a pydantic model, which is the method itself or a field of a dataclass. Numbers, flags
    and choices are changed to something that the model accepts; other values are taken from ``changes``.

    Raises
    ------
    SkipTest
        Where there is no pydantic model.
    AssertionError
        Where no other value of a setting is known, or ``changes`` names none.
    """
    settings, place = _find_settings(method)
    unknown = [name for name in changes if name not in type(settings).model_fields]
    require(not unknown, f"changes names {', '.join(unknown)}, which is no setting of {type(settings).__name__}")
    methods = {}
    for name, field in type(settings).model_fields.items():
        now = getattr(settings, name)
        candidates = [changes[name]] if name in changes else list(_others(now, field.annotation))
        accepted = [model for value in candidates if (model := _with(settings, name, value)) is not None]
        require(bool(accepted), f"no other value of {name} is known: give one, as changes={{{name!r}: ...}}")
        methods[name] = accepted[0] if place is None else dataclasses.replace(method, **{place: accepted[0]})  # pyright: ignore
    return methods


def _find_settings(method: Method) -> tuple[BaseModel, str | None]:
    if isinstance(method, BaseModel):
        return method, None
    if dataclasses.is_dataclass(method):
        for field in dataclasses.fields(method):
            if isinstance(value := getattr(method, field.name), BaseModel):
                return value, field.name
    raise not_applicable("the method has no pydantic settings")


def _with(settings: BaseModel, name: str, value: Any) -> BaseModel | None:
    words = {field: getattr(settings, field) for field in type(settings).model_fields}
    try:
        model = type(settings).model_validate({**words, name: value})
    except ValidationError:
        return None
    return None if getattr(model, name) == getattr(settings, name) else model


def _others(now: Any, annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
    elif isinstance(now, bool):
        yield not now
    elif isinstance(now, int):
        yield from (now + 1, now - 1)
    elif isinstance(now, float):
        yield from (1.5 * now, 0.5 * now, now + 1)

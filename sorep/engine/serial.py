"""The in-process twin of `LocalEngine`, for debuggers and notebooks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Self

from sorep.engine.outcome import Item, Limits, Outcome, Value
from sorep.engine.worker import attempt
from sorep.errors import UsageError


class SerialEngine:
    """Runs each item in this process, one after the other, when its outcome is asked for.

    Exceptions become outcomes as in `LocalEngine`. There are no limits and there is no protection: a
    crash ends this process.
    """

    limits = Limits()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def map_unordered(
        self, function: Callable[[Item], Value], items: Iterable[Item], *, seconds: float | None = None
    ) -> Iterator[Outcome[Item, Value]]:
        """Apply ``function`` to every item; see `Engine.map_unordered`.

        Raises
        ------
        UsageError
            If ``seconds`` is given: a running call cannot be stopped from inside its own process.
        """
        if seconds is not None:
            raise UsageError(
                "the serial engine cannot enforce a time limit", remedy="use LocalEngine, or give no limit"
            )
        return (Outcome(item, *attempt(function, item)) for item in items)

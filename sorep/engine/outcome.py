"""What an engine is asked and what it answers: `Limits`, `Outcome` and the verbs of an `Engine`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

from sorep.errors import SorepError, UsageError

Item = TypeVar("Item")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Limits:
    """What one task may use; ``None`` means no limit.

    Parameters
    ----------
    seconds : float, optional
        Wall-clock time from the moment a worker starts on the task.
    memory_bytes : int, optional
        Memory that the task may allocate on top of what its worker holds when the task starts.

    Raises
    ------
    UsageError
        If a limit is not positive.
    """

    seconds: float | None = None
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        check_positive("time limit", self.seconds)
        check_positive("memory limit", self.memory_bytes)


@dataclass(frozen=True)
class Outcome(Generic[Item, Value]):
    """The result of one item: ``value`` if ``error`` is None, else why there is none."""

    item: Item
    value: Value | None = None
    error: SorepError | None = None


class Engine(Protocol):
    """Runs a function over items; used as a context manager."""

    limits: Limits

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

    def map_unordered(
        self, function: Callable[[Item], Value], items: Iterable[Item], *, seconds: float | None = None
    ) -> Iterator[Outcome[Item, Value]]:
        """Apply ``function`` to every item and yield outcomes as they complete, in any order.

        ``items`` is pulled as workers become free, never read as a whole, and may itself be made from
        another map on the same engine.

        Parameters
        ----------
        function : callable
            Takes one item. An engine with workers needs it importable, and items and values picklable.
        items : iterable
            What to apply it to.
        seconds : float, optional
            Time limit of one item in this map, in place of ``limits.seconds``.

        Yields
        ------
        Outcome
            One for each item. Errors that concern one item are in it, never raised.
        """
        ...


def check_positive(name: str, value: float | None) -> None:
    """Raise `UsageError` unless ``value`` is None or greater than zero."""
    if value is not None and not value > 0:
        raise UsageError(f"the {name} is {value}", remedy=f"give a {name} greater than zero, or none")

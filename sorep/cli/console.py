"""What every command shares: errors with their remedy, exit statuses, and progress.

Exit status: 0 all done; 1 nothing could be done; 2 wrong usage; 3 done, but some structures failed; 130 interrupted.
"""

from __future__ import annotations

import functools
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from sorep.errors import SorepError, UsageError

if TYPE_CHECKING:
    from sorep.ledger import Progress

NOTHING_DONE, WRONG_USAGE, SOME_FAILED, INTERRUPTED = 1, 2, 3, 130


def guarded(command: Callable[..., Any]) -> Callable[..., Any]:
    """Turn a `SorepError` into its message on standard error and an exit status."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except SorepError as error:
            typer.echo(f"sorep: {error}", err=True)
            raise typer.Exit(WRONG_USAGE if isinstance(error, UsageError) else NOTHING_DONE) from None

    return run


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM (a batch system's warning) as Ctrl-C while the block runs."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def progress_display(quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """A live bar on a terminal, a line now and then elsewhere; yields the function that updates it."""
    if quiet:
        yield lambda _: None
    elif sys.stderr.isatty():
        yield from _live()
    else:
        yield from _lines()


def _live() -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[failures]}"),
        TextColumn("time left"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("featurize", total=None, rate="", failures="")
        rate = _Rate()

        def update(progress: Progress) -> None:
            text = f"{rate.of(progress):.1f}/s"
            bar.update(task, total=progress.total, completed=progress.finished, rate=text, failures=_failed(progress))

        yield update


def _lines(every: float = 10.0) -> Iterator[Callable[[Progress], None]]:
    rate = _Rate()
    last = time.monotonic()

    def update(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < every:
            return
        last = now
        per_second = rate.of(progress)
        left = (progress.total - progress.finished) / per_second if per_second else float("inf")
        text = f"{progress.finished}/{progress.total}  {per_second:.1f}/s  {_failed(progress)}  {_duration(left)} left"
        typer.echo(text, err=True)

    yield update


class _Rate:
    """Structures computed a second since the first one; those skipped at once do not count."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def of(self, progress: Progress) -> float:
        return (progress.computed + progress.failed) / max(time.monotonic() - self._start, 1e-9)


def _failed(progress: Progress) -> str:
    return f"{progress.all_failed} failed"


def _duration(seconds: float) -> str:
    if seconds == float("inf"):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def duration(seconds: float) -> str:
    """``h:mm:ss``, with decimals below ten seconds."""
    return f"{seconds:.1f} s" if seconds < 10 else _duration(seconds)

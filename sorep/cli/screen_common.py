"""Options and progress that the commands of `sorep screen` share."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from sorep.cli.console import duration

StoreArgument = Annotated[Path, typer.Argument(help="Folder of the store.")]
LabelsOption = Annotated[Path, typer.Option(help="Table of labels: .csv or .parquet, one row for each structure.")]
LabelColumnOption = Annotated[str, typer.Option(help="Its column of labels: true and false, or 1 and 0.")]
IdColumnOption = Annotated[str, typer.Option(help="Its column of structure ids.")]
FeaturesOption = Annotated[
    str,
    typer.Option(
        help="Feature set: NAME[+NAME...], each NAME feature, operator/feature or feature@identity. band-edges is made "
        "by `sorep single-shot`; kinetic features are named here."
    ),
]
DEFAULT_FEATURES = "band-edges"
ModelOption = Annotated[
    str, typer.Option(help="default, published, or a class with scikit-learn's interface, package.module:Class.")
]
ParamOption = Annotated[
    list[str] | None, typer.Option("--param", help="Argument of the model, NAME=VALUE; may be repeated.")
]
IgnoreUnknownOption = Annotated[
    bool, typer.Option("--ignore-unknown", help="Leave out labels of structures that the store does not know.")
]
SeedOption = Annotated[int, typer.Option(min=0, help="Same seed, same result, whatever the number of jobs.")]
JobsOption = Annotated[int, typer.Option("--jobs", "-j", min=0, help="Worker processes. Default: all cores.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show how much there is to do, and stop.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")]

_EVERY = 10.0  # seconds between lines of progress where there is no terminal


def parse_params(given: list[str] | None) -> dict[str, Any]:
    """``NAME=VALUE`` arguments; a value that is no JSON, True, False or None is text.

    Raises
    ------
    UsageError
        ``bad-option``.
    """
    import json

    from sorep.errors import UsageError

    words = {"True": True, "False": False, "None": None}
    params: dict[str, Any] = {}
    for text in given or ():
        name, separator, value = text.partition("=")
        if not (separator and name.isidentifier()) or name in params:
            raise UsageError(
                f"--param {text}", code="bad-option", remedy="write it like n_estimators=200, each name once"
            )
        try:
            params[name] = words[value] if value in words else json.loads(value)
        except json.JSONDecodeError:
            params[name] = value
    return params


def print_table(table: Any) -> None:
    """A rich table that keeps long names whole where there is no terminal."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 200, markup=False, highlight=False).print(table)


@contextmanager
def counting(what: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, a line now and then elsewhere; yields what takes the number done and of all."""
    if quiet:
        yield lambda done, total: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as bars:
            task = bars.add_task(what, total=None)
            yield lambda done, total: bars.update(task, completed=done, total=total)
    else:
        yield _lines(what)


def _lines(what: str) -> Callable[[int, int], None]:
    start = last = time.monotonic()

    def update(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _EVERY:
            last = now
            left = (now - start) * (total - done) / max(done, 1)
            typer.echo(f"{done}/{total} {what}, {duration(left)} left", err=True)

    return update

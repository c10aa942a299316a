"""`sorep pw`: the pw.x that single-shot calculations run."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from sorep.cli.console import duration, guarded, terminate_as_interrupt

pw_app = typer.Typer(
    help="Build and find the pw.x of single-shot calculations.", no_args_is_help=True, rich_markup_mode=None
)


@pw_app.command()
@guarded
def build(
    source: Annotated[
        Path | None,
        typer.Option(help="Folder or tarball of Quantum ESPRESSO 6.7; without it, it is downloaded."),
    ] = None,
    mpi: Annotated[bool, typer.Option("--mpi", help="Build for MPI, for cells too large for one core.")] = False,
    jobs: Annotated[int | None, typer.Option(help="Files compiled at one time.", show_default="all cores")] = None,
    force: Annotated[bool, typer.Option("--force", help="Build also where it has been built already.")] = False,
) -> None:
    """Build a patched and checked pw.x; prints its path, and at once where it has been built already.

    Needs gfortran, gcc, make, patch, FFTW 3 and OpenBLAS; says what is missing and how to get it. The source is
    Quantum ESPRESSO 6.7, from --source, or the source package of Debian or Ubuntu, or the project's release archive,
    verified file by file. Takes two minutes on two cores. The executable is kept in the folder of the environment
    variable SOREP_CACHE (otherwise ~/.cache/sorep), once it reproduces eigenvalues of the unpatched code.
    """
    from sorep.single_shot.build import build

    with terminate_as_interrupt(), _step_display() as report:
        executable = build(source, mpi=mpi, jobs=jobs, force=force, report=report)
    typer.echo(executable)


@pw_app.command()
@guarded
def where() -> None:
    """Print the path of the pw.x that a run would use, and what it is.

    It is the one named by the environment variable SOREP_PW_X, else the newest built with sorep pw build, else the one
    on the PATH.
    """
    from sorep.single_shot.executable import find_pw_x, probe

    pw_x = probe(find_pw_x())
    kind = "with" if pw_x.is_patched else "without"
    typer.echo(f"Quantum ESPRESSO {pw_x.version}, {kind} the single-shot mode of sorep", err=True)
    typer.echo(pw_x.path)


@contextmanager
def _step_display() -> Iterator[Callable[[str], None]]:
    """The step in progress and its time on a terminal, a line for each step elsewhere; all on standard error."""
    if not sys.stderr.isatty():
        start = time.monotonic()
        yield lambda step: typer.echo(f"[{duration(time.monotonic() - start)}] {step}", err=True)
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=Console(stderr=True)
    ) as bar:

        def report(step: str) -> None:
            for task in bar.task_ids:
                bar.update(task, total=1, completed=1)
            bar.add_task(step, total=None)

        yield report

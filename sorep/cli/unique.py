"""`sorep unique` and `sorep similar`: equivalent structures and nearest neighbours."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sorep.cli.console import INTERRUPTED, duration, terminate_as_interrupt

if TYPE_CHECKING:
    from sorep.similarity import Groups
    from sorep.similarity.stored import Outlook

StoreArgument = Annotated[Path, typer.Argument(help="Folder of the store.")]
FeatureOption = Annotated[str, typer.Option(help="Name of the feature to compare.")]
MetricOption = Annotated[
    str, typer.Option(help="cosine, euclidean, tanimoto, or wasserstein (eV by which states are moved).")
]
OperatorOption = Annotated[str | None, typer.Option(help="Where several operators have this feature.")]
IdentityOption = Annotated[str | None, typer.Option(help="First digits, where one name has several identities.")]

_SHOWN = 10
_EVERY = 10.0  # seconds between lines of progress where there is no terminal


def unique(
    store: StoreArgument = Path("sorep-store"),
    feature: FeatureOption = "kinetic",
    metric: MetricOption = "cosine",
    epsilon: Annotated[float, typer.Option(help="Distance up to which two structures count as one.")] = 1e-3,
    n_min: Annotated[
        int, typer.Option(help="Structures, itself among them, that one needs within epsilon to pass a chain on.")
    ] = 1,
    across_compositions: Annotated[
        bool, typer.Option("--across-compositions", help="Compare structures of different reduced formula too.")
    ] = False,
    confirm: Annotated[
        bool, typer.Option("--confirm", help="Ask pymatgen's StructureMatcher about every duplicate: slow, yes or no.")
    ] = False,
    formula: Annotated[
        str | None, typer.Option(help="Show this composition only, e.g. BaTiO3; all are grouped all the same.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="HTML file to write, with curves and matrices that show where epsilon lies.")
    ] = None,
    table: Annotated[Path | None, typer.Option(help="Table of all structures to write: .csv or .parquet.")] = None,
    operator: OperatorOption = None,
    identity: IdentityOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show how much there is to compare, and stop.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the summary.")] = False,
) -> None:
    """Find equivalent structures in a store, and one representative of each.

    Structures of one composition whose features are linked by distances up to epsilon form a group (DBSCAN; a chain
    counts, so members may be farther apart than epsilon). A very small epsilon, 1e-8, finds only other descriptions of
    the same crystal; a larger one takes slightly distorted copies too, and at last different polymorphs. Look at the
    report before you rely on a choice.

    The result is kept in the store, in its table 'groups'. When structures have been added, the same command compares
    only the new ones, and gives what it would give from the beginning.

    Examples:

    sorep unique my-store --report groups.html

    sorep unique my-store --epsilon 1e-2 --formula BaTiO3 --report batio3.html --table groups.csv

    In Python: sorep.FeatureStore('my-store').groups()
    """
    from sorep.similarity import Rule, group_store, reduced_formula
    from sorep.similarity.clustering import check
    from sorep.similarity.distances import get_measure
    from sorep.similarity.stored import outlook
    from sorep.store import FeatureStore
    from sorep.tables import check_suffix, write_table

    get_measure(metric)
    check(epsilon, n_min)
    if table is not None:
        check_suffix(table)
    shown = reduced_formula(formula) if formula else None
    opened = FeatureStore(store)
    matrix = opened.matrix(feature, operator=operator, identity=identity)
    rule = Rule(metric, epsilon, n_min, across_compositions, matrix.name, matrix.identity.hash)
    plan = outlook(opened, matrix, rule)
    typer.echo(_plan(plan, rule.across_compositions))
    without = len(opened.content_keys()) - plan.n_structures
    if without:
        typer.echo(f"{without} structures have no feature {feature!r} and are left out", err=True)
    if dry_run:
        return
    try:
        with terminate_as_interrupt(), _progress(quiet) as show:
            groups = group_store(
                opened,
                matrix,
                rule,
                confirm=confirm,
                command=" ".join(sys.argv),
                on_compared=show("compared"),
                on_confirmed=show("confirmed"),
            )
    except KeyboardInterrupt:
        typer.echo("interrupted: no groups were stored", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if table:
        write_table(groups.frame(), table)
    _summarise(groups, shown)
    if report:
        from sorep.similarity.report import write_report

        files = write_report(matrix, groups, report, formula=shown)
        typer.echo(", ".join(map(str, files)))


def similar(
    store: StoreArgument,
    id: Annotated[str, typer.Argument(help="Structure whose neighbours are sought.")],
    k: Annotated[int, typer.Option("-k", min=1, help="Number of neighbours.")] = 10,
    feature: FeatureOption = "kinetic",
    metric: MetricOption = "cosine",
    operator: OperatorOption = None,
    identity: IdentityOption = None,
) -> None:
    """List the structures nearest to one, of whatever composition.

    Example: sorep similar my-store si -k 5
    """
    from rich.table import Table

    from sorep.errors import StoreError
    from sorep.similarity import formulas_of, nearest
    from sorep.store import FeatureStore

    opened = FeatureStore(store)
    matrix = opened.matrix(feature, operator=operator, identity=identity)
    is_it = matrix.ids == id
    if not is_it.any():
        raise StoreError(
            f"{id!r} has no feature {feature!r}",
            code="no-such-id",
            remedy="see `sorep list --structures` for what the store holds and `sorep failures` for what failed",
        )
    others = matrix.ids[~is_it]
    found = nearest(matrix.values[is_it], k, metric, matrix.grid, among=matrix.values[~is_it])
    rows = found.rows[0]
    shown = Table("id", "formula", f"{metric} distance" + (" (eV)" if metric == "wasserstein" else ""))
    formulas = formulas_of(opened, others[rows])
    for other, formula, distance in zip(others[rows], formulas, found.distances[0], strict=True):
        shown.add_row(str(other), str(formula), f"{distance:.3g}")
    _print(shown if len(rows) else f"{id} is the only structure with this feature")


def _plan(plan: Outlook, across: bool) -> str:
    what = "together" if across else f"of {plan.n_compositions} compositions, the largest with {plan.largest}"
    known = f"; {plan.n_known} were grouped before" if plan.n_known else ""
    return f"{plan.n_structures} structures {what}: {plan.n_pairs} pairs to compare{known}"


def _summarise(groups: Groups, formula: str | None) -> None:
    from rich.table import Table

    shown = groups.of_composition(formula) if formula else groups
    summary = Table(show_header=False, title=formula)
    for name, value in shown.counts().items():
        summary.add_row(name, str(value))
    _print(summary)
    largest = Table("representative", "formula", "members", "farthest", title="Largest groups")
    for representative, its_formula, members, farthest in shown.largest(_SHOWN):
        largest.add_row(representative, its_formula, str(members), f"{farthest:.3g}")
    if largest.row_count:
        _print(largest)


def _print(table: Any) -> None:
    from rich.console import Console

    # Without a terminal, long names would be folded to 80 columns.
    Console(width=None if sys.stdout.isatty() else 200, markup=False, highlight=False).print(table)


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """Bars on a terminal, a line now and then elsewhere; yields what makes the function that updates one."""
    if quiet:
        yield lambda title: lambda done, total: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as bars:

            def bar(title: str) -> Callable[[int, int], None]:
                task = bars.add_task(title, visible=False)
                return lambda done, total: bars.update(task, completed=done, total=total, visible=True)

            yield bar
    else:
        yield _lines


def _lines(title: str) -> Callable[[int, int], None]:
    start = last = time.monotonic()

    def update(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _EVERY:
            last = now
            left = (now - start) * (total - done) / max(done, 1)
            typer.echo(f"{title} {done}/{total} pairs, {duration(left)} left", err=True)

    return update

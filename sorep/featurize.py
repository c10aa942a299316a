"""From many structures to a store of features: read, check, compute, commit.

Structures are read and computed in an engine's workers; the parent decides what still needs doing (`sorep.ledger`) and
hands results to the store. A rerun over the same input does only what is missing.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import pyarrow.compute as pc

from sorep.engine import Engine
from sorep.errors import Failure, SorepError, SpectrumError
from sorep.features import FeatureSpec, compute_feature
from sorep.identity import Identity
from sorep.intake import Acceptance, read_structures
from sorep.ledger import Ledger, Progress, Result, SpectrumLedger, content_keys, name_conflict
from sorep.method import Method, Work
from sorep.sources import Item
from sorep.store import FeatureStore, StoreWriter
from sorep.store.runs import RunRecord
from sorep.store.schema import failure_row, feature_row
from sorep.store.tables import Tables
from sorep.structure import Structure

Value = TypeVar("Value")


@dataclass(frozen=True)
class Outlook:
    """What a run is about to do: number of structures, seconds of one core, and why others are refused."""

    n_structures: int
    seconds: float
    refused: Counter[str]  # structures by the message of their error


def feature_identity(spectrum: Identity, spec: FeatureSpec) -> Identity:
    """Identity of the features that ``spec`` makes of spectra of a given identity."""
    return spectrum.extended(feature=spec.words())


def featurize(
    items: Sequence[Item],
    method: Method,
    specs: Sequence[FeatureSpec],
    store: str | Path,
    engine: Engine,
    *,
    acceptance: Acceptance = Acceptance(),
    retry_failed: bool = False,
    command: str = "",
    references: Sequence[str] = (),
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_planned: Callable[[Outlook], None] = lambda _: None,
    commit_rows: int = 512,
    commit_seconds: float = 15.0,
) -> Progress:
    """Compute what is missing and leave it in the store.

    Parameters
    ----------
    items : sequence of Item
        From `sorep.sources.find_items`.
    method : Method
    specs : sequence of FeatureSpec
    store : str or Path
        Folder; made where it does not exist.
    engine : Engine
        Open; runs reading and computing.
    acceptance : Acceptance
    retry_failed : bool
        Try structures again that failed before with the same settings.
    command : str
        Recorded with the run.
    references : sequence of str
        BibTeX entries of the data, recorded with the run.
    on_progress : callable
        Called after every structure.
    on_planned : callable
        Called once before the first computation of a method that starts with the longest.
    commit_rows, commit_seconds : int, float
        Bounds on what an interrupted run may have to redo.

    Returns
    -------
    Progress

    Raises
    ------
    StoreError
        Where the store cannot be written; whatever was committed stays.
    SorepError
        With stage ``set-up``, where structure after structure failed for one reason that lies in the machine.
    KeyboardInterrupt
        After everything that was finished has been committed.
    """
    tables = Tables(Path(store), create=True)
    writer = StoreWriter(tables, max_rows=commit_rows, max_seconds=commit_seconds)
    spectra = method.identity()
    features = {spec.name: feature_identity(spectra, spec) for spec in specs}
    record = RunRecord.start(tables, command, {i.hash: i for i in (spectra, *features.values())}, references)
    run = SpectrumLedger(tables, writer, record.run_id, method, features, retry_failed)

    def ordered(pending: Iterator[Structure]) -> Iterator[Structure]:
        return _longest_first(pending, method, engine, run, on_planned) if method.longest_first else pending

    task = partial(_calculate, method=method, specs=tuple(specs))
    compute_missing(task, items, run, record, engine, acceptance, on_progress, ordered)
    for spec in specs:
        refeaturize(store, spec, spectra, command=command)
    return run.progress


def compute_missing(
    task: Callable[[Structure], Value],
    items: Sequence[Item],
    run: Ledger[Value],
    record: RunRecord,
    engine: Engine,
    acceptance: Acceptance,
    on_progress: Callable[[Progress], None],
    ordered: Callable[[Iterator[Structure]], Iterator[Structure]] = lambda pending: pending,
) -> None:
    """Read structures, do ``task`` in an engine's workers for those that a ledger lacks, and end the record of the run.

    Whatever was finished is committed, however this ends. ``ordered`` may put what is pending into another order.
    """
    progress = run.progress
    progress.total = sum(item.count or 1 for item in items)
    event = "interrupted"
    try:
        entries = read_structures(items, acceptance, engine, progress.grow)
        for outcome in engine.map_unordered(task, ordered(run.pending(entries, on_progress))):
            run.finish(outcome.item, outcome.error if outcome.value is None else outcome.value)
            on_progress(progress)
            run.stop_if_hopeless()
        event = "finished"
    finally:
        run.flush()
        record.end(event, progress.computed, progress.failed)


def refeaturize(store: str | Path, spec: FeatureSpec, spectra: Identity, *, command: str = "") -> int:
    """Make a feature of all stored spectra of an identity that lack it; nothing is recomputed.

    Returns how many vectors were added. Spectra that cannot give the feature leave a row in `failures`.
    """
    tables, reader = Tables(Path(store)), FeatureStore(store)
    identity = feature_identity(spectra, spec)
    named = (pc.field("identity") == identity.hash) & (pc.field("name") == spec.name)
    present = set(tables.read("features", ["content_key"], named)["content_key"].to_pylist())
    present |= content_keys(tables, "failures", identity)
    missing = content_keys(tables, "spectra", spectra) - present
    if not missing:
        return 0
    writer = StoreWriter(tables)
    record = RunRecord.start(tables, command, {i.hash: i for i in (spectra, identity)})
    added = failed = 0
    try:
        for key, operator, spectrum in reader.spectra(spectra.hash, present):
            try:
                values = compute_feature(spectrum, spec)
            except SorepError as error:
                failures = [Failure.from_error(error, id=id, source="", content_key=key) for id in reader.ids_of(key)]
                writer.add("failures", [failure_row(f, identity=identity.hash, run_id=record.run_id) for f in failures])
                failed += 1
            else:
                row = (key, identity.hash, spectra.hash, spec.name, operator, values, record.run_id)
                writer.add("features", [feature_row(*row)])
                added += 1
            writer.tick()
    finally:
        writer.flush()
        record.end("finished" if added + failed == len(missing) else "interrupted", added, failed)
    return added


def estimate(
    items: Sequence[Item],
    method: Method,
    engine: Engine,
    *,
    store: Path | None = None,
    acceptance: Acceptance = Acceptance(),
) -> Iterator[tuple[str, str, Work | Failure | None]]:
    """What `featurize` would do: id, formula, and cost or reason of refusal of every structure. Nothing is stored.

    In place of the cost there is None where the store, if it exists, has the spectrum already.
    """
    stored: set[str] = set()
    if store is not None and (store / "spectra").exists():
        stored = content_keys(Tables(store), "spectra", method.identity())
    for structure, answer in map_structures(method.estimate, items, engine, acceptance=acceptance):
        if structure is not None:
            yield structure.id, structure.formula, None if structure.content_key in stored else answer
        elif isinstance(answer, Failure):
            yield answer.id, "", answer


def map_structures(
    function: Callable[[Structure], Value],
    items: Sequence[Item],
    engine: Engine,
    *,
    acceptance: Acceptance = Acceptance(),
    on_more: Callable[[int], None] = lambda _: None,
) -> Iterator[tuple[Structure | None, Value | Failure]]:
    """Every structure and what ``function`` makes of it in an engine's workers, or why there is nothing.

    There is no structure, only the failure, where it cannot be read, is not accepted, or has the id of another.
    ``on_more`` is told how many more structures a file held than it was listed with.
    """
    names: dict[str, str] = {}
    refused: list[Failure] = []

    def accepted() -> Iterator[Structure]:
        for entry in read_structures(items, acceptance, engine, on_more):
            failure = entry if isinstance(entry, Failure) else name_conflict(entry, names)
            if failure:
                refused.append(failure)
            elif isinstance(entry, Structure):
                names[entry.id] = entry.content_key
                yield entry

    for outcome in engine.map_unordered(function, accepted()):
        structure = outcome.item
        answer = outcome.value
        if answer is None:
            error = outcome.error or SpectrumError("the engine gave no result")
            answer = Failure.from_error(error, id=structure.id, source=structure.source)
        yield structure, answer
        while refused:
            yield None, refused.pop()
    yield from ((None, failure) for failure in refused)


def _longest_first(
    pending: Iterator[Structure],
    method: Method,
    engine: Engine,
    run: Ledger,
    on_planned: Callable[[Outlook], None],
) -> Iterator[Structure]:
    """All pending structures by falling cost; those that the method refuses are settled at once."""
    costs: list[tuple[float, Structure]] = []
    refused: Counter[str] = Counter()
    for outcome in engine.map_unordered(method.estimate, pending):
        if outcome.value is None:
            refused[str(outcome.error)] += 1
            run.finish(outcome.item, outcome.error)
        else:
            costs.append((outcome.value.seconds, outcome.item))
    on_planned(Outlook(len(costs), sum(seconds for seconds, _ in costs), refused))
    costs.sort(key=lambda cost: -cost[0])
    yield from (structure for _, structure in costs)


def _calculate(structure: Structure, method: Method, specs: Sequence[FeatureSpec]) -> Result:
    start = _cpu_seconds()
    calculation = method.calculate(structure)
    features, refused = {}, {}
    for spec in specs:
        try:
            features[spec.name] = compute_feature(calculation.spectrum, spec)
        except SorepError as error:
            refused[spec.name] = error
    return Result(calculation, features, refused, _cpu_seconds() - start)


def _cpu_seconds() -> float:
    """Of this process and the programs that it ran."""
    return sum(os.times()[:4])

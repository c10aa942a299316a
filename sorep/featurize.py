"""From many structures to a store of features: read, check, compute, commit.

Structures are read and computed in an engine's workers; this module decides in the parent what still needs doing,
keeps names and contents apart, and hands results to the store. A rerun over the same input does only what is missing.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from sorep.engine import Engine
from sorep.errors import Failure, SorepError, SpectrumError, StructureError
from sorep.features import FeatureSpec, compute_feature
from sorep.identity import Identity
from sorep.intake import Acceptance, read_structures
from sorep.method import Calculation, Method, Work
from sorep.sources import Item
from sorep.store import FeatureStore, StoreWriter
from sorep.store.runs import RunRecord
from sorep.store.schema import DUPLICATE_ID, SEVERAL_CALCULATIONS, failure_row, feature_row, spectrum_row, structure_row
from sorep.store.tables import Tables
from sorep.structure import Structure

SET_UP = "set-up"
"""Stage of errors that lie in the machine. They are not held against a structure: the next run tries it again."""

MOST_SET_UP_FAILURES = 10
"""Set-up failures of one code in a row, without any success, after which a run stops."""

_NOT_OF_CONTENT = {DUPLICATE_ID, SEVERAL_CALCULATIONS, "atoms-too-close", "too-many-atoms"}
"""Failures that other names or another `Acceptance` undo."""


@dataclass
class Progress:
    """Where a run stands. ``total`` is the number of structures known so far."""

    total: int
    computed: int = 0
    shared: int = 0  # another name for a crystal that is computed once
    stored_before: int = 0
    failed: int = 0
    failed_before: int = 0
    incomplete: int = 0  # with a spectrum that cannot give one of the features
    codes: Counter[str] = field(default_factory=Counter)

    def grow(self, more: int) -> None:
        """A file held more structures than it was listed with."""
        self.total += more

    @property
    def done(self) -> int:
        return self.computed + self.shared + self.stored_before

    @property
    def all_failed(self) -> int:
        return self.failed + self.failed_before

    @property
    def finished(self) -> int:
        return self.done + self.all_failed


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
    run = _Run(tables, writer, record.run_id, method, features, retry_failed)
    progress = run.progress
    progress.total = sum(item.count or 1 for item in items)
    event = "interrupted"
    try:
        entries = read_structures(items, acceptance, engine, progress.grow)
        pending = run.pending(entries, on_progress)
        if method.longest_first:
            pending = _longest_first(pending, method, engine, run, on_planned)
        task = partial(_calculate, method=method, specs=tuple(specs))
        for outcome in engine.map_unordered(task, pending):
            run.finish(outcome.item, outcome.value or outcome.error)
            on_progress(progress)
            run.stop_if_hopeless()
        event = "finished"
    finally:
        writer.flush()
        record.end(event, progress.computed, progress.failed)
    for spec in specs:
        refeaturize(store, spec, spectra, command=command)
    return progress


def refeaturize(store: str | Path, spec: FeatureSpec, spectra: Identity, *, command: str = "") -> int:
    """Make a feature of all stored spectra of an identity that lack it; nothing is recomputed.

    Returns how many vectors were added. Spectra that cannot give the feature leave a row in `failures`.
    """
    tables, reader = Tables(Path(store)), FeatureStore(store)
    identity = feature_identity(spectra, spec)
    named = (pc.field("identity") == identity.hash) & (pc.field("name") == spec.name)
    present = set(tables.read("features", ["content_key"], named)["content_key"].to_pylist())
    present |= _content_keys(tables, "failures", identity)
    missing = _content_keys(tables, "spectra", spectra) - present
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
    items: Sequence[Item], method: Method, engine: Engine, *, acceptance: Acceptance = Acceptance()
) -> Iterator[tuple[str, str, Work | Failure]]:
    """What `featurize` would do: id, formula, and cost or reason of refusal of every structure. Nothing is stored."""
    names: dict[str, str] = {}
    refused: list[tuple[str, str, Failure]] = []

    def accepted() -> Iterator[Structure]:
        for entry in read_structures(items, acceptance, engine):
            failure = entry if isinstance(entry, Failure) else _name_conflict(entry, names)
            if failure:
                refused.append((failure.id, "", failure))
            elif isinstance(entry, Structure):
                names[entry.id] = entry.content_key
                yield entry

    for outcome in engine.map_unordered(method.estimate, accepted()):
        structure = outcome.item
        answer = outcome.value
        if answer is None:
            error = outcome.error or SpectrumError("the engine gave no result")
            answer = Failure.from_error(error, id=structure.id, source=structure.source)
        yield structure.id, structure.formula, answer
        while refused:
            yield refused.pop()
    yield from refused


def _longest_first(
    pending: Iterable[Structure],
    method: Method,
    engine: Engine,
    run: _Run,
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


@dataclass(frozen=True, eq=False)
class _Result:
    """What a worker sends back for one structure."""

    calculation: Calculation
    features: dict[str, NDArray[np.float64]]
    refused: dict[str, SorepError]  # features that the spectrum cannot give
    cpu_seconds: float


def _calculate(structure: Structure, method: Method, specs: Sequence[FeatureSpec]) -> _Result:
    start = _cpu_seconds()
    calculation = method.calculate(structure)
    features, refused = {}, {}
    for spec in specs:
        try:
            features[spec.name] = compute_feature(calculation.spectrum, spec)
        except SorepError as error:
            refused[spec.name] = error
    return _Result(calculation, features, refused, _cpu_seconds() - start)


def _cpu_seconds() -> float:
    """Of this process and the programs that it ran."""
    return sum(os.times()[:4])


class _Run:
    """What has a result, what is being computed under which names, and the rows that follow."""

    def __init__(
        self,
        tables: Tables,
        writer: StoreWriter,
        run_id: str,
        method: Method,
        features: dict[str, Identity],
        retry_failed: bool,
    ) -> None:
        self.progress = Progress(total=0)
        self._writer, self._run_id, self._operator = writer, run_id, method.operator
        self._shares_spectra = method.follows_from_structure
        self._spectra, self._features = method.identity(), features
        spectra = self._spectra
        self._names = FeatureStore(tables.path).content_keys()
        self._stored_names = set(self._names)
        self._done = _content_keys(tables, "spectra", spectra)
        # Features that a kill left without their spectrum.
        self._stored_features = {name: _content_keys(tables, "features", i) for name, i in features.items()}
        columns = [f.name for f in fields(Failure)]
        known = tables.read("failures", columns, pc.field("identity") == spectra.hash).to_pylist()
        failures = [] if retry_failed else [Failure(**row) for row in known if row["stage"] != SET_UP]
        self._failures = {(f.source, f.code) for f in failures}
        self._failed = {f.content_key: f for f in failures if f.content_key and f.code not in _NOT_OF_CONTENT}
        self._waiting: dict[str, list[Structure]] = {}
        self._set_up_failures: list[SorepError] = []  # in a row, of one code

    def pending(
        self, entries: Iterable[Structure | Failure], on_progress: Callable[[Progress], None]
    ) -> Iterator[Structure]:
        """The structures that must be computed, each content once; everything else is settled on the way."""
        for entry in entries:
            failure = entry if isinstance(entry, Failure) else _name_conflict(entry, self._names)
            if failure:
                self._fail(failure)
            elif isinstance(entry, Structure) and self._is_new(entry):
                yield entry
            self._writer.tick()
            on_progress(self.progress)

    def _is_new(self, structure: Structure) -> bool:
        key = structure.content_key
        self._names[structure.id] = key
        if not self._shares_spectra and self._is_taken(structure):
            return False
        if key in self._done:
            if structure.id in self._stored_names:
                self.progress.stored_before += 1
            else:
                self.progress.shared += 1
                self._store_name(structure)
            return False
        if key in self._waiting:
            self._waiting[key].append(structure)
            return False
        if key in self._failed and (self._shares_spectra or self._failed[key].id == structure.id):
            self._fail(replace(self._failed[key], id=structure.id, source=structure.source))
            return False
        self._waiting[key] = [structure]
        return True

    def _is_taken(self, structure: Structure) -> bool:
        """Refuse a calculation of a crystal of which another one is there or under way."""
        key = structure.content_key
        if key not in self._waiting and (key not in self._done or structure.id in self._stored_names):
            return False
        others = [id for id, content in self._names.items() if content == key and id != structure.id]
        error = StructureError(
            f"another calculation of the same crystal comes first: {others[0]}",
            code=SEVERAL_CALCULATIONS,
            stage="read",
            remedy="leave one out or give them different labels; if the first one failed, run again",
        )
        self._fail(Failure.from_error(error, id=structure.id, source=structure.source, content_key=key))
        return True

    def finish(self, structure: Structure, result: _Result | SorepError | None) -> None:
        """Settle a computed structure under all its names."""
        named = self._waiting.pop(structure.content_key)
        if not isinstance(result, _Result):
            key, error = structure.content_key, result or SpectrumError("the engine gave no result")
            same = [e for e in self._set_up_failures if e.code == error.code]
            self._set_up_failures = [*same, error] if error.stage == SET_UP else []
            for one in named:
                self._failed[key] = Failure.from_error(error, id=one.id, source=one.source, content_key=key)
                self._fail(self._failed[key])
            return
        self._set_up_failures = []
        key, spectra, run_id = structure.content_key, self._spectra.hash, self._run_id
        for one in named:
            self._store_name(one)
        self._done.add(key)
        self._writer.add(
            "spectra",
            [
                spectrum_row(
                    result.calculation.spectrum,
                    result.calculation.cell,
                    content_key=key,
                    identity=spectra,
                    operator=self._operator,
                    cpu_seconds=result.cpu_seconds,
                    run_id=run_id,
                )
            ],
        )
        for name, values in result.features.items():
            if key in self._stored_features[name]:
                continue
            row = feature_row(key, self._features[name].hash, spectra, name, self._operator, values, run_id)
            self._writer.add("features", [row])
        for name, error in result.refused.items():
            failures = [Failure.from_error(error, id=o.id, source=o.source, content_key=key) for o in named]
            identity = self._features[name].hash
            self._writer.add("failures", [failure_row(f, identity=identity, run_id=run_id) for f in failures])
            self.progress.codes[error.code] += len(named)
        self.progress.incomplete += len(named) if result.refused else 0
        self.progress.computed += 1
        self.progress.shared += len(named) - 1
        self._writer.tick()

    def stop_if_hopeless(self) -> None:
        """Raise the set-up error that structure after structure met."""
        if len(self._set_up_failures) >= MOST_SET_UP_FAILURES:
            error = self._set_up_failures[-1]
            raise type(error)(
                f"{len(self._set_up_failures)} structures in a row failed for one reason: {error.message}",
                code=error.code,
                stage=error.stage,
                remedy=error.remedy,
            )

    def _store_name(self, structure: Structure) -> None:
        if structure.id not in self._stored_names:
            self._stored_names.add(structure.id)
            self._writer.add("structures", [structure_row(structure, self._run_id)])

    def _fail(self, failure: Failure) -> None:
        self.progress.codes[failure.code] += 1
        if (failure.source, failure.code) in self._failures:
            self.progress.failed_before += 1
            return
        self._failures.add((failure.source, failure.code))
        self.progress.failed += 1
        self._writer.add("failures", [failure_row(failure, identity=self._spectra.hash, run_id=self._run_id)])


def _name_conflict(structure: Structure, names: Mapping[str, str]) -> Failure | None:
    """Why a structure may not have its id: another content has it already."""
    key = structure.content_key
    if names.get(structure.id, key) == key:
        return None
    error = StructureError(
        f"the id {structure.id!r} already names another structure",
        code=DUPLICATE_ID,
        stage="read",
        remedy="rename one of the two, or choose another --id-column; if the file was edited, give a fresh --store",
    )
    return Failure.from_error(error, id=structure.id, source=structure.source, content_key=key)


def _content_keys(tables: Tables, table: str, identity: Identity) -> set[str]:
    rows = tables.read(table, ["content_key"], pc.field("identity") == identity.hash)
    return set(rows["content_key"].to_pylist())

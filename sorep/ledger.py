"""What a run has settled, what is being computed under which names, and the rows that follow.

The parent of a run decides here what still needs doing: names and contents are kept apart, each content is computed
once, known failures are not repeated, and whatever a worker sends back goes to the store under all names at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Generic, TypeVar

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from sorep.errors import SET_UP, Failure, SorepError, StructureError
from sorep.identity import Identity
from sorep.method import Calculation, Method
from sorep.store import FeatureStore, StoreWriter
from sorep.store.schema import (
    DUPLICATE_ID,
    SEVERAL_CALCULATIONS,
    band_structure_row,
    failure_row,
    feature_row,
    spectrum_row,
    structure_row,
)
from sorep.store.tables import Tables
from sorep.structure import Structure

MOST_SET_UP_FAILURES = 10
"""Set-up failures of one code in a row, without any success, after which a run stops."""

Found = TypeVar("Found")

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


@dataclass(frozen=True, eq=False)
class Result:
    """What a worker sends back for one structure."""

    calculation: Calculation
    features: dict[str, NDArray[np.float64]]
    refused: dict[str, SorepError]  # features that the spectrum cannot give
    cpu_seconds: float


class Ledger(ABC, Generic[Found]):
    """What has a result, what is being computed under which names, and the rows that follow.

    Parameters
    ----------
    tables, writer
        Of one store.
    run_id : str
    identity : Identity
        Of the results; their failures carry it too.
    done_table : str
        A row of this identity there says that a content has its result. It is the last of a result to be committed.
    retry_failed : bool
    follows_from_structure : bool
        Whether equal structures have equal results.
    """

    def __init__(
        self,
        tables: Tables,
        writer: StoreWriter,
        run_id: str,
        identity: Identity,
        *,
        done_table: str,
        retry_failed: bool,
        follows_from_structure: bool = True,
    ) -> None:
        self.progress = Progress(total=0)
        self._writer, self._run_id, self._identity = writer, run_id, identity
        self._is_shared = follows_from_structure
        self._names = FeatureStore(tables.path).content_keys()
        self._stored_names = set(self._names)
        self._done = content_keys(tables, done_table, identity)
        columns = [f.name for f in fields(Failure)]
        known = tables.read("failures", columns, pc.field("identity") == identity.hash).to_pylist()
        failures = [] if retry_failed else [Failure(**row) for row in known if row["stage"] != SET_UP]
        self._failures = {(f.source, f.code) for f in failures}
        self._failed = {f.content_key: f for f in failures if f.content_key and f.code not in _NOT_OF_CONTENT}
        self._waiting: dict[str, list[Structure]] = {}
        self._set_up_failures: list[SorepError] = []  # in a row, of one code

    @abstractmethod
    def _add(self, named: Sequence[Structure], result: Found) -> None:
        """Queue the rows of the result of a content that has these names."""

    def pending(
        self, entries: Iterable[Structure | Failure], on_progress: Callable[[Progress], None]
    ) -> Iterator[Structure]:
        """The structures that must be computed, each content once; everything else is settled on the way."""
        for entry in entries:
            failure = entry if isinstance(entry, Failure) else name_conflict(entry, self._names)
            if failure:
                self._fail(failure)
            elif isinstance(entry, Structure) and self._is_new(entry):
                yield entry
            self._writer.tick()
            on_progress(self.progress)

    def _is_new(self, structure: Structure) -> bool:
        key = structure.content_key
        self._names[structure.id] = key
        if not self._is_shared and self._is_taken(structure):
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
        if key in self._failed and (self._is_shared or self._failed[key].id == structure.id):
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

    def finish(self, structure: Structure, result: Found | SorepError | None) -> None:
        """Settle a computed structure under all its names."""
        key = structure.content_key
        named = self._waiting.pop(key)
        if result is None or isinstance(result, SorepError):
            error = result or SorepError("the engine gave no result", code="no-result", stage="run")
            same = [e for e in self._set_up_failures if e.code == error.code]
            self._set_up_failures = [*same, error] if error.stage == SET_UP else []
            for one in named:
                self._failed[key] = Failure.from_error(error, id=one.id, source=one.source, content_key=key)
                self._fail(self._failed[key])
            return
        self._set_up_failures = []
        for one in named:
            self._store_name(one)
        self._done.add(key)
        self._add(named, result)
        self.progress.computed += 1
        self.progress.shared += len(named) - 1
        self._writer.tick()

    def flush(self) -> None:
        """Commit everything that waits."""
        self._writer.flush()

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
        self._writer.add("failures", [failure_row(failure, identity=self._identity.hash, run_id=self._run_id)])


class SpectrumLedger(Ledger[Result]):
    """Spectra with their features, and bands where the method computes any."""

    def __init__(
        self,
        tables: Tables,
        writer: StoreWriter,
        run_id: str,
        method: Method,
        features: dict[str, Identity],
        retry_failed: bool,
    ) -> None:
        spectra = method.identity()
        super().__init__(
            tables,
            writer,
            run_id,
            spectra,
            done_table="spectra",
            retry_failed=retry_failed,
            follows_from_structure=method.follows_from_structure,
        )
        self._operator, self._features = method.operator, features
        # Features and bands that a kill left without their spectrum.
        self._stored_bands = content_keys(tables, "band_structures", spectra)
        self._stored_features = {name: content_keys(tables, "features", i) for name, i in features.items()}

    def _add(self, named: Sequence[Structure], result: Result) -> None:
        key, spectra, run_id = named[0].content_key, self._identity.hash, self._run_id
        bands = result.calculation.bands
        if bands is not None and key not in self._stored_bands:
            row = band_structure_row(bands, content_key=key, operator=self._operator, run_id=run_id)
            self._writer.add("band_structures", [row])
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


def name_conflict(structure: Structure, names: Mapping[str, str]) -> Failure | None:
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


def content_keys(tables: Tables, table: str, identity: Identity) -> set[str]:
    rows = tables.read(table, ["content_key"], pc.field("identity") == identity.hash)
    return set(rows["content_key"].to_pylist())

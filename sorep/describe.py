"""From many structures to a store of descriptors: the twin of `sorep.featurize` for features that need no spectrum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sorep.descriptors import Descriptor, identity_of
from sorep.engine import Engine
from sorep.errors import SorepError
from sorep.featurize import compute_missing
from sorep.identity import Identity
from sorep.intake import Acceptance
from sorep.ledger import Ledger, Progress
from sorep.sources import Item
from sorep.store import StoreWriter
from sorep.store.runs import RunRecord
from sorep.store.schema import feature_row
from sorep.store.tables import Tables
from sorep.structure import Structure


def describe(
    items: Sequence[Item],
    descriptor: Descriptor,
    store: str | Path,
    engine: Engine,
    *,
    acceptance: Acceptance = Acceptance(),
    retry_failed: bool = False,
    command: str = "",
    references: Sequence[str] = (),
    on_progress: Callable[[Progress], None] = lambda _: None,
    commit_rows: int = 512,
    commit_seconds: float = 15.0,
) -> Progress:
    """Compute the descriptors that are missing and leave them in the store, under the descriptor's name.

    Parameters, promises and errors are those of `sorep.featurize.featurize`. A structure that has no descriptor leaves
    a row in `failures`.

    Raises
    ------
    DescriptorError
        ``missing-package``, before anything is read.
    """
    identity = identity_of(descriptor)
    tables = Tables(Path(store), create=True)
    writer = StoreWriter(tables, max_rows=commit_rows, max_seconds=commit_seconds)
    record = RunRecord.start(tables, command, {identity.hash: identity}, references)
    run = _DescriptorLedger(tables, writer, record.run_id, descriptor.name, identity, retry_failed)
    compute_missing(descriptor.compute, items, run, record, engine, acceptance, on_progress)
    return run.progress


class _DescriptorLedger(Ledger[NDArray[np.float64]]):
    """A result is one row of the table `features`, of no operator and no spectrum."""

    def __init__(
        self, tables: Tables, writer: StoreWriter, run_id: str, name: str, identity: Identity, retry_failed: bool
    ) -> None:
        super().__init__(tables, writer, run_id, identity, done_table="features", retry_failed=retry_failed)
        self._name = name

    def _add(self, named: Sequence[Structure], result: NDArray[np.float64]) -> None:
        row = feature_row(named[0].content_key, self._identity.hash, "", self._name, "", result, self._run_id)
        self._writer.add("features", [row])


def warm_up(descriptor: Descriptor) -> None:
    """Import what reading and a descriptor need, once in every worker, outside all limits."""
    from pymatgen.io.cif import CifParser  # noqa: F401

    with suppress(SorepError):  # structures will meet it again, and tell
        descriptor.compute(Structure("", 4 * np.eye(3), np.ones(1, dtype=np.int64), np.zeros((1, 3))))

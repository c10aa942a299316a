"""The record of a run: when, with what command, options and versions, and how it ended."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

from sorep.identity import Identity
from sorep.store.tables import Tables

_PACKAGES = ("sorep", "numpy", "scipy", "pyscf", "moyopy", "spglib", "pymatgen", "ase")


@dataclass(frozen=True)
class RunRecord:
    """A run that has started; `end` closes it. A killed run has a start and no end."""

    tables: Tables
    run_id: str
    command: str

    @classmethod
    def start(
        cls,
        tables: Tables,
        command: str,
        identities: Mapping[str, Identity],
        references: Sequence[str] = (),
    ) -> RunRecord:
        """Commit that a run starts, with everything that its results depend on."""
        record = cls(tables, uuid.uuid4().hex[:12], command)
        record._commit("started", identities, references, None, None)
        return record

    def end(self, event: str, n_done: int, n_failed: int) -> None:
        """Commit how the run ended: ``finished`` or ``interrupted``."""
        self._commit(event, {}, (), n_done, n_failed)

    def _commit(
        self,
        event: str,
        identities: Mapping[str, Identity],
        references: Sequence[str],
        n_done: int | None,
        n_failed: int | None,
    ) -> None:
        row = {
            "run_id": self.run_id,
            "time": datetime.now(UTC),
            "event": event,
            "command": self.command,
            "identities": [(key, identity.text) for key, identity in identities.items()],
            "references": list(references),
            "versions": [(package, version(package)) for package in _PACKAGES],
            "n_done": n_done,
            "n_failed": n_failed,
        }
        self.tables.append("runs", [row])

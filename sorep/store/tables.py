"""Delta Lake tables in one folder: append and read, nothing else.

Every append is one atomic commit. Two processes may append at once; a reader sees whole commits only, and a killed
writer leaves at most an orphaned data file that no reader ever looks at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sorep.errors import StoreError
from sorep.store.schema import ON_DEMAND, PARTITIONED, SCHEMAS

if TYPE_CHECKING:
    import pyarrow.dataset as ds


class Tables:
    """The tables of one store.

    Parameters
    ----------
    path : Path
        The store's folder.
    create : bool
        Make the folder and its tables where they are missing; otherwise a missing store is an error.

    Raises
    ------
    StoreError
        ``no-store`` or ``unreadable-store``.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        from deltalake import DeltaTable

        self.path = path
        always = [name for name in SCHEMAS if name not in ON_DEMAND]
        if not create and not all(DeltaTable.is_deltatable(str(path / name)) for name in always):
            raise StoreError(
                f"{path} is not a store",
                code="no-store",
                remedy="give the folder that `sorep featurize --store` wrote (default ./sorep-store)",
            )
        if create:
            for name in always:
                self._create(name)

    def _create(self, name: str) -> None:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError

        uri = str(self.path / name)
        partition = ["identity"] if name in PARTITIONED else None
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            DeltaTable.create(uri, SCHEMAS[name], mode="ignore", partition_by=partition)
        except (DeltaError, OSError) as error:
            # Another process may have created it between the look and the leap.
            if not DeltaTable.is_deltatable(uri):
                raise StoreError(
                    f"cannot create table {name} in {self.path}: {_first_line(error)}",
                    code="unwritable-store",
                    remedy="check permissions and free space, or give another folder with --store",
                ) from None

    def append(self, name: str, rows: Sequence[dict[str, Any]]) -> None:
        """Commit rows; all of them or none."""
        from deltalake import write_deltalake
        from deltalake.exceptions import DeltaError

        if not rows:
            return
        if name in ON_DEMAND:
            self._create(name)
        table = pa.Table.from_pylist(list(rows), schema=SCHEMAS[name])
        try:
            # A store of an earlier version may lack a column.
            write_deltalake(str(self.path / name), table, mode="append", schema_mode="merge")
        except (DeltaError, OSError) as error:
            raise StoreError(
                f"cannot write {len(rows)} rows to table {name} in {self.path}: {_first_line(error)}",
                code="unwritable-store",
                remedy="check permissions and free space; what was committed before is safe, and a rerun goes on",
            ) from None

    def read(self, name: str, columns: Sequence[str] | None = None, where: ds.Expression | None = None) -> pa.Table:
        """All committed rows of a table as they are now, or those that satisfy ``where``; newest commit first."""
        with self._readable(name):
            return self._dataset(name).to_table(columns=list(columns) if columns else None, filter=where)

    def batches(
        self, name: str, columns: Sequence[str] | None, where: ds.Expression | None = None, rows: int = 256
    ) -> Iterator[pa.RecordBatch]:
        """The same in pieces, for tables larger than memory."""
        with self._readable(name):
            columns = list(columns) if columns else None
            yield from self._dataset(name).to_batches(columns=columns, filter=where, batch_size=rows)

    def _dataset(self, name: str) -> ds.Dataset:
        import pyarrow.dataset as ds
        from deltalake import DeltaTable
        from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

        if name in ON_DEMAND and not DeltaTable.is_deltatable(str(self.path / name)):
            return ds.dataset(SCHEMAS[name].empty_table())
        # deltalake's own file system is written in Python; called from Arrow's threads while the process ends, it
        # aborts the process.
        folder = str((self.path / name).absolute())
        dataset = DeltaTable(folder).to_pyarrow_dataset(filesystem=SubTreeFileSystem(folder, LocalFileSystem()))
        lacking = [field for field in SCHEMAS[name] if field.name not in dataset.schema.names]
        return dataset.replace_schema(pa.schema([*dataset.schema, *lacking])) if lacking else dataset

    @contextmanager
    def _readable(self, name: str) -> Iterator[None]:
        from deltalake.exceptions import DeltaError

        try:
            yield
        except (DeltaError, OSError, pa.ArrowException) as error:
            raise StoreError(
                f"cannot read table {name} in {self.path}: {_first_line(error)}",
                code="unreadable-store",
                remedy="check that the folder is complete and readable",
            ) from None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]  # the rest may be a backtrace

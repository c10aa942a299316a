"""Learning curves on disk: what was asked, a row for each fit, and their means.

A folder holds ``settings.json``, the rows (`trial.ROWS`), and results: one small file for each finished trial while an
evaluation runs (``parts/``), which `gather` makes into ``results.parquet`` when all are there. A file appears under its
name only when it is complete, so whatever ends a run costs the trials that were running.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sorep.errors import ScreeningError, UsageError
from sorep.identity import Identity
from sorep.screening.protocol import Panel, Protocol
from sorep.screening.trial import METRICS, ROWS, SCHEMA, Trial

if TYPE_CHECKING:
    import pandas as pd

SETTINGS, RESULTS, PARTS = "settings.json", "results.parquet", "parts"


@dataclass(frozen=True, eq=False)
class Curves:
    """Learning curves of several arms (feature sets and models) on the same splits.

    Attributes
    ----------
    protocol : Protocol
    identity : Identity
        What the numbers depend on.
    arms : dict of str to str
        Feature set of every arm, in the order of the report; empty for those that look at no features.
    panels : dict of str to list of Panel
        By feature set.
    facts : dict of str to str
        What a reader should know: sizes, labels, versions, identities.
    rows : DataFrame
        Id, formula, label, within, held_out.
    results : DataFrame
        Columns of `trial.SCHEMA`, sorted by arm, size and split.
    """

    protocol: Protocol
    identity: Identity
    arms: dict[str, str]
    panels: dict[str, list[Panel]]
    facts: dict[str, str]
    rows: pd.DataFrame
    results: pd.DataFrame

    @cached_property
    def sizes(self) -> list[int]:
        """Training rows asked for, ascending."""
        return sorted(self.results["n_rows"].unique().tolist())

    @property
    def held_out_labels(self) -> NDArray[np.bool_]:
        return self.rows.loc[self.rows["held_out"], "label"].to_numpy(dtype=bool)

    def nearest_size(self, fraction: float) -> int:
        """Of the sizes at which most splits could be computed, that nearest to a fraction of all rows (by ratio)."""
        n_computed = np.array([len(self.results.query("status == '' and n_rows == @n")) for n in self.sizes])
        sizes = np.array(self.sizes)[n_computed >= 0.5 * n_computed.max()]
        return int(sizes[np.argmin(np.abs(np.log(sizes / (fraction * len(self.rows)))))])

    def of(self, arm: str, n_rows: int | None = None) -> pd.DataFrame:
        """Computed trials of an arm, at one size or at all."""
        found = self.results.query("status == '' and arm == @arm")
        return found if n_rows is None else found.query("n_rows == @n_rows")

    def summary(self) -> pd.DataFrame:
        """Mean and standard deviation over the splits: one row for each arm and size.

        ``n`` is the number of splits that could be computed; of a single one there is no standard deviation.
        """
        import pandas as pd

        columns = ["n_train", "n_train_positive", *METRICS, "seconds"]
        computed = self.results.query("status == ''")
        grouped = computed.groupby(["arm", "n_rows"], sort=False)[columns]
        parts = {"mean": grouped.mean(), "sd": grouped.std()}
        flat = {f"{name}_{kind}": part[name] for name in columns for kind, part in parts.items()}
        frame = pd.DataFrame({"n": grouped.size(), **flat}).reset_index()
        frame.insert(2, "fraction", frame["n_rows"] / len(self.rows))
        return _sorted(frame, self.arms)

    def paired(self, reference: str, n_rows: int, metric: str) -> pd.DataFrame:
        """Difference of every other arm to one, split by split: mean, sd, and share of splits in which it is better."""
        import pandas as pd

        base = self.of(reference, n_rows).set_index("split")[metric]
        lines = []
        for arm in self.arms:
            difference = (self.of(arm, n_rows).set_index("split")[metric] - base).dropna()
            if arm != reference and len(difference):
                lines.append((arm, len(difference), difference.mean(), difference.std(), (difference > 0).mean()))
        return pd.DataFrame(lines, columns=["arm", "n", "mean", "sd", "better"])


def load_curves(folder: str | Path) -> Curves:
    """Read what an evaluation has computed so far.

    Raises
    ------
    ScreeningError
        ``no-evaluation`` where the folder holds none, or nothing of it is finished.
    """
    folder = Path(folder)
    try:
        settings = json.loads((folder / SETTINGS).read_text())
        rows = pq.read_table(folder / ROWS).to_pandas()
        results = _read_results(folder).to_pandas()
    except (OSError, json.JSONDecodeError, pa.ArrowInvalid) as error:
        raise _no_evaluation(folder, str(error)) from None
    if not len(results):
        raise _no_evaluation(folder, "nothing is finished")
    results[list(METRICS)] = results[list(METRICS)].astype(float)  # nulls are NaN
    return Curves(
        protocol=Protocol.checked(**settings["protocol"]),
        identity=Identity(settings["identity"]),
        arms=settings["arms"],
        panels={name: [Panel(**panel) for panel in panels] for name, panels in settings["panels"].items()},
        facts=settings["facts"],
        rows=rows,
        results=_sorted(results, settings["arms"]),
    )


# -- writing ----------------------------------------------------------------------------------------------------


@contextmanager
def opened(folder: Path, settings: dict[str, Any], rows: pa.Table) -> Iterator[None]:
    """The folder of an evaluation, new or begun with the same settings, for one process at a time.

    Raises
    ------
    UsageError
        ``other-settings``, with the differences; ``in-use``; ``foreign-folder``; ``unwritable-folder``.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / SETTINGS).exists() and any(path.name != ".lock" for path in folder.iterdir()):
            raise UsageError(
                f"{folder} holds something else", code="foreign-folder", remedy="name a new folder with --out"
            )
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise UsageError(
            f"cannot use {folder}: {error}", code="unwritable-folder", remedy="name another folder with --out"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(
                f"another process is at work in {folder}", code="in-use", remedy="wait, or name another folder"
            ) from None
        require_same(folder, settings)
        _write(folder / SETTINGS, lambda path: path.write_text(json.dumps(settings, indent=1)))
        _write(folder / ROWS, lambda path: pq.write_table(rows, path))
        (folder / PARTS).mkdir(exist_ok=True)
        yield


def commit(folder: Path, row: dict[str, Any], arm: int) -> None:
    """Put the row of a finished trial on disk."""
    table = pa.Table.from_pylist([row], schema=SCHEMA)
    _write(folder / PARTS / f"{arm}-{row['n_rows']}-{row['split']}.parquet", lambda path: pq.write_table(table, path))


def finished(folder: Path) -> dict[tuple[str, int, int], dict[str, Any]]:
    """Row of every finished trial, without its lists, by `Trial.key`."""
    columns = ["arm", "n_rows", "split", "seconds", "seconds_predict"]
    rows = _read_results(folder, columns).to_pylist()
    return {(row["arm"], row["n_rows"], row["split"]): row for row in rows}


def gather(folder: Path, trials: list[Trial]) -> None:
    """Make one file of all results, sorted, when every trial is there; what only the run needed goes."""
    table = _read_results(folder)
    keys = zip(*(table[name].to_pylist() for name in ("arm", "n_rows", "split")), strict=True)
    position = {key: row for row, key in enumerate(keys)}
    if not all(trial.key in position for trial in trials):
        return
    _write(folder / RESULTS, lambda path: pq.write_table(table.take([position[t.key] for t in trials]), path))
    for scratch in (folder / PARTS, folder / "values"):
        shutil.rmtree(scratch, ignore_errors=True)


def _read_results(folder: Path, columns: list[str] | None = None) -> pa.Table:
    files = [folder / RESULTS] if (folder / RESULTS).exists() else []
    files += sorted((folder / PARTS).glob("*.parquet"))
    empty = SCHEMA.empty_table().select(columns or SCHEMA.names)
    return pa.concat_tables([empty, *(pq.ParquetFile(file).read(columns) for file in files)])


def _sorted(frame: pd.DataFrame, arms: Iterable[str]) -> pd.DataFrame:
    position = {arm: number for number, arm in enumerate(arms)}
    columns = [name for name in ("arm", "n_rows", "split") if name in frame]
    return frame.sort_values(
        columns, key=lambda column: column.map(position) if column.name == "arm" else column, ignore_index=True
    )


def require_same(folder: Path, settings: dict[str, Any]) -> None:
    """Raise `UsageError` ``other-settings`` where the folder was begun with others, naming the differences."""
    if not (folder / SETTINGS).exists():
        return
    before = Identity(json.loads((folder / SETTINGS).read_text())["identity"])
    now = Identity(settings["identity"])
    if before != now:
        raise UsageError(
            f"{folder} holds an evaluation with other settings: {'; '.join(before.differences(now))} (now)",
            code="other-settings",
            remedy="repeat the settings to go on with it, or name another folder with --out",
        )


def _write(path: Path, write: Any) -> None:
    """Under another name first, so that the file is complete when it has its name."""
    temporary = path.with_name(f"{path.name}.tmp")
    write(temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def _no_evaluation(folder: Path, why: str) -> ScreeningError:
    return ScreeningError(
        f"{folder} holds no learning curves: {why}", code="no-evaluation", remedy="run `sorep screen evaluate` into it"
    )

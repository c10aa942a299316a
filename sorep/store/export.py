"""Feature matrices as Parquet, CSV, NPZ or HDF5 files, always with their identity."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sorep.errors import StoreError, UsageError
from sorep.store.feature_store import FeatureMatrix


def export_matrix(matrix: FeatureMatrix, path: str | Path) -> None:
    """Write a matrix; the suffix of ``path`` chooses the format.

    Raises
    ------
    UsageError
        ``unknown-format``.
    StoreError
        ``unwritable-file``, or ``missing-package`` for HDF5 without h5py.
    """
    path = Path(path)
    if path.suffix not in _WRITERS:
        raise UsageError(
            f"cannot export to {path.suffix or 'a name without suffix'}",
            code="unknown-format",
            remedy=f"choose from {', '.join(_WRITERS)}",
        )
    try:
        _WRITERS[path.suffix](matrix, path)
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error}", code="unwritable-file", remedy="check folder, permissions and space"
        ) from None


def _identity_text(matrix: FeatureMatrix) -> str:
    words = {"feature": matrix.name, "identity": matrix.identity.hash, "words": matrix.identity.words}
    return json.dumps(words, indent=1)


def _parquet(matrix: FeatureMatrix, path: Path) -> None:
    matrix.frame().to_parquet(path)  # pandas keeps attrs, hence the identity, in the file's metadata


def _csv(matrix: FeatureMatrix, path: Path) -> None:
    matrix.frame().to_csv(path)
    path.with_suffix(".identity.json").write_text(_identity_text(matrix))


def _npz(matrix: FeatureMatrix, path: Path) -> None:
    arrays: dict[str, Any] = {"values": matrix.values, "ids": matrix.ids, "identity": np.array(_identity_text(matrix))}
    if matrix.grid is None:
        arrays["feature_names"] = np.array(matrix.feature_names)
    else:
        arrays["energies"] = matrix.grid.energies
    np.savez_compressed(path, **arrays)


def _hdf5(matrix: FeatureMatrix, path: Path) -> None:
    try:
        import h5py
    except ImportError:
        raise StoreError(
            "HDF5 needs h5py", code="missing-package", remedy="pip install 'sorep[hdf5]', or export to .npz"
        ) from None
    with h5py.File(path, "w") as file:
        file["values"] = matrix.values
        file.create_dataset("ids", data=matrix.ids.astype(object), dtype=h5py.string_dtype())
        if matrix.grid is None:
            file.create_dataset("feature_names", data=matrix.feature_names, dtype=h5py.string_dtype())
        else:
            file["energies"] = matrix.grid.energies
        file.attrs["identity"] = _identity_text(matrix)


_WRITERS: dict[str, Callable[[FeatureMatrix, Path], None]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".npz": _npz,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
}

"""Columns of the tables, and the way from records to rows and back.

`structures` names every structure that has a result; `spectra`, `features` and `band_structures` (of methods that go
along lines) belong to structures by content key, so that two names for one crystal share them; these three are
partitioned by identity. `groups` is made when structures are first
grouped, and holds every grouping whole: one row for each structure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sorep.band_path import BandPath, Segment
from sorep.bands import BandStructure
from sorep.cells import Cell
from sorep.errors import Failure
from sorep.identity import Identity
from sorep.levels import Levels
from sorep.spectrum import Spectrum
from sorep.structure import Structure

_FLOATS, _INTS, _STRINGS = pa.list_(pa.float64()), pa.list_(pa.int32()), pa.list_(pa.string())

SCHEMAS: Mapping[str, pa.Schema] = {
    "structures": pa.schema(
        [
            ("id", pa.string()),
            ("content_key", pa.string()),
            ("source", pa.string()),
            ("formula", pa.string()),
            ("n_atoms", pa.int32()),
            ("lattice", _FLOATS),  # 9 numbers, rows, Angstrom
            ("numbers", _INTS),
            ("positions", _FLOATS),  # fractional, atom by atom
            ("run_id", pa.string()),
        ]
    ),
    "spectra": pa.schema(
        [
            ("content_key", pa.string()),
            ("identity", pa.string()),
            ("operator", pa.string()),
            ("energies", _FLOATS),  # eV; spin, k point, band
            ("band_counts", _INTS),
            ("n_spin", pa.int32()),
            ("kpoints", _FLOATS),
            ("weights", _FLOATS),
            ("volume", pa.float64()),
            ("n_atoms", pa.int32()),
            ("degeneracy", pa.float64()),
            ("n_electrons", pa.float64()),
            ("n_removed", pa.int64()),
            ("is_complete", pa.bool_()),
            ("flags", _STRINGS),
            ("cell_lattice", _FLOATS),
            ("cell_numbers", _INTS),
            ("cell_positions", _FLOATS),
            ("transformation", _FLOATS),
            ("rotation", _FLOATS),
            ("space_group", pa.int32()),
            ("cpu_seconds", pa.float64()),
            ("run_id", pa.string()),
        ]
    ),
    "features": pa.schema(
        [
            ("content_key", pa.string()),
            ("identity", pa.string()),
            ("spectrum_identity", pa.string()),
            ("name", pa.string()),
            ("operator", pa.string()),
            ("values", _FLOATS),
            ("run_id", pa.string()),
        ]
    ),
    "band_structures": pa.schema(
        [
            ("content_key", pa.string()),
            ("identity", pa.string()),
            ("operator", pa.string()),
            ("energies", _FLOATS),  # eV; spin, k point, band
            ("n_spin", pa.int32()),
            ("kpoints", _FLOATS),
            ("segment_labels", _STRINGS),  # two of each segment
            ("segment_bounds", _INTS),  # start and stop of each segment
            ("is_folded", pa.bool_()),
            ("degeneracy", pa.float64()),
            ("n_electrons", pa.float64()),
            ("vbm", pa.float64()),  # of the mesh, as are the next three; all null where there are no levels
            ("cbm", pa.float64()),
            ("fermi_energy", pa.float64()),
            ("is_metal", pa.bool_()),
            ("level_flags", _STRINGS),
            ("flags", _STRINGS),
            ("cell_lattice", _FLOATS),
            ("cell_numbers", _INTS),
            ("cell_positions", _FLOATS),
            ("run_id", pa.string()),
        ]
    ),
    "failures": pa.schema(
        [
            ("id", pa.string()),
            ("source", pa.string()),
            ("content_key", pa.string()),
            ("identity", pa.string()),  # of what was to be computed
            ("stage", pa.string()),
            ("code", pa.string()),
            ("message", pa.string()),
            ("remedy", pa.string()),
            ("run_id", pa.string()),
        ]
    ),
    "runs": pa.schema(
        [
            ("run_id", pa.string()),
            ("time", pa.timestamp("us", tz="UTC")),
            ("event", pa.string()),  # started, finished or interrupted
            ("command", pa.string()),
            ("identities", pa.map_(pa.string(), pa.string())),  # hash to words, as JSON
            ("references", _STRINGS),  # BibTeX
            ("versions", pa.map_(pa.string(), pa.string())),
            ("n_done", pa.int64()),
            ("n_failed", pa.int64()),
        ]
    ),
    "groups": pa.schema(
        [
            ("id", pa.string()),
            ("group", pa.int64()),
            ("representative", pa.string()),
            ("distance", pa.float64()),
            ("nearest", pa.string()),
            ("distance_to_nearest", pa.float64()),
            ("formula", pa.string()),  # reduced
            ("confirmed", pa.bool_()),
            ("feature", pa.string()),
            ("identity", pa.string()),
            ("metric", pa.string()),
            ("epsilon", pa.float64()),
            ("n_min", pa.int64()),
            ("across_compositions", pa.bool_()),
            ("run_id", pa.string()),
        ]
    ),
}

PARTITIONED = {"spectra", "features", "band_structures"}

ON_DEMAND = {"groups", "band_structures"}
"""Tables that a store need not have."""

RULE_COLUMNS = ["metric", "epsilon", "n_min", "across_compositions", "feature", "identity"]
"""Columns of `groups` that are the same in all rows of one grouping."""

DUPLICATE_ID = "duplicate-id"
"""Code of the failure of a structure whose id another content has already."""

SEVERAL_CALCULATIONS = "several-calculations"
"""Code of the failure of a finished calculation of a crystal of which another one is stored."""


def structure_row(structure: Structure, run_id: str) -> dict[str, Any]:
    return {
        "id": structure.id,
        "content_key": structure.content_key,
        "source": structure.source,
        "formula": structure.formula,
        "n_atoms": structure.n_atoms,
        "lattice": structure.lattice.ravel(),
        "numbers": structure.numbers,
        "positions": structure.positions.ravel(),
        "run_id": run_id,
    }


def row_structure(row: Mapping[str, Any]) -> Structure:
    return Structure(row["id"], row["lattice"], row["numbers"], row["positions"], row["source"])


def spectrum_row(
    spectrum: Spectrum,
    cell: Cell,
    *,
    content_key: str,
    identity: str,
    operator: str,
    cpu_seconds: float,
    run_id: str,
) -> dict[str, Any]:
    return {
        "content_key": content_key,
        "identity": identity,
        "operator": operator,
        "energies": spectrum.energies,
        "band_counts": spectrum.band_counts.ravel(),
        "n_spin": spectrum.n_spin,
        "kpoints": spectrum.kpoints.ravel(),
        "weights": spectrum.weights,
        "volume": spectrum.volume,
        "n_atoms": spectrum.n_atoms,
        "degeneracy": spectrum.degeneracy,
        "n_electrons": spectrum.n_electrons,
        "n_removed": spectrum.n_removed,
        "is_complete": spectrum.is_complete,
        "flags": list(spectrum.flags),
        "cell_lattice": cell.structure.lattice.ravel(),
        "cell_numbers": cell.structure.numbers,
        "cell_positions": cell.structure.positions.ravel(),
        "transformation": cell.transformation.ravel(),
        "rotation": cell.rotation.ravel(),
        "space_group": cell.space_group,
        "cpu_seconds": cpu_seconds,
        "run_id": run_id,
    }


SPECTRUM_COLUMNS = [
    "energies",
    "band_counts",
    "n_spin",
    "kpoints",
    "weights",
    "volume",
    "n_atoms",
    "degeneracy",
    "n_electrons",
    "n_removed",
    "is_complete",
    "flags",
]


def row_spectrum(row: Mapping[str, Any]) -> Spectrum:
    """Inverse of `spectrum_row` for a row that holds `SPECTRUM_COLUMNS`."""
    fields = {name: row[name] for name in SPECTRUM_COLUMNS if name != "n_spin"}
    fields["band_counts"] = np.reshape(row["band_counts"], (row["n_spin"], -1))
    fields["kpoints"] = np.reshape(row["kpoints"], (-1, 3))
    fields["flags"] = tuple(row["flags"])
    fields["is_complete"] = bool(row["is_complete"])
    return Spectrum(**fields)


def band_structure_row(bands: BandStructure, *, content_key: str, operator: str, run_id: str) -> dict[str, Any]:
    levels, cell, segments = bands.levels, bands.structure, bands.path.segments
    return {
        "content_key": content_key,
        "identity": bands.identity.hash,
        "operator": operator,
        "energies": bands.energies.ravel(),
        "n_spin": bands.n_spin,
        "kpoints": bands.path.kpoints.ravel(),
        "segment_labels": [label for segment in segments for label in segment.labels],
        "segment_bounds": [bound for segment in segments for bound in (segment.start, segment.stop)],
        "is_folded": bands.path.is_folded,
        "degeneracy": bands.degeneracy,
        "n_electrons": bands.n_electrons,
        **{name: getattr(levels, name, None) for name in ("vbm", "cbm", "fermi_energy", "is_metal")},
        "level_flags": list(levels.flags) if levels else None,
        "flags": list(bands.flags),
        "cell_lattice": cell.lattice.ravel(),
        "cell_numbers": cell.numbers,
        "cell_positions": cell.positions.ravel(),
        "run_id": run_id,
    }


def row_band_structure(row: Mapping[str, Any], id: str, identity: Identity, source: str = "") -> BandStructure:
    """Inverse of `band_structure_row`; the row holds hashes in place of name and ``identity``."""
    cell = Structure(id, row["cell_lattice"], row["cell_numbers"], row["cell_positions"], source)
    labels, bounds = (np.reshape(row[name], (-1, 2)).tolist() for name in ("segment_labels", "segment_bounds"))
    segments = tuple(Segment((first, last), *ends) for (first, last), ends in zip(labels, bounds, strict=True))
    kpoints = np.reshape(row["kpoints"], (-1, 3))
    levels = None
    if row["is_metal"] is not None:
        levels = Levels(row["vbm"], row["cbm"], row["fermi_energy"], row["is_metal"], tuple(row["level_flags"]))
    return BandStructure(
        cell,
        identity,
        BandPath(cell.lattice, kpoints, segments, row["is_folded"]),
        np.reshape(row["energies"], (row["n_spin"], len(kpoints), -1)),
        row["degeneracy"],
        row["n_electrons"],
        levels,
        tuple(row["flags"]),
    )


def feature_row(
    content_key: str,
    identity: str,
    spectrum_identity: str,
    name: str,
    operator: str,
    values: NDArray[np.float64],
    run_id: str,
) -> dict[str, Any]:
    return {
        "content_key": content_key,
        "identity": identity,
        "spectrum_identity": spectrum_identity,
        "name": name,
        "operator": operator,
        "values": values,
        "run_id": run_id,
    }


def failure_row(failure: Failure, *, identity: str, run_id: str) -> dict[str, Any]:
    return {**asdict(failure), "identity": identity, "run_id": run_id}

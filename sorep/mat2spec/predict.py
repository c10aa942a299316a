"""Spectra of crystals whose spectra nobody knows. Nothing here takes a target."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from sorep.errors import IdentityError, Mat2SpecError
from sorep.identity import Identity
from sorep.mat2spec.checkpoint import Checkpoint, write_whole
from sorep.mat2spec.data import Inputs, load_inputs
from sorep.store import FeatureStore
from sorep.store.runs import RunRecord
from sorep.store.schema import feature_row
from sorep.structure import Structure
from sorep.tables import write_table

_BATCH = 256


@dataclass(frozen=True, eq=False)
class Prediction:
    """Predicted spectra.

    Attributes
    ----------
    ids : (n,) array of str
    scaled : (n, n_bins) float array
        As the model was trained on.
    spectra : (n, n_bins) float array
        In the unit of the target, their size predicted too.
    energies : (n_bins,) float array
    unit : str
        Of the energies.
    identity : Identity
        Of the model, its inputs, and of where the sizes came from.
    """

    ids: NDArray[np.str_]
    scaled: NDArray[np.float64]
    spectra: NDArray[np.float64]
    energies: NDArray[np.float64]
    unit: str
    identity: Identity


@torch.no_grad()
def predict(
    checkpoint: Checkpoint,
    inputs: Inputs,
    *,
    sizes: NDArray[np.float64] | None = None,
    on_predicted: Callable[[int], None] = lambda _: None,
) -> Prediction:
    """Predict spectra, without dropout or sampling: the same for a crystal alone and among others.

    Parameters
    ----------
    checkpoint : Checkpoint
    inputs : Inputs
    sizes : (n,) float array or None
        Sums (SumNorm) or maxima (MaxNorm) from elsewhere; None uses the model's own, made from compositions.
    on_predicted : callable
        Told how many there are so far.

    Raises
    ------
    IdentityError
        ``mixed-identity`` where the SOREPs are not of the kind that it was trained on.
    Mat2SpecError
        ``missing-input`` where the model reads what the inputs lack.
    """
    _check_features(checkpoint.features, {part.name: part.identity for part in inputs.parts})
    device = next(checkpoint.model.parameters()).device
    prepared = checkpoint.network.prepare(inputs)
    checkpoint.model.eval()
    parts = []
    for rows in np.split(np.arange(len(inputs)), range(_BATCH, len(inputs), _BATCH)):
        parts.append(checkpoint.model(prepared.batch(rows).to(device)).cpu().numpy())
        on_predicted(int(rows[-1]) + 1)
    scaled = np.concatenate(parts).astype(float)
    words = {**checkpoint.words, "sizes": "composition" if checkpoint.size_model else "constant"}
    if sizes is not None:
        given = repr(sorted(zip(inputs.ids.tolist(), np.asarray(sizes).tolist(), strict=True)))
        words["sizes"] = hashlib.sha256(given.encode()).hexdigest()[:16]
    elif checkpoint.size_model:
        sizes = checkpoint.size_model.predict(inputs.compositions)
    spectra = checkpoint.scaling.inverse(scaled, sizes)
    about = checkpoint.about
    return Prediction(inputs.ids, scaled, spectra, checkpoint.energies, about.unit, Identity.of({"predicted": words}))


def load_model_inputs(
    checkpoint: Checkpoint,
    *,
    store: FeatureStore | None = None,
    structures: Mapping[str, Structure] | None = None,
    ids: Sequence[str] | None = None,
    skip_missing: bool = False,
) -> Inputs:
    """Crystals with all that a model reads, from a store or, for graphs, from structures; errors as `load_inputs`.

    Raises
    ------
    IdentityError
        ``mixed-identity`` where the store has the features with another identity only.
    """
    if store is not None and checkpoint.features:
        offers = store.features()
        known = store.identities()
        for name, identity in checkpoint.features.items():
            hashes = offers.loc[offers["name"] == name, "identity"].tolist()
            if hashes and identity.hash not in hashes:
                identity.require_equal(known[hashes[0]])
    kind, feature = checkpoint.about.model.encoder, checkpoint.feature
    return load_inputs(kind, store=store, structures=structures, feature=feature, ids=ids, skip_missing=skip_missing)


def write_predictions(prediction: Prediction, path: str | Path, column: str) -> list[Path]:
    """Write a Parquet table of ids and lists, and their grid as a JSON file beside it, as `load_targets` reads them.

    Raises
    ------
    UsageError
        ``unknown-format``.
    TableError
        ``unwritable-file``.
    """
    import pandas as pd

    path = Path(path)
    if path.suffix != ".parquet":
        raise Mat2SpecError(f"cannot write lists to {path.name}", code="unknown-format", remedy="give a .parquet file")
    write_table(pd.DataFrame({"id": prediction.ids, column: list(prediction.spectra)}), path)
    grid = path.with_suffix(".grid.json")
    words = {"unit": prediction.unit, "grid": prediction.energies.tolist(), "identity": prediction.identity.words}
    write_whole(grid, json.dumps(words, indent=1).encode())
    return [path, grid]


def store_predictions(store: FeatureStore, prediction: Prediction, name: str, command: str = "") -> int:
    """Add spectra to the features of a store, under the identity of the model; returns how many were new.

    Raises
    ------
    StoreError
        Where the store cannot be written.
    """
    identity = prediction.identity.hash
    where = (pc.field("identity") == identity) & (pc.field("name") == name)
    present = set(store.tables.read("features", ["content_key"], where)["content_key"].to_pylist())
    keys = store.content_keys()
    rows: dict[str, NDArray[np.float64]] = {}
    for id, spectrum in zip(prediction.ids.tolist(), prediction.spectra, strict=True):
        if keys[id] not in present:
            rows.setdefault(keys[id], spectrum)
    record = RunRecord.start(store.tables, command, {identity: prediction.identity})
    store.tables.append(
        "features", [feature_row(key, identity, "", name, "", values, record.run_id) for key, values in rows.items()]
    )
    record.end("finished", len(rows), 0)
    return len(rows)


def _check_features(wanted: Mapping[str, Identity], given: Mapping[str, Identity]) -> None:
    if list(wanted) != list(given):
        raise IdentityError(
            f"the model reads {', '.join(wanted) or 'no features'}, and was given {', '.join(given) or 'none'}",
            code="other-features",
            remedy="load the features that it was trained on",
        )
    for name, identity in wanted.items():
        identity.require_equal(given[name])

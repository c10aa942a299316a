"""Training: from data to a folder with a model, and a state on disk from which a killed run goes on.

A run that was killed and started again ends with the weights of one that was left alone. A folder holds

    model.json, model.safetensors, split.csv      see `sorep.mat2spec.checkpoint`
    log.jsonl                                     a line for each epoch
    state.safetensors                             while the training goes on: weights, moments of AdamW, best weights
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from sorep.errors import Mat2SpecError
from sorep.identity import Identity
from sorep.mat2spec.checkpoint import (
    SPLIT,
    WEIGHTS,
    About,
    Checkpoint,
    Result,
    read_tensors,
    versions,
    write_tensors,
    write_whole,
)
from sorep.mat2spec.config import ModelConfig, TrainingConfig
from sorep.mat2spec.data import SpectrumData
from sorep.mat2spec.diagnostics import latent_diagnostics
from sorep.mat2spec.encoders import SpectrumEncoder
from sorep.mat2spec.fit import MOST_AT_ONCE, Epoch, Fit, State, chance
from sorep.mat2spec.model import Mat2Spec
from sorep.mat2spec.networks import get_network
from sorep.mat2spec.scaling import Scaling
from sorep.mat2spec.split import Part, Split
from sorep.mat2spec.sums import SizeModel

LOG, STATE = "log.jsonl", "state.safetensors"


def train(
    data: SpectrumData,
    split: Split,
    folder: str | Path,
    *,
    model: ModelConfig,
    training: TrainingConfig,
    network: str = "mat2spec",
    target: str = "spectrum",
    initial: Checkpoint | None = None,
    device: torch.device | str = "cpu",
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    save_seconds: float = 10.0,
) -> Checkpoint:
    """Train a network, or go on where a run in this folder was interrupted.

    Parameters
    ----------
    data : SpectrumData
        Of the training and the validation part at least.
    split : Split
    folder : str or Path
        Made where it does not exist.
    model : ModelConfig
    training : TrainingConfig
    network : str
        Name of the network, one of `sorep.mat2spec.networks.NETWORKS`.
    target : str
        What the spectra are, in words.
    initial : Checkpoint or None
        Start from these weights, and keep the scalings that belong to them, instead of random weights.
    device : torch.device or str
    on_epoch : callable
        Told after each epoch.
    save_seconds : float
        Time between states on disk.

    Returns
    -------
    Checkpoint
        With the weights of the best epoch.

    Raises
    ------
    Mat2SpecError
        ``too-few-structures``, ``unknown-id`` where a part is not in the data, ``other-run`` where the folder holds
        another run, ``diverged``, ``unwritable-file``.
    """
    folder, device = Path(folder), torch.device(device)
    of_train, of_val = data.take(_rows(data, split, "train")), data.take(_rows(data, split, "val"))
    fit, about = _prepared(of_train, of_val, model, training, network, target, initial, device)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Mat2SpecError(f"cannot make {folder}: {error}", code="unwritable-file", remedy="name another") from None
    if not _is_known(folder, about):
        split.save(folder / SPLIT)
        about.save(folder)
    elif About.load(folder).result is not None:
        return Checkpoint.load(folder, device)
    _restore(fit, folder)
    saved = time.monotonic()
    while not fit.is_finished:
        on_epoch(_logged(folder, fit.epoch()))
        if time.monotonic() - saved >= save_seconds:
            _save(fit, about, folder)
            saved = time.monotonic()
    _finish(fit, about, folder)
    return Checkpoint.load(folder, device)


def read_log(folder: str | Path) -> list[Epoch]:
    """The log of a run, epoch by epoch; a line that was cut off by a kill is left out."""
    path = Path(folder) / LOG
    lines = path.read_text().splitlines() if path.is_file() else []
    epochs = []
    for line in lines:
        try:
            epochs.append(Epoch(**json.loads(line)))
        except ValueError:
            break
    return epochs


def _prepared(
    train: SpectrumData,
    val: SpectrumData,
    model: ModelConfig,
    training: TrainingConfig,
    network: str,
    target: str,
    initial: Checkpoint | None,
    device: torch.device,
) -> tuple[Fit, About]:
    """A network, its data and what is told of it. Whatever is fitted beforehand sees the training part only."""
    kind = get_network(network, model)
    n_sorep = 0 if train.inputs.sorep is None else train.inputs.sorep.shape[1]
    scaling = initial.scaling if initial else Scaling.fit(train.spectra, model.scaling)
    size_model = None
    if scaling.kind != "standard" and scaling.size is None:
        size_model = SizeModel.fit(train.inputs.compositions, scaling.sizes(train.spectra)).state()
    with chance(training.seed, 0, device):
        built = kind.build(model, len(train.energies), n_sorep)
    if initial:
        built.load_state_dict(initial.model.state_dict())
    elif train.inputs.sorep is not None:
        for part in built.modules():
            if isinstance(part, SpectrumEncoder):
                part.fit_scaling(train.inputs.sorep)
    words = {
        "network": network,
        "model": model.model_dump(mode="json"),
        "training": training.model_dump(mode="json"),
        "target": target,
        "unit": train.unit,
        "features": {part.name: part.identity.text for part in train.inputs.parts},
        "data": {"train": _checksum(train), "validation": _checksum(val)},
        "initial weights": initial.weights if initial else "random",
    }
    about = About(
        run=Identity.of(words).hash,
        network=network,
        model=model,
        training=training,
        target=target,
        energies=tuple(train.energies.tolist()),
        unit=train.unit,
        features=words["features"],
        n_sorep=n_sorep,
        scaling=scaling.state(),
        size_model=size_model,
        formulas=tuple(sorted({*train.formulas.tolist(), *(initial.about.formulas if initial else ())})),
        data=words["data"],
        versions=versions(),
    )
    parts = {"train": train, "val": val}
    scaled = {
        name: torch.tensor(scaling.transform(part.spectra), dtype=torch.get_default_dtype(), device=device)
        for name, part in parts.items()
    }
    inputs = {name: kind.prepare(part.inputs) for name, part in parts.items()}
    return Fit(built.to(device), training, inputs, scaled), about


def _save(fit: Fit, about: About, folder: Path) -> None:
    """Leave on disk all that an interrupted run needs to go on."""
    words = {"run": about.run, "state": json.dumps(asdict(fit.state))}
    write_tensors(folder / WEIGHTS, fit.best, {"run": about.run})
    write_tensors(folder / STATE, fit.tensors(), words)


def _restore(fit: Fit, folder: Path) -> None:
    """Go on from the state on disk, if there is one; the log is cut where it ends."""
    try:
        if (folder / STATE).exists():
            tensors, words = read_tensors(folder / STATE)
            fit.restore(tensors, State(**json.loads(words["state"])))
    except (OSError, SafetensorError) as error:
        raise Mat2SpecError(
            f"{folder / STATE} cannot be read: {error}", code="bad-model", remedy="remove it to begin anew"
        ) from None
    kept = [json.dumps(asdict(epoch)) + "\n" for epoch in read_log(folder)[: fit.state.epoch]]
    write_whole(folder / LOG, "".join(kept).encode())


def _finish(fit: Fit, about: About, folder: Path) -> None:
    """Write the best weights and how it ended."""
    fit.network.load_state_dict(fit.best)
    write_tensors(folder / WEIGHTS, fit.best, {"run": about.run})
    diagnostics, warnings = {}, ()
    n_val = min(len(fit.scaled["val"]), MOST_AT_ONCE)
    if isinstance(fit.network, Mat2Spec) and n_val > 1:
        found = latent_diagnostics(fit.network, *fit.batch("val", torch.arange(n_val)))
        diagnostics = {k: v if v is not None and math.isfinite(v) else None for k, v in asdict(found).items()}
        warnings = tuple(found.warnings())
    result = Result(
        epochs=fit.state.epoch,
        best_epoch=fit.state.best_epoch,
        loss=fit.state.best_loss,
        diagnostics=diagnostics,
        warnings=warnings,
    )
    about.model_copy(update={"result": result}).save(folder)
    (folder / STATE).unlink(missing_ok=True)


def _logged(folder: Path, epoch: Epoch) -> Epoch:
    try:
        with (folder / LOG).open("a") as file:
            file.write(json.dumps(asdict(epoch)) + "\n")
    except OSError as error:
        raise Mat2SpecError(
            f"cannot write {folder / LOG}: {error}", code="unwritable-file", remedy="check permissions and space"
        ) from None
    return epoch


def _rows(data: SpectrumData, split: Split, part: Part) -> NDArray[np.intp]:
    wanted = asdict(split)[part]
    rows = split.rows(part, data.ids)
    if len(rows) < len(wanted):
        missing = sorted(set(wanted) - set(data.ids.tolist()))
        raise Mat2SpecError(
            f"{len(missing)} of {len(wanted)} crystals of the part {part!r} are not in the data, the first of them "
            f"{missing[0]!r}",
            code="unknown-id",
            remedy="compare the ids of the split with those of targets and structures",
        )
    if len(rows) < (2 if part == "train" else 1):
        raise Mat2SpecError(
            f"{len(rows)} crystals in the part {part!r}", code="too-few-structures", remedy="give more crystals"
        )
    return rows


def _checksum(data: SpectrumData) -> str:
    digest = hashlib.sha256()
    inputs = data.inputs
    for row, (id, structure) in enumerate(zip(inputs.ids.tolist(), inputs.structures, strict=True)):
        digest.update(f"{id}\0{structure.content_key}\0".encode())
        digest.update(np.ascontiguousarray(data.spectra[row]).tobytes())
        if inputs.sorep is not None:
            digest.update(np.ascontiguousarray(inputs.sorep[row]).tobytes())
    digest.update(data.energies.tobytes())
    return digest.hexdigest()[:16]


def _is_known(folder: Path, about: About) -> bool:
    """Whether the folder holds this very run, rather than none."""
    try:
        found = About.load(folder)
    except Mat2SpecError as error:
        if error.code == "no-model":
            return False
        raise
    if found.run != about.run:
        mine, theirs = (Identity.of(one.model_dump(mode="json", exclude=_NOT_COMPARED)) for one in (about, found))
        raise Mat2SpecError(
            f"{folder} holds another run: {'; '.join(mine.differences(theirs)) or 'it started from other weights'}",
            code="other-run",
            remedy="name another folder with --out, or repeat that run's options to go on with it",
        )
    return True


_NOT_COMPARED = {"run", "result", "versions", "scaling", "size_model", "energies", "formulas"}

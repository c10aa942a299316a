"""Experiments with several models, trained and tested alike: comparisons, ablations, learning curves, fine-tuning.

A study is a table with a row for each arm (a way to predict), number of training crystals and seed. A seed draws both
the split and all chance of the training, so the arms of one seed have seen the same crystals, and differences between
arms are taken seed by seed. Every training has a folder of its own: a study that was interrupted goes on where it was.

Columns that tell how good the test predictions are:

    mae          mean absolute error in the unit of the target, sizes predicted too
    mae_oracle   the same, where every predicted shape is given the true sum
    r2_oracle    coefficient of determination of the latter
    wd           Wasserstein distance of the shapes, in the unit of the energies
    cv, omega    phonons only: mean absolute error of the heat capacity at 300 K, J / (K mol), and of the mean frequency
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sorep.errors import UsageError
from sorep.mat2spec.baselines import BASELINES, RULES_ON_SOREP
from sorep.mat2spec.checkpoint import Checkpoint
from sorep.mat2spec.config import EncoderKind, ModelConfig, TrainingConfig
from sorep.mat2spec.data import SpectrumData
from sorep.mat2spec.metrics import mae, r2, wasserstein
from sorep.mat2spec.networks import NETWORKS
from sorep.mat2spec.physics import heat_capacity, mean_frequency
from sorep.mat2spec.predict import predict
from sorep.mat2spec.scaling import Scaling
from sorep.mat2spec.split import Split
from sorep.mat2spec.training import train
from sorep.screening.splits import training_rows

if TYPE_CHECKING:
    import pandas as pd

METRICS = ("mae", "mae_oracle", "r2_oracle", "wd", "cv", "omega")
"""Columns of a study, as far as they apply."""

PHONON_UNIT = "cm^-1"
"""Unit of the energies by which spectra are known to be those of phonons."""

FEWEST_SEEDS = 3
"""Without so many, a difference between arms cannot be told from chance."""

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Arm:
    """One way to predict spectra.

    Attributes
    ----------
    name : str
        Told in tables.
    model : ModelConfig
    predictor : str
        A network of `sorep.mat2spec.networks.NETWORKS`, or a rule of `sorep.mat2spec.baselines.BASELINES`.
    """

    name: str
    model: ModelConfig
    predictor: str = "mat2spec"


def ablation_arms(model: ModelConfig) -> list[Arm]:
    """The full model, and what is left of it without the KL divergence, the contrast, or the whole label branch."""
    without = {
        "no KL": {"kl_weight": 0.0},
        "no contrast": {"contrast_weight": 0.0},
        "no label branch": {"kl_weight": 0.0, "contrast_weight": 0.0, "label_weight": 0.0},
    }
    others = [Arm(name, model.model_copy(update=changes)) for name, changes in without.items()]
    return [Arm("full", model), *(arm for arm in others if arm.model != model)]


def named_arms(names: Sequence[str], model: ModelConfig) -> list[Arm]:
    """Arms by name: a rule, a network other than Mat2Spec, or Mat2Spec with its encoder, as in ``mat2spec both``.

    Raises
    ------
    UsageError
        ``unknown-arm``.
    """
    encoders: tuple[EncoderKind, ...] = ("graph", "sorep", "both")
    known = {name: Arm(name, model, name) for name in BASELINES}
    reading = {kind: model.model_copy(update={"encoder": kind}) for kind in encoders}
    known |= {f"mat2spec {kind}": Arm(f"mat2spec {kind}", config) for kind, config in reading.items()}
    known |= {name: Arm(name, reading["graph"], name) for name in NETWORKS if name != "mat2spec"}
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"unknown arm {unknown[0]!r}", code="unknown-arm", remedy=f"choose from {', '.join(known)}")
    return [known[name] for name in names]


def run_study(
    arms: Sequence[Arm],
    data: SpectrumData,
    split_of: Callable[[int], Split],
    folder: Path,
    *,
    training: TrainingConfig,
    seeds: Sequence[int],
    sizes: Sequence[float] = (1.0,),
    device: str = "cpu",
    on_run: Callable[[str], None] = lambda _: None,
) -> pd.DataFrame:
    """Train and test every arm with every seed and number of training crystals.

    Parameters
    ----------
    arms : sequence of Arm
    data : SpectrumData
        With all that any arm reads.
    split_of : callable
        From a seed to a split.
    folder : Path
        For the trained models.
    training : TrainingConfig
        Its seed is replaced.
    seeds : sequence of int
    sizes : sequence of float
        Of the training part, as shares of it; whole formulas, the smaller ones within the larger. Validation and test
        part stay the same.
    device : str
    on_run : callable
        Told what comes next.

    Returns
    -------
    DataFrame
        Columns ``arm``, ``size``, ``seed``, ``n_train``, ``n_test``, and `METRICS`.
    """
    import pandas as pd

    jobs = [(arm, size, seed) for seed in seeds for size in sizes for arm in arms]
    rows = []
    for number, (arm, size, seed) in enumerate(jobs, start=1):
        split = smaller(split_of(seed), data, size, seed)
        on_run(f"{number}/{len(jobs)} {arm.name}, {len(split.train)} crystals, seed {seed}")
        seen = seen_by(data, arm)
        test = seen.take(split.rows("test", data.ids))
        if arm.predictor in BASELINES:
            known = seen.take(split.rows("train", data.ids))
            scores = score_rule(arm.predictor, known, test)
        else:
            name = re.sub(r"\W+", "-", f"{arm.name} {size:g} {seed}")
            config = training.model_copy(update={"seed": seed})
            made = train(
                seen, split, folder / name, model=arm.model, training=config, network=arm.predictor, device=device
            )
            scores = score_model(made, test)
        rows.append(
            {"arm": arm.name, "size": size, "seed": seed, "n_train": len(split.train), "n_test": len(test), **scores}
        )
    return pd.DataFrame(rows)


def finetune_study(
    checkpoint: Checkpoint,
    data: SpectrumData,
    is_member: NDArray[np.bool_],
    folder: Path,
    *,
    training: TrainingConfig,
    seeds: Sequence[int],
    device: str = "cpu",
    on_run: Callable[[str], None] = lambda _: None,
) -> pd.DataFrame:
    """A model on a subclass: as it is, trained on with the subclass, and one trained on nothing else.

    Parameters
    ----------
    checkpoint : Checkpoint
        The model; its split holds, so that no test crystal was ever trained on.
    data : SpectrumData
        What it was trained and tested on.
    is_member : (n,) bool array
        Of ``data``, the subclass.
    folder : Path
        For the new models.
    training : TrainingConfig
        Of the tuning. The model from nothing is trained as ``checkpoint`` was.
    seeds : sequence of int
    device : str
    on_run : callable

    Returns
    -------
    DataFrame
        As of `run_study`, arms ``global``, ``tuned`` and ``subclass only``.

    Raises
    ------
    Mat2SpecError
        ``too-few-structures`` where a part of the split has none of the subclass.
    """
    import pandas as pd

    about = checkpoint.about
    members = set(data.ids[is_member].tolist())
    split = Split(*(tuple(id for id in part if id in members) for part in vars(checkpoint.split).values()))
    test = data.take(split.rows("test", data.ids))
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        for arm, start, config in (
            ("global", None, None),
            ("tuned", checkpoint, training),
            ("subclass only", None, about.training),
        ):
            on_run(f"{arm}, seed {seed}")
            made = checkpoint
            if config is not None:
                made = train(
                    data,
                    split,
                    folder / f"{arm} {seed}".replace(" ", "-"),
                    model=about.model,
                    training=config.model_copy(update={"seed": seed}),
                    network=about.network,
                    target=about.target,
                    initial=start,
                    device=device,
                )
            n_train = len(checkpoint.split.train) if config is None else len(split.train)
            scores = score_model(made, test)
            rows.append({"arm": arm, "size": 1.0, "seed": seed, "n_train": n_train, "n_test": len(test), **scores})
    return pd.DataFrame(rows)


def smaller(split: Split, data: SpectrumData, share: float, seed: int) -> Split:
    """The split with a share of its training crystals: whole formulas; a small share is part of a larger one."""
    if share == 1.0:
        return split
    pool = split.rows("train", data.ids)
    kept = training_rows(pool, data.formulas, np.zeros(len(data)), share, split_seed=seed)
    return replace(split, train=tuple(data.ids[kept].tolist()))


def seen_by(data: SpectrumData, arm: Arm) -> SpectrumData:
    """The data without what the arm does not read, so that its models do not ask for it later."""
    inputs, kind = data.inputs, arm.model.encoder
    if kind == "graph" and arm.predictor not in BASELINES:
        inputs = replace(inputs, sorep=None, parts=())
    elif kind == "sorep":
        inputs = replace(inputs, graphs=None)
    return replace(data, inputs=inputs)


def encoder_needed(arms: Iterable[Arm]) -> EncoderKind:
    """Which inputs all these arms together read."""
    kinds = {arm.model.encoder for arm in arms if arm.predictor not in BASELINES}
    if any(arm.predictor in RULES_ON_SOREP for arm in arms):
        kinds.add("sorep")
    if kinds <= {"graph"}:
        return "graph"
    return "sorep" if kinds == {"sorep"} else "both"


def score_model(checkpoint: Checkpoint, test: SpectrumData) -> dict[str, float]:
    """`METRICS` of a model."""
    found = predict(checkpoint, test.inputs)
    is_shape = checkpoint.scaling.kind != "standard"
    return scores_of(found.spectra, found.scaled if is_shape else found.spectra, test)


def score_rule(name: str, known: SpectrumData, test: SpectrumData) -> dict[str, float]:
    """`METRICS` of a rule; shapes that do not come from the SOREP are those of training spectra of unit sum."""
    rule = BASELINES[name]
    spectra = rule(known, test.inputs)
    if name in RULES_ON_SOREP:
        return scores_of(spectra, spectra, test)
    shapes = replace(known, spectra=Scaling("sumnorm").transform(known.spectra))
    return scores_of(spectra, rule(shapes, test.inputs), test)


def scores_of(spectra: NDArray[np.float64], shapes: NDArray[np.float64], test: SpectrumData) -> dict[str, float]:
    """`METRICS` of predicted spectra in the unit of the target, and of shapes in any scale; NaN for zero shapes."""
    positive = np.maximum(shapes, 0.0)
    sums, true = positive.sum(axis=1, keepdims=True), test.spectra
    has_shape = bool((sums > 0).all())
    oracle = positive / np.where(sums > 0, sums, 1.0) * true.sum(axis=1, keepdims=True)
    found = {
        "mae": mae(spectra, true),
        "mae_oracle": mae(oracle, true),
        "r2_oracle": r2(oracle, true),
        "wd": wasserstein(positive, true, test.bin_width) if has_shape else np.nan,
    }
    if test.unit == PHONON_UNIT:
        for name, quantity in (("cv", heat_capacity), ("omega", mean_frequency)):
            errors = np.abs(quantity(positive, test.energies) - quantity(true, test.energies)) if has_shape else np.nan
            found[name] = float(np.mean(errors))
    return found


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, and standard deviations (``..._sd``, NaN of one seed), for each arm and size in their order."""
    import pandas as pd

    rows = []
    for arm, size in table[["arm", "size"]].drop_duplicates().itertuples(index=False):
        part = table[(table["arm"] == arm) & (table["size"] == size)]
        row: dict[str, Any] = {"arm": arm, "size": size, "n_train": part["n_train"].mean(), "seeds": len(part)}
        for metric in (name for name in METRICS if name in table):
            row |= {metric: part[metric].mean(), f"{metric}_sd": part[metric].std(ddof=1)}
        rows.append(row)
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Difference:
    """An arm against the one that it is compared with, over the same seeds.

    Attributes
    ----------
    arm, reference, metric : str
    mean : float
        Of arm minus reference.
    margin : float
        Half of its 95 % confidence interval (Student's t of paired seeds); infinite for fewer than two.
    reference_mean : float
    seeds : int
    """

    arm: str
    reference: str
    metric: str
    mean: float
    margin: float
    reference_mean: float
    seeds: int

    @property
    def is_larger_than_noise(self) -> bool:
        """Whether chance of seeds does not explain it: enough seeds, and an interval without zero."""
        return self.seeds >= FEWEST_SEEDS and abs(self.mean) > self.margin

    def __str__(self) -> str:
        if self.seeds < FEWEST_SEEDS:
            verdict = f"no statement: {FEWEST_SEEDS} seeds are the fewest"
        elif not self.is_larger_than_noise:
            verdict = "not larger than the noise of seeds"
        else:
            is_better = (self.mean < 0) != (self.metric == "r2_oracle")
            verdict = f"larger than the noise of seeds, {'better' if is_better else 'worse'}"
        return (
            f"{self.arm} against {self.reference}: {self.metric} {self.mean:+.3g} +- {self.margin:.2g} of "
            f"{self.reference_mean:.3g} ({self.seeds} seeds), {verdict}"
        )


def differences(table: pd.DataFrame, reference: str, metrics: Sequence[str] = ("mae_oracle", "wd")) -> list[Difference]:
    """Every other arm against one, at the largest size, seed by seed."""
    from scipy.stats import t

    full = table[table["size"] == table["size"].max()].set_index(["arm", "seed"])
    if reference not in full.index:
        raise UsageError(
            f"no arm {reference!r}", code="unknown-arm", remedy=f"choose from {', '.join(dict.fromkeys(table['arm']))}"
        )
    found = []
    for arm in (name for name in dict.fromkeys(table["arm"]) if name != reference):
        for metric in metrics:
            mine, theirs = full.loc[arm][metric].align(full.loc[reference][metric], join="inner")
            gap, n = mine - theirs, len(mine)
            margin = t.ppf(0.5 + 0.5 * _CONFIDENCE, n - 1) * gap.std(ddof=1) / np.sqrt(n) if n > 1 else np.inf
            found.append(Difference(arm, reference, metric, float(gap.mean()), float(margin), float(theirs.mean()), n))
    return found

"""What an evaluation compares, on which structures, and what it will compute: fixed before anything is trained."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sorep.errors import ScreeningError, UsageError
from sorep.identity import Identity
from sorep.screening.dataset import Dataset, common_ids
from sorep.screening.models import build_model
from sorep.screening.protocol import Protocol, panels_of
from sorep.screening.splits import holdout
from sorep.screening.trial import Arm, Trial
from sorep.store import FeatureStore

if TYPE_CHECKING:
    import pandas as pd

BASELINES = ("composition", "soap")
"""Feature sets that stand beside every other one where the store has them."""

_DUMMY = "sklearn.dummy:DummyClassifier"
_LIBRARIES = ("scikit-learn", "imbalanced-learn", "numpy")


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything that is to be computed, made by `make_plan`.

    Attributes
    ----------
    protocol : Protocol
    datasets : tuple of Dataset
        On the same labelled structures.
    is_held_out, is_within : (n,) bool arrays
    arms : tuple of Arm
    more_facts : dict of str to str
        Shown in the report beside what follows from the plan.
    """

    protocol: Protocol
    datasets: tuple[Dataset, ...]
    is_held_out: NDArray[np.bool_]
    is_within: NDArray[np.bool_]
    arms: tuple[Arm, ...]
    more_facts: dict[str, str] = field(default_factory=dict)

    @cached_property
    def rows(self) -> pa.Table:
        first = self.datasets[0]
        columns = {"id": first.ids, "formula": first.groups, "label": first.labels}
        return pa.table({**columns, "within": self.is_within, "held_out": self.is_held_out})

    @cached_property
    def identity(self) -> Identity:
        """What the numbers depend on."""
        sets = {
            dataset.name: {"identity": dataset.identity.words, "values": _digest(dataset.values)}
            for dataset in self.datasets
        }
        arms = {arm.name: _parameters(arm) for arm in self.arms}
        structures = "\n".join(map(repr, self.rows.to_pylist())).encode()
        return Identity.of(
            {
                "protocol": self.protocol.model_dump(mode="json"),
                "features": sets,
                "models": arms,
                "structures": hashlib.sha256(structures).hexdigest()[:16],
                "versions": {name: importlib.metadata.version(name) for name in _LIBRARIES},
            }
        )

    @property
    def n_rows(self) -> list[int]:
        """Sizes of the training set."""
        n = len(self.is_held_out)
        return self.protocol.n_rows(n, int(np.count_nonzero(~self.is_held_out)))

    def trials(self, folder: Path) -> list[Trial]:
        """All of them, by arm, size and split."""
        protocol = self.protocol
        permuted = protocol.permuted_rows(len(self.is_held_out), self.n_rows)
        blocks = [tuple(block for panel in panels_of(set) for block in panel.blocks) for set in self.datasets]
        return [
            Trial(
                folder,
                arm,
                n_rows,
                split,
                protocol.seed,
                protocol.split,
                blocks[arm.features] if n_rows == permuted and arm.model != _DUMMY else (),
            )
            for arm in self.arms
            for n_rows in self.n_rows
            for split in range(protocol.splits)
        ]

    def settings(self) -> dict[str, Any]:
        """What `sorep.screening.curves.load_curves` reads back."""
        return {
            "protocol": self.protocol.model_dump(mode="json"),
            "identity": self.identity.text,
            "arms": {arm.name: "" if arm.model == _DUMMY else self.datasets[arm.features].name for arm in self.arms},
            "panels": {
                dataset.name: [panel.model_dump(mode="json") for panel in panels_of(dataset)]
                for dataset in self.datasets
            },
            "facts": _facts(self) | self.more_facts,
        }


def make_plan(
    datasets: Sequence[Dataset],
    protocol: Protocol,
    within: pd.Series | None = None,
    facts: dict[str, str] | None = None,
) -> Plan:
    """Fix the structures, the hold-out and what is compared.

    Parameters
    ----------
    datasets : sequence of Dataset
        Labelled feature sets. They are compared on the structures that all of them have.
    protocol : Protocol
    within : Series of bool or None
        By id: the subset in which ROC AUC is computed too. Structures that are missing here are not in it.
    facts : dict of str to str
        Further lines for the head of the report.

    Raises
    ------
    UsageError
        Where the protocol does not fit the number of rows; unknown models.
    ScreeningError
        ``no-overlap``, ``one-class``, ``too-few-of-a-class``.
    """
    if (within is None) != (protocol.within is None):
        raise UsageError(
            f"the subset is {protocol.within!r} in words, and {'not ' * (within is None)}given",
            code="bad-option",
            remedy="give both or none",
        )
    ids = common_ids(datasets)
    datasets = tuple(dataset.of_ids(ids) for dataset in datasets)
    first = datasets[0]
    labels = first.labels
    if labels is None or labels.dtype != bool or labels.all() or not labels.any():
        raise ScreeningError(
            f"the {len(ids)} structures that all feature sets share do not hold both classes",
            code="one-class",
            remedy="label structures of both kinds, or compute features for more of them",
        )
    is_held_out = np.zeros(len(ids), dtype=bool)
    held_out = holdout(first.groups, labels, protocol.holdout, seed=protocol.seed, kind=protocol.split)[1]
    is_held_out[held_out] = True
    is_within = np.zeros(len(ids), dtype=bool)
    if within is not None:
        is_inside = within.fillna(False).to_numpy(dtype=bool)
        is_within = np.isin(ids, within.index.to_numpy(dtype=str)[is_inside])
    arms = [
        Arm(dataset.name if len(protocol.models) == 1 else f"{dataset.name}, {model}", number, model, protocol.params)
        for number, dataset in enumerate(datasets)
        for model in protocol.models
    ]
    arms += [
        Arm("chance", 0, _DUMMY, {"strategy": "stratified"}),
        Arm("constant", 0, _DUMMY, {"strategy": "prior"}),
    ]
    plan = Plan(protocol, datasets, is_held_out, is_within, tuple(arms), facts or {})
    plan.trials(Path())  # whatever does not fit shows here
    plan.settings()
    return plan


def find_baselines(store: FeatureStore, features: Sequence[str]) -> tuple[list[str], list[str]]:
    """Baselines of a store to add to feature sets, and a line for each that it lacks or that is ambiguous."""
    offers = store.features()
    found, notes = [], []
    for name in BASELINES:
        if any(set.partition("@")[0] == name for set in features):
            continue
        n_identities = offers.loc[offers["name"] == name, "identity"].nunique()
        if n_identities == 1:
            found.append(name)
        elif n_identities:
            notes.append(f"{name} has {n_identities} identities in the store: choose one with --features {name}@DIGITS")
        else:
            notes.append(
                f"no baseline {name}: `sorep featurize --descriptor {name}` computes it for the same structures"
            )
    return found, notes


def _facts(plan: Plan) -> dict[str, str]:
    protocol, first = plan.protocol, plan.datasets[0]
    labels, n = plan.rows["label"].to_numpy(), len(first)
    held_out = int(np.count_nonzero(plan.is_held_out))
    facts = {
        "structures": f"{n}, {first.n_positive} of them positive ({first.n_positive / n:.1%}), "
        f"{len(np.unique(first.groups))} reduced formulas",
        "split": "whole reduced formulas: no formula is on two sides"
        if protocol.split == "grouped"
        else "row by row at random: polymorphs of one formula can be on both sides, which flatters",
        "hold-out": f"{held_out} structures, {np.count_nonzero(labels[plan.is_held_out])} positive; always the same",
        "training": f"{protocol.splits} splits of {len(plan.n_rows)} sizes, {plan.n_rows[0]} to {plan.n_rows[-1]} rows",
        "seed": str(protocol.seed),
    }
    if protocol.within is not None:
        inside = plan.is_held_out & plan.is_within
        facts["subset"] = (
            f"{protocol.within}: {np.count_nonzero(plan.is_within)} structures, {np.count_nonzero(inside)} in the "
            f"hold-out with {np.count_nonzero(labels[inside])} positive"
        )
    for dataset in plan.datasets:
        left_out = [f"{count} {reason}" for reason, count in dataset.left_out.items()]
        words = [f"{dataset.values.shape[1]} features, identity {dataset.identity.hash}", *left_out]
        facts[f"features {dataset.name}"] = "; ".join(words)
    return facts


def _parameters(arm: Arm) -> dict[str, str]:
    """Every argument of an arm's estimator, in words: presets may change from version to version."""
    estimator = build_model(arm.model, **arm.params).named_steps["model"]
    words = {name: repr(value) for name, value in estimator.get_params(deep=False).items() if name != "random_state"}
    return words | {"class": type(estimator).__qualname__, "features": str(arm.features)}


def _digest(values: NDArray[np.float64]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:16]

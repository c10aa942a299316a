"""Self-consistent electronic densities of states predicted from single-shot ones.

The store holds one density feature computed by two operators, e.g. by

    sorep single-shot structures/ --feature mat2spec-edos --store my-store
    sorep single-shot structures/ --scf --feature mat2spec-edos --store my-store
    python benchmarks/mat2spec_edos.py my-store

Spectra are 128 bin averages from 4 eV below the highest occupied to 4 eV above the lowest empty state, the gap removed.
Predicted by: the mean training spectrum, the nearest composition, the single-shot density itself, ridge regression on
it, and Mat2Spec from the graph, from the single-shot density, and from both. Each seed draws a split (whole reduced
formulas; 70 % to train on, 10 % to stop by, 20 % to test). MAE in the unit of the feature, with true and with predicted
sums; R2; Wasserstein distance in eV.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from sorep.mat2spec.config import ModelConfig, TrainingConfig
from sorep.mat2spec.data import load_data
from sorep.mat2spec.split import make_split
from sorep.mat2spec.studies import differences, encoder_needed, named_arms, run_study, summary
from sorep.mat2spec.targets import targets_of_feature
from sorep.store import FeatureStore

ARMS = [
    "mean spectrum",
    "nearest composition",
    "SOREP itself",
    "ridge on SOREP",
    "mat2spec graph",
    "mat2spec sorep",
    "mat2spec both",
]
QUICK = {"epochs": 20, "seeds": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, nargs="?", help="without one there is nothing to do")
    parser.add_argument("--feature", default="mat2spec-edos", help="that both operators have [%(default)s]")
    parser.add_argument("--target", default="scf", help="operator of the target [%(default)s]")
    parser.add_argument("--input", default="single-shot", help="operator of the input [%(default)s]")
    parser.add_argument("--seeds", type=int, default=5, help="[%(default)s]")
    parser.add_argument("--epochs", type=int, default=200, help="[%(default)s]")
    parser.add_argument("--out", type=Path, default=Path("mat2spec-edos"), help="folder of models [%(default)s]")
    parser.add_argument("--quick", action="store_true", help="few epochs and one seed: does it run")
    options = parser.parse_args()
    if options.store is None:
        print("no store was given (see --help)")
        return
    torch.set_num_threads(1)
    arms = named_arms(ARMS, ModelConfig())
    store = FeatureStore(options.store)
    targets = targets_of_feature(store.matrix(options.feature, operator=options.target))
    is_empty = ~(targets.spectra.sum(axis=1) > 0)
    if is_empty.any():
        print(f"left out: {is_empty.sum()} densities that are zero throughout")
        targets = replace(targets, ids=targets.ids[~is_empty], spectra=targets.spectra[~is_empty])
    feature = f"{options.input}/{options.feature}"
    data = load_data(targets, encoder_needed(arms), store=store, feature=feature, skip_missing=True)
    for failure in data.inputs.failures:
        print(f"left out: {failure.id}: {failure.message}")
    print(f"{len(data)} crystals, {len(np.unique(data.formulas))} formulas, {len(data.energies)} bins", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        table = run_study(
            arms,
            data,
            lambda seed: make_split(data.ids, data.formulas, test=0.2, seed=seed),
            Path(scratch) if options.quick else options.out,
            training=TrainingConfig(epochs=QUICK["epochs"] if options.quick else options.epochs, batch_size=32),
            seeds=range(QUICK["seeds"] if options.quick else options.seeds),
            on_run=lambda text: print(text, flush=True),
        )
    if not options.quick:
        table.to_csv(options.out / "runs.csv", index=False)
    print(summary(table).drop(columns="size").to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    for reference in ("SOREP itself", "ridge on SOREP", "mat2spec graph"):
        for difference in differences(table, reference):
            if difference.arm.startswith("mat2spec"):
                print(difference)


if __name__ == "__main__":
    main()

"""Phonon densities of states predicted from graphs, from SOREPs and from both, against simpler ways.

Every seed draws a split of its own, whole reduced formulas in one part (80 % to train on, 10 % to stop by, 10 % to
test), and all chance of the trainings. The same crystals are used by all: those with every SOREP named. Errors are
those of the test part: MAE of spectra that were given their true sum, as in publications (and with sums predicted from
the composition), R2, Wasserstein distance, and errors of the heat capacity at 300 K and of the mean frequency. Models
stay in --out, and an interrupted run goes on from there.

The table holds one crystal a row: id, CIF text, list of densities. SOREPs come from a store of the same ids:

    sorep featurize phdos.parquet --id-column jid --structure-column cif --store phonon-store
    sorep single-shot phdos.parquet --id-column jid --structure-column cif --store phonon-store
    python benchmarks/mat2spec_phonons.py phdos.parquet grid.json --store phonon-store --feature kinetic band-edges
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from sorep.mat2spec.config import ModelConfig, TrainingConfig
from sorep.mat2spec.data import SpectrumData, load_data, read_structures
from sorep.mat2spec.split import make_split
from sorep.mat2spec.studies import differences, named_arms, run_study, summary
from sorep.mat2spec.study_figures import arms_figure, write_study
from sorep.mat2spec.targets import load_targets
from sorep.store import FeatureStore

WITHOUT_SOREP = ["mean spectrum", "nearest composition", "composition", "gatgnn", "e3nn", "mat2spec graph"]
WITH_SOREP = ["ridge on SOREP", "mat2spec sorep", "mat2spec both"]
QUICK = {"epochs": 20, "crystals": 150, "seeds": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, nargs="?", help=".parquet file; without one there is nothing to do")
    parser.add_argument("grid", type=Path, nargs="?", help="JSON file with the bin centres and their unit")
    parser.add_argument("--id-column", default="jid", help="[%(default)s]")
    parser.add_argument("--structure-column", default="cif", help="[%(default)s]")
    parser.add_argument("--column", default="phdos", help="[%(default)s]")
    parser.add_argument(
        "--keep", nargs="*", default=["structure_exact", "gap_consistent"], help="rows where one is true [%(default)s]"
    )
    parser.add_argument("--window", nargs=2, type=float, default=[0.0, 1000.0], help="bins [%(default)s]")
    parser.add_argument("--store", type=Path, help="store of the same ids, for SOREPs")
    parser.add_argument("--feature", nargs="*", default=["kinetic"], help="of the store, several [%(default)s]")
    parser.add_argument("--seeds", type=int, default=3, help="[%(default)s]")
    parser.add_argument("--epochs", type=int, default=60, help="of every network; later ones overfit [%(default)s]")
    parser.add_argument("--out", type=Path, default=Path("mat2spec-phonons"), help="folder of models [%(default)s]")
    parser.add_argument("--quick", action="store_true", help="few crystals, epochs and one seed: does it run")
    options = parser.parse_args()
    if options.grid is None:
        print("no table and grid of spectra were given (see --help)")
        return
    torch.set_num_threads(1)
    of_features = load(options)
    first = next(iter(of_features.values()))
    ids, formulas = first.ids, first.formulas
    print(f"{len(ids)} crystals, {len(np.unique(formulas))} formulas, {len(first.energies)} bins", flush=True)
    studies = [(named_arms(WITHOUT_SOREP, ModelConfig()), first)]
    for feature, read in of_features.items():
        if feature:
            arms = named_arms(WITH_SOREP, ModelConfig())
            studies.append(([replace(arm, name=f"{arm.name}: {feature}") for arm in arms], read))
    with tempfile.TemporaryDirectory() as scratch:
        tables = [
            run_study(
                arms,
                data,
                lambda seed: make_split(ids, formulas, seed=seed),
                Path(scratch) if options.quick else options.out,
                training=TrainingConfig(epochs=QUICK["epochs"] if options.quick else options.epochs),
                seeds=range(QUICK["seeds"] if options.quick else options.seeds),
                on_run=lambda text: print(text, flush=True),
            )
            for arms, data in studies
        ]
    table = pd.concat(tables, ignore_index=True)
    if not options.quick:
        write_study(options.out, {"runs": table}, {"arms": arms_figure(table, unit=first.unit)})
    tell(table)


def load(options: argparse.Namespace) -> dict[str, SpectrumData]:
    """Crystals of the table that are kept and have all SOREPs, with their spectra, by the feature that is read."""
    targets = load_targets(options.table, options.id_column, options.column, options.grid).between(*options.window)
    rows = pd.read_parquet(options.table).set_index(options.id_column)
    chosen = rows[(rows[options.keep] == True).any(axis=1)] if options.keep else rows  # noqa: E712 (None is not true)
    ids = sorted(chosen.index.astype(str))
    if options.quick:
        ids = sorted(np.random.default_rng(0).permutation(ids)[: QUICK["crystals"]].tolist())
    is_kept = np.isin(targets.ids, ids)
    targets = replace(targets, ids=targets.ids[is_kept], spectra=targets.spectra[is_kept])
    structures, failures = read_structures([options.table], options.id_column, options.structure_column)
    if options.store:
        store = FeatureStore(options.store)
        found = {
            feature: load_data(targets, "both", store=store, structures=structures, feature=feature, skip_missing=True)
            for feature in options.feature
        }
    else:
        found = {"": load_data(targets, "graph", structures=structures, skip_missing=True)}
    for failure in (*failures, *(failure for data in found.values() for failure in data.inputs.failures)):
        print(f"left out: {failure.id}: {failure.message}")
    common = set.intersection(*(set(data.ids.tolist()) for data in found.values()))
    return {feature: data.take(np.isin(data.ids, sorted(common))) for feature, data in found.items()}


def tell(table: pd.DataFrame) -> None:
    """Means and spreads, and Mat2Spec against the others."""
    print(summary(table).drop(columns="size").to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    for arm in ("mean spectrum", "composition"):
        lower = []
        for metric, name in (("mae_oracle", "MAE"), ("mae", "MAE with predicted sums"), ("wd", "WD")):
            model, other = (table.loc[table["arm"] == one, metric].mean() for one in ("mat2spec graph", arm))
            lower.append(f"{name} {100 * (1 - model / other):.1f} %")
        print(f"mat2spec graph below {arm}: {', '.join(lower)}")
    for difference in differences(table, "mat2spec graph"):
        print(difference)


if __name__ == "__main__":
    main()

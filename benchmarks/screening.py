"""Screening for transparent conductors from a labelled table: learning curves and a replayed search.

Takes a table of structures with labels (id, CIF, label and a PBE gap), computes single-shot features of the smallest
cells, kinetic features and descriptors of these, and prints learning curves of all feature sets (splits by reduced
formula) and what each strategy finds for what it spends, against the procedure of the SOREP paper. Everything goes on
from where it was, so the script may be interrupted. The single shots take most of the time: minutes for hundreds of
small cells.

    python benchmarks/screening.py labels.parquet --id-column material_id --structure-column cif \
        --label-column label --gap-column gap --smallest 1600 --out screening-benchmark
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pandas as pd

FEATURES = ("kinetic", "vbm", "fermi", "cbm", "vbm-fermi-cbm", "vbm-fermi-cbm+composition", "band-edges")
COLUMNS = ("roc_auc", "roc_auc_within", "balanced_accuracy", "fraction_found", "speed_up")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, nargs="?", help="without one there is nothing to do")
    parser.add_argument("--id-column", default="id", help="[%(default)s]")
    parser.add_argument("--structure-column", default="cif", help="[%(default)s]")
    parser.add_argument("--sites-column", default="nsites", help="atoms of a cell [%(default)s]")
    parser.add_argument("--label-column", default="label", help="[%(default)s]")
    parser.add_argument("--gap-column", default="gap", help="for scores within insulators [%(default)s]")
    parser.add_argument("--smallest", type=int, default=1600, help="number of structures [%(default)s]")
    parser.add_argument("--sizes", default="0.02,0.05,0.1,0.3,0.6", help="training rows [%(default)s]")
    parser.add_argument("--splits", type=int, default=20, help="[%(default)s]")
    parser.add_argument("--holdout", type=float, default=0.35, help="[%(default)s]")
    parser.add_argument("--jobs", type=int, default=2, help="[%(default)s]")
    parser.add_argument("--out", type=Path, default=Path("screening-benchmark"), help="folder [%(default)s]")
    options = parser.parse_args()
    if options.table is None:
        print("no table of structures with labels was given (see --help)")
        return

    options.out.mkdir(parents=True, exist_ok=True)
    table, store = options.out / "smallest.parquet", options.out / "store"
    whole = pd.read_parquet(options.table).sort_values([options.sites_column, options.id_column])
    whole.head(options.smallest).to_parquet(table)
    jobs, labels = ["--jobs", str(options.jobs)], ["--labels", str(table), "--label-column", options.label_column]
    columns = ["--id-column", options.id_column, "--structure-column", options.structure_column, *jobs]
    grids = [word for name in ("vbm", "fermi", "cbm", "vbm-fermi-cbm", "band-edges") for word in ("--feature", name)]
    sorep("single-shot", table, "--store", store, *columns, *grids, "-q")
    sorep("featurize", table, "--store", store, *columns, "-q")
    sorep("featurize", table, "--store", store, *columns, "-q", "--descriptor", "composition", "--descriptor", "soap")

    chosen = [word for name in FEATURES for word in ("--features", name)]
    size = ["--sizes", options.sizes, "--splits", str(options.splits), "--holdout", str(options.holdout)]
    within = ["--within", f"{options.gap_column} > 0"]
    labels += ["--id-column", options.id_column]
    curves = options.out / "curves"
    sorep("screen", "evaluate", store, *labels, *chosen, *size, *within, "--out", curves, *jobs)
    print_curves(curves)
    figure = ["--figure", options.out / "search.png", "--seeds", "20"]
    sorep("screen", "simulate", store, *labels, "--features", "band-edges", *figure, *jobs)


def sorep(*words: object) -> None:
    """Run the command; some structures may have failed."""
    command = [Path(sys.executable).with_name("sorep"), *map(str, words)]
    status = subprocess.run(command).returncode
    if status not in (0, 3):
        raise SystemExit(f"sorep {words[0]} ended with status {status}")


def print_curves(folder: Path) -> None:
    """Mean and standard deviation over the splits, one table for each metric."""
    from sorep.screening.curves import load_curves

    summary = load_curves(folder).summary()
    for metric in COLUMNS:
        text = summary[f"{metric}_mean"].map("{:.3f}".format) + " ± " + summary[f"{metric}_sd"].map("{:.3f}".format)
        print(f"\n{metric} by number of training rows")
        print(summary.assign(text=text).pivot(index="arm", columns="n_rows", values="text").to_string())


if __name__ == "__main__":
    main()

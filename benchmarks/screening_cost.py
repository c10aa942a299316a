"""What the SOREP paper's whole grid of screening models costs: measured on a few fits, the rest extrapolated.

The grid is four feature sets and SOAP, 28 sizes of the training set from 0.1 % to 80 %, 30 splits of each, and the
published forest of 500 trees. Features are random numbers with a hidden pattern, 513 for each of 20,000 structures, of
which 11 % are candidates as in the paper. A few fits of one feature set are measured, in this process and on one
thread: two sizes that the cost of the others is extrapolated from (a constant and a part growing as a power of n), as
`sorep screen evaluate --dry-run` does, and larger ones that show how good that is. Peak memory is that of the process.
The paper tells that its models took less than an hour on 14 cores.

    python benchmarks/screening_cost.py
"""

from __future__ import annotations

import argparse
import resource
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow.parquet as pq
from _common import use_one_thread

from sorep.features import FEATURES
from sorep.identity import Identity
from sorep.screening.dataset import Dataset, Part
from sorep.screening.evaluate import expected_seconds, probing
from sorep.screening.plan import make_plan
from sorep.screening.protocol import PAPER
from sorep.screening.trial import ROWS, run_trial, values_file

N_FEATURE_SETS = 5
PAPER_CORE_HOURS = 14.0
SHARE = 0.11  # of candidates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--structures", type=int, default=20_000, help="[%(default)s]")
    parser.add_argument("--check", default="0.1,0.8", help="fractions that check the extrapolation [%(default)s]")
    parser.add_argument("--cores", type=int, default=2, help="that the grid is spread over [%(default)s]")
    options = parser.parse_args()
    use_one_thread()
    with TemporaryDirectory() as scratch:
        measure(options, Path(scratch))


def measure(options: argparse.Namespace, folder: Path) -> None:
    """Fit, print, and extrapolate."""
    plan = make_plan([synthetic(options.structures)], PAPER)
    trials = [trial for trial in plan.trials(folder) if trial.arm.name == plan.datasets[0].name]
    path = values_file(folder, 0)
    path.parent.mkdir()
    np.save(path, plan.datasets[0].values)
    pq.write_table(plan.rows, folder / ROWS)
    measured = [run_trial(trial) for trial in probing(trials)]
    checked = {round(float(word) * options.structures) for word in options.check.split(",")}
    print(f"{'training rows':>13} {'CPU s':>8} {'extrapolated':>13} {'AUC':>6}")
    for row in measured:
        print(f"{row['n_rows']:>13} {row['seconds']:>8.1f} {'measured':>13} {row['roc_auc']:>6.3f}")
    for trial in trials:
        if trial.split == 0 and trial.n_rows in checked:
            (expected,), row = expected_seconds([trial], measured), run_trial(trial)
            print(f"{row['n_rows']:>13} {row['seconds']:>8.1f} {expected:>13.1f} {row['roc_auc']:>6.3f}")
            measured.append(row)
    hours = N_FEATURE_SETS * sum(expected_seconds(trials, measured)) / 3600
    n_fits = N_FEATURE_SETS * len(trials)
    print(f"whole grid, extrapolated from {len(measured)} of {n_fits} fits: {hours:.1f} CPU hours,", end=" ")
    print(f"{hours / options.cores:.1f} h on {options.cores} cores; {hours / PAPER_CORE_HOURS:.2f} of the paper's 14")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB, ", end="")
    print(f"features {plan.datasets[0].values.nbytes / 2**20:.0f} MiB")


def synthetic(n: int) -> Dataset:
    """Densities of states of metals and insulators, and whether a gap is wide and an edge is steep."""
    random = np.random.default_rng(0)
    spec = FEATURES["vbm-fermi-cbm"]
    gap = np.maximum(random.normal(-0.5, 1.5, n), 0.0)
    steepness = random.lognormal(size=n)
    distance = np.abs(spec.energies[np.newaxis, :]) - 0.5 * gap[:, np.newaxis]
    values = np.sqrt(np.maximum(distance, 0.0)) * steepness[:, np.newaxis]
    values += 0.1 * random.random(values.shape)
    score = np.where(gap > 0.5, -np.log(steepness) + random.normal(scale=0.7, size=n), -np.inf)
    labels = score > np.quantile(score, 1 - SHARE)
    identity = Identity.of({"operator": "synthetic", "feature": spec.words()})
    ids = np.array([f"s{row:05d}" for row in range(n)])
    return Dataset(
        spec.name, ids, values, spec.feature_names, (Part(spec.name, identity, 513),), groups=ids, labels=labels
    )


if __name__ == "__main__":
    main()

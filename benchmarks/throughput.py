"""Structures per second and memory of `sorep featurize`, end to end.

Runs the command on the given files, folders or tables with a fresh temporary store, one BLAS thread a process, and
prints wall time, CPU time (and how much of it inside the calculations: the rest is start-up, reading and writing), the
resident memory of its largest process, and failures by code. Without a path it takes examples/structures.

    python benchmarks/throughput.py my_structures.parquet --jobs 8
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _common import STRUCTURES

from sorep.store import FeatureStore
from sorep.store.tables import Tables

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", default=[str(STRUCTURES)], help="input of sorep featurize")
    parser.add_argument("--jobs", type=int, default=1, help="worker processes [%(default)s]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "store")
        sorep = Path(sys.executable).with_name("sorep")
        command = [sorep, "featurize", *options.paths, "--store", store, "--jobs", str(options.jobs), "-q"]
        start = time.perf_counter()
        status = subprocess.run(command, env={**os.environ, **ONE_THREAD}, stdout=subprocess.DEVNULL).returncode
        wall = time.perf_counter() - start
        if not store.exists():
            raise SystemExit(f"sorep featurize made no store (exit status {status})")
        report(store, wall, options.jobs)


def report(store: Path, wall: float, jobs: int) -> None:
    """What the run cost; its processes are the only children of this one."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = usage.ru_utime + usage.ru_stime
    calculations = Tables(store).read("spectra", ["cpu_seconds"])["cpu_seconds"].to_pylist()
    failures = FeatureStore(store).failures()
    n = len(calculations)
    print(f"{n} structures computed with --jobs {jobs}, {len(failures)} failed")
    for code, count in failures["code"].value_counts().items():
        print(f"  {code}: {count}")
    if n:
        print(f"wall time {wall:.1f} s: {n / wall:.2f} structures a second")
        calculating = 1e3 * sum(calculations) / n
        print(f"CPU time {cpu:.1f} s: {1e3 * cpu / n:.0f} ms a structure, {calculating:.0f} ms of them calculating")
    print(f"largest process {usage.ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()

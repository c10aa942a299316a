"""Structures per hour of `sorep single-shot`, end to end, and how much of the CPU time is Python's own.

Samples structures with a fixed seed from a file, folder or table, runs the command on them with a fresh temporary
store, and prints structures per hour, CPU time of pw.x and of everything else (start-up, reading, symmetry, checking,
writing), how well the cost was estimated, and failures by code. Without a path it takes examples/structures.

    python benchmarks/single_shot_throughput.py tcm.parquet --sample 200 --jobs 2
"""

from __future__ import annotations

import argparse
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _common import STRUCTURES

from sorep.errors import Failure
from sorep.single_shot.executable import find_pw_x, probe
from sorep.single_shot.method import SingleShot, SingleShotSettings
from sorep.single_shot.runner import PwRunner
from sorep.sources import structures_from
from sorep.store import FeatureStore
from sorep.store.schema import row_structure
from sorep.store.tables import Tables

TIMED = """\
#!/bin/bash
"$@"
status=$?
times >> {log}
exit $status
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", default=[str(STRUCTURES)], help="input of sorep single-shot")
    parser.add_argument("--sample", type=int, default=200, help="number of structures [%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="of the sample [%(default)s]")
    parser.add_argument("--jobs", type=int, default=2, help="worker processes [%(default)s]")
    parser.add_argument("--k-spacing", type=float, default=0.15, help="1/Angstrom [%(default)s]")
    parser.add_argument("--pw-x", help="default: as sorep single-shot finds it")
    options = parser.parse_args()
    readable = [s for s in structures_from(options.paths) if not isinstance(s, Failure)]
    chosen = random.Random(options.seed).sample(readable, min(options.sample, len(readable)))
    pw_x = find_pw_x(options.pw_x)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for structure in chosen:
            structure.to_ase().write(folder / f"{structure.id.replace('/', '_')}.vasp", format="vasp")
        timer, log = folder / "timed.sh", folder / "times"
        timer.write_text(TIMED.format(log=log))
        timer.chmod(0o755)
        command = [Path(sys.executable).with_name("sorep"), "single-shot", f"{folder}/*.vasp", "--pw-x", pw_x, "-q"]
        command += ["--store", folder / "store", "--jobs", str(options.jobs), "--mpi", timer]
        command += ["--k-spacing", str(options.k_spacing)]
        start = time.perf_counter()
        subprocess.run([str(word) for word in command], stdout=subprocess.DEVNULL)
        wall = time.perf_counter() - start
        report(folder, log.read_text(), wall, options.jobs)
        method = SingleShot(SingleShotSettings(k_spacing=options.k_spacing), PwRunner(probe(pw_x), folder))
        report_estimates(folder / "store", method)


def report(folder: Path, times: str, wall: float, jobs: int) -> None:
    """The run's processes are the only children of this one."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = usage.ru_utime + usage.ru_stime
    of_pw_x = sum(60 * float(m) + float(s) for m, s in re.findall(r"(\d+)m([\d.]+)s", times))
    seconds = Tables(folder / "store").read("spectra", ["cpu_seconds"])["cpu_seconds"].to_numpy()
    failures = FeatureStore(folder / "store").failures().drop_duplicates("id")
    print(f"{len(seconds)} structures computed with --jobs {jobs}, {len(failures)} with a failure")
    for code, count in failures["code"].value_counts().items():
        print(f"  {code}: {count}")
    print(f"wall time {wall:.0f} s: {3600 * len(seconds) / wall:.0f} structures an hour")
    quantiles = ", ".join(f"{q:.1f}" for q in np.quantile(seconds, [0.5, 0.9, 1.0]))
    print(f"CPU seconds of a structure: median, 90 %, largest {quantiles}; mean {seconds.mean():.1f}")
    print(f"CPU time {cpu:.0f} s, {of_pw_x:.0f} s of them pw.x: Python's own share {100 * (1 - of_pw_x / cpu):.1f} %")


def report_estimates(store: Path, method: SingleShot) -> None:
    """Estimated over measured seconds."""
    rows = Tables(store).read("spectra", ["content_key", "cpu_seconds"]).to_pylist()
    measured = {row["content_key"]: row["cpu_seconds"] for row in rows}
    structures = {row["content_key"]: row_structure(row) for row in Tables(store).read("structures").to_pylist()}
    ratios = [method.estimate(structures[key]).seconds / measured[key] for key in measured]
    quantiles = ", ".join(f"{q:.2f}" for q in np.quantile(ratios, [0.1, 0.5, 0.9]))
    print(f"estimated over measured seconds: 10 %, median, 90 % {quantiles}")


if __name__ == "__main__":
    main()

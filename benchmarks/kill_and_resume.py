"""Does a run that is killed again and again end where an undisturbed one ends?

Featurizes the input once in peace, then into a second store while sending SIGKILL to the run at random times,
restarting it after each, and compares: names, every feature to the last bit, failures; and counts spectra that were
computed although a committed one existed. Also prints structures per second and peak memory of the undisturbed run.

    python benchmarks/kill_and_resume.py examples/structures --kills 3
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from sorep.store import FeatureStore
from sorep.store.tables import Tables


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", default=["examples/structures"])
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    random.seed(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        calm, killed = Path(folder, "calm"), Path(folder, "killed")
        seconds = run_in_peace(args.paths, calm, args.jobs)
        recomputed = run_under_fire(args.paths, killed, args.jobs, args.kills, seconds)
        compare(calm, killed, recomputed)


def start(paths: list[str], store: Path, jobs: int) -> subprocess.Popen[bytes]:
    command = [str(Path(sys.executable).with_name("sorep")), "featurize", *paths, "--store", str(store), "-q"]
    return subprocess.Popen([*command, "--jobs", str(jobs)])


def run_in_peace(paths: list[str], store: Path, jobs: int) -> float:
    begin = time.perf_counter()
    status = start(paths, store, jobs).wait()
    seconds = time.perf_counter() - begin
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    n = len(FeatureStore(store).structures())
    print(
        f"undisturbed: status {status}, {n} structures in {seconds:.1f} s of wall time with {jobs} jobs, "
        f"{n / seconds:.2f}/s; {usage.ru_utime + usage.ru_stime:.1f} s of CPU; "
        f"largest process {usage.ru_maxrss / 1024:.0f} MiB"
    )
    return seconds


def run_under_fire(paths: list[str], store: Path, jobs: int, kills: int, seconds: float) -> int:
    """Kill the run ``kills`` times, then let it finish. Returns how many committed spectra were computed again."""
    done = 0
    while done < kills:
        run = start(paths, store, jobs)
        try:
            status = run.wait(random.uniform(0.3, 1.5) * seconds / (kills + 1))
        except subprocess.TimeoutExpired:
            os.kill(run.pid, signal.SIGKILL)
            run.wait()
            done += 1
            print(f"kill {done}: {count_spectra(store)} spectra committed")
        else:
            print(f"finished before kill {done + 1} with status {status}")
            break
    print(f"last run: status {start(paths, store, jobs).wait()}")
    spectra = Tables(store).read("spectra", ["content_key"])["content_key"].to_pylist()
    return len(spectra) - len(set(spectra))


def count_spectra(store: Path) -> int:
    return len(Tables(store, create=True).read("spectra", ["content_key"]))


def compare(calm: Path, killed: Path, recomputed: int) -> None:
    first, second = FeatureStore(calm), FeatureStore(killed)
    one, other = first.matrix("kinetic"), second.matrix("kinetic")
    columns = ["id", "source", "stage", "code", "message"]
    same_failures = first.failures()[columns].equals(second.failures()[columns])
    equal = one.ids.tolist() == other.ids.tolist() and np.array_equal(one.values, other.values)
    print(f"same names and features bit by bit: {equal}; same failures: {same_failures}; recomputed: {recomputed}")
    codes = first.failures()["code"].value_counts().to_dict()
    print(f"failures by code: {codes or 'none'}")
    if not (equal and same_failures):
        raise SystemExit("the two stores differ")


if __name__ == "__main__":
    main()

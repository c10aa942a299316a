"""Runs that are killed or interrupted: nothing committed is lost, nothing is computed twice, nobody is left behind."""

from __future__ import annotations

import os
import random
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sorep.errors import StoreError
from sorep.store import FeatureStore

N_CRYSTALS = 48
SPACING = "0.35"  # 1/Angstrom; some 0.05 s for each crystal

# The command commits every 15 s; a run that is killed every few seconds must commit more often to get anywhere.
DRIVER = f"""\
import sys

from sorep.engine import LocalEngine
from sorep.features import get_feature
from sorep.featurize import featurize
from sorep.kinetic.method import KineticSettings
from sorep.sources import find_items

if __name__ == "__main__":
    paths, store = sys.argv[1:]
    settings, spec = KineticSettings(k_spacing={SPACING}), get_feature("kinetic")
    with LocalEngine(2) as engine:
        progress = featurize(list(find_items(paths)), settings, [spec], store, engine, commit_seconds=0.2)
    print(progress.computed, progress.stored_before, progress.all_failed)
"""

TABLES = {"structures": "id", "spectra": "content_key", "features": "content_key", "failures": "id"}


def rows(path: Path, table: str) -> list[tuple[str, str]]:
    """Key and run of every raw row, duplicates and all; none while there is no store yet."""
    try:
        read = FeatureStore(path).tables.read(table, [TABLES[table], "run_id"])
    except StoreError:
        return []
    return sorted(zip(*(read[name].to_pylist() for name in (TABLES[table], "run_id")), strict=True))


def wait_until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def inputs(tmp_path, write_crystals) -> tuple[Path, list[str]]:
    ids = write_crystals(tmp_path / "inputs", N_CRYSTALS)
    (tmp_path / "inputs" / "broken.cif").write_text("data_x\n")
    return tmp_path / "inputs", ids


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_like_an_undisturbed_one(inputs, tmp_path, start):
    folder, ids = inputs
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER)
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    assert start(sys.executable, driver, folder, undisturbed).finish().stdout.split() == [str(N_CRYSTALS), "0", "1"]

    seed = random.randrange(10**6)
    print("seed of the random times:", seed)  # shown when the test fails
    chance = random.Random(seed)
    snapshots = []
    for goal in (0, 1, 12, 24):  # spectra to be there before the clock of a kill starts
        command = start(sys.executable, driver, folder, disturbed)

        def is_due(command=command, goal=goal) -> bool:
            return len(rows(disturbed, "spectra")) >= goal or command.process.poll() is not None

        wait_until(is_due)
        time.sleep(chance.uniform(0.0, 0.05 if goal else 2.0))
        assert command.process.poll() is None, "it ended before it could be killed"
        command.process.kill()
        command.process.wait()
        command.wait_until_all_are_gone()
        snapshots.append({table: rows(disturbed, table) for table in TABLES})

    committed = len(snapshots[-1]["spectra"])
    assert 24 <= committed <= N_CRYSTALS  # the last kill may hit a run that has committed all and not yet ended
    result = start(sys.executable, driver, folder, disturbed).finish()
    assert result.stdout.split() == [str(N_CRYSTALS - committed), str(committed), "1"], result.stderr

    final = {table: rows(disturbed, table) for table in TABLES}
    for snapshot in snapshots:
        for table in TABLES:  # every row is still there, and no later run made it again
            assert set(snapshot[table]) <= set(final[table])
    for table in TABLES:
        keys = [key for key, _ in final[table]]
        assert keys == sorted(set(keys)) == [key for key, _ in rows(undisturbed, table)]

    reference, survivor = FeatureStore(undisturbed), FeatureStore(disturbed)
    assert survivor.matrix("kinetic").ids.tolist() == reference.matrix("kinetic").ids.tolist() == ids
    assert survivor.matrix("kinetic").identity == reference.matrix("kinetic").identity
    np.testing.assert_array_equal(survivor.matrix("kinetic").values, reference.matrix("kinetic").values)
    for id in ids:
        np.testing.assert_array_equal(survivor.spectrum(id).energies, reference.spectrum(id).energies)
    without_identity = [frame.drop(columns="identity") for frame in (survivor.failures(), reference.failures())]
    assert without_identity[0].to_dict("records") == without_identity[1].to_dict("records")
    runs = survivor.runs()
    ended = set(runs["run_id"][runs["event"] != "started"])
    assert not ended & {run for _, run in snapshots[-1]["spectra"]}  # a killed run has a start and no end
    assert runs["event"].tolist()[-1] == "finished"


class Terminal:
    """A pseudo-terminal, and what was written to it."""

    def __init__(self) -> None:
        self._ours, self.theirs = os.openpty()
        self.text = ""
        self._reader = threading.Thread(target=self._read, daemon=True)

    def begin(self) -> None:
        """Call it when the other end has been handed over."""
        os.close(self.theirs)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                self.text += os.read(self._ours, 65536).decode(errors="replace")
            except OSError:  # the last process that had it open is gone
                return

    def end(self) -> str:
        self._reader.join(10.0)
        os.close(self._ours)
        return self.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_an_interrupted_command_keeps_what_is_finished_and_says_how_to_go_on(
    inputs, tmp_path, start_sorep, sorep, number
):
    folder, ids = inputs
    store = tmp_path / "store"
    words = ("featurize", folder, "--store", store, "--k-spacing", SPACING, "--jobs", "2")
    terminal = Terminal()
    command = start_sorep(*words, stderr=terminal.theirs)
    terminal.begin()

    def shown() -> int:
        """How many structures the bar says are finished."""
        return max([int(n) for n in re.findall(rf"(\d+)/{N_CRYSTALS + 1}\b", terminal.text)], default=0)

    wait_until(lambda: shown() >= 8 or command.process.poll() is not None)
    at_least = shown() - 1  # the broken one has no spectrum
    command.process.send_signal(number)
    result = command.finish()
    command.wait_until_all_are_gone()
    text = terminal.end()

    assert result.returncode == 130, text
    assert "Traceback" not in text
    assert f"interrupted: everything finished so far is in {store}" in text.replace("\r\n", " ")
    assert "the same command goes on from there" in text
    assert FeatureStore(store).runs()["event"].tolist() == ["started", "interrupted"]
    spectra = rows(store, "spectra")
    assert at_least <= len(spectra) < N_CRYSTALS
    assert [key for key, _ in rows(store, "features")] == [key for key, _ in spectra]

    if number == signal.SIGTERM:  # once is enough for the rest
        again = sorep(*words)
        assert again.returncode == 3, again.stderr
        assert f"{N_CRYSTALS - len(spectra)} computed" in again.stdout
        assert f"{len(spectra)} were there" in again.stdout
        assert FeatureStore(store).matrix("kinetic").ids.tolist() == ids
        assert set(spectra) <= set(rows(store, "spectra"))
        assert len(rows(store, "spectra")) == N_CRYSTALS

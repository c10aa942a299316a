"""`sorep single-shot` with a pw.x that misbehaves: one structure cannot hurt another, and nothing is left behind."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write

from sorep.errors import StoreError
from sorep.single_shot.executable import PwX
from sorep.single_shot.pseudos import DEFAULT_FAMILY
from sorep.store import FeatureStore

FAKE = Path(__file__).parents[1] / "fake_pw_x.py"
SPACING = "1.3"  # 1/Angstrom: a mesh of 2 x 2 x 2 and some 0.2 s for each crystal

CRYSTALS = {
    "al": bulk("Al", "fcc", a=4.05),
    "alp": bulk("AlP", "zincblende", a=5.47),
    "c": bulk("C", "diamond", a=3.57),
    "gaas": bulk("GaAs", "zincblende", a=5.65),
    "ge": bulk("Ge", "diamond", a=5.66),
    "k": bulk("K", "bcc", a=5.33),
    "li": bulk("Li", "bcc", a=3.51),
    "mgo": bulk("MgO", "rocksalt", a=4.21),
    "nacl": bulk("NaCl", "rocksalt", a=5.64),
    "si": bulk("Si", "diamond", a=5.43),
}

# The command commits every 15 s; here, every result at once.
IMPATIENT = """\
from sorep.cli import main
from sorep.featurize import featurize

if __name__ == "__main__":
    featurize.__kwdefaults__["commit_seconds"] = 0.0
    main()
"""

pytestmark = pytest.mark.pwx


@pytest.fixture
def real(pw_x: PwX, get_family, monkeypatch) -> PwX:
    """The real pw.x, and pseudopotentials where the command finds them."""
    monkeypatch.setenv("SOREP_DATA", str(get_family(DEFAULT_FAMILY).folder.parents[1]))
    return pw_x


@pytest.fixture
def fake(real, tmp_path, monkeypatch) -> Path:
    """The fake as an executable file, with the real one behind it; its faults are in FAKE_PW_X."""
    monkeypatch.setenv("FAKE_PW_X_REAL", str(real.path))
    monkeypatch.setenv("FAKE_PW_X_PATCHED", "1")
    return script(tmp_path / "pw.x", f'exec "{sys.executable}" "{FAKE}" "$@"')


@pytest.fixture
def words(fake, tmp_path) -> tuple[str | Path, ...]:
    """What all commands begin with; input, store, scratch and failed folders have plain names below tmp_path."""
    folders = ("--store", tmp_path / "store", "--scratch", tmp_path / "scratch", "--keep-failed", tmp_path / "failed")
    return ("single-shot", tmp_path / "inputs", "--pw-x", fake, "--k-spacing", SPACING, "--jobs", "1", *folders)


@pytest.fixture
def write_inputs(tmp_path) -> Callable[..., list[str]]:
    """Write crystals by name; returns their ids, which are the names."""

    def write_crystals(*names: str) -> list[str]:
        (tmp_path / "inputs").mkdir()
        for name in names:
            write(tmp_path / "inputs" / f"{name}.vasp", CRYSTALS[name])
        return sorted(names)

    return write_crystals


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def n_spectra(store: Path) -> int:
    """How many rows there are, duplicates and all; none while there is no store yet."""
    try:
        return len(FeatureStore(store).tables.read("spectra", ["content_key"]))
    except StoreError:
        return 0


def failures(store: Path) -> dict[str, tuple[str, str]]:
    """Stage and code by id; every failure must tell where it comes from and what to do."""
    rows = FeatureStore(store).failures().to_dict("records")
    assert all(row["message"] and row["remedy"] and row["source"] for row in rows)
    found = {row["id"]: (row["stage"], row["code"]) for row in rows}
    assert len(found) == len(rows)
    return found


def is_empty(folder: Path) -> bool:
    return not list(folder.iterdir())


def wait_until(condition: Callable[[], object], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


FAULTS = {
    "alp": ("silent", "pw.x", "pw-x-silent"),
    "c": ("nan", "output", "non-finite-eigenvalues"),
    "gaas": ("segfault+none", "", ""),
    "ge": ("segfault", "pw.x", "pw-x-crash"),
    "k": ("kill-parent", "run", "worker-died"),
    "li": ("memory", "pw.x", "pw-x-memory"),
    "nacl": ("hang-with-child", "pw.x", "pw-x-timeout"),
}
"""Of a crystal: fault, and stage and code of the failure, if it is one."""


@pytest.mark.slow
def test_bad_structures_cost_themselves_only(sorep, start_sorep, words, write_inputs, real, tmp_path, monkeypatch):
    ids = write_inputs(*CRYSTALS)
    write(tmp_path / "inputs" / "nowhere.vasp", Atoms("Pu", cell=[3, 3, 3], pbc=True))  # no pseudopotential
    elements = {"alp": "P", "gaas": "Ga", "nacl": "Na"}
    faults = ",".join(f"{fault}:{elements.get(id, id.title())}" for id, (fault, *_) in FAULTS.items())
    monkeypatch.setenv("FAKE_PW_X", faults)
    command = start_sorep(*words, "--jobs", "2", "--timeout", "8", "--silence", "4", "--memory", "0.2")
    result = command.finish()
    command.wait_until_all_are_gone()

    expected = {id: (stage, code) for id, (_, stage, code) in FAULTS.items() if code}
    expected["nowhere"] = ("pseudopotentials", "missing-pseudopotential")
    good = [id for id in ids if id not in expected]
    store = tmp_path / "store"
    assert result.returncode == 3, result.stderr
    assert "Traceback" not in result.stderr
    assert failures(store) == expected
    assert f"{len(good)} computed" in result.stdout
    assert f"{len(expected)} failed: " in result.stderr
    assert all(f"1 {code}" in result.stderr for _, code in expected.values())
    assert "refused, 1 structures: pseudopotentials: " in result.stderr
    assert FeatureStore(store).matrix("vbm").ids.tolist() == good
    flags = {id: [f for f in FeatureStore(store).spectrum(id).flags if f.startswith("retried")] for id in good}
    assert flags == {id: ["retried:pw-x-crash"] if id == "gaas" else [] for id in good}
    assert is_empty(tmp_path / "scratch")
    kept = sorted(folder.name for folder in (tmp_path / "failed").iterdir())
    assert kept == sorted(set(expected) - {"nowhere", "k"})  # pw.x never ran; its keeper was killed
    for id in kept:
        assert (tmp_path / "failed" / id / "pw.in").exists()
        assert (tmp_path / "failed" / id / "pw.out").exists()
    listed = sorep("failures", "--store", store).stdout
    assert all(id in listed and code in listed for id, (_, code) in expected.items())

    # The same again tries nothing again; once all is well, it can be made to, and then it is as if nothing had been.
    again = sorep(*words)
    assert (again.returncode, "0 computed" in again.stdout) == (3, True)
    monkeypatch.delenv("FAKE_PW_X")
    assert sorep(*words, "--retry-failed").returncode == 3
    assert set(failures(store)) == {"nowhere"}
    undisturbed = tmp_path / "undisturbed"
    names = [tmp_path / "inputs" / f"{id}.vasp" for id in ids]
    options = ("--pw-x", real.path, "--k-spacing", SPACING, "--jobs", "1", "--store", undisturbed)
    assert sorep("single-shot", *names, *options).returncode == 0
    for feature in ("vbm", "fermi", "cbm"):
        matrix, reference = (FeatureStore(path).matrix(feature) for path in (store, undisturbed))
        assert matrix.identity == reference.identity
        assert matrix.ids.tolist() == reference.ids.tolist()
        np.testing.assert_array_equal(matrix.values, reference.values)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["SIGKILL", "SIGINT"])
def test_a_run_that_is_ended_in_the_middle(start, sorep, words, write_inputs, tmp_path, monkeypatch, number):
    ids = write_inputs("al", "c", "ge", "mgo", "si")
    monkeypatch.setenv("FAKE_PW_X", "hang-with-child:Ge")
    driver, store, scratch = tmp_path / "driver.py", tmp_path / "store", tmp_path / "scratch"
    driver.write_text(IMPATIENT)
    launcher = script(tmp_path / "launcher", '"$@"\nexit $?')  # one that stays and waits
    command = start(sys.executable, driver, *words, "--jobs", "2", "--mpi", launcher)
    is_hanging = lambda: list(scratch.glob("sorep-*/ge-*/child"))  # noqa: E731
    wait_until(lambda: (n_spectra(store) >= 3 and is_hanging()) or command.process.poll() is not None)
    assert len(command.alive()) >= 5  # the command, a worker, the launcher, pw.x and its child
    command.process.send_signal(number)
    result = command.finish()
    command.wait_until_all_are_gone()
    if number == signal.SIGINT:
        assert result.returncode == 130, result.stderr
        assert "the same command goes on from there" in result.stderr
        assert "Traceback" not in result.stderr
        assert is_empty(scratch)
    else:
        assert result.returncode == -number
        assert not is_empty(scratch)

    committed = n_spectra(store)
    assert 3 <= committed < len(ids)
    assert failures(store) == {}
    monkeypatch.delenv("FAKE_PW_X")
    again = sorep(*words)
    assert again.returncode == 0, again.stderr
    assert f"{len(ids) - committed} computed" in again.stdout
    assert f"{committed} were there" in again.stdout
    assert is_empty(scratch)
    assert n_spectra(store) == len(ids)
    assert FeatureStore(store).matrix("vbm").ids.tolist() == ids


def test_a_machine_that_breaks_during_a_run(sorep, words, tmp_path, monkeypatch):
    crystals = [bulk("Si", "diamond", a=5.3 + n / 100) for n in range(12)]
    (tmp_path / "inputs").mkdir()
    write(tmp_path / "inputs" / "si.xyz", crystals, format="extxyz")
    monkeypatch.setenv("FAKE_PW_X", "missing-library:Si")
    broken = sorep(*words)
    assert broken.returncode == 1
    assert "structures in a row failed for one reason" in broken.stderr
    assert "libopenblas.so.0" in broken.stderr
    assert "Remedy: build pw.x on this machine with `sorep pw build`" in broken.stderr
    found = failures(tmp_path / "store")
    assert 10 <= len(found) < 12
    assert set(found.values()) == {("set-up", "missing-library")}
    assert is_empty(tmp_path / "scratch")

    monkeypatch.delenv("FAKE_PW_X")
    repaired = sorep(*words)
    assert repaired.returncode == 0, repaired.stderr
    assert "12 computed" in repaired.stdout
    assert failures(tmp_path / "store") == {}


@pytest.mark.parametrize(
    ("options", "fault", "reason"),
    [
        ((), "missing-library", "missing-library"),
        ((), "wrong-cpu", "wrong-cpu"),
        (("--pw-x", "/no/such/pw.x"), "", "pw-x-not-found"),
        (("--mpi", "no-such-launcher -n 2"), "", "launcher-not-found"),
        (("--mpi", "{failing} -n 2"), "", "mpi-slots"),
        (("--scratch", "{failing}"), "", "no-scratch"),
    ],
    ids=lambda value: value if isinstance(value, str) and "-" in value else None,
)
def test_a_machine_on_which_nothing_can_run(sorep, words, write_inputs, tmp_path, monkeypatch, options, fault, reason):
    write_inputs("si")
    failing = script(tmp_path / "failing", "echo There are not enough slots available in the system >&2; exit 1")
    monkeypatch.setenv("FAKE_PW_X", fault)
    result = sorep(*words, *(option.format(failing=failing) for option in options))
    assert result.returncode == 1
    assert result.stdout == ""
    assert "sorep: set-up: " in result.stderr
    assert f"[{reason}]. Remedy: " in result.stderr
    assert not (tmp_path / "store").exists()


def test_an_mpi_launcher(sorep, words, write_inputs, tmp_path):
    write_inputs("ge", "mgo", "si")
    launcher = script(
        tmp_path / "launcher",
        f"""echo "$1 $2" >> {tmp_path}/log
        shift 2
        grep -q '^ *Ge ' pw.in && {{ echo "There are not enough slots available in the system" >&2; exit 1; }}
        exec "$@" """,
    )
    result = sorep(*words, "--mpi", f"{launcher} -n 2")
    assert result.returncode == 3, result.stderr
    assert failures(tmp_path / "store") == {"ge": ("set-up", "mpi-slots")}
    assert (tmp_path / "log").read_text().splitlines() == ["-n 2"] * 4  # once to see what it is
    result = sorep(*words)
    assert (result.returncode, "1 computed" in result.stdout) == (0, True)
    assert FeatureStore(tmp_path / "store").matrix("vbm").ids.tolist() == ["ge", "mgo", "si"]


def test_two_commands_share_store_and_scratch(start_sorep, words, write_inputs, tmp_path):
    ids = write_inputs("al", "c", "ge", "mgo", "si")
    command, _, *options = words
    files = [tmp_path / "inputs" / f"{id}.vasp" for id in ids]
    running = [start_sorep(command, *some, *options) for some in (files[:4], files[1:])]
    for one in running:
        result = one.finish()
        assert result.returncode == 0, result.stderr
        assert result.stdout.startswith("4 structures in ")
        one.wait_until_all_are_gone()
    store = FeatureStore(tmp_path / "store")
    assert store.matrix("vbm").ids.tolist() == ids
    assert store.features()["n"].tolist() == [len(ids)] * 4
    assert failures(tmp_path / "store") == {}
    assert sorted(store.runs()["event"]) == ["finished"] * 2 + ["started"] * 2
    assert is_empty(tmp_path / "scratch")

"""Plans, identity and estimates of converged bands; calculations are in tests/integration/test_label_run_cli.py."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk

from sorep.band_path import band_path
from sorep.errors import PseudoError, UsageError
from sorep.single_shot.converged import ConvergedBands
from sorep.single_shot.executable import PwX
from sorep.single_shot.inputs import CONVERGED
from sorep.single_shot.method import SingleShot, SingleShotSettings
from sorep.single_shot.pseudos import DEFAULT_FAMILY
from sorep.single_shot.runner import PwRunner
from sorep.structure import Structure

SILICON = Structure.from_ase(bulk("Si", "diamond", a=5.43), id="si")
CUBE = Structure.from_ase(bulk("Si", "diamond", a=5.43, cubic=True), id="cube")


@pytest.fixture
def method(get_family, monkeypatch):
    """The method with settings of the SCF and the spacing of lines; nothing runs."""
    monkeypatch.setenv("SOREP_DATA", str(get_family(DEFAULT_FAMILY).folder.parents[1]))

    def made(line_spacing: float = 0.05, *, is_patched: bool = True, **settings: Any) -> ConvergedBands:
        pw_x = PwX(Path("/nowhere/pw.x"), (), is_patched, "6.7MaX")
        chosen = SingleShotSettings(**{"k_spacing": 0.5, "iterations": CONVERGED, **settings})
        return ConvergedBands(SingleShot(chosen, PwRunner(pw_x, Path("/nowhere"))), line_spacing)

    return made


def test_the_identity_is_that_of_the_scf_and_the_lines(method):
    one = method()
    scf = one.scf.identity()
    assert one.identity().differences(scf) == [
        "line_spacing: 0.05 against None",
        "operator: 'scf-bands' against 'scf'",
    ]
    assert one.operator == one.identity().words["operator"] == "scf-bands"
    assert one.identity() == method(is_patched=False).identity()
    others = [method(0.025), method(k_spacing=0.4), method(spin=True)]
    assert len({other.identity().hash for other in (one, *others)}) == 4


def test_estimates_cover_mesh_and_lines(method):
    one = method()
    scf, both = one.scf.estimate(SILICON), one.estimate(SILICON)
    path = band_path(one.scf.plan(SILICON).cell, 0.05)
    assert both.n_kpoints == scf.n_kpoints + len(path)
    assert both.seconds > 1.5 * scf.seconds
    assert method(0.025).estimate(SILICON).seconds > 1.3 * both.seconds
    assert method(0.0125).estimate(CUBE).memory_bytes < 3 * scf.memory_bytes  # one run holds few of the k points


def test_a_line_spacing_that_makes_no_sense_is_refused_before_anything_runs(method):
    for call in (method(0.0).estimate, method(-1.0).calculate):
        with pytest.raises(UsageError, match="line spacing"):
            call(SILICON)


def test_a_missing_pseudopotential_is_refused_before_anything_runs(method):
    plutonium = Structure.from_ase(bulk("Pu", "fcc", a=4.6), id="pu")
    for call in (method().estimate, method().calculate):
        with pytest.raises(PseudoError, match="Pu"):
            call(plutonium)


def test_methods_travel_to_workers(method):
    one = method()
    again = pickle.loads(pickle.dumps(one))
    assert again == one
    assert again.identity() == one.identity()
    assert replace(one, line_spacing=0.1) != one


def test_the_path_is_that_of_the_cell_that_is_computed(method):
    cell = method(keep_cell=True).scf.plan(CUBE).cell
    path = band_path(cell, 0.05)
    assert np.array_equal(path.lattice, CUBE.lattice)
    assert path.is_folded

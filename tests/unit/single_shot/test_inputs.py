"""What pw.x is told, read back by ASE, which knows the format independently."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from ase.io.espresso import read_espresso_in, read_fortran_namelist

from sorep.cells import canonical_cell
from sorep.meshes import irreducible_mesh
from sorep.single_shot.inputs import CONVERGED, Plan
from sorep.single_shot.pseudos import DEFAULT_FAMILY, pinned_family
from sorep.structure import Structure

FAMILY = pinned_family(DEFAULT_FAMILY, Path("/pseudos"))
ELECTRONS = {"Mg": 10, "O": 6, "Fe": 16, "Si": 4}
ORBITALS = {"Mg": 5, "O": 4, "Fe": 10, "Si": 4}


def plan(*words: Any, moments: dict[str, float] | None = None, iterations: int = 0, **options: Any) -> Plan:
    """Of a crystal of `ase.build.bulk`, in a cell that is not symmetric to rounding."""
    atoms = bulk(*words, **options)
    atoms.rotate(20, (1, 2, 3), rotate_cell=True)
    cell = canonical_cell(Structure.from_ase(atoms), keep_cell=True)
    pseudos = FAMILY.pseudos
    return Plan(
        cell=cell,
        mesh=irreducible_mesh(cell, 0.6),
        pseudos={symbol: pseudos[symbol] for symbol in sorted(set(atoms.symbols))},
        pseudo_folder=FAMILY.folder,
        ecutwfc=60.0,
        ecutrho=180.0,
        moments=moments or {},
        iterations=iterations,
    )


def namelists(text: str) -> dict[str, dict[str, Any]]:
    return dict(read_fortran_namelist(io.StringIO(text))[0])


MGO = plan("MgO", "rocksalt", a=4.21)
IRON = plan("Fe", "bcc", a=2.87, moments={"Fe": 4.0})


class TestStructure:
    def test_atoms_and_cell_come_back_to_the_last_digits(self) -> None:
        atoms, given = read_espresso_in(io.StringIO(MGO.input_text())), MGO.cell.structure
        assert list(atoms.symbols) == list(given.symbols)
        assert np.abs(np.asarray(atoms.cell) - given.lattice).max() < 1e-7  # ASE has another Bohr radius
        assert np.abs(atoms.get_scaled_positions(wrap=False) - given.positions).max() < 1e-13

    def test_kpoints_and_weights(self) -> None:
        lines = MGO.input_text().splitlines()
        start = lines.index("K_POINTS crystal")
        n = int(lines[start + 1])
        points = np.array([line.split() for line in lines[start + 2 :]], dtype=float)
        assert points.shape == (n, 4)
        assert n == len(MGO.mesh) > 3
        assert np.abs(points[:, :3] - MGO.mesh.kpoints).max() < 1e-14
        assert points[:, 3].sum() == pytest.approx(1, abs=1e-12)
        assert len(set(points[:, 3])) > 1

    def test_species_name_their_files(self) -> None:
        text = MGO.input_text()
        assert "ATOMIC_SPECIES\n  Mg 1.0 Mg.upf\n  O 1.0 O.upf\n" in text
        control, system = namelists(text)["control"], namelists(text)["system"]
        assert control["pseudo_dir"] == "/pseudos"
        assert (system["nat"], system["ntyp"], system["ibrav"]) == (2, 2, 0)
        assert (system["ecutwfc"], system["ecutrho"]) == (60, 180)


class TestCounting:
    def test_orbitals_and_electrons(self) -> None:
        assert MGO.n_functions == ORBITALS["Mg"] + ORBITALS["O"]
        assert MGO.n_electrons == ELECTRONS["Mg"] + ELECTRONS["O"]

    def test_a_band_for_each_orbital(self) -> None:
        assert MGO.n_bands == MGO.n_functions == 9
        assert namelists(MGO.input_text())["system"]["nbnd"] == 9

    @pytest.mark.parametrize("iterations", [1, CONVERGED])
    def test_an_scf_has_at_least_the_bands_of_a_metal(self, iterations: int) -> None:
        assert replace(MGO, iterations=iterations).n_bands == 12  # 8 filled, 4 more
        assert replace(IRON, iterations=iterations).n_bands == 12
        silicon = plan("Si", "diamond", a=5.43, iterations=iterations)
        assert silicon.n_bands == 8  # 4 filled, 4 more; as many as there are orbitals
        assert replace(plan("Si", "diamond", a=5.43, cubic=True), iterations=iterations).n_bands == 32


class TestSpin:
    def test_moments_become_fractions_of_the_valence(self) -> None:
        system = namelists(IRON.input_text())["system"]
        assert IRON.n_spin == system["nspin"] == 2
        assert system["starting_magnetization(1)"] == 4 / ELECTRONS["Fe"]

    def test_every_species_has_one(self) -> None:
        system = namelists(replace(MGO, moments={"O": -2.0}).input_text())["system"]
        assert system["starting_magnetization(1)"] == 0
        assert system["starting_magnetization(2)"] == -2 / ELECTRONS["O"]

    def test_without_moments_there_is_no_spin(self) -> None:
        assert MGO.n_spin == 1
        assert not [key for key in namelists(MGO.input_text())["system"] if key.startswith(("nspin", "starting"))]


class TestIterations:
    def test_the_single_shot(self) -> None:
        found = namelists(MGO.input_text())
        electrons, system = found["electrons"], found["system"]
        assert MGO.is_single_shot
        assert (electrons["electron_maxstep"], electrons["startingwfc"], electrons["startingpot"]) == (
            0,
            "atomic",
            "atomic",
        )
        assert system["nosym"] is True
        assert system["noinv"] is True
        assert found["control"]["calculation"] == "scf"
        assert found["control"]["disk_io"] == "none"

    def test_an_scf_to_convergence(self) -> None:
        found = namelists(replace(MGO, iterations=CONVERGED).input_text())
        assert found["electrons"]["electron_maxstep"] > 50
        assert found["electrons"]["startingwfc"] == "atomic+random"
        assert 0 < found["electrons"]["conv_thr"] < 1e-6
        assert found["control"]["disk_io"] == "low"  # else there is no XML file
        assert "nosym" not in found["system"]

    def test_so_many_iterations(self) -> None:
        found = namelists(replace(MGO, iterations=3).input_text())
        assert found["electrons"]["electron_maxstep"] == 3
        assert "nosym" not in found["system"]

    def test_larger_cells_converge_as_well_for_each_atom(self) -> None:
        one, eight = (
            namelists(plan("Si", "diamond", a=5.43, cubic=cubic, iterations=CONVERGED).input_text())["electrons"]
            for cubic in (False, True)
        )
        assert eight["conv_thr"] == pytest.approx(4 * one["conv_thr"])


class TestChanges:
    def test_they_win_and_the_rest_stays(self) -> None:
        changed = MGO.input_text({"electrons": {"diagonalization": "cg"}, "system": {"ecutwfc": 50.5, "nosym": False}})
        given, found = namelists(MGO.input_text()), namelists(changed)
        assert found["electrons"] == {**given["electrons"], "diagonalization": "cg"}
        assert found["system"] == {**given["system"], "ecutwfc": 50.5, "nosym": False}
        assert found["control"] == given["control"]
        assert changed.partition("ATOMIC_SPECIES")[2] == MGO.input_text().partition("ATOMIC_SPECIES")[2]

    def test_matrices_are_written_where_they_are_wanted(self) -> None:
        assert namelists(replace(MGO, writes_matrices=True).input_text())["control"]["disk_io"] == "high"

    def test_the_plan_is_left_as_it_was(self) -> None:
        before = MGO.input_text()
        MGO.input_text({"control": {"disk_io": "high"}})
        assert MGO.input_text() == before


class TestPath:
    POINTS = np.array([[0, 0, 0], [0.1, 0.1, 0], [0.2, 0.2, 0]])

    def test_bands_start_from_the_density_of_the_scf_and_share_the_rest(self) -> None:
        scf = replace(IRON, iterations=CONVERGED)
        before, found = namelists(scf.input_text()), namelists(scf.along(self.POINTS).input_text())
        assert found["control"].pop("calculation") == "bands"
        electrons = found["electrons"]
        assert electrons["startingpot"] == "file"
        assert 0 < electrons["diago_thr_init"] < 1e-6
        assert electrons["diago_david_ndim"] > 2
        assert found["system"] == before["system"]
        assert found["control"] == {k: v for k, v in before["control"].items() if k != "calculation"}

    def test_kpoints_are_those_of_the_path(self) -> None:
        path = replace(MGO, iterations=CONVERGED).along(self.POINTS)
        lines = path.input_text().splitlines()
        start = lines.index("K_POINTS crystal")
        points = np.array([line.split() for line in lines[start + 2 :]], dtype=float)
        assert lines[start + 1].strip() == str(len(path.mesh)) == "3"
        assert np.array_equal(points[:, :3], self.POINTS)
        assert (points[:, 3] > 0).all()  # those of no weight would be left out of the output

"""Settings, identity and plans of single shots; calculations are in tests/integration/test_single_shot.py."""

from __future__ import annotations

import hashlib
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk

from sorep.errors import PseudoError, UsageError
from sorep.single_shot.executable import PwX
from sorep.single_shot.inputs import CONVERGED
from sorep.single_shot.method import (
    DEFAULT_K_SPACING,
    INTERPOLATED_K_SPACING,
    SingleShot,
    SingleShotSettings,
    starting_moments,
)
from sorep.single_shot.pseudo_folder import MANIFEST
from sorep.single_shot.pseudos import DEFAULT_FAMILY
from sorep.single_shot.runner import PwRunner
from sorep.structure import Structure

PW_X = PwX(Path("/nowhere/pw.x"), (), True, "6.7MaX")

# Valence, orbitals (label, l, occupation), cutoffs in Ry; kind
ELEMENTS: dict[str, tuple[float, list[tuple[str, int, float]], float, float, str]] = {
    "O": (6, [("2S", 0, 2), ("2P", 1, 4)], 50, 400, "PAW"),
    "Mg": (10, [("2S", 0, 2), ("2P", 1, 6), ("3S", 0, 2)], 84, 252, "NC"),
    "Si": (4, [("3S", 0, 2), ("3P", 1, 2), ("3D", 2, -1)], 36, 108, "NC"),
    "Fe": (16, [("3S", 0, 2), ("3P", 1, 6), ("3D", 2, 6), ("4S", 0, 2)], 90, 270, "NC"),
    "Al": (3, [], 40, 120, "NC"),
    "Ga": (13, [("4S", 0, 2), ("4P", 1, 1)], 70, 560, "PAW"),
}


def write_family(folder: Path, **changes: Any) -> Path:
    """A pinned family whose files only have the right checksums: a plan does not open them."""
    folder.mkdir(exist_ok=True)
    pseudos = {}
    for symbol, (z, orbitals, ecutwfc, ecutrho, kind) in ELEMENTS.items():
        content = f"{symbol}\n".encode()
        (folder / f"{symbol}.upf").write_bytes(content)
        pseudos[symbol] = {
            "filename": f"{symbol}.upf",
            "sha256": hashlib.sha256(content).hexdigest(),
            "z_valence": z,
            "kind": kind,
            "orbitals": orbitals,
            "ecutwfc": ecutwfc,
            "ecutrho": ecutrho,
        }
    manifest = {"name": "test", "functional": "PBE", "licence": "", "references": [], "pseudos": pseudos, **changes}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def family(tmp_path: Path) -> Path:
    return write_family(tmp_path / "family")


def method(family: Path, pw_x: PwX = PW_X, **settings: Any) -> SingleShot:
    return SingleShot(SingleShotSettings(family=str(family), **settings), PwRunner(pw_x, Path("/nowhere")))


def crystal(*words: Any, **options: Any) -> Structure:
    return Structure.from_ase(bulk(*words, **options))


SILICON = crystal("Si", "diamond", a=5.43)
MGO = crystal("MgO", "rocksalt", a=4.21)
IRON = crystal("Fe", "bcc", a=2.87)


class TestSettings:
    def test_defaults(self) -> None:
        settings = SingleShotSettings()
        assert (settings.family, settings.iterations, settings.spin) == (DEFAULT_FAMILY, 0, False)

    @pytest.mark.parametrize(
        ("options", "spacing"),
        [
            ({}, INTERPOLATED_K_SPACING),
            ({"supercell": 30.0}, INTERPOLATED_K_SPACING),
            ({"interpolate": False}, DEFAULT_K_SPACING),
            ({"iterations": CONVERGED}, DEFAULT_K_SPACING),
            ({"iterations": 3, "interpolate": False}, DEFAULT_K_SPACING),
            ({"k_spacing": 0.3}, 0.3),
            ({"k_spacing": 0.3, "iterations": 3}, 0.3),
        ],
        ids=str,
    )
    def test_a_mesh_that_costs_little_is_denser(self, options: dict[str, Any], spacing: float, family: Path) -> None:
        assert SingleShotSettings.checked(**options).k_spacing == spacing
        assert SingleShotSettings.checked(**options).model_dump()["k_spacing"] == spacing
        assert method(family, **options).identity().words["k_spacing"] == spacing
        explicit = method(family, **{**options, "k_spacing": spacing})
        assert explicit.identity() == method(family, **options).identity()

    def test_without_matrices_the_same_mesh_is_computed_directly(self, family: Path) -> None:
        stock = PwX(Path("/nowhere/pw.x"), (), False, "6.7MaX")
        assert method(family, stock).settings.k_spacing == INTERPOLATED_K_SPACING
        spacings = {"k_spacing": INTERPOLATED_K_SPACING, "interpolate": False}
        assert method(family, stock).estimate(SILICON) == method(family, **spacings).estimate(SILICON)

    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ({"k_spacing": 0.0}, "k_spacing"),
            ({"k_spacing": float("inf")}, "k_spacing"),
            ({"k_rounding": "floor"}, "k_rounding"),
            ({"symprec": -1e-5}, "symprec"),
            ({"iterations": -2}, "iterations"),
            ({"iterations": 1.5}, "iterations"),
            ({"moments": {"Fe": float("nan")}, "spin": True}, "moments"),
            ({"moments": {"Xx": 1.0}, "spin": True}, "moments"),
            ({"moments": {"X": 1.0}, "spin": True}, "moments"),
            ({"supercell": 0.0}, "supercell"),
            ({"supercell": float("nan")}, "supercell"),
            ({"interpolate": "perhaps"}, "interpolate"),
            ({"ecutwfc": 30}, "ecutwfc"),
        ],
    )
    def test_what_is_wrong_is_named(self, options: dict[str, Any], named: str) -> None:
        with pytest.raises(UsageError) as caught:
            SingleShotSettings.checked(**options)
        assert caught.value.code == "bad-option"
        assert named in caught.value.message

    def test_moments_need_spin(self) -> None:
        with pytest.raises(UsageError, match="moments") as caught:
            SingleShotSettings.checked(moments={"Fe": 2.2})
        assert "--spin" in caught.value.remedy

    @pytest.mark.parametrize(
        "options",
        [
            {"interpolate": True, "iterations": CONVERGED},
            {"supercell": 30.0, "iterations": 3},
            {"supercell": 30.0, "interpolate": False},
        ],
        ids=str,
    )
    def test_what_is_not_interpolated_has_no_supercell(self, options: dict[str, Any]) -> None:
        with pytest.raises(UsageError, match="not interpolated") as caught:
            SingleShotSettings.checked(**options)
        assert caught.value.code == "bad-option"

    def test_only_a_single_shot_is_interpolated(self) -> None:
        assert SingleShotSettings.checked().interpolates
        assert not SingleShotSettings.checked(iterations=CONVERGED).interpolates
        assert not SingleShotSettings.checked(iterations=2, interpolate=False).interpolates

    @pytest.mark.parametrize(("iterations", "operator"), [(0, "single-shot"), (CONVERGED, "scf"), (3, "scf-3")])
    def test_operators(self, family: Path, iterations: int, operator: str) -> None:
        assert method(family, iterations=iterations).operator == operator


class TestIdentity:
    def test_it_is_stable(self, family: Path) -> None:
        assert method(family).identity() == method(family).identity()
        assert method(family).identity().words["code"] == "pw.x 6.7MaX"

    @pytest.mark.parametrize(
        "settings",
        [
            {"k_spacing": 0.2},
            {"k_rounding": "round"},
            {"keep_cell": True},
            {"symprec": 1e-3},
            {"spin": True},
            {"spin": True, "moments": {"Fe": 2.2}},
            {"iterations": 1},
            {"iterations": CONVERGED},
            {"interpolate": False},
            {"supercell": 30.0},
        ],
        ids=str,
    )
    def test_every_setting_is_part_of_it(self, family: Path, settings: dict[str, Any]) -> None:
        assert method(family, **settings).identity() != method(family).identity()

    def test_what_is_computed_directly_depends_on_no_supercell(self, family: Path) -> None:
        direct = method(family, interpolate=False).identity()
        assert not {"supercell", "interpolate"} & set(direct.words)
        assert method(family, iterations=1).identity() == method(family, iterations=1, interpolate=False).identity()

    def test_the_version_of_pw_x_is_and_where_it_lies_is_not(self, family: Path) -> None:
        same = replace(PW_X, path=Path("/elsewhere/pw.x"), launcher=("mpirun", "-n", "4"), is_patched=False)
        assert method(family, same).identity() == method(family).identity()
        other = replace(PW_X, version="7.2")
        assert method(family, other).identity() != method(family).identity()

    def test_the_family_is_known_by_its_contents(self, family: Path, tmp_path: Path) -> None:
        copied = write_family(tmp_path / "copied")
        assert method(copied).identity() == method(family).identity()
        manifest = json.loads((family / MANIFEST).read_text())
        manifest["pseudos"]["Si"]["ecutwfc"] = 40
        changed = write_family(tmp_path / "changed", pseudos=manifest["pseudos"])
        assert method(changed).identity() != method(family).identity()


class TestPlan:
    def test_the_cell_is_the_canonical_one_unless_it_is_kept(self, family: Path) -> None:
        conventional = crystal("Si", "diamond", a=5.43, cubic=True)
        assert method(family).plan(conventional).cell.structure.n_atoms == 2
        kept = method(family, keep_cell=True).plan(conventional)
        assert kept.cell.structure.n_atoms == 8
        assert np.array_equal(kept.cell.structure.lattice, conventional.lattice)

    def test_cutoffs_suit_every_element(self, family: Path) -> None:
        silicon, oxide = method(family).plan(SILICON), method(family).plan(MGO)
        assert (silicon.ecutwfc, silicon.ecutrho) == (36, 108)
        assert (oxide.ecutwfc, oxide.ecutrho) == (84, 400)

    def test_orbitals_of_negative_occupation_do_not_count(self, family: Path) -> None:
        assert method(family).plan(SILICON).n_functions == 8

    def test_the_spacing_sets_the_mesh(self, family: Path) -> None:
        coarse, fine = (method(family, k_spacing=spacing).plan(SILICON) for spacing in (0.8, 0.3))
        assert (fine.mesh.divisions > coarse.mesh.divisions).all()

    def test_spin_only_where_there_are_moments(self, family: Path) -> None:
        assert method(family).plan(IRON).n_spin == 1
        assert method(family, spin=True).plan(IRON).moments == {"Fe": 4.0}
        assert method(family, spin=True).plan(MGO).n_spin == 1
        assert method(family, spin=True, moments={"O": 1.0}).plan(MGO).n_spin == 2
        assert method(family, spin=True, moments={"Fe": 0.0}).plan(IRON).n_spin == 1

    def test_missing_elements_are_named_together(self, family: Path) -> None:
        with pytest.raises(PseudoError, match="N, As") as caught:
            method(family).plan(Structure("x", 5 * np.eye(3), [14, 33, 7], [[0, 0, 0], [0.5, 0, 0], [0, 0.5, 0]]))
        assert caught.value.code == "missing-pseudopotential"

    def test_elements_without_orbitals(self, family: Path) -> None:
        with pytest.raises(PseudoError, match="Al") as caught:
            method(family).plan(crystal("Al", "fcc", a=4.05))
        assert caught.value.code == "no-orbitals"

    def test_fewer_orbitals_than_electrons_need(self, family: Path) -> None:
        with pytest.raises(PseudoError, match="4 orbitals cannot hold 13 valence electrons") as caught:
            method(family).plan(crystal("Ga", "fcc", a=4.5))
        assert caught.value.code == "too-few-orbitals"

    def test_a_moment_that_pw_x_would_lower(self, family: Path) -> None:
        assert method(family, spin=True, moments={"Si": -4.0}).plan(SILICON).moments == {"Si": -4.0}
        with pytest.raises(UsageError, match="Si") as caught:
            method(family, spin=True, moments={"Si": 4.5}).plan(SILICON)
        assert caught.value.code == "moment-too-large"


class TestWork:
    def test_what_it_refuses_is_what_a_plan_refuses(self, family: Path) -> None:
        with pytest.raises(PseudoError):
            method(family).estimate(crystal("Al", "fcc", a=4.05))

    def test_more_of_anything_costs_more(self, family: Path) -> None:
        plain = method(family, keep_cell=True, interpolate=False)
        one = plain.estimate(SILICON)
        assert (one.n_functions, one.n_kpoints) == (8, len(plain.plan(SILICON).mesh))
        dearer = [
            plain.estimate(crystal("Si", "diamond", a=5.43, cubic=True)).seconds
            / len(plain.plan(crystal("Si", "diamond", a=5.43, cubic=True)).mesh)
            * one.n_kpoints,
            method(family, k_spacing=0.1, interpolate=False).estimate(SILICON).seconds,
            method(family, iterations=2).estimate(SILICON).seconds,
            method(family, iterations=CONVERGED).estimate(SILICON).seconds,
            method(family, spin=True, moments={"Si": 1.0}, interpolate=False).estimate(SILICON).seconds,
        ]
        assert min(dearer) > one.seconds > 0
        assert one.memory_bytes > 10 * 2**20

    def test_pw_x_computes_the_mesh_with_fewer_points(self, family: Path) -> None:
        direct = len(method(family).plan(SILICON).mesh)
        coarse = method(family).estimate(SILICON)
        assert coarse.n_kpoints == 16 < direct  # of 6 x 6 x 6
        assert method(family, k_spacing=0.05).estimate(SILICON) == coarse
        assert method(family, supercell=30.0).estimate(SILICON).n_kpoints > 16
        assert method(family, k_spacing=0.5).estimate(SILICON).n_kpoints == 10
        assert method(family, iterations=1, k_spacing=INTERPOLATED_K_SPACING).estimate(SILICON).n_kpoints == direct
        stock = PwX(Path("/nowhere/pw.x"), (), False, "6.7MaX")  # it writes no matrices
        assert method(family, stock).estimate(SILICON).n_kpoints == direct


def test_it_travels_to_other_processes(family: Path) -> None:
    given = method(family, spin=True, moments={"Fe": 2.2})
    again = pickle.loads(pickle.dumps(given))
    assert again == given
    assert again.identity() == given.identity()
    assert again.plan(IRON).input_text() == given.plan(IRON).input_text()


class TestStartingMoments:
    def test_hund_for_open_d_and_f_shells(self) -> None:
        assert starting_moments(["Fe"], {}) == {"Fe": 4}
        assert starting_moments(["Cr", "Mn", "Gd"], {}) == {"Cr": 6, "Mn": 5, "Gd": 8}

    @pytest.mark.parametrize("element", ["H", "O", "N", "Na", "Al", "Cu", "Zn", "Ag", "Au", "I", "Pb"])
    def test_none_for_all_others(self, element: str) -> None:
        assert starting_moments([element], {}) == {}

    def test_others_stand_beside_them_without_one(self) -> None:
        assert starting_moments(["Fe", "O"], {}) == {"Fe": 4, "O": 0}

    def test_what_is_given_wins(self) -> None:
        assert starting_moments(["Fe", "O"], {"Fe": -2.2, "Ni": 1.0}) == {"Fe": -2.2, "O": 0}
        assert starting_moments(["Fe", "O"], {"Fe": 0.0}) == {}
        assert starting_moments(["O"], {"O": 2.0}) == {"O": 2.0}

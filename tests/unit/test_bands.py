"""Band structures: what physics asks of kinetic bands, band edges from a mesh, and files that can be read back."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from sorep.bands import BandStructure, band_structure
from sorep.bloch import BlochOperator, BlockGroups, Operators, RealSpaceTerm
from sorep.cells import canonical_cell
from sorep.errors import BasisError, SpectrumError, StoreError, UsageError
from sorep.identity import Identity
from sorep.kinetic.method import KineticSettings
from sorep.structure import Structure
from sorep.units import BOHR_IN_ANGSTROM, HARTREE_IN_EV

COARSE = 0.15  # 1/Angstrom, along lines
SIMPLE_CUBIC = Structure("cubic", 4.0 * np.eye(3), [3], [[0, 0, 0]])


# Kinetic bands


@pytest.fixture(scope="module")
def silicon(crystals) -> BandStructure:
    return band_structure(KineticSettings(), crystals["silicon"], COARSE)


def free_electrons(bands: BandStructure) -> np.ndarray:
    """|k + G|^2 / 2 at every k point of the path, ascending, eV."""
    reciprocal = 2 * np.pi * np.linalg.inv(bands.path.lattice).T
    g = np.stack(np.meshgrid(*[np.arange(-4, 5)] * 3), axis=-1).reshape(-1, 3) @ reciprocal
    q = np.linalg.norm(bands.path.cartesian[:, None] + g, axis=2) * BOHR_IN_ANGSTROM
    return np.sort(q**2 / 2 * HARTREE_IN_EV, axis=1)[:, : bands.n_bands]


def test_what_a_kinetic_band_structure_says(silicon, crystals):
    assert silicon.energies.shape == (1, len(silicon.path), silicon.n_bands) == (1, len(silicon.path), 8)
    assert (silicon.n_spin, silicon.degeneracy, silicon.n_electrons, silicon.levels) == (1, 1.0, None, None)
    assert silicon.reference == 0.0
    assert silicon.flags == ()
    assert silicon.identity == KineticSettings().identity()
    assert silicon.structure.formula == "Si2"
    assert (np.diff(silicon.energies, axis=2) >= 0).all()
    assert silicon.path.route == "GAMMA-X-U|K-GAMMA-L-W-X"


def test_gamma_is_that_of_the_mesh(silicon, crystals):
    spectrum = KineticSettings().calculate(crystals["silicon"]).spectrum
    (gamma,) = np.flatnonzero((spectrum.kpoints == 0).all(axis=1))
    for index, label in silicon.path.labels.items():
        if label == "GAMMA":
            np.testing.assert_allclose(silicon.energies[0, index], spectrum.eigenvalues[0, gamma], atol=1e-7)


def test_bands_are_symmetric_about_gamma(crystals):
    """Time reversal: also where the crystal has no inversion."""
    operators = KineticSettings().bloch_operators(crystals["triclinic"])
    line = np.linspace(0, 0.5, 4)[:, None] * [1.0, 0.7, -0.4]
    (operator,) = operators.operators
    for one, other in zip(operator.eigenvalues(line), operator.eigenvalues(-line), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-8)


@pytest.mark.parametrize("name", ["silicon", "magnesium", "bismuth"])
def test_equivalent_points_have_equal_energies(crystals, name):
    operators = KineticSettings().bloch_operators(crystals[name])
    path = band_structure(KineticSettings(), crystals[name], COARSE).path
    labelled = path.kpoints[list(path.labels)]
    (operator,) = operators.operators
    expected = operator.eigenvalues(labelled)
    for rotation in operators.cell.rotations[:: len(operators.cell.rotations) // 4]:
        for one, other in zip(expected, operator.eigenvalues(labelled @ rotation), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)


def test_no_band_lies_below_that_of_free_electrons(silicon):
    """A finite basis gives upper bounds (Ritz values) to the levels |k + G|^2 / 2, band by band."""
    assert (silicon.energies[0] > free_electrons(silicon) - 1e-9).all()


def test_one_wide_gaussian_makes_the_free_electron_parabola(tmp_path):
    """A Bloch sum of Gaussians wider than the cell is a plane wave."""
    (tmp_path / "wide.nw").write_text('BASIS "ao basis" SPHERICAL\nLi S\n 0.02 1.0\nEND\n')
    settings = KineticSettings(basis=str(tmp_path / "wide.nw"))
    bands = band_structure(settings, SIMPLE_CUBIC, COARSE)
    inside = np.linalg.norm(bands.path.cartesian, axis=1) < 0.25 * np.pi / 4.0
    assert inside.sum() > 3
    np.testing.assert_allclose(bands.energies[0, inside, 0], free_electrons(bands)[inside, 0], atol=1e-4)


def test_a_supercell_has_the_bands_of_its_primitive_cell(silicon, crystals, redescribe):
    again = band_structure(KineticSettings(), redescribe(crystals["silicon"], (2, 1, 1), seed=7), COARSE)
    assert again.path.route == silicon.path.route
    np.testing.assert_allclose(again.path.distances, silicon.path.distances, atol=1e-6)
    np.testing.assert_allclose(again.energies, silicon.energies, atol=1e-5)


def test_a_kept_supercell_folds_its_bands(silicon, crystals):
    """Each level of the primitive cell is one of the supercell."""
    primitive = silicon.structure
    lattice = primitive.lattice * [[1], [1], [2]]
    positions = np.concatenate([primitive.positions * [1, 1, 0.5], primitive.positions * [1, 1, 0.5] + [0, 0, 0.5]])
    doubled = Structure("doubled", lattice, np.tile(primitive.numbers, 2), positions)
    bands = band_structure(KineticSettings(keep_cell=True), doubled, COARSE)
    assert bands.flags == ("folded-bands",)
    assert bands.n_bands == 2 * silicon.n_bands
    assert bands.path.route == silicon.path.route
    gamma = next(index for index, label in bands.path.labels.items() if label == "GAMMA")
    for level in silicon.energies[0, next(i for i, name in silicon.path.labels.items() if name == "GAMMA")]:
        assert np.abs(bands.energies[0, gamma] - level).min() < 1e-5


def test_an_atom_in_a_huge_cell_has_flat_bands():
    far, farther = (
        band_structure(KineticSettings(), Structure("He", edge * np.eye(3), [2], [[0, 0, 0]]), COARSE)
        for edge in (22.0, 26.0)
    )
    assert np.ptp(far.energies, axis=1).max() < 1e-5
    np.testing.assert_allclose(far.energies[0, 0], farther.energies[0, 0], atol=1e-5)


def test_overlaps_are_pure_numbers(crystals):
    settings = KineticSettings(operator="overlap")
    bands = band_structure(settings, crystals["silicon"], COARSE)
    spectrum = settings.calculate(crystals["silicon"]).spectrum
    np.testing.assert_allclose(bands.energies[0, 0], spectrum.eigenvalues[0, 0], atol=1e-8)


def test_bands_that_some_k_points_lack_are_left_out(tmp_path):
    """A Gaussian much wider than its cell has next to no wave of the zone's border in it, but all of Gamma's."""
    (tmp_path / "own.nw").write_text('BASIS "ao basis" SPHERICAL\nH S\n 0.025 1.0\nH S\n 1.0 1.0\nEND\n')
    settings = KineticSettings(basis=str(tmp_path / "own.nw"))
    structure = Structure("H", 3.6 * BOHR_IN_ANGSTROM * np.eye(3), [1], [[0, 0, 0]])
    bands = band_structure(settings, structure, 0.3)
    operators = settings.bloch_operators(structure)
    all_levels = operators.operators[0].eigenvalues(bands.path.kpoints)
    assert {len(levels) for levels in all_levels} == {1, 2}
    assert bands.flags == ("linear-dependence",)
    assert bands.n_bands == 1
    np.testing.assert_allclose(bands.energies[0, :, 0], [e[0] * operators.unit for e in all_levels], atol=1e-8)


def test_a_k_point_without_any_band(tmp_path):
    (tmp_path / "own.nw").write_text('BASIS "ao basis" SPHERICAL\nH S\n 0.005 1.0\nEND\n')
    with pytest.raises(SpectrumError) as caught:
        band_structure(KineticSettings(basis=str(tmp_path / "own.nw")), Structure("H", 3 * np.eye(3), [1], [[0, 0, 0]]))
    assert caught.value.code == "no-bands"


def test_errors_of_the_method_pass(crystals):
    with pytest.raises(BasisError, match="Fm"):
        band_structure(KineticSettings(), Structure("fm", 4 * np.eye(3), [100], [[0, 0, 0]]))
    with pytest.raises(UsageError):
        band_structure(KineticSettings(), crystals["silicon"], 0.0)


# Electrons


@dataclass(frozen=True)
class TightBinding:
    """s orbitals on a simple cubic lattice: bands e - 2 t (cos k1 + cos k2 + cos k3) for each (e, t), by spin."""

    bands: tuple[tuple[tuple[float, float], ...], ...]
    n_electrons: float

    def identity(self) -> Identity:
        return Identity.of({"operator": "tight-binding"})

    def bloch_operators(self, structure: Structure) -> Operators:
        return Operators(
            canonical_cell(structure),
            tuple(self._operator(bands) for bands in self.bands),
            degeneracy=2.0 / len(self.bands),
            n_electrons=self.n_electrons,
            flags=("a-model",),
        )

    @staticmethod
    def _operator(bands: tuple[tuple[float, float], ...]) -> BlochOperator:
        n = len(bands)
        level, hopping = np.array(bands).T
        groups = BlockGroups(
            rows=np.array([[0, n]]),
            columns=np.array([[0, n]]),
            starts=np.array([0, 4]),
            images=np.arange(4),
            translations=np.concatenate([np.zeros((1, 3), dtype=int), np.eye(3, dtype=int)]),
            data=np.concatenate([np.diag(level / 2).ravel(), np.tile(np.diag(-hopping).ravel(), 3)]),
            n_operators=1,
        )
        return BlochOperator(n, [RealSpaceTerm(n, groups)], orthonormal=True)


@pytest.fixture
def model() -> Callable[..., BandStructure]:
    def made(*bands: tuple[tuple[float, float], ...], n_electrons: float, **options) -> BandStructure:
        return band_structure(TightBinding(bands, n_electrons), SIMPLE_CUBIC, COARSE, **options)

    return made


def test_band_edges_come_from_the_mesh(model):
    """A valence band with its top at R, a conduction band with its bottom at Gamma."""
    bands = model(((-5.0, 0.5), (6.0, 1.0)), n_electrons=2.0, k_spacing=0.16)  # an even mesh, which holds R
    assert bands.levels is not None
    assert (bands.n_electrons, bands.degeneracy, bands.flags) == (2.0, 2.0, ("a-model",))
    assert (bands.levels.vbm, bands.levels.cbm) == pytest.approx((-2.0, 0.0))
    assert bands.levels.band_gap == pytest.approx(2.0)
    assert bands.reference == bands.levels.vbm
    of = {label: bands.energies[0, index] for index, label in bands.path.labels.items()}
    np.testing.assert_allclose(of["GAMMA"], [-8.0, 0.0], atol=1e-12)  # energies keep the operator's own scale
    np.testing.assert_allclose(of["R"], [-2.0, 12.0], atol=1e-12)
    np.testing.assert_allclose(of["X"], [-6.0, 4.0], atol=1e-12)


def test_the_mesh_can_be_chosen(model):
    """Three points along each axis miss R, five miss it by less."""
    edges = [model(((-5.0, 0.5), (6.0, 1.0)), n_electrons=2.0, k_spacing=s).levels.vbm for s in (0.6, 0.32)]
    expected = [-5 - 3 * np.cos(2 * np.pi * n / divisions) for n, divisions in ((1, 3), (2, 5))]
    assert edges == pytest.approx(expected)


def test_a_metal_is_drawn_from_its_fermi_energy(model):
    bands = model(((-1.0, 0.5), (9.0, 0.1)), n_electrons=1.0)
    assert bands.levels is not None
    assert bands.levels.is_metal
    assert bands.reference == bands.levels.fermi_energy == pytest.approx(-1.0, abs=0.05)  # half filling
    assert "odd-electrons" in bands.flags


def test_two_spins(model):
    bands = model(((-5.0, 0.2), (3.0, 0.2)), ((-4.0, 0.2), (4.0, 0.2)), n_electrons=2.0, k_spacing=0.16)
    assert bands.levels is not None
    assert (bands.n_spin, bands.degeneracy) == (2, 1.0)
    assert (bands.levels.vbm, bands.levels.cbm) == pytest.approx((-2.8, 1.8))
    np.testing.assert_allclose(bands.energies[1], bands.energies[0] + 1.0, atol=1e-12)


def test_levels_that_cannot_be_found_are_a_flag(model):
    bands = model(((-5.0, 0.2),), n_electrons=3.0)
    assert bands.levels is None
    assert bands.flags == ("a-model", "too-few-bands")
    assert bands.reference == 0.0


# Files


def check_equal(one: BandStructure, two: BandStructure) -> None:
    for name in ("identity", "degeneracy", "n_electrons", "levels", "flags", "reference"):
        assert getattr(one, name) == getattr(two, name), name
    np.testing.assert_array_equal(one.energies, two.energies)
    for name in ("lattice", "kpoints", "segments", "is_folded", "labels", "route"):
        np.testing.assert_array_equal(getattr(one.path, name), getattr(two.path, name))
    np.testing.assert_array_equal(one.path.distances, two.path.distances)
    assert (one.structure.id, one.structure.source) == (two.structure.id, two.structure.source)
    assert one.structure.content_key == two.structure.content_key


def test_files_are_read_back(silicon, model, tmp_path):
    insulator = model(((-5.0, 0.5), (6.0, 1.0)), n_electrons=2.0)
    spins = model(((-5.0, 0.2), (3.0, 0.2)), ((-4.0, 0.2), (4.0, 0.2)), n_electrons=2.0)
    folded = replace(silicon, path=replace(silicon.path, is_folded=True), flags=("folded-bands",))
    for number, bands in enumerate((silicon, insulator, spins, folded)):
        bands.write(tmp_path / f"{number}.bands")
        check_equal(BandStructure.read(tmp_path / f"{number}.bands"), bands)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{n}.bands" for n in range(4)]


def test_a_table_for_other_programs(silicon, model, tmp_path):
    silicon.write_csv(tmp_path / "si.csv")
    rows = list(csv.DictReader((tmp_path / "si.csv").open()))
    assert list(rows[0]) == ["label", "distance", "k1", "k2", "k3", *map(str, range(1, 9))]
    assert {i: row["label"] for i, row in enumerate(rows) if row["label"]} == silicon.path.labels
    numbers = np.array([[float(value) for value in list(row.values())[1:]] for row in rows])
    np.testing.assert_array_equal(numbers[:, 0], silicon.path.distances)
    np.testing.assert_array_equal(numbers[:, 1:4], silicon.path.kpoints)
    np.testing.assert_array_equal(numbers[:, 4:], silicon.energies[0])
    spins = model(((-5.0, 0.2), (3.0, 0.2)), ((-4.0, 0.2), (4.0, 0.2)), n_electrons=2.0)
    spins.write_csv(tmp_path / "two.csv")
    header, first = list(csv.reader((tmp_path / "two.csv").open()))[:2]
    assert header[5:] == ["up_1", "up_2", "down_1", "down_2"]
    np.testing.assert_array_equal(np.array(first[5:], dtype=float), spins.energies[:, 0].ravel())


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04 cut off"])
def test_a_file_that_holds_no_bands(tmp_path, content):
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(StoreError) as caught:
        BandStructure.read(path)
    assert (caught.value.code, str(path) in caught.value.message) == ("unreadable-file", True)


def test_other_files_are_refused(silicon, tmp_path):
    np.savez(tmp_path / "other.npz", energies=np.zeros(3))
    silicon.write(tmp_path / "cut.npz")
    whole = (tmp_path / "cut.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    for name in ("other.npz", "cut.npz", "missing.npz"):
        with pytest.raises(StoreError) as caught:
            BandStructure.read(tmp_path / name)
        assert caught.value.code == "unreadable-file"


@pytest.mark.parametrize("write", [BandStructure.write, BandStructure.write_csv])
def test_a_file_that_cannot_be_written(silicon, tmp_path, write):
    with pytest.raises(StoreError) as caught:
        write(silicon, tmp_path / "no folder" / "si.npz")
    assert caught.value.code == "unwritable-file"
    assert not Path(tmp_path / "no folder").exists()

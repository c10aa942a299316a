"""High-symmetry lines: labels from the literature, at the right places, in the cell that is computed."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import seekpath
from ase.build import bulk

from sorep.band_path import BandPath, band_path
from sorep.cells import Cell, canonical_cell
from sorep.errors import StructureError, UsageError
from sorep.structure import Structure

NAMES = ["silicon", "nacl", "magnesium", "batio3", "distorted-batio3", "triclinic", "anatase", "bismuth"]
MONOCLINIC = Structure(
    "monoclinic", [[4, 0, 0], [0, 5, 0], [-1.5, 0, 6]], [12, 8, 8], [[0, 0, 0], [0.2, 0.3, 0.1], [-0.2, 0.3, -0.1]]
)


def path_of(atoms) -> BandPath:
    return band_path(canonical_cell(Structure.from_ase(atoms)), 0.1)


def points(path: BandPath) -> dict[str, np.ndarray]:
    """Cartesian coordinates of the labelled points."""
    return {label: path.cartesian[index] for index, label in path.labels.items()}


# What the literature says


@pytest.mark.parametrize(
    ("atoms", "route", "lengths"),
    [
        (
            bulk("Cu", "fcc", a=3.6),
            "GAMMA-X-U|K-GAMMA-L-W-X",
            {"X": 1, "L": 3**0.5 / 2, "W": 5**0.5 / 2, "K": 18**0.5 / 4, "U": 18**0.5 / 4, "GAMMA": 0},
        ),
        (bulk("Fe", "bcc", a=2.9), "GAMMA-H-N-GAMMA-P-H|P-N", {"H": 1, "N": 0.5**0.5, "P": 3**0.5 / 2}),
        (bulk("Po", "sc", a=3.3), "GAMMA-X-M-GAMMA-R-X|R-M", {"X": 0.5, "M": 0.5**0.5, "R": 3**0.5 / 2}),
        (
            bulk("Mg", "hcp", a=3.2, c=5.2),
            "GAMMA-M-K-GAMMA-A-L-H-A|L-M|H-K",
            {"M": 3**-0.5, "K": 2 / 3, "A": 3.2 / 5.2 / 2, "H": np.hypot(2 / 3, 1.6 / 5.2)},
        ),
    ],
    ids=["fcc", "bcc", "sc", "hcp"],
)
def test_known_lattices(atoms, route, lengths):
    """Lengths of the labelled vectors in units of 2 pi / a."""
    path = path_of(atoms)
    assert path.route == route
    a = atoms.cell.cellpar()[0] * {"Cu": 2**0.5, "Fe": 2 / 3**0.5}.get(atoms.symbols[0], 1.0)
    found = points(path)
    for label, length in lengths.items():
        assert np.linalg.norm(found[label]) == pytest.approx(2 * np.pi / a * length, abs=1e-9)


def test_the_cubic_axes_are_those_of_the_cell():
    found = points(path_of(bulk("Cu", "fcc", a=3.6)))
    np.testing.assert_allclose(sorted(np.abs(found["X"])), [0, 0, 2 * np.pi / 3.6], atol=1e-9)
    np.testing.assert_allclose(np.abs(found["L"]), np.full(3, np.pi / 3.6), atol=1e-9)
    assert np.linalg.norm(found["U"] - found["X"]) == pytest.approx(2 * np.pi / 3.6 * 8**0.5 / 8)


def test_a_monoclinic_crystal():
    path = band_path(canonical_cell(MONOCLINIC), 0.1)
    assert path.route == "GAMMA-Z-D-B-GAMMA-A-E-Z-C_2-Y_2-GAMMA"
    # Z is half of the reciprocal vector along the unique axis b.
    assert np.linalg.norm(points(path)["Z"]) == pytest.approx(np.pi / 5)


def test_a_triclinic_crystal(crystals):
    path = band_path(canonical_cell(crystals["triclinic"]), 0.1)
    assert path.route in ("GAMMA-X|Y-GAMMA-Z|R_2-GAMMA-T_2|U_2-GAMMA-V_2", "GAMMA-X|Y-GAMMA-Z|R-GAMMA-T|U-GAMMA-V")
    corners = np.array([path.kpoints[index] for index in path.labels])
    np.testing.assert_allclose(2 * corners, np.rint(2 * corners), atol=1e-12)  # all are halves of reciprocal vectors
    assert len({tuple(np.abs(np.rint(2 * k)) % 2) for k in corners}) == 8  # of all eight classes


@pytest.mark.parametrize(
    ("name", "orders"),
    [
        ("silicon", {"GAMMA": 48, "X": 16, "L": 12, "W": 8, "K": 4, "U": 4}),
        ("batio3", {"GAMMA": 48, "X": 16, "M": 16, "R": 48}),
        ("magnesium", {"GAMMA": 24, "A": 24, "M": 8, "L": 8, "K": 12, "H": 12}),
    ],
)
def test_points_have_the_symmetry_of_their_label(crystals, redescribe, name, orders):
    """How many rotations of the cell map a point onto itself, up to a reciprocal vector: its little co-group."""
    cell = canonical_cell(redescribe(crystals[name], seed=4))
    path = band_path(cell, 0.3)
    for index, label in path.labels.items():
        moved = path.kpoints[index] @ cell.rotations - path.kpoints[index]
        assert (np.abs(moved - np.rint(moved)) < 1e-9).all(axis=1).sum() == orders[label], label


# Against the library's own conversion


@pytest.mark.parametrize("name", NAMES)
def test_coordinates_are_those_that_seekpath_gives_for_the_cell(crystals, redescribe, name):
    cell = canonical_cell(redescribe(crystals[name], seed=2))
    structure = cell.structure
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = seekpath.get_path_orig_cell((structure.lattice, structure.positions, structure.numbers))
    path = band_path(cell, 0.2)
    assert [segment.labels for segment in path.segments] == expected["path"]
    lattice = 2 * np.pi * np.linalg.inv(structure.lattice).T
    for index, label in path.labels.items():
        # Either may have taken an equivalent setting: compare what does not depend on it.
        given = np.array(expected["point_coords"][label]) @ lattice
        assert np.linalg.norm(path.cartesian[index]) == pytest.approx(np.linalg.norm(given), abs=1e-6)


# However the crystal is written down


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["turned", "supercell"])
def test_the_lines_do_not_depend_on_the_description(crystals, redescribe, name, kind):
    given = crystals[name]
    other = redescribe(given, (1, 2, 1), seed=3) if kind == "supercell" else redescribe(given, seed=3)
    one, two = (band_path(canonical_cell(structure), 0.1) for structure in (given, other))
    assert one.route == two.route
    assert len(one) == len(two)
    np.testing.assert_allclose(one.distances, two.distances, atol=1e-6)
    assert not two.is_folded


def test_a_kept_supercell_has_the_lines_of_its_primitive_cell(crystals, redescribe):
    given = redescribe(crystals["silicon"], (1, 1, 2), seed=1)
    folded = band_path(canonical_cell(given, keep_cell=True), 0.1)
    plain = band_path(canonical_cell(given), 0.1)
    assert (folded.is_folded, plain.is_folded) == (True, False)
    assert folded.lattice is given.lattice
    assert folded.route == plain.route
    np.testing.assert_allclose(folded.distances, plain.distances, atol=1e-6)


def test_a_distorted_crystal_has_the_lines_of_the_symmetry_that_was_found(crystals):
    """seekpath, whose own tolerance is tight, is given the crystal without its noise."""
    perovskite, rng = crystals["batio3"], np.random.default_rng(5)
    noisy = Structure(
        "noisy",
        perovskite.lattice + 2e-3 * rng.normal(size=(3, 3)),
        perovskite.numbers,
        perovskite.positions + 5e-4 * rng.normal(size=(5, 3)),
    )
    assert band_path(canonical_cell(noisy)).route.startswith("GAMMA-X|Y")  # triclinic
    cell = canonical_cell(noisy, symprec=0.05)
    path = band_path(cell)
    assert (cell.space_group, path.route) == (221, "GAMMA-X-M-GAMMA-R-X|R-M")
    assert path.lattice is cell.structure.lattice  # with its noise
    for index in path.labels:
        np.testing.assert_array_equal(2 * path.kpoints[index], np.rint(2 * path.kpoints[index]))


# The points of a line


@pytest.mark.parametrize("name", NAMES)
def test_points_are_evenly_spaced_and_breaks_have_no_length(crystals, name):
    path = band_path(canonical_cell(crystals[name]), 0.07)
    assert len(path) == len(path.kpoints) == len(path.distances)
    assert path.segments[0].start == 0
    assert path.segments[-1].stop == len(path)
    total = 0.0
    for number, segment in enumerate(path.segments):
        line, distances = path.cartesian[segment.slice], path.distances[segment.slice]
        steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
        assert steps.max() <= 0.07 * (1 + 1e-6)
        np.testing.assert_allclose(steps, steps[0], atol=1e-12)
        np.testing.assert_allclose(np.diff(distances), steps, atol=1e-12)
        assert distances[0] == pytest.approx(total, abs=1e-9)  # where the one before ended, break or not
        total = distances[-1]
        assert (path.labels[segment.start], path.labels[segment.stop - 1]) == segment.labels
        if number:
            before = path.segments[number - 1]
            meets = before.labels[1] == segment.labels[0]
            assert segment.start == before.stop - meets
            assert (segment.start in path.breaks) == (not meets)
    assert list(path.labels) == sorted(path.labels)


def test_half_the_spacing_doubles_the_points(crystals):
    cell = canonical_cell(crystals["anatase"])
    coarse, fine = band_path(cell, 0.1), band_path(cell, 0.05)
    assert 1.8 < len(fine) / len(coarse) < 2.2
    assert coarse.distances[-1] == pytest.approx(fine.distances[-1])


# What is refused


@pytest.mark.parametrize("spacing", [0.0, -0.1, np.nan, np.inf])
def test_a_spacing_that_makes_no_sense(crystals, spacing):
    with pytest.raises(UsageError) as caught:
        band_path(canonical_cell(crystals["silicon"]), spacing)
    assert caught.value.code == "bad-line-spacing"


def test_a_crystal_without_a_path(crystals):
    """Two atoms at one place, which the symmetry search does not let pass."""
    cell = canonical_cell(crystals["silicon"])
    structure = cell.structure
    double = Structure("double", structure.lattice, structure.numbers, structure.positions[[0, 0]])
    broken = Cell(double, cell.rotations[:1], cell.translations[:1], 1, np.eye(3), np.eye(3))
    with pytest.raises(StructureError) as caught:
        band_path(broken)
    assert (caught.value.code, caught.value.stage) == ("no-band-path", "cell")

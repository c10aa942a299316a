"""Tables of two-centre integrals: as good as libcint, everywhere, and safe on disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sorep._fortran.blocks import pair_blocks, pair_blocks_numpy, spline_weights
from sorep.kinetic import pair_tables
from sorep.kinetic.angular import gaunt, solid_harmonics
from sorep.kinetic.basis import Shell, load_basis
from sorep.kinetic.integrals import two_centre_integrals
from sorep.kinetic.orbitals import ElementShells, element_shells
from sorep.kinetic.pair_tables import (
    FINEST_PRECISION,
    SHORTEST_DISTANCE,
    PairTable,
    coordinate,
    distance_of,
    pair_table,
)

INTEGRALS = ("int1e_kin_sph", "int1e_ovlp_sph", "int1e_p4_sph")
PRECISION = 1e-10


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A cache folder of each test's own."""
    monkeypatch.setenv("SOREP_CACHE", str(tmp_path / "cache"))
    pair_table.cache_clear()
    yield tmp_path / "cache" / "pair-tables"
    pair_table.cache_clear()


def hydrogenic(highest: int, exponents: tuple[float, ...] = (0.4, 1.5, 6.0)) -> ElementShells:
    """One shell with two contractions for every l up to ``highest``."""
    rng = np.random.default_rng(highest)
    shells, functions, end = [], [], 0
    for momentum in range(highest + 1):
        shell = Shell(momentum, np.array(exponents), rng.uniform(0.1, 0.5, (len(exponents), 2)))
        shells.append(shell)
        functions.append(np.arange(end, end + shell.n_functions))
        end += shell.n_functions
    return ElementShells(tuple(shells), tuple(functions), end)


def blocks_at(table: PairTable, vectors: NDArray[np.float64], route=pair_blocks) -> NDArray[np.float64]:
    distances = np.linalg.norm(vectors, axis=1)
    lengths = np.where(distances > 0, distances, 1.0)
    directions = vectors / lengths[:, None]
    harmonics = np.concatenate([solid_harmonics(degree, directions) for degree in range(9)])
    blocks = np.zeros((len(vectors), table.n_operators, table.one.n_functions, table.other.n_functions))
    route(table, coordinate(lengths), distances, harmonics, blocks)
    return blocks


def vectors_within(reach: float, n: int, shortest: float = 0.7) -> NDArray[np.float64]:
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(n, 3))
    lengths = np.concatenate([rng.uniform(shortest, 2.0, n // 3), rng.uniform(shortest, reach + 1, n - n // 3)])
    return vectors * (lengths / np.linalg.norm(vectors, axis=1))[:, None]


@pytest.mark.parametrize(
    ("basis", "pair", "split"),
    [
        ("ano-ml-os", (1, 1), 0.0),
        ("ano-ml-os", (8, 22), 0.05),
        ("ano-ml-os", (14, 14), 0.02),
        ("ano-ml-os", (58, 8), 0.1),
        ("ano-ml-ae", (6, 7), 0.03),
        ("ano-ml-ae", (22, 56), 0.1),
        ("cc-pvtz", (6, 17), 0.0),
    ],
)
def test_they_agree_with_libcint_at_all_distances(basis: str, pair: tuple[int, int], split: float) -> None:
    one, other = (element_shells(load_basis(basis), z).compact(split) for z in pair)
    table = pair_table(one, other, INTEGRALS[:2], PRECISION)
    vectors = vectors_within(table.reach, 240)
    expected = np.stack(two_centre_integrals(INTEGRALS[:2], one, other, vectors), axis=1)
    found = blocks_at(table, vectors)
    # Up to the neglected tail, and to rounding in libcint where primitives with exponents of 1e6 take part.
    np.testing.assert_allclose(found[:, 0], expected[:, 0], atol=1.5 * PRECISION)
    np.testing.assert_allclose(found[:, 1], expected[:, 1], atol=1.5 * PRECISION)


def test_angular_momenta_up_to_the_highest() -> None:
    one, other = hydrogenic(4), hydrogenic(3)
    table = pair_table(one, other, INTEGRALS, FINEST_PRECISION)
    vectors = vectors_within(10.0, 60)
    expected = np.stack(two_centre_integrals(INTEGRALS, one, other, vectors), axis=1)
    scale = np.abs(expected).max(axis=(0, 2, 3))[:, None, None]
    np.testing.assert_allclose(blocks_at(table, vectors) / scale, expected / scale, atol=1e-11)


def test_one_atom_with_itself() -> None:
    element = hydrogenic(4)
    table = pair_table(element, element, INTEGRALS[:2], PRECISION)
    expected = np.stack(two_centre_integrals(INTEGRALS[:2], element, element, np.zeros((1, 3))), axis=1)
    for route in (pair_blocks, pair_blocks_numpy):
        np.testing.assert_allclose(blocks_at(table, np.zeros((1, 3)), route), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("pair", [(1, 1), (11, 17), (22, 8)])
def test_what_lies_beyond_the_reach_is_within_the_precision(pair: tuple[int, int]) -> None:
    """Sums of integrals with a simple cubic lattice of atoms, of 0.011 per cubic Bohr, beyond the reach."""
    one, other = (element_shells(load_basis("ano-ml-os"), z).compact(0.05) for z in pair)
    table = pair_table(one, other, INTEGRALS[:2], PRECISION)
    edge = 4.5
    grid = np.arange(-18, 19)
    atoms = edge * np.stack(np.meshgrid(grid, grid, grid, indexing="ij"), -1).reshape(-1, 3)
    distances = np.linalg.norm(atoms, axis=1)
    beyond = atoms[(distances > table.reach) & (distances < min(1.5 * table.reach, 18 * edge))]
    integrals = np.abs(np.stack(two_centre_integrals(INTEGRALS[:2], one, other, beyond)))
    assert PRECISION / 1e4 < integrals.sum(axis=1).max() < 5 * PRECISION  # up to 2l+1 functions and their harmonics
    np.testing.assert_array_equal(blocks_at(table, beyond[:100]), 0)


def test_both_routes_of_the_kernel_agree() -> None:
    one, other = hydrogenic(4), element_shells(load_basis("ano-ml-ae"), 26).compact(0.1)
    table = pair_table(one, other, INTEGRALS, PRECISION)
    vectors = np.concatenate([vectors_within(table.reach, 100, SHORTEST_DISTANCE), np.zeros((1, 3))])
    fast, plain = (blocks_at(table, vectors, route) for route in (pair_blocks, pair_blocks_numpy))
    np.testing.assert_allclose(fast, plain, rtol=1e-12, atol=1e-13 * np.abs(plain).max())


def test_a_distance_below_the_shortest_is_refused() -> None:
    element = hydrogenic(1)
    table = pair_table(element, element, INTEGRALS[:1], PRECISION)
    with pytest.raises(ValueError, match="shortest"):
        blocks_at(table, np.array([[0.0, 0.0, 1e-3]]))


def test_coordinate_and_its_inverse() -> None:
    distances = np.geomspace(1e-3, 300.0, 50)
    np.testing.assert_allclose(distance_of(coordinate(distances)), distances, rtol=1e-13)
    assert (np.diff(coordinate(distances)) > 0).all()


def test_splines_add_up_to_one_and_reproduce_polynomials() -> None:
    offsets = np.linspace(0, 1, 11)[:-1]
    weights = spline_weights(offsets)
    np.testing.assert_allclose(weights.sum(axis=0), 1.0, rtol=1e-14)
    assert (weights >= 0).all()
    nodes = np.arange(-3, 5)  # the mean of the places where they are largest is the place itself
    np.testing.assert_allclose(nodes @ weights, offsets, atol=1e-13)


class TestGaunt:
    @pytest.mark.parametrize("pair", [(0, 0), (0, 2), (1, 1), (1, 3), (2, 4), (4, 4)])
    def test_products_of_harmonics_are_sums_of_harmonics(self, pair: tuple[int, int]) -> None:
        rng = np.random.default_rng(0)
        directions = rng.normal(size=(30, 3))
        directions /= np.linalg.norm(directions, axis=1)[:, None]
        one, other = (solid_harmonics(degree, directions) for degree in pair)
        every = np.concatenate([solid_harmonics(degree, directions) for degree in range(sum(pair) + 1)])
        found = np.einsum("Labc,cp->abp", gaunt(*pair), every)
        np.testing.assert_allclose(found, one[:, None] * other, atol=1e-13)

    def test_the_simplest(self) -> None:
        np.testing.assert_allclose(gaunt(0, 0), 1 / np.sqrt(4 * np.pi))
        assert gaunt(1, 2).shape == (2, 3, 5, 16)


class TestCache:
    element = hydrogenic(2)

    def table(self) -> PairTable:
        pair_table.cache_clear()
        return pair_table(self.element, self.element, INTEGRALS[:2], PRECISION)

    def test_the_second_process_maps_what_the_first_computed(self, cache: Path) -> None:
        first = self.table()
        (file,) = cache.iterdir()
        changed = file.stat().st_mtime_ns
        second = self.table()
        assert file.stat().st_mtime_ns == changed
        assert isinstance(second.coefficients, np.memmap)
        np.testing.assert_array_equal(first.coefficients, second.coefficients)

    def test_everything_that_matters_is_part_of_the_name(self, cache: Path) -> None:
        self.table()
        pair_table(self.element, self.element, INTEGRALS[1:], PRECISION)
        pair_table(self.element, self.element, INTEGRALS[:2], 1e-9)
        pair_table(self.element, hydrogenic(1), INTEGRALS[:2], PRECISION)
        pair_table(self.element.compact(1.0), self.element, INTEGRALS[:2], PRECISION)
        pair_table(hydrogenic(2, (0.4, 1.5, 6.0 + 1e-9)), self.element, INTEGRALS[:2], PRECISION)
        assert len(list(cache.iterdir())) == 6

    @pytest.mark.parametrize("content", [b"", b"not a table", None])
    def test_a_damaged_file_is_made_again(self, cache: Path, content: bytes | None) -> None:
        expected = self.table().coefficients.copy()
        (file,) = cache.iterdir()
        file.write_bytes(file.read_bytes()[:-100] if content is None else content)
        np.testing.assert_array_equal(self.table().coefficients, expected)
        np.testing.assert_array_equal(np.load(file), expected)

    def test_a_folder_that_cannot_be_made_costs_only_time(self, cache: Path) -> None:
        cache.parent.mkdir(parents=True)
        cache.write_text("a file where the folder should be")
        assert self.table().reach > 1

    def test_nothing_is_left_behind_by_a_write_that_failed(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_):
            raise OSError("disk full")

        monkeypatch.setattr(pair_tables.np, "save", fail)
        assert self.table().reach > 1
        assert not list(cache.iterdir())

    def test_several_processes_at_once(self, cache: Path) -> None:
        code = (
            "from sorep.kinetic.basis import load_basis; from sorep.kinetic.orbitals import element_shells\n"
            "from sorep.kinetic.pair_tables import pair_table\n"
            "shells = [element_shells(load_basis('ano-ml-os'), z) for z in (3, 8, 22)]\n"
            f"tables = [pair_table(a, b, {INTEGRALS[:2]!r}, 1e-9) for a in shells for b in shells]\n"
            "print(sum(table.coefficients.sum() for table in tables).hex())"
        )
        environment = {**os.environ, "SOREP_CACHE": str(cache.parent)}
        processes = [
            subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, text=True)
            for _ in range(4)
        ]
        totals = {process.communicate()[0] for process in processes}
        assert len(totals) == 1 and all(process.returncode == 0 for process in processes)
        assert len(list(cache.iterdir())) == 9

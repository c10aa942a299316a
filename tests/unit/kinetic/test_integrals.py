"""Orbitals, and the integrals between them in real and in reciprocal space."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pyscf import gto
from pyscf.gto import moleintor
from scipy.special import eval_legendre

from sorep._fortran.sums import bloch_sums, bloch_sums_numpy
from sorep.cells import canonical_cell
from sorep.errors import BasisError
from sorep.kinetic.angular import solid_harmonics
from sorep.kinetic.basis import BasisSet, load_basis
from sorep.kinetic.integrals import pair_cutoff
from sorep.kinetic.lattice_sum import AtomPairs, Route, atom_pairs, real_space_term
from sorep.kinetic.operators import KINETIC, OVERLAP
from sorep.kinetic.orbitals import ElementShells, Orbitals, element_shells
from sorep.kinetic.pair_tables import SHORTEST_DISTANCE
from sorep.kinetic.reciprocal import ReciprocalTerm, reciprocal_radius
from sorep.neighbors import neighbor_pairs
from sorep.structure import Structure
from sorep.units import BOHR_IN_ANGSTROM

KPOINTS = np.array([[0, 0, 0], [0.5, 0, 0.5], [0.13, -0.29, 0.41]])
INTEGRALS = [KINETIC.integral, OVERLAP.integral]
MULTIPLIERS = [KINETIC.on_plane_wave, OVERLAP.on_plane_wave]


def basis_of(folder: Path, text: str) -> BasisSet:
    path = folder / "own.nw"
    path.write_text(f'BASIS "ao basis" SPHERICAL\n{text}\nEND\n')
    return load_basis(path)


def hydrogen_lattice(edge: float) -> Structure:
    """Simple cubic, edge in Bohr."""
    return Structure("H", edge * BOHR_IN_ANGSTROM * np.eye(3), [1], [[0, 0, 0]])


class TestOrbitals:
    @pytest.mark.parametrize("name", ["ano-ml-os", "ano-ml-ae"])
    def test_functions_are_numbered_without_gaps(self, name: str, crystals) -> None:
        basis, structure = load_basis(name), crystals["distorted-batio3"]
        orbitals = Orbitals.of(structure, basis)
        index = [
            offset + orbitals.elements[e].function_indices
            for offset, e in zip(orbitals.offsets, orbitals.element_of, strict=True)
        ]
        np.testing.assert_array_equal(np.concatenate(index), np.arange(orbitals.n_functions))
        assert orbitals.n_functions == basis.n_functions(structure.numbers)

    def test_atomic_units(self, crystals) -> None:
        structure = crystals["triclinic"]
        orbitals = Orbitals.of(structure, load_basis("ano-ml-os"))
        np.testing.assert_allclose(orbitals.lattice * 0.5291772, structure.lattice, rtol=1e-7)
        assert orbitals.volume == pytest.approx(structure.volume / 0.5291772**3, rel=1e-7)

    def test_lowest_exponent(self, crystals) -> None:
        orbitals = Orbitals.of(crystals["nacl"], load_basis("ano-ml-os"))
        shells = [s for z in (11, 17) for s in load_basis("ano-ml-os").shells_of(z)]
        assert orbitals.lowest_exponent == min(s.exponents.min() for s in shells)

    def test_missing_element(self) -> None:
        uranium = Structure("U", 3 * np.eye(3), [92], [[0, 0, 0]])
        with pytest.raises(BasisError, match="92") as caught:
            Orbitals.of(uranium, load_basis("ano-ml-os"))
        assert caught.value.code == "missing-element"

    @pytest.mark.parametrize("split", [0.0, 0.05, 0.3, 1e9])
    def test_compact_and_diffuse_parts_make_up_the_whole(self, split: float) -> None:
        whole = element_shells(load_basis("ano-ml-ae"), 22)
        compact, diffuse = whole.compact(split), whole.diffuse(split)
        assert compact.n_functions == diffuse.n_functions == whole.n_functions
        assert sum(len(s.exponents) for s in whole.shells) == sum(
            len(s.exponents) for part in (compact, diffuse) for s in part.shells
        )
        q2 = np.array([0.0, 0.3, 2.0, 40.0])
        parts = sum((transform(part, q2) for part in (compact, diffuse)), start=np.zeros((whole.n_functions, len(q2))))
        np.testing.assert_allclose(parts, transform(whole, q2), rtol=1e-12, atol=1e-14)
        for part, kept in ((compact, lambda a: a >= split), (diffuse, lambda a: a < split)):
            assert all(kept(s.exponents).all() and len(s.exponents) for s in part.shells)


def transform(element: ElementShells, q2: NDArray[np.float64]) -> NDArray[np.float64]:
    """Radial Fourier transforms without angular factors, (n_functions, n_q)."""
    rows = np.zeros((element.n_functions, len(q2)))
    for shell, index in zip(element.shells, element.functions, strict=True):
        gaussians = shell.exponents[:, None] ** (-1.5 - shell.angular_momentum) * np.exp(
            -q2 / (4 * shell.exponents[:, None])
        )
        rows[index] = np.repeat(shell.coefficients.T @ gaussians, 2 * shell.angular_momentum + 1, axis=0)
    return rows


class TestRealSpace:
    def test_each_pair_once(self, crystals) -> None:
        for name in ("triclinic", "nacl", "anatase"):
            orbitals = Orbitals.of(crystals[name], load_basis("ano-ml-os", discard_below=0.1))
            n = len(orbitals.elements)
            cutoffs = np.array([[pair_cutoff(e, f, 1e-6) for f in orbitals.elements] for e in orbitals.elements])
            found = atom_pairs(orbitals, cutoffs)
            images = found.translations[found.images].T.tolist()
            half = set(zip(found.first.tolist(), found.second.tolist(), *images, strict=True))
            other_half = {(j, i, -x, -y, -z) for i, j, x, y, z in half}
            assert len(half) == len(found.first)
            own = {(atom, atom, 0, 0, 0) for atom in range(len(orbitals.positions))}
            assert half & other_half == own
            every = neighbor_pairs(orbitals.lattice, orbitals.positions, cutoffs.max())
            limit = cutoffs[orbitals.element_of[every.first], orbitals.element_of[every.second]]
            near = every.distances <= limit
            wanted = zip(
                every.first[near].tolist(), every.second[near].tolist(), *every.image[near].T.tolist(), strict=True
            )
            assert half | other_half == set(wanted) | own
            np.testing.assert_array_equal(found.weights, [0.5 if pair in own else 1.0 for pair in pairs_of(found)])
            between = orbitals.positions[found.second] + found.translations[found.images]
            vectors = (between - orbitals.positions[found.first]) @ orbitals.lattice
            np.testing.assert_allclose(found.vectors, vectors, atol=1e-10)
            np.testing.assert_allclose(found.distances, np.linalg.norm(vectors, axis=1), atol=1e-10)
            order = orbitals.element_of[found.first] * n + orbitals.element_of[found.second]
            assert (np.diff(order) >= 0).all()
            for (one, other), part in found.by_elements(orbitals.element_of):
                assert (orbitals.element_of[found.first[part]] == one).all()
                assert (orbitals.element_of[found.second[part]] == other).all()

    @pytest.mark.parametrize("precision", [1e-8, 1e-12])
    @pytest.mark.parametrize("pair", [(1, 1), (19, 19), (56, 8), (22, 8), (55, 55), (58, 8), (83, 34)])
    def test_beyond_the_cutoff_every_integral_is_negligible(self, pair: tuple[int, int], precision: float) -> None:
        one, other = (element_shells(load_basis("ano-ml-ae"), z) for z in pair)
        cutoff = pair_cutoff(one, other, precision)
        assert cutoff == pair_cutoff(other, one, precision)
        direction = np.array([0.36, 0.48, 0.8])
        for distance in (cutoff, 1.05 * cutoff, 1.5 * cutoff):
            for integral in INTEGRALS:
                assert np.abs(two_center(one, other, distance * direction, integral)).max() < precision

    def test_tighter_precision_reaches_farther(self) -> None:
        shells = element_shells(load_basis("ano-ml-os"), 19)
        reach = [pair_cutoff(shells, shells, 10.0**-digits) for digits in range(6, 16)]
        assert (np.diff(reach) > 0).all()
        assert pair_cutoff(shells.compact(0.1), shells.compact(0.1), 1e-12) < 0.6 * reach[6]

    @pytest.mark.parametrize("route", ["tables", "libcint"])
    def test_the_integrals_are_libcints(self, crystals, route: Route) -> None:
        """A(k) at three k points, from every pair's integrals one by one."""
        structure = crystals["triclinic"]
        orbitals = Orbitals.of(structure, load_basis("ano-ml-os", discard_below=0.15))
        reach = max(pair_cutoff(e, f, 1e-10) for e in orbitals.elements for f in orbitals.elements)
        pairs = neighbor_pairs(orbitals.lattice, orbitals.positions, reach)
        expected = np.zeros((2, len(KPOINTS), orbitals.n_functions, orbitals.n_functions), dtype=complex)
        own = [(a, a, np.zeros(3, int)) for a in range(structure.n_atoms)]
        for i, j, image in [*own, *zip(pairs.first, pairs.second, pairs.image, strict=True)]:
            one, other = (orbitals.elements[orbitals.element_of[a]] for a in (i, j))
            between = (orbitals.positions[j] + image - orbitals.positions[i]) @ orbitals.lattice
            rows = slice(orbitals.offsets[i], orbitals.offsets[i] + one.n_functions)
            cols = slice(orbitals.offsets[j], orbitals.offsets[j] + other.n_functions)
            phases = np.exp(2j * np.pi * KPOINTS @ image)
            for out, integral in zip(expected, INTEGRALS, strict=True):
                out[:, rows, cols] += phases[:, None, None] * two_center(one, other, between, integral)
        found = real_space_term(orbitals, INTEGRALS, 0.0, 1e-10, route=route).matrices(KPOINTS)
        np.testing.assert_allclose(found, expected, atol=2e-9)

    def test_atoms_nearer_than_the_tables_reach(self) -> None:
        edge = 6.0
        positions = [[0, 0, 0], [0, 0, 0.3 / edge], [0, 0, 0.9 / edge]]
        structure = Structure("H3", edge * BOHR_IN_ANGSTROM * np.eye(3), [1, 1, 1], positions)
        orbitals = Orbitals.of(structure, load_basis("ano-ml-os"))
        found, expected = (
            real_space_term(orbitals, INTEGRALS, 0.0, 1e-10, route=route).matrices(KPOINTS)
            for route in ("tables", "libcint")
        )
        np.testing.assert_allclose(found, expected, atol=1e-9)

    def test_the_matrix_elements_change_smoothly_where_tables_begin(self) -> None:
        distances = SHORTEST_DISTANCE + np.array([-1e-7, 1e-7])
        edge = 30.0
        shells = [
            Structure("H2", edge * BOHR_IN_ANGSTROM * np.eye(3), [1, 1], [[0, 0, 0], [0, 0, d / edge]])
            for d in distances
        ]
        below, above = (
            real_space_term(Orbitals.of(s, load_basis("ano-ml-os")), INTEGRALS, 0.0, 1e-10).matrices(KPOINTS[:1])
            for s in shells
        )
        np.testing.assert_allclose(below, above, atol=1e-6)


def pairs_of(pairs: AtomPairs) -> list[tuple[int, ...]]:
    images = pairs.translations[pairs.images].T.tolist()
    return list(zip(pairs.first.tolist(), pairs.second.tolist(), *images, strict=True))


class TestInversion:
    @pytest.mark.parametrize("name", ["silicon", "nacl", "batio3", "anatase", "bismuth", "nanotube"])
    @pytest.mark.parametrize("split", [0.0, 0.1])
    def test_matrices_become_real_and_keep_their_eigenvalues(self, crystals, name: str, split: float) -> None:
        if name == "nanotube" and split:
            pytest.skip("a wire in vacuum has too many plane waves")
        cell = canonical_cell(crystals[name])
        orbitals = Orbitals.of(cell.structure, load_basis("ano-ml-os", discard_below=0.0 if split else 0.15))
        inversion = orbitals.inversion(cell)
        assert inversion is not None
        plain = KINETIC.bloch_operator(orbitals, split=split)
        real = KINETIC.bloch_operator(orbitals, split=split, inversion=inversion)
        matrices = real.matrices(KPOINTS)
        for m in matrices:
            assert m is not None and m.dtype == np.float64
            np.testing.assert_array_equal(m, m.transpose(0, 2, 1))
        for found, expected in zip(real.eigenvalues(KPOINTS), plain.eigenvalues(KPOINTS), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-11)
        assert len(real.terms[0].groups.images) <= len(plain.terms[0].groups.images)

    def test_both_routes_of_the_sum_agree(self, crystals) -> None:
        """Atoms on the centre, pairs of atoms, and both together (anatase)."""
        for name in ("nacl", "silicon", "anatase", "bismuth"):
            cell = canonical_cell(crystals[name])
            orbitals = Orbitals.of(cell.structure, load_basis("ano-ml-os", discard_below=0.15))
            inversion = orbitals.inversion(cell)
            groups = real_space_term(orbitals, INTEGRALS, 0.0, 1e-8, inversion=inversion).groups
            compiled, twin = (
                route(groups, KPOINTS, orbitals.n_functions, inversion) for route in (bloch_sums, bloch_sums_numpy)
            )
            np.testing.assert_allclose(compiled, twin, atol=1e-13)

    @pytest.mark.parametrize("name", ["triclinic", "distorted-batio3"])
    def test_crystals_without(self, crystals, name: str) -> None:
        cell = canonical_cell(crystals[name])
        assert Orbitals.of(cell.structure, load_basis("ano-ml-os")).inversion(cell) is None

    def test_a_centre_within_the_tolerance_only_is_none(self, crystals) -> None:
        given = crystals["anatase"]
        positions = given.positions.copy()
        positions[0, 2] += 2e-8
        cell = canonical_cell(Structure("x", given.lattice, given.numbers, positions))
        assert (cell.rotations == -np.eye(3)).all(axis=(1, 2)).any()
        assert Orbitals.of(cell.structure, load_basis("ano-ml-os")).inversion(cell) is None


def two_center(
    one: ElementShells, other: ElementShells, between: NDArray[np.float64], integral: str
) -> NDArray[np.float64]:
    """Integrals of two atoms, without any screening by libcint."""
    env = [np.zeros(gto.PTR_ENV_START), np.zeros(3), between]
    env[0][gto.PTR_EXPCUTOFF] = 200.0
    pointer, bas = gto.PTR_ENV_START + 6, []
    for atom, element in enumerate((one, other)):
        for shell in element.shells:
            n_prim, n_contr = shell.coefficients.shape
            bas.append((atom, shell.angular_momentum, n_prim, n_contr, 0, pointer, pointer + n_prim, 0))
            env += [shell.exponents, shell.coefficients.T.ravel()]
            pointer += n_prim * (1 + n_contr)
    atm = np.zeros((2, gto.ATM_SLOTS), dtype=np.int32)
    atm[:, gto.PTR_COORD] = gto.PTR_ENV_START, gto.PTR_ENV_START + 3
    n_one, n_all = len(one.shells), len(bas)
    shells = (0, n_one, n_one, n_all)
    return moleintor.getints(integral, atm, np.array(bas, np.int32), np.concatenate(env), shls_slice=shells)


class TestSolidHarmonics:
    @pytest.mark.parametrize("l", range(7))
    def test_addition_theorem(self, l: int) -> None:  # noqa: E741
        rng = np.random.default_rng(l)
        a, b = rng.normal(size=(2, 20, 3))
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        cosine = (a * b).sum(axis=1) / lengths
        expected = (2 * l + 1) / (4 * np.pi) * lengths**l * eval_legendre(l, cosine)
        found = (solid_harmonics(l, a) * solid_harmonics(l, b)).sum(axis=0)
        np.testing.assert_allclose(found, expected, atol=1e-12 * np.abs(expected).max())

    def test_libcints_order(self) -> None:
        x, y, z = vectors = np.random.default_rng(0).normal(size=(3, 9))
        s = np.full((1, 9), np.sqrt(1 / (4 * np.pi)))
        p = np.sqrt(3 / (4 * np.pi)) * vectors
        d = np.sqrt(15 / (4 * np.pi)) * np.array(
            [x * y, y * z, (2 * z**2 - x**2 - y**2) / 12**0.5, x * z, (x**2 - y**2) / 2]
        )
        for l, expected in enumerate((s, p, d)):  # noqa: E741
            np.testing.assert_allclose(solid_harmonics(l, vectors.T), expected, atol=1e-13)


class TestReciprocalSpace:
    @pytest.mark.parametrize("exponent", [0.05, 0.3])
    @pytest.mark.parametrize("split", [0.0, 1.0], ids=["real", "reciprocal"])
    def test_one_gaussian_on_a_lattice(self, tmp_path: Path, exponent: float, split: float) -> None:
        """S(k) = sum_G n(k+G) and T(k) = sum_G |k+G|^2 / 2 n(k+G), with n(q) = (2 pi / a)^(3/2) exp(-q^2 / 2a) / V."""
        edge = 4.0
        orbitals = Orbitals.of(hydrogen_lattice(edge), basis_of(tmp_path, f"H S\n {exponent} 1.0"))
        operator = KINETIC.bloch_operator(orbitals, split=split)
        grid = np.arange(-9, 10)
        vectors = np.stack(np.meshgrid(grid, grid, grid, indexing="ij"), -1).reshape(-1, 3)
        kinetic, overlap = operator.matrices(KPOINTS)
        assert overlap is not None
        for k, t, s in zip(KPOINTS, kinetic, overlap, strict=True):
            q2 = (((k + vectors) * 2 * np.pi / edge) ** 2).sum(axis=1)
            n = (2 * np.pi / exponent) ** 1.5 * np.exp(-q2 / (2 * exponent)) / edge**3
            assert s[0, 0] == pytest.approx(n.sum(), abs=1e-10)
            assert t[0, 0] == pytest.approx((n * q2 / 2).sum(), abs=1e-10)

    @pytest.mark.parametrize("split", [0.06, 0.15, 0.9])
    def test_every_angular_momentum_is_the_same_in_both_spaces(self, tmp_path: Path, split: float, crystals) -> None:
        letters = "SPDFGH"
        carbon = "\n".join(f"C {letter}\n 0.5 1.0 0.3\n 0.12 0.4 -1.0" for letter in letters)
        basis = basis_of(tmp_path, f"{carbon}\nSi S\n 0.1 1.0\nSi D\n 40.0 0.1\n 0.2 0.5\n 0.08 0.5")
        lattice, positions = crystals["triclinic"].lattice, crystals["triclinic"].positions[:2]
        orbitals = Orbitals.of(Structure("CSi", lattice, [6, 14], positions), basis)
        real = real_space_term(orbitals, INTEGRALS, 0.0, 1e-13).matrices(KPOINTS)
        compact = real_space_term(orbitals, INTEGRALS, split, 1e-13).matrices(KPOINTS)
        rest = ReciprocalTerm(orbitals, MULTIPLIERS, split, 1e-13).matrices(KPOINTS)
        np.testing.assert_allclose(compact + rest, real, atol=1e-10)

    def test_matrices_are_hermitian_periodic_and_real_in_real_space(self, crystals) -> None:
        orbitals = Orbitals.of(crystals["distorted-batio3"], load_basis("ano-ml-os"))
        operator = KINETIC.bloch_operator(orbitals, split=0.1)
        kinetic, overlap = operator.matrices(KPOINTS)
        assert overlap is not None
        for matrices, moved, reversed_ in zip(
            (kinetic, overlap),
            operator.matrices(KPOINTS + np.array([3, -1, 2])),
            operator.matrices(-KPOINTS),
            strict=True,
        ):
            np.testing.assert_allclose(matrices, matrices.conj().transpose(0, 2, 1), atol=1e-14)
            np.testing.assert_allclose(moved, matrices, atol=1e-11)
            np.testing.assert_allclose(reversed_, matrices.conj(), atol=1e-11)
        assert np.linalg.eigvalsh(overlap).min() > 0
        assert np.linalg.eigvalsh(kinetic).min() > 0

    @pytest.mark.parametrize("name", ["batio3", "magnesium"])
    @pytest.mark.parametrize("split", [0.05, 0.2])
    def test_what_is_left_out_is_within_the_precision(self, crystals, name: str, split: float) -> None:
        orbitals = Orbitals.of(crystals[name], load_basis("ano-ml-os"))
        exact = ReciprocalTerm(orbitals, MULTIPLIERS, split, 1e-16).matrices(KPOINTS)
        errors = []
        for precision in (1e-4, 1e-6, 1e-8, 1e-10):
            found = ReciprocalTerm(orbitals, MULTIPLIERS, split, precision).matrices(KPOINTS)
            errors.append(np.abs(found - exact).max())
            assert errors[-1] < 10 * precision
        assert errors[0] > 100 * errors[-1]
        assert reciprocal_radius(split, 1e-12) > reciprocal_radius(split, 1e-8) > reciprocal_radius(split / 2, 1e-8)

    def test_nothing_diffuse(self, crystals) -> None:
        orbitals = Orbitals.of(crystals["silicon"], load_basis("ano-ml-os", discard_below=0.3))
        assert len(KINETIC.bloch_operator(orbitals, split=0.2).terms) == 1
        assert len(KINETIC.bloch_operator(orbitals, split=0.5).terms) == 2

    def test_elements_with_nothing_compact(self, tmp_path: Path, crystals) -> None:
        basis = basis_of(tmp_path, "Na S\n 0.09 1.0\nCl S\n 0.9 0.5\n 0.06 0.5\nCl P\n 0.1 1.0")
        orbitals = Orbitals.of(crystals["nacl"], basis)
        real = KINETIC.bloch_operator(orbitals, split=0.0).eigenvalues(KPOINTS)
        for split in (0.08, 0.095, 0.5, 1.0):
            mixed = KINETIC.bloch_operator(orbitals, split=split).eigenvalues(KPOINTS)
            np.testing.assert_allclose(mixed, real, atol=1e-9)

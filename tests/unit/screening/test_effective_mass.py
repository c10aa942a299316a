"""Line effective masses against bands whose thermal averages are known, and the band structures they are read from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import quad

from sorep.band_path import BandPath, Segment
from sorep.bands import BandStructure
from sorep.errors import OutputError, ScreeningError
from sorep.identity import Identity
from sorep.levels import Levels
from sorep.screening.effective_mass import (
    BOLTZMANN,
    HBAR_SQUARED,
    EffectiveMasses,
    effective_masses,
    from_band_structure,
    from_pymatgen,
    from_qe_xml,
    inverse_line_mass,
)
from sorep.screening.following import follow
from sorep.screening.lines import Line, count_valence, split_path
from sorep.structure import Structure
from sorep.units import HARTREE_IN_EV

KT = 300 * BOLTZMANN
Band = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def parabola(mass: float, bottom: float = 0.0, center: float = 0.0) -> Band:
    return lambda k: bottom + HBAR_SQUARED * (k - center) ** 2 / (2 * mass)


def cosine(mass: float, a: float = 4.0) -> Band:
    """A tight-binding chain; ``mass`` at its bottom."""
    return lambda k: HBAR_SQUARED / (mass * a**2) * (1 - np.cos(a * k))


def kane(mass: float, gap: float) -> Band:
    """Two-band model: e (1 + e / gap) = hbar^2 k^2 / 2 m."""
    return lambda k: gap / 2 * (np.sqrt(1 + 2 * HBAR_SQUARED * k**2 / (mass * gap)) - 1)


def points(spacing: float, stop: float = 0.8, start: float = 0.0) -> NDArray[np.float64]:
    return np.linspace(start, stop, math.ceil((stop - start) / spacing) + 1)


def sample(k: NDArray[np.float64], *bands: Band) -> NDArray[np.float64]:
    """(n_k, n_band), sorted as a diagonalisation sorts them."""
    return np.sort(np.stack([band(k) for band in bands], axis=1), axis=1)


def mass_of(k: NDArray[np.float64], *bands: Band, edge: float = 0.0, temperature: float = 300.0) -> float:
    return 1 / inverse_line_mass(k, sample(k, *bands)[None], edge, "electron", temperature)


def expected(stop: float, *bands: Band, edge: float = 0.0, start: float = 0.0) -> float:
    """Eq. 15 by dense adaptive quadrature over the analytic, never sorted bands; curvatures by a tiny difference."""
    above = below = 0.0
    h = 1e-4

    for band in bands:

        def carriers(k: float, band: Band = band) -> float:
            return 1 / (math.exp(min((float(band(np.array(k))) - edge) / KT, 700)) + 1)

        def curvature(k: float, band: Band = band) -> float:
            return float(band(np.array(k + h)) - 2 * band(np.array(k)) + band(np.array(k - h))) / h**2

        nodes = np.linspace(start, stop, 41)
        for a, b in pairwise(nodes):
            above += quad(lambda k, c=carriers, d=curvature: c(k) * d(k), a, b)[0]
            below += quad(carriers, a, b)[0]
    return HBAR_SQUARED * below / above


def line(label: str, k: NDArray[np.float64], conduction: Sequence[Band], valence: Sequence[Band] = ()) -> Line:
    """``valence`` bands are given upside down: they rise away from the gap, from 1 eV below the zero of energy."""
    filled = valence or [parabola(1.0)]
    return Line(label, k, np.concatenate([-1.0 - sample(k, *filled)[:, ::-1], sample(k, *conduction)], axis=1)[None])


HEAVY = parabola(3.0, 0.5)
"""A second conduction band, out of the way."""


class TestOneLine:
    @pytest.mark.parametrize("mass", [0.01, 0.1, 0.5, 2.0, 20.0])
    @pytest.mark.parametrize("spacing", [0.05, 0.025])
    def test_parabola(self, mass: float, spacing: float) -> None:
        assert mass_of(points(spacing), parabola(mass)) == pytest.approx(mass, rel=1e-6)

    def test_holes_are_positive(self) -> None:
        k = points(0.025)
        valence = -2.0 - sample(k, parabola(0.3))[None]
        assert inverse_line_mass(k, valence, -2.0, "hole") == pytest.approx(1 / 0.3)
        assert inverse_line_mass(k, valence, -2.0, "electron") < 0

    @pytest.mark.parametrize("center", [0.0, 0.31, 0.4, 0.8])
    def test_wherever_the_edge_lies_on_the_line(self, center: float) -> None:
        assert mass_of(points(0.025), parabola(0.4, center=center)) == pytest.approx(0.4, rel=1e-6)

    @pytest.mark.parametrize("mass", [0.1, 0.3, 1.0, 2.0, 5.0])
    def test_tight_binding(self, mass: float) -> None:
        stop = math.pi / 4
        assert mass_of(points(0.025, stop), cosine(mass)) == pytest.approx(expected(stop, cosine(mass)), rel=2e-3)

    def test_a_warm_chain_is_heavier_than_its_bottom(self) -> None:
        """The average matters: with a band as wide as kT, carriers reach where it bends the other way."""
        k = points(0.025, math.pi / 4)
        assert mass_of(k, cosine(8.0), temperature=1.0) == pytest.approx(8.0, rel=0.01)
        warm = mass_of(k, cosine(8.0))
        assert warm == pytest.approx(expected(math.pi / 4, cosine(8.0)), rel=1e-3)
        assert warm > 11.0

    def test_bands_degenerate_at_gamma_average_by_their_carriers(self) -> None:
        """Heavy holes outnumber light ones along a line by sqrt(m_heavy / m_light)."""
        heavy, light = 0.8, 0.2
        pair = (parabola(heavy), parabola(light))
        root = math.sqrt(heavy / light)
        by_hand = (root + 1) / (root / heavy + 1 / light)
        assert expected(0.8, *pair) == pytest.approx(by_hand, rel=1e-4)
        assert mass_of(points(0.025), *pair) == pytest.approx(by_hand, rel=2e-3)
        three = (*pair, parabola(heavy))
        assert mass_of(points(0.025), *three) == pytest.approx(
            (2 * root + 1) / (2 * root / heavy + 1 / light), rel=2e-3
        )

    @pytest.mark.parametrize("crossing", [0.03, 0.1, 0.137, 0.21, 0.3])
    @pytest.mark.parametrize("spacing", [0.025, 0.0125])
    def test_bands_that_cross_within_kt(self, crossing: float, spacing: float) -> None:
        """A light band rises through a flat one; splines of the sorted bands have kinks and are off by up to 9 %."""
        light, flat = parabola(0.5), parabola(4.0, float(parabola(0.5)(np.array(crossing))), center=crossing)
        assert float(flat(np.array(crossing))) < 30 * KT
        exact = expected(0.8, light, flat)
        assert mass_of(points(spacing), light, flat) == pytest.approx(exact, rel=1e-6)

    def test_two_valleys_that_cross_between_them(self) -> None:
        pair = (parabola(0.3, center=0.25), parabola(0.3, 0.5 * KT, center=0.55))
        assert mass_of(points(0.025), *pair) == pytest.approx(expected(0.8, *pair), rel=5e-3)

    @pytest.mark.parametrize("band", [cosine(0.1), cosine(0.5), cosine(2.0), kane(0.1, 1.0), kane(0.5, 1.0)])
    def test_converged_in_spacing(self, band: Band) -> None:
        stop = math.pi / 4
        coarse, fine = (mass_of(points(spacing, stop), band) for spacing in (0.025, 0.0125))
        assert coarse == pytest.approx(fine, rel=0.02)
        assert fine == pytest.approx(expected(stop, band), rel=0.02)

    def test_any_spacing(self) -> None:
        rng = np.random.default_rng(3)
        k = np.sort(np.concatenate([[0.0, 0.8], rng.uniform(0, 0.8, 60)]))
        assert mass_of(k, parabola(0.3), HEAVY) == pytest.approx(expected(0.8, parabola(0.3), HEAVY), rel=1e-5)
        assert mass_of(k, cosine(0.5)) == pytest.approx(expected(0.8, cosine(0.5)), rel=5e-3)

    @given(shift=st.floats(-50, 50), turned=st.booleans(), scale=st.floats(0.3, 3.0))
    def test_what_it_does_not_depend_on(self, shift: float, turned: bool, scale: float) -> None:
        """Zero of energy, zero and direction of the line; a stretched line has masses smaller by the square."""
        k = points(0.02)
        energies = sample(k, cosine(0.6), parabola(0.4, 0.01, 0.3))
        mass = 1 / inverse_line_mass(k, energies[None], 0.0, "electron")
        moved = scale * (-k[::-1] if turned else k) + shift
        shifted = (energies[::-1] if turned else energies) + shift
        again = 1 / inverse_line_mass(moved, shifted[None], shift, "electron")
        assert again == pytest.approx(mass * scale**2, rel=1e-6)

    def test_carriers_of_both_spins_count(self) -> None:
        k = points(0.025)
        up, down = sample(k, parabola(0.2)), sample(k, parabola(0.8))
        both = 1 / inverse_line_mass(k, [up, down], 0.0, "electron")
        assert both == pytest.approx(mass_of(k, parabola(0.2), parabola(0.8)), rel=2e-3)
        assert 1 / inverse_line_mass(k, [up, up], 0.0, "electron") == pytest.approx(0.2)

    def test_bands_without_carriers_do_not_matter(self) -> None:
        k = points(0.025)
        far = [parabola(0.01, 40 * KT), lambda k: 3 + np.sin(40 * k), lambda k: 5 + np.abs(k - 0.4)]
        assert mass_of(k, parabola(0.3), *far) == pytest.approx(0.3, rel=1e-6)

    def test_folded_bands_of_a_doubled_cell(self) -> None:
        """Half the line, and twice the bands, which meet at its end."""
        whole, folded = points(0.02, math.pi / 4), points(0.02, math.pi / 8)
        chain = cosine(0.4)
        assert mass_of(folded, chain, lambda k: chain(math.pi / 4 - k)) == pytest.approx(
            mass_of(whole, chain), rel=1e-4
        )

    def test_far_from_the_edge_nothing_underflows(self) -> None:
        """The average of a line is that of its own carriers, however few."""
        assert mass_of(points(0.025), parabola(0.7), edge=-60.0) == pytest.approx(0.7, rel=1e-6)

    def test_noise_of_a_diagonalisation(self) -> None:
        k = points(0.005)
        rng = np.random.default_rng(0)
        noisy = sample(k, parabola(0.4), HEAVY) + rng.normal(scale=1e-5, size=(len(k), 2))
        assert 1 / inverse_line_mass(k, noisy[None], 0.0, "electron") == pytest.approx(0.4, rel=0.03)

    @pytest.mark.parametrize(
        ("k", "energies", "temperature", "code"),
        [
            ([0, 1, 1, 2], np.zeros((1, 4, 1)), 300.0, "malformed-line"),
            ([0, 1, 2, 3], np.zeros((4, 1)), 300.0, "malformed-line"),
            ([0, 1, 2, 3], np.full((1, 4, 1), np.nan), 300.0, "malformed-line"),
            ([0, 1, 2, 3], np.zeros((1, 4, 1)), 0.0, "bad-temperature"),
            ([0, 1, 2, 3], np.zeros((1, 4, 1)), math.nan, "bad-temperature"),
        ],
    )
    def test_refused(self, k: ArrayLike, energies: ArrayLike, temperature: float, code: str) -> None:
        with pytest.raises(ScreeningError) as caught:
            inverse_line_mass(k, energies, 0.0, "electron", temperature)
        assert caught.value.code == code


class TestFollowing:
    @given(st.permutations(range(4)), st.integers(0, 10))
    def test_bands_are_followed_through_all_crossings(self, order: list[int], seed: int) -> None:
        k = points(0.02, 1.0)
        rng = np.random.default_rng(seed)
        true = np.stack([a * np.sin(2 * k + b) + c * k for a, b, c in rng.uniform(-3, 3, (4, 3))], axis=1)
        followed = follow(k, true[:, order])
        np.testing.assert_array_equal(np.sort(followed, axis=1), np.sort(true, axis=1))
        # Two bands may be exchanged where they touch almost; most of these never do.
        rough = np.abs(np.diff(followed, 3, axis=0)).max()
        assert rough < 50 * np.abs(np.diff(true, 3, axis=0)).max() + 0.02

    def test_a_crossing_in_the_first_or_last_interval(self) -> None:
        k = points(0.1, 1.0)
        for at in (0.05, 0.95):
            true = np.stack([k - at, -2 * (k - at)], axis=1)
            followed = follow(k, np.sort(true, axis=1))
            assert np.abs(np.diff(followed, 2, axis=0)).max() < 1e-12

    def test_bands_that_repel_each_other_do_not_cross(self) -> None:
        k = points(0.01, 1.0)
        gap = np.sqrt((k - 0.5) ** 2 + 0.05**2)
        energies = np.stack([-gap, gap], axis=1)
        np.testing.assert_array_equal(follow(k, energies), energies)


def masses(*lines: Line, **options) -> EffectiveMasses:
    n_valence = [1] * lines[0].energies.shape[0]
    return effective_masses(lines, n_valence, **options)


class TestManyLines:
    K = points(0.025)

    def test_an_ellipsoid_has_the_mass_of_its_lightest_line(self) -> None:
        lines = [line(f"{m}", self.K, [parabola(m), HEAVY]) for m in (0.9, 0.19, 0.4)]
        found = masses(*lines)
        assert found.electron == pytest.approx(0.19, rel=1e-4)
        assert found.electron_line == "0.19"
        assert found.hole == pytest.approx(1.0, rel=1e-4)
        assert (found.vbm, found.cbm, found.band_gap) == (-1.0, 0.0, 1.0)
        assert found.flags == ()
        again = masses(*lines[::-1])
        assert replace(again, hole_line="") == replace(found, hole_line="")

    def test_lines_far_from_the_edge_do_not_count_unless_asked(self) -> None:
        far = line("far", self.K, [parabola(0.05, 1.0), parabola(3.0, 2.0)])
        near = line("near", self.K, [parabola(0.6), HEAVY])
        found = masses(far, near)
        assert (found.electron_line, found.electron) == ("near", pytest.approx(0.6, rel=1e-4))
        printed = masses(far, near, reach=math.inf)
        assert (printed.electron_line, printed.electron) == ("far", pytest.approx(0.05, rel=0.1))

    @pytest.mark.parametrize(("temperature", "counts"), [(300.0, False), (600.0, True)])
    def test_reach_is_counted_in_kt(self, temperature: float, counts: bool) -> None:
        valley = line("valley", self.K, [parabola(0.1, 0.3), parabola(3.0, 1.0)])
        found = masses(valley, line("edge", self.K, [parabola(0.6), HEAVY]), temperature=temperature)
        assert (found.electron_line == "valley") is counts

    def test_band_edges_are_those_of_lines_and_mesh_together(self) -> None:
        near = line("near", self.K, [parabola(0.6), HEAVY])
        found = masses(near, vbm=-1.2, cbm=0.01)
        assert (found.vbm, found.cbm, found.flags) == (-1.0, 0.0, ())
        off = masses(near, vbm=-0.6, cbm=-0.1)
        assert (off.vbm, off.cbm) == (-0.6, -0.1)
        assert off.flags == ("electron-edge-off-lines", "hole-edge-off-lines")
        assert off.electron == pytest.approx(0.6, rel=1e-4)

    def test_flat_bands_have_infinite_mass(self) -> None:
        flat = line("flat", self.K, [lambda k: 0 * k, HEAVY], [lambda k: -0.1 * k**2])
        found = masses(flat)
        assert (found.electron, found.hole) == (math.inf, math.inf)
        assert found.flags == ("electron-flat", "hole-flat")

    def test_lines_too_coarse_for_a_light_band(self) -> None:
        """At 0.025 1/Angstrom the mass is 6 % off, and flagged; what is not flagged is right."""
        exact = expected(0.8, kane(0.02, 1.0))
        is_flagged = {}
        for spacing in (0.05, 0.025, 0.0125, 0.00625):
            found = masses(line("x", points(spacing), [kane(0.02, 1.0), parabola(3.0, 3.0)]))
            is_flagged[spacing] = found.flags == ("electron-coarse-lines",)
            assert is_flagged[spacing] or found.electron == pytest.approx(exact, rel=0.02)
        assert is_flagged[0.025]
        assert not is_flagged[0.00625]

    def test_short_lines_are_left_out_and_told(self) -> None:
        short = line("short", points(0.025, 0.05), [parabola(0.01), HEAVY])
        found = masses(line("long", self.K, [parabola(0.5), HEAVY]), short)
        assert found.electron_line == "long"
        assert found.flags == ("electron-short-lines", "hole-short-lines")
        with pytest.raises(ScreeningError) as caught:
            masses(short)
        assert caught.value.code == "short-lines"

    def test_missing_bands_are_told(self) -> None:
        only = line("only", self.K, [parabola(0.5)])
        assert masses(only).flags == ("electron-few-bands",)

    def test_spin_channels_with_different_numbers_of_electrons(self) -> None:
        k = self.K
        up = np.concatenate([-1 - sample(k, parabola(1.0)), sample(k, parabola(0.2), parabola(3.0, 2.0))], axis=1)
        down = np.concatenate([sample(k, parabola(0.8), parabola(3.0, 1.9)), sample(k, parabola(3.0, 2.1))], axis=1)
        lines = [Line("x", k, np.stack([up, down]))]
        assert count_valence(lines, 1, 1.0) == [1, 0]
        found = effective_masses(lines, [1, 0])
        assert found.electron == pytest.approx(mass_of(k, parabola(0.2), parabola(0.8)), rel=2e-3)
        assert found.hole == pytest.approx(1.0)

    def test_metals_and_other_refusals(self) -> None:
        lines = [line("x", self.K, [parabola(0.5, -1.2)])]

        def code(n_valence: Sequence[int], **options: float) -> str:
            with pytest.raises(ScreeningError) as caught:
                effective_masses(lines, n_valence, **options)
            return caught.value.code

        assert code([1]) == "metal"
        assert code([1, 1]) == "malformed-line"
        assert code([2]) == "no-bands"
        assert code([0]) == "no-bands"
        assert code([1], reach=-1.0) == "bad-reach"
        assert code([1], temperature=-1.0) == "bad-temperature"
        for n_electrons, expected_code in ((1, "metal"), (6, "no-bands")):
            with pytest.raises(ScreeningError) as caught:
                count_valence(lines, n_electrons, 2.0)
            assert caught.value.code == expected_code
        with pytest.raises(ScreeningError) as caught:
            effective_masses([], [1])
        assert caught.value.code == "no-bands"


# Band structures

EDGE = 4.0  # Angstrom
POINT = {"X": [0.5, 0, 0], "GAMMA": [0, 0, 0], "M": [0.5, 0.5, 0], "R": [0.5, 0.5, 0.5]}


def crystal_energies(cartesian: NDArray[np.float64]) -> NDArray[np.float64]:
    """Tight-binding bands of a simple orthorhombic crystal, (n_k, 4): masses -1 and -0.6, and 0.2, 0.5, 1 by axis."""

    def band(masses: Sequence[float]) -> NDArray[np.float64]:
        return sum(cosine(m, EDGE)(cartesian[:, axis]) for axis, m in enumerate(masses))  # type: ignore[return-value]

    filled = [-1 - band([2.0, 2.0, 2.0]), -1 - band([0.6, 1.0, 1.0])]
    return np.sort(np.stack([*filled, band([0.2, 0.5, 1.0]), 2 + band([1.0, 1.0, 1.0])], axis=1), axis=1)


@pytest.fixture
def bands() -> BandStructure:
    """GAMMA-X-M-GAMMA-R|M-R."""
    lines = [("GAMMA", "X"), ("X", "M"), ("M", "GAMMA"), ("GAMMA", "R"), ("M", "R")]
    kpoints, segments = [], []
    for n, (start, end) in enumerate(lines):
        joined = n > 0 and lines[n - 1][1] == start
        first = sum(map(len, kpoints)) - joined
        part = np.linspace(POINT[start], POINT[end], 33)[joined:]
        kpoints.append(part)
        segments.append(Segment((start, end), first, first + 33))
    path = BandPath(EDGE * np.eye(3), np.concatenate(kpoints), tuple(segments))
    return BandStructure(
        Structure("tb", path.lattice, [14], [[0, 0, 0]]),
        Identity("{}"),
        path,
        crystal_energies(path.cartesian)[None],
        degeneracy=2.0,
        n_electrons=4.0,
        levels=Levels(-1.0, 0.0, -0.5, False),
    )


LIGHTEST = 0.2
"""Of the electrons, along GAMMA-X; M-GAMMA and GAMMA-R have heavier averages."""


def check(found: EffectiveMasses) -> None:
    stop = math.pi / EDGE
    assert found.electron == pytest.approx(expected(stop, cosine(LIGHTEST, EDGE)), rel=2e-3)
    pair = (cosine(2.0, EDGE), cosine(0.6, EDGE))
    assert found.hole == pytest.approx(expected(stop, *pair), rel=5e-3)
    assert (found.vbm, found.cbm) == (pytest.approx(-1.0), pytest.approx(0.0, abs=1e-9))


def test_from_a_band_structure(bands: BandStructure) -> None:
    found = from_band_structure(bands)
    check(found)
    assert (found.electron_line, found.hole_line) == ("GAMMA-X", "GAMMA-X")
    assert from_band_structure(replace(bands, flags=("folded-bands",))).flags == (*found.flags, "folded-bands")
    dipped = replace(bands, levels=Levels(-1.01, 0.02, -0.5, False))
    assert from_band_structure(dipped).band_gap == pytest.approx(1.0)


def test_a_repeated_spin_channel_changes_nothing(bands: BandStructure) -> None:
    twice = replace(bands, energies=np.repeat(bands.energies, 2, axis=0), degeneracy=1.0)
    assert from_band_structure(twice).electron == pytest.approx(from_band_structure(bands).electron)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"levels": None}, "no-levels"),
        ({"n_electrons": None}, "no-levels"),
        ({"levels": Levels(0.0, 0.0, 0.0, True)}, "metal"),
        ({"n_electrons": 3.0}, "metal"),
        ({"levels": Levels(-1.0, None, None, False), "n_electrons": 8.0}, "no-bands"),
    ],
)
def test_band_structures_without_masses(bands: BandStructure, changes: dict, code: str) -> None:
    with pytest.raises(ScreeningError) as caught:
        from_band_structure(replace(bands, **changes))
    assert caught.value.code == code


def test_from_pymatgen(bands: BandStructure) -> None:
    from pymatgen.core import Lattice
    from pymatgen.electronic_structure.bandstructure import BandStructureSymmLine
    from pymatgen.electronic_structure.core import Spin

    reciprocal = Lattice(bands.path.lattice).reciprocal_lattice
    # Points where lines meet are given twice there, as line-mode calculations have them.
    order = np.concatenate([np.arange(s.start, s.stop) for s in bands.path.segments])
    energies = bands.energies[0, order].T

    def symm_line(efermi: float) -> BandStructureSymmLine:
        return BandStructureSymmLine(bands.path.kpoints[order], {Spin.up: energies}, reciprocal, efermi, POINT)

    found = from_pymatgen(symm_line(-0.5))
    check(found)
    assert found.electron_line == "GAMMA-X"
    with pytest.raises(ScreeningError) as caught:
        from_pymatgen(symm_line(0.3))
    assert caught.value.code == "metal"


def write_xml(path: Path, bands: BandStructure, kpoints: NDArray[np.float64], n_electrons: float = 4.0) -> Path:
    """What pw.x leaves of a run with calculation = 'bands', in its units and number of digits."""
    bohr = 0.529177210903
    alat = EDGE / bohr

    def numbers(values: ArrayLike) -> str:
        return " ".join(f"{value:.15e}" for value in np.ravel(values))

    energies = crystal_energies(2 * np.pi * kpoints / EDGE) / HARTREE_IN_EV
    levels = "".join(
        f"<ks_energies><k_point weight='0.01'>{numbers(k)}</k_point><eigenvalues>{numbers(e)}</eigenvalues>"
        "</ks_energies>"
        for k, e in zip(kpoints, energies, strict=True)
    )
    cell = "".join(f"<a{n}>{numbers(row)}</a{n}>" for n, row in enumerate(alat * np.eye(3), 1))
    reciprocal = "".join(f"<b{n}>{numbers(row)}</b{n}>" for n, row in enumerate(np.eye(3), 1))
    path.write_text(
        f"""<?xml version="1.0"?><qes:espresso xmlns:qes="http://www.quantum-espresso.org/ns/qes/qes-1.0"><input>
        <control_variables><calculation>bands</calculation></control_variables><dft><functional>PBE</functional></dft>
        </input><output><atomic_structure alat="{alat}"><atomic_positions><atom name="Si" index="1">0 0 0</atom>
        </atomic_positions><cell>{cell}</cell></atomic_structure><basis_set><reciprocal_lattice>{reciprocal}
        </reciprocal_lattice></basis_set><band_structure><lsda>false</lsda><noncolin>false</noncolin><nbnd>4</nbnd>
        <nelec>{n_electrons}</nelec><nks>{len(kpoints)}</nks>{levels}</band_structure></output>
        <exit_status>0</exit_status></qes:espresso>"""
    )
    return path


def test_from_the_xml_of_pw_x(bands: BandStructure, tmp_path: Path) -> None:
    found = from_qe_xml(write_xml(tmp_path / "bands.xml", bands, bands.path.kpoints))
    check(found)
    assert found.electron_line == "(0 0 0)-(0.5 0 0)"
    wider = from_qe_xml(tmp_path / "bands.xml", vbm=-0.99, cbm=-0.01)
    assert (wider.vbm, wider.cbm) == (-0.99, -0.01)
    with pytest.raises(ScreeningError) as caught:
        from_qe_xml(write_xml(tmp_path / "metal.xml", bands, bands.path.kpoints, 3.0))
    assert caught.value.code == "metal"
    with pytest.raises(ScreeningError) as caught:
        from_qe_xml(write_xml(tmp_path / "point.xml", bands, np.zeros((1, 3))))
    assert caught.value.code == "no-bands"
    with pytest.raises(OutputError):
        from_qe_xml(tmp_path / "absent.xml")


class TestSplitting:
    @staticmethod
    def split(*corners: Sequence[Sequence[float]], repeat: bool = False) -> list[tuple[str, int]]:
        """Lines through corners, each chain of them beginning anew, in steps of 0.05."""
        kpoints: list[NDArray[np.float64]] = []
        for chain in corners:
            for n, (start, end) in enumerate(pairwise(chain)):
                steps = max(1, math.ceil(np.linalg.norm(np.subtract(end, start)) / 0.05 - 1e-9))
                kpoints.append(np.linspace(start, end, steps + 1)[0 if repeat or n == 0 else 1 :])
        path = np.concatenate(kpoints)
        rounded = np.round(path, 9)  # as an input file gives them
        return [(one.label, len(one.distances)) for one in split_path(rounded, np.zeros((1, len(path), 2)), path)]

    GAMMA, X, M, R = [0, 0, 0], [0.5, 0, 0], [0.5, 0.5, 0], [0.5, 0.5, 0.5]

    @pytest.mark.parametrize("repeat", [False, True])
    def test_turns(self, repeat: bool) -> None:
        assert self.split([self.GAMMA, self.X, self.M], repeat=repeat) == [
            ("(0 0 0)-(0.5 0 0)", 11),
            ("(0.5 0 0)-(0.5 0.5 0)", 11),
        ]

    def test_jumps(self) -> None:
        found = self.split([self.GAMMA, self.X], [self.R, self.M])
        assert found == [("(0 0 0)-(0.5 0 0)", 11), ("(0.5 0.5 0.5)-(0.5 0.5 0)", 11)]

    def test_a_jump_straight_ahead(self) -> None:
        assert [n for _, n in self.split([self.GAMMA, [0.2, 0, 0]], [[0.4, 0, 0], self.X])] == [5, 3]

    def test_nearly_straight_is_a_turn(self) -> None:
        assert len(self.split([self.GAMMA, [0.5, 0.01, 0], [1.0, 0.03, 0]])) == 2

    def test_unequal_steps_are_one_line(self) -> None:
        k = np.cumsum([0, 1, 2, 1, 1, 2, 1])[:, None] * [0.01, 0.02, 0]
        (one,) = split_path(k, np.zeros((1, 7, 1)), k)
        assert len(one.distances) == 7


def test_real_runs_that_are_no_paths(shared_folder: Path) -> None:
    files = sorted((shared_folder / "data" / "qe_outputs").rglob("data-file-schema.xml*"))[::10]
    assert files
    codes = set()
    for file in files:
        with pytest.raises((ScreeningError, OutputError)) as caught:
            from_qe_xml(file)
        codes.add(caught.value.code)
    assert "not-a-path" in codes
    assert codes <= {"not-a-path", "structure-moved", "no-bands", "truncated-xml"}

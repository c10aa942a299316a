"""Band-edge scalars: free electrons, known bands, spins, metals, and their place in feature vectors."""

import numpy as np
import pytest

from sorep.band_edges import DEPTHS, SCALARS, band_edge_scalars
from sorep.errors import FeatureError, LevelsError, SpectrumError, UsageError
from sorep.features import FEATURES, FeatureSpec, Window, compute_feature
from sorep.levels import find_levels
from sorep.smearing import COLD, GAUSSIAN
from sorep.spectrum import Spectrum

HBAR2_OVER_2M = 3.8099821  # eV Angstrom^2


def two_band_insulator(hole_mass, electron_mass, *, gap=2.0, n=61, edge=0.9, volume=8.0):
    """Parabolic bands of given masses in a cubic zone, their edges at Gamma."""
    axis = (np.arange(n) - n // 2) / n
    k = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    k2 = ((2 * np.pi * k / volume ** (1 / 3)) ** 2).sum(1)
    bands = np.stack([-HBAR2_OVER_2M * k2 / hole_mass, gap + HBAR2_OVER_2M * k2 / electron_mass], 1)
    return spectrum_of(bands[None], k, volume=volume, n_electrons=2.0)


def spectrum_of(bands, k=None, *, volume=10.0, n_electrons, weights=None, n_atoms=1):
    bands = np.asarray(bands, dtype=float)
    n_spin, n_k, n_bands = bands.shape
    return Spectrum(
        energies=bands.ravel(),
        band_counts=np.full((n_spin, n_k), n_bands),
        kpoints=np.zeros((n_k, 3)) if k is None else k,
        weights=np.full(n_k, 1 / n_k) if weights is None else weights,
        volume=volume,
        n_atoms=n_atoms,
        degeneracy=2 / n_spin,
        n_electrons=n_electrons,
        is_complete=True,
    )


def scalars(spectrum, width=0.05):
    levels = find_levels(spectrum, COLD, 0.1)
    return dict(zip(SCALARS, band_edge_scalars(spectrum, levels, width), strict=True))


def test_parabolic_bands_have_their_mass_at_every_depth():
    found = scalars(two_band_insulator(4.0, 2.0))
    for depth in (0.5, 1.0):  # a finer mesh would be needed nearer to the edge, and the zone ends beyond
        assert found[f"vbm-mass-{depth:g}eV"] == pytest.approx(4.0, rel=0.04)
        assert found[f"cbm-mass-{depth:g}eV"] == pytest.approx(2.0, rel=0.04)
    assert found["gap"] == pytest.approx(2.0)
    assert found["direct-gap"] == pytest.approx(2.0)
    assert found["direct-gap-excess"] == pytest.approx(0.0, abs=1e-12)


def test_mass_is_smaller_where_there_are_fewer_states():
    light, heavy = scalars(two_band_insulator(4.0, 1.0)), scalars(two_band_insulator(4.0, 3.0))
    for depth in DEPTHS[1:]:
        assert light[f"cbm-mass-{depth:g}eV"] < heavy[f"cbm-mass-{depth:g}eV"]
        assert light[f"vbm-mass-{depth:g}eV"] == pytest.approx(heavy[f"vbm-mass-{depth:g}eV"])


def test_depths_widths_and_shares_of_known_bands():
    bands = [[[-3.0, -1.0, 2.0, 6.0], [-3.5, 0.0, 2.4, 5.0], [-4.0, -0.4, 1.5, 4.5]]]
    found = scalars(spectrum_of(bands, n_electrons=4.0, weights=np.array([0.5, 0.25, 0.25])))
    assert found["gap"] == pytest.approx(1.5)
    assert found["valence-depth"] == pytest.approx(0.5 * 1.0 + 0.25 * 0.4)
    assert found["valence-width"] == pytest.approx(1.0)
    assert found["conduction-depth"] == pytest.approx(0.5 * 0.5 + 0.25 * 0.9)
    assert found["conduction-width"] == pytest.approx(0.9)
    assert found["valence-second-depth"] == pytest.approx(0.5 * 3.0 + 0.25 * 3.5 + 0.25 * 4.0)
    assert found["conduction-second-depth"] == pytest.approx(0.5 * 4.5 + 0.25 * 3.5 + 0.25 * 3.0)
    assert found["direct-gap"] == pytest.approx(1.9)
    assert found["direct-gap-excess"] == pytest.approx(0.4)
    assert found["mean-direct-gap"] == pytest.approx(0.5 * 3.0 + 0.25 * 2.4 + 0.25 * 1.9)


def test_a_doubled_spin_channel_changes_nothing():
    spectrum = two_band_insulator(4.0, 2.0, n=15)
    bands = spectrum.eigenvalues
    both = spectrum_of(np.concatenate([bands, bands]), volume=spectrum.volume, n_electrons=2.0)
    for name in SCALARS:
        assert scalars(both)[name] == pytest.approx(scalars(spectrum)[name], abs=1e-12), name


def test_a_supercell_has_the_same_masses_and_gap():
    spectrum = two_band_insulator(4.0, 2.0, n=15)
    bands = spectrum.eigenvalues[0]
    half = len(bands) // 2 * 2
    one = spectrum_of(bands[None, :half], volume=8.0, n_electrons=2.0)
    folded = np.sort(np.concatenate([bands[:half:2], bands[1:half:2]], axis=1), axis=1)
    two = spectrum_of(folded[None], volume=16.0, n_electrons=4.0, n_atoms=2)
    for name in SCALARS:
        if name == "gap" or "mass" in name:
            assert scalars(two)[name] == pytest.approx(scalars(one)[name], rel=1e-9), name


def test_a_metal_has_masses_on_both_sides_of_the_fermi_energy():
    rng = np.random.default_rng(0)
    metal = spectrum_of(np.sort(rng.uniform(-3, 3, (1, 200, 4)), axis=2), n_electrons=4.0)
    found = scalars(metal)
    assert found["gap"] == 0
    assert all(np.isfinite(list(found.values())))
    assert found["vbm-mass-1eV"] > 0 < found["cbm-mass-1eV"]


def test_a_basis_that_ends_with_the_partly_filled_band():
    bands = np.stack([np.linspace(-3, -2, 50), np.linspace(-1, 1, 50)], 1)[None]
    found = scalars(spectrum_of(bands, n_electrons=3.0))
    assert found["gap"] == 0
    assert all(np.isfinite(list(found.values())))


def test_full_bands_only_are_refused():
    with pytest.raises(FeatureError, match="no empty band"):
        scalars(spectrum_of(np.array([[[-1.0], [-2.0]]]), n_electrons=2.0))


def test_ragged_spectra_are_refused():
    ragged = Spectrum(
        energies=np.array([-1.0, 1.0, 2.0, -1.1, 1.1]),
        band_counts=np.array([[3, 2]]),
        kpoints=np.zeros((2, 3)),
        weights=np.array([0.5, 0.5]),
        volume=10.0,
        n_atoms=1,
        degeneracy=2.0,
        n_electrons=2.0,
    )
    with pytest.raises(SpectrumError, match="eigenvalues"):
        scalars(ragged)


def test_the_feature_set_joins_bins_and_scalars():
    spectrum = two_band_insulator(4.0, 2.0, n=15)
    spec = FEATURES["band-edges"]
    vector = compute_feature(spectrum, spec)
    assert vector.shape == (spec.n_features,) == (len(spec.feature_names),)
    assert len(spec.energies) + len(SCALARS) == spec.n_features
    assert spec.feature_names[-len(SCALARS) :] == list(SCALARS)
    named = dict(zip(spec.feature_names, vector, strict=True))
    assert named["gap"] == pytest.approx(2.0)
    bins = FeatureSpec(name="bins", windows=spec.windows, sampling="bin")
    np.testing.assert_array_equal(vector[: bins.n_features], compute_feature(spectrum, bins))


def test_bins_hold_the_states_between_their_edges():
    spectrum = two_band_insulator(4.0, 2.0, n=15)
    spec = FEATURES["band-edges"]
    vbm_bins = compute_feature(spectrum, spec)[: spec.windows[0].points]
    levels = find_levels(spectrum, COLD, 0.1)
    weights = 2 * spectrum.state_weights / spectrum.volume
    occupation = [GAUSSIAN.occupation((edge - spectrum.energies + levels.vbm) / spec.width) for edge in (-1.0, 1.0)]
    assert vbm_bins.sum() * 0.2 == pytest.approx(weights @ (occupation[1] - occupation[0]), rel=1e-10)


def test_grids_keep_their_identity():
    spec = FeatureSpec(name="x", windows=(Window(anchor="vbm", start=-1, stop=1, points=5),))
    assert "band_edges" not in spec.words()
    joined = spec.model_copy(update={"band_edges": True})
    assert joined.words() != spec.words()
    assert FeatureSpec(name="x", **joined.words()) == joined


def test_it_needs_electrons_and_has_no_published_recipe():
    absolute = FeatureSpec(name="x", windows=(Window(start=-1, stop=1, points=5),), band_edges=True)
    assert absolute.is_anchored
    bare = spectrum_of(np.array([[[-1.0, 1.0]]]), n_electrons=None)
    with pytest.raises(LevelsError, match="electrons"):
        compute_feature(bare, absolute)
    with pytest.raises(UsageError, match="published"):
        absolute.published()

"""Feature vectors: the published grids, their anchors and normalisations, and grids of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from sorep.dos import density_of_states
from sorep.errors import FeatureError, LevelsError, UsageError
from sorep.features import FEATURES, FeatureSpec, Window, anchor_energy, compute_feature, get_feature
from sorep.identity import Identity
from sorep.levels import find_levels
from sorep.smearing import COLD, GAUSSIAN
from sorep.spectrum import Spectrum
from sorep.units import HARTREE_IN_EV

ANCHORED = [name for name, spec in FEATURES.items() if spec.is_anchored]
TOML = """
smearing = "cold"
width = 0.1
[[windows]]
anchor = "vbm"
start = -3
stop = 1.5
points = 10
[[windows]]
start = 0.0
stop = 1.0
points = 5
"""


def kohn_sham(
    n_k: int = 6, n_electrons: float = 6, n_spin: int = 1, repeat: int = 1, shift: float = 0.0, n_band: int = 12
) -> Spectrum:
    """An insulator with 3 filled bands and a gap of about 2 eV; ``repeat`` makes the supercell's."""
    rng = np.random.default_rng(7)
    bands = rng.uniform(-1.0, 0.0, (n_k, n_band)) + np.where(np.arange(n_band) < 3, 0, 3) + 0.1 * np.arange(n_band)
    energies = np.sort(np.repeat(bands, repeat, axis=1), axis=1) + shift
    return Spectrum(
        np.tile(energies.ravel(), n_spin),
        np.full((n_spin, n_k), n_band * repeat),
        np.zeros((n_k, 3)),
        rng.dirichlet(np.ones(n_k)),
        volume=37.0 * repeat,
        n_atoms=2 * repeat,
        degeneracy=2 / n_spin,
        n_electrons=n_electrons * repeat,
    )


def own(**changes: Any) -> FeatureSpec:
    fields: dict[str, Any] = {"name": "own", "windows": [{"start": -2, "stop": 4, "points": 50}], **changes}
    return FeatureSpec.model_validate(fields)


class TestPublishedGrids:
    @pytest.mark.parametrize(
        ("name", "windows", "n_features"),
        [
            ("vbm", [("vbm", -2, 6, 513)], 513),
            ("fermi", [("fermi", -5, 5, 513)], 513),
            ("cbm", [("cbm", -6, 2, 513)], 513),
            ("vbm-fermi-cbm", [("vbm", -1, 1, 171), ("fermi", -1, 1, 171), ("cbm", -1, 1, 171)], 513),
            ("vbm-cbm", [("vbm", -2, 0.15, 257), ("cbm", -0.15, 2, 257)], 514),
            ("kinetic", [("absolute", 0, 6.5 * HARTREE_IN_EV, 1024)], 1024),
            ("kinetic-methods", [("absolute", -0.15 * HARTREE_IN_EV, 6.5 * HARTREE_IN_EV, 512)], 512),
            ("mat2spec-edos", [("vbm", -4, 0, 64), ("cbm", 0, 4, 64)], 128),
        ],
    )
    def test_windows(self, name: str, windows: list, n_features: int) -> None:
        spec = FEATURES[name]
        assert [w.anchor for w in spec.windows] == [w[0] for w in windows]
        np.testing.assert_allclose([(w.start, w.stop, w.points) for w in spec.windows], [w[1:] for w in windows])
        assert spec.n_features == len(spec.energies) == len(spec.feature_names) == n_features
        assert len(set(spec.feature_names)) == n_features
        assert spec.smearing == "gaussian"
        assert spec.width == pytest.approx(0.03 * HARTREE_IN_EV if name.startswith("kinetic") else 0.05)
        assert spec.sampling == ("bin" if name == "mat2spec-edos" else "point")
        assert spec.normalization == "volume"

    def test_the_published_energies(self) -> None:
        vbm = FEATURES["vbm"].energies
        assert (vbm[0], vbm[-1]) == (-2, 6)
        np.testing.assert_allclose(np.diff(vbm), 8 / 512, atol=1e-12)
        bins = FEATURES["mat2spec-edos"].energies
        np.testing.assert_allclose(bins[:64], np.arange(-4, 0, 0.0625) + 0.03125)
        np.testing.assert_allclose(bins[64:], np.arange(0, 4, 0.0625) + 0.03125)
        assert FEATURES["kinetic"].energies[-1] == pytest.approx(176.874, abs=1e-3)

    @pytest.mark.parametrize("name", [n for n, spec in FEATURES.items() if spec.sampling == "point"])
    def test_published_recipe(self, name: str) -> None:
        recipe = get_feature(f"{name}-published")
        assert recipe.name == f"{name}-published"
        assert (recipe.normalization, recipe.spin_factor) == ("cell", False)
        assert recipe.cutoff == pytest.approx(8**0.5 if name in ANCHORED else 6.0)
        assert recipe.windows == FEATURES[name].windows
        found = kohn_sham()
        levels = find_levels(found, COLD, 0.1)
        expected = [
            density_of_states(
                np.linspace(w.start, w.stop, w.points) + anchor_energy(w.anchor, levels),
                found.energies,
                found.state_weights,
                GAUSSIAN,
                recipe.width,
                cutoff=recipe.cutoff,
            )
            for w in recipe.windows
        ]
        np.testing.assert_allclose(compute_feature(found, recipe), np.concatenate(expected), atol=1e-9)

    def test_there_is_no_published_recipe_for_bins(self) -> None:
        with pytest.raises(UsageError) as caught:
            get_feature("mat2spec-edos-published")
        assert caught.value.code == "no-published-recipe"


class TestAnchors:
    @pytest.mark.parametrize("name", ANCHORED)
    @pytest.mark.parametrize("n_electrons", [6, 7], ids=["insulator", "metal"])
    def test_windows_follow_the_spectrum(self, name: str, n_electrons: float) -> None:
        reference = compute_feature(kohn_sham(n_electrons=n_electrons), FEATURES[name])
        for shift in (-11.3, 1e-3, 5.0):
            shifted = compute_feature(kohn_sham(n_electrons=n_electrons, shift=shift), FEATURES[name])
            np.testing.assert_allclose(shifted, reference, atol=1e-10 * reference.max())

    def test_absolute_windows_do_not(self) -> None:
        one, other = (compute_feature(kohn_sham(shift=s), own()) for s in (0.0, 0.5))
        assert np.abs(one - other).max() > 0.1 * one.max()

    def test_each_anchor_sits_where_its_name_says(self) -> None:
        found = kohn_sham()
        levels = find_levels(found, COLD, 0.1)
        for anchor, energy in (("vbm", levels.vbm), ("fermi", levels.fermi_energy), ("cbm", levels.cbm)):
            assert anchor_energy(anchor, levels) == energy
            spec = own(windows=[{"anchor": anchor, "start": -1, "stop": 1, "points": 21}])
            absolute = own(windows=[{"start": energy - 1, "stop": energy + 1, "points": 21}])
            np.testing.assert_allclose(compute_feature(found, spec), compute_feature(found, absolute), atol=1e-11)
        assert anchor_energy("absolute", None) == 0.0

    def test_the_gap_is_removed(self) -> None:
        gapped = kohn_sham()
        wider = Spectrum(
            np.where(gapped.energies > 1, gapped.energies + 10, gapped.energies),
            gapped.band_counts,
            gapped.kpoints,
            gapped.weights,
            gapped.volume,
            gapped.n_atoms,
            gapped.degeneracy,
            gapped.n_electrons,
        )
        spec = FEATURES["mat2spec-edos"]
        np.testing.assert_allclose(compute_feature(wider, spec), compute_feature(gapped, spec), atol=1e-12)

    def test_known_levels_are_used(self) -> None:
        found = kohn_sham()
        levels = find_levels(found, COLD, 0.1)
        spec = FEATURES["vbm"]
        np.testing.assert_array_equal(compute_feature(found, spec, levels), compute_feature(found, spec))
        other = find_levels(kohn_sham(shift=1.0), COLD, 0.1)
        assert np.abs(compute_feature(found, spec, other) - compute_feature(found, spec)).max() > 0.01

    def test_a_metals_fermi_energy_depends_on_its_smearing(self) -> None:
        metal = kohn_sham(n_electrons=7)
        one = compute_feature(metal, own(windows=[{"anchor": "fermi", "start": -1, "stop": 1, "points": 9}]))
        other = own(windows=[{"anchor": "fermi", "start": -1, "stop": 1, "points": 9}], fermi_width=0.3)
        assert np.abs(one - compute_feature(metal, other)).max() > 1e-4

    def test_without_an_empty_band(self) -> None:
        full = kohn_sham(n_band=3)
        assert compute_feature(full, FEATURES["vbm"]).max() > 0
        for name in ANCHORED:
            if name != "vbm":
                with pytest.raises(FeatureError, match="no empty band") as caught:
                    compute_feature(full, FEATURES[name])
                assert caught.value.code == "no-empty-band"

    def test_without_electrons(self) -> None:
        kinetic = Spectrum(np.arange(4.0), [[4]], np.zeros((1, 3)), [1.0], 10.0, 1)
        assert compute_feature(kinetic, own()).shape == (50,)
        with pytest.raises(LevelsError) as caught:
            compute_feature(kinetic, FEATURES["vbm"])
        assert caught.value.code == "no-electrons"


class TestNormalization:
    def test_per_cell_atom_and_volume(self) -> None:
        found = kohn_sham()
        per_cell, per_atom, per_volume = (
            compute_feature(found, own(normalization=n)) for n in ("cell", "atom", "volume")
        )
        np.testing.assert_allclose(per_cell, 2 * per_atom, rtol=1e-12)
        np.testing.assert_allclose(per_cell, 37 * per_volume, rtol=1e-12)

    @pytest.mark.parametrize("name", [n for n, spec in FEATURES.items() if not spec.band_edges])
    @pytest.mark.parametrize("n_electrons", [6, 7], ids=["insulator", "metal"])
    def test_a_supercell_equals_its_cell(self, name: str, n_electrons: float) -> None:
        cell, supercell = (kohn_sham(n_electrons=n_electrons, repeat=r) for r in (1, 3))
        spec = FEATURES[name]
        one = compute_feature(cell, spec)
        np.testing.assert_allclose(compute_feature(supercell, spec), one, atol=1e-10 * one.max())
        per_atom, per_cell = (spec.model_copy(update={"normalization": n}) for n in ("atom", "cell"))
        one = compute_feature(cell, per_atom)
        np.testing.assert_allclose(compute_feature(supercell, per_atom), one, atol=1e-10 * one.max())
        one = compute_feature(cell, per_cell)
        np.testing.assert_allclose(compute_feature(supercell, per_cell), 3 * one, atol=1e-9 * one.max())

    @pytest.mark.parametrize("name", FEATURES)
    def test_equal_spin_channels_change_nothing(self, name: str) -> None:
        one, two = (compute_feature(kohn_sham(n_spin=n), FEATURES[name]) for n in (1, 2))
        np.testing.assert_allclose(one, two, atol=1e-12)

    def test_the_spin_factor(self) -> None:
        with_factor, without = (compute_feature(kohn_sham(), own(spin_factor=f)) for f in (True, False))
        np.testing.assert_allclose(with_factor, 2 * without, rtol=1e-12)

    @pytest.mark.parametrize("sampling", ["point", "bin"])
    def test_it_counts_all_states(self, sampling: str) -> None:
        found = kohn_sham()
        window = {"start": -6, "stop": 10, "points": 3200}
        spec = own(windows=[window], sampling=sampling, normalization="atom")
        assert compute_feature(found, spec).sum() * 16 / 3200 == pytest.approx(2 * 12 / 2, rel=2e-3)


class TestIdentity:
    CHANGES: tuple[dict[str, Any], ...] = (
        {"windows": [{"start": -2, "stop": 4, "points": 51}]},
        {"windows": [{"start": -2, "stop": 4.5, "points": 50}]},
        {"windows": [{"start": -2.5, "stop": 4, "points": 50}]},
        {"windows": [{"anchor": "vbm", "start": -2, "stop": 4, "points": 50}]},
        {"windows": [{"start": -2, "stop": 4, "points": 50}] * 2},
        {"smearing": "cold"},
        {"width": 0.06},
        {"sampling": "bin"},
        {"normalization": "atom"},
        {"spin_factor": False},
        {"band_edges": True},
        {"cutoff": 6.0},
        {"fermi_smearing": "gaussian"},
        {"fermi_width": 0.2},
    )

    def test_every_field_that_matters_changes_it(self) -> None:
        hashes = {Identity.of(own(**change).words()).hash for change in ({}, *self.CHANGES)}
        assert len(hashes) == 1 + len(self.CHANGES)
        fields = {key for change in self.CHANGES for key in change}
        assert fields == FeatureSpec.model_fields.keys() - {"name"}  # a new field must be listed above

    def test_the_name_does_not(self) -> None:
        assert Identity.of(own(name="other").words()) == Identity.of(own().words())

    def test_equal_numbers_written_otherwise(self) -> None:
        one = own(width=1, windows=[{"start": -2.0, "stop": 4.0, "points": 50}])
        assert Identity.of(one.words()) == Identity.of(own(width=1.0).words())

    def test_it_survives_json(self) -> None:
        for spec in FEATURES.values():
            again = FeatureSpec.model_validate_json(spec.model_dump_json())
            assert again == spec
            assert Identity.of(again.words()) == Identity.of(spec.words())


class TestValidation:
    @pytest.mark.parametrize(
        "changes",
        [
            {"windows": []},
            {"windows": [{"start": 1, "stop": 1, "points": 5}]},
            {"windows": [{"start": 2, "stop": 1, "points": 5}]},
            {"windows": [{"start": float("nan"), "stop": 1, "points": 5}]},
            {"windows": [{"start": 0, "stop": float("inf"), "points": 5}]},
            {"windows": [{"start": 0, "stop": 1, "points": 0}]},
            {"windows": [{"start": 0, "stop": 1, "points": 5, "anchor": "lumo"}]},
            {"windows": [{"start": 0, "stop": 1, "points": 5, "step": 0.1}]},
            {"smearing": "lorentzian"},
            {"fermi_smearing": "tetrahedra"},
            {"width": 0},
            {"width": float("nan")},
            {"width": float("inf")},
            {"normalization": "electron"},
            {"sampling": "average"},
            {"cutoff": 0},
            {"cutoff": 6.0, "sampling": "bin"},
            {"name": ""},
            {"name": "a/b"},
            {"spin": True},
        ],
        ids=str,
    )
    def test_what_is_refused(self, changes: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            own(**changes)

    def test_a_spec_cannot_be_changed(self) -> None:
        with pytest.raises(ValidationError):
            own().width = 0.1
        with pytest.raises(ValidationError):
            Window(start=0, stop=1, points=3).start = 0.5


@pytest.mark.parametrize("points", [1, 2, 1000, 100_000])
@pytest.mark.parametrize("sampling", ["point", "bin"])
def test_feature_names_are_unique_on_any_grid(points: int, sampling: str) -> None:
    windows = [{"start": -0.004, "stop": 0.006, "points": points}, {"start": 0, "stop": 0.01, "points": points}]
    names = own(windows=[*windows, {**windows[0], "anchor": "vbm"}], sampling=sampling).feature_names
    assert len(set(names)) == len(names) == 3 * points


class TestFiles:
    def test_toml(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.toml"
        path.write_text(TOML)
        spec = get_feature(path)
        assert spec == get_feature(str(path))
        assert (spec.name, spec.smearing, spec.width, spec.n_features) == ("mine", "cold", 0.1, 15)
        assert spec.windows[0] == Window(anchor="vbm", start=-3, stop=1.5, points=10)
        assert spec.windows[1].anchor == "absolute"
        path.write_text('name = "yours"\n' + TOML)
        assert get_feature(path).name == "yours"

    def test_json(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.json"
        path.write_text(FEATURES["vbm-cbm"].model_dump_json())
        assert get_feature(path) == FEATURES["vbm-cbm"]

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            pytest.param(TOML.replace("width", "widht"), "widht", id="unknown key"),
            pytest.param(TOML.replace("points = 10", "points = 10\nstep = 1"), r"windows\.0\.step", id="unknown inner"),
            pytest.param(TOML.replace("stop = 1.5", "stop = -9"), "above start", id="window upside down"),
            pytest.param(TOML.replace("cold", "hot"), "hot", id="unknown smearing"),
            pytest.param("width = 0.1", "windows", id="no window"),
            pytest.param("width = ", "cannot read", id="not TOML"),
            pytest.param("", "windows", id="empty"),
        ],
    )
    def test_toml_with_errors(self, tmp_path: Path, content: str, said: str) -> None:
        path = tmp_path / "mine.toml"
        path.write_text(content)
        with pytest.raises(UsageError, match=said) as caught:
            get_feature(path)
        assert caught.value.code == "bad-feature-file"
        assert str(path) in caught.value.message

    @pytest.mark.parametrize(
        "content", ["{", "[]", "3", '{"name": "a", "windows": 3}', '{"windows": [{"start": "x"}]}']
    )
    def test_json_with_errors(self, tmp_path: Path, content: str) -> None:
        path = tmp_path / "mine.json"
        path.write_text(content)
        with pytest.raises(UsageError) as caught:
            get_feature(path)
        assert caught.value.code == "bad-feature-file"

    @pytest.mark.parametrize("suffix", ["toml", "json"])
    def test_files_that_cannot_be_read(self, tmp_path: Path, suffix: str) -> None:
        with pytest.raises(UsageError, match="cannot read"):
            get_feature(tmp_path / f"missing.{suffix}")
        (tmp_path / f"binary.{suffix}").write_bytes(b"\xff\xfe\x00\x80")
        with pytest.raises(UsageError, match="cannot read"):
            get_feature(tmp_path / f"binary.{suffix}")


def test_names() -> None:
    assert get_feature("vbm") is FEATURES["vbm"]
    assert get_feature(FEATURES["cbm"]) is FEATURES["cbm"]
    assert get_feature("vbm-published") == FEATURES["vbm"].published()
    for unknown in ("vmb", "vbm-publish", "nothing-published", "grid.yaml"):
        with pytest.raises(UsageError) as caught:
            get_feature(unknown)
        assert caught.value.code == "unknown-feature"
        assert "vbm-fermi-cbm" in caught.value.remedy


def test_built_in_specs_are_named_as_they_are_listed() -> None:
    assert all(name == spec.name for name, spec in FEATURES.items())
    assert json.dumps({name: spec.words() for name, spec in FEATURES.items()}, allow_nan=False)

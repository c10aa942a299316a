"""The kinetic method as a whole: settings, identity, estimates, and spectra with linear dependence."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from pydantic import ValidationError

from sorep._fortran import blocks, eigen, sums
from sorep._fortran.load import Kernel
from sorep.cells import canonical_cell
from sorep.eigen import LINEAR_DEPENDENCE_THRESHOLD
from sorep.errors import BasisError, LevelsError, StructureError, UsageError
from sorep.features import FEATURES, compute_feature
from sorep.kinetic.method import KineticSettings
from sorep.kinetic.operators import KINETIC
from sorep.kinetic.orbitals import Orbitals
from sorep.meshes import irreducible_mesh
from sorep.structure import Structure
from sorep.units import BOHR_IN_ANGSTROM, HARTREE_IN_EV


class TestSettings:
    def test_the_identity_names_the_basis_by_its_content(self, tmp_path: Path) -> None:
        path = tmp_path / "own.nw"
        path.write_text('BASIS "ao basis" SPHERICAL\nH S\n 0.5 1.0\nEND\n')
        one = KineticSettings(basis=str(path)).identity()
        (tmp_path / "elsewhere").mkdir()
        copy = tmp_path / "elsewhere" / "own.nw"
        copy.write_text(path.read_text())
        assert KineticSettings(basis=str(copy)).identity() == one
        copy.write_text(path.read_text().replace("0.5", "0.6"))
        assert KineticSettings(basis=str(copy)).identity() != one
        assert KineticSettings(basis="ANO-ML-OS").identity() == KineticSettings().identity()

    def test_equal_settings_have_one_identity(self) -> None:
        again = pickle.loads(pickle.dumps(KineticSettings(k_spacing=0.3)))
        assert again.identity() == KineticSettings(k_spacing=0.3).identity()
        assert KineticSettings.checked(k_spacing=0.3) == again

    def test_the_published_recipe(self) -> None:
        published = KineticSettings.published(k_spacing=0.25)
        assert published == KineticSettings(
            basis="ano-ml-os-published", discard_below=0.1, k_rounding="round", keep_cell=True, k_spacing=0.25
        )

    @pytest.mark.parametrize(
        "options",
        [
            {"operator": "momentum"},
            {"k_spacing": 0},
            {"k_spacing": -0.2},
            {"k_spacing": float("nan")},
            {"k_spacing": float("inf")},
            {"k_rounding": "floor"},
            {"discard_below": -1},
            {"symprec": 0},
            {"precision": 0},
            {"precision": 1e-3},
            {"k_spacings": 0.2},
        ],
        ids=str,
    )
    def test_what_is_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            KineticSettings(**options)
        with pytest.raises(UsageError, match=next(iter(options))) as caught:
            KineticSettings.checked(**options)
        assert caught.value.code == "bad-option"
        assert "k_spacing" in caught.value.remedy

    def test_unknown_basis(self, crystals) -> None:
        settings = KineticSettings(basis="ano-ml-so")
        for call in (settings.identity, lambda: settings.calculate(crystals["silicon"])):
            with pytest.raises(BasisError) as caught:
                call()
            assert caught.value.code == "unknown-basis"


class TestCalculate:
    @pytest.mark.parametrize("name", ["silicon", "anatase", "triclinic"])
    def test_the_estimate_counts_what_is_computed(self, crystals, redescribe, name: str) -> None:
        structure = redescribe(crystals[name], (1, 1, 2))
        settings = KineticSettings(k_spacing=0.35)
        work = settings.estimate(structure)
        calculation = settings.calculate(structure)
        spectrum, cell = calculation.spectrum, calculation.cell
        n_basis = settings.load_basis().n_functions(cell.structure.numbers)
        assert work.n_functions == n_basis
        assert work.n_kpoints == len(spectrum.weights)
        assert spectrum.eigenvalues.shape == (1, work.n_kpoints, n_basis)
        assert (spectrum.n_atoms, spectrum.volume) == (cell.structure.n_atoms, cell.structure.volume)
        assert spectrum.n_atoms == crystals[name].n_atoms
        assert (spectrum.n_electrons, spectrum.degeneracy, spectrum.flags) == (None, 1.0, ())
        assert (np.diff(spectrum.eigenvalues) >= 0).all()
        assert spectrum.energies.min() > 0

    def test_it_is_the_operators_spectrum_on_the_mesh_in_electronvolts(self, crystals) -> None:
        settings = KineticSettings(k_spacing=0.5, basis="ano-ml-ae")
        calculation = settings.calculate(crystals["nacl"])
        cell = canonical_cell(crystals["nacl"])
        mesh = irreducible_mesh(cell, 0.5)
        np.testing.assert_allclose(calculation.spectrum.kpoints, mesh.kpoints)
        np.testing.assert_allclose(calculation.spectrum.weights, mesh.weights)
        operator = KINETIC.bloch_operator(Orbitals.of(cell.structure, settings.load_basis()), split=0.0)
        expected = np.array(operator.eigenvalues(mesh.kpoints)) * HARTREE_IN_EV
        np.testing.assert_allclose(calculation.spectrum.eigenvalues[0], expected, atol=1e-8)

    def test_keep_cell(self, crystals, redescribe) -> None:
        structure = redescribe(crystals["silicon"], (1, 1, 2))
        kept = KineticSettings(keep_cell=True, k_spacing=0.5).calculate(structure)
        assert kept.cell.structure is structure
        assert kept.spectrum.n_atoms == 4

    def test_the_overlap(self, crystals) -> None:
        spectrum = KineticSettings(operator="overlap", k_spacing=0.5).calculate(crystals["batio3"]).spectrum
        assert spectrum.energies.min() > 0
        # Normalised functions: the mean eigenvalue is the mean diagonal element, one and a little from the images.
        assert spectrum.energies @ spectrum.state_weights / 19 == pytest.approx(1.0, abs=0.1)

    @pytest.mark.parametrize("operator", ["kinetic", "overlap"])
    def test_no_electrons_no_anchor(self, crystals, operator: str) -> None:
        spectrum = KineticSettings(operator=operator, k_spacing=0.5).calculate(crystals["silicon"]).spectrum
        with pytest.raises(LevelsError):
            compute_feature(spectrum, FEATURES["vbm"])

    def test_settings_matter(self, crystals) -> None:
        def lowest(**options: Any) -> float:
            return KineticSettings(k_spacing=0.5, **options).calculate(crystals["nacl"]).spectrum.energies.min()

        # The published cut of diffuse primitives lifts the lowest eigenvalue of NaCl about tenfold.
        assert lowest(discard_below=0.1) > 5 * lowest()
        assert abs(lowest(precision=1e-9) - lowest()) < 1e-6

    def test_missing_elements_are_refused_by_both(self) -> None:
        uranium = Structure("UO", 3 * np.eye(3), [92, 8], [[0, 0, 0], [0.5, 0.5, 0.5]])
        for call in (KineticSettings().estimate, KineticSettings().calculate):
            with pytest.raises(BasisError, match="92") as caught:
                call(uranium)
            assert caught.value.code == "missing-element"

    def test_what_spglib_refuses_is_refused_by_both(self) -> None:
        coincident = Structure("x", 4 * np.eye(3), [14, 14], [[0, 0, 0], [0, 0, 1e-7]])
        for call in (KineticSettings().estimate, KineticSettings().calculate):
            with pytest.raises(StructureError) as caught:
                call(coincident)
            assert caught.value.code == "symmetry-search-failed"


class TestLinearDependence:
    @staticmethod
    def settings(folder: Path, text: str, **options: Any) -> KineticSettings:
        path = folder / "own.nw"
        path.write_text(f'BASIS "ao basis" SPHERICAL\n{text}\nEND\n')
        return KineticSettings(basis=str(path), **options)

    def test_a_function_that_is_there_twice(self, tmp_path: Path, crystals) -> None:
        text = "Si S\n 0.5 1.0\nSi P\n 0.4 1.0"
        once = self.settings(tmp_path, text, k_spacing=0.4).calculate(crystals["silicon"]).spectrum
        assert (once.n_removed, once.flags) == (0, ())
        almost = "\nSi S\n 0.500001 1.0"  # its difference from the first has a norm of 1e-12
        twice = self.settings(tmp_path, text + almost, k_spacing=0.4).calculate(crystals["silicon"]).spectrum
        assert twice.n_removed == 2 * len(twice.weights)
        assert twice.flags == ("linear-dependence",)
        assert not twice.is_ragged
        np.testing.assert_allclose(twice.eigenvalues, once.eigenvalues, atol=1e-4)
        spec = FEATURES["kinetic"]
        one, other = compute_feature(once, spec), compute_feature(twice, spec)
        np.testing.assert_allclose(one, other, atol=1e-4 * one.max())

    def test_dependence_at_some_k_points_only(self, tmp_path: Path) -> None:
        """A Gaussian much wider than its cell has next to no wave of the zone's border in it, but all of Gamma's."""
        edge = 3.6
        structure = Structure("H", edge * BOHR_IN_ANGSTROM * np.eye(3), [1], [[0, 0, 0]])
        settings = self.settings(tmp_path, "H S\n 0.025 1.0\nH S\n 1.0 1.0", k_spacing=0.8)
        calculation = settings.calculate(structure)
        spectrum = calculation.spectrum
        assert spectrum.is_ragged
        assert spectrum.flags == ("linear-dependence",)
        assert spectrum.n_removed == 2 * len(spectrum.weights) - len(spectrum.energies)

        orbitals = Orbitals.of(calculation.cell.structure, settings.load_basis())
        kinetic, overlap = KINETIC.bloch_operator(orbitals, split=0.0, precision=1e-15).matrices(spectrum.kpoints)
        assert overlap is not None
        ends = np.cumsum(spectrum.band_counts[0])[:-1]
        for energies, t, s in zip(np.split(spectrum.energies, ends), kinetic, overlap, strict=True):
            values, vectors = np.linalg.eigh(s)
            kept = vectors[:, values > LINEAR_DEPENDENCE_THRESHOLD]
            reduced = (kept.conj().T @ m @ kept for m in (t, s))
            expected = scipy.linalg.eigh(*reduced, eigvals_only=True) * HARTREE_IN_EV
            np.testing.assert_allclose(energies, expected, rtol=1e-3, atol=1e-9)
        assert compute_feature(spectrum, FEATURES["kinetic"]).max() > 0

    def test_atoms_on_top_of_each_other(self, crystals) -> None:
        # 0.01 Angstrom apart: each function of the one is almost that of the other.
        nacl = crystals["nacl"]
        close = Structure("x", nacl.lattice, [11, 11], [[0, 0, 0], [0.002, 0, 0]])
        spectrum = KineticSettings(k_spacing=0.8, symprec=1e-6).calculate(close).spectrum
        alone = KineticSettings(k_spacing=0.8).calculate(Structure("x", nacl.lattice, [11], [[0, 0, 0]])).spectrum
        assert np.isfinite(spectrum.energies).all()
        assert len(spectrum.energies) / len(spectrum.weights) <= 2
        assert spectrum.energies.min() == pytest.approx(alone.energies.min(), rel=0.02)


@pytest.mark.parametrize("name", ["silicon", "anatase", "triclinic"])
def test_without_compiled_kernels_the_twins_do_the_same(crystals, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = KineticSettings(k_spacing=0.6)
    compiled = settings.calculate(crystals[name]).spectrum
    for kernel in (blocks, eigen, sums):
        monkeypatch.setattr(kernel, "KERNEL", Kernel(None, "absent"))
    twins = settings.calculate(crystals[name]).spectrum
    np.testing.assert_allclose(twins.energies, compiled.energies, rtol=1e-10, atol=1e-10)

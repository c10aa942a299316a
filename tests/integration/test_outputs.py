"""Finished calculations of other people: Quantum ESPRESSO 6.2 to 7.5, and VASP."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sorep.errors import LevelsError, SorepError
from sorep.levels import NO_EMPTY_BAND, fermi_energy, find_levels
from sorep.outputs import Output, read_output, read_theory
from sorep.smearing import COLD, FERMI_DIRAC, GAUSSIAN, METHFESSEL_PAXTON
from sorep.units import HARTREE_IN_EV

SMEARINGS = {"gaussian": GAUSSIAN, "mv": COLD, "mp": METHFESSEL_PAXTON, "fd": FERMI_DIRAC}

REFUSED = {
    "projwfc/xml_format": "no-bands",
    "projwfc/xml_parse": "unknown-output",
    "pw/failed_interrupted_relax": "no-bands",
    "pw/failed_interrupted_xml": "truncated-xml",
    "pw/initialization_xml_new": "no-bands",
    "pw/vcrelax_success_atoms_shape": "no-bands",
    # Relaxations that stopped before convergence: the structure is that of the step to come.
    "pw/relax_failed_not_converged_nstep": "structure-moved",
    "pw/vcrelax_failed_fft_significant_volume_contraction": "structure-moved",
    "pw/vcrelax_failed_not_converged_nstep": "structure-moved",
    "pw/vcrelax_failed_fft_significant_volume_contraction_stdout": "unknown-output",
}

SPURIOUS = {"pw/default_xml_220603", "pw/default_xml_240411", "pw/default_xml_241015"}
"""Insulators with cold smearing where pw.x 7.1 to 7.4 settled on a Fermi energy in the gap that misses electrons."""

RYDBERG = {"test/dimer.save"}
"""pw.x 6.2 wrote the smearing width in Rydberg."""


def name_of(path: str) -> str:
    return "/".join(path.split("/")[-3:-1])


@pytest.fixture(scope="module")
def index(shared_folder: Path) -> pd.DataFrame:
    folder = shared_folder / "data" / "qe_outputs"
    if not (folder / "xml_index.csv").is_file():
        pytest.skip("no outputs of Quantum ESPRESSO")
    table = pd.read_csv(folder / "xml_index.csv", dtype=str, keep_default_na=False)
    return table.assign(file=[folder / path for path in table.path], name=[name_of(path) for path in table.path])


@pytest.fixture(scope="module")
def readable(index: pd.DataFrame) -> list[tuple[pd.Series, Output]]:
    return [(row, read_output(row.file)) for _, row in index.iterrows() if row["name"] not in REFUSED]


def test_each_is_read_or_refused(index: pd.DataFrame) -> None:
    refused = {}
    for row in index.itertuples():
        try:
            output = read_output(row.file)
        except SorepError as error:
            refused[row.name] = error.code
            continue
        spectrum = output.spectrum
        n_band = int(row.nbnd)
        assert spectrum.band_counts.shape == (1 + (row.lsda == "true"), int(float(row.nks))), row.path
        assert (spectrum.band_counts == n_band).all(), row.path
        assert spectrum.n_electrons == float(row.nelec), row.path
        assert spectrum.n_atoms == int(row.natoms), row.path
        assert output.noncollinear == (row.noncolin == "true"), row.path
        assert (output.code_version, output.calculation) == (row.version, row.calc), row.path
        assert read_theory(row.file) == output.theory, row.path
        output.structure.validate(minimum_distance=0.3)  # one is made up
    assert refused == REFUSED


def test_occupations_hold_the_electrons(readable: list[tuple[pd.Series, Output]]) -> None:
    checked = 0
    for row, output in readable:
        if not output.converged or output.occupations is None or row["name"] in SPURIOUS:
            continue
        spectrum = output.spectrum
        held = spectrum.degeneracy * spectrum.state_weights @ output.occupations
        assert held == pytest.approx(spectrum.n_electrons, abs=1e-6), row.path
        checked += 1
    assert checked > 40


def test_fixed_occupations_give_the_same_edges(readable: list[tuple[pd.Series, Output]]) -> None:
    checked = 0
    for row, output in readable:
        if row.occupations != "fixed" or output.occupations is None:
            continue
        levels = find_levels(output.spectrum, GAUSSIAN, 0.05)
        energies, is_filled = output.spectrum.energies, output.occupations > 0.5
        assert levels.vbm == energies[is_filled].max() == pytest.approx(output.highest_occupied, abs=1e-6), row.path
        if is_filled.all():
            assert levels.flags == (NO_EMPTY_BAND,), row.path
        else:
            assert levels.cbm == energies[~is_filled].min(), row.path
        checked += 1
    assert checked > 20


def test_smeared_occupations_and_fermi_energies(readable: list[tuple[pd.Series, Output]]) -> None:
    determined = 0
    for row, output in readable:
        if row.occupations != "smearing" or output.occupations is None:
            continue
        smearing, width = SMEARINGS[row.smearing], float(row.degauss_Ha) * HARTREE_IN_EV
        if row["name"] in RYDBERG:
            width /= 2
        spectrum, printed = output.spectrum, output.fermi_energies
        # The printed energy gives the printed occupations, in each channel where the magnetisation is fixed.
        per_channel = printed if len(printed) == spectrum.n_spin else printed * spectrum.n_spin
        mu = np.repeat(per_channel, spectrum.band_counts.sum(axis=1))
        occupations = smearing.occupation((mu - spectrum.energies) / width)
        np.testing.assert_allclose(output.occupations, occupations, rtol=0, atol=1e-10, err_msg=row.path)
        if len(printed) == 2:
            continue
        found = fermi_energy(spectrum, smearing, width)
        held = spectrum.degeneracy * spectrum.state_weights @ smearing.occupation((found - spectrum.energies) / width)
        assert held == pytest.approx(spectrum.n_electrons, abs=1e-9), row.path
        # Where states lie around it, it is one number (pw.x stops at an error of 1e-10 electrons). In a gap many
        # energies hold the electrons, and with cold smearing some at its edge hold them as well.
        density = spectrum.state_weights @ smearing.delta((found - spectrum.energies) / width) / width
        levels = find_levels(spectrum, smearing, width)
        if levels.is_metal or (smearing is GAUSSIAN and density > 1e-6):
            assert found == pytest.approx(printed[0], abs=1e-4), row.path
            determined += 1
        if not levels.is_metal and levels.cbm is not None:
            assert levels.vbm < printed[0] < levels.cbm, row.path
            assert smearing is not GAUSSIAN or levels.vbm < found < levels.cbm, row.path
    assert determined >= 6


def test_k_points_lie_on_the_mesh_that_was_asked_for(readable: list[tuple[pd.Series, Output]]) -> None:
    import lxml.etree as etree

    from sorep.outputs import open_output

    checked = 0
    for row, output in readable:
        with open_output(row.file) as file:
            mesh = etree.parse(file).find("{*}input/{*}k_points_IBZ/{*}monkhorst_pack")
        if mesh is None:
            continue
        numbers = np.array([int(mesh.get(f"nk{i}")) for i in (1, 2, 3)])
        shifts = np.array([int(mesh.get(f"k{i}")) for i in (1, 2, 3)])
        steps = output.spectrum.kpoints * numbers - shifts / 2
        np.testing.assert_allclose(steps, np.round(steps), rtol=0, atol=1e-5, err_msg=row.path)
        checked += 1
    assert checked > 20


@pytest.fixture(scope="module")
def vaspruns(shared_folder: Path) -> list[Path]:
    folder = shared_folder / "data" / "electronic_dos" / "vasp_fixtures"
    found = sorted(path for path in folder.rglob("vasprun*") if path.is_file())
    return found or pytest.skip("no outputs of VASP")


def test_vasp_has_the_same_gap(vaspruns: list[Path]) -> None:
    from pymatgen.io.vasp.outputs import Vasprun

    insulators = metals = 0
    for path in vaspruns:
        if path.name == "vasprun.xml.JVASP-42538":  # a band falls by 126 eV below the one before it
            with pytest.raises(SorepError) as caught:
                read_output(path)
            assert caught.value.code == "unsorted-eigenvalues"
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run = Vasprun(path, parse_potcar_file=False, occu_tol=0.5)  # smearing lifts occupations above its default
        output = read_output(path)
        assert read_theory(path) == output.theory
        assert output.spectrum.n_electrons == run.parameters["NELECT"]
        assert output.structure.formula == type(output.structure).from_pymatgen(run.final_structure).formula
        try:
            levels = find_levels(output.spectrum, GAUSSIAN, 0.05)
        except LevelsError as error:
            raise AssertionError(path) from error
        if levels.is_metal or levels.cbm is None:
            assert levels.fermi_energy == pytest.approx(run.efermi, abs=0.3)  # of the SCF, on another mesh
            metals += 1
            continue
        assert levels.vbm - 1e-3 <= run.efermi <= levels.cbm + 1e-3
        if "zero-weight-kpoints" not in output.spectrum.flags:  # pymatgen counts those too
            gap, cbm, vbm, _ = run.eigenvalue_band_properties
            assert (levels.band_gap, levels.cbm, levels.vbm) == pytest.approx((gap, cbm, vbm), abs=1e-6)
            insulators += 1
    assert insulators >= 2
    assert metals >= 1

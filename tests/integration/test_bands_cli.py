"""`sorep bands`: from structure files to pictures and files of numbers, for both operators, and every error."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write
from typer.testing import CliRunner

from sorep import BandStructure, KineticSettings, Structure, band_structure, structures_from
from sorep.cli import app
from sorep.single_shot.executable import PwX
from sorep.single_shot.method import SingleShot, SingleShotSettings
from sorep.single_shot.pseudos import DEFAULT_FAMILY
from sorep.single_shot.runner import PwRunner

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "structures"

Sorep = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """Silicon, two frames of one file, and three that cannot be computed."""
    folder = tmp_path_factory.mktemp("bands") / "inputs"
    folder.mkdir()
    write(folder / "si.cif", bulk("Si"))
    write(folder / "al.xyz", [bulk("Al", a=4.0), bulk("Mg")], format="extxyz")
    write(folder / "fm.vasp", Atoms("Fm", cell=[4, 4, 4], pbc=True))
    write(folder / "close.vasp", Atoms("H2", positions=[[0, 0, 0], [0.1, 0, 0]], cell=[4, 4, 4], pbc=True))
    (folder / "junk.cif").write_text("junk")
    return folder


# Kinetic bands


@pytest.fixture(scope="module")
def drawn(inputs: Path, sorep: Sorep) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder of bands of the mixed input, and what the command said."""
    out = inputs.parent / "bands"
    return out, sorep("bands", inputs, "-o", out, "--line-spacing", "0.1", "--jobs", "2")


def test_what_fails_costs_no_other(drawn):
    out, result = drawn
    assert result.returncode == 3
    assert result.stdout.endswith(f"3 band structures in {out}\n")
    assert re.search(rf"(?m)^si +Si2 +\d+ k points +8 bands +{out}/si\.png$", result.stdout)
    for id, code in {"fm": "missing-element", "close": "atoms-too-close", "junk": "unreadable-file"}.items():
        assert re.search(rf"(?m)^{id}: .+ \[{code}\]\. Remedy: .+", result.stderr)
    assert "3 failed: " in result.stderr
    stems = {path.stem for path in out.iterdir()}
    assert "si" in stems
    assert len(stems) == 3  # al:0 and al:1 have names that are fit for files
    assert {path.suffix for path in out.iterdir()} == {".png", ".npz"}


def test_the_file_holds_the_bands(drawn):
    out, _ = drawn
    bands = BandStructure.read(out / "si.npz")
    expected = band_structure(KineticSettings(), Structure.from_ase(bulk("Si")), 0.1)
    assert bands.identity == expected.identity
    assert (bands.structure.id, bands.path.route) == ("si", "GAMMA-X-U|K-GAMMA-L-W-X")
    np.testing.assert_allclose(bands.energies, expected.energies, atol=1e-5)  # the CIF is rounded
    frames = [BandStructure.read(path) for path in out.glob("al*.npz")]
    assert {frame.structure.id: frame.path.route[:9] for frame in frames} == {"al:0": "GAMMA-X-U", "al:1": "GAMMA-M-K"}


def test_the_picture_is_one(drawn):
    picture = matplotlib.image.imread(drawn[0] / "si.png")
    assert min(picture.shape[:2]) > 300
    assert len(np.unique(picture[..., :3].reshape(-1, 3), axis=0)) > 10


def test_other_formats_tables_and_the_default_folder(sorep, inputs, tmp_path):
    words = ("--format", "svg", "--csv", "--operator", "overlap", "--line-spacing", "0.2", "-j", "1", "--quiet")
    for _ in range(2):  # files are replaced
        result = sorep("bands", inputs / "si.cif", *words, "--window", "-1", "3", cwd=tmp_path)
        assert (result.returncode, result.stdout, result.stderr) == (0, "1 band structures in sorep-bands\n", "")
    assert sorted(path.name for path in (tmp_path / "sorep-bands").iterdir()) == ["si.csv", "si.npz", "si.svg"]
    assert (tmp_path / "sorep-bands/si.svg").read_bytes().startswith(b"<?xml")
    bands = BandStructure.read(tmp_path / "sorep-bands/si.npz")
    assert bands.identity == KineticSettings(operator="overlap").identity()
    table = pd.read_csv(tmp_path / "sorep-bands/si.csv")
    np.testing.assert_allclose(table[[str(n) for n in range(1, 9)]], bands.energies[0], rtol=1e-14)


def test_a_dry_run_lists_lines_and_refusals_and_writes_nothing(sorep, inputs, tmp_path):
    result = sorep("bands", inputs, "--dry-run", "--line-spacing", "0.1", "-j", "1", cwd=tmp_path)
    assert result.returncode == 3
    match = re.search(r"(?m)^si +Si2 +(\d+) k points +GAMMA-X-U\|K-GAMMA-L-W-X$", result.stdout)
    assert match
    path = band_structure(KineticSettings(), Structure.from_ase(bulk("Si")), 0.1).path
    assert int(match[1]) == len(path)
    assert "3 band structures would be computed" in result.stdout
    assert "3 would be refused: " in result.stderr
    assert re.search(r"(?m)^fm: .+ \[missing-element\]", result.stderr)
    assert list(tmp_path.iterdir()) == []


def test_settings_from_a_file_and_flags_that_win(sorep, inputs, tmp_path):
    (tmp_path / "settings.toml").write_text('operator = "overlap"\nbasis = "sto-3g"\ndiscard_below = 0.2\n')
    words = ("--config", "settings.toml", "--basis", "ano-ml-os", "--line-spacing", "0.3", "-j", "1")
    assert sorep("bands", inputs / "si.cif", *words, "-o", ".", cwd=tmp_path).returncode == 0
    expected = KineticSettings(operator="overlap", discard_below=0.2)
    assert BandStructure.read(tmp_path / "si.npz").identity == expected.identity()


def test_nothing_done_is_a_status_of_its_own(sorep, inputs, tmp_path):
    result = sorep("bands", inputs / "fm.vasp", "-j", "1", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stdout == "0 band structures in sorep-bands\n"


# Wrong usage


@pytest.mark.parametrize(
    ("line", "status", "needles"),
    [
        ("", 2, ["paths"]),
        ("nowhere", 2, ["no-such-input"]),
        ("si.cif --operator potential", 2, ["potential", "kinetic, overlap, single-shot"]),
        ("si.cif --line-spacing 0", 2, ["--line-spacing 0"]),
        ("si.cif --line-spacing nan", 2, ["--line-spacing nan"]),
        ("si.cif --window 2 -2", 2, ["--window 2 -2", "lower"]),
        ("si.cif --format xyz", 2, ["--format", "pdf"]),
        ("si.cif --basis nonsense", 2, ["unknown-basis"]),
        ("si.cif --pw-x pw.x", 2, ["--pw-x: only for single-shot bands", "--operator single-shot"]),
        ("si.cif --spin --moment Fe=2 --k-spacing 0.2", 2, ["--k-spacing, --spin, --moment: only for single-shot"]),
        ("si.cif --operator overlap --family x --mpi y --scratch z", 2, ["--family, --mpi, --scratch"]),
        (
            "si.cif --operator single-shot --basis x --discard-below 1",
            2,
            ["--basis, --discard-below: only for kinetic"],
        ),
        ("si.cif --operator single-shot --moment Fe", 2, ["ELEMENT=MOMENT"]),
        ("si.cif --operator single-shot --moment Fe=2", 2, ["--spin"]),
        ("si.cif --operator single-shot --family nonsense", 1, ["nonsense"]),
        ("si.cif --operator single-shot --config overlap.toml --family nonsense", 1, ["nonsense"]),
        ("si.cif --config features.toml", 2, ["features.toml", "leave them out"]),
        ("si.cif --config unknown.toml", 2, ["k_spacin", "options are"]),
        ("si.cif --memory nan", 2, ["--memory"]),
        ("si.cif --out si.cif", 1, ["unwritable-file", "--out"]),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else "",
)
def test_wrong_usage(inputs, tmp_path, monkeypatch, line, status, needles):
    shutil.copy(inputs / "si.cif", tmp_path)
    (tmp_path / "features.toml").write_text('features = ["kinetic"]')
    (tmp_path / "overlap.toml").write_text('operator = "overlap"')
    (tmp_path / "unknown.toml").write_text("k_spacin = 0.3")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    result = CliRunner().invoke(app, ["bands", *line.split()])
    assert isinstance(result.exception, SystemExit | None), result.exception
    assert result.exit_code == status, result.output
    for needle in needles:
        assert needle in result.output
    assert sorted(tmp_path.iterdir()) == before


# Kohn-Sham bands


@pytest.fixture
def machine(pw_x: PwX, get_family, monkeypatch) -> PwX:
    """The pw.x and the pseudopotentials that the command finds by itself."""
    monkeypatch.setenv("SOREP_PW_X", str(pw_x.path))
    monkeypatch.setenv("SOREP_DATA", str(get_family(DEFAULT_FAMILY).folder.parents[1]))
    return pw_x


@pytest.mark.pwx
def test_kohn_sham_bands(sorep, machine, tmp_path):
    """An insulator and, with spin, a metal: edges from the mesh, energies at the mesh's own k points."""
    words = ("--operator", "single-shot", "--line-spacing", "0.2", "--k-spacing", "0.4", "--jobs", "1")
    result = sorep("bands", EXAMPLES / "si.cif", *words, "--supercell", "18", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert re.search(r"(?m)^si +Si8 +\d+ k points +8 bands +gap \d\.\d\d eV +sorep-bands/si\.png$", result.stdout)
    bands = BandStructure.read(tmp_path / "sorep-bands/si.npz")
    assert bands.levels is not None
    assert bands.identity.words["supercell"] == 18.0
    assert (bands.n_spin, bands.n_electrons, bands.degeneracy) == (1, 8.0, 2.0)
    assert bands.levels.band_gap is not None
    assert 1.0 < bands.levels.band_gap < 4.0
    below = bands.energies < bands.levels.fermi_energy
    assert (below.sum(axis=2) == 4).all()
    gamma = next(index for index, label in bands.path.labels.items() if label == "GAMMA")
    method = SingleShot(SingleShotSettings(k_spacing=0.4, interpolate=False), PwRunner(machine, tmp_path))
    (silicon,) = structures_from(EXAMPLES / "si.cif")
    assert isinstance(silicon, Structure)
    spectrum = method.calculate(silicon).spectrum
    at_gamma = spectrum.eigenvalues[0, np.flatnonzero((spectrum.kpoints == 0).all(axis=1))[0]]
    np.testing.assert_allclose(bands.energies[0, gamma], at_gamma, atol=1e-4)  # Gamma lies on the coarse mesh too

    iron = sorep("bands", EXAMPLES / "fe.cif", *words, "--spin", "--moment", "Fe=2.2", "--quiet", cwd=tmp_path)
    assert iron.returncode == 0, iron.stderr
    magnetic = BandStructure.read(tmp_path / "sorep-bands/fe.npz")
    assert (magnetic.n_spin, magnetic.degeneracy) == (2, 1.0)
    assert magnetic.levels is not None
    assert magnetic.levels.is_metal
    assert (magnetic.energies[0].mean(axis=0) < magnetic.energies[1].mean(axis=0)).all()  # exchange splitting


@pytest.mark.pwx
def test_a_stock_pw_x_has_no_matrices(sorep, machine, stock_pw_x, tmp_path):
    words = ("--operator", "single-shot", "--pw-x", stock_pw_x.path, "-j", "1")
    result = sorep("bands", EXAMPLES / "si.cif", *words, cwd=tmp_path)
    assert result.returncode == 1
    assert "[stock-pw-x]" in result.stderr
    assert "sorep pw build" in result.stderr


@pytest.mark.pwx
def test_a_dry_run_of_kohn_sham_bands(sorep, machine, inputs, tmp_path):
    result = sorep("bands", inputs, "--operator", "single-shot", "--dry-run", "-j", "1", cwd=tmp_path)
    assert result.returncode == 3
    assert re.search(r"(?m)^si +Si2 +264 k points +GAMMA-X-U\|K-GAMMA-L-W-X$", result.stdout)
    assert re.search(r"(?m)^fm: .+ \[missing-pseudopotential\]", result.stderr)
    assert list(tmp_path.iterdir()) == []

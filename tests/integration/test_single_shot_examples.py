"""The example scripts that run pw.x, on little."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from ase.data import covalent_radii
from ase.formula import Formula
from ase.neighborlist import neighbor_list
from scipy.spatial.distance import pdist
from scipy.stats import pearsonr, spearmanr

from sorep import FeatureStore
from sorep.features import get_feature
from sorep.levels import find_levels
from sorep.smearing import COLD

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.pwx


def run(script: str, *options: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, EXAMPLES / script, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


def load(name: str) -> ModuleType:
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec and spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def n_spectra(store: Path) -> int:
    return len(FeatureStore(store).tables.read("spectra", ["content_key"]))


def assert_is_picture(path: Path) -> None:
    from matplotlib.image import imread

    pixels = imread(path)
    assert min(pixels.shape[:2]) > 500
    assert pixels.std() > 0


@pytest.fixture(scope="module")
def needs(pw_x, get_family) -> None:
    """What the scripts find on this machine."""
    get_family("pseudo-dojo-0.4-pbe-sr-standard")


# Figure 5


@pytest.fixture(scope="module")
def silicon(needs, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, list[str | Path]]:
    """Output, folder and options of figure_5.py for silicon."""
    folder = tmp_path_factory.mktemp("figure_5")
    options = [EXAMPLES / "structures" / "si.cif", "--steps", "0,1,3", "--k-spacing", "0.55", "--jobs", "1"]
    options += ["--store", folder / "store", "--out", folder / "figure.png"]
    completed = run("figure_5.py", *options)
    assert completed.returncode == 0, completed.stderr
    return completed.stdout, folder, options


def rows(output: str) -> dict[str, tuple[float, float]]:
    """Gap and distance of each step."""
    found = re.findall(r"^ +(\d+|converged) +([\d.]+) +([\d.]+)$", output, re.MULTILINE)
    return {step: (float(gap), float(distance)) for step, gap, distance in found}


def test_silicon_approaches_its_converged_density_of_states(silicon) -> None:
    steps = rows(silicon[0])
    assert list(steps) == ["0", "1", "3", "converged"]
    distances = [distance for _, distance in steps.values()]
    assert distances[-1] == 0
    assert 0 < distances[2] < distances[1] < 1
    assert 0 < distances[0] < 1


def test_gaps_are_those_of_the_stored_spectra_and_of_silicon(silicon) -> None:
    output, folder, _ = silicon
    store = FeatureStore(folder / "store")
    for step, operator in {"0": "single-shot", "1": "scf-1", "3": "scf-3", "converged": "scf"}.items():
        levels = find_levels(store.spectrum("si", operator=operator), COLD, 0.1)
        assert rows(output)[step][0] == pytest.approx(levels.band_gap, abs=0.005)
    assert 0.5 < rows(output)["converged"][0] < 1.0  # PBE has 0.57 eV, between the points of this mesh


def test_a_rerun_of_figure_5_only_draws(silicon) -> None:
    output, folder, options = silicon
    (folder / "figure.png").unlink()
    before = n_spectra(folder / "store")
    again = run("figure_5.py", *options)
    assert again.returncode == 0, again.stderr
    assert n_spectra(folder / "store") == before == 4
    assert rows(again.stdout) == rows(output)
    assert_is_picture(folder / "figure.png")


def test_figure_5_says_what_is_wrong_with_a_structure(needs, tmp_path: Path) -> None:
    (tmp_path / "broken.cif").write_text("data_broken\n")
    completed = run("figure_5.py", tmp_path / "broken.cif", "--store", tmp_path / "store", "--out", tmp_path / "x.png")
    assert completed.returncode == 1
    assert "Traceback" not in completed.stderr
    assert completed.stderr.strip()
    assert not (tmp_path / "x.png").exists()


# Figure 7


@pytest.fixture(scope="module")
def pairs(needs, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Output and folder of figure_7.py for a few crystals."""
    folder = tmp_path_factory.mktemp("figure_7")
    options = ["--limit", "6", "--k-spacing", "1.2", "--jobs", "1"]
    completed = run("figure_7.py", *options, "--store", folder / "store", "--out", folder / "figure.png")
    assert completed.returncode == 0, completed.stderr
    assert "scf: 6 of 6" in completed.stderr
    return completed.stdout, folder


@pytest.mark.parametrize("feature", ["fermi", "vbm"])
def test_correlation_is_that_of_the_stored_features(pairs, feature: str) -> None:
    output, folder = pairs
    found = re.search(rf"^{feature}: (\d+) crystals, (\d+) pairs, Pearson (\S+), Spearman (\S+)$", output, re.MULTILINE)
    assert found
    store, name = FeatureStore(folder / "store"), get_feature(feature).name
    single_shot, scf = (store.matrix(name, operator=operator) for operator in ("single-shot", "scf"))
    both = sorted({*single_shot.ids} & {*scf.ids})
    assert int(found[1]) == len(both) >= 4
    distances = [pdist(store.matrix(name, operator=o, ids=both).values) for o in ("single-shot", "scf")]
    assert int(found[2]) == len(distances[0])
    assert float(found[3]) == pytest.approx(pearsonr(*distances)[0], abs=6e-4)
    assert float(found[4]) == pytest.approx(spearmanr(*distances)[0], abs=6e-4)


def test_figure_7_is_drawn(pairs) -> None:
    assert_is_picture(pairs[1] / "figure.png")


def test_too_few_crystals_are_refused() -> None:
    completed = run("figure_7.py", "--limit", "2")
    assert completed.returncode == 2
    assert "--limit 2" in completed.stderr


def test_bonds_of_the_table_of_crystals_are_plausible() -> None:
    table = load("figure_7").crystals()
    assert len(table) >= 100
    for name, atoms in table.items():
        assert len(atoms) <= 3
        assert atoms.symbols.formula.reduce()[0].count() == Formula(name).count()
        first, second, lengths = neighbor_list("ijd", atoms, 6.0)
        radii = covalent_radii[atoms.numbers]
        shortest = (lengths / (radii[first] + radii[second])).min()
        assert 0.8 < shortest < 1.35, f"{name}: {shortest:.2f} covalent bond lengths"

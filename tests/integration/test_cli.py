"""The command as users type it: help, exit statuses, what each option changes, and every error without a traceback."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import typer.main
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write
from typer.testing import CliRunner

from sorep.cli import app
from sorep.features import FEATURES, FeatureSpec, Window, compute_feature, get_feature
from sorep.kinetic.method import KineticSettings
from sorep.store import FeatureStore

COMMANDS = cast(Any, typer.main.get_command(app)).commands
BIBTEX = "@misc{mine,\n  title = {My crystals}\n}\n\n@misc{yours,\n  title = {Yours}\n}\n"
HEAVY = {
    "ase",
    "deltalake",
    "matplotlib",
    "numpy",
    "pandas",
    "pyarrow",
    "pymatgen",
    "pyscf",
    "scipy",
    "sklearn",
    "spglib",
}

GOOD = ["al:0", "al:1", "si"]
REFUSED = {
    "close": "atoms-too-close",
    "fm": "missing-element",
    "half": "partial-occupancy",
    "junk": "unreadable-file",
    "si2": "too-many-atoms",
    "water": "not-periodic",
}
HALF = """\
data_half
_cell_length_a 4
_cell_length_b 4
_cell_length_c 4
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
loop_
_atom_site_label
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Fe 0 0 0 0.5
"""


def put_inputs(folder: Path) -> Path:
    """Three good structures and one of each of many kinds of trouble."""
    folder.mkdir()
    write(folder / "si.cif", bulk("Si"))
    write(folder / "al.xyz", [bulk("Al", a=4.0), bulk("Al", a=4.1)], format="extxyz")
    write(folder / "fm.vasp", Atoms("Fm", cell=[4, 4, 4], pbc=True))
    write(folder / "close.vasp", Atoms("H2", positions=[[0, 0, 0], [0.1, 0, 0]], cell=[4, 4, 4], pbc=True))
    write(folder / "si2.vasp", bulk("Si", cubic=True) * (2, 1, 1))
    write(folder / "water.json", molecule("H2O"))
    (folder / "half.cif").write_text(HALF)
    (folder / "junk.cif").write_text("junk")
    return folder


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    return put_inputs(tmp_path_factory.mktemp("cli") / "inputs")


@pytest.fixture(scope="module")
def filled(inputs, sorep) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A store of the mixed folder, and what the command said."""
    store = inputs.parent / "store"
    (inputs.parent / "data.bib").write_text(BIBTEX)
    words = ("--store", store, "--k-spacing", "1.0", "--max-atoms", "15", "--references", inputs.parent / "data.bib")
    return store, sorep("featurize", inputs, *words, "--jobs", "2")


@pytest.fixture(scope="module")
def store(filled) -> Path:
    return filled[0]


def direct(store: Path, spec: FeatureSpec) -> np.ndarray:
    reader = FeatureStore(store)
    return np.array([compute_feature(reader.spectrum(id, operator="kinetic"), spec) for id in GOOD])


# Help


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_teaches(sorep, name):
    result = sorep(*[name] if name else [], "--help")
    assert result.returncode == 0
    assert result.stdout.startswith("Usage: sorep")
    assert result.stderr == ""
    if name:
        about = " ".join(COMMANDS[name].help.split("\n\n")[0].split())
        assert about in " ".join(result.stdout.split())
    else:
        assert all(f"  {command} " in result.stdout for command in COMMANDS)
        assert "sorep featurize structures/" in result.stdout


def test_every_option_and_argument_is_explained():
    for name, command in COMMANDS.items():
        for parameter in command.params:
            assert parameter.name == "help" or getattr(parameter, "help", None), f"{name}: {parameter.name}"


def test_without_a_command_the_help_is_shown(sorep):
    result = sorep()
    assert "Usage: sorep" in result.stdout + result.stderr
    assert "featurize" in result.stdout + result.stderr


@pytest.mark.parametrize("words", [["--help"], ["featurize", "--help"], ["features", "--example"]], ids=" ".join)
def test_help_imports_nothing_heavy(words):
    script = f"""\
import sys
from sorep.cli import app
try:
    app({words!r})
finally:
    print("imported:", *sorted({{name.partition(".")[0] for name in sys.modules}}))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    imported = result.stdout.partition("imported:")[2].split()
    assert "typer" in imported
    if words != ["features", "--example"]:
        assert not HEAVY & set(imported)
    assert not {"pyscf", "pymatgen", "deltalake", "pandas", "matplotlib"} & set(imported)


def test_the_built_in_grids_are_listed(sorep):
    result = sorep("features")
    assert result.returncode == 0
    for name, spec in FEATURES.items():
        assert re.search(rf"(?m)^{re.escape(name)} +{spec.n_features} features", result.stdout)


def test_the_example_of_a_grid_is_one(sorep, tmp_path):
    path = tmp_path / "my-grid.toml"
    path.write_text(sorep("features", "--example").stdout)
    spec = get_feature(path)
    assert spec.name == "my-grid"
    assert spec.model_copy(update={"name": "vbm"}) == get_feature("vbm")


# A run over good and bad


def test_a_mixed_folder_is_done_and_says_what_failed(filled):
    store, result = filled
    assert result.returncode == 3
    assert result.stdout.startswith(f"3 structures in {store}: 3 computed, 0 share another's, 0 were there")
    assert "6 failed: " in result.stderr
    assert all(f"1 {code}" in result.stderr for code in REFUSED.values())
    assert f"sorep failures --store {store}" in result.stderr
    matrix = FeatureStore(store).matrix("kinetic")
    assert matrix.ids.tolist() == GOOD
    np.testing.assert_array_equal(matrix.values, direct(store, get_feature("kinetic")))


def test_failures_are_listed_with_their_remedy(sorep, store):
    result = sorep("failures", "--store", store)
    assert result.returncode == 0
    for id, code in REFUSED.items():
        assert re.search(rf"(?m)^{id}  \[{code}\] \w+: .+\n    .*/{id}\..*\n    remedy: .+", result.stdout)
    assert "6 failures" in result.stdout
    chosen = sorep("failures", "--store", store, "--code", "not-periodic").stdout
    assert chosen.startswith("water  [not-periodic]")
    assert chosen.endswith("1 failures: 1 not-periodic\n")


def test_a_store_is_listed(sorep, store):
    text = sorep("list", "--store", store, "--structures").stdout
    matrix = FeatureStore(store).matrix("kinetic")
    assert "3 structures, 3 of different content" in text
    assert f"feature kinetic  operator kinetic  identity {matrix.identity.hash}  3 vectors" in text
    assert "k_spacing 1.0" in text
    assert "finished  3 done, 6 failed" in text
    assert f"sorep featurize {store.parent / 'inputs'} --store" in text  # the command, to run again
    assert re.search(r"(?m)^si  Si2  2 atoms  /.*/si\.cif$", text)


def test_a_matrix_is_exported(sorep, store, tmp_path):
    result = sorep("export", "kinetic", tmp_path / "out.parquet", "--store", store, "--operator", "kinetic")
    assert result.returncode == 0
    assert "3 structures x 1024 features" in result.stdout
    frame = pd.read_parquet(tmp_path / "out.parquet")
    matrix = FeatureStore(store).matrix("kinetic")
    assert frame.index.tolist() == GOOD
    np.testing.assert_array_equal(frame.to_numpy(), matrix.values)
    assert frame.attrs["identity"] == matrix.identity.hash


def test_pictures_are_drawn(sorep, store, tmp_path):
    assert sorep("plot", "--store", store, cwd=tmp_path).returncode == 0
    result = sorep("plot", "si", "al:1", "--store", store, "--out", tmp_path / "two.png", "--spectra")
    assert result.returncode == 0
    assert "si, al:1" in result.stdout
    three, two = (matplotlib.image.imread(tmp_path / name) for name in ("sorep.png", "two.png"))
    assert three.shape[0] > two.shape[0] > 100


def test_what_to_cite_is_printed_as_bibtex(sorep, store):
    result = sorep("cite", store)
    assert (result.returncode, result.stderr) == (0, "")
    keys = re.findall(r"(?m)^@\w+\{([^,]+),", result.stdout)
    assert len(set(keys)) == len(keys)
    assert {"zadoks2024a", "sun2020", "roos2004b", "mine", "yours"} <= set(keys)
    assert not {"roos2005a", "roos2008a"} & set(keys)  # transition metals, lanthanides
    assert result.stdout.count("{") == result.stdout.count("}")


def test_a_dry_run_tells_what_is_there(sorep, inputs, store):
    words = ("featurize", inputs, "--store", store, "--max-atoms", "15", "--jobs", "1", "--dry-run")
    result = sorep(*words, "--k-spacing", "1.0")
    for id in GOOD:
        assert re.search(rf"(?m)^{id} +(Si2|Al) +there already$", result.stdout)
    assert "9 structures: 0 would be computed" in result.stdout
    assert f"3 are in {store}, 6 would be refused" in result.stdout
    other = sorep(*words, "--k-spacing", "1.1")
    assert "9 structures: 3 would be computed" in other.stdout and "are in" not in other.stdout


def test_a_dry_run_tells_costs_and_refusals_and_stores_nothing(sorep, inputs, tmp_path):
    words = ("--dry-run", "--max-atoms", "15", "--jobs", "1")
    result = sorep("featurize", inputs, "--store", tmp_path / "store", *words)
    assert result.returncode == 3
    assert list(tmp_path.iterdir()) == []
    for id in GOOD:
        assert re.search(rf"(?m)^{id} +(Si2|Al) +\d+ +\d+ +\d+ MiB +", result.stdout)
    for id, code in REFUSED.items():
        assert re.search(rf"(?m)^{id} +refused \[{code}\] .+ Remedy: .+", result.stdout)
    assert "9 structures: 3 would be computed in about " in result.stdout
    assert "6 would be refused" in result.stdout
    nothing = sorep("featurize", inputs / "fm.vasp", "--store", tmp_path / "store", "--quiet", *words)
    assert nothing.returncode == 1
    assert nothing.stdout.startswith("1 structures: 0 would be computed")


def test_the_doctor_computes_something_for_real(sorep):
    result = sorep("doctor")
    assert result.returncode == 0, result.stdout + result.stderr
    for word in ("pyscf", "deltalake", "density of states", "kinetic operator", "ano-ml-os", "dscribe"):
        assert word in result.stdout
    assert "everything required is in place" in result.stdout
    assert "MISSING" not in result.stdout


# Where nothing is asked for


def test_in_a_folder_the_defaults_do(sorep, tmp_path):
    """Store and input in one folder: a rerun must not take the store for input."""
    write(tmp_path / "si.vasp", bulk("Si"))
    first = sorep("featurize", ".", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""
    second = sorep("featurize", ".", "--retry-failed", cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert second.stdout.startswith("1 structures in sorep-store: 0 computed, 0 share another's, 1 were there")
    reader = FeatureStore(tmp_path / "sorep-store")
    assert reader.identities().keys() >= {KineticSettings().identity().hash}
    assert reader.matrix("kinetic").spec == get_feature("kinetic")
    assert sorep("list", cwd=tmp_path).returncode == 0


# Options do something


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (["--width", "1.5"], {"width": 1.5}),
        (["--smearing", "cold"], {"smearing": "cold"}),
        (["--normalization", "atom"], {"normalization": "atom"}),
        (["--sampling", "bin"], {"sampling": "bin"}),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, list) else "",
)
def test_an_option_of_the_grid_changes_numbers_and_identity(sorep, store, words, changes):
    result = sorep("refeaturize", "--store", store, "--feature", "kinetic-methods", *words)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("kinetic-methods: 3 vectors added")
    spec = get_feature("kinetic-methods").model_copy(update=changes)
    identity = KineticSettings(k_spacing=1.0).identity().extended(feature=spec.words())
    found = FeatureStore(store).matrix("kinetic-methods", identity=identity.hash)
    np.testing.assert_array_equal(found.values, direct(store, spec))
    plain = direct(store, get_feature("kinetic-methods"))
    assert np.abs(found.values - plain).max() > 1e-6


def test_a_configuration_file_and_flags_that_win(sorep, inputs, tmp_path):
    """Operator, mesh and grids from a file; one of them overruled; a grid of windows on top of that."""
    (tmp_path / "settings.toml").write_text(
        'operator = "overlap"\nk_spacing = 0.7\nk_rounding = "round"\nfeatures = ["overlap", "grid.toml"]\n'
    )
    (tmp_path / "grid.toml").write_text("width = 0.5\n[[windows]]\nstart = 0.0\nstop = 9.0\npoints = 10\n")
    window = ["--window", "absolute:0:4:20", "--window", "absolute:4:8:5"]
    flags = ["--config", "settings.toml", "--k-spacing", "0.9", *window, "--store", "store", "-j", "1", "-q"]
    result = sorep("featurize", inputs / "si.cif", *flags, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    reader = FeatureStore(tmp_path / "store")
    settings = KineticSettings(operator="overlap", k_spacing=0.9, k_rounding="round")
    assert reader.spectrum_identities() == [settings.identity()]
    assert sorted(reader.features()["name"]) == ["custom", "grid", "overlap"]
    assert set(reader.features()["operator"]) == {"overlap"}
    windows = (Window(start=0, stop=4, points=20), Window(start=4, stop=8, points=5))
    expected = compute_feature(reader.spectrum("si"), FeatureSpec(name="custom", windows=windows))
    np.testing.assert_array_equal(reader.matrix("custom").values, [expected])
    assert reader.matrix("grid").spec.width == 0.5
    # A flag wins over the file, as the help says.
    result = sorep(
        "featurize", inputs / "si.cif", *flags, "--operator", "kinetic", "--feature", "kinetic", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert reader.matrix("kinetic").identity.words["operator"] == "kinetic"


def test_the_published_recipe(sorep, tmp_path):
    write(tmp_path / "si.vasp", bulk("Si", cubic=True))
    words = ("--preset", "published", "--k-spacing", "1.0", "--jobs", "1", "--store", "store")
    assert sorep("featurize", "si.vasp", *words, cwd=tmp_path).returncode == 0
    settings, spec = KineticSettings.published(k_spacing=1.0), get_feature("kinetic-published")
    reader = FeatureStore(tmp_path / "store")
    matrix = reader.matrix("kinetic-published")
    assert matrix.identity == settings.identity().extended(feature=spec.words())
    assert (spec.normalization, spec.cutoff) == ("cell", 6.0)
    assert reader.spectrum("si").n_atoms == 8  # the cell as given
    np.testing.assert_array_equal(matrix.values, [compute_feature(reader.spectrum("si"), spec)])


def test_columns_of_a_table_are_chosen_by_name(sorep, inputs, tmp_path):
    with (tmp_path / "table.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["label", "id", "crystal"])
        rows.writerow(["silicon", "1", (inputs / "si.cif").read_text()])
        rows.writerow(["iron", "2", HALF])
    words = ("--id-column", "label", "--structure-column", "crystal", "--dry-run", "--jobs", "1")
    result = sorep("featurize", tmp_path / "table.csv", *words)
    assert result.returncode == 3
    assert re.search(r"(?m)^silicon +Si2 ", result.stdout)
    assert re.search(r"(?m)^iron +refused \[partial-occupancy\]", result.stdout)


def test_mixed_identities_are_told_apart_with_their_digits(sorep, store, tmp_path):
    for width in ("0.5", "0.6"):
        words = ("--window", "absolute:0:50:20", "--width", width)
        assert sorep("refeaturize", "--store", store, *words).returncode == 0
    refused = sorep("export", "custom", tmp_path / "out.csv", "--store", store)
    assert refused.returncode == 1
    assert "mixed-identity" in refused.stderr
    assert "feature.width: " in refused.stderr
    assert not (tmp_path / "out.csv").exists()
    spec = FeatureSpec(name="custom", windows=(Window(start=0, stop=50, points=20),), width=0.6)
    identity = KineticSettings(k_spacing=1.0).identity().extended(feature=spec.words())
    words = ("--store", store, "--identity", identity.hash[:6])
    assert sorep("export", "custom", tmp_path / "out.csv", *words).returncode == 0
    found = pd.read_csv(tmp_path / "out.csv", index_col="id")
    np.testing.assert_allclose(found.to_numpy(), direct(store, spec), rtol=1e-14, atol=0)


# Wrong usage


@pytest.fixture
def in_process(tmp_path, monkeypatch):
    """Run a command in an empty folder without the second that starting Python takes; the code is the same."""
    monkeypatch.chdir(tmp_path)

    def run(words: list[str], status: int, needles: list[str]) -> None:
        result = CliRunner().invoke(app, words)
        assert isinstance(result.exception, SystemExit | None), result.exception
        assert result.exit_code == status, result.output
        for needle in needles:
            assert needle in result.output

    return run


@pytest.fixture
def workplace(tmp_path) -> Path:
    """Files that are wrong in their own ways, and one good structure."""
    write(tmp_path / "si.vasp", bulk("Si"))
    files = {
        "unknown.toml": "k_spacin = 0.3",
        "list.toml": "features = 'kinetic'",
        "syntax.toml": "k_spacing =",
        "grid.toml": "width = -1\n[[windows]]\nstart = 0.0\nstop = 9.0\npoints = 10\n",
        "refs.txt": "Me, J. Irrepr. Res. (2024)",
        "table.csv": "colour,shape\nblue,round\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("line", "status", "needles"),
    [
        ("", 2, ["paths"]),
        ("nowhere", 2, ["no-such-input", "nowhere"]),
        ("empty", 2, ["no-structures-found", "empty"]),
        ("table.csv", 2, ["missing-column", "colour, shape"]),
        ("si.vasp --config unknown.toml", 2, ["k_spacin:", "k_spacing"]),
        ("si.vasp --config list.toml", 2, ["features", "'kinetic'", "Remedy"]),
        ("si.vasp --config syntax.toml", 2, ["syntax.toml", "bad-config"]),
        ("si.vasp --config binary.toml", 2, ["binary.toml", "bad-config"]),
        ("si.vasp --feature binary.toml", 2, ["binary.toml", "bad-feature-file"]),
        ("si.vasp --feature grid.toml", 2, ["grid.toml: width", "--example"]),
        ("si.vasp --feature kinetik", 2, ["unknown-feature", "kinetic"]),
        ("si.vasp --feature vbm --feature vbm", 2, ["vbm", "twice"]),
        ("si.vasp --window fermi:0:1", 2, ["fermi:0:1", "ANCHOR:START:STOP:POINTS"]),
        ("si.vasp --window top:0:1:5", 2, ["anchor", "'cbm'"]),
        ("si.vasp --window vbm:1:0:5", 2, ["bad-feature", "stop"]),
        ("si.vasp --width 0", 2, ["width"]),
        ("si.vasp --smearing square", 2, ["smearing", "methfessel-paxton"]),
        ("si.vasp --normalization mole", 2, ["normalization", "'atom'"]),
        ("si.vasp --preset old", 2, ["preset", "published"]),
        ("si.vasp --operator potential", 2, ["operator", "overlap"]),
        ("si.vasp --k-spacing nan", 2, ["k_spacing"]),
        ("si.vasp --k-spacing wide", 2, ["--k-spacing", "number"]),
        ("si.vasp --references refs.txt", 2, ["refs.txt", "BibTeX"]),
        ("si.vasp --jobs -1", 2, ["--jobs"]),
        ("si.vasp --timeout 0", 2, ["time limit"]),
        ("si.vasp --memory nan", 2, ["--memory"]),
        ("si.vasp --no-such-option", 2, ["--no-such-option"]),
        ("si.vasp --store si.vasp", 1, ["unwritable-store", "--store"]),
        # The basis is looked up before there are workers, which a time limit of zero would not get.
        ("si.vasp --timeout 0 --basis ano-ml-so", 2, ["unknown-basis", "did you mean ano-ml-os"]),
        ("si.vasp --timeout 0 --basis missing.nw", 2, ["unreadable-basis", "missing.nw"]),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else "",
)
def test_wrong_usage_of_featurize(in_process, workplace, line, status, needles):
    before = sorted(workplace.iterdir())
    in_process(["featurize", *line.split()], status, needles)
    assert sorted(workplace.iterdir()) == before  # no store is made in vain


@pytest.mark.parametrize("words", [["list"], ["failures"], ["export", "kinetic", "x.csv"], ["plot"], ["refeaturize"]])
def test_a_missing_store_is_named(in_process, tmp_path, words):
    in_process([*words, "--store", "nothing"], 1, ["sorep: store: nothing is not a store [no-store]. Remedy: "])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "status", "needles"),
    [
        ("export kinetik x.csv --store {}", 1, ["no-such-feature", "kinetic (kinetic, "]),
        ("export kinetic x.xls --store {}", 2, ["unknown-format", ".parquet"]),
        ("export kinetic no/x.csv --store {}", 1, ["unwritable-file", "no/x.csv"]),
        ("plot nobody --store {}", 1, ["no-such-id", "'nobody'"]),
        ("plot si --out x.xyz --store {}", 1, ["unwritable-picture", ".png"]),
        ("refeaturize --operator overlap --store {}", 1, ["no-spectra", "'overlap'"]),
        ("cite nothing", 1, ["no-store"]),
    ],
    ids=lambda value: value.split(" --store")[0].replace(" ", "_") if isinstance(value, str) else "",
)
def test_wrong_usage_of_a_store(in_process, store, tmp_path, line, status, needles):
    in_process(line.format(store).split(), status, needles)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("featurize si.vasp --config unknown.toml", 2),
        ("featurize si.vasp --config binary.toml", 2),
        ("featurize si.vasp --basis nonsense", 2),
        ("featurize si.vasp --window vbm:-1:1:10", 2),
        ("list", 1),
    ],
)
def test_errors_go_to_standard_error(sorep, workplace, line, status):
    result = sorep(*line.split(), cwd=workplace)
    assert (result.returncode, result.stdout) == (status, "")
    assert re.fullmatch(r"sorep: .+ \[[a-z-]+\]\. Remedy: .+\n", result.stderr)


def test_nothing_done_is_a_status_of_its_own(sorep, inputs, tmp_path):
    result = sorep("featurize", inputs / "fm.vasp", "--store", tmp_path / "store", "--jobs", "1")
    assert result.returncode == 1
    assert "1 failed: 1 missing-element" in result.stderr

"""`sorep featurize --from-outputs`: real outputs of pw.x, and features as those of the runs that wrote them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write

from sorep.errors import IdentityError
from sorep.sources import find_items
from sorep.store import FeatureStore

FAMILIES = {"pbe": "pseudo-dojo-0.4-pbe-sr-standard", "pbesol": "pseudo-dojo-0.4-pbesol-sr-standard"}
CRYSTALS = {"al": bulk("Al", "fcc", a=4.05), "si": bulk("Si", "diamond", a=5.43)}
SPACING = "1.3"  # 1/Angstrom: a mesh of 2 x 2 x 2
FEATURE = ("--feature", "vbm")
XML = "data-file-schema.xml"

# A launcher that keeps what pw.x wrote, in a folder named after the structure.
KEEPER = """#!/bin/sh
"$@"
status=$?
if [ -d out/sorep.save ]; then
  folder="$1/$(basename "$PWD" | sed 's/-[^-]*$//')/out/sorep.save"
  mkdir -p "$folder" && cp out/sorep.save/data-file-schema.xml "$folder"
fi
exit $status
"""


@pytest.fixture(scope="module")
def runs(pw_x, get_family, sorep, tmp_path_factory) -> Iterator[Path]:
    """Finished SCF runs, ``outputs/pbe/si/...``, with the store of each functional in ``pbe``, ``pbesol``."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "inputs").mkdir()
    for name, crystal in CRYSTALS.items():
        write(folder / "inputs" / f"{name}.vasp", crystal)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOREP_PW_X", str(pw_x.path))
        for functional, family in FAMILIES.items():
            patch.setenv("SOREP_DATA", str(get_family(family).folder.parents[1]))
            launcher = folder / f"keep-{functional}"
            launcher.write_text(KEEPER.replace('"$1/', f'"{folder}/outputs/{functional}/'))
            launcher.chmod(0o755)
            options = ("--scf", "--family", family, "--k-spacing", SPACING, "--mpi", launcher, "--jobs", "1")
            result = sorep("single-shot", folder / "inputs", *options, *FEATURE, "--store", folder / functional)
            assert result.returncode == 0, result.stderr
        yield folder


def words_of(folder: Path, *more: str | Path) -> tuple[str | Path, ...]:
    return ("featurize", "--from-outputs", folder, *FEATURE, "--jobs", "1", *more)


@pytest.mark.pwx
def test_features_are_those_of_the_run(runs, sorep, tmp_path):
    words = words_of(runs / "outputs" / "pbe", "--store", tmp_path / "store")
    result = sorep(*words)
    assert result.returncode == 0, result.stderr
    assert "2 computed" in result.stdout
    found, direct = FeatureStore(tmp_path / "store").matrix("vbm"), FeatureStore(runs / "pbe").matrix("vbm")
    assert found.ids.tolist() == ["al/out/sorep", "si/out/sorep"]
    assert direct.ids.tolist() == ["al", "si"]
    np.testing.assert_array_equal(found.values, direct.values)
    assert found.identity != direct.identity
    assert direct.identity.words["operator"] == "scf"
    named = {"operator": "outputs", "code": "quantum-espresso", "functional": "PBE", "spin_orbit": False}
    assert named.items() <= found.identity.words.items()
    for name in CRYSTALS:
        one = FeatureStore(tmp_path / "store").spectrum(f"{name}/out/sorep")
        other = FeatureStore(runs / "pbe").spectrum(name)
        np.testing.assert_array_equal(one.energies, other.energies)
        assert one.n_electrons == other.n_electrons
    again = sorep(*words)
    assert (again.returncode, "0 computed" in again.stdout, "2 were there" in again.stdout) == (0, True, True)


@pytest.mark.pwx
def test_functionals_are_kept_apart(runs, sorep, tmp_path):
    result = sorep(*words_of(runs / "outputs", "--store", tmp_path / "store"))
    assert result.returncode == 0, result.stderr
    store = FeatureStore(tmp_path / "store")
    assert store.features()["n"].tolist() == [2, 2]
    with pytest.raises(IdentityError, match="functional"):
        store.matrix("vbm")
    for functional in ("PBE", "PBEsol"):
        (identity,) = (i for i in store.identities().values() if is_feature_of(i.words, functional))
        ids = [f"{functional.lower()}/{name}/out/sorep" for name in CRYSTALS]
        matrix = store.matrix("vbm", identity=identity.hash, ids=ids)
        np.testing.assert_array_equal(matrix.values, FeatureStore(runs / functional.lower()).matrix("vbm").values)


def is_feature_of(words: dict, functional: str) -> bool:
    return "feature" in words and words["functional"].upper() == functional.upper()


@pytest.mark.pwx
def test_labels_keep_apart_what_files_do_not_tell(runs, sorep, tmp_path):
    store = tmp_path / "store"
    for label, functional in (("one", "pbe"), ("two", "pbesol")):
        result = sorep(*words_of(runs / "outputs" / functional / "si", "--store", store, "--label", label))
        assert result.returncode == 0, result.stderr
    assert FeatureStore(store).features()["operator"].tolist() == ["one", "two"]
    one = FeatureStore(store).matrix("vbm", operator="one")
    assert one.identity.words["operator"] == "one"
    np.testing.assert_array_equal(one.values[0], FeatureStore(runs / "pbe").matrix("vbm", ids=["si"]).values[0])


@pytest.mark.pwx
def test_a_second_calculation_of_a_crystal_is_refused_and_not_given_the_spectrum_of_the_first(runs, sorep, tmp_path):
    (source,) = (runs / "outputs" / "pbe" / "si").rglob(XML)
    text = source.read_text()
    unconverged = re.sub(r"(<convergence_achieved>)true", r"\1false", text)
    for name, content in (("a", unconverged), ("b", text)):
        (tmp_path / "outputs" / name).mkdir(parents=True)
        (tmp_path / "outputs" / name / XML).write_text(content)
    store = tmp_path / "store"
    command = words_of(tmp_path / "outputs", "--store", store)
    assert sorep(*command, "--jobs", 1).returncode == 1
    codes = FeatureStore(store).failures().set_index("id")["code"].to_dict()
    assert codes == {"a": "not-converged", "b": "several-calculations"}
    # The first turned out to be of no use.
    assert sorep(*command).returncode == 3
    assert FeatureStore(store).matrix("vbm").ids == ["b"]
    # Both are good, and the first is not read twice.
    (tmp_path / "outputs" / "a" / XML).write_text(text)
    again = sorep(*words_of(tmp_path / "outputs", "--store", tmp_path / "other"))
    assert again.returncode == 3, again.stderr
    (row,) = FeatureStore(tmp_path / "other").failures().to_dict("records")
    assert (row["id"], row["code"]) == ("b", "several-calculations")
    assert "first: a" in row["message"]


@pytest.mark.pwx
def test_damaged_outputs_cost_themselves_only(runs, sorep, tmp_path):
    (source,) = (runs / "outputs" / "pbe" / "si").rglob(XML)
    text = source.read_text()
    bad = {
        "cut": (text[: len(text) * 2 // 3], "truncated-xml"),
        "nan": (re.sub(r"(<eigenvalues[^>]*>\s*)\S+", r"\1NaN", text), "non-finite-eigenvalues"),
        "unconverged": (re.sub(r"(<convergence_achieved>)true", r"\1false", text), "not-converged"),
        "text": ("nothing of this kind", "unknown-output"),
        "empty": ("", "unknown-output"),
    }
    for number, (name, (content, _)) in enumerate({**bad, "good": (text, "")}.items()):
        # Each of another crystal: equal ones share one spectrum.
        content = re.sub(r'(<atom name="Si" index="2">\s*)(\S+)', rf"\g<1>{2.5 + 0.01 * number}", content)
        (tmp_path / "outputs" / name).mkdir(parents=True)
        (tmp_path / "outputs" / name / XML).write_text(content)
    store = tmp_path / "store"
    result = sorep(*words_of(tmp_path / "outputs", "--store", store))
    assert result.returncode == 3, result.stderr
    assert FeatureStore(store).matrix("vbm").ids.tolist() == ["good"]
    rows = FeatureStore(store).failures().to_dict("records")
    assert {row["id"]: row["code"] for row in rows} == {name: code for name, (_, code) in bad.items()}
    assert all(row["remedy"] and row["source"].endswith(f"{row['id']}/{XML}") for row in rows)
    dry = sorep(*words_of(tmp_path / "outputs", "--store", tmp_path / "other", "--dry-run"))
    assert dry.returncode == 3
    assert Counter(re.findall(r"refused \[([a-z-]+)\]", dry.stdout)) == Counter(code for _, code in bad.values())
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--from-outputs", "--k-spacing", "0.2"),
        ("--from-outputs", "--basis", "ano-ml-ae"),
        ("--from-outputs", "--operator", "overlap"),
        ("--from-outputs", "--keep-cell"),
        ("--from-outputs", "--preset", "published"),
        ("--label", "mine"),
    ],
    ids=" ".join,
)
def test_options_that_would_do_nothing_are_refused(sorep, tmp_path, options):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / XML).write_text("")
    (tmp_path / "runs" / "x.cif").write_text("")
    result = sorep("featurize", tmp_path / "runs", *options, "--store", tmp_path / "store")
    assert result.returncode == 2
    assert result.stdout == ""
    assert "[bad-option]. Remedy: leave one of them out" in result.stderr
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("named", [".", "si.vasp"])
def test_input_without_outputs_is_refused(sorep, tmp_path, named):
    write(tmp_path / "si.vasp", CRYSTALS["si"])
    result = sorep("featurize", "--from-outputs", tmp_path / named, "--store", tmp_path / "store")
    assert result.returncode == 2
    assert "Remedy: " in result.stderr
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
def test_outputs_of_other_people(shared_folder, sorep, tmp_path):
    folder = shared_folder / "data" / "qe_outputs"
    if not folder.is_dir():
        pytest.skip("no outputs of Quantum ESPRESSO")
    result = sorep(*words_of(folder, "--store", tmp_path / "store", "--quiet"))
    assert result.returncode == 3, result.stderr
    done = sum(map(int, re.findall(r"^(\d+) structures in ", result.stdout, re.MULTILINE)))
    failed = sum(map(int, re.findall(r"^(\d+) failed", result.stderr, re.MULTILINE)))
    assert done + failed == len(list(find_items(folder, outputs=True)))
    assert done > 25
    rows = FeatureStore(tmp_path / "store").failures().to_dict("records")
    assert all(row["message"] and row["remedy"] for row in rows)
    assert "unexpected-error" not in {row["code"] for row in rows}

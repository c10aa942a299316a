"""Basis sets: what they hold, how they are normalised, and what is said when they cannot be had."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray
from pyscf import gto
from pyscf.gto.moleintor import getints
from pyscf.pbc import gto as periodic_gto

from sorep.errors import BasisError, UsageError
from sorep.kinetic.basis import OWN_BASIS_NAMES, BasisSet, Shell, basis_names, load_basis

FOLDER = Path(__file__).parents[3] / "basis_sets"
NOBLE_GASES = (0, 2, 10, 18, 36, 54, 86)
SOME_ELEMENTS = ("H", "C", "K", "Ti", "Ge", "Sn", "Ba", "Nd", "Os", "Pb")

SMALL = """BASIS "ao basis" SPHERICAL PRINT
H    S
      3.0000000              0.1000000             -0.3000000
      0.5000000              0.6000000              0.2000000
      0.0500000              0.0000000              0.8000000
H    P
      0.0800000              1.0000000
END
"""


def integrals(shells: tuple[Shell, ...], kind: str) -> NDArray[np.float64]:
    """One-centre integrals by libcint, its arrays filled from shells and nothing else."""
    origin, env, bas = 20, [0.0] * 23, []
    for shell in shells:
        n_primitives, n_contractions = shell.coefficients.shape
        at = len(env)
        env += [*shell.exponents, *shell.coefficients.T.ravel()]
        bas.append([0, shell.angular_momentum, n_primitives, n_contractions, 0, at, at + n_primitives, 0])
    atm = np.array([[1, origin, 1, 0, 0, 0]], dtype=np.int32)
    return getints(f"{kind}_sph", atm, np.array(bas, dtype=np.int32), np.array(env))


def stock_atom(symbol: str, basis: object) -> gto.Mole:
    return gto.M(atom=[(symbol, (0, 0, 0))], basis={symbol: basis}, spin=atomic_numbers[symbol] % 2, verbose=0)


def write(folder: Path, text: str, name: str = "small.nw") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


class TestRule:
    @pytest.mark.parametrize(
        ("symbol", "letters"),
        [
            ("H", "s"), ("Li", "s"), ("C", "sp"), ("O", "sp"), ("Na", "s"), ("Si", "sp"), ("K", "s"),
            ("Ti", "sd"), ("Zn", "sd"), ("Ge", "spd"), ("Rb", "s"), ("Pd", "sd"), ("Sn", "spd"), ("Ba", "s"),
            ("La", "sd"), ("Ce", "sdf"), ("Lu", "sdf"), ("Hf", "sd"), ("Hg", "sd"), ("Tl", "spd"),
            ("Rn", "spd"),
        ],
    )  # fmt: skip
    def test_outer_shells(self, symbol: str, letters: str) -> None:
        shells = load_basis("ano-ml-os").shells_of(atomic_numbers[symbol])
        assert "".join("spdf"[s.angular_momentum] for s in shells) == letters
        assert all(s.coefficients.shape[1] == 1 for s in shells)

    def test_all_electrons_fill_the_noble_gas_core(self) -> None:
        outer, everything = load_basis("ano-ml-os"), load_basis("ano-ml-ae")
        for number in range(1, 87):
            core = max(n for n in NOBLE_GASES if n < number) + (14 if number > 71 else 0)
            assert 2 * everything.n_functions([number]) == 2 * outer.n_functions([number]) + core

    def test_published_file_differs_for_three_elements(self) -> None:
        rule, published = load_basis("ano-ml-os"), load_basis("ano-ml-os-published")
        differing = {
            chemical_symbols[z]: published.n_functions([z])
            for z in range(1, 87)
            if published.n_functions([z]) != rule.n_functions([z])
        }
        assert differing == {"Cs": 28, "Ba": 28, "Os": 16}
        assert sum(s.coefficients.shape[1] for s in published.shells_of(56)) == 12
        assert published.n_functions([56, 22, 8, 8, 8]) == 46

    @pytest.mark.parametrize("number", range(3, 19))
    def test_first_contraction_is_the_1s_orbital(self, number: int) -> None:
        # Kinetic energy of a 1s electron with Slater's screening, (Z - 0.3)^2 / 2.
        kinetic = integrals(load_basis("ano-ml-ae").shells_of(number), "int1e_kin")
        assert kinetic[0, 0] == pytest.approx((number - 0.3) ** 2 / 2, rel=0.05)

    @pytest.mark.parametrize("name", OWN_BASIS_NAMES)
    def test_own_sets_cover_86_elements_with_citations(self, name: str) -> None:
        basis = load_basis(name)
        assert sorted(basis.shells) == sorted(basis.references) == list(range(1, 87))
        for symbol, key in (
            ("H", "widmark1990a"),
            ("Sn", "roos2004b"),
            ("Ti", "roos2005a"),
            ("La", "roos2008a"),
        ):
            entries = "".join(basis.references[atomic_numbers[symbol]])
            assert key in entries
            assert "10.1038/s41524-024-01446-9" in entries

    @pytest.mark.parametrize("name", OWN_BASIS_NAMES)
    def test_discarding_as_published_loses_no_function(self, name: str) -> None:
        every = range(1, 87)
        assert load_basis(name, discard_below=0.1).n_functions(every) == load_basis(name).n_functions(every)


class TestDerivedFiles:
    def run(self, script: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False, timeout=120
        )

    def test_committed_files_are_what_is_derived(self) -> None:
        done = self.run(FOLDER / "derive.py")
        assert done.returncode == 0, done.stdout + done.stderr

    def test_check_finds_a_changed_digit_and_a_missing_file(self, tmp_path: Path) -> None:
        copy = tmp_path / "basis_sets"
        shutil.copytree(FOLDER, copy)
        changed = copy / "ano-ml-ae.nw"
        changed.write_text(changed.read_text(encoding="utf-8").replace("0.00096385", "0.00096386", 1), encoding="utf-8")
        (copy / "references.json").unlink()
        done = self.run(copy / "derive.py")
        assert done.returncode == 1
        assert "ano-ml-ae.nw" in done.stdout and "references.json" in done.stdout
        assert "ano-ml-os" not in done.stdout


class TestAgainstPySCF:
    @pytest.mark.parametrize("name", OWN_BASIS_NAMES)
    @pytest.mark.parametrize("symbol", SOME_ELEMENTS)
    def test_integrals(self, name: str, symbol: str) -> None:
        shells = load_basis(name).shells_of(atomic_numbers[symbol])
        stock = stock_atom(symbol, gto.basis.load(str(FOLDER / f"{name}.nw"), symbol))
        overlap, kinetic = integrals(shells, "int1e_ovlp"), integrals(shells, "int1e_kin")
        np.testing.assert_allclose(np.diag(overlap), 1.0, rtol=0, atol=1e-13)
        np.testing.assert_allclose(overlap, stock.intor("int1e_ovlp"), rtol=0, atol=1e-12)
        np.testing.assert_allclose(kinetic, stock.intor("int1e_kin"), rtol=1e-12, atol=1e-12 * kinetic.max())

    @pytest.mark.parametrize(("name", "symbol"), [("sto-3g", "C"), ("def2-svp", "Fe"), ("6-31g*", "O")])
    def test_sets_of_the_exchange(self, name: str, symbol: str) -> None:
        import basis_set_exchange as bse

        number = atomic_numbers[symbol]
        # PySCF puts shells in order of angular momentum; fused s and p shells come mixed from the source.
        shells = tuple(sorted(load_basis(name).shells_of(number), key=lambda shell: shell.angular_momentum))
        text = bse.get_basis(name, elements=[number], fmt="nwchem", header=False)
        stock = stock_atom(symbol, gto.basis.parse(text, symbol))
        overlap, kinetic = integrals(shells, "int1e_ovlp"), integrals(shells, "int1e_kin")
        assert len(overlap) == stock.nao == load_basis(name).n_functions([number])
        np.testing.assert_allclose(overlap, stock.intor("int1e_ovlp"), rtol=0, atol=1e-12)
        np.testing.assert_allclose(kinetic, stock.intor("int1e_kin"), rtol=1e-12, atol=1e-12 * kinetic.max())

    @pytest.mark.parametrize("symbol", SOME_ELEMENTS)
    def test_coefficients_after_discarding(self, symbol: str) -> None:
        name = "ano-ml-os-published"
        shells = load_basis(name, discard_below=0.1).shells_of(atomic_numbers[symbol])
        cell = periodic_gto.Cell(
            atom=[(symbol, (0, 0, 0))],
            basis={symbol: gto.basis.load(str(FOLDER / f"{name}.nw"), symbol)},
            a=np.eye(3) * 8,
            spin=atomic_numbers[symbol] % 2,
            exp_to_discard=0.1,
            rcut=5.0,
            mesh=[5, 5, 5],
            verbose=0,
        )
        cell.build()
        assert cell.nbas == len(shells)
        for index, shell in enumerate(shells):
            assert cell.bas_angular(index) == shell.angular_momentum
            np.testing.assert_array_equal(cell.bas_exp(index), shell.exponents)
            np.testing.assert_allclose(cell._libcint_ctr_coeff(index), shell.coefficients, rtol=1e-13, atol=0)


class TestNames:
    def test_every_name_is_listed(self) -> None:
        names = basis_names()
        assert names[:3] == OWN_BASIS_NAMES
        assert {"def2-SVP", "STO-3G", "ANO-RCC"} <= set(names)

    def test_version_is_part_of_the_name(self) -> None:
        latest, first = load_basis("ano-rcc"), load_basis("ANO-RCC@0")
        assert (latest.name, first.name) == ("ANO-RCC@1", "ANO-RCC@0")
        assert latest.checksum != first.checksum

    def test_loaded_once(self) -> None:
        assert load_basis("ano-ml-os") is load_basis("ANO-ML-OS", discard_below=0)
        assert load_basis("STO-3G") is load_basis("sto-3g")
        with pytest.raises(ValueError, match="read-only"):
            load_basis("sto-3g").shells_of(1)[0].coefficients[0] = 0.0

    def test_unknown_name_suggests(self) -> None:
        with pytest.raises(BasisError, match="ano-ml-os") as caught:
            load_basis("ano-ml-so")
        assert caught.value.code == "unknown-basis"
        with pytest.raises(BasisError, match="def2-svp") as caught:
            load_basis("def2-spv")
        assert caught.value.code == "unknown-basis"

    def test_unknown_version(self) -> None:
        with pytest.raises(BasisError, match="versions 0, 1") as caught:
            load_basis("ANO-RCC@7")
        assert caught.value.code == "unknown-basis"

    def test_references_of_an_exchange_set(self) -> None:
        entries = load_basis("def2-svp").references[26]
        assert any("weigend2005a" in entry for entry in entries)
        assert all(entry.startswith("@") for entry in entries)

    @pytest.mark.parametrize("number", [0, 87, 118, 119])
    def test_missing_element(self, number: int) -> None:
        basis = load_basis("ano-ml-os")
        with pytest.raises(BasisError, match=f"ano-ml-os has no functions for element {number} ") as caught:
            basis.shells_of(number)
        assert caught.value.code == "missing-element"
        with pytest.raises(BasisError):
            basis.n_functions([6, number])

    def test_an_element_with_only_a_core_potential_is_missing(self, tmp_path: Path) -> None:
        potential = "ECP\nSn nelec 46\nSn ul\n2 1.0 0.0\nSn S\n2 1.0 1.0\nEND\n"
        basis = load_basis(write(tmp_path, SMALL + potential))
        assert list(basis.shells) == [1]
        with pytest.raises(BasisError, match=r"element 50 \(Sn\)"):
            basis.shells_of(50)


class TestFiles:
    def test_path_as_string_and_as_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write(tmp_path, SMALL)
        monkeypatch.chdir(tmp_path)
        basis = load_basis(path)
        assert basis is load_basis(str(path)) is load_basis("small.nw")
        assert basis.name == "small.nw"
        assert [(s.angular_momentum, s.coefficients.shape) for s in basis.shells_of(1)] == [
            (0, (3, 2)),
            (1, (1, 1)),
        ]
        assert basis.n_functions([1, 1]) == 10

    def test_an_edited_file_is_read_again(self, tmp_path: Path) -> None:
        path = write(tmp_path, SMALL)
        before = load_basis(path)
        write(tmp_path, SMALL.replace("0.6000000", "0.7000000"))
        os.utime(path, ns=(0, 0))
        assert load_basis(path).checksum != before.checksum

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(BasisError, match=r"nowhere\.nw") as caught:
            load_basis(tmp_path / "nowhere.nw")
        assert caught.value.code == "unreadable-basis"

    def test_binary_file(self, tmp_path: Path) -> None:
        path = tmp_path / "binary.nw"
        path.write_bytes(b"\xff\xfe\x00BASIS")
        with pytest.raises(BasisError) as caught:
            load_basis(path)
        assert caught.value.code == "unreadable-basis"

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "not a basis set\n",
            'BASIS "ao basis"\nEND\n',
            SMALL.replace("BASIS", "# BASIS"),
            SMALL.replace("H    S", "Qq   S"),
            SMALL.replace("H    S", "H    X"),
            SMALL.replace("H    S", "H    SP").replace("0.8000000", ""),
            SMALL.replace("0.6000000", "__import__('os')"),
            SMALL.replace("0.6000000", ""),
            SMALL.replace("0.0800000", "-0.0800000"),
            SMALL.replace("0.0800000", "0.0000000"),
            SMALL.replace("3.0000000", "3.0e999"),
            SMALL.replace("0.6000000", "0.6e999"),
            SMALL.replace("1.0000000", "0.0000000"),
        ],
    )
    def test_malformed(self, text: str, tmp_path: Path) -> None:
        with pytest.raises(BasisError, match=r"small\.nw") as caught:
            load_basis(write(tmp_path, text))
        assert caught.value.code == "malformed-basis"

    def test_primitives_that_cancel(self, tmp_path: Path) -> None:
        text = "BASIS SPHERICAL\nH S\n1.0 1.0\n1.0 -1.0\nEND\n"
        with pytest.raises(BasisError, match="zero norm"):
            load_basis(write(tmp_path, text))


class TestDiscard:
    def test_drops_primitives_then_empty_functions(self, tmp_path: Path) -> None:
        path = write(tmp_path, SMALL)
        (s,) = load_basis(path, discard_below=0.1).shells_of(1)
        np.testing.assert_array_equal(s.exponents, [3.0, 0.5])
        np.testing.assert_allclose(np.diag(integrals((s,), "int1e_ovlp")), 1.0, rtol=0, atol=1e-14)
        # A zero coefficient elsewhere does not cost the other function its place.
        s, p = load_basis(path, discard_below=0.06).shells_of(1)
        assert s.coefficients.shape == (2, 2)
        assert p.coefficients.shape == (1, 1)

    def test_a_function_of_discarded_primitives_alone(self, tmp_path: Path) -> None:
        text = SMALL.replace("-0.3000000", "0.0000000").replace("0.2000000", "0.0000000")
        s, _ = load_basis(write(tmp_path, text), discard_below=0.06).shells_of(1)
        assert s.coefficients.shape == (2, 1)

    def test_nothing_left(self, tmp_path: Path) -> None:
        basis = load_basis(write(tmp_path, SMALL), discard_below=10.0)
        with pytest.raises(BasisError, match="below 10 discarded") as caught:
            basis.shells_of(1)
        assert caught.value.code == "missing-element"

    @pytest.mark.parametrize("threshold", [-0.1, float("nan"), float("inf")])
    def test_threshold_must_make_sense(self, threshold: float) -> None:
        with pytest.raises(UsageError) as caught:
            load_basis("ano-ml-os", discard_below=threshold)
        assert caught.value.code == "invalid-threshold"


class TestChecksum:
    def test_changes_with_every_number(self, tmp_path: Path) -> None:
        texts = [
            SMALL,
            SMALL.replace("3.0000000", "3.0000001"),
            SMALL.replace("0.6000000", "0.6000001"),
            SMALL.replace("-0.3000000", "0.3000000"),
            SMALL.replace("H    P", "H    D"),
            SMALL.replace("H   ", "He  "),
            SMALL.replace("END", "He S\n1.0 1.0\nEND"),
        ]
        sets = [load_basis(write(tmp_path, text, f"{n}.nw")) for n, text in enumerate(texts)]
        sets.append(load_basis(tmp_path / "0.nw", discard_below=0.01))
        checksums = {basis.checksum for basis in sets}
        assert len(checksums) == len(sets)
        assert all(len(checksum) == 16 and int(checksum, 16) >= 0 for checksum in checksums)

    def test_does_not_depend_on_how_numbers_are_written(self, tmp_path: Path) -> None:
        one = load_basis(write(tmp_path, SMALL, "one.nw"))
        other = load_basis(write(tmp_path, "# a comment\n" + SMALL.replace("3.0000000", "0.3D+01"), "other.nw"))
        assert one.checksum == other.checksum

    def test_travels_between_processes(self) -> None:
        basis = load_basis("ano-ml-os-published", discard_below=0.1)
        copy: BasisSet = pickle.loads(pickle.dumps(basis))
        assert (copy.name, copy.checksum, copy.min_exponent) == (basis.name, basis.checksum, 0.1)
        assert copy.n_functions([56, 22, 8]) == basis.n_functions([56, 22, 8])

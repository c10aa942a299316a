"""The checks of `sorep.testing` on methods with one defect each: the right check complains, and says where."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import SkipTest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sorep.bloch import BlochOperator, Operators
from sorep.cells import canonical_cell
from sorep.errors import BasisError, SorepError, UsageError
from sorep.identity import Identity
from sorep.kinetic.method import KineticSettings
from sorep.method import Calculation, Work
from sorep.neighbors import neighbor_pairs
from sorep.spectrum import Spectrum
from sorep.structure import Structure
from sorep.testing import (
    CHECKS,
    Check,
    check_method,
    checks,
    default_structures,
    parametrize_with_checks,
)
from sorep.testing.descriptions import (
    mirrored,
    permuted,
    primitive_and_conventional,
    repeated,
    rotated,
    supercell,
    translated,
    with_other_axes,
)
from sorep.testing.strategies import structures

CHANGES = {"operator": "overlap", "basis": "ano-ml-ae"}
SILICON, MAGNESIUM, TRICLINIC = default_structures()

pytestmark = pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING:DeprecationWarning")


class Sound(KineticSettings):
    """The kinetic method on few k points, with which every check is content."""

    k_spacing: float = 1.2


def failing(method: Any, structure: Structure, *, examples: int = 0, **options: Any) -> set[str]:
    """Names of the checks that complain, each of which names the structure."""
    found = set()
    for check in checks([structure], changes=CHANGES, examples=examples, **options):
        try:
            check(method)
        except SkipTest:
            continue
        except AssertionError as complaint:
            assert str(complaint).startswith(f"{check.name} of {method.operator} fails for {structure.id}: ")
            found.add(check.name)
    return found


def moved(calculation: Calculation, shift: float) -> Calculation:
    """All levels raised by ``shift`` eV."""
    spectrum = calculation.spectrum
    return replace(calculation, spectrum=replace(spectrum, energies=spectrum.energies + shift))


# Spectra with one defect, and the checks that must see it. Others see some of them too, where one defect is several.


class Turned(Sound):
    def calculate(self, structure: Structure) -> Calculation:
        return moved(super().calculate(structure), 1e-5 * structure.lattice[0, 0])


class Placed(Sound):
    def calculate(self, structure: Structure) -> Calculation:
        return moved(super().calculate(structure), 1e-5 * structure.positions.sum())


class Ordered(Sound):
    def calculate(self, structure: Structure) -> Calculation:
        return moved(super().calculate(structure), 1e-5 * structure.numbers[0])


class MeshOfTheGivenCell(Sound):
    keep_cell: bool = True
    k_spacing: float = 0.6


class Handed(Sound):
    """Knows left from right: the three nearest neighbours of the lightest atom, in the order of their distances."""

    def calculate(self, structure: Structure) -> Calculation:
        pairs = neighbor_pairs(structure.lattice, structure.positions, 4.0)
        own = pairs.first == np.argmin(structure.numbers)
        nearest = np.flatnonzero(own)[np.argsort(pairs.distances[own])[:3]]
        fractional = structure.positions[pairs.second[nearest]] + pairs.image[nearest]
        vectors = (fractional - structure.positions[pairs.first[nearest]]) @ structure.lattice
        return moved(super().calculate(structure), 1e-5 * np.sign(np.linalg.det(vectors)))


class TopBandForgotten(Sound):
    def calculate(self, structure: Structure) -> Calculation:
        calculation = super().calculate(structure)
        spectrum = calculation.spectrum
        levels = spectrum.eigenvalues[..., :-1]
        counts = np.full(levels.shape[:2], levels.shape[2])
        return replace(calculation, spectrum=replace(spectrum, energies=levels.ravel(), band_counts=counts))


class Unsorted(Sound):
    def calculate(self, structure: Structure) -> Calculation:
        calculation = super().calculate(structure)
        levels = calculation.spectrum.eigenvalues[..., ::-1]
        return replace(calculation, spectrum=replace(calculation.spectrum, energies=levels.ravel()))


class ElectronsUnannounced(Sound):
    def calculate(self, structure: Structure) -> Calculation:
        calculation = super().calculate(structure)
        return replace(calculation, spectrum=replace(calculation.spectrum, n_electrons=4.0))


class WrongVolume(Sound):
    def calculate(self, structure: Structure) -> Calculation:
        calculation = super().calculate(structure)
        spectrum = calculation.spectrum
        return replace(calculation, spectrum=replace(spectrum, volume=0.999 * spectrum.volume))


class EqualWeights(Sound):
    def calculate(self, structure: Structure) -> Calculation:
        calculation = super().calculate(structure)
        n = len(calculation.spectrum.weights)
        return replace(calculation, spectrum=replace(calculation.spectrum, weights=np.full(n, 1 / n)))


class SharpCutoff(Sound):
    """Adds up a constant over all pairs closer than a cut-off, which some pair crosses on the way of an atom."""

    def calculate(self, structure: Structure) -> Calculation:
        calculation = super().calculate(structure)
        cell = calculation.cell.structure
        n_pairs = len(neighbor_pairs(cell.lattice, cell.positions, 9.0).distances)
        return moved(calculation, 1e-5 * n_pairs / cell.n_atoms)


class NotDeterministic(Sound):
    def calculate(self, structure: Structure) -> Calculation:
        return moved(super().calculate(structure), 1e-13 * next(_CALLS))


_CALLS = itertools.count(1)


class OneMoreKPoint(Sound):
    def estimate(self, structure: Structure) -> Work:
        work = super().estimate(structure)
        return replace(work, n_kpoints=work.n_kpoints + 1)


class NothingToPay(Sound):
    def estimate(self, structure: Structure) -> Work:
        return replace(super().estimate(structure), seconds=0.0)


class IdentityOfTheObject(Sound):
    def identity(self) -> Identity:
        return super().identity().extended(address=id(self))


class IdentityOfTheMoment(Sound):
    def identity(self) -> Identity:
        return super().identity().extended(call=next(_CALLS))


class SpacingForgotten(Sound):
    def identity(self) -> Identity:
        return Identity.of({k: v for k, v in super().identity().words.items() if k != "k_spacing"})


class KeyErrorForElements(Sound):
    def calculate(self, structure: Structure) -> Calculation:
        try:
            return super().calculate(structure)
        except BasisError:
            raise KeyError(structure.numbers[0]) from None


class NoRemedy(Sound):
    def estimate(self, structure: Structure) -> Work:
        try:
            return super().estimate(structure)
        except BasisError as error:
            raise SorepError(error.message, code=error.code) from None


class CarelessEstimate(Sound):
    def estimate(self, structure: Structure) -> Work:
        try:
            return super().estimate(structure)
        except BasisError as error:
            raise SorepError(error.message, code="another", remedy="none") from None


INVARIANCES = {"rotation", "translation", "permutation", "axes", "supercell", "conventional_cell", "mirror_image"}
OF_SPECTRA: list[tuple[type[Sound], Structure, set[str]]] = [
    (Turned, TRICLINIC, {"rotation", "axes", "supercell", "mirror_image"}),
    (Placed, TRICLINIC, {"translation", "axes", "supercell"}),
    (Ordered, TRICLINIC, {"permutation", "supercell"}),
    (MeshOfTheGivenCell, SILICON, {"supercell", "conventional_cell"}),
    (MeshOfTheGivenCell, MAGNESIUM, {"axes", "supercell"}),
    (Handed, TRICLINIC, {"mirror_image"}),
    (TopBandForgotten, SILICON, {"counts", "operators"}),
    (Unsorted, SILICON, {"counts", "operators"}),
    (ElectronsUnannounced, TRICLINIC, {"counts", "operators"}),
    (WrongVolume, MAGNESIUM, {"density_of_states"}),
    (EqualWeights, MAGNESIUM, {"mesh"}),
    (SharpCutoff, TRICLINIC, {"smoothness"}),
    (NotDeterministic, SILICON, {"determinism"}),
    (OneMoreKPoint, SILICON, {"estimate"}),
    (NothingToPay, SILICON, {"estimate"}),
    (IdentityOfTheObject, SILICON, {"pickling"}),
    (IdentityOfTheMoment, SILICON, {"identity", "pickling"}),
    (SpacingForgotten, SILICON, {"identity"}),
    (KeyErrorForElements, SILICON, {"refusals"}),
    (NoRemedy, SILICON, {"refusals"}),
    (CarelessEstimate, SILICON, {"refusals"}),
]

# A shift of all levels is also a difference from the operators; one that depends on the call, from a pickled copy.
BY_THE_WAY = {"operators", "pickling"}


@pytest.mark.parametrize("structure", default_structures(), ids=lambda s: s.id)
def test_a_sound_method_passes(structure: Structure) -> None:
    assert failing(Sound(), structure) == set()


@pytest.mark.parametrize(
    ("broken", "structure", "expected"), OF_SPECTRA, ids=[broken.__name__ for broken, _, _ in OF_SPECTRA]
)
def test_a_defect_is_found(broken: type[Sound], structure: Structure, expected: set[str]) -> None:
    exclude = {} if "smoothness" in expected else {"smoothness": "it takes many calculations"}
    found = failing(broken(), structure, exclude=exclude)
    assert expected <= found
    assert found <= expected | BY_THE_WAY


# Matrices with one defect.


class Changed:
    """A Bloch operator whose matrices, or eigenvalues, are not quite what they should be."""

    def __init__(self, operator: BlochOperator, change: Callable) -> None:
        self._operator, self._change = operator, change
        self.n_functions = operator.n_functions

    def matrices(self, kpoints: NDArray[np.float64]) -> tuple[NDArray, NDArray | None]:
        a, s = self._operator.matrices(kpoints)
        return self._change(np.array(kpoints), a.astype(complex), s)

    def eigenvalues(self, kpoints: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        from sorep.eigen import generalized_eigenvalues

        a, s = self.matrices(kpoints)
        return list(np.linalg.eigvalsh(a)) if s is None else generalized_eigenvalues(a, s)


def plus(function: Callable[[NDArray], NDArray]) -> Callable:
    """Add a function of k, times S, to A: all eigenvalues at k move by it."""
    return lambda k, a, s: (a + 1e-4 * function(k)[:, None, None] * s, s)


def not_hermitian(k: NDArray, a: NDArray, s: NDArray) -> tuple[NDArray, NDArray]:
    a[:, 0, -1] += 1e-6
    return a, s


def indefinite(k: NDArray, a: NDArray, s: NDArray) -> tuple[NDArray, NDArray]:
    return a, s - 1.1 * np.linalg.eigvalsh(s)[:, :1, None] * np.eye(s.shape[1])


OF_MATRICES: dict[str, tuple[Callable, Structure, set[str]]] = {
    "not Hermitian": (not_hermitian, TRICLINIC, {"hermiticity", "trace"}),
    "an indefinite overlap": (indefinite, TRICLINIC, {"positive_overlap"}),
    "odd in k": (plus(lambda k: np.sin(2 * np.pi * k[:, 0])), TRICLINIC, {"time_reversal"}),
    "not periodic": (plus(lambda k: (k**2).sum(axis=1)), TRICLINIC, {"periodicity"}),
    "not as symmetric as the crystal": (plus(lambda k: np.cos(2 * np.pi * k[:, 0])), SILICON, {"point_group"}),
    "another operator": (lambda k, a, s: (1.001 * a, s), SILICON, {"operators"}),
}


@dataclass(frozen=True)
class WithMatrices:
    """A sound method but for its matrices."""

    change: Callable
    settings: Sound = Sound()  # noqa: RUF009 - it is frozen

    def __getattr__(self, name: str) -> Any:
        return getattr(self.settings, name)

    def bloch_operators(self, structure: Structure) -> Operators:
        operators = self.settings.bloch_operators(structure)
        return replace(operators, operators=tuple(Changed(o, self.change) for o in operators.operators))


MATRIX_CHECKS = {"hermiticity", "positive_overlap", "trace", "time_reversal", "periodicity", "point_group", "operators"}


@pytest.mark.parametrize("defect", OF_MATRICES)
def test_a_defect_of_matrices_is_found(defect: str) -> None:
    change, structure, expected = OF_MATRICES[defect]
    exclude = dict.fromkeys(CHECKS.keys() - MATRIX_CHECKS, "about something else")
    found = failing(WithMatrices(change), structure, exclude=exclude)
    assert expected <= found
    if defect != "an indefinite overlap":  # after which nothing is right
        assert found <= expected | {"operators"}


def test_eigenvalues_that_are_not_those_of_the_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Changed, "eigenvalues", lambda self, k: list(np.linalg.eigvalsh(self.matrices(k)[0])))
    check = Check("trace", SILICON)
    with pytest.raises(AssertionError, match=r"trace of kinetic fails for silicon: .*add up to"):
        check(WithMatrices(lambda k, a, s: (a, s)))


def test_operators_of_another_cell() -> None:
    class Elsewhere(Sound):
        def bloch_operators(self, structure: Structure) -> Operators:
            return replace(super().bloch_operators(structure), cell=canonical_cell(structure, keep_cell=True))

    with pytest.raises(AssertionError, match="operators and spectrum differ in their lattice"):
        Check("operators", rotated(SILICON, np.random.default_rng(0)))(Elsewhere())


def test_routes() -> None:
    method = Sound()

    def through_the_operators(calculation: Calculation) -> list[NDArray[np.float64]]:
        (operator,) = (found := method.bloch_operators(calculation.cell.structure)).operators
        return [found.unit * e for e in operator.eigenvalues(calculation.spectrum.kpoints)]

    def astray(calculation: Calculation) -> list[NDArray[np.float64]]:
        return [e + 1e-4 for e in calculation.spectrum.eigenvalues[0]]

    Check("routes", TRICLINIC, {"routes": {"same": through_the_operators}})(method)
    with pytest.raises(AssertionError, match="astray: a level differs by"):
        Check("routes", TRICLINIC, {"routes": {"same": through_the_operators, "astray": astray}})(method)
    with pytest.raises(AssertionError, match=r"short: .* eigenvalues, the spectrum has"):
        Check("routes", TRICLINIC, {"routes": {"short": lambda c: astray(c)[1:]}})(method)


# Settings.


def test_a_setting_whose_other_values_are_unknown_must_be_given() -> None:
    with pytest.raises(AssertionError, match="no other value of operator is known: give one, as changes="):
        Check("identity", SILICON)(Sound())
    for changes in (CHANGES | {"basis": "ano-ml-os"}, CHANGES | {"colour": "red"}):
        with pytest.raises(AssertionError, match=r"basis|colour"):
            Check("identity", SILICON, {"changes": changes})(Sound())


def test_settings_in_a_field() -> None:
    check = Check("identity", SILICON, {"changes": CHANGES})
    check(Nested(Sound()))
    with pytest.raises(AssertionError, match="the identity with another k_spacing is that of"):
        check(Nested(SpacingForgotten()))
    with pytest.raises(SkipTest, match="no pydantic settings"):
        check(Nested(None))


@dataclass(frozen=True)
class Nested:
    settings: Any

    operator = "nested"

    def identity(self) -> Identity:
        return Identity.of({}) if self.settings is None else self.settings.identity()


# The suite.


def test_check_method_makes_them_all_and_names_all_that_fail() -> None:
    with pytest.raises(AssertionError) as caught:
        check_method(Ordered(), [TRICLINIC, MAGNESIUM], changes=CHANGES, exclude={"operators": "shifted"}, examples=2)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("permutation of kinetic fails for triclinic: levels move by ")
    assert any(line.startswith("permutation of kinetic fails for Structure('random', ") for line in lines)
    assert {line.split()[0] for line in lines} <= {"permutation", "supercell"}


def test_check_method_tells_what_was_not_checked() -> None:
    skipped = check_method(
        Sound(operator="overlap"), [SILICON], changes={"operator": "kinetic", "basis": "ano-ml-ae"}, examples=0
    )
    assert skipped == {
        f"routes-{SILICON.id}": "no routes were given",
        f"positive_overlap-{SILICON.id}": "the operator has no overlap matrix",
    }


def test_a_method_without_operators() -> None:
    with pytest.raises(SkipTest, match="no bloch_operators"):
        Check("trace", SILICON)(Nested(Sound()))


def test_exclusions_and_tolerances() -> None:
    method = MeshOfTheGivenCell()
    assert failing(method, SILICON, exclude=dict.fromkeys(INVARIANCES, "the cell is kept")) == set()
    loose = dict.fromkeys(["permutation", "supercell", "operators"], 1e-3)
    assert failing(Ordered(), TRICLINIC, tolerances=loose) == set()
    with pytest.raises(UsageError, match="spin") as caught:
        checks(exclude={"spin": "none"})
    assert caught.value.code == "unknown-check"
    assert "mirror_image" in caught.value.remedy
    with pytest.raises(UsageError, match="determinism") as caught:
        checks(tolerances={"determinism": 1.0})
    assert caught.value.code == "no-tolerance"


def test_an_error_of_the_method_is_a_failure() -> None:
    class Unfit(Sound):
        def calculate(self, structure: Structure) -> Calculation:
            raise ZeroDivisionError("no mass")

    with pytest.raises(AssertionError, match=r"counts of kinetic fails for triclinic: ZeroDivisionError\('no mass'\)"):
        Check("counts", TRICLINIC)(Unfit())


def test_random_structures_are_the_same_every_time() -> None:
    seen: list[list[str]] = [[], []]
    for keys in seen:

        class Listening(Sound):
            def calculate(self, structure: Structure, keys: list[str] = keys) -> Calculation:
                keys.append(structure.content_key)
                return super().calculate(structure)

        Check("counts", None, elements=("Si", "O"), examples=6)(Listening())
    assert seen[0] == seen[1]
    assert len(set(seen[0])) > 3


class TestPytest:
    def test_methods_given(self) -> None:
        mark = parametrize_with_checks([Sound(), Sound(operator="overlap")], [SILICON], examples=1).mark
        names, pairs = mark.args
        assert names == ("method", "check")
        assert len(pairs) == 2 * (2 * len(CHECKS) - 3)
        assert mark.kwargs["ids"][0] == f"kinetic-rotation-{SILICON.id}"
        assert len(set(mark.kwargs["ids"])) == len(pairs)

    def test_in_a_session(self, tmp_path: Path) -> None:
        (tmp_path / "test_own.py").write_text(
            """
import pytest
from sorep import KineticSettings
from sorep.testing import default_structures, parametrize_with_checks

@pytest.fixture
def method():
    return KineticSettings(k_spacing=0.9, keep_cell=True)

OPTIONS = dict(structures=default_structures()[:1], examples=0, changes={"operator": "overlap", "basis": "ano-ml-ae"})

@parametrize_with_checks(exclude={"axes": "it is kept"}, tolerances={"supercell": 1.0}, **OPTIONS)
def test_it(method, check):
    check(method)
"""
        )
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-rsf", "-p", "no:cacheprovider", "test_own.py"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert "axes excluded: it is kept" in done.stdout
        assert "FAILED test_own.py::test_it[conventional_cell-silicon]" in done.stdout
        assert f"1 failed, {len(CHECKS) - 3} passed, 2 skipped" in done.stdout


def test_without_hypothesis() -> None:
    program = """
import sys
sys.modules["hypothesis"] = None
from sorep.errors import SorepError
try:
    import sorep.testing
except SorepError as error:
    print(error.code, error.stage, error.remedy)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "missing-package set-up pip install hypothesis\n"


# Descriptions and random structures.


def environment(structure: Structure) -> NDArray[np.float64]:
    """Distances and species of all pairs within 5 Angstrom, per atom."""
    pairs = neighbor_pairs(structure.lattice, structure.positions, 5.0)
    species = structure.numbers
    rows = np.column_stack([species[pairs.first], species[pairs.second], pairs.distances.round(6)])
    found, counts = np.unique(rows, axis=0, return_counts=True)
    return np.column_stack([found, counts / structure.n_atoms])


@pytest.mark.parametrize("structure", default_structures(), ids=lambda s: s.id)
@pytest.mark.parametrize(
    "change", [rotated, mirrored, translated, permuted, with_other_axes, repeated], ids=lambda change: change.__name__
)
def test_descriptions_are_of_the_same_crystal(structure: Structure, change: Callable) -> None:
    for seed in range(3):
        again = change(structure, np.random.default_rng(seed))
        np.testing.assert_allclose(environment(again), environment(structure), atol=2e-6)
        handedness = np.sign(np.linalg.det(again.lattice) * np.linalg.det(structure.lattice))
        if change is not with_other_axes:
            assert handedness == (-1 if change is mirrored else 1)
        assert again.content_key != structure.content_key


def test_cells_of_silicon() -> None:
    primitive, conventional = primitive_and_conventional(repeated(SILICON, np.random.default_rng(0)))
    assert (primitive.n_atoms, conventional.n_atoms) == (2, 8)
    np.testing.assert_allclose(environment(conventional), environment(SILICON), atol=2e-6)
    assert supercell(SILICON, (1, 2, 3)).n_atoms == 12


@given(structure=structures(("H", "Ba"), max_atoms=3), lower=st.just(1.0))
@settings(derandomize=True, database=None, deadline=None, max_examples=30)
def test_random_structures_are_sane(structure: Structure, lower: float) -> None:
    from ase.data import covalent_radii

    assert 1 <= structure.n_atoms <= 3
    assert set(structure.symbols) <= {"H", "Ba"}
    pairs = neighbor_pairs(structure.lattice, structure.positions, 6.0)
    radii = covalent_radii[structure.numbers]
    ratios = pairs.distances / (radii[pairs.first] + radii[pairs.second])
    assert ratios.min() == pytest.approx(1.15, abs=0.1501)


def test_spectra_of_random_structures_differ() -> None:
    found: list[Spectrum] = []

    @given(structure=structures(("Si",), min_atoms=2, max_atoms=2))
    @settings(derandomize=True, database=None, deadline=None, max_examples=8)
    def collect(structure: Structure) -> None:
        found.append(Sound().calculate(structure).spectrum)

    collect()
    assert len({round(float(spectrum.energies.mean()), 6) for spectrum in found}) > 3

"""Every operator of the package, and one that a user would add, through the checks of `sorep.testing`.

More crystals and descriptions than here are in test_invariance.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from sorep.kinetic.method import KineticSettings
from sorep.kinetic.operators import OPERATORS, OneElectronOperator
from sorep.kinetic.orbitals import Orbitals
from sorep.method import Calculation
from sorep.single_shot.executable import PwX
from sorep.single_shot.method import SingleShot, SingleShotSettings
from sorep.single_shot.pseudos import DEFAULT_FAMILY
from sorep.single_shot.runner import PwRunner
from sorep.structure import Structure
from sorep.testing import Check, default_structures, parametrize_with_checks

pytestmark = pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING:DeprecationWarning")

COARSE = 0.6  # 1/Angstrom
QUARTIC = OneElectronOperator("quartic", "int1e_p4_sph", lambda q2: q2**2, unit=1.0)
INVARIANCES = ["rotation", "translation", "permutation", "axes", "supercell", "conventional_cell", "mirror_image"]
THE_CELL_IS_KEPT = "the published recipe keeps the given cell"


def split_at(split: float, calculation: Calculation, *, operator: OneElectronOperator) -> list[NDArray[np.float64]]:
    """Eigenvalues with diffuse primitives, those below ``split``, summed in reciprocal space."""
    orbitals = Orbitals.of(calculation.cell.structure, KineticSettings().load_basis())
    bloch = operator.bloch_operator(orbitals, split=split)
    return [e * operator.unit for e in bloch.eigenvalues(calculation.spectrum.kpoints)]


def splits(operator: OneElectronOperator) -> dict[str, partial]:
    return {f"split at {split}": partial(split_at, split, operator=operator) for split in (0.0, 0.1)}


def changes(operator: str) -> dict[str, str]:
    return {"operator": operator, "basis": "ano-ml-ae"}


@parametrize_with_checks(
    [KineticSettings(k_spacing=COARSE)], changes=changes("overlap"), routes=splits(OPERATORS["kinetic"])
)
def test_kinetic(method: KineticSettings, check: Check) -> None:
    check(method)


@parametrize_with_checks(
    [KineticSettings(k_spacing=COARSE, operator="overlap")],
    changes=changes("kinetic"),
    routes=splits(OPERATORS["overlap"]),
    exclude={"positive_overlap": "the overlap is the operator itself"},
)
def test_overlap(method: KineticSettings, check: Check) -> None:
    check(method)


@parametrize_with_checks(
    [KineticSettings.published(k_spacing=COARSE)],
    changes=changes("overlap"),
    exclude={
        **dict.fromkeys(["axes", "supercell", "conventional_cell"], THE_CELL_IS_KEPT),
        "mesh": "the published rounding does not look at the symmetry of the lattice",
        "routes": "those of the kinetic operator are checked with the other basis",
    },
)
def test_published(method: KineticSettings, check: Check) -> None:
    check(method)


class TestAnOperatorOfOnesOwn:
    @pytest.fixture
    def method(self, monkeypatch: pytest.MonkeyPatch) -> KineticSettings:
        monkeypatch.setitem(OPERATORS, QUARTIC.name, QUARTIC)
        return KineticSettings(k_spacing=COARSE, operator=QUARTIC.name)

    @parametrize_with_checks(changes=changes("kinetic"), routes=splits(QUARTIC))
    def test_quartic(self, method: KineticSettings, check: Check) -> None:
        check(method)


@pytest.mark.parametrize("name", ["nacl", "batio3", "distorted-batio3", "anatase", "bismuth"])
@pytest.mark.parametrize("invariance", INVARIANCES)
def test_kinetic_on_more_crystals(crystals: dict[str, Structure], name: str, invariance: str) -> None:
    Check(invariance, crystals[name])(KineticSettings(k_spacing=0.35 if name == "bismuth" else 0.3))


@pytest.fixture(scope="module")
def single_shot(pw_x: PwX, get_family, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SingleShot]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOREP_DATA", str(get_family(DEFAULT_FAMILY).folder.parents[1]))
        runner = PwRunner(pw_x, tmp_path_factory.mktemp("scratch"))
        yield SingleShot(SingleShotSettings(k_spacing=1.0), runner)


@pytest.mark.pwx
class TestSingleShot:
    """pw.x evaluates exchange and correlation on a grid, against which the crystal may lie in any way."""

    @pytest.fixture
    def method(self, single_shot: SingleShot) -> SingleShot:
        return single_shot

    @parametrize_with_checks(
        structures=default_structures()[:2],
        examples=0,
        tolerances=dict.fromkeys(["translation", "supercell", "conventional_cell", "smoothness", "operators"], 1e-4),
        exclude={
            "routes": "an unpatched pw.x is compared in test_single_shot.py",
            "identity": "other families are needed; tests/unit/single_shot/test_method.py makes them",
        },
    )
    def test_single_shot(self, method: SingleShot, check: Check) -> None:
        check(method)

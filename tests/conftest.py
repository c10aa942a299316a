"""Crystals that several test files use, and other ways of writing the same crystal down."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import ArrayLike

from sorep.errors import PseudoError
from sorep.paths import data_folder
from sorep.single_shot.pseudo_family import PseudoFamily
from sorep.single_shot.pseudo_install import install_family
from sorep.single_shot.pseudos import load_family
from sorep.structure import Structure
from sorep.testing import descriptions

Redescribe = Callable[..., Structure]


@pytest.fixture(scope="session")
def crystals() -> dict[str, Structure]:
    """Small real crystals (and one made up, triclinic) by name, in primitive cells."""
    from ase.build import bulk, nanotube

    rng = np.random.default_rng(0)
    tube = nanotube(8, 0, bond=1.42, vacuum=15)
    tube.pbc = True
    perovskite = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    u = 0.208  # of oxygen in anatase, International Tables origin at Ti
    found = [
        Structure.from_ase(bulk("Si", "diamond", a=5.431), id="silicon"),
        Structure.from_ase(bulk("Ge", "diamond", a=5.658), id="germanium"),
        Structure.from_ase(bulk("NaCl", "rocksalt", a=5.64), id="nacl"),
        Structure.from_ase(bulk("Mg", "hcp", a=3.21, c=5.21), id="magnesium"),
        Structure.from_ase(tube, id="nanotube"),
        Structure("batio3", 4.0 * np.eye(3), [56, 22, 8, 8, 8], perovskite),
        Structure(
            "distorted-batio3",
            [[3.99, 0.02, 0], [0, 4.02, 0.05], [0.01, 0, 4.1]],
            [56, 22, 8, 8, 8],
            perovskite + 0.01 * rng.normal(size=(5, 3)),
        ),
        Structure(
            "triclinic",
            [[3.7, 0.3, 0.2], [-1.8, 4.1, 0.5], [-1.3, 3.0, 4.1]],
            [12, 8, 14],
            [[0.1, 0.2, 0.3], [0.6, 0.65, 0.9], [0.35, 0.9, 0.5]],
        ),
        Structure(  # body-centred tetragonal, with c/a = 2.5
            "anatase",
            0.5 * np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]]) @ np.diag([3.785, 3.785, 9.514]),
            [22, 22, 8, 8, 8, 8],
            [
                [0, 0, 0],
                [0.75, 0.25, 0.5],
                [u, u, 0],
                [-u, -u, 0],
                [u + 0.75, u + 0.25, 0.5],
                [0.75 - u, 0.25 - u, 0.5],
            ],
        ),
        Structure(  # rhombohedral
            "bismuth",
            [[1, 3**-0.5, 2], [-1, 3**-0.5, 2], [0, -2 * 3**-0.5, 2]] * np.array([4.546 / 2, 4.546 / 2, 11.862 / 6]),
            [83, 83],
            [[0.2339] * 3, [-0.2339] * 3],
        ),
    ]
    return {structure.id: structure for structure in found}


@pytest.fixture(scope="session")
def redescribe() -> Redescribe:
    """The same crystal otherwise written down.

    A function of a structure, the supercell's integer matrix (a list of three multiples, or rows) and a seed. The
    cell is repeated, its axes replaced by an equivalent choice, and everything turned, shifted and shuffled.
    """

    def redescribed(
        structure: Structure,
        supercell: ArrayLike = (1, 1, 1),
        seed: int = 0,
        *,
        turn: bool = True,
        shift: bool = True,
        shuffle: bool = True,
        axes: bool = True,
    ) -> Structure:
        rng = np.random.default_rng(seed)
        again = descriptions.supercell(structure, supercell)
        for wanted, change in (
            (axes, descriptions.with_other_axes),
            (shift, descriptions.translated),
            (turn, descriptions.rotated),
            (shuffle, descriptions.permuted),
        ):
            if wanted:
                again = change(again, rng)
        return replace(again, id=f"{structure.id}-again")

    return redescribed


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """Data that cannot be part of the repository; tests that need it skip where it is absent."""
    root = Path(__file__).parents[1]
    folder = Path(os.environ.get("SOREP_SHARED", root.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip("no shared data: set SOREP_SHARED to its folder")
    return folder


@pytest.fixture(scope="session")
def get_family(tmp_path_factory, request) -> Callable[[str], PseudoFamily]:
    """Real families by name: as installed on this machine, else fetched once for all test processes, else skip."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "pseudos"
    installed = data_folder() / "pseudos"  # before any test sets $SOREP_DATA

    def get(name: str) -> PseudoFamily:
        try:
            family = load_family(name, folder=installed)
            family.verify()
            return family
        except PseudoError:
            archive = None
        if name.startswith("sssp"):
            kind = "PBESOL" if "pbesol" in name else "PBE"
            shared = request.getfixturevalue("shared_folder")
            archive = shared / "pseudos" / f"SSSP_1.3.0_{kind}_efficiency_noLnAn.tar.xz"
        root.mkdir(exist_ok=True)
        with (root / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                return install_family(name, archive=archive, folder=root).family
            except PseudoError as error:
                if error.code not in ("download-failed", "unreadable-archive"):
                    raise
                pytest.skip(f"{name} is not installed and cannot be: {error}")

    return get

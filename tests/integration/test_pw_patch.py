"""The patched pw.x: its eigenvalues against other routes to the same numbers, and what it refuses.

Eigenvalues come out twice or more by code that shares little: the fast route against `h_psi` and `s_psi` of pw.x
(Gamma-only and non-collinear runs take them), LAPACK in pw.x against SciPy on the matrices that it wrote, a basis that
spans all plane waves against pw.x's own iterative diagonalisation, and an atom in a box against the eigenvalues of the
atom that its pseudopotential was made from. Where an unpatched pw.x has been built, both must agree.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import scipy.linalg
from ase import Atoms
from ase.build import bulk
from numpy.typing import NDArray

from sorep.outputs.espresso import read_espresso
from sorep.single_shot.executable import PwX
from sorep.single_shot.matrices import KPointMatrices, read_matrices
from sorep.single_shot.pseudo_family import PseudoFamily
from sorep.units import BOHR_IN_ANGSTROM, HARTREE_IN_EV

pytestmark = pytest.mark.pwx

DOJO, SSSP = "pseudo-dojo-0.4-pbe-sr-standard", "sssp-1.3-pbe-efficiency"  # norm-conserving; of all kinds
GENERAL = ((0.0, 0.0, 0.0), (0.17, -0.31, 0.42))
GAMMA = ((0.0, 0.0, 0.0),)
ABSENT = 1e5  # Hartree; a removed band lies above
SMALLEST_OVERLAP = 1e-8
SAME = 1e-11  # Hartree; what two routes to one number may differ by
GUARD = 120.0

Namelists = Mapping[str, Mapping[str, Any]]
UNCHANGED: Namelists = {}


@dataclass(frozen=True)
class Case:
    """A crystal, its pseudopotentials, and cutoffs in Ry that make it cheap: operators need not be converged."""

    atoms: Atoms
    family: str
    ecutwfc: float
    ecutrho: float
    system: Mapping[str, Any] = field(default_factory=dict)


def crystal(*words: Any, rattle: float = 0.05, **options: Any) -> Atoms:
    """One of `ase.build.bulk` without any symmetry."""
    atoms = bulk(*words, **options)
    atoms.rattle(rattle, seed=3)
    return atoms


SILICON = Case(crystal("Si", "diamond", a=5.43), DOJO, 12, 48)
SPIN = {"nspin": 2, "starting_magnetization(1)": 0.4}
ALONG_Z = {"noncolin": True, "starting_magnetization(1)": 0.4, "angle1(1)": 0.0, "angle2(1)": 0.0}
CASES = {
    "norm-conserving": SILICON,
    "norm-conserving metal": Case(crystal("Al", "fcc", a=4.05), DOJO, 12, 48),
    "ultrasoft": Case(crystal("Si", "diamond", a=5.43), SSSP, 15, 90),
    "PAW": Case(crystal("MgO", "rocksalt", a=4.21), SSSP, 25, 150),
    "PAW metal": Case(crystal("Cu", "fcc", a=3.6), SSSP, 25, 150),
    "norm-conserving and ultrasoft": Case(crystal("RbBr", "rocksalt", a=6.9), SSSP, 12, 72),
    "norm-conserving, two spins": Case(crystal("Fe", "bcc", a=2.87), DOJO, 25, 100, SPIN),
    "ultrasoft, two spins": Case(crystal("Ni", "fcc", a=3.52), SSSP, 25, 150, SPIN),
    "PAW, two spins": Case(crystal("Cu", "fcc", a=3.6), SSSP, 25, 150, SPIN),
}

OTHER_ROUTES = {"gamma": (True, {}), "spinors": (False, {"noncolin": True}), "spinors along z": (False, ALONG_Z)}
"""Whether the k points are Gamma alone, and settings; by `h_psi` and `s_psi`."""


@dataclass(frozen=True)
class Answer:
    """What pw.x left: exit status, output, eigenvalues (n_k, n_band) in Hartree or None, and the PREFIX.save folder."""

    status: int
    text: str
    eigenvalues: NDArray[np.float64] | None
    save: Path


Run = Callable[..., Answer]


@pytest.fixture
def run(pw_x: PwX, get_family, tmp_path) -> Run:
    """Run the patched pw.x, or another, in a fresh folder or in a given one."""
    folders = (tmp_path / f"run{n}" for n in range(99))

    def answer(case: Case, *, by: PwX = pw_x, options: tuple[str, ...] = (), folder: Path | None = None, **more: Any):
        folder = folder or next(folders)
        folder.mkdir(exist_ok=True)
        family = get_family(case.family)
        for symbol in set(case.atoms.symbols):
            if not (folder / f"{symbol}.upf").exists():
                (folder / f"{symbol}.upf").symlink_to(family.folder / family.pseudos[symbol].filename)
        (folder / "pw.in").write_text(pw_input(case, **more))
        result = subprocess.run(
            [*by.command, *options, "-in", "pw.in"],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=GUARD,
        )
        save = folder / "x.save"
        return Answer(result.returncode, result.stdout, eigenvalues(save / "data-file-schema.xml"), save)

    return answer


def pw_input(
    case: Case,
    *,
    changes: Namelists = UNCHANGED,
    kpoints: tuple[tuple[float, ...], ...] = GENERAL,
    gamma: bool = False,
    cards: str = "",
) -> str:
    """The input of a single shot, with ``changes`` to its namelists."""
    atoms = case.atoms
    species = list(dict.fromkeys(atoms.symbols))
    namelists: dict[str, dict[str, Any]] = {
        "control": {"calculation": "scf", "prefix": "x", "outdir": ".", "pseudo_dir": ".", "disk_io": "none"},
        "system": {
            **{"ibrav": 0, "nat": len(atoms), "ntyp": len(species), "nosym": True, "noinv": True},
            **{"ecutwfc": case.ecutwfc, "ecutrho": case.ecutrho},
            **{"occupations": "smearing", "degauss": 0.02, **case.system},
        },
        "electrons": {"electron_maxstep": 0, "startingwfc": "atomic", "startingpot": "atomic"},
    }
    lines = []
    for name in {**namelists, **changes}:
        settings = {**namelists.get(name, {}), **changes.get(name, {})}
        lines += [f"&{name}", *(f"  {key} = {fortran(value)}" for key, value in settings.items()), "/"]
    lines += ["ATOMIC_SPECIES", *(f"  {symbol} 1.0 {symbol}.upf" for symbol in species)]
    lines.append("CELL_PARAMETERS bohr")
    lines += [" ".join(map(repr, row.tolist())) for row in np.asarray(atoms.cell) / BOHR_IN_ANGSTROM]
    lines.append("ATOMIC_POSITIONS crystal")
    positions = atoms.get_scaled_positions(wrap=False)
    lines += [f"  {s} {' '.join(map(repr, x.tolist()))}" for s, x in zip(atoms.symbols, positions, strict=True)]
    if gamma:
        lines.append("K_POINTS gamma")
    else:
        lines += ["K_POINTS crystal", str(len(kpoints)), *(f"{' '.join(map(str, k))} 1.0" for k in kpoints)]
    return "\n".join([*lines, cards]) + "\n"


def fortran(value: Any) -> str:
    if isinstance(value, bool):
        return f".{value}.".lower()
    return f"'{value}'" if isinstance(value, str) else repr(value)


def eigenvalues(xml: Path) -> NDArray[np.float64] | None:
    if not xml.exists():
        return None
    rows = [(element.text or "").split() for element in ElementTree.parse(xml).iter("eigenvalues")]
    return np.array(rows, dtype=float)


def levels(answer: Answer) -> NDArray[np.float64]:
    """Eigenvalues of a single shot that must have ended well."""
    assert answer.status == 0, answer.text[-2000:]
    assert answer.eigenvalues is not None
    return answer.eigenvalues


def deviation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    assert one.shape == other.shape
    found = float(np.abs(one - other).max())
    print(f"largest deviation {found:.2e} Hartree")
    return found


def n_functions(case: Case, family: PseudoFamily) -> int:
    return sum(family.pseudos[symbol].n_functions for symbol in case.atoms.symbols)


def with_all_bands(case: Case, family: PseudoFamily) -> Case:
    """What a stock pw.x must be told."""
    doubling = 2 if case.system.get("noncolin") else 1
    return replace(case, system={**case.system, "nbnd": doubling * n_functions(case, family)})


every_case = pytest.mark.parametrize("name", CASES)
every_other_route = pytest.mark.parametrize("route", OTHER_ROUTES)


# Against the unpatched pw.x


@every_case
def test_same_as_stock(run: Run, stock_pw_x: PwX, get_family, name: str) -> None:
    case = CASES[name]
    stock = run(with_all_bands(case, get_family(case.family)), by=stock_pw_x)
    assert stock.status == 2
    assert stock.eigenvalues is not None
    assert deviation(levels(run(case)), stock.eigenvalues) < SAME


@every_other_route
@pytest.mark.parametrize("name", ["norm-conserving", "ultrasoft", "PAW"])
def test_same_as_stock_on_the_other_routes(run: Run, stock_pw_x: PwX, get_family, name: str, route: str) -> None:
    gamma, system = OTHER_ROUTES[route]
    case = replace(CASES[name], system=system)
    stock = run(with_all_bands(case, get_family(case.family)), by=stock_pw_x, gamma=gamma)
    assert stock.eigenvalues is not None
    assert deviation(levels(run(case, gamma=gamma)), stock.eigenvalues) < SAME


# Against other routes of the same pw.x


@pytest.mark.parametrize("name", ["norm-conserving", "ultrasoft", "PAW", "PAW, two spins"])
def test_gamma_alone_is_the_k_point_000(run: Run, name: str) -> None:
    general = levels(run(CASES[name], kpoints=GAMMA))
    assert deviation(levels(run(CASES[name], gamma=True)), general) < SAME


@pytest.mark.parametrize("name", ["norm-conserving", "ultrasoft", "PAW", "norm-conserving and ultrasoft"])
def test_spinors_without_magnetisation_double_every_level(run: Run, name: str) -> None:
    spinors = levels(run(CASES[name], changes={"system": {"noncolin": True}}))
    assert deviation(spinors, np.repeat(levels(run(CASES[name])), 2, axis=1)) < SAME


@pytest.mark.parametrize("name", ["norm-conserving, two spins", "ultrasoft, two spins", "PAW, two spins"])
def test_spinors_along_z_are_two_spins(run: Run, name: str) -> None:
    spinors = levels(run(replace(CASES[name], system=ALONG_Z)))
    collinear = levels(run(CASES[name]))
    assert np.ptp(collinear - np.roll(collinear, collinear.shape[1] // 2, axis=1)) > 1e-2, "both spins are the same"
    assert deviation(spinors, np.sort(collinear, axis=1)) < SAME


def test_spin_orbit_with_equal_channels_is_none(run: Run, get_family, tmp_path) -> None:
    """A fully relativistic pseudopotential whose channels j = l - 1/2 and l + 1/2 are equal is the scalar one."""
    scalar, split = (twin_channels(get_family(DOJO), "Si", shift) for shift in (0.0, 0.1))
    spin_orbit = {"system": {"noncolin": True, "lspinorb": True}}
    expected = np.repeat(levels(run(SILICON)), 2, axis=1)
    found = {}
    for name, upf in (("equal", scalar), ("split", split)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "Si.upf").write_text(upf)
        found[name] = levels(run(SILICON, folder=folder, changes=spin_orbit))
    assert deviation(found["equal"], expected) < SAME
    assert deviation(found["split"], expected) > 1e-3


def test_same_as_stock_with_spin_orbit(run: Run, stock_pw_x: PwX, get_family, tmp_path) -> None:
    (tmp_path / "Si.upf").write_text(twin_channels(get_family(DOJO), "Si", 0.1))
    case = replace(SILICON, system={"noncolin": True, "lspinorb": True})
    stock = run(with_all_bands(case, get_family(DOJO)), by=stock_pw_x, folder=tmp_path)
    assert stock.eigenvalues is not None
    assert deviation(levels(run(case, folder=tmp_path)), stock.eigenvalues) < SAME


def twin_channels(family: PseudoFamily, symbol: str, shift: float) -> str:
    """A fully relativistic UPF from a norm-conserving scalar one: all l > 0 twice, with D + shift (Ry) for j = l + 1/2.

    For j = l - 1/2 it is D - shift.
    """
    root = ElementTree.parse(family.folder / family.pseudos[symbol].filename).getroot()
    header, projectors, orbitals, dij = (
        next(root.iter(name)) for name in ("PP_HEADER", "PP_NONLOCAL", "PP_PSWFC", "PP_DIJ")
    )
    spin_orbit = ElementTree.Element("PP_SPIN_ORB")
    coefficients = np.array((dij.text or "").split(), dtype=float)
    n = round(len(coefficients) ** 0.5)
    strengths = []

    for index, (element, _, l, j) in enumerate(both_j(orbitals, "PP_CHI", "l"), 1):  # noqa: E741
        orbitals.append(relabelled(element, f"PP_CHI.{index}", index))
        attributes = {"index": str(index), "lchi": str(l), "jchi": str(j), "nn": "1", "oc": "0.0"}
        ElementTree.SubElement(spin_orbit, f"PP_RELWFC.{index}", attributes)
    for index, (element, number, l, j) in enumerate(both_j(projectors, "PP_BETA", "angular_momentum"), 1):  # noqa: E741
        projectors.append(relabelled(element, f"PP_BETA.{index}", index))
        attributes = {"index": str(index), "lll": str(l), "jjj": str(j)}
        ElementTree.SubElement(spin_orbit, f"PP_RELBETA.{index}", attributes)
        strengths.append(coefficients[number * (n + 1)] + (2 * (j - l) * shift if l else 0.0))

    dij.text = "\n" + "\n".join(" ".join(f"{x:.10E}" for x in row) for row in np.diag(strengths)) + "\n"
    dij.set("size", str(len(strengths) ** 2))
    projectors.remove(dij)
    projectors.append(dij)  # pw.x reads in this order
    for key, value in {
        "has_so": "T",
        "relativistic": "full",
        "number_of_proj": str(len(strengths)),
        "number_of_wfc": str(len(orbitals)),
    }.items():
        header.set(key, value)
    root.append(spin_orbit)
    ElementTree.indent(root)  # pw.x finds tags by lines
    return ElementTree.tostring(root, encoding="unicode")


def both_j(parent: ElementTree.Element, tag: str, key: str) -> list[tuple[ElementTree.Element, int, int, float]]:
    """Take the children ``tag.N`` out; each with its place among them, l and j, once for every j."""
    taken = [child for child in parent if child.tag.startswith(f"{tag}.")]
    for child in taken:
        parent.remove(child)
    momenta = [int(child.get(key, "")) for child in taken]
    return [
        (child, number, l, j)
        for number, (child, l) in enumerate(zip(taken, momenta, strict=True))  # noqa: E741
        for j in (l - 0.5, l + 0.5)
        if j > 0
    ]


def relabelled(element: ElementTree.Element, tag: str, index: int) -> ElementTree.Element:
    copied = deepcopy(element)
    copied.tag = tag
    copied.set("index", str(index))
    return copied


@every_case
def test_scipy_finds_the_same_in_the_matrices(run: Run, name: str) -> None:
    answer = run(CASES[name], changes={"control": {"disk_io": "high"}})
    matrices = read_matrices(answer.save)
    spectrum = read_espresso(answer.save / "data-file-schema.xml").spectrum
    assert len(matrices) == spectrum.band_counts.size
    for index, one in enumerate(matrices):
        spin, k = divmod(index, len(spectrum.weights))
        assert one.spin == spin
        assert one.kpoint == pytest.approx(spectrum.kpoints[k], abs=1e-12)
        assert np.array_equal(one.hamiltonian, one.hamiltonian.conj().T)
        assert np.array_equal(one.overlap, one.overlap.conj().T)
        expected = scipy.linalg.eigh(one.hamiltonian, one.overlap, eigvals_only=True)
        assert deviation(spectrum.eigenvalues[spin, k] / HARTREE_IN_EV, expected / HARTREE_IN_EV) < SAME


@every_other_route
def test_scipy_on_the_other_routes(run: Run, route: str) -> None:
    gamma, system = OTHER_ROUTES[route]
    answer = run(replace(SILICON, system=system), gamma=gamma, changes={"control": {"disk_io": "high"}})
    for one, found in zip(read_matrices(answer.save), levels(answer), strict=True):
        expected = scipy.linalg.eigh(one.hamiltonian, one.overlap, eigvals_only=True)
        assert deviation(found, expected / HARTREE_IN_EV) < SAME


# Against pw.x's own diagonalisation in all plane waves


def exact_levels(run: Run, case: Case, n_bands: int, kpoints: tuple[tuple[float, ...], ...]) -> NDArray[np.float64]:
    """Lowest eigenvalues in the potential of the superposed atomic densities, by ordinary runs of pw.x."""
    low, cg = {"disk_io": "low"}, {"diagonalization": "cg"}
    # Wavefunctions from a file that is not there: random ones would put noise into PAW densities, too.
    changes = {"control": low, "system": {"nbnd": n_bands}, "electrons": {"startingwfc": "file", **cg}}
    unfinished = run(case, changes=changes, kpoints=GAMMA)
    assert unfinished.status == 2, "without atomic wavefunctions nothing has changed"
    changes = {
        "control": {"calculation": "nscf", **low},
        "system": {"nbnd": n_bands},
        "electrons": {
            **{"electron_maxstep": 100, "startingwfc": "random", "startingpot": "file", **cg},
            **{"diago_thr_init": 1e-13, "conv_thr": 1e-13, "diago_full_acc": True},
        },
    }
    return levels(run(case, changes=changes, kpoints=kpoints, folder=unfinished.save.parent))


@pytest.mark.parametrize("name", ["norm-conserving", "ultrasoft", "PAW", "PAW, two spins"])
def test_no_level_lies_below_the_exact_one(run: Run, get_family, name: str) -> None:
    case = CASES[name]
    n = n_functions(case, get_family(case.family))
    found = levels(run(case)).reshape(-1, n)
    excess = found - exact_levels(run, case, n, GENERAL).reshape(-1, n)
    print(f"lowest {excess.min():.2e}, of the lowest band at most {excess[:, 0].max():.2e} Hartree above")
    assert excess.min() > -1e-6
    assert excess[:, 0].max() < 0.1


FEW = 5.6  # Ry; for the cells below, fewer plane waves than orbitals
SILICON_POINTS = ((0.17, -0.31, 0.42), (0.5, 0.5, 0.0))
COPPER_POINTS = ((0.17, -0.31, 0.42), (0.14, -0.23, -0.46))
DENSE = {  # with the k points, and the number of bands to compare: all that are occupied
    "norm-conserving": (Case(crystal("Si", "diamond", a=2.9, rattle=0.02), DOJO, FEW, 23), SILICON_POINTS, 5),
    "ultrasoft": (Case(crystal("Si", "diamond", a=2.9, rattle=0.02), SSSP, FEW, 34), SILICON_POINTS, 5),
    "PAW": (Case(crystal("Cu", "fcc", a=2.9), SSSP, FEW, 34), COPPER_POINTS, 6),
    "PAW, two spins": (Case(crystal("Cu", "fcc", a=2.9), SSSP, FEW, 34, SPIN), COPPER_POINTS, 6),
}
CG: Namelists = {"electrons": {"diagonalization": "cg"}}
"""pw.x refuses so few plane waves for its default method of diagonalisation, although this mode does not use it."""


@pytest.mark.parametrize("name", DENSE)
def test_orbitals_that_span_all_plane_waves_give_the_exact_levels(run: Run, get_family, name: str) -> None:
    case, kpoints, n_bands = DENSE[name]
    answer = run(case, changes=CG, kpoints=kpoints)
    found = levels(answer).reshape(-1, n_functions(case, get_family(case.family)))
    # So many are over, and nothing else was removed.
    removed = np.maximum(found.shape[1] - plane_waves(answer), 0)
    assert removed.any()
    assert ((found > ABSENT).sum(axis=1) == np.repeat(removed, len(found) // len(removed))).all()
    exact = exact_levels(run, case, n_bands, kpoints).reshape(-1, n_bands)
    assert deviation(found[:, :n_bands], exact) < 1e-7  # how far the iterations are converged


def plane_waves(answer: Answer) -> NDArray[np.int64]:
    """Number of plane waves at each k point."""
    found = ElementTree.parse(answer.save / "data-file-schema.xml").iter("npw")
    return np.array([int(element.text or "") for element in found])


# Linear dependence


@pytest.mark.parametrize("name", DENSE)
def test_dependent_orbitals_are_removed_and_named(run: Run, get_family, name: str) -> None:
    case, kpoints, _ = DENSE[name]
    answer = run(case, changes={"control": {"disk_io": "high"}, **CG}, kpoints=kpoints)
    levels(answer)
    matrices = read_matrices(answer.save)
    removed = [int((scipy.linalg.eigvalsh(one.overlap) < SMALLEST_OVERLAP).sum()) for one in matrices]
    told = re.findall(r"Single shot: k point +(\d+): (\d+) linearly dependent functions removed", answer.text)
    assert {int(k): int(number) for k, number in told} == {k: n for k, n in enumerate(removed, 1) if n}

    output = read_espresso(answer.save / "data-file-schema.xml")
    spectrum = output.spectrum
    n = n_functions(case, get_family(case.family))
    assert spectrum.n_removed == sum(removed) > 0
    assert spectrum.flags == ("linear-dependence",)
    assert spectrum.band_counts.ravel().tolist() == [n - number for number in removed]
    expected = np.concatenate([canonical_eigenvalues(one) for one in matrices])
    assert deviation(spectrum.energies / HARTREE_IN_EV, expected / HARTREE_IN_EV) < 1e-9


def canonical_eigenvalues(matrices: KPointMatrices) -> NDArray[np.float64]:
    """In the space of the eigenvectors of S above the threshold, divided by the roots of their eigenvalues."""
    weights, vectors = scipy.linalg.eigh(matrices.overlap)
    kept = weights >= SMALLEST_OVERLAP
    basis = vectors[:, kept] / np.sqrt(weights[kept])
    return scipy.linalg.eigvalsh(basis.conj().T @ matrices.hamiltonian @ basis)


@pytest.mark.parametrize(("distance", "n_bands"), [(1e-1, 2), (5e-4, 2), (1e-4, 1)])
def test_two_atoms_that_come_close(run: Run, distance: float, n_bands: int) -> None:
    """The smallest overlap falls as the square of the distance (Angstrom), and passes the threshold at 1.6e-4."""
    hydrogen = Case(Atoms("H2", positions=[[0, 0, 0], [distance, 0, 0]], cell=3 * np.eye(3), pbc=True), DOJO, 20, 80)
    answer = run(hydrogen, changes={"control": {"disk_io": "high"}})
    for one, found in zip(read_matrices(answer.save), levels(answer), strict=True):
        assert (found < ABSENT).sum() == n_bands
        assert deviation(found[:n_bands], canonical_eigenvalues(one) / HARTREE_IN_EV) < 1e-8
    assert ("removed" in answer.text) == (n_bands == 1)


# Against the atom


def test_an_atom_in_a_box_has_the_levels_of_its_pseudopotential(run: Run, get_family) -> None:
    family = get_family(DOJO)
    pseudo = ElementTree.parse(family.folder / family.pseudos["Si"].filename)
    energies = [float(chi.get("pseudo_energy", "")) / 2 for chi in pseudo.iter() if chi.tag.startswith("PP_CHI.")]
    atom = Case(Atoms("Si", positions=[[0.1, 0.2, 0.3]], cell=10 * np.eye(3), pbc=True), DOJO, 30, 120)
    s, *p = levels(run(atom, gamma=True))[0]
    assert np.ptp(p) < 1e-6  # a cube keeps p orbitals degenerate
    assert np.mean(p) - s == pytest.approx(energies[1] - energies[0], abs=1e-3)  # Hartree; 4e-4 of it is the box


# What is refused, and what is left alone

REFUSED: dict[str, tuple[str, Namelists]] = {
    "DFT+U": ("DFT+U", {"system": {"lda_plus_u": True, "Hubbard_U(1)": 3.0}}),
    "hybrid": ("hybrid functionals", {"system": {"input_dft": "pbe0"}}),
    "meta-GGA": ("meta-GGA functionals", {"system": {"input_dft": "tpss"}}),
    "saw-tooth": ("electric fields", {"control": {"tefield": True}, "system": {"edir": 3}}),
    "field": (
        "electric fields",
        {"control": {"lelfield": True, "nberrycyc": 1, "gdir": 3}, "system": {"occupations": "fixed", "nbnd": 20}},
    ),
    "magnetisation": (
        "constrained magnetisation",
        {"system": {"noncolin": True, "constrained_magnetization": "total", "fixed_magnetization(3)": 1.0}},
    ),
    "real space": ("real-space projectors", {"electrons": {"real_space": True}}),
    "density": ("a density from a file: set startingpot='atomic'", {"electrons": {"startingpot": "file"}}),
    "relax": ("moving atoms", {"control": {"calculation": "relax"}, "ions": {}}),
    "md": ("moving atoms", {"control": {"calculation": "md"}, "ions": {}}),
    "vc-relax": ("moving atoms", {"control": {"calculation": "vc-relax"}, "ions": {}, "cell": {}}),
    "occupations": (
        "Wannier functions or one_atom_occupations",
        {"system": {"one_atom_occupations": True, "occupations": "from_input", "nbnd": 10}},
    ),
}
IRON = Case(crystal("Fe", "bcc", a=2.87), DOJO, 20, 80)


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_work_is_refused(run: Run, name: str) -> None:
    what, changes = REFUSED[name]
    answer = run(IRON, changes=changes, cards=f"OCCUPATIONS\n{10 * '1.6 '}" if name == "occupations" else "")
    assert_refused(answer, f"electron_maxstep=0 with startingwfc='atomic' does not work with {what}")


def assert_refused(answer: Answer, message: str) -> None:
    assert answer.status == 1
    assert answer.eigenvalues is None
    assert message in " ".join(answer.text.split()), answer.text[-1000:]


@pytest.mark.parametrize("how", ["none", "unused"])
def test_a_pseudopotential_without_orbitals_is_refused(run: Run, get_family, tmp_path, how: str) -> None:
    family = get_family(DOJO)
    upf = (family.folder / family.pseudos["Si"].filename).read_text()
    if how == "none":
        upf = re.sub(r"<PP_CHI\.(\d).*?</PP_CHI\.\1>\n", "", upf, flags=re.DOTALL)
        upf = upf.replace('number_of_wfc="2"', 'number_of_wfc="0"')
    else:
        upf = re.sub(r'occupation="[^"]*"', 'occupation="-1.0"', upf)
    (tmp_path / "Si.upf").write_text(upf)
    answer = run(SILICON, folder=tmp_path)
    assert_refused(answer, "the pseudopotential of Si has no atomic wavefunctions")


ORDINARY: dict[str, tuple[int, dict[str, Any]]] = {  # with their exit status
    "one iteration": (2, {"electron_maxstep": 1}),
    "no iteration, atomic and random": (2, {"startingwfc": "atomic+random"}),
    "no iteration, random": (2, {"startingwfc": "random"}),
    "SCF": (0, {"electron_maxstep": 100, "conv_thr": 1e-9}),
    "SCF, random": (0, {"electron_maxstep": 100, "conv_thr": 1e-9, "startingwfc": "random"}),
}
every_ordinary_run = pytest.mark.parametrize("name", ORDINARY)


@every_ordinary_run
def test_other_runs_do_not_enter_the_mode(run: Run, name: str) -> None:
    status, electrons = ORDINARY[name]
    answer = run(SILICON, changes={"control": {"disk_io": "low"}, "electrons": electrons})
    assert answer.status == status
    assert "Single shot:" not in answer.text
    assert ("convergence has been achieved" in answer.text) == (status == 0)
    assert answer.eigenvalues is not None


@every_ordinary_run
def test_other_runs_are_those_of_stock_to_the_last_bit(run: Run, stock_pw_x: PwX, name: str) -> None:
    status, electrons = ORDINARY[name]
    changes = {"control": {"disk_io": "low"}, "electrons": electrons}
    ours, stock = run(SILICON, changes=changes), run(SILICON, changes=changes, by=stock_pw_x)
    assert ours.status == stock.status == status
    assert ours.eigenvalues is not None and stock.eigenvalues is not None
    assert np.array_equal(ours.eigenvalues, stock.eigenvalues)
    energies = [re.findall(r"total energy += +(\S+) Ry", answer.text) for answer in (ours, stock)]
    assert energies[0] == energies[1]
    assert energies[0] or status == 2


# Several processes


@pytest.mark.parametrize("options", [(), ("-nk", "2")], ids=["plane waves", "pools"])
@pytest.mark.parametrize("name", ["norm-conserving", "PAW", "PAW, two spins"])
def test_two_processes_find_what_one_does(run: Run, mpi_pw_x: PwX, name: str, options: tuple[str, ...]) -> None:
    three = (*GENERAL, (0.4, 0.1, 0.2))  # one k point more in the first pool
    expected = levels(run(CASES[name], kpoints=three))
    assert deviation(levels(run(CASES[name], by=mpi_pw_x, options=options, kpoints=three)), expected) < SAME


@every_other_route
def test_two_processes_on_the_other_routes(run: Run, mpi_pw_x: PwX, route: str) -> None:
    gamma, system = OTHER_ROUTES[route]
    case = replace(SILICON, system=system)
    assert deviation(levels(run(case, by=mpi_pw_x, gamma=gamma)), levels(run(case, gamma=gamma))) < SAME


@pytest.mark.parametrize("options", [(), ("-nk", "2")], ids=["plane waves", "pools"])
def test_matrices_of_two_processes(run: Run, mpi_pw_x: PwX, options: tuple[str, ...]) -> None:
    changes = {"control": {"disk_io": "high"}}
    case = CASES["norm-conserving, two spins"]
    one, two = run(case, changes=changes), run(case, by=mpi_pw_x, options=options, changes=changes)
    pairs = list(zip(read_matrices(one.save), read_matrices(two.save), strict=True))
    assert [(b.spin, b.kpoint.tolist()) for _, b in pairs] == [(a.spin, a.kpoint.tolist()) for a, _ in pairs]
    assert max(np.abs(a.hamiltonian - b.hamiltonian).max() for a, b in pairs) < SAME * HARTREE_IN_EV
    assert max(np.abs(a.overlap - b.overlap).max() for a, b in pairs) < SAME


def test_band_groups_are_refused(run: Run, mpi_pw_x: PwX) -> None:
    answer = run(SILICON, by=mpi_pw_x, options=("-nb", "2"))
    assert answer.status == 1
    assert "does not work with band groups: use pools, -nk" in " ".join(answer.text.split())

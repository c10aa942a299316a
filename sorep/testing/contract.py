"""What a method promises: sums and counts, repeatability, an identity, an estimate, refusals that name a remedy."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from sorep.errors import SorepError
from sorep.features import FeatureSpec, Window, compute_feature
from sorep.method import Calculation, Method
from sorep.structure import Structure
from sorep.testing.comparison import EXACT, not_applicable, require, require_same_bits, require_same_levels
from sorep.testing.descriptions import supercell
from sorep.testing.settings import changed_methods

Route = Callable[[Calculation], list[NDArray[np.float64]]]
"""Another way to the eigenvalues of a calculation, in the unit of its spectrum: one array for each (spin, k)."""

_OGANESSON = 118
_PATH_START, _PATH_LENGTH, _PATH_POINTS = 0.05, 0.2, 11  # Angstrom; the start leaves any symmetry behind
_TAIL = 3


def check_counts(method: Method, structure: Structure, rng: np.random.Generator) -> None:
    """Each k point has all eigenvalues but those removed, weights sum to 1, electrons are counted where promised."""
    spectrum = method.calculate(structure).spectrum
    n_functions = method.estimate(structure).n_functions
    missing = int((n_functions - spectrum.band_counts).sum())
    require(
        missing == spectrum.n_removed,
        f"{n_functions} functions at each k point: {missing} eigenvalues are missing and {spectrum.n_removed} removed",
    )
    require((spectrum.weights > 0).all(), "a k point has no weight")
    require(abs(spectrum.weights.sum() - 1) < 1e-12, f"weights sum to {spectrum.weights.sum():.15g}")
    ends = np.cumsum(spectrum.band_counts.ravel())[:-1]
    require(all((np.diff(e) >= 0).all() for e in np.split(spectrum.energies, ends)), "eigenvalues do not ascend")
    require(
        method.counts_electrons == (spectrum.n_electrons is not None),
        f"counts_electrons is {method.counts_electrons}, and the spectrum has n_electrons={spectrum.n_electrons}",
    )


def check_density_of_states(method: Method, structure: Structure, rng: np.random.Generator) -> None:
    """The density of states adds up to the number of bands per volume of the crystal."""
    spectrum = method.calculate(structure).spectrum
    width = max(float(np.ptp(spectrum.energies)) / 50, 1e-3)
    start, stop = spectrum.energies.min() - 10 * width, spectrum.energies.max() + 10 * width
    grid = Window(start=start, stop=stop, points=64)
    spec = FeatureSpec(name="everything", windows=(grid,), width=width, sampling="bin", spin_factor=False)
    total = compute_feature(spectrum, spec).sum() * (stop - start) / grid.points
    per_atom = total * structure.volume / structure.n_atoms
    expected = float(spectrum.state_weights.sum()) / spectrum.n_atoms
    require(
        abs(per_atom - expected) <= 1e-7 * expected,
        f"the density of states holds {per_atom:.8g} bands per atom of the crystal, not {expected:.8g}",
    )


def check_mesh(method: Method, structure: Structure, rng: np.random.Generator) -> None:
    """With all its symmetry-equivalent points, every k point stands for an equal share of the zone."""
    calculation = method.calculate(structure)
    kpoints, rotations = calculation.spectrum.kpoints, calculation.cell.rotations
    stars = np.concatenate([kpoints[:, None] @ r for r in (*rotations, *-rotations)], axis=1)
    shares: dict[bytes, float] = {}
    for star, weight in zip(stars, calculation.spectrum.weights, strict=True):
        # The shift keeps mesh points away from where rounding decides.
        points = np.unique(np.floor((star + 3.7e-7) % 1.0 * 1e6), axis=0)
        for point in points:
            shares[point.tobytes()] = shares.get(point.tobytes(), 0.0) + weight / len(points)
    found = np.array(list(shares.values())) * len(shares)
    require(np.allclose(found, 1, atol=1e-9), f"points of the full mesh weigh {found.min():.4g} to {found.max():.4g}")


def check_smoothness(method: Method, structure: Structure, rng: np.random.Generator, tolerance: float = EXACT) -> None:
    """Moving one atom changes the sums of energies and of their squares smoothly, without any jump.

    They are interpolated by Chebyshev polynomials along a path of 0.2 Angstrom. The coefficients of a smooth function
    die out; a jump, as of a pair that crosses a cut-off, leaves some 5 % of itself in the last.
    """
    cell = method.calculate(structure).cell.structure
    if cell.n_atoms == 1:  # to move its only atom is to move the crystal
        cell = supercell(cell, (1, 1, 2))
    atom = rng.integers(cell.n_atoms)
    direction = rng.normal(size=3)
    direction = direction / np.linalg.norm(direction) @ np.linalg.inv(cell.lattice)

    def moments(distance: float) -> tuple[float, float]:
        positions = cell.positions.copy()
        positions[atom] += distance * direction
        spectrum = method.calculate(Structure(structure.id, cell.lattice, cell.numbers, positions)).spectrum
        weights = spectrum.state_weights / spectrum.state_weights.sum()
        return float(weights @ spectrum.energies), float(weights @ spectrum.energies**2)

    nodes = chebyshev.chebpts1(_PATH_POINTS)
    values = np.array([moments(_PATH_START + 0.5 * _PATH_LENGTH * (1 + x)) for x in nodes])
    tail = np.abs(chebyshev.chebfit(nodes, values, _PATH_POINTS - 1)[-_TAIL:]).max(axis=0)
    found = float((tail / np.abs(values).max(axis=0)).max())
    jump = f"some {20 * found:.1e} of the spectrum"
    require(found <= tolerance, f"along a displacement of atom {atom} there is a jump of {jump}")


def check_determinism(method: Method, structure: Structure, rng: np.random.Generator) -> None:
    """The same structure gives the same bits."""
    require_same_bits(method, method.calculate(structure), method.calculate(structure))


def check_estimate(method: Method, structure: Structure, rng: np.random.Generator) -> None:
    """The estimate knows the number of k points, and expects some time and memory; that of functions is in `counts`."""
    work = method.estimate(structure)
    n_kpoints = len(method.calculate(structure).spectrum.weights)
    require(work.n_kpoints == n_kpoints, f"{work.n_kpoints} k points were estimated, {n_kpoints} computed")
    require(0 < work.seconds < np.inf, f"{work.seconds} s were estimated")
    require(0 < work.memory_bytes < np.inf, f"{work.memory_bytes} bytes were estimated")


def check_pickling(method: Method, structure: Structure, rng: np.random.Generator) -> None:
    """Another process computes the same: a pickled method has its identity and gives the same bits."""
    again = pickle.loads(pickle.dumps(method))
    one, other = method.identity(), again.identity()
    require(one == other and one.hash == other.hash, f"the identity changes on the way: {one.differences(other)}")
    require_same_bits(method, method.calculate(structure), again.calculate(structure))


def check_identity(
    method: Method, structure: Structure, rng: np.random.Generator, changes: Mapping[str, Any] | None = None
) -> None:
    """The identity stays what it is, and changes with every setting."""
    identity = method.identity()
    require(identity == method.identity(), "the identity differs between two calls")
    hashes = {identity.hash: "the method as it is"}
    for setting, other in changed_methods(method, changes or {}).items():
        found = other.identity().hash
        require(found not in hashes, f"the identity with another {setting} is that of {hashes.get(found)}")
        hashes[found] = f"another {setting}"


def check_refusals(method: Method, structure: Structure, rng: np.random.Generator) -> None:
    """What cannot be computed raises a `SorepError` with code, stage and remedy, from the estimate on."""
    lattice, home, together = 5 * np.eye(3), np.zeros((1, 3)), np.array([[0, 0, 0], [0, 0, 1e-8]])
    for bad in (
        Structure("oganesson", lattice, np.array([_OGANESSON]), home),
        Structure("coincident atoms", lattice, structure.numbers[[0, 0]], together),
    ):
        early, late = _refusal(method.estimate, bad), _refusal(method.calculate, bad)
        if early is not None:
            require(
                late is not None and early.code == late.code,
                f"{bad.id}: the estimate says {early}, the calculation {late or 'nothing'}",
            )


def check_routes(
    method: Method,
    structure: Structure,
    rng: np.random.Generator,
    routes: Mapping[str, Route] | None = None,
    tolerance: float = EXACT,
) -> None:
    """Other ways to the eigenvalues lead to the same."""
    if not routes:
        raise not_applicable("no routes were given")
    calculation = method.calculate(structure)
    for name, route in routes.items():
        require_same_levels(route(calculation), calculation.spectrum.energies, tolerance, name)


def _refusal(call: Callable[[Structure], object], structure: Structure) -> SorepError | None:
    try:
        call(structure)
    except SorepError as error:
        missing = [word for word in ("code", "stage", "remedy") if not getattr(error, word)]
        require(not missing, f"{structure.id}: the error {error} has no {' and no '.join(missing)}")
        return error
    except Exception as error:
        raise AssertionError(f"{structure.id}: {error!r} is not a SorepError") from error
    return None

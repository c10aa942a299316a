"""All checks of a method, over given and over random structures, as one call or as pytest parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from typing import Any
from unittest import SkipTest

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sorep.errors import UsageError
from sorep.method import Method
from sorep.structure import Structure
from sorep.testing import contract, invariances, matrices
from sorep.testing.contract import Route
from sorep.testing.strategies import structures as random_structures

_FUNCTIONS: tuple[Callable[..., None], ...] = (
    invariances.check_rotation,
    invariances.check_translation,
    invariances.check_permutation,
    invariances.check_axes,
    invariances.check_supercell,
    invariances.check_conventional_cell,
    invariances.check_mirror_image,
    contract.check_counts,
    contract.check_density_of_states,
    contract.check_mesh,
    contract.check_smoothness,
    contract.check_determinism,
    contract.check_estimate,
    contract.check_pickling,
    contract.check_identity,
    contract.check_refusals,
    contract.check_routes,
    matrices.check_hermiticity,
    matrices.check_positive_overlap,
    matrices.check_trace,
    matrices.check_time_reversal,
    matrices.check_periodicity,
    matrices.check_point_group,
    matrices.check_operators,
)

CHECKS = {function.__name__.removeprefix("check_"): function for function in _FUNCTIONS}
"""Every check by its name."""

_ONCE = ("pickling", "identity", "refusals")  # these hardly look at the structure


@dataclass(frozen=True)
class Check:
    """One property of methods, on one structure or on random ones; call it with a method.

    Attributes
    ----------
    name : str
        Of `CHECKS`.
    structure : Structure or None
        None for random structures of ``elements``.
    options : mapping
        Keyword arguments of the check: its tolerance, where one is given, and what it needs besides.
    elements : tuple of str
    examples : int
        How many random structures.
    excluded : str
        Why this check is not to be made; empty where it is.
    """

    name: str
    structure: Structure | None
    options: Mapping[str, Any] = field(default_factory=dict)
    elements: tuple[str, ...] = ()
    examples: int = 0
    excluded: str = ""

    def __str__(self) -> str:
        if self.name in _ONCE:
            return self.name
        return f"{self.name}-{'random' if self.structure is None else self.structure.id}"

    def __call__(self, method: Method) -> None:
        """Check a method.

        Raises
        ------
        AssertionError
            With the names of the property and the structure, and what was found.
        unittest.SkipTest
            Where the check is excluded, or has nothing to look at in this method.
        """
        if self.excluded:
            raise SkipTest(f"{self.name} excluded: {self.excluded}")
        if self.structure is not None:
            self._run(method, self.structure, 0)
            return

        # The same examples every time. They are small already: to shrink them would take many calculations.
        @settings(
            derandomize=True,
            database=None,
            deadline=None,
            max_examples=self.examples,
            phases=[Phase.generate],
            suppress_health_check=[HealthCheck.too_slow],
            report_multiple_bugs=False,
        )
        @given(structure=random_structures(self.elements), seed=st.integers(0, 2**16))
        def on_random_structures(structure: Structure, seed: int) -> None:
            self._run(method, structure, seed)

        on_random_structures()

    def _run(self, method: Method, structure: Structure, seed: int) -> None:
        try:
            CHECKS[self.name](method, structure, np.random.default_rng(seed), **self.options)
        except SkipTest:
            raise
        except Exception as error:
            what = str(error) if isinstance(error, AssertionError) else repr(error)
            where = f"{self.name} of {method.operator} fails for {_describe(structure)}"
            raise AssertionError(f"{where}: {what}") from error


def checks(
    structures: Iterable[Any] | None = None,
    *,
    exclude: Mapping[str, str] | None = None,
    tolerances: Mapping[str, float] | None = None,
    changes: Mapping[str, Any] | None = None,
    routes: Mapping[str, Route] | None = None,
    examples: int = 5,
) -> list[Check]:
    """Everything that can be checked of a method.

    Parameters
    ----------
    structures : iterable of Structure, ase.Atoms or pymatgen.core.Structure, optional
        By default `default_structures`. Small ones, primitive and of different symmetry, find most.
    exclude : mapping of str to str, optional
        Names of `CHECKS` that are not to be made, and why.
    tolerances : mapping of str to float, optional
        By the name of the check, relative to the mean \\|energy\\| of the spectrum; 1e-9 where none is given.
    changes : mapping, optional
        For `check_identity`: another value of each setting that is neither number, flag nor choice.
    routes : mapping of str to callable, optional
        For `check_routes`: other ways from a `Calculation` (its cell, its k points) to the eigenvalues, one array for
        each (spin, k).
    examples : int
        Random structures for each check, made of the elements of ``structures``; 0 for none.

    Raises
    ------
    UsageError
        ``unknown-check``; ``no-tolerance`` for a check that has none.
    """
    exclude, tolerances = exclude or {}, tolerances or {}
    _refuse_unknown([*exclude, *tolerances])
    exact = [name for name in tolerances if "tolerance" not in signature(CHECKS[name]).parameters]
    if exact:
        raise UsageError(
            f"{', '.join(exact)} holds or does not: there is no tolerance",
            code="no-tolerance",
            remedy="exclude what does not hold, with the reason",
        )
    crystals = default_structures() if structures is None else [Structure.from_any(s).validate() for s in structures]
    elements = tuple(sorted({symbol for structure in crystals for symbol in structure.symbols}))
    options: dict[str, dict[str, Any]] = {name: {} for name in CHECKS}
    for name, tolerance in tolerances.items():
        options[name]["tolerance"] = tolerance
    options["identity"]["changes"] = changes
    options["routes"]["routes"] = routes
    found = []
    for name in CHECKS:
        over: Sequence[Structure | None] = crystals[:1] if name in _ONCE else [*crystals, *[None][: min(examples, 1)]]
        found += [Check(name, s, options[name], elements, examples, exclude.get(name, "")) for s in over]
    return found


def check_method(method: Method, structures: Iterable[Any] | None = None, **options: Any) -> dict[str, str]:
    """Make all checks of a method.

    Parameters
    ----------
    method : Method
    structures, **options
        As for `checks`.

    Returns
    -------
    dict of str to str
        What was not checked, and why.

    Raises
    ------
    AssertionError
        With one line for every check that failed: property, structure, and what was found.
    """
    failures: list[AssertionError] = []
    skipped = {}
    for check in checks(structures, **options):
        try:
            check(method)
        except SkipTest as reason:
            skipped[str(check)] = str(reason)
        except AssertionError as failure:
            failures.append(failure)
    if failures:
        raise AssertionError("\n".join(map(str, failures))) from failures[0]
    return skipped


def parametrize_with_checks(
    methods: Sequence[Method] | None = None, structures: Iterable[Any] | None = None, **options: Any
) -> Any:
    """A pytest decorator: each check of each method, on each structure, is a test of its own.

    >>> @parametrize_with_checks([MyMethod()])    # doctest: +SKIP
    ... def test_my_method(method, check):
    ...     check(method)

    Parameters
    ----------
    methods : sequence of Method, optional
        Without it, ``method`` is a fixture of the user's.
    structures, **options
        As for `checks`.
    """
    import pytest

    found = checks(structures, **options)
    if methods is None:
        return pytest.mark.parametrize("check", found, ids=str)
    pairs = [(method, check) for method in methods for check in found]
    return pytest.mark.parametrize(("method", "check"), pairs, ids=[f"{m.operator}-{c}" for m, c in pairs])


def default_structures() -> list[Structure]:
    """A cubic, a hexagonal and a triclinic crystal: silicon, magnesium, and a chiral MgOSi that nobody has made."""
    from ase.build import bulk

    lattice = np.array([[3.7, 0.3, 0.2], [-1.8, 4.1, 0.5], [-1.3, 3.0, 4.1]])
    positions = np.array([[0.1, 0.2, 0.3], [0.6, 0.65, 0.9], [0.35, 0.9, 0.5]])
    return [
        Structure.from_ase(bulk("Si", "diamond", a=5.431), id="silicon"),
        Structure.from_ase(bulk("Mg", "hcp", a=3.21, c=5.21), id="magnesium"),
        Structure("triclinic", lattice, np.array([12, 8, 14]), positions),
    ]


def _refuse_unknown(names: list[str]) -> None:
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        raise UsageError(
            f"unknown check {', '.join(unknown)}", code="unknown-check", remedy=f"choose from {', '.join(CHECKS)}"
        )


def _describe(structure: Structure) -> str:
    if structure.id != "random":
        return structure.id
    numbers, lattice, positions = (x.tolist() for x in (structure.numbers, structure.lattice, structure.positions))
    return f"Structure('random', {lattice}, {numbers}, {positions})"

"""One-electron operators over Gaussian orbitals, as Bloch operators.

An operator that is diagonal over plane waves needs two facts: the name of its libcint integral and its value on a plane
wave. A new one is one `OneElectronOperator`:

>>> import numpy as np
>>> quartic = OneElectronOperator("quartic", "int1e_p4_sph", lambda q2: q2**2)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sorep.bloch import BlochOperator, Inversion
from sorep.errors import UsageError
from sorep.kinetic.lattice_sum import Route, real_space_term
from sorep.kinetic.orbitals import Orbitals
from sorep.kinetic.reciprocal import Multiplier, ReciprocalTerm
from sorep.kinetic.work import CostModel
from sorep.units import HARTREE_IN_EV

DEFAULT_PRECISION = 1e-10
"""Hartree; lattice sums and plane waves whose neglected rest is below this are cut off."""


@dataclass(frozen=True)
class OneElectronOperator:
    """A scalar operator that is diagonal over plane waves.

    Attributes
    ----------
    name : str
    integral : str
        libcint's name of <mu|A|nu> over real spherical Gaussians.
    on_plane_wave : callable
        A exp(iq.r) = on_plane_wave(q^2) exp(iq.r); Bohr^-2 to Hartree (or to the operator's own unit).
    unit : float
        Factor from the atomic unit of its eigenvalues to eV; 1 for a dimensionless operator.
    orthonormal : bool
        Diagonalise A itself rather than A c = e S c. The overlap's own spectrum needs this.
    """

    name: str
    integral: str
    on_plane_wave: Multiplier
    unit: float = HARTREE_IN_EV
    orthonormal: bool = False

    def bloch_operator(
        self,
        orbitals: Orbitals,
        *,
        n_kpoints: int = 1,
        precision: float = DEFAULT_PRECISION,
        split: float | None = None,
        inversion: Inversion | None = None,
        route: Route = "tables",
    ) -> BlochOperator:
        """A(k) and S(k) between the Bloch sums of a structure's orbitals, in atomic units.

        Parameters
        ----------
        orbitals : Orbitals
        n_kpoints : int
            How many k points will be asked for; the split between real and reciprocal space that costs least
            depends on it. The result does not.
        precision : float
            Matrix elements below this (Hartree) are neglected.
        split : float or None
            Exponent (Bohr^-2) that separates compact from diffuse primitives; None chooses the cheapest, 0 keeps
            everything in real space.
        """
        if split is None:
            model = CostModel(orbitals, precision, has_inversion=inversion is not None)
            split = model.cheapest_split(n_kpoints)
        operators = [self] if self.orthonormal else [self, OVERLAP]
        names = [o.integral for o in operators]
        terms: list = [real_space_term(orbitals, names, split, precision, inversion=inversion, route=route)]
        if split > orbitals.lowest_exponent:
            multipliers = [o.on_plane_wave for o in operators]
            terms.append(ReciprocalTerm(orbitals, multipliers, split, precision, inversion))
        return BlochOperator(orbitals.n_functions, terms, orthonormal=self.orthonormal)


KINETIC = OneElectronOperator("kinetic", "int1e_kin_sph", lambda q2: q2 / 2)
"""-1/2 nabla^2 (SOREP paper, eq. 9)."""

OVERLAP = OneElectronOperator("overlap", "int1e_ovlp_sph", np.ones_like, unit=1.0, orthonormal=True)
"""The identity, whose matrix is the overlap; its spectrum is that of the overlap-matrix fingerprint."""

OPERATORS = {operator.name: operator for operator in (KINETIC, OVERLAP)}


def get_operator(name: str | OneElectronOperator) -> OneElectronOperator:
    """Look an operator up by name; an operator itself is returned as it is."""
    if isinstance(name, OneElectronOperator):
        return name
    if name not in OPERATORS:
        raise UsageError(
            f"unknown operator {name!r}", code="unknown-operator", remedy=f"choose from {', '.join(OPERATORS)}"
        )
    return OPERATORS[name]

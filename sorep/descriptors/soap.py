"""The smooth overlap of atomic positions, without species, averaged over a cell: geometry and nothing else.

    c_nlm = (1/N) sum_i c^i_nlm,     p_nn'l = pi sqrt(8 / (2l + 1)) sum_m c_nlm c_n'lm            (n <= n')

with c^i_nlm the expansion of Gaussians on the neighbours of atom i in radial functions g_n and real spherical harmonics
(Bartok, Kondor, Csanyi, Phys. Rev. B 87, 184115, 2013), computed by DScribe. All atoms count as one element. The
defaults are those that the SOREP paper compares with: 550 features.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import combinations_with_replacement
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sorep.errors import SET_UP, DescriptorError
from sorep.settings import Settings
from sorep.structure import Structure

_REFERENCES = (
    """@article{bartok2013,
    author = {Bart\\'ok, Albert P. and Kondor, Risi and Cs\\'anyi, G\\'abor},
    title = {On representing chemical environments},
    journal = {Phys. Rev. B},
    volume = {87},
    pages = {184115},
    year = {2013},
    doi = {10.1103/PhysRevB.87.184115}
}""",
    """@article{himanen2020,
    author = {Himanen, Lauri and others},
    title = {{DScribe}: Library of descriptors for machine learning in materials science},
    journal = {Comput. Phys. Commun.},
    volume = {247},
    pages = {106949},
    year = {2020},
    doi = {10.1016/j.cpc.2019.106949}
}""",
)


class Soap(Settings):
    """SOAP of a crystal, averaged before the power spectrum is formed ("inner"), in Gaussian-type radial functions.

    Attributes
    ----------
    r_cut : float
        Range of the radial functions, Angstrom.
    n_max, l_max : int
        Number of radial functions, highest angular momentum.
    sigma : float
        Width of an atom's Gaussian, Angstrom.
    r_0 : float
        Distance, Angstrom, at which the weight 1 + 2 (r/r_0)^3 - 3 (r/r_0)^2 of a neighbour has fallen to zero.
    """

    name: ClassVar[str] = "soap"
    references: ClassVar[tuple[str, ...]] = _REFERENCES

    r_cut: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 6.0
    n_max: Annotated[int, Field(ge=1)] = 10
    l_max: Annotated[int, Field(ge=0, le=20)] = 9
    sigma: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.3
    r_0: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 5.0

    @property
    def feature_names(self) -> list[str]:
        """Such as ``l0-n1-n2``."""
        pairs = list(combinations_with_replacement(range(1, self.n_max + 1), 2))
        return [f"l{angular}-n{first}-n{second}" for angular in range(self.l_max + 1) for first, second in pairs]

    def words(self) -> dict[str, Any]:
        """The options, and the version of DScribe.

        Raises
        ------
        DescriptorError
            ``missing-package``, of the stage ``set-up``.
        """
        try:
            return {**self.model_dump(), "dscribe": version("dscribe")}
        except PackageNotFoundError:
            raise _missing_package() from None

    def compute(self, structure: Structure) -> NDArray[np.float64]:
        """The vector of a validated structure, whichever cell describes it.

        Raises
        ------
        DescriptorError
            ``missing-package``, of the stage ``set-up``; ``non-finite``.
        """
        atoms = structure.to_ase()
        atoms.numbers[:] = 1
        vector = np.asarray(_calculator(**self.model_dump()).create(atoms), dtype=float)
        if not np.isfinite(vector).all():
            raise DescriptorError(
                f"{(~np.isfinite(vector)).sum()} of {len(vector)} SOAP features are not finite",
                code="non-finite",
                remedy="check the structure for atoms that nearly coincide, and leave it out",
            )
        return vector


@cache
def _calculator(*, r_cut: float, n_max: int, l_max: int, sigma: float, r_0: float) -> Any:
    try:
        from dscribe.descriptors import SOAP
    except ImportError:
        raise _missing_package() from None
    return SOAP(
        species=["H"],
        periodic=True,
        r_cut=r_cut,
        n_max=n_max,
        l_max=l_max,
        sigma=sigma,
        rbf="gto",
        average="inner",
        weighting={"function": "poly", "r0": r_0, "c": 1, "m": 1},
    )


def _missing_package() -> DescriptorError:
    return DescriptorError(
        "SOAP is computed by DScribe, which is not installed",
        code="missing-package",
        stage=SET_UP,
        remedy="pip install 'sorep[soap]'",
    )

"""The compiled kernels, and the NumPy twins that stand in where they were not built.

Each kernel is one Fortran file, wrapped by f90wrap, and one Python file of the same name with the call and the twin.
Twins take the same arguments and are tested to give the same results. The compiled kernels release the GIL. Those
that gain from it are compiled for AVX2 and FMA as well, which are used where the processor has them; fused
multiplications change the last bits of a result, so that machines with and without them differ by rounding.
"""

from __future__ import annotations

from sorep._fortran import eigen, moments
from sorep._fortran.eigen import (
    each_eigenvalues,
    each_eigenvalues_numpy,
    pencil_eigenvalues,
    pencil_eigenvalues_numpy,
)
from sorep._fortran.load import Kernel
from sorep._fortran.moments import scatter_moments, scatter_moments_numpy

__all__ = [
    "ACTIVE",
    "KERNELS",
    "each_eigenvalues",
    "each_eigenvalues_numpy",
    "pencil_eigenvalues",
    "pencil_eigenvalues_numpy",
    "scatter_moments",
    "scatter_moments_numpy",
    "why_inactive",
]

KERNELS: dict[str, Kernel] = {"density of states": moments.KERNEL, "eigenvalues": eigen.KERNEL}
"""What each kernel runs as, by what it computes."""

ACTIVE: bool = all(kernel.active for kernel in KERNELS.values())
"""Whether every kernel runs compiled; if not, `why_inactive` says why."""

why_inactive: str = next((kernel.why_inactive for kernel in KERNELS.values() if not kernel.active), "")

"""The compiled kernels, and the NumPy twins that stand in where they were not built.

Each kernel is one Fortran file, wrapped by f90wrap, and one Python file of the same name with the call and the twin.
Twins take the same arguments and are tested to give the same results. The compiled kernels release the GIL. Those
that gain from it are compiled for AVX2 and FMA as well, which are used where the processor has them; fused
multiplications change the last bits of a result, so that machines with and without them differ by rounding.
"""

from __future__ import annotations

from sorep._fortran import blocks, eigen, moments, stars, sums
from sorep._fortran.blocks import pair_blocks, pair_blocks_numpy
from sorep._fortran.eigen import (
    each_eigenvalues,
    each_eigenvalues_numpy,
    pencil_eigenvalues,
    pencil_eigenvalues_numpy,
)
from sorep._fortran.load import Kernel
from sorep._fortran.moments import scatter_moments, scatter_moments_numpy
from sorep._fortran.stars import lowest_images, lowest_images_spglib
from sorep._fortran.sums import bloch_sums, bloch_sums_numpy

__all__ = [
    "ACTIVE",
    "KERNELS",
    "bloch_sums",
    "bloch_sums_numpy",
    "each_eigenvalues",
    "each_eigenvalues_numpy",
    "lowest_images",
    "lowest_images_spglib",
    "pair_blocks",
    "pair_blocks_numpy",
    "pencil_eigenvalues",
    "pencil_eigenvalues_numpy",
    "scatter_moments",
    "scatter_moments_numpy",
    "why_inactive",
]

KERNELS: dict[str, Kernel] = {
    "k meshes": stars.KERNEL,
    "integrals": blocks.KERNEL,
    "Fourier sums": sums.KERNEL,
    "eigenvalues": eigen.KERNEL,
    "density of states": moments.KERNEL,
}
"""What each kernel runs as, by what it computes."""

ACTIVE: bool = all(kernel.active for kernel in KERNELS.values())
"""Whether every kernel runs compiled; if not, `why_inactive` says why."""

why_inactive: str = next((kernel.why_inactive for kernel in KERNELS.values() if not kernel.active), "")

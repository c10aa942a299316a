"""Stars of the points of a k mesh: stars.f90, and spglib, which does the same."""

from __future__ import annotations

import numpy as np
import spglib
from numpy.typing import NDArray

from sorep._fortran.load import load

KERNEL = load("stars")


def lowest_images(divisions: NDArray[np.int64], rotations: NDArray[np.int64]) -> NDArray[np.int64]:
    """For every point of a Gamma-centred mesh, the lowest number among its images by rotation and time reversal.

    Parameters
    ----------
    divisions : (3,) int array
    rotations : (n, 3, 3) int array
        A group of rotations of fractional coordinates in real space.

    Returns
    -------
    (N,) int array
        Points are numbered with the first address running fastest.
    """
    # k W for a row k; of addresses, k_i = x_i / n_i.
    scaled = rotations * divisions[None, None, :]
    if KERNEL.module is None or (scaled % divisions[None, :, None]).any():  # a mesh that rotations do not keep
        return lowest_images_spglib(divisions, rotations)
    operations = scaled // divisions[None, :, None]
    operations = np.ascontiguousarray(np.concatenate([operations, -operations]), dtype=np.int32)
    lowest = np.empty(divisions.prod(), dtype=np.int32)
    KERNEL.module.f90wrap_stars__lowest_images(
        divisions.astype(np.int32), operations.transpose(2, 1, 0).copy(order="F"), len(operations), len(lowest), lowest
    )
    return lowest.astype(np.int64)


def lowest_images_spglib(divisions: NDArray[np.int64], rotations: NDArray[np.int64]) -> NDArray[np.int64]:
    """`lowest_images` by spglib; for a mesh that rotations do not keep, what spglib makes of it.

    Raises
    ------
    ValueError
        Where spglib cannot reduce the mesh.
    """
    reduced = spglib.get_stabilized_reciprocal_mesh(divisions, rotations, is_time_reversal=True)
    if reduced is None:
        raise ValueError(f"spglib could not reduce the {'x'.join(map(str, divisions))} mesh")
    return reduced[0]

"""Moments of weighted values about the nodes of a grid: moments.f90, and its twin in NumPy.

Both follow the same rules to the last tie. It is an inner loop that NumPy cannot express without temporaries.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sorep._fortran.load import load

KERNEL = load("moments")


def scatter_moments(
    values: ArrayLike, weights: ArrayLike, start: float, spacing: float, n_nodes: int, max_order: int
) -> NDArray[np.float64]:
    """Moments of weighted values about the nodes of a regular grid.

    The value ``v`` lies at ``x = (v - start) / spacing`` and belongs to the node ``i = floor(x + 1/2)``, so
    that a value on a midpoint belongs to the node above it. With its offset ``d = x - i``, its weight ``w``
    adds ``w d**p`` to the moment ``p`` of node ``i``. Values that belong to no node (infinities and NaN too)
    are skipped. Weights are not inspected: one that is not finite makes the moments of its node so.

    Parameters
    ----------
    values, weights : (n_values,) arrays
        Positions, in the unit of ``start`` and ``spacing``, and their weights.
    start, spacing : float
        Node ``i`` lies at ``start + i * spacing``; ``spacing`` is positive.
    n_nodes : int
        Number of nodes, at least one.
    max_order : int
        Highest order ``p``, at least zero.

    Returns
    -------
    (max_order + 1, n_nodes) array
        Moment ``p`` of node ``i`` at ``[p, i]``, in the unit of the weights. Column-major: the orders of one
        node are adjacent.

    Raises
    ------
    ValueError
        Where shapes or grid make no sense.
    """
    if KERNEL.module is None:
        return scatter_moments_numpy(values, weights, start, spacing, n_nodes, max_order)
    values, weights = _checked(values, weights, start, spacing, n_nodes, max_order)
    moments = np.zeros((max_order + 1, n_nodes), order="F")
    KERNEL.module.f90wrap_moments__scatter_moments(
        values, weights, len(values), start, spacing, n_nodes, max_order, moments
    )
    return moments


def scatter_moments_numpy(
    values: ArrayLike, weights: ArrayLike, start: float, spacing: float, n_nodes: int, max_order: int
) -> NDArray[np.float64]:
    """`scatter_moments` in NumPy: the same result, up to rounding, without a compiler."""
    values, weights = _checked(values, weights, start, spacing, n_nodes, max_order)
    with np.errstate(over="ignore"):
        position = (values - start) / spacing
    shifted = position + 0.5
    inside = (shifted >= 0) & (shifted < n_nodes)
    node = shifted[inside].astype(np.intp)
    offset = position[inside] - node
    term = weights[inside]
    moments = np.empty((max_order + 1, n_nodes), order="F")
    for moment in moments:
        moment[:] = np.bincount(node, term, n_nodes)
        term *= offset
    return moments


def _checked(
    values: ArrayLike, weights: ArrayLike, start: float, spacing: float, n_nodes: int, max_order: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    values = np.asarray(values, dtype=np.float64, order="C")
    weights = np.asarray(weights, dtype=np.float64, order="C")
    if values.ndim != 1 or values.shape != weights.shape:
        raise ValueError(f"values {values.shape} and weights {weights.shape} must be vectors of one length")
    if not (np.isfinite(start) and np.isfinite(spacing) and spacing > 0):
        raise ValueError(f"start {start} must be finite, spacing {spacing} finite and positive")
    if n_nodes < 1 or max_order < 0:
        raise ValueError(f"n_nodes {n_nodes} must be at least 1, max_order {max_order} at least 0")
    return values, weights

"""High-symmetry lines of a crystal, as k points of the cell that is computed.

Labels and order of the lines are those of Hinuma et al., Comput. Mater. Sci. 128, 140 (2017), by the library seekpath,
for operators with time reversal. seekpath gives fractional coordinates in a primitive cell of its own, turned and with
other lattice vectors than the given one; both span the same lattice, so an integer matrix leads from one to the other.

seekpath searches for symmetry itself. It is given the crystal with the symmetry of its `Cell` made exact, so that it
finds the same, whatever the tolerance was; only labels and fractional coordinates come back.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sorep.cells import Cell
from sorep.errors import StructureError, UsageError

DEFAULT_LINE_SPACING = 0.02
"""1/Angstrom; some hundred k points for a small cell."""

_INTEGER_TOLERANCE = 1e-3  # of a matrix between two descriptions of one lattice
_CEIL_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Segment:
    """A straight line between two labelled points: the k points ``start`` to ``stop - 1`` of its path.

    Neighbouring segments that meet share a k point: then ``start`` of one is ``stop - 1`` of the one before.
    """

    labels: tuple[str, str]
    start: int
    stop: int

    @property
    def slice(self) -> slice:
        """What picks the segment's k points, distances and energies out of those of the path."""
        return slice(self.start, self.stop)


@dataclass(frozen=True, eq=False)
class BandPath:
    """Lines through the Brillouin zone.

    Attributes
    ----------
    lattice : (3, 3) float array
        Lattice vectors as rows, Angstrom.
    kpoints : (n_k, 3) float array
        Fractional coordinates in the reciprocal of ``lattice``.
    segments : tuple of Segment
        In the order of the lines; k points are evenly spaced in each.
    is_folded : bool
        Whether ``lattice`` is a supercell, in which several k points of the primitive cell fall on one.
    """

    lattice: NDArray[np.float64]
    kpoints: NDArray[np.float64]
    segments: tuple[Segment, ...]
    is_folded: bool = False

    def __len__(self) -> int:
        return len(self.kpoints)

    @cached_property
    def cartesian(self) -> NDArray[np.float64]:
        """The k points in the frame of ``lattice``, (n_k, 3), 1/Angstrom (2 pi included)."""
        return 2 * np.pi * self.kpoints @ np.linalg.inv(self.lattice).T

    @cached_property
    def distances(self) -> NDArray[np.float64]:
        """Length of the path up to each k point, (n_k,), 1/Angstrom. A break between segments has no length."""
        steps = np.linalg.norm(np.diff(self.cartesian, axis=0), axis=1)
        steps[[index - 1 for index in self.breaks]] = 0.0
        return np.concatenate([[0.0], np.cumsum(steps)])

    @cached_property
    def breaks(self) -> list[int]:
        """First k point of every segment that does not go on from where the one before ended."""
        pairs = zip(self.segments, self.segments[1:], strict=False)
        return [after.start for before, after in pairs if after.start == before.stop]

    @cached_property
    def labels(self) -> dict[int, str]:
        """Index of every labelled k point, ascending, and its label: ``GAMMA``, ``X``, ``SIGMA_0``, ..."""
        ends = [(segment.start, segment.labels[0]) for segment in self.segments]
        ends += [(segment.stop - 1, segment.labels[1]) for segment in self.segments]
        return dict(sorted(ends))

    @property
    def route(self) -> str:
        """The labels in a line, e.g. ``GAMMA-X-U|K-GAMMA-L-W-X``."""
        joints = [f"{'|' if index in self.breaks else '-'}{label}" for index, label in self.labels.items()]
        return "".join(joints).removeprefix("-")


def band_path(cell: Cell, line_spacing: float = DEFAULT_LINE_SPACING) -> BandPath:
    """High-symmetry lines of a crystal with time reversal.

    Parameters
    ----------
    cell : Cell
        k points refer to its lattice. Where it is a supercell (of a kept cell), the lines are those of its primitive
        cell.
    line_spacing : float
        Largest distance between neighbouring k points of a line, 1/Angstrom (2 pi included).

    Raises
    ------
    UsageError
        ``bad-line-spacing``.
    StructureError
        ``no-band-path`` where seekpath finds no symmetry or no lines.
    """
    if not 0 < line_spacing < np.inf:
        raise UsageError(
            f"line spacing {line_spacing} is not positive", code="bad-line-spacing", remedy="give 1/Angstrom > 0"
        )
    points, lines, is_folded = _labelled_points(cell)
    lattice = cell.structure.lattice
    reciprocal = 2 * np.pi * np.linalg.inv(lattice).T
    kpoints: list[NDArray[np.float64]] = []
    segments: list[Segment] = []
    n_k = 0
    for start, end in lines:
        length = np.linalg.norm((points[end] - points[start]) @ reciprocal)
        n_steps = max(1, int(np.ceil(length / line_spacing * (1 - _CEIL_TOLERANCE))))
        line = np.linspace(points[start], points[end], n_steps + 1)
        goes_on = bool(segments) and segments[-1].labels[1] == start
        segments.append(Segment((start, end), n_k - goes_on, n_k - goes_on + len(line)))
        kpoints.append(line[goes_on:])
        n_k = segments[-1].stop
    return BandPath(lattice, np.concatenate(kpoints), tuple(segments), is_folded)


def _labelled_points(cell: Cell) -> tuple[dict[str, NDArray[np.float64]], list[tuple[str, str]], bool]:
    """seekpath's points in fractional coordinates of the cell, lines between them, and whether it is a supercell."""
    from seekpath import get_path
    from seekpath.hpkot import SymmetryDetectionError

    lattice, positions = _symmetrized(cell)
    try:
        with warnings.catch_warnings():
            # Lattice parameters that happen to be equal: seekpath picks one of the valid cases.
            warnings.simplefilter("ignore")
            found = get_path((lattice, positions, cell.structure.numbers), with_time_reversal=True)
    except (SymmetryDetectionError, ValueError) as error:
        raise _no_path(str(error)) from None
    # seekpath's primitive vectors in the given orientation, and the integers that make the given ones of them
    primitive = found["primitive_lattice"] @ found["rotation_matrix"]
    transformation = lattice @ np.linalg.inv(primitive)
    integers = np.rint(transformation)
    if np.abs(transformation - integers).max() > _INTEGER_TOLERANCE:
        raise _no_path("the symmetrised lattice is not that of the crystal")
    points = {label: np.array(k) @ integers.T for label, k in found["point_coords"].items()}
    return points, found["path"], round(abs(np.linalg.det(integers))) > 1


def _symmetrized(cell: Cell) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lattice (in another orientation) and fractional positions, averaged over the operations of the cell."""
    structure, rotations = cell.structure, cell.rotations
    metric = structure.lattice @ structure.lattice.T
    metric = (rotations.transpose(0, 2, 1) @ metric @ rotations).mean(axis=0)
    lattice = np.linalg.cholesky(metric)
    positions = structure.positions
    is_other = structure.numbers[:, None] != structure.numbers
    moves = np.zeros_like(positions)
    for rotation, translation in zip(rotations, cell.translations, strict=True):
        images = positions @ rotation.T + translation
        apart = images[:, None] - positions
        apart -= np.rint(apart)
        squares = np.einsum("ijk,kl,ijl->ij", apart, metric, apart)
        nearest = np.where(is_other, np.inf, squares).argmin(axis=1)
        moves[nearest] += apart[np.arange(len(images)), nearest]
    return lattice, positions + moves / len(rotations)


def _no_path(why: str) -> StructureError:
    return StructureError(
        f"no high-symmetry lines: {why}",
        code="no-band-path",
        stage="cell",
        remedy="change --symprec, or idealise the structure",
    )

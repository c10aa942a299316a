"""The reciprocal-space share of a Bloch sum: everything in which a diffuse primitive takes part.

With phi = c + d and the Fourier transform phi(q) of a Gaussian known in closed form,

    A(k) -> (1/V) sum_q f(q) [ c* d + d* c + d* d ](q),     q = k + G,

where f = 1 for the overlap and q^2 / 2 for the kinetic energy. d(q) decays as exp(-q^2 / 4 a0), so few vectors suffice.
A primitive r^l exp(-a r^2) Y_lm has the transform (-i)^l (pi/a)^(3/2) (2a)^(-l) q^l Y_lm(q) exp(-q^2 / 4a).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sorep._fortran.sums import phase_factors
from sorep.bloch import Inversion
from sorep.kinetic.angular import solid_harmonics
from sorep.kinetic.orbitals import ElementShells, Orbitals

Multiplier = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""f of the docstring above: from q^2 (Bohr^-2) to the operator's value on a plane wave (Hartree)."""

_BATCH = 4096  # plane waves whose transforms are held at once


class ReciprocalTerm:
    """Matrices of plane-wave-diagonal operators between diffuse parts and whole functions.

    Parameters
    ----------
    orbitals : Orbitals
    multipliers : sequence of callables
        One for each operator.
    split : float
        The exponent a0, Bohr^-2.
    precision : float
        Plane waves whose share is below this are left out, Hartree.
    inversion : Inversion or None
        Give real matrices between the combinations that it describes: their transforms are real, too.
    """

    def __init__(
        self,
        orbitals: Orbitals,
        multipliers: Sequence[Multiplier],
        split: float,
        precision: float,
        inversion: Inversion | None = None,
    ) -> None:
        self._orbitals = orbitals
        self._multipliers = tuple(multipliers)
        self._diffuse = [e.diffuse(split) for e in orbitals.elements]
        self._radius = reciprocal_radius(split, precision)
        self._reciprocal = 2 * np.pi * np.linalg.inv(orbitals.lattice).T
        self._inversion = inversion
        self._last_box: tuple | None = None
        self._rows = np.concatenate(
            [
                offset + self._diffuse[e].function_indices
                for offset, e in zip(orbitals.offsets, orbitals.element_of, strict=True)
            ]
        )

    @property
    def is_real(self) -> bool:
        return self._inversion is not None

    def matrices(self, kpoints: NDArray[np.float64]) -> NDArray[Any]:
        n = self._orbitals.n_functions
        shape = (len(kpoints), len(self._multipliers), len(self._rows), n)
        half = np.zeros(shape, dtype=complex if self._inversion is None else float)
        box, structure_factors = self._box(tuple(np.maximum(0.5, np.abs(kpoints).max(axis=0)).tolist()))
        for batch in _batches(self._waves(kpoints, box)):
            self._accumulate(batch, kpoints, box, structure_factors, half)
        half /= self._orbitals.volume
        if self._inversion is None:
            # So far without exp(-ik.tau) and (-i)^l, which depend on k alone or on nothing.
            phases = self._phases(kpoints)
            half *= (phases[:, self._rows].conj()[:, :, None] * phases[:, None, :])[:, None]
        result = np.zeros((*shape[:2], n, n), dtype=half.dtype)
        result[..., self._rows, :] = half
        del half
        result += result.conj().swapaxes(-1, -2)
        return result.swapaxes(0, 1)

    def _phases(self, kpoints: NDArray[np.float64]) -> NDArray[np.complex128]:
        """exp(-ik.tau) (-i)^l of all functions, (n_k, n)."""
        species = self._orbitals.element_of
        powers = np.concatenate([(-1j) ** self._orbitals.elements[e].angular_momenta for e in species])
        sizes = np.array([e.n_functions for e in self._orbitals.elements])[species]
        phases = np.exp(-2j * np.pi * kpoints @ self._orbitals.positions.T)
        return np.repeat(phases, sizes, axis=1) * powers

    def _box(self, largest: tuple[float, ...]) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """All G, fractional, that any k + G within the radius may need for |k_i| <= ``largest``, and per atom

        exp(-iG.tau), (n_atoms, n_G); with an inversion centre cosines and sines, (2, n_atoms, n_G). The last answer is
        kept: k points come in chunks, and are rarely outside the first cell.
        """
        if self._last_box is None or self._last_box[0] != largest:
            # |G_i| <= |G| |a_i| / 2 pi bounds each index.
            reach = self._radius * np.linalg.norm(self._orbitals.lattice, axis=1) / (2 * np.pi)
            reach = np.ceil(reach + largest).astype(int)
            box = np.stack(np.meshgrid(*(np.arange(-m, m + 1) for m in reach), indexing="ij"), -1).reshape(-1, 3)
            corners = np.array(list(product(*((-x, x) for x in largest)))) @ self._reciprocal
            farthest = self._radius + np.linalg.norm(corners, axis=1).max()
            box = box[((box @ self._reciprocal) ** 2).sum(axis=1) <= farthest**2]
            if self._inversion is None:
                factors = phase_factors(box, -self._orbitals.positions)
            else:
                factors = phase_factors(box, self._inversion.positions[self._orbitals.offsets])
                factors = np.stack([factors.real, factors.imag])
            self._last_box = (largest, box, factors)
        return self._last_box[1:]

    def _waves(self, kpoints: NDArray[np.float64], box: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """For each k point its index and the indices of all G with k + G within the radius."""
        points, centers = box @ self._reciprocal, kpoints @ self._reciprocal
        squares = (centers**2).sum(axis=1)[:, None] + 2 * centers @ points.T + (points**2).sum(axis=1)
        for index, near in enumerate(squares <= self._radius**2):
            yield index, np.flatnonzero(near)

    def _accumulate(
        self,
        batch: Sequence[tuple[int, NDArray[np.int64]]],
        kpoints: NDArray[np.float64],
        box: NDArray[np.int64],
        structure_factors: NDArray[Any],
        out: NDArray[Any],
    ) -> None:
        """Add d^dagger f (phi - d/2), rows of diffuse functions only; its Hermitian part is the whole share."""
        waves = np.concatenate([own for _, own in batch])
        of_wave = np.repeat([k for k, _ in batch], [len(own) for _, own in batch])
        fractional = box[waves] + kpoints[of_wave]
        cartesian = fractional @ self._reciprocal
        squares = (cartesian**2).sum(axis=1)
        harmonics = [solid_harmonics(degree, cartesian) for degree in range(self._l_max + 1)]
        transforms = []
        for element, diffuse in zip(self._orbitals.elements, self._diffuse, strict=True):
            of_diffuse = _transform(diffuse, squares, harmonics)
            half = _transform(element, squares, harmonics)
            half[diffuse.function_indices] -= 0.5 * of_diffuse
            transforms.append((half, of_diffuse))
        factors = structure_factors[..., waves]
        right = self._place([half for half, _ in transforms], factors, self._orbitals.elements)
        left = self._place([of_diffuse for _, of_diffuse in transforms], factors, self._diffuse)
        if self._inversion is None:
            np.conjugate(left, out=left)
        left = np.stack([left * multiplier(squares) for multiplier in self._multipliers])
        start = 0
        for k, own in batch:
            part = slice(start, start := start + len(own))
            out[k] += left[..., part] @ right[:, part].T

    def _place(
        self, transforms: Sequence[NDArray[np.float64]], factors: NDArray[Any], shells: Sequence[ElementShells]
    ) -> NDArray[Any]:
        """Transforms of all functions, or combinations, in the cell: each element's times a factor for each atom."""
        species = self._orbitals.element_of
        if self._inversion is None:
            return np.concatenate([transforms[e] * factor for e, factor in zip(species, factors, strict=True)])
        rows = []
        offsets = self._orbitals.offsets
        for atom, (e, offset) in enumerate(zip(species, offsets, strict=True)):
            index = shells[e].function_indices
            degree = shells[e].angular_momenta[index]
            sign, odd = np.where(degree // 2 % 2, -1.0, 1.0), degree % 2 == 1  # (-i)^l = sign * (1 or -i)
            partner = self._inversion.partner[offset]
            if partner == offset:
                rows.append(transforms[e] * sign[:, None] * factors[0, atom])
                continue
            # The first of a pair of atoms carries x + p x', the other one i (x - p x').
            first = np.searchsorted(offsets, min(partner, offset))
            cosine, sine = np.sqrt(2) * factors[:, first]
            of_even, of_odd, sign_of_odd = (cosine, sine, -1.0) if offset < partner else (sine, cosine, 1.0)
            signs = np.where(odd, sign_of_odd * sign, sign)
            rows.append(transforms[e] * signs[:, None] * np.where(odd[:, None], of_odd, of_even))
        return np.concatenate(rows)

    @property
    def _l_max(self) -> int:
        return max(s.angular_momentum for e in self._orbitals.elements for s in e.shells)


def _batches(
    waves: Iterable[tuple[int, NDArray[np.int64]]],
) -> Iterator[list[tuple[int, NDArray[np.int64]]]]:
    """Group the plane waves of successive k points, cutting those of one k point where there are many."""
    batch: list[tuple[int, NDArray[np.int64]]] = []
    size = 0
    for k, all_waves in waves:
        for start in range(0, len(all_waves), _BATCH):
            own = all_waves[start : start + _BATCH]
            if size + len(own) > _BATCH:
                yield batch
                batch, size = [], 0
            batch.append((k, own))
            size += len(own)
    if batch:
        yield batch


def reciprocal_radius(split: float, precision: float) -> float:
    """Length (1/Bohr) beyond which plane waves no longer matter: sqrt(4 a0 ln(1/eps)), with a margin for q^2."""
    return float(np.sqrt(4 * split * (np.log(1 / precision) + 3.0)))


def _transform(
    element: ElementShells, squares: NDArray[np.float64], harmonics: Sequence[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Fourier transforms of an element's functions about the origin without (-i)^l, (n_functions, n_q)."""
    rows = []
    for shell in element.shells:
        degree = shell.angular_momentum
        prefactor = (np.pi / shell.exponents) ** 1.5 * (2 * shell.exponents) ** -float(degree)
        gaussians = np.exp(-squares / (4 * shell.exponents[:, None]))
        radial = (shell.coefficients * prefactor[:, None]).T @ gaussians
        rows.append((radial[:, None, :] * harmonics[degree]).reshape(-1, len(squares)))
    return np.concatenate(rows) if rows else np.empty((0, len(squares)))

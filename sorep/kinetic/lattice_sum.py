"""Real-space blocks <0|A|R> between compact Gaussians, by libcint through PySCF.

Pairs of atoms are taken from a neighbour list, each pair once; the cut-off of every pair of elements follows from the
asked-for precision and the most diffuse primitives that are left. Integrals of one atom with all its neighbours are one
libcint call.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from pyscf import gto
from pyscf.gto import moleintor

from sorep.bloch import RealSpaceTerm
from sorep.kinetic.basis import Shell
from sorep.kinetic.orbitals import ElementShells, Orbitals
from sorep.neighbors import neighbor_pairs


def real_space_term(orbitals: Orbitals, integrals: Sequence[str], split: float, precision: float) -> RealSpaceTerm:
    """Blocks of one-electron integrals between the compact parts of all orbitals.

    Parameters
    ----------
    orbitals : Orbitals
    integrals : sequence of str
        libcint names of two-centre integrals over real spherical functions, e.g. ``"int1e_ovlp_sph"``.
    split : float
        Primitives with smaller exponents (Bohr^-2) are left out; 0 keeps all.
    precision : float
        Matrix elements below this are neglected, Hartree.
    """
    elements = [e.compact(split) for e in orbitals.elements]
    first, second, image = _half_list(orbitals, elements, precision)
    translations, image_index = np.unique(image, axis=0, return_inverse=True)
    library = _LibcintTables(elements, precision)
    # Empty where every primitive is diffuse: then the whole sum is left to reciprocal space.
    kinds = [np.int64] * 3 + [np.float64] * len(integrals)
    stored: list[list[NDArray]] = [[np.empty(0, dtype=kind)] for kind in kinds]
    negligible = 1e-3 * precision
    starts = np.searchsorted(first, np.arange(len(orbitals.element_of) + 1))
    for atom, (start, stop) in enumerate(pairwise(starts)):
        partners, images = second[start:stop], image_index[start:stop]
        here = orbitals.positions[atom] @ orbitals.lattice
        there = (orbitals.positions[partners] + image[start:stop]) @ orbitals.lattice
        rows = orbitals.offsets[atom] + elements[orbitals.element_of[atom]].function_indices
        of_partner = [elements[e].function_indices for e in orbitals.element_of[partners]]
        lengths = [len(index) for index in of_partner]
        cols = np.concatenate(of_partner) + np.repeat(orbitals.offsets[partners], lengths)
        if len(rows) == 0 or len(cols) == 0:
            continue
        blocks = library.integrals(integrals, orbitals.element_of[atom], here, orbitals.element_of[partners], there)
        own = np.repeat((partners == atom) & ~image[start:stop].any(axis=1), lengths)
        # Far neighbours of a core function give zeros: most elements of a large cell need not be kept.
        row, column = np.nonzero(np.max(np.abs(blocks), axis=0) > negligible)
        weight = np.where(own[column], 0.5, 1.0)
        kept = (np.repeat(images, lengths)[column], rows[row], cols[column], *(weight * b[row, column] for b in blocks))
        for values, part in zip(stored, kept, strict=True):
            values.append(part)
    merged = [np.concatenate(parts) for parts in stored]
    return RealSpaceTerm(orbitals.n_functions, translations, (merged[0], merged[1], merged[2]), merged[3:])


def pair_cutoff(one: ElementShells, other: ElementShells, precision: float) -> float:
    """Distance (Bohr) beyond which every integral between two elements' functions is below ``precision``.

    Bounds an overlap of primitives by the Gaussian product theorem, times the factor that the kinetic energy adds.
    """
    return max((_shell_cutoff(s, t, precision) for s in one.shells for t in other.shells), default=0.0)


def _shell_cutoff(one: Shell, other: Shell, precision: float) -> float:
    # The most diffuse primitives decide at large distance; summed coefficients bound all contractions.
    i, j = np.argmin(one.exponents), np.argmin(other.exponents)
    a, b = one.exponents[i], other.exponents[j]
    reduced = a * b / (a + b)
    scale = np.abs(one.coefficients).sum(0).max() * np.abs(other.coefficients).sum(0).max()
    scale *= (np.pi / (a + b)) ** 1.5
    power = one.angular_momentum + other.angular_momentum
    distance = 1.0
    for _ in range(8):  # the logarithm converges within a few steps
        growth = scale * max(distance, 1.0) ** power * max(1.0, 2 * (reduced * distance) ** 2)
        distance = np.sqrt(max(np.log(growth / precision), 1.0) / reduced)
    return float(distance)


def _half_list(
    orbitals: Orbitals, elements: Sequence[ElementShells], precision: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Pairs (first, second, image), each unordered pair once, sorted by first; every atom with itself included."""
    cutoffs = np.array([[pair_cutoff(e, f, precision) for f in elements] for e in elements])
    pairs = neighbor_pairs(orbitals.lattice, orbitals.positions, float(cutoffs.max()))
    species = orbitals.element_of
    near = pairs.distances <= cutoffs[species[pairs.first], species[pairs.second]]
    x, y, z = pairs.image.T
    positive = (x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0))))
    home = ~pairs.image.any(axis=1)
    keep = near & (positive | (home & (pairs.second > pairs.first)))
    atoms = np.arange(len(species))
    first = np.concatenate([pairs.first[keep], atoms])
    order = np.argsort(first, kind="stable")
    second = np.concatenate([pairs.second[keep], atoms])
    image = np.concatenate([pairs.image[keep], np.zeros((len(atoms), 3), dtype=np.int64)])
    return first[order], second[order], image[order]


class _LibcintTables:
    """Elements' shells in libcint's arrays, and integrals of one atom with many others."""

    def __init__(self, elements: Sequence[ElementShells], precision: float) -> None:
        env = [np.zeros(gto.PTR_ENV_START)]
        # libcint skips primitive pairs whose exponential factor is below exp(-cutoff).
        env[0][gto.PTR_EXPCUTOFF] = max(40.0, np.log(1e6 / precision))
        pointer = gto.PTR_ENV_START
        self._bas = []
        for element in elements:
            rows = []
            for shell in element.shells:
                n_prim, n_contr = shell.coefficients.shape
                rows.append((0, shell.angular_momentum, n_prim, n_contr, 0, pointer, pointer + n_prim, 0))
                env += [shell.exponents, shell.coefficients.T.ravel()]
                pointer += n_prim * (1 + n_contr)
            self._bas.append(np.array(rows, dtype=np.int32).reshape(-1, gto.BAS_SLOTS))
        self._env = np.concatenate(env)

    def integrals(
        self,
        names: Sequence[str],
        element: int,
        here: NDArray[np.float64],
        partner_elements: NDArray[np.int64],
        there: NDArray[np.float64],
    ) -> list[NDArray[np.float64]]:
        """One array (functions of the atom, functions of its partners) for each integral."""
        coordinates = np.concatenate([here[None], there])
        atm = np.zeros((len(coordinates), gto.ATM_SLOTS), dtype=np.int32)
        atm[:, gto.PTR_COORD] = len(self._env) + 3 * np.arange(len(coordinates))
        parts = [self._bas[element], *(self._bas[e] for e in partner_elements)]
        bas = np.concatenate(parts)
        bas[:, gto.ATOM_OF] = np.repeat(np.arange(len(parts)), [len(p) for p in parts])
        env = np.concatenate([self._env, coordinates.ravel()])
        n_own = len(parts[0])
        shells = (0, n_own, n_own, len(bas))
        return [moleintor.getints(name, atm, bas, env, shls_slice=shells) for name in names]

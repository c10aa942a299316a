"""The record that everything after the eigenvalues starts from."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sorep.errors import SpectrumError


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigenvalues of one structure on a set of k points.

    Attributes
    ----------
    energies : (n_total,) float array
        Eigenvalues in eV, ascending within each (spin, k) and stored in that order, spin outermost.
    band_counts : (n_spin, n_k) int array
        Eigenvalues of each (spin, k). Where functions were removed as linearly dependent the counts differ between
        k points and the spectrum is ragged; nothing is padded.
    kpoints : (n_k, 3) float array
        Fractional coordinates in the cell of the calculation.
    weights : (n_k,) float array
        Positive, summing to 1; both spin channels share them.
    volume : float
        Of the cell, cubic Angstrom.
    n_atoms : int
        Atoms per cell.
    degeneracy : float
        Electrons that one eigenvalue can hold: 2 / n_spin for a Kohn-Sham spectrum, 1 for a kinetic one.
    n_electrons : float or None
        Per cell; None where the operator has no electrons to count (kinetic energy, overlap).
    n_removed : int
        Functions removed as linearly dependent, summed over (spin, k).
    is_complete : bool
        Whether these are all eigenvalues of the operator in its basis. Where they are not, a partly occupied highest
        band says that bands are missing; where they are, it is a property of the basis.
    flags : tuple of str
        Remarks that a user should see, e.g. ``"linear-dependence"``.
    """

    energies: NDArray[np.float64]
    band_counts: NDArray[np.int64]
    kpoints: NDArray[np.float64]
    weights: NDArray[np.float64]
    volume: float
    n_atoms: int
    degeneracy: float = 1.0
    n_electrons: float | None = None
    n_removed: int = 0
    is_complete: bool = False
    flags: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        for name, kind in (
            ("energies", float),
            ("band_counts", np.int64),
            ("kpoints", float),
            ("weights", float),
        ):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=kind))
        self._check()

    def _check(self) -> None:
        def refuse(message: str, code: str) -> SpectrumError:
            return SpectrumError(message, code=code, remedy="report the structure and the options used")

        if self.kpoints.shape != (len(self.weights), 3) or self.band_counts.ndim != 2:
            raise refuse(
                f"k points {self.kpoints.shape}, weights {self.weights.shape}, band counts "
                f"{self.band_counts.shape} do not fit together",
                "malformed-spectrum",
            )
        if self.band_counts.shape[1] != len(self.weights) or self.band_counts.sum() != len(self.energies):
            raise refuse(
                f"{len(self.energies)} eigenvalues, but the band counts add up to {self.band_counts.sum()} "
                f"over {self.band_counts.shape[1]} of {len(self.weights)} k points",
                "malformed-spectrum",
            )
        if not (np.isfinite(self.energies).all() and np.isfinite(self.weights).all()):
            raise refuse("eigenvalues or weights are not finite", "non-finite-eigenvalues")
        if len(self.energies) == 0:
            raise refuse("no eigenvalues", "malformed-spectrum")
        if (self.weights <= 0).any() or abs(self.weights.sum() - 1) > 1e-8:
            raise refuse(f"k-point weights sum to {self.weights.sum():.6g}, not 1", "malformed-spectrum")

    @classmethod
    def from_eigenvalues(
        cls, eigenvalues: list[NDArray[np.float64]], *, n_functions: int | None = None, unit: float = 1.0, **others
    ) -> Spectrum:
        """From one array of eigenvalues for each k point (one spin channel).

        ``n_functions`` is the size of the basis; k points with fewer eigenvalues count as linearly dependent.
        ``unit`` is the factor from eigenvalues to eV.
        """
        counts = np.array([[len(e) for e in eigenvalues]])
        removed = 0 if n_functions is None else int((n_functions - counts).sum())
        flags = (*others.pop("flags", ()), *(("linear-dependence",) if removed else ()))
        return cls(unit * np.concatenate(eigenvalues), counts, n_removed=removed, flags=flags, **others)

    @property
    def n_spin(self) -> int:
        return self.band_counts.shape[0]

    @property
    def is_ragged(self) -> bool:
        """Whether the number of eigenvalues differs between k points."""
        return bool((self.band_counts != self.band_counts.flat[0]).any())

    @property
    def eigenvalues(self) -> NDArray[np.float64]:
        """As (n_spin, n_k, n_band), eV.

        Raises
        ------
        SpectrumError
            ``ragged-spectrum`` where k points differ in their number of eigenvalues.
        """
        if self.is_ragged:
            raise SpectrumError(
                f"k points hold between {self.band_counts.min()} and {self.band_counts.max()} eigenvalues",
                code="ragged-spectrum",
                remedy="use energies and band_counts, or a basis without linear dependence",
            )
        return self.energies.reshape(*self.band_counts.shape, -1)

    @property
    def state_weights(self) -> NDArray[np.float64]:
        """Weight of its k point for every entry of `energies`; each spin channel sums to its mean band count."""
        return np.repeat(np.tile(self.weights, self.n_spin), self.band_counts.ravel())

"""Spectra from calculations that another program has finished: Quantum ESPRESSO (`espresso`) and VASP (`vasp`).

Eigenvalues, k points, electrons and the structure come from the program's XML; band edges and Fermi energy never do:
`sorep.levels` finds them from the eigenvalues, in the same way for all codes. What the program printed is kept for
comparison.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from sorep.errors import OutputError
from sorep.spectrum import Spectrum
from sorep.structure import Structure

_DISORDER = 1e-3  # eV; nearly degenerate bands change places within the convergence of an iterative diagonalisation


@dataclass(frozen=True)
class Theory:
    """What the eigenvalues of different calculations must share to be comparable.

    Attributes
    ----------
    code : str
        ``"quantum-espresso"`` or ``"vasp"``.
    functional : str
        As the program names it, with what was added to it: ``"PBE+U"``, ``"HSE(0.25,0.106)"``.
    spin_orbit : bool
    """

    code: str
    functional: str
    spin_orbit: bool


UNKNOWN = Theory("unknown", "unknown", False)
"""Of files that cannot be read."""


@dataclass(frozen=True, eq=False)
class Output:
    """A finished calculation.

    Attributes
    ----------
    structure : Structure
        The one that the eigenvalues belong to.
    spectrum : Spectrum
        With ``degeneracy`` 2 / n_spin (1 where spinors are not collinear) and the program's number of electrons.
    theory : Theory
    code_version : str
    pseudopotentials : dict of str to str
        File or title of each species.
    n_spin : int
    noncollinear : bool
    calculation : str
        Kind of the run, ``"scf"``, ``"nscf"``, ``"relax"``, ...
    on_path : bool
        Whether the k points are a path, which does not sample the zone.
    converged : bool
        Whether the electrons are self-consistent; True for a run at fixed density that ended well.
    status : int or None
        Exit status, where the program writes one.
    n_scf_steps : int or None
    occupations : (n_total,) float array or None
        0 to 1 (not strictly, depending on the smearing), in the order of ``spectrum.energies``. None where the program
        wrote none, or only zeros: it filled no states, as in a run of no self-consistent steps.
    highest_occupied : float or None
        As printed, eV; for comparison only.
    fermi_energies : tuple of float
        As printed, eV; two where the magnetisation was fixed; for comparison only.
    """

    structure: Structure
    spectrum: Spectrum
    theory: Theory
    code_version: str
    pseudopotentials: dict[str, str]
    n_spin: int
    noncollinear: bool
    calculation: str
    on_path: bool
    converged: bool
    status: int | None
    n_scf_steps: int | None
    occupations: NDArray[np.float64] | None
    highest_occupied: float | None
    fermi_energies: tuple[float, ...]

    @property
    def code(self) -> str:
        return self.theory.code

    @property
    def functional(self) -> str:
        return self.theory.functional


def read_output(path: str | Path) -> Output:
    """Read a finished calculation of either program.

    Raises
    ------
    OutputError
        ``unknown-output`` where the file is neither, and what the reader of its program raises.
    """
    return _reader_of(path, "output")(path)


def read_theory(path: str | Path) -> Theory:
    """The theory of a calculation, from the beginning of its file.

    Raises
    ------
    OutputError
        As `read_output`.
    """
    return _reader_of(path, "theory")(path)


def program_of(path: str | Path) -> str | None:
    """``"espresso"`` or ``"vasprun"`` where the first lines of a file show it, else None."""
    with open_output(path) as file:
        beginning = file.read(4096)
    if b"espresso" in beginning and b"<?xml" in beginning:
        return "espresso"
    return "vasprun" if b"<modeling" in beginning else None


def open_output(path: str | Path) -> IO[bytes]:
    """Open a file for reading bytes, uncompressed where its name says it is compressed."""
    from ase.io.formats import open_with_compression

    return open_with_compression(str(path), "rb")  # type: ignore[return-value]


def assemble(
    path: str | Path,
    structure: Structure,
    energies: NDArray[np.float64],
    occupations: NDArray[np.float64] | None,
    kpoints: NDArray[np.float64],
    weights: NDArray[np.float64],
    *,
    degeneracy: float,
    n_electrons: float | None,
    removed_above: float = np.inf,
) -> tuple[Spectrum, NDArray[np.float64] | None]:
    """Check what a program wrote and make it a spectrum, and the occupations in the spectrum's order.

    Parameters
    ----------
    path : str or Path
        Named in errors.
    structure : Structure
    energies : (n_spin, n_k, n_band) float array
        eV.
    occupations : (n_spin, n_k, n_band) float array or None
    kpoints : (n_k, 3) float array
        Fractional.
    weights : (n_k,) float array
        Of any sum. Points of no weight are left out (flag ``zero-weight-kpoints``).
    degeneracy : float
    n_electrons : float or None
    removed_above : float
        Eigenvalues from here on mark functions that were removed as linearly dependent, eV.

    Raises
    ------
    OutputError
        ``non-finite-eigenvalues``, ``unsorted-eigenvalues``, ``malformed-output``, ``no-bands``.
    """
    if weights.shape != (len(kpoints),):
        raise malformed(path, f"{len(weights)} weights for {len(kpoints)} k points")
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any() and np.isfinite(kpoints).all()):
        raise malformed(path, "k points or their weights are not finite, or negative, or all zero")
    flags = () if weights.all() else ("zero-weight-kpoints",)
    sampled = weights > 0
    energies, kpoints, weights = energies[:, sampled], kpoints[sampled], weights[sampled]
    if not np.isfinite(energies).all():
        spin, k, band = np.argwhere(~np.isfinite(energies))[0]
        raise OutputError(
            f"{path}: band {band + 1} at k point {k + 1} (spin {spin + 1}) is {energies[spin, k, band]}",
            code="non-finite-eigenvalues",
            remedy="the diagonalisation failed: repeat the calculation",
        )
    present = energies < removed_above
    if not present.any(axis=-1).all():
        raise no_bands(path, "a k point has no eigenvalues")
    disorder = -np.diff(np.minimum(energies, removed_above), axis=-1).min(initial=0.0)
    if disorder > _DISORDER:
        raise OutputError(
            f"{path}: eigenvalues of one k point fall by {disorder:.4g} eV from one band to the next",
            code="unsorted-eigenvalues",
            remedy="check that the bands converged; repeat the calculation with more steps",
        )
    order = np.argsort(energies, axis=-1, kind="stable")
    energies = np.take_along_axis(energies, order, axis=-1)
    n_removed = int((~present).sum())
    spectrum = Spectrum(
        energies[present],
        present.sum(axis=-1),
        kpoints,
        weights / weights.sum(),
        volume=structure.volume,
        n_atoms=structure.n_atoms,
        degeneracy=degeneracy,
        n_electrons=n_electrons,
        n_removed=n_removed,
        flags=(*flags, *(("linear-dependence",) if n_removed else ())),
    )
    if occupations is not None and not occupations.any():
        occupations = None
    if occupations is not None:
        occupations = np.take_along_axis(occupations[:, sampled], order, axis=-1)[present]
    return spectrum, occupations


def no_bands(path: str | Path, what: str) -> OutputError:
    return OutputError(f"{path}: {what}", code="no-bands", remedy="let the calculation finish, and write its bands")


def malformed(path: str | Path, what: str) -> OutputError:
    return OutputError(f"{path}: {what}", code="malformed-output", remedy="repeat the calculation")


def truncated(path: str | Path, what: object) -> OutputError:
    return OutputError(
        f"{path}: {' '.join(str(what).split())}",
        code="truncated-xml",
        remedy="let the calculation finish, or copy its file again",
    )


def unknown_output(path: str | Path) -> OutputError:
    return OutputError(
        f"{path} is no XML output of Quantum ESPRESSO or VASP",
        code="unknown-output",
        remedy="give data-file-schema.xml (Quantum ESPRESSO 6.2 or later) or vasprun.xml",
    )


def _reader_of(path: str | Path, what: str) -> Callable:
    from sorep.outputs import espresso, vasp

    readers = {
        "espresso": {"output": espresso.read_espresso, "theory": espresso.read_theory},
        "vasprun": {"output": vasp.read_vasprun, "theory": vasp.read_theory},
    }
    try:
        program = program_of(path)
    except OSError as error:
        raise unreadable(path, error) from None
    except EOFError as error:  # a compressed file that was cut off
        raise truncated(path, error) from None
    if program is None:
        raise unknown_output(path)
    return readers[program][what]


def unreadable(path: str | Path, error: Exception) -> OutputError:
    return OutputError(
        f"{path}: {type(error).__name__}: {error}", code="unreadable-file", remedy="check that the file can be read"
    )

"""H(k) and S(k) in the basis of pseudo-atomic orbitals, as the patched pw.x writes them with ``disk_io = 'high'``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sorep.errors import OutputError
from sorep.units import HARTREE_IN_EV

_MAGIC = b"sorepHS1"
_HEADER = len(_MAGIC) + 5 * 8


@dataclass(frozen=True, eq=False)
class KPointMatrices:
    """Hamiltonian and overlap at one k point.

    ``kpoint`` : (3,) fractional; ``spin`` : 0 or 1; ``hamiltonian`` : (n, n) complex, eV; ``overlap`` : (n, n) complex.
    Orbitals are ordered by atom, then as in its pseudopotential file, then by m.
    """

    kpoint: NDArray[np.float64]
    spin: int
    hamiltonian: NDArray[np.complex128]
    overlap: NDArray[np.complex128]


def read_matrices(save_folder: str | Path) -> list[KPointMatrices]:
    """All matrices in a ``PREFIX.save`` folder, in the order of the XML file's k points (second spin after the first).

    Raises
    ------
    OutputError
        ``no-matrices`` where there are none, ``truncated-matrices`` where a file is not complete.
    """
    paths = sorted(Path(save_folder).glob("hs[0-9]*.dat"))
    if not paths:
        raise OutputError(
            f"{save_folder} holds no matrices",
            code="no-matrices",
            remedy="run the patched pw.x (`sorep pw build`) with disk_io = 'high'",
        )
    return [_read(path) for path in paths]


def _read(path: Path) -> KPointMatrices:
    content = path.read_bytes()
    n, spin = (int(x) for x in np.frombuffer(content[8:24].ljust(16, b"\0"), np.int64))
    if content[:8] != _MAGIC or len(content) != _HEADER + 2 * 16 * n * n:
        raise OutputError(f"{path} is damaged or incomplete", code="truncated-matrices", remedy="run pw.x again")
    kpoint = np.frombuffer(content, np.float64, 3, 24)
    matrices = np.frombuffer(content, np.complex128, 2 * n * n, _HEADER).reshape(2, n, n).transpose(0, 2, 1)
    return KPointMatrices(kpoint, spin - 1, matrices[0] * (HARTREE_IN_EV / 2), matrices[1])

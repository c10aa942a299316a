"""Finished calculations as a `sorep.method.Method`: the spectrum is read from the file that the structure came from."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from sorep.cells import canonical_cell
from sorep.errors import OutputError, UsageError
from sorep.identity import Identity
from sorep.method import Calculation, Work
from sorep.outputs import UNKNOWN, Output, Theory, read_output, read_theory
from sorep.sources import FORMATS, Item
from sorep.structure import Structure

_MEMORY_PER_BYTE = 20  # of a file, while its XML is being read


@dataclass(frozen=True)
class OutputsMethod:
    """Spectra of one theory.

    Attributes
    ----------
    theory : Theory
        Outputs of another one are refused.
    label : str
        The operator's name in the store. Spectra that differ in what files do not tell reliably (pseudopotentials,
        cutoffs) are kept apart by different labels.
    """

    theory: Theory
    label: str = "outputs"

    @property
    def operator(self) -> str:
        return self.label

    @property
    def counts_electrons(self) -> bool:
        return True

    @property
    def longest_first(self) -> bool:
        """No: milliseconds each."""
        return False

    @property
    def follows_from_structure(self) -> bool:
        """No: of two calculations of one crystal the first counts, and the second is refused."""
        return False

    def identity(self) -> Identity:
        """Label and theory."""
        return Identity.of({"operator": self.label, **asdict(self.theory)})

    def estimate(self, structure: Structure) -> Work:
        """Bands, k points and seconds, by reading the output: that is all the work there is."""
        start = time.perf_counter()
        spectrum = self._read(structure).spectrum
        seconds = time.perf_counter() - start
        memory = _MEMORY_PER_BYTE * Path(structure.source).stat().st_size
        return Work(int(spectrum.band_counts.max()), len(spectrum.weights), seconds, memory)

    def calculate(self, structure: Structure) -> Calculation:
        """The spectrum in ``structure.source``, in the cell of that calculation.

        Raises
        ------
        OutputError
            What `sorep.outputs.read_output` raises; ``not-converged``; ``k-path`` where the k points do not sample the
            zone; ``mixed-outputs`` where the theory is another.
        StructureError
            ``symmetry-search-failed``.
        """
        return Calculation(self._read(structure).spectrum, canonical_cell(structure, keep_cell=True))

    def _read(self, structure: Structure) -> Output:
        output = read_output(structure.source)
        if output.theory != self.theory:
            raise OutputError(
                f"{structure.source} is {output.theory}, not {self.theory}",
                code="mixed-outputs",
                remedy="group the outputs by theory, and give each its own run",
            )
        if not output.converged:
            raise OutputError(
                f"{structure.source}: the electrons did not reach self-consistency (status {output.status}, "
                f"{output.n_scf_steps} steps)",
                code="not-converged",
                remedy="continue the calculation until it converges",
            )
        if output.on_path:
            raise OutputError(
                f"{structure.source}: the k points follow a path and do not sample the zone",
                code="k-path",
                remedy="give the scf or nscf run on a mesh",
            )
        return output


def group_outputs(items: Iterable[Item]) -> dict[Theory, list[Item]]:
    """Sort outputs by theory, reading only the beginning of each file; each group is one run of `featurize`.

    Parameters
    ----------
    items : iterable of Item
        From `sorep.sources.find_items`; what is not an output is left out.

    Returns
    -------
    dict of Theory to list of Item
        Files that cannot be read stand under `sorep.outputs.UNKNOWN`, so that their run records why.

    Raises
    ------
    UsageError
        ``no-outputs``.
    """
    groups: dict[Theory, list[Item]] = {}
    for item in items:
        if not FORMATS[item.format].is_output:
            continue
        try:
            theory = read_theory(item.path)
        except OutputError:
            theory = UNKNOWN
        groups.setdefault(theory, []).append(item)
    if not groups:
        raise UsageError(
            "there are no outputs of Quantum ESPRESSO or VASP in the input",
            code="no-outputs",
            remedy="give folders that hold data-file-schema.xml or vasprun.xml files",
        )
    return groups

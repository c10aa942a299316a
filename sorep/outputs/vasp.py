"""Spectra from VASP's ``vasprun.xml``, read by pymatgen."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sorep.outputs import Output, Theory, assemble, malformed, no_bands, open_output, truncated, unreadable
from sorep.structure import Structure

CODE = "vasp"

_NAMES = {"PE": "PBE", "PS": "PBESOL", "91": "PW91", "RP": "RPBE", "RE": "REVPBE", "AM": "AM05", "CA": "LDA"}
"""VASP's tags of functionals; others keep theirs."""


def read_vasprun(path: str | Path) -> Output:
    """Read a vasprun.xml (or a compressed one).

    Raises
    ------
    OutputError
        ``truncated-xml``, ``unreadable-file``, ``malformed-output``, ``no-bands``, ``non-finite-eigenvalues``,
        ``unsorted-eigenvalues``.
    """
    from pymatgen.electronic_structure.core import Spin
    from pymatgen.io.vasp.inputs import KpointsSupportedModes

    run = _parse(path, parse_eigen=True)
    if not run.eigenvalues:
        raise no_bands(path, "the run wrote no eigenvalues")
    structure = _structure(run, path)
    channels = [run.eigenvalues[spin] for spin in (Spin.up, Spin.down) if spin in run.eigenvalues]
    levels = np.array(channels, dtype=float)
    noncollinear = bool(run.parameters.get("LNONCOLLINEAR", False))
    kpoints, weights = np.array(run.actual_kpoints, dtype=float), np.array(run.actual_kpoints_weights, dtype=float)
    if levels.ndim != 4 or levels.shape[1] != len(kpoints) or len(weights) != len(kpoints):
        raise malformed(path, f"eigenvalues {levels.shape[:3]} do not fit {len(kpoints)} k points")
    spectrum, occupations = assemble(
        path,
        structure,
        levels[..., 0],
        levels[..., 1],
        kpoints,
        weights,
        degeneracy=1.0 if noncollinear else 2.0 / len(channels),
        n_electrons=float(run.parameters["NELECT"]),
    )
    at_fixed_density = int(run.incar.get("ICHARG", run.parameters.get("ICHARG", 0))) >= 10
    relaxes = int(run.parameters.get("NSW", 0)) > 0 and int(run.parameters.get("IBRION", -1)) >= 0
    return Output(
        structure=structure,
        spectrum=spectrum,
        theory=_theory(run.parameters, run.incar, run.potcar_symbols),
        code_version=run.vasp_version,
        pseudopotentials={title.split()[1].partition("_")[0]: title for title in run.potcar_symbols},
        n_spin=len(channels),
        noncollinear=noncollinear,
        calculation="nscf" if at_fixed_density else "relax" if relaxes else "scf",
        on_path=run.kpoints.style == KpointsSupportedModes.Line_mode,
        converged=bool(run.converged_electronic),
        status=None,
        n_scf_steps=len(run.ionic_steps[-1]["electronic_steps"]),
        occupations=occupations,
        highest_occupied=None,
        fermi_energies=() if run.efermi is None else (float(run.efermi),),
    )


def read_structure(path: str | Path) -> Structure:
    """The structure of the last ionic step, which is the one that the eigenvalues belong to.

    Raises
    ------
    OutputError
        ``truncated-xml``, ``unreadable-file``, ``malformed-output``.
    """
    return _structure(_parse(path, parse_eigen=False), path)


def read_theory(path: str | Path) -> Theory:
    """Functional and spin-orbit coupling, from the beginning of the file.

    Raises
    ------
    OutputError
        ``truncated-xml``, ``unreadable-file``, ``malformed-output``.
    """
    import lxml.etree as etree

    incar: dict[str, str] = {}
    parameters: dict[str, str] = {}
    try:
        with open_output(path) as file:
            wanted = ("incar", "parameters", "atominfo")
            for _, element in etree.iterparse(file, tag=wanted, resolve_entities=False):
                if element.tag == "atominfo":
                    cells = element.findall("array[@name='atomtypes']/set/rc")
                    return _theory(parameters, incar, [rc.findall("c")[-1].text or "" for rc in cells])
                found = incar if element.tag == "incar" else parameters
                found |= {i.get("name", ""): (i.text or "").strip() for i in element.iter("i")}
    except (etree.XMLSyntaxError, EOFError) as error:
        raise truncated(path, error) from None
    except OSError as error:
        raise unreadable(path, error) from None
    raise truncated(path, "there is no list of atoms")


def _theory(parameters: Mapping[str, Any], incar: Mapping[str, Any], potcars: list[str]) -> Theory:
    """``parameters`` is all that VASP used, except for tags that only ``incar`` has; values are text or parsed."""

    def tag(name: str) -> str:
        words = str(incar.get(name, parameters.get(name, ""))).split()
        return words[0].upper().strip(".") if words else ""

    functional = tag("METAGGA")
    if functional in ("", "--", "NONE"):
        used = str(parameters.get("GGA", "")).strip().upper()
        own = "PE" if all("PBE" in title for title in potcars) else "91" if "GGA" in "".join(potcars) else "CA"
        functional = _NAMES.get(used if used.strip("-") else own, used)
    if tag("LHFCALC").startswith("T"):
        functional += f"({float(parameters.get('AEXX', 0.25)):g},{float(parameters.get('HFSCREEN', 0)):g})"
    if tag("LUSE_VDW").startswith("T"):
        functional += "+VDW"
    if tag("LDAU").startswith("T"):
        functional += "+U"
    return Theory(CODE, functional, tag("LSORBIT").startswith("T"))


def _structure(run: Any, path: str | Path) -> Structure:
    if not run.structures:
        raise malformed(path, "no ionic step was finished")
    return Structure.from_pymatgen(run.structures[-1], id=Path(path).parent.name, source=str(path))


def _parse(path: str | Path, *, parse_eigen: bool) -> Any:
    from pymatgen.io.vasp.outputs import Vasprun

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of runs that did not converge, which `Output.converged` says
            return Vasprun(str(path), parse_dos=False, parse_eigen=parse_eigen, parse_potcar_file=False)
    except (SyntaxError, EOFError) as error:  # what all XML parsers raise, pymatgen's choice among them
        raise truncated(path, error) from None
    except OSError as error:
        raise unreadable(path, error) from None
    except (KeyError, ValueError, IndexError, TypeError, AttributeError) as error:
        raise malformed(path, f"{type(error).__name__}: {error}") from None

"""Spectra from the XML that pw.x leaves as ``prefix.save/data-file-schema.xml`` (Quantum ESPRESSO 6.2 and later).

The schema is read by hand, with lxml: a few elements of it are needed, they are the same in all versions, and a
validating reader refuses the files of interrupted or newer runs. Energies are in Hartree and k points in units of
2 pi / alat there; weights sum to 2, or to 1 in calculations with spin.

pw.x patched by this package writes an eigenvalue of 1e5 Hartree or more for every function that was removed as linearly
dependent; no real band comes near it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sorep.errors import OutputError, StructureError
from sorep.outputs import (
    Output,
    Theory,
    assemble,
    malformed,
    no_bands,
    open_output,
    truncated,
    unknown_output,
    unreadable,
)
from sorep.structure import Structure
from sorep.units import BOHR_IN_ANGSTROM, HARTREE_IN_EV

CODE = "quantum-espresso"

_REMOVED = 1e5  # Hartree
_MOVED = 1e-5  # Angstrom


def read_espresso(path: str | Path, *, n_electrons: float | None = None) -> Output:
    """Read a data-file-schema.xml (or a compressed one).

    Parameters
    ----------
    path : str or Path
    n_electrons : float, optional
        In place of what the file says.

    Raises
    ------
    OutputError
        ``unknown-output``, ``truncated-xml``, ``unreadable-file``; ``no-bands`` where the run wrote no eigenvalues;
        ``malformed-output`` where numbers are missing or do not fit together; ``structure-moved`` where a relaxation
        ended with atoms displaced after the last self-consistent step; ``non-finite-eigenvalues``,
        ``unsorted-eigenvalues``.
    StructureError
        ``unknown-species``.
    """
    root = _parse(path)
    bands = _child(root, "output/band_structure")
    if bands is None:
        raise no_bands(path, "the run wrote no band structure")
    levels = _children(bands, "ks_energies")
    if not levels:
        raise no_bands(path, "the run wrote no eigenvalues")
    structure = _structure(root, path)
    _refuse_moved_atoms(root, path)

    is_polarised, noncollinear = _flag(bands, "lsda"), _flag(bands, "noncolin")
    n_spin = 2 if is_polarised else 1
    points = [_required(level, "k_point", path) for level in levels]
    kpoints = _table(points, path)
    energies = _by_spin(_table([_required(level, "eigenvalues", path) for level in levels], path), n_spin, path)
    filled = [_child(level, "occupations") for level in levels]
    occupations = _by_spin(_table(filled, path), n_spin, path) if all(e is not None for e in filled) else None
    n_announced = int(_number(bands, "nks", path))
    if kpoints.shape != (n_announced, 3) or (occupations is not None and occupations.shape != energies.shape):
        raise malformed(
            path,
            f"{n_announced} k points announced; found k points {kpoints.shape}, eigenvalues {energies.shape}"
            + ("" if occupations is None else f", occupations {occupations.shape}"),
        )
    reciprocal = _vectors(_required(root, "output/basis_set/reciprocal_lattice", path), "b", path)
    spectrum, occupations = assemble(
        path,
        structure,
        energies * HARTREE_IN_EV,
        occupations,
        kpoints @ np.linalg.inv(reciprocal),
        _numbers(" ".join(point.get("weight", "") for point in points), path),
        degeneracy=1.0 if noncollinear else 2.0 / n_spin,
        n_electrons=_number(bands, "nelec", path) if n_electrons is None else n_electrons,
        removed_above=_REMOVED * HARTREE_IN_EV,
    )

    status = _text(root, "exit_status") or _text(root, "status")
    steps = _text(root, "output/convergence_info/scf_conv/n_scf_steps")
    creator = _child(root, "general_info/creator")
    fermi = _text(bands, "fermi_energy") or _text(bands, "two_fermi_energies")
    highest = _text(bands, "highestOccupiedLevel")
    calculation = _text(root, "input/control_variables/calculation")
    return Output(
        structure=structure,
        spectrum=spectrum,
        theory=_theory(_required(root, "input", path), path),
        code_version="" if creator is None else creator.get("VERSION", ""),
        pseudopotentials={
            species.get("name", ""): _text(species, "pseudo_file")
            for species in _children(root, "output/atomic_species/species")
        },
        n_spin=n_spin,
        noncollinear=noncollinear,
        calculation=calculation,
        on_path=calculation == "bands",
        converged=_converged(root, calculation, status),
        status=int(status) if status else None,
        n_scf_steps=int(steps) if steps else None,
        occupations=occupations,
        highest_occupied=float(_numbers(highest, path)[0] * HARTREE_IN_EV) if highest else None,
        fermi_energies=tuple((_numbers(fermi, path) * HARTREE_IN_EV).tolist()),
    )


def read_structure(path: str | Path) -> Structure:
    """The structure of a data-file-schema.xml at the end of the run.

    Raises
    ------
    OutputError
        ``unknown-output``, ``truncated-xml``, ``unreadable-file``, ``malformed-output``; ``no-bands`` where the run
        wrote no output at all.
    StructureError
        ``unknown-species``.
    """
    return _structure(_parse(path), path)


def read_theory(path: str | Path) -> Theory:
    """Functional and spin-orbit coupling, from the beginning of the file.

    Raises
    ------
    OutputError
        ``unknown-output``, ``truncated-xml``, ``unreadable-file``, ``malformed-output``.
    """
    import lxml.etree as etree

    try:
        with open_output(path) as file:
            for _, element in etree.iterparse(file, tag="{*}input", resolve_entities=False):
                return _theory(element, path)
    except (etree.XMLSyntaxError, EOFError) as error:
        raise truncated(path, error) from None
    except OSError as error:
        raise unreadable(path, error) from None
    raise malformed(path, "there is no input section")


def _theory(given: Any, path: str | Path) -> Theory:
    # As asked for: the output section of some versions forgets non-local correlation.
    functional = _text(given, "dft/functional").upper()
    if not functional:
        raise malformed(path, "no functional is named")
    hybrid = [_text(given, f"dft/hybrid/{name}") for name in ("exx_fraction", "screening_parameter")]
    if any(hybrid):
        functional += f"({','.join(f'{value:g}' for value in _numbers(' '.join(hybrid), path))})"
    if _child(given, "dft/dftU") is not None:
        functional += "+U"
    return Theory(CODE, functional, _flag(given, "spin/spinorbit"))


def _converged(root: Any, calculation: str, status: str) -> bool:
    achieved = _text(root, "output/convergence_info/scf_conv/convergence_achieved")
    if calculation in ("nscf", "bands") or not achieved:  # nothing to achieve, or not written (before 6.4)
        return status in ("", "0")
    return achieved == "true"


def _structure(root: Any, path: str | Path) -> Structure:
    from ase.data import atomic_numbers
    from ase.io.espresso import label_to_symbol

    found = _child(root, "output/atomic_structure")
    if found is None:
        raise no_bands(path, "the run wrote no output")
    lattice, positions = _cell_and_positions(found, path)
    names = [atom.get("name", "") for atom in _children(found, "atomic_positions/atom")]
    try:
        numbers = np.array([atomic_numbers[label_to_symbol(name)] for name in names], dtype=np.int64)
    except KeyError as error:
        raise StructureError(
            f"{path}: no element is known for the species {error}",
            code="unknown-species",
            remedy="name species by their element, followed by digits or _",
        ) from None
    fractional = positions @ np.linalg.inv(lattice)
    return Structure(
        Path(path).parent.name.removesuffix(".save"), lattice * BOHR_IN_ANGSTROM, numbers, fractional, str(path)
    )


def _refuse_moved_atoms(root: Any, path: str | Path) -> None:
    """An unfinished relaxation writes the structure of the step to come next to the eigenvalues of the last one."""
    steps = _children(root, "step/atomic_structure")
    if not steps:
        return
    last = _cell_and_positions(steps[-1], path)
    final = _cell_and_positions(_child(root, "output/atomic_structure"), path)
    moved = max(np.abs(a - b).max(initial=0.0) for a, b in zip(last, final, strict=True)) * BOHR_IN_ANGSTROM
    if moved > _MOVED:
        raise OutputError(
            f"{path}: atoms or cell moved by {moved:.3g} Angstrom after the last self-consistent step",
            code="structure-moved",
            remedy="let the relaxation converge, or run scf or nscf at its last structure",
        )


def _cell_and_positions(element: Any, path: str | Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """In Bohr."""
    positions = _table(_children(element, "atomic_positions/atom"), path)
    if positions.shape[-1] != 3:
        raise malformed(path, "atomic positions are missing")
    return _vectors(_required(element, "cell", path), "a", path), positions


def _vectors(element: Any, letter: str, path: str | Path) -> NDArray[np.float64]:
    vectors = _table([_required(element, f"{letter}{i}", path) for i in (1, 2, 3)], path)
    if vectors.shape != (3, 3) or not abs(np.linalg.det(vectors)) > 1e-12:
        raise malformed(path, f"the vectors {letter}1, {letter}2 and {letter}3 span no cell")
    return vectors


def _by_spin(values: NDArray[np.float64], n_spin: int, path: str | Path) -> NDArray[np.float64]:
    """(n_k, n_spin * n_band), the up channel first, as (n_spin, n_k, n_band)."""
    n_k, n_values = values.shape
    if not n_values:
        raise no_bands(path, "the run wrote no eigenvalues")
    if n_values % n_spin:
        raise malformed(path, f"{n_values} eigenvalues for two spin channels")
    return values.reshape(n_k, n_spin, -1).swapaxes(0, 1)


def _table(elements: list[Any], path: str | Path) -> NDArray[np.float64]:
    """The numbers of elements that hold equally many, one row each."""
    values = _numbers(" ".join(element.text or "" for element in elements), path)
    sizes = {len((element.text or "").split()) for element in elements}
    if len(sizes) > 1:
        raise malformed(path, f"{elements[0].tag} holds between {min(sizes)} and {max(sizes)} numbers")
    return values.reshape(len(elements), -1) if elements else np.empty((0, 0))


def _numbers(text: str, path: str | Path) -> NDArray[np.float64]:
    """Numbers as Fortran writes them: also 1.0D-3, 1.0-100, and stars (not a number) where they did not fit."""
    try:
        return np.array(text.split(), dtype=float)
    except ValueError:
        text = re.sub(r"(?<=[\d.])[dD](?=[+-]?\d)", "e", text)
        text = re.sub(r"(?<=[\d.])(?=[+-]\d{3}(?!\S))", "e", text)
        text = re.sub(r"(?<!\S)\*+(?!\S)", "nan", text)
    try:
        return np.array(text.split(), dtype=float)
    except ValueError as error:
        raise malformed(path, str(error)) from None


def _number(element: Any, name: str, path: str | Path) -> float:
    values = _numbers(_text(element, name), path)
    if values.shape != (1,) or not np.isfinite(values[0]):
        raise malformed(path, f"{name} is {_text(element, name)!r}")
    return float(values[0])


def _parse(path: str | Path) -> Any:
    import lxml.etree as etree

    parser = etree.XMLParser(huge_tree=True, resolve_entities=False, remove_comments=True)
    try:
        with open_output(path) as file:
            content = file.read()
        root = etree.fromstring(content, parser)
    except EOFError as error:
        raise truncated(path, error) from None
    except OSError as error:
        raise unreadable(path, error) from None
    except etree.XMLSyntaxError as error:
        raise (truncated(path, error) if content.lstrip().startswith(b"<") else unknown_output(path)) from None
    if etree.QName(root).localname != "espresso":
        raise unknown_output(path)
    return root


def _child(element: Any, path: str) -> Any:
    """Elements may carry a namespace (the root does) or not."""
    return element.find("/".join(f"{{*}}{name}" for name in path.split("/")))


def _children(element: Any, path: str) -> list[Any]:
    return element.findall("/".join(f"{{*}}{name}" for name in path.split("/")))


def _required(element: Any, name: str, path: str | Path) -> Any:
    found = _child(element, name)
    if found is None:
        raise malformed(path, f"there is no {name}")
    return found


def _text(element: Any, path: str) -> str:
    found = _child(element, path)
    return "" if found is None else (found.text or "").strip()


def _flag(element: Any, path: str) -> bool:
    return _text(element, path).lower() == "true"

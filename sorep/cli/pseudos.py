"""`sorep pseudos`: installing, listing, checking and pinning pseudopotential families."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sorep.cli.console import SOME_FAILED, guarded

if TYPE_CHECKING:
    from sorep.single_shot.pseudo_family import PseudoFamily
    from sorep.structure import Structure

pseudos_app = typer.Typer(
    name="pseudos",
    help="Pseudopotential families of single-shot runs: install, list, check, pin.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@pseudos_app.command()
@guarded
def install(
    name: Annotated[str | None, typer.Argument(help="Family; without one, the default of single-shot runs.")] = None,
    archive: Annotated[Path | None, typer.Option(help="Tar, zip or wheel that holds it, not a download.")] = None,
) -> None:
    """Install a pinned family into $SOREP_DATA, by default ~/.local/share/sorep.

    Every file is checked against its pinned checksum. What is there already stays; what is damaged is replaced.
    """
    from sorep.single_shot.pseudo_install import install_family
    from sorep.single_shot.pseudos import DEFAULT_FAMILY

    result = install_family(name or DEFAULT_FAMILY, archive=archive)
    counts = f"{len(result.installed)} files installed, {len(result.present)} there already"
    typer.echo(f"{result.family.name}: {counts}, in {result.family.folder}")
    typer.echo(f"licence: {result.family.licence}; {_citation(result.family)}")
    if result.missing:
        typer.echo(f"not in the archive: {', '.join(result.missing)}", err=True)
        raise typer.Exit(SOME_FAILED)


@pseudos_app.command(name="list")
@guarded
def list_() -> None:
    """List the pinned families: functional, kinds, elements, licence, whether installed, what to cite."""
    from sorep.paths import data_folder
    from sorep.single_shot.pseudo_family import FAMILIES
    from sorep.single_shot.pseudos import DEFAULT_FAMILY, pinned_family

    folder = data_folder() / "pseudos"
    typer.echo(f"families in {folder}")
    for name in FAMILIES:
        family = pinned_family(name, folder / name)
        total = len(family.pseudos)
        there = sum((family.folder / pseudo.filename).is_file() for pseudo in family.pseudos.values())
        state = "installed" if there == total else f"{there} of {total} files" if there else "not installed"
        kinds = "+".join(sorted({pseudo.kind for pseudo in family.pseudos.values()}))
        default = "  (default)" if name == DEFAULT_FAMILY else ""
        typer.echo(f"{name:<36} {family.functional:<7} {kinds:<10} {total} elements  {state}{default}")
        typer.echo(f"    licence: {family.licence}\n    {_citation(family)}")


@pseudos_app.command()
@guarded
def check(
    name: Annotated[str | None, typer.Argument(help="Family, or folder of UPF files with a table of cutoffs.")] = None,
    paths: Annotated[list[Path] | None, typer.Argument(help="Files or folders of structures it should cover.")] = None,
) -> None:
    """Check the files of a family and, with structures, whether it has a basis for all their elements.

    Exit status: 0 all is well; 1 files are missing or damaged; 3 the family does not do for some structures, or some
    cannot be read.
    """
    from sorep.single_shot.pseudos import DEFAULT_FAMILY, load_family

    family = load_family(name or DEFAULT_FAMILY)
    family.verify()
    typer.echo(f"{family.name}: {len(family.pseudos)} files intact in {family.folder}")
    if paths and not _covers(family, paths):
        raise typer.Exit(SOME_FAILED)


@pseudos_app.command()
@guarded
def pin(
    folder: Annotated[Path, typer.Argument(help="Folder of UPF files.", exists=True, file_okay=False)],
    cutoffs: Annotated[Path, typer.Option(help="Table of cutoffs in Ry: .json, .toml or .csv.", exists=True)],
    name: Annotated[str, typer.Option(help="Name of the family.")],
    out: Annotated[Path | None, typer.Option(help="By default sorep-family.json in the folder, pinning it.")] = None,
    licence: Annotated[str, typer.Option(help="Licence of the files.")] = "",
    references: Annotated[Path | None, typer.Option(help="BibTeX file of what to cite.", exists=True)] = None,
) -> None:
    """Write a manifest of a folder of UPF files: checksum, valence, orbitals and cutoffs of each."""
    from sorep.single_shot import pseudo_folder

    target = out or folder / pseudo_folder.MANIFEST
    bibtex = references.read_text(encoding="utf-8") if references else ""
    family = pseudo_folder.pin(folder, cutoffs, name, target, licence=licence, references=bibtex)
    typer.echo(f"{target}: {name}, {family.functional}, {len(family.pseudos)} elements")


def _citation(family: PseudoFamily) -> str:
    found = [re.search(r"doi\s*=\s*[{\"](.+?)[}\"]", entry) for entry in family.references]
    return "cite " + ", ".join(f"doi:{match[1]}" for match in found if match) if any(found) else "no citation recorded"


def _covers(family: PseudoFamily, paths: list[Path]) -> bool:
    """Print which elements of the structures the family lacks; True where it lacks none and all could be read."""
    from ase.data import chemical_symbols

    structures, failures = _read(paths)
    users: dict[int, list[str]] = {}
    for structure in structures:
        for number in {int(number) for number in structure.numbers}:
            users.setdefault(number, []).append(structure.id)
    of = {chemical_symbols[number]: users[number] for number in sorted(users)}
    missing = [symbol for symbol in of if symbol not in family.pseudos]
    known = {symbol: family.pseudos[symbol] for symbol in of if symbol not in missing}
    bare = [symbol for symbol, pseudo in known.items() if pseudo.n_functions == 0]
    filled = [symbol for symbol, pseudo in known.items() if 0 < pseudo.capacity <= pseudo.z_valence]
    without = {id for symbol in missing + bare for id in of[symbol]}
    typer.echo(f"{len(structures) - len(without)} of {len(structures)} structures covered, {len(of)} elements")
    for symbol in missing + bare:
        what = "no pseudopotential" if symbol in missing else "no atomic orbitals"
        typer.echo(f"  {symbol}: {what}; {len(of[symbol])} structures, such as {of[symbol][0]}")
    if filled:
        typer.echo(f"  all orbitals filled in the atom, no empty band from these alone: {', '.join(filled)}")
    for failure in failures:
        typer.echo(f"  {failure}", err=True)
    return not (without or failures)


def _read(paths: Iterable[Path]) -> tuple[list[Structure], list[str]]:
    from sorep.errors import Failure
    from sorep.sources import find_items, read_item

    structures, failures = [], []
    for item in find_items(list(paths)):
        for result in read_item(item):
            if isinstance(result, Failure):
                failures.append(f"{result.id}: {result.message} [{result.code}]; {result.remedy}")
            else:
                structures.append(result)
    return structures, failures

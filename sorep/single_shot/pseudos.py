"""Pseudopotential families: which file stands for which element, and what a run needs to know of it.

A family is either pinned or any folder of UPF files. Of a pinned family this package holds a manifest - checksum of
every file, valence, atomic orbitals, cutoffs, licence, citation - and no pseudopotential:
`sorep.single_shot.pseudo_install` fetches the files. A folder needs a table of cutoffs beside its UPF files
(`sorep.single_shot.pseudo_folder`).
"""

from __future__ import annotations

import difflib
import json
from functools import cache
from pathlib import Path
from typing import Any

from sorep.errors import SET_UP, PseudoError
from sorep.paths import data_folder
from sorep.single_shot.pseudo_family import FAMILIES, MANIFESTS, PseudoFamily, family_from_manifest
from sorep.single_shot.pseudo_folder import read_folder

DEFAULT_FAMILY = "pseudo-dojo-0.4-pbe-sr-standard"


def load_family(name_or_folder: str | Path, *, folder: Path | None = None) -> PseudoFamily:
    """Load a family; a second call in one process returns the same object unless files changed.

    Parameters
    ----------
    name_or_folder : str or Path
        One of `FAMILIES`, which must be installed, or a folder of UPF files with a table of cutoffs.
    folder : Path, optional
        Where pinned families are installed, each in a folder of its name; by default ``pseudos`` in
        `sorep.paths.data_folder`.

    Raises
    ------
    PseudoError
        ``unknown-family``, ``family-not-installed`` (stage ``"set-up"``), or the errors of `pseudo_folder.read_folder`.
    """
    name = str(name_or_folder)
    if isinstance(name_or_folder, str) and name in FAMILIES:
        return _load_pinned(name, (folder or data_folder() / "pseudos").absolute() / name)
    path = Path(name_or_folder).expanduser().absolute()
    if path.is_dir():
        return read_folder(path)
    close = difflib.get_close_matches(name.lower(), FAMILIES, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise PseudoError(
        f"{name!r} is neither a known family nor a folder",
        code="unknown-family",
        remedy=f"{hint}Give one of {', '.join(FAMILIES)}, or a folder of UPF files with a table of cutoffs",
    )


def _load_pinned(name: str, folder: Path) -> PseudoFamily:
    family = pinned_family(name, folder)
    if not any((folder / pseudo.filename).is_file() for pseudo in family.pseudos.values()):
        raise PseudoError(
            f"family {name} is not installed in {folder}",
            code="family-not-installed",
            stage=SET_UP,
            remedy=f"sorep pseudos install {name}",
        )
    return family


@cache
def pinned_family(name: str, folder: Path) -> PseudoFamily:
    """The family of this package's manifest ``name``, whether or not its files lie in ``folder``."""
    return family_from_manifest(read_manifest(name), folder)


def read_manifest(name: str) -> dict[str, Any]:
    """The manifest of a pinned family as it stands in its file.

    Raises
    ------
    PseudoError
        ``unknown-family``.
    """
    if name not in FAMILIES:
        raise PseudoError(
            f"there is no pinned family {name!r}",
            code="unknown-family",
            remedy=f"choose among {', '.join(FAMILIES)}",
        )
    return json.loads((MANIFESTS / f"{name}.json").read_text(encoding="utf-8"))

"""Where sorep keeps files of its own, after the XDG base directory specification."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """What can be made again (builds of pw.x): ``$SOREP_CACHE``, or ``sorep`` in the user's cache folder."""
    return _folder("SOREP_CACHE", "XDG_CACHE_HOME", ".cache")


def data_folder() -> Path:
    """What was fetched (pseudopotentials): ``$SOREP_DATA``, or ``sorep`` in the user's data folder."""
    return _folder("SOREP_DATA", "XDG_DATA_HOME", ".local/share")


def _folder(own_variable: str, xdg_variable: str, in_home: str) -> Path:
    own = os.environ.get(own_variable)
    if own:
        return Path(own).expanduser().absolute()
    xdg = Path(os.environ.get(xdg_variable, ""))
    base = xdg if xdg.is_absolute() else Path.home() / in_home  # XDG: relative paths are to be ignored
    return base / "sorep"

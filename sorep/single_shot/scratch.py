"""Folders that calculations run in, and that are gone afterwards, however the run ended.

A run owns one folder ``sorep-<pid>-<random>`` and holds a lock on a file in it for as long as it lives; the kernel
drops the lock when the owner dies, so that the next run knows which folders are leftovers.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from sorep.errors import SET_UP, PwError

PREFIX = "sorep-"
LOCK = "owner"
"""Name of the locked file; it holds the name of the owner's machine."""

_LONGEST_NAME = 40  # pw.x cuts paths at 256 characters


class Scratch:
    """The scratch folder of one run, as a context manager in the process that leads the run.

    Entering it removes what dead owners of this user and this machine left in ``base``; leaving it removes the
    folder. `root` is a plain path that worker processes can be given.

    Parameters
    ----------
    base : Path, optional
        Where to make the folder; the system's folder for temporary files by default.

    Raises
    ------
    PwError
        On entering, code ``no-scratch``, if no folder can be made in ``base``.
    """

    def __init__(self, base: Path | None = None) -> None:
        self.base = Path(tempfile.gettempdir()) if base is None else base.absolute()

    def __enter__(self) -> Self:
        try:
            self.base.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(self.base)
            self.root = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=self.base))
            self._lock = os.open(self.root / LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise PwError(
                f"no scratch folder can be made in {self.base}: {error.strerror}",
                code="no-scratch",
                stage=SET_UP,
                remedy="name another folder with --scratch, or set TMPDIR",
            ) from error
        # Where the file system has no locks, nobody can take this one either, and leftovers stay.
        with suppress(OSError):
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.write(self._lock, _machine())  # only now can others take this folder for anybody's
        return self

    def __exit__(self, *exception: object) -> None:
        with suppress(FileNotFoundError):  # somebody tidied up
            _remove(self.root)
        os.close(self._lock)


@contextmanager
def calculation_folder(root: Path, name: str, *, keep_failed: Path | None = None) -> Iterator[Path]:
    """Make a fresh folder for one calculation, and remove it when the body ends.

    Parameters
    ----------
    root : Path
        `Scratch.root`, or any other folder.
    name : str
        Identifier of the structure.
    keep_failed : Path, optional
        Where the folder is moved to, under a name made from ``name``, if the body raises; what an earlier failure
        of the same structure left there is replaced.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"{file_name(name)}-", dir=root))
    try:
        yield folder
    except Exception as error:
        if keep_failed is not None:
            try:
                kept = keep_failed / file_name(name)
                keep_failed.mkdir(parents=True, exist_ok=True)
                shutil.rmtree(kept, ignore_errors=True)
                shutil.move(folder, kept)
            except (OSError, shutil.Error) as not_kept:
                error.add_note(f"the folder of the calculation could not be kept: {not_kept}")
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def file_name(id: str) -> str:
    """A file name for a structure's identifier: the identifier where it is fit for one, else distinct by a hash."""
    name = re.sub(r"[^A-Za-z0-9._+-]+", "_", id).lstrip(".-")[:_LONGEST_NAME]
    return name if name and name == id else f"{name}-{hashlib.sha256(id.encode()).hexdigest()[:8]}".lstrip("-")


def _machine() -> bytes:
    return socket.gethostname().encode()


def _remove_leftovers(base: Path) -> None:
    """Remove the scratch folders whose owner, of this user and this machine, is dead."""
    with os.scandir(base) as entries:
        found = [entry for entry in entries if re.fullmatch(rf"{PREFIX}\d+-\w+", entry.name)]
    for entry in found:
        with suppress(OSError):  # it is in use, of another user, or just being removed by its owner
            if entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_uid == os.geteuid():
                _remove_leftover(Path(entry.path))


def _remove_leftover(folder: Path) -> None:
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Empty: the owner is about to take the lock. Another machine: locks may not reach across.
        if os.read(lock, 1024) == _machine():
            _remove(folder)
    finally:
        os.close(lock)


def _remove(folder: Path) -> None:
    """Remove a scratch folder, its lock last: what is left when this is interrupted can still be recognised."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name != LOCK:
            entry.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)

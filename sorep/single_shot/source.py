"""The source of Quantum ESPRESSO: where it is found, and the proof that it is the release the patches were made for.

The file ``source.json`` of a patch folder pins every file that goes into pw.x by its SHA-256. Only these files are
taken from an archive or a folder, so that what was verified is what gets compiled: it does not matter how an archive
was packed, and objects that an earlier build left in a folder are neither looked at nor used.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from lzma import LZMAError
from pathlib import Path, PurePosixPath

from sorep.errors import SET_UP, PwError

RELEASE_URL = "https://gitlab.com/QEF/q-e/-/archive/qe-6.7MaX-Release/q-e-qe-6.7MaX-Release.tar.gz"

_VERSION_FILES = ("include/qe_version.h", "Modules/version.f90")  # of 6.7 and later, of 6.6 and earlier
_VERSION = re.compile(r"version_number\s*=\s*'([^']*)'")

_SUITES = "stable|oldstable|testing|unstable|sid"
_COMPONENTS = {"main", "universe"}
_ONE_LINE = re.compile(r"\s*deb(?:-src)?\s+(\[[^]]*\]\s+)?(\w\S*:\S+)\s+(\S+)\s+(\S.*)")


@dataclass(frozen=True)
class Pin:
    """A release of Quantum ESPRESSO, file by file.

    Attributes
    ----------
    version : str
        What the source calls itself, e.g. ``"6.7MaX"``.
    files : mapping of str to str
        SHA-256 of each file that is needed to build and to check pw.x, by path below the top folder.
    """

    version: str
    files: Mapping[str, str]

    @classmethod
    def read(cls, file: Path) -> Pin:
        """Read ``source.json``."""
        content = json.loads(file.read_text(encoding="utf-8"))
        return cls(content["version"], content["files"])


def unpack(source: Path, pin: Pin, tree: Path) -> str:
    """Verify the pinned files of ``source``, a folder or a tarball, and write them to the folder ``tree``.

    Nothing is written unless every file is the one that was pinned.

    Returns
    -------
    str
        SHA-256 of the tarball; empty for a folder.

    Raises
    ------
    PwError
        ``unreadable-source``, ``unsupported-version``, or ``source-differs`` with the files that do.
    """
    wanted = {*pin.files, *_VERSION_FILES}
    try:
        files = _read_folder(source, wanted) if source.is_dir() else _read_tarball(source, wanted)
        digest = "" if source.is_dir() else _sha256_of(source)
    except (OSError, EOFError, tarfile.TarError, zlib.error, LZMAError) as error:
        raise _unusable(
            f"cannot read {source}: {error}",
            "unreadable-source",
            "give the folder or the .tar.gz of a release of Quantum ESPRESSO, whole and readable",
        ) from None
    _check_version(files, source, pin)
    _check_content(files, source, pin)
    for name in pin.files:
        target = tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(files[name])
        if files[name].startswith(b"#!"):
            target.chmod(0o755)
    return digest


def download_and_unpack(pin: Pin, tree: Path, kept: Path, report: Callable[[str], None]) -> str:
    """Get the release from wherever it can be had and `unpack` it; a good archive is kept for the next time.

    Tried in turn: the archive ``kept``, the source package of a Debian or Ubuntu system (nothing on the system
    changes: apt works in a temporary folder), and the release archive of the project.

    Returns
    -------
    str
        SHA-256 of the archive.

    Raises
    ------
    PwError
        ``source-unavailable``, with what went wrong in each place.
    """
    reasons = []
    if kept.is_file():
        try:
            return unpack(kept, pin, tree)
        except PwError as error:
            reasons.append(error.message)
    kept.parent.mkdir(parents=True, exist_ok=True)
    for place, download in (
        ("source package of the distribution", _download_from_distribution),
        ("release archive of the project", _download_release),
    ):
        report(f"download: {place}")
        with tempfile.TemporaryDirectory(prefix=".download-", dir=kept.parent) as folder:
            try:
                archive = download(Path(folder))
                digest = unpack(archive, pin, tree)
            except PwError as error:
                reasons.append(f"{place}: {error.message}")
                continue
            archive.replace(kept)
            return digest
    raise _unusable(
        f"the source of Quantum ESPRESSO {pin.version} cannot be had: {'; '.join(reasons)}",
        "source-unavailable",
        f"get {RELEASE_URL} where there is a network, and give it with --source FILE",
    )


def _unusable(message: str, code: str, remedy: str) -> PwError:
    return PwError(message, code=code, stage=SET_UP, remedy=remedy)


# Reading and checking


def _read_folder(folder: Path, wanted: Collection[str]) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in wanted if (folder / name).is_file()}


def _read_tarball(file: Path, wanted: Collection[str]) -> dict[str, bytes]:
    """Contents by path below the top folder of the archive."""
    found = {}
    with tarfile.open(file) as archive:
        for member in archive:
            name = "/".join(PurePosixPath(member.name).parts[1:])
            if name in wanted and member.isfile():
                content = archive.extractfile(member)
                found[name] = content.read() if content else b""
    return found


def _sha256_of(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_version(files: Mapping[str, bytes], source: Path, pin: Pin) -> None:
    texts = (files[name].decode(errors="replace") for name in _VERSION_FILES if name in files)
    versions = [match.group(1) for text in texts if (match := _VERSION.search(text))]
    if not versions:
        raise _unusable(
            f"{source} does not hold the source of Quantum ESPRESSO: no version in {' or '.join(_VERSION_FILES)}",
            "unreadable-source",
            "give the top folder of the source (the one with the file configure), or the archive of a release",
        )
    if versions[0] != pin.version:
        raise _unusable(
            f"{source} is Quantum ESPRESSO {versions[0]}; there are patches for {pin.version} only",
            "unsupported-version",
            f"give the source of {pin.version}, or leave --source away to have it downloaded",
        )


def _check_content(files: Mapping[str, bytes], source: Path, pin: Pin) -> None:
    missing = [name for name in pin.files if name not in files]
    changed = [
        name
        for name, digest in pin.files.items()
        if name in files and hashlib.sha256(files[name]).hexdigest() != digest
    ]
    if missing or changed:
        found = [
            f"{len(names)} {what} ({_some(names)})"
            for what, names in (("changed", changed), ("missing", missing))
            if names
        ]
        raise _unusable(
            f"{source} is not Quantum ESPRESSO {pin.version} as it was released: files {', '.join(found)}",
            "source-differs",
            "give the release without changes (it is patched in a copy), or leave --source away to have it downloaded",
        )


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


# Downloading


def _download_release(folder: Path) -> Path:
    archive = folder / "release.tar.gz"
    try:
        with urllib.request.urlopen(RELEASE_URL, timeout=30) as response, archive.open("wb") as file:
            shutil.copyfileobj(response, file)
    except (OSError, HTTPException) as error:
        raise _unusable(f"cannot download {RELEASE_URL}: {error}", "source-unavailable", "check the network") from None
    return archive


def _download_from_distribution(folder: Path) -> Path:
    if not shutil.which("apt-get"):
        raise _unusable("no apt-get", "source-unavailable", "give the source with --source")
    lists = source_lists(Path("/etc/apt"), _codename())
    if not any(lists.values()):
        raise _unusable(
            "no Debian or Ubuntu archive in /etc/apt", "source-unavailable", "give the source with --source"
        )
    (folder / "sources").mkdir()
    for name, content in lists.items():
        (folder / "sources" / name).write_text(content, encoding="utf-8")
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    # Given with -c, and not in APT_CONFIG, because the latter is read before the system's own configuration.
    (folder / "apt.conf").write_text(
        "#clear APT::Update::Pre-Invoke;\n#clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n"
        f'Dir::Etc::SourceList "/dev/null";\nDir::Etc::SourceParts "{folder}/sources";\n'
        f'Dir::State::Lists "{folder}/lists";\nDir::Cache "{folder}/cache";\n'
        'Acquire::Languages "none";\nAcquire::Retries "1";\nAcquire::http::Timeout "30";\n'
        'Acquire::https::Timeout "30";\nAPT::Sandbox::User "root";\n',
        encoding="utf-8",
    )
    # One bad entry makes the update fail although the package may be found: what counts is the download.
    said = [
        subprocess.run(
            ["apt-get", "-q", "-c", f"{folder}/apt.conf", *words],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
        for words in (["update"], ["source", "--download-only", "--tar-only", "quantum-espresso"])
    ]
    archives = sorted(folder.glob("espresso_*.orig.tar.*"))
    if not archives:
        errors = [line for result in said for line in result.stderr.splitlines() if line.startswith("E:")]
        reason = " ".join(errors[:2]) or "apt-get downloaded nothing"
        raise _unusable(reason, "source-unavailable", "give the source with --source")
    return archives[0]


def _codename() -> str:
    try:
        found = re.search(
            r'^VERSION_CODENAME="?(\w+)', Path("/etc/os-release").read_text(encoding="utf-8"), re.MULTILINE
        )
    except OSError:
        return ""
    return found.group(1) if found else ""


def source_lists(etc: Path, codename: str) -> dict[str, str]:
    """Entries for source packages of the distribution's own archives among the lists in ``etc`` (``/etc/apt``).

    Archives of third parties are left out: an entry counts as the distribution's own where it has the suite
    ``codename`` (or stable, sid, ...; with -updates or -security) and the component main or universe.

    Returns
    -------
    dict of str to str
        Content of a file of each of the two formats that apt reads, by file name.
    """
    own_suite = re.compile(rf"({_SUITES}|{codename or 'stable'})(-updates|-security|/updates)?")
    lines, stanzas = [], []
    for file in [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*.list"))]:
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else ():
            entry = _ONE_LINE.fullmatch(line.partition("#")[0].rstrip())
            if entry and own_suite.fullmatch(entry[3]) and _COMPONENTS & set(entry[4].split()):
                lines.append(f"deb-src {entry[1] or ''}{entry[2]} {entry[3]} {entry[4]}")
    for file in sorted((etc / "sources.list.d").glob("*.sources")):
        for stanza in re.split(r"\n\s*\n", file.read_text(encoding="utf-8", errors="replace")):
            kept = [line for line in stanza.splitlines() if not line.startswith("#")]
            fields = {key.lower(): value.split() for key, _, value in (line.partition(":") for line in kept)}
            if (
                any(own_suite.fullmatch(suite) for suite in fields.get("suites", ()))
                and _COMPONENTS & set(fields.get("components", ()))
                and fields.get("enabled", ["yes"]) not in (["no"], ["false"])
            ):
                kept = [line for line in kept if not line.lower().startswith("types:")]
                stanzas.append("\n".join(["Types: deb-src", *kept]))
    return {
        "distribution.list": "".join(f"{line}\n" for line in dict.fromkeys(lines)),
        "distribution.sources": "".join(f"{stanza}\n\n" for stanza in dict.fromkeys(stanzas)),
    }

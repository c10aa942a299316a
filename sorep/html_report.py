"""One self-contained HTML file and its pictures beside it: what the reports of all parts have in common."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sorep.errors import SorepError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Cell:
    """Of a table; the best of its column is set bold."""

    text: str
    best: bool = False


def png(figure: Figure, dpi: int = 130) -> bytes:
    """A figure as the content of a file."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def embedded(picture: bytes) -> str:
    """A picture as text, for the address of an image in HTML."""
    return base64.b64encode(picture).decode()


def rendered(package: str, **context: Any) -> str:
    """The template ``report.html`` of a package, filled in; what it is given is escaped."""
    from jinja2 import Environment

    template = files(package).joinpath("report.html").read_text()
    return Environment(autoescape=True).from_string(template).render(**context)


def report_files(out: Path, text: str, pictures: Mapping[str, bytes]) -> dict[Path, bytes]:
    """Contents by path: the HTML file, and pictures named like it with an ending, as in ``out-tree.png``."""
    return {out: text.encode()} | {out.with_name(f"{out.stem}-{name}.png"): png for name, png in pictures.items()}


def write_files(contents: Mapping[Path, bytes], error: type[SorepError]) -> None:
    """Write files.

    Raises
    ------
    error
        ``unwritable-file``, naming the first of the files.
    """
    try:
        for path, content in contents.items():
            path.write_bytes(content)
    except OSError as reason:
        raise error(
            f"cannot write {next(iter(contents))}: {reason}",
            code="unwritable-file",
            remedy="check folder, permissions and space",
        ) from None

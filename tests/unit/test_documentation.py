"""Commands in the documentation exist, with the options that it gives them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from sorep.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "qe_patches" / "README.md"]


def commands(text: str) -> list[list[str]]:
    """Words of all lines in blocks that run sorep, and of commands in the text."""
    blocks = re.findall(r"^```.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("sorep ")]
    lines += re.findall(r"`(sorep [^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_options_exist(page: Path) -> None:
    found = commands(page.read_text())
    assert found or page.parent != ROOT
    for words in found:
        command, rest = typer.main.get_command(app), words[1:]
        while rest and hasattr(command, "commands"):
            assert rest[0] in command.commands, words
            command, rest = command.commands[rest[0]], rest[1:]
        options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        for word in rest:
            if word.startswith("-"):
                assert word.split("=")[0] in options, (words, word)

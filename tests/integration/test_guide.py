"""The guide does what it says: its commands and its Python are run in order, in one folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_block_of_the_guide_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"```(sh|python)\n(.*?)```", (ROOT / "docs/guide.md").read_text(), re.DOTALL)
    assert {language for language, _ in blocks} == {"sh", "python"}
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    program = ["import subprocess"]
    for language, text in blocks:
        # Shell blocks run between the Python blocks, whose variables live on.
        program.append(text if language == "python" else f"subprocess.run({text!r}, shell=True, check=True)")
    script = tmp_path / "guide.py"
    script.write_text("\n".join(["if True:", *("    " + line for block in program for line in block.splitlines())]))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [sys.executable, script.name], cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "mixed-identity" in done.stdout

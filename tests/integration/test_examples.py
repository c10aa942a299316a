"""The scripts in examples/, run as a user runs them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def figure_1(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    image = tmp_path_factory.mktemp("figure") / "figure_1.png"
    command = [sys.executable, EXAMPLES / "figure_1.py", "--quick", "--out", image]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert completed.returncode == 0, completed.stderr
    return completed.stdout, image


def test_semiconducting_tube_has_a_gap_near_18_hartree(figure_1: tuple[str, Path]) -> None:
    found = re.search(r"^\(8,0\) .* gap of ([\d.]+) Ha, from ([\d.]+) to ([\d.]+) Ha", figure_1[0], re.MULTILINE)
    assert found
    gap, lower, upper = map(float, found.groups())
    assert gap == pytest.approx(0.09, abs=0.005)
    assert upper - lower == pytest.approx(gap, abs=0.002)
    assert 17.5 < lower < upper < 18.4


def test_metallic_tube_has_none(figure_1: tuple[str, Path]) -> None:
    assert re.search(r"^\(9,0\) .* no gap", figure_1[0], re.MULTILINE)


def test_image_is_written(figure_1: tuple[str, Path]) -> None:
    from matplotlib.image import imread

    pixels = imread(figure_1[1])
    assert min(pixels.shape[:2]) > 1000
    assert pixels.std() > 0

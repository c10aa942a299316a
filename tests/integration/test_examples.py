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


@pytest.fixture(scope="module")
def batio3(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    image = tmp_path_factory.mktemp("batio3") / "batio3.png"
    command = [sys.executable, EXAMPLES / "batio3.py", "--out", image]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert completed.returncode == 0, completed.stderr
    return completed.stdout, image


def test_phases_are_groups_over_a_range_of_epsilon(batio3: tuple[str, Path]) -> None:
    found = re.search(r"epsilon from (\S+) to (\S+) gives the kinds as groups", batio3[0])
    assert found
    within, between = map(float, found.groups())
    assert 1.5 * within < between


def test_phases_merge_in_the_order_of_their_transitions(batio3: tuple[str, Path]) -> None:
    merges = re.findall(r"^epsilon (\S+): (.*) joins (.*)$", batio3[0], re.MULTILINE)
    assert [{*first.split(" + "), *second.split(" + ")} for _, first, second in merges] == [
        {"orthorhombic", "rhombohedral"},
        {"tetragonal", "orthorhombic", "rhombohedral"},
        {"cubic", "tetragonal", "orthorhombic", "rhombohedral"},
        {"cubic", "tetragonal", "orthorhombic", "rhombohedral", "interchanged"},
    ]
    epsilons = [float(epsilon) for epsilon, _, _ in merges]
    assert epsilons == sorted(epsilons)
    assert epsilons[-1] > 10 * epsilons[-2]


def test_senseless_merges_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from batio3 import INTERCHANGED, complaint

    near = (1e-3, ["orthorhombic"], ["rhombohedral"])
    three = (2e-3, ["tetragonal"], ["orthorhombic", "rhombohedral"])
    four = (1e-2, ["cubic"], ["tetragonal", "orthorhombic", "rhombohedral"])
    last = (3e-1, ["cubic", "tetragonal", "orthorhombic", "rhombohedral"], [INTERCHANGED])
    assert complaint(5e-4, [near, three, four, last]) == ""
    assert "not separated" in complaint(5e-3, [near, three, four, last])
    assert "left out" in complaint(5e-4, [(1e-3, ["tetragonal"], ["rhombohedral"]), three, four, last])
    cubic_first = (2e-3, ["cubic"], ["tetragonal"])
    assert "cubic" in complaint(5e-4, [near, cubic_first, four, last])


def test_batio3_image_is_written(batio3: tuple[str, Path]) -> None:
    from matplotlib.image import imread

    pixels = imread(batio3[1])
    assert min(pixels.shape[:2]) > 500
    assert pixels.std() > 0

"""H and S as the patched pw.x writes them. The numbers themselves are checked in tests/integration/test_pw_patch.py."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sorep.errors import OutputError
from sorep.single_shot.matrices import read_matrices
from sorep.units import HARTREE_IN_EV


def write(path: Path, kpoint: list[float], spin: int, h: NDArray, s: NDArray) -> None:
    """The documented format: 8 characters, n, spin, k point, then H in Rydberg and S by columns."""
    content = b"sorepHS1" + struct.pack("=qq3d", len(h), spin, *kpoint)
    for matrix in (h, s):
        for column in range(len(matrix)):
            for x in matrix[:, column]:
                content += struct.pack("=dd", x.real, x.imag)
    path.write_bytes(content)


def matrices(n: int, seed: int) -> tuple[NDArray, NDArray]:
    rng = np.random.default_rng(seed)
    h = rng.normal(size=(n, n)) + 1j * rng.normal(size=(n, n))
    return h + h.conj().T, np.eye(n) + 0.01 * (h @ h.conj().T)


def test_files_come_back_in_order(tmp_path: Path) -> None:
    given = {1: ([0.0, 0.0, 0.0], 1), 2: ([0.25, -0.5, 0.125], 1), 10: ([0.0, 0.0, 0.0], 2)}
    for number in (10, 2, 1):
        kpoint, spin = given[number]
        write(tmp_path / f"hs{number:05d}.dat", kpoint, spin, *matrices(3, number))
    (tmp_path / "charge-density.dat").write_bytes(b"other things lie there too")
    for found, (number, (kpoint, spin)) in zip(read_matrices(tmp_path), given.items(), strict=True):
        h, s = matrices(3, number)
        assert found.kpoint.tolist() == kpoint
        assert found.spin == spin - 1
        assert np.allclose(found.hamiltonian, h * HARTREE_IN_EV / 2, rtol=1e-15, atol=0)
        assert np.array_equal(found.overlap, s)


def test_one_function(tmp_path: Path) -> None:
    write(tmp_path / "hs00001.dat", [0, 0, 0], 1, np.array([[-2.0 + 0j]]), np.array([[1.0 + 0j]]))
    assert read_matrices(tmp_path)[0].hamiltonian == pytest.approx(-HARTREE_IN_EV)


@pytest.mark.parametrize("folder", ["", "nowhere"])
def test_no_files(tmp_path: Path, folder: str) -> None:
    with pytest.raises(OutputError) as caught:
        read_matrices(tmp_path / folder)
    assert caught.value.code == "no-matrices"
    assert "disk_io" in caught.value.remedy


@pytest.mark.parametrize("kept", [0, 5, 8, 12, 24, 40, 48, 200, -8, -1])
def test_truncated_files(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "hs00001.dat"
    write(path, [0, 0, 0], 1, *matrices(4, 0))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(OutputError) as caught:
        read_matrices(tmp_path)
    assert caught.value.code == "truncated-matrices"
    assert "hs00001.dat" in str(caught.value)


def test_files_of_another_program(tmp_path: Path) -> None:
    write(tmp_path / "hs00001.dat", [0, 0, 0], 1, *matrices(4, 0))
    content = (tmp_path / "hs00001.dat").read_bytes()
    (tmp_path / "hs00001.dat").write_bytes(b"notaHS01" + content[8:])
    with pytest.raises(OutputError, match="damaged"):
        read_matrices(tmp_path)

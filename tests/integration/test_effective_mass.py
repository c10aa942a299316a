"""Effective masses from what pw.x really writes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from sorep.band_path import band_path
from sorep.cells import canonical_cell
from sorep.screening.effective_mass import from_qe_xml
from sorep.structure import Structure


@pytest.mark.pwx
def test_silicon_by_pw_x(stock_pw_x, get_family, tmp_path: Path) -> None:
    """Few plane waves, but the shape of silicon's bands: a valley 0.85 of the way from GAMMA to X."""
    family = get_family("sssp-1.3-pbe-efficiency")
    pseudo = family.folder / family.pseudos["Si"].filename
    cell = canonical_cell(Structure.from_ase(bulk("Si", "diamond", a=5.43), id="silicon"))
    path = band_path(cell, 0.07)
    kept = np.arange(path.segments[0].stop)  # GAMMA-X
    rows = {
        "CELL_PARAMETERS angstrom": cell.structure.lattice,
        "ATOMIC_POSITIONS crystal": cell.structure.positions,
    }
    cards = ["ATOMIC_SPECIES", f"Si 28.0 {pseudo.name}"]
    for title, values in rows.items():
        label = "Si " if "POSITIONS" in title else ""
        cards += [title, *(label + " ".join(f"{x:.10f}" for x in row) for row in values)]
    points = [" ".join(f"{x:.10f}" for x in k) + " 1" for k in path.kpoints[kept]]
    kpoints = {"scf": ["K_POINTS automatic", "3 3 3 0 0 0"], "bands": ["K_POINTS crystal", str(len(kept)), *points]}
    for calculation, mesh in kpoints.items():
        namelists = f"""&control calculation='{calculation}' outdir='out' prefix='si' pseudo_dir='{pseudo.parent}' /
            &system ibrav=0 nat=2 ntyp=1 ecutwfc=14 nbnd=8 /
            &electrons conv_thr=1e-9 /"""
        (tmp_path / "in").write_text("\n".join([namelists, *cards, *mesh, ""]))
        subprocess.run([stock_pw_x.path, "-in", "in"], cwd=tmp_path, check=True, capture_output=True, timeout=120)
    found = from_qe_xml(tmp_path / "out" / "si.save" / "data-file-schema.xml")
    assert found.electron_line == found.hole_line
    assert found.electron_line.startswith("(0 0 0)-(")
    assert 0.7 < found.electron < 1.3
    assert 0.15 < found.hole < 0.4
    assert 0.3 < found.band_gap < 0.9

"""Eigenvalues and CPU time of the patched pw.x against a stock one of the same version, both without SCF iterations.

Norm-conserving (PseudoDojo), and ultrasoft and PAW (SSSP) where that family is installed; metals and insulators, one
and two spins. The stock pw.x is built (once) by tests/stock_pw_x.py unless one is named.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from _common import example

from sorep.errors import PseudoError
from sorep.single_shot.executable import PwX, find_pw_x, probe
from sorep.single_shot.method import SingleShot, SingleShotSettings
from sorep.single_shot.runner import PwRunner
from sorep.units import HARTREE_IN_EV

STOCK = Path(__file__).parents[1] / "tests" / "stock_pw_x.py"
SSSP = "sssp-1.3-pbe-efficiency"
CRYSTALS = ("si", "mgo", "al", "cu", "fe", "batio3_cubic", "zno", "k2sn2o3")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stock", help="a stock pw.x")
    parser.add_argument("--pw-x", help="the patched one; default: as sorep single-shot finds it")
    parser.add_argument("--k-spacing", type=float, default=0.3, help="1/Angstrom [%(default)s]")
    options = parser.parse_args()
    stock = options.stock or subprocess.check_output([sys.executable, STOCK], text=True).strip()
    both = probe(stock), probe(find_pw_x(options.pw_x))
    if [pw_x.is_patched for pw_x in both] != [False, True]:
        raise SystemExit("give a stock and a patched pw.x")
    print(f"{'crystal':<14} {'kinds':<10} {'spins':>5} {'largest difference':>18} {'CPU, stock / patched':>20}")
    for family in (SingleShotSettings().family, SSSP):
        for name in CRYSTALS:
            try:
                print(compared(both, name, family, options.k_spacing), flush=True)
            except PseudoError as error:
                print(f"{name:<14} {error.message}")


def compared(both: tuple[PwX, PwX], name: str, family: str, k_spacing: float) -> str:
    """A line of the table."""
    settings = SingleShotSettings(family=family, k_spacing=k_spacing, spin=name == "fe", interpolate=False)
    energies, seconds, kinds, n_spin = [], [], set(), 1
    with tempfile.TemporaryDirectory() as folder:
        for pw_x in both:
            method = SingleShot(settings, PwRunner(pw_x, Path(folder)))
            kinds = {pseudo.kind for pseudo in method.plan(example(name)).pseudos.values()}
            start = os.times()
            spectrum = method.calculate(example(name)).spectrum
            end = os.times()
            seconds.append(sum(end[2:4]) - sum(start[2:4]))
            energies.append(spectrum.energies)
            n_spin = spectrum.n_spin
    difference = np.abs(energies[0] - energies[1]).max() / HARTREE_IN_EV
    row = f"{name:<14} {'+'.join(sorted(kinds)):<10} {n_spin:>5} {difference:>15.1e} Ha"
    return f"{row} {seconds[0] / seconds[1]:>20.1f}"


if __name__ == "__main__":
    main()

"""Figure 1 of the SOREP paper: kinetic-energy densities of states of three crystals and of carbon nanotubes.

Panel a: silicon, germanium and K2Sn2O3 over the whole spectral range. Panel b: silicon and germanium at low energies.
Panel c: nanotubes up to 20 Ha. Panel d: the carbon 1s band near 18 Ha, with the p_z tight-binding density of states.
Mesh spacings, smearing widths, grids and nanotubes (bond length, vacuum) are those of the paper's Methods; its tubes
(0,8) and (3,9) are (8,0) and (9,3) here.

The paper's text names the basis set ANO-ML-OS; its figure is reproduced by ANO-ML-AE, which keeps the core functions,
and that is the one used here. With ANO-ML-OS the spectra end at 12 Ha (K2Sn2O3) and 8 Ha (nanotubes).

Why a kinetic energy can tell metal from semiconductor: the highest band of each atom is its 1s function, near Z^2 / 2 =
18 Ha for carbon. One such function an atom on the honeycomb lattice is the tight-binding model of the p_z electrons
up to sign and scale, so the middle of that band has a gap where the tube's p_z band has one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from ase.build import nanotube
from matplotlib.axes import Axes
from numpy.typing import NDArray

from sorep.dos import density_of_states
from sorep.errors import Failure
from sorep.features import FeatureSpec, Normalization, Window, compute_feature
from sorep.kinetic.method import KineticSettings
from sorep.smearing import GAUSSIAN
from sorep.sources import structures_from
from sorep.spectrum import Spectrum
from sorep.structure import Structure
from sorep.units import HARTREE_IN_EV

STRUCTURES = Path(__file__).parent / "structures"
BASIS = "ano-ml-ae"

CRYSTALS = {"K$_2$Sn$_2$O$_3$": "k2sn2o3.cif", "Ge": "ge.cif", "Si": "si.cif"}
CRYSTAL_K_SPACING = 0.1  # 1/Angstrom
CRYSTAL_WIDTH = 0.05  # Hartree, as all energies below
CRYSTAL_GRID = 0.01

TUBES = ((9, 3), (5, 5), (9, 0), (8, 0), (10, 0))
QUICK_TUBES = ((9, 0), (8, 0))
TUBE_K_SPACING = 0.05
TUBE_WIDTH = 0.015
TUBE_GRID = 0.001
BOND_LENGTH = 1.42  # Angstrom
VACUUM = 30.0

# Bands that cross between two k points, with a slope of 0.5 Ha Angstrom, leave up to 0.03 Ha empty at 0.05 1/Angstrom.
# In the tubes of the quick run they cross at Gamma, which is a point of every mesh.
RESOLVED_GAP = 0.03
# With these the tight-binding peaks of (8,0) next to its gap, a hopping from the centre, lie where the kinetic ones do.
P_Z_CENTER = 17.95
P_Z_HOPPING = 0.21

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Figure 1 of the SOREP paper.")
    parser.add_argument("--out", type=Path, default=Path("figure_1.png"), help="image to write [%(default)s]")
    parser.add_argument("--quick", action="store_true", help="two tubes, and half as many k points in each direction")
    options = parser.parse_args()
    coarser = 2.0 if options.quick else 1.0

    print(f"Basis set {BASIS} (the paper's text says ANO-ML-OS; its Figure 1 is what {BASIS.upper()} gives)")
    crystals = {name: crystal_spectrum(file, coarser * CRYSTAL_K_SPACING) for name, file in CRYSTALS.items()}
    chiralities = QUICK_TUBES if options.quick else TUBES
    tubes = {chirality: tube_spectrum(*chirality, coarser * TUBE_K_SPACING) for chirality in chiralities}
    for (n, m), spectrum in tubes.items():
        gap = find_gap(spectrum)
        found = "no gap" if gap is None else f"a gap of {gap[1] - gap[0]:.3f} Ha, from {gap[0]:.3f} to {gap[1]:.3f} Ha"
        print(f"({n},{m}) nanotube: {found} near 18 Ha")
    draw(crystals, tubes, options.out)
    print(f"Wrote {options.out}")


def crystal_spectrum(file: str, k_spacing: float) -> Spectrum:
    """Spectrum of one of the example crystals."""
    (structure,) = structures_from(STRUCTURES / file)
    if isinstance(structure, Failure):
        raise SystemExit(structure.message)
    return KineticSettings(basis=BASIS, k_spacing=k_spacing).calculate(structure).spectrum


def tube_spectrum(n: int, m: int, k_spacing: float) -> Spectrum:
    """Spectrum of the (n, m) nanotube, in a cell with vacuum around it."""
    atoms = nanotube(n, m, bond=BOND_LENGTH, vacuum=VACUUM)
    atoms.pbc = True
    return KineticSettings(basis=BASIS, k_spacing=k_spacing).calculate(Structure.from_ase(atoms)).spectrum


def find_gap(spectrum: Spectrum) -> tuple[float, float] | None:
    """Ends (Ha) of the gap between the halves of the carbon 1s band, which has one function an atom."""
    half = spectrum.n_atoms // 2
    bands = spectrum.eigenvalues[0] / HARTREE_IN_EV
    lower, upper = bands[:, -half - 1].max(), bands[:, -half].min()
    return (lower, upper) if upper - lower > RESOLVED_GAP else None


def kinetic_dos(spectrum: Spectrum, start: float, stop: float, grid: float, width: float, per: Normalization) -> Curve:
    """Energies (Ha) and density of states (per Ha and per cubic Angstrom or atom) of a kinetic spectrum."""
    window = Window(
        start=start * HARTREE_IN_EV, stop=stop * HARTREE_IN_EV, points=1 + int(np.ceil((stop - start) / grid))
    )
    spec = FeatureSpec(name="figure-1", windows=(window,), width=width * HARTREE_IN_EV, normalization=per)
    return spec.energies / HARTREE_IN_EV, compute_feature(spectrum, spec) * HARTREE_IN_EV


def p_z_dos(n: int, m: int) -> Curve:
    """Tight-binding density of states of the (n, m) nanotube's p_z electrons, per Ha and atom, shifted and scaled.

    Zone folding: of graphene's states, with phases a and b along its two lattice vectors, the tube keeps those that
    come back to themselves around it, n a + m b = 2 pi j. Their energies are +- t |1 + exp(ia) + exp(ib)|.
    """
    b = 2 * np.pi * (np.arange(4000) + 0.5) / 4000
    a = (2 * np.pi * np.arange(n)[:, None] - m * b) / n
    upper = P_Z_HOPPING * np.abs(1 + np.exp(1j * a) + np.exp(1j * b)).ravel()
    bands = P_Z_CENTER + np.concatenate([-upper, upper])
    energies = np.arange(bands.min() - 5 * TUBE_WIDTH, bands.max() + 5 * TUBE_WIDTH, TUBE_GRID)
    weights = np.full(len(bands), 1 / len(bands))
    return energies, density_of_states(energies, bands, weights, GAUSSIAN, TUBE_WIDTH)


def draw(crystals: dict[str, Spectrum], tubes: dict[tuple[int, int], Spectrum], path: Path) -> None:
    """The four panels."""
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "lines.linewidth": 1.0})
    figure, panels = plt.subplots(2, 2, figsize=(9, 7), layout="constrained")
    for axes, letter in zip(panels.flat, "abcd", strict=True):
        axes.set_title(letter, loc="left", fontweight="bold")
        axes.set_xlabel("Kinetic energy (Ha)")
    draw_crystals(panels[0, 0], panels[0, 1], crystals)
    draw_tubes(panels[1, 0], panels[1, 1], tubes)
    figure.savefig(path, dpi=200)


def draw_crystals(whole: Axes, low: Axes, crystals: dict[str, Spectrum]) -> None:
    """Panels a and b."""
    for index, (name, spectrum) in enumerate(crystals.items()):
        top = spectrum.energies.max() / HARTREE_IN_EV
        curve = kinetic_dos(spectrum, -5 * CRYSTAL_WIDTH, top, CRYSTAL_GRID, CRYSTAL_WIDTH, "volume")
        whole.plot(*curve, color=f"C{index}", label=f"{name}, up to {top:.0f} Ha")
        if name in ("Si", "Ge"):
            low.plot(*curve, color=f"C{index}", label=name)
    whole.set(yscale="log", ylim=(1e-4, 10), xlim=(-20, None))
    low.set(xlim=(-0.5, 20), ylim=(0, None))
    for axes in (whole, low):
        axes.set_ylabel("States per Ha and Å$^3$")
        axes.legend(frameon=False)


def draw_tubes(whole: Axes, near_18: Axes, tubes: dict[tuple[int, int], Spectrum]) -> None:
    """Panels c and d, one tube above the other."""
    shift = 2.5
    for level, ((n, m), spectrum) in enumerate(tubes.items()):
        color = "C0" if find_gap(spectrum) is None else "C3"
        energies, density = kinetic_dos(spectrum, 0, 20, TUBE_GRID, TUBE_WIDTH, "atom")
        p_z_energies, p_z_density = p_z_dos(n, m)
        for axes, x in ((whole, 9), (near_18, 16.85)):
            axes.plot(p_z_energies, shift * level + p_z_density, "--", color="0.5", lw=0.9)
            axes.plot(energies, shift * level + density, color=color)
            axes.annotate(f"({n},{m})", (x, shift * level), (2, 4), textcoords="offset points", color=color)
    whole.set(xlim=(0, 20))
    near_18.set(xlim=(16.85, 18.8))
    for axes in (whole, near_18):
        axes.set(ylabel=f"States per Ha and atom, shifted by {shift:g}", ylim=(0, shift * (len(tubes) + 0.9)))
    near_18.plot([], [], color="C3", label="gap")
    near_18.plot([], [], color="C0", label="no gap")
    near_18.plot([], [], "--", color="0.5", label="p$_z$ tight binding")
    near_18.legend(frameon=False, loc="upper center", ncols=3, columnspacing=1.2, handlelength=1.6)


if __name__ == "__main__":
    main()

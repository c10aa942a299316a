"""Conversion constants, from one CODATA set (`scipy.constants`) everywhere in the package.

Inside the package energies are eV and lengths Angstrom. Hartree and Bohr appear only at the boundary to
PySCF (and to pw.x), converted with these numbers.
"""

from scipy.constants import physical_constants

HARTREE_IN_EV: float = physical_constants["Hartree energy in eV"][0]
BOHR_IN_ANGSTROM: float = physical_constants["Bohr radius"][0] * 1e10

"""Kinetic SOREP: contracted Gaussians on the atoms, kinetic energy and overlap between their Bloch sums."""

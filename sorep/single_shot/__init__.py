"""Single-shot SOREPs: the Kohn-Sham Hamiltonian of superposed atomic densities in pseudo-atomic orbitals."""

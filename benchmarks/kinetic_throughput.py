"""Kinetic features per second of one core, from files to features, against the straightforward route.

Every structure of the given files, folders or tables is read and featurized three times on one thread:

- sorep with an empty cache, so that tables of integrals are computed as elements turn up ("cold");
- sorep again, tables in the cache ("warm");
- the straightforward route, as the published recipe does it: the cell as given, spglib's irreducible k points of a
  rounded mesh, stock PySCF's `pbc_intor`, `scipy.linalg.eigh`, and the density of states by `sorep.dos`.

First line: the published basis, with diffuse primitives discarded by both. Second line: every primitive kept by both,
which is sorep's default; the straightforward route then takes seconds for many structures, so it is run on a part of
them (`--part`), and its mean is compared with that of sorep over the same part. sorep computes in the canonical cell,
as is its default. CPU milliseconds per structure.

    python benchmarks/kinetic_throughput.py my_structures.parquet
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable

import numpy as np
import spglib
from _common import STRUCTURES, use_one_thread
from kinetic_vs_straightforward import FEATURE, straightforward

from sorep.errors import Failure, SorepError
from sorep.features import compute_feature
from sorep.kinetic.basis import BasisSet
from sorep.kinetic.method import KineticSettings
from sorep.kinetic.pair_tables import pair_table
from sorep.meshes import mesh_divisions
from sorep.sources import structures_from
from sorep.spectrum import Spectrum
from sorep.structure import Structure
from sorep.units import HARTREE_IN_EV

SPACING = 0.2  # 1/Angstrom
PRECISIONS = {"published": 1e-8, "full": 1e-11}  # of PySCF; the second for agreement to 1e-9 Ha


def by_pyscf(structure: Structure, basis: BasisSet, precision: float) -> None:
    divisions = mesh_divisions(structure.lattice, SPACING, "round")
    cell: tuple = (structure.lattice, structure.positions, structure.numbers)
    mapping, addresses = spglib.get_ir_reciprocal_mesh(divisions, cell)
    irreducible, counts = np.unique(mapping, return_counts=True)
    kpoints = addresses[irreducible] / divisions
    energies = straightforward(structure, basis, kpoints, precision) * HARTREE_IN_EV
    spectrum = Spectrum.from_eigenvalues(
        list(energies),
        kpoints=kpoints,
        weights=counts / counts.sum(),
        volume=structure.volume,
        n_atoms=structure.n_atoms,
    )
    compute_feature(spectrum, FEATURE)


def by_sorep(structure: Structure, settings: KineticSettings) -> None:
    compute_feature(settings.calculate(structure).spectrum, FEATURE)


def milliseconds(featurize: Callable[[Structure], None], paths: list[str], step: int) -> tuple[float, int]:
    """Mean CPU time of every ``step``-th structure, its reading included, and how many these were."""
    seconds, n = 0.0, 0
    start = time.process_time()
    for index, structure in enumerate(structures_from(*paths)):
        if index % step == 0 and not isinstance(structure, Failure):
            try:
                featurize(structure)
            except SorepError as error:
                print(f"{structure.id}: {error}")
            seconds += time.process_time() - start
            n += 1
        start = time.process_time()
    if n == 0:
        raise SystemExit("no structure was found")
    return 1e3 * seconds / n, n


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", default=[str(STRUCTURES)], help="input, as of sorep featurize")
    parser.add_argument("--every", type=int, default=1, help="take every Nth structure only [%(default)s]")
    parser.add_argument(
        "--part",
        type=int,
        default=20,
        help="every Nth of these by the straightforward route, all primitives [%(default)s]",
    )
    options = parser.parse_args()
    use_one_thread()

    print(f"{'basis':10} {'structures':>10} {'cold':>9} {'warm':>9} {'plain (of)':>18} {'ratio':>7} {'with cold':>10}")
    for name, settings, step in (
        ("published", KineticSettings(basis="ano-ml-os-published", discard_below=0.1), 1),
        ("full", KineticSettings(), options.part),
    ):
        basis = settings.load_basis()
        with tempfile.TemporaryDirectory() as cache:
            os.environ["SOREP_CACHE"] = cache
            pair_table.cache_clear()
            part = options.every * step

            def own(structure: Structure, settings: KineticSettings = settings) -> None:
                by_sorep(structure, settings)

            def theirs(structure: Structure, basis: BasisSet = basis, precision: float = PRECISIONS[name]) -> None:
                by_pyscf(structure, basis, precision)

            cold, n = milliseconds(own, options.paths, options.every)
            warm, _ = milliseconds(own, options.paths, options.every)
            same, _ = milliseconds(own, options.paths, part)
        plain, n_plain = milliseconds(theirs, options.paths, part)
        ratios = f"{plain / same:6.1f}x {plain / (same + cold - warm):9.1f}x"
        of_part = f"{plain:.1f} ({n_plain})"
        print(f"{name:10} {n:10} {cold:9.1f} {warm:9.1f} {of_part:>18} {ratios}", flush=True)


if __name__ == "__main__":
    main()

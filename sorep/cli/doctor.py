"""`sorep doctor`."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version

import typer

_REQUIRED = (
    "numpy",
    "scipy",
    "pyscf",
    "moyopy",
    "spglib",
    "seekpath",
    "ase",
    "pymatgen",
    "basis_set_exchange",
    "deltalake",
    "pyarrow",
    "pandas",
    "pebble",
    "pydantic",
    "scikit-learn",
    "matplotlib",
    "upf-tools",
)
_EXTRAS = {
    "h5py": ("hdf5", "HDF5 export"),
    "dscribe": ("soap", "SOAP baseline"),
    "parsl": ("parsl", "running on clusters"),
    "torch": ("mat2spec", "Mat2Spec models"),
    "safetensors": ("mat2spec", "Mat2Spec models"),
    "e3nn": ("e3nn", "E3NN baseline"),
}


def doctor() -> None:
    """Report what is installed, which routes are active, what is missing and how to get it.

    Exit status: 0 where everything required works, 1 otherwise.
    """
    from sorep import __version__

    problems: list[str] = []
    typer.echo(f"sorep {__version__}, Python {platform.python_version()}, {platform.platform()}")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    typer.echo(f"machine: {os.cpu_count()} cores, {memory:.1f} GiB of memory")

    typer.echo("\nrequired packages")
    for package in _REQUIRED:
        try:
            typer.echo(f"  {package:<20} {version(package)}")
        except PackageNotFoundError:
            problems.append(f"{package} is missing: pip install {package}")
            typer.echo(f"  {package:<20} MISSING")

    typer.echo("\nroutes")
    _report_kernels()
    _report_kinetic(problems)
    _report_single_shot()

    typer.echo("\noptional")
    for package, (extra, purpose) in _EXTRAS.items():
        try:
            typer.echo(f"  {package:<20} {version(package)} ({purpose})")
        except PackageNotFoundError:
            typer.echo(f"  {package:<20} not installed ({purpose}): pip install 'sorep[{extra}]'")

    for problem in problems:
        typer.echo(f"\nproblem: {problem}", err=True)
    if problems:
        raise typer.Exit(1)
    typer.echo("\neverything required is in place")


def _report_kernels() -> None:
    from sorep._fortran import ACTIVE, KERNELS

    for purpose, kernel in KERNELS.items():
        typer.echo(f"  {purpose:<20} {kernel.route}")
    if not ACTIVE and not shutil.which("gfortran"):
        typer.echo("                       on Debian or Ubuntu: apt-get install gfortran python3-dev")


def _report_kinetic(problems: list[str]) -> None:
    """Compute something small for real: the route that is reported is the route that works."""
    from ase.build import bulk

    from sorep.kinetic.basis import OWN_BASIS_NAMES, load_basis
    from sorep.transformers import kinetic_feature

    try:
        for name in OWN_BASIS_NAMES:
            basis = load_basis(name)
            typer.echo(f"  basis {name:<20} {len(basis.shells)} elements, checksum {basis.checksum}")
        states = kinetic_feature(bulk("Si"), k_spacing=0.5).sum()
        typer.echo(f"  kinetic operator     works (libcint through PySCF; silicon: {states:.6f})")
    except Exception as error:
        problems.append(f"the kinetic operator does not work: {error}")
        typer.echo("  kinetic operator     DOES NOT WORK")


def _report_single_shot() -> None:
    """pw.x and pseudopotentials: needed for single-shot calculations only, so their absence is no problem."""
    from sorep.errors import SorepError
    from sorep.single_shot.executable import find_pw_x, probe
    from sorep.single_shot.pseudo_family import FAMILIES
    from sorep.single_shot.pseudos import DEFAULT_FAMILY, load_family

    try:
        pw_x = probe(find_pw_x())
        kind = "patched" if pw_x.is_patched else "stock: works, slower; `sorep pw build` makes a patched one"
        typer.echo(f"  single-shot operator pw.x {pw_x.version}, {kind} ({pw_x.path})")
    except SorepError as error:
        typer.echo(f"  single-shot operator not available: {error.message}. Remedy: {error.remedy}")
    for name in FAMILIES:
        try:
            family = load_family(name)
            family.verify()
            typer.echo(f"  family {name:<34} {len(family.pseudos)} elements, files intact")
        except SorepError as error:
            needed = " (the default of single-shot)" if name == DEFAULT_FAMILY else ""
            reason = "not installed" if error.code == "family-not-installed" else error.message
            typer.echo(f"  family {name:<34} {reason}{needed}: sorep pseudos install {name}")

"""Build step, not installed: from Fortran to the C source of extension modules that release the GIL.

f90wrap turns the module procedures into plain subroutines, f2py turns those into C. f90wrap does not pass
on f2py's ``threadsafe`` directive, so it is added in between. The second step is NumPy's own f2py, since
f90wrap's variant guards every call with one jump buffer for the whole process, which threads would share.

Usage: ``wrap.py SOURCE.f90 BUILD_DIRECTORY NAME...``; writes ``f90wrap_SOURCE.f90`` and, for each extension module
to be made of it, ``NAMEmodule.c`` there.
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

source, directory = (Path(argument).resolve() for argument in sys.argv[1:3])
names = sys.argv[3:]


def run(module: str, *arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", module, *arguments], cwd=scratch, check=True)


# Both generators write where they stand, more than is needed, and kernels are built at the same time.
with TemporaryDirectory(dir=directory) as folder:
    scratch = Path(folder)
    run("f90wrap", "-m", source.stem, source)
    interface = scratch / f"f90wrap_{source.stem}.f90"
    plain = interface.read_text()
    threadsafe = plain.replace("    implicit none\n", "    implicit none\n    !f2py threadsafe\n")
    if threadsafe == plain:
        sys.exit(f"{interface}: no place found for the threadsafe directive")
    interface.write_text(threadsafe)
    for name in names:
        run("numpy.f2py", "--lower", "-m", name, interface)
    for made in (interface.name, *(f"{name}module.c" for name in names)):
        (scratch / made).replace(directory / made)

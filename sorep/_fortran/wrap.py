"""Build step, not installed: from Fortran to the C source of an extension module that releases the GIL.

f90wrap turns the module procedures into plain subroutines, f2py turns those into C. f90wrap does not pass
on f2py's ``threadsafe`` directive, so it is added in between. The second step is NumPy's own f2py, since
f90wrap's variant guards every call with one jump buffer for the whole process, which threads would share.

Usage: ``wrap.py moments.f90 BUILD_DIRECTORY``; writes ``f90wrap_moments.f90`` and ``_momentsmodule.c`` there.
"""

import os
import subprocess
import sys
from pathlib import Path

source, directory = (Path(argument).resolve() for argument in sys.argv[1:])
os.chdir(directory)  # both generators write where they stand
python = [sys.executable, "-m"]
subprocess.run([*python, "f90wrap", "-m", source.stem, source], check=True)

interface = Path(f"f90wrap_{source.stem}.f90")
plain = interface.read_text()
threadsafe = plain.replace("    implicit none\n", "    implicit none\n    !f2py threadsafe\n")
if threadsafe == plain:
    sys.exit(f"{interface}: no place found for the threadsafe directive")
interface.write_text(threadsafe)

subprocess.run([*python, "numpy.f2py", "--lower", "-m", f"_{source.stem}", interface], check=True)

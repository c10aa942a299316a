"""Find the extension module of a kernel, for the instructions that this processor has."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType


@dataclass(frozen=True)
class Kernel:
    """What a kernel runs as.

    Attributes
    ----------
    module : module or None
        The extension module; None where the twin in NumPy stands in.
    why_inactive : str
        Why there is no module; empty where there is one.
    instructions : str
        Vector instructions that the module was compiled for: "AVX2", or "baseline", which every processor of
        this kind has.
    """

    module: ModuleType | None
    why_inactive: str = ""
    instructions: str = "baseline"

    @property
    def active(self) -> bool:
        return self.module is not None

    @property
    def route(self) -> str:
        """In words, for reports."""
        if not self.active:
            return f"NumPy ({self.why_inactive})"
        return "Fortran kernel" if self.instructions == "baseline" else f"Fortran kernel, {self.instructions}"


def load(name: str) -> Kernel:
    """The kernel ``name``, in the fastest form that was built and that this processor runs."""
    if _has_avx2():
        try:
            return Kernel(import_module(f"sorep._fortran._{name}_avx2"), instructions="AVX2")
        except ImportError:
            pass  # not every kernel has this form
    try:
        return Kernel(import_module(f"sorep._fortran._{name}"))
    except ModuleNotFoundError:
        return Kernel(
            None,
            "the compiled kernel was not built: a C or Fortran compiler, the Python headers or f90wrap was "
            "missing when sorep was installed; install gfortran and the headers, then sorep again",
        )
    except ImportError as error:
        return Kernel(None, f"the compiled kernel cannot be loaded: {error}")


def _has_avx2() -> bool:
    try:
        return import_module("sorep._fortran._cpu").has_avx2()
    except ImportError:
        return False

"""Spectra predicted from a crystal graph, from a SOREP, or from both (Mat2Spec). Its modules need torch."""

from importlib.util import find_spec

from sorep.errors import SET_UP, Mat2SpecError

for _package in ("torch", "safetensors"):
    if find_spec(_package) is None:
        raise Mat2SpecError(
            f"{_package} is not installed",
            code="missing-package",
            stage=SET_UP,
            remedy="pip install 'sorep[mat2spec]'",
        )

"""What a UPF file, of version 1 or 2, says about itself; upf-tools does the parsing."""

from __future__ import annotations

import math
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

from sorep.errors import PseudoError
from sorep.single_shot.pseudo_family import Kind, Orbital

# Short names of functionals for what QE's `set_dft_from_name` takes as the same.
_FUNCTIONALS = {
    "PBE": ("PBE", "SLA PW PBX PBC", "SLA PW PBE PBE"),
    "PBEsol": ("PBESOL", "SLA PW PSX PSC"),
    "LDA": ("LDA", "PZ", "SLA PZ NOGX NOGC"),
}


@dataclass(frozen=True)
class UpfFacts:
    """What the header and the PP_CHI sections of a UPF file say."""

    element: str
    z_valence: float
    kind: Kind
    functional: str
    orbitals: tuple[Orbital, ...]


def read_upf(path: Path) -> UpfFacts:
    """Read header and orbitals of a UPF file of version 1 or 2.

    Raises
    ------
    PseudoError
        ``unreadable-pseudopotential`` or ``spin-orbit-pseudopotential``.
    """
    from upf_tools import UPFDict

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # version 1 has no version number
            upf = UPFDict.from_str(
                path.read_text(encoding="utf-8", errors="replace")
            )  # names of authors may be Latin-1
        header = upf["header"]
        orbitals = tuple(
            Orbital(str(chi["label"]).strip(), int(chi["l"]), float(chi["occupation"]))
            for chi in upf.get("pswfc", {}).get("chi", ())
        )
        facts = UpfFacts(
            header["element"].strip().capitalize(),
            float(header["z_valence"]),
            "PAW" if header.get("is_paw") or "paw" in upf else "US" if header["is_ultrasoft"] else "NC",
            _functional(header["functional"]),
            orbitals,
        )
        if int(header["number_of_wfc"]) != len(orbitals):
            raise ValueError(f"{header['number_of_wfc']} orbitals announced, {len(orbitals)} present")
        if not (math.isfinite(facts.z_valence) and facts.z_valence > 0):
            raise ValueError(f"valence of {facts.z_valence}")
    except Exception as error:  # upf-tools raises whatever its parsers meet
        raise PseudoError(
            f"cannot read {path}: {type(error).__name__}: {error}",
            code="unreadable-pseudopotential",
            remedy="fetch the file again, or take it out of the folder",
        ) from error
    if header.get("has_so") or "addinfo" in upf:
        raise PseudoError(
            f"{path} is fully relativistic: its orbitals come in pairs of j, which single-shot runs do not use",
            code="spin-orbit-pseudopotential",
            remedy="take a scalar-relativistic pseudopotential",
        )
    return facts


def _functional(name: str) -> str:
    words = " ".join(re.split(r"[\s+-]+", name.strip().upper()))
    return next((short for short, names in _FUNCTIONALS.items() if words in names), " ".join(name.split()))

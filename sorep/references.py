"""What to cite for the contents of a store, as BibTeX.

Methods, descriptors, basis sets and pseudopotentials follow from the identities and the elements in the store; data
from what the user handed to the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sorep.descriptors import descriptor_from_words
from sorep.errors import BasisError
from sorep.kinetic.basis import load_basis
from sorep.single_shot.pseudo_family import FAMILIES
from sorep.single_shot.pseudos import read_manifest
from sorep.store import FeatureStore

PAPER = """@article{zadoks2024a,
    author = {Zadoks, Austin and Marrazzo, Antimo and Marzari, Nicola},
    title = {Spectral operator representations},
    journal = {npj Comput. Mater.},
    year = {2024},
    doi = {10.1038/s41524-024-01446-9}
}"""

EVERYWHERE = {
    "spglib": """@article{togo2024,
    author = {Togo, Atsushi and Shinohara, Kohei and Tanaka, Isao},
    title = {Spglib: a software library for crystal symmetry search},
    journal = {Sci. Technol. Adv. Mater. Methods},
    volume = {4},
    pages = {2384822},
    year = {2024},
    doi = {10.1080/27660400.2024.2384822}
}""",
    "pymatgen": """@article{ong2013,
    author = {Ong, Shyue Ping and others},
    title = {Python Materials Genomics (pymatgen): A robust, open-source python library for materials analysis},
    journal = {Comput. Mater. Sci.},
    volume = {68},
    pages = {314-319},
    year = {2013},
    doi = {10.1016/j.commatsci.2012.10.028}
}""",
}

INTEGRALS = {
    "pyscf": """@article{sun2020,
    author = {Sun, Qiming and others},
    title = {Recent developments in the {PySCF} program package},
    journal = {J. Chem. Phys.},
    volume = {153},
    pages = {024109},
    year = {2020},
    doi = {10.1063/5.0006074}
}""",
    "libcint": """@article{sun2015,
    author = {Sun, Qiming},
    title = {Libcint: An efficient general integral library for {Gaussian} basis functions},
    journal = {J. Comput. Chem.},
    volume = {36},
    pages = {1664-1671},
    year = {2015},
    doi = {10.1002/jcc.23981}
}""",
}

ESPRESSO = {
    "espresso2009": """@article{giannozzi2009,
    author = {Giannozzi, Paolo and others},
    title = {{QUANTUM} {ESPRESSO}: a modular and open-source software project for quantum simulations of materials},
    journal = {J. Phys.: Condens. Matter},
    volume = {21},
    pages = {395502},
    year = {2009},
    doi = {10.1088/0953-8984/21/39/395502}
}""",
    "espresso2017": """@article{giannozzi2017,
    author = {Giannozzi, Paolo and others},
    title = {Advanced capabilities for materials modelling with {Quantum} {ESPRESSO}},
    journal = {J. Phys.: Condens. Matter},
    volume = {29},
    pages = {465901},
    year = {2017},
    doi = {10.1088/1361-648X/aa8f79}
}""",
}

LINES = {
    "seekpath": """@article{hinuma2017,
    author = {Hinuma, Yoyo and Pizzi, Giovanni and Kumagai, Yu and Oba, Fumiyasu and Tanaka, Isao},
    title = {Band structure diagram paths based on crystallography},
    journal = {Comput. Mater. Sci.},
    volume = {128},
    pages = {140--184},
    year = {2017},
    doi = {10.1016/j.commatsci.2016.10.015}
}""",
    "line masses": """@article{hautier2013,
    author = {Hautier, Geoffroy and Miglio, Anna and Ceder, Gerbrand and Rignanese, Gian-Marco and Gonze, Xavier},
    title = {Identification and design principles of low hole effective mass {p}-type transparent conducting oxides},
    journal = {Nat. Commun.},
    volume = {4},
    pages = {2292},
    year = {2013},
    doi = {10.1038/ncomms3292}
}""",
}
"""Of bands along high-symmetry lines, and of the masses that come from them."""


MAT2SPEC = """@article{kong2022,
    author = {Kong, Shufeng and Ricci, Francesco and Guevarra, Dan and Neaton, Jeffrey B. and Gomes, Carla P.
              and Gregoire, John M.},
    title = {Density of states prediction for materials discovery via contrastive learning from probabilistic
             embeddings},
    journal = {Nat. Commun.},
    volume = {13},
    pages = {949},
    year = {2022},
    doi = {10.1038/s41467-022-28543-x}
}"""
"""Of predicted spectra."""


def store_references(store: FeatureStore) -> tuple[list[str], list[str]]:
    """BibTeX entries of all that a store rests on, basis sets by its elements, and of its data, each once.

    Returns
    -------
    entries, remarks : lists of str
        Remarks name what could not be traced, such as a basis file that is gone.
    """
    entries, remarks = [PAPER, *EVERYWHERE.values()], []
    elements = store.elements()
    for identity in store.identities().values():
        if "feature" in identity.words:
            continue
        if "predicted" in identity.words:
            entries.append(MAT2SPEC)
            continue
        if "descriptor" in identity.words:
            entries += descriptor_from_words(identity.words).references
            continue
        found, missing = _of_spectra(identity.words, elements)
        entries += [*found, *(LINES.values() if "line_spacing" in identity.words else ())]
        remarks += missing
    recorded = store.data_references()
    if not recorded:
        remarks.append("no references of the structures were given (`sorep featurize --references data.bib`)")
    return list(dict.fromkeys([*entries, *recorded])), list(dict.fromkeys(remarks))


def _of_spectra(words: Mapping[str, Any], elements: Iterable[int]) -> tuple[list[str], list[str]]:
    """Entries and remarks for spectra of an identity."""
    if "family" in words:
        if words["family"] in FAMILIES:
            return [*ESPRESSO.values(), *read_manifest(words["family"])["references"]], []
        return [*ESPRESSO.values()], [f"cite the pseudopotentials in {words['family']} yourself"]
    if "basis" not in words:
        return [], [f"cite the code and the pseudopotentials of the spectra {words['operator']!r} yourself"]
    try:
        basis = load_basis(words["basis"], discard_below=words["discard_below"])
    except BasisError as error:
        return [*INTEGRALS.values()], [f"basis set {words['basis']}: {error.message}; cite its source yourself"]
    found = [entry for number in elements for entry in basis.references.get(number, ())]
    if found:
        return [*INTEGRALS.values(), *found], []
    remark = f"basis set {words['basis']} comes from a file without references; cite its source yourself"
    return [*INTEGRALS.values()], [remark]

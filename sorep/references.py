"""What to cite for the contents of a store, as BibTeX.

Methods and basis sets follow from the identities and the elements in the store; data from what the user handed to the
run.
"""

from __future__ import annotations

from sorep.errors import BasisError
from sorep.kinetic.basis import load_basis
from sorep.store import FeatureStore

PAPER = """@article{zadoks2024a,
    author = {Zadoks, Austin and Marrazzo, Antimo and Marzari, Nicola},
    title = {Spectral operator representations},
    journal = {npj Comput. Mater.},
    year = {2024},
    doi = {10.1038/s41524-024-01446-9}
}"""

SOFTWARE = {
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


def store_references(store: FeatureStore) -> tuple[list[str], list[str]]:
    """BibTeX entries for a store's methods, basis sets (of the elements in it) and data, each once.

    Returns
    -------
    entries, remarks : lists of str
        Remarks name what could not be traced, such as a basis file that is gone.
    """
    entries, remarks = [PAPER, *SOFTWARE.values()], []
    elements = store.elements()
    for identity in store.identities().values():
        basis_name = identity.words.get("basis")
        if basis_name is None or "feature" in identity.words:
            continue
        try:
            basis = load_basis(basis_name, discard_below=identity.words["discard_below"])
        except BasisError as error:
            remarks.append(f"basis set {basis_name}: {error.message}; cite its source yourself")
            continue
        found = [entry for number in elements for entry in basis.references.get(number, ())]
        if not found:
            remarks.append(f"basis set {basis_name} comes from a file without references; cite its source yourself")
        entries += found
    recorded = store.data_references()
    if not recorded:
        remarks.append("no references of the structures were given (`sorep featurize --references data.bib`)")
    return list(dict.fromkeys([*entries, *recorded])), list(dict.fromkeys(remarks))

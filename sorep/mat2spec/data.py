"""What a spectrum model reads: crystals as graphs, SOREPs of one identity, and target spectra, joined by id.

`Inputs` are all that a prediction may look at; `SpectrumData` are inputs with their targets. Nothing of a target is
ever kept in an `Inputs`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sorep.errors import Failure, Mat2SpecError, SorepError
from sorep.identity import Identity
from sorep.mat2spec.config import EncoderKind
from sorep.mat2spec.encoders import Batch
from sorep.mat2spec.graph import N_FRACTIONS, CrystalGraph, build_graph, collate
from sorep.mat2spec.targets import Targets, bin_width
from sorep.screening.dataset import Dataset, Part, identity_of, load_dataset
from sorep.similarity.unique import reduced_formulas
from sorep.sources import structures_from
from sorep.store import FeatureStore
from sorep.structure import Structure


@dataclass(frozen=True, eq=False)
class Inputs:
    """Crystals as a model sees them.

    Attributes
    ----------
    ids : (n,) array of str
        Sorted.
    structures : tuple of Structure
    graphs : tuple of CrystalGraph or None
        Of an encoder that reads graphs.
    sorep : (n, n_features) float array or None
        Of an encoder that reads SOREPs.
    parts : tuple of Part
        Features that the SOREP is made of, with their identities.
    failures : tuple of Failure
        Crystals that are not here because they lack something, and why.
    """

    ids: NDArray[np.str_]
    structures: tuple[Structure, ...]
    graphs: tuple[CrystalGraph, ...] | None = None
    sorep: NDArray[np.float64] | None = None
    parts: tuple[Part, ...] = ()
    failures: tuple[Failure, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def identity(self) -> Identity | None:
        """What the SOREP depends on; None without one."""
        return identity_of(self.parts) if self.parts else None

    @cached_property
    def formulas(self) -> NDArray[np.str_]:
        """Reduced, (n,)."""
        return reduced_formulas(np.array([structure.formula for structure in self.structures], dtype=str))

    @cached_property
    def compositions(self) -> NDArray[np.float64]:
        """Element fractions, (n, 103)."""
        counts = [np.bincount(s.numbers - 1, minlength=N_FRACTIONS)[:N_FRACTIONS] for s in self.structures]
        return np.array(counts) / [[s.n_atoms] for s in self.structures]

    def take(self, rows: NDArray[Any]) -> Inputs:
        """The crystals of these rows (indices or a mask), in their order."""
        chosen = np.arange(len(self))[rows].tolist()
        return replace(
            self,
            ids=self.ids[chosen],
            structures=tuple(self.structures[row] for row in chosen),
            graphs=None if self.graphs is None else tuple(self.graphs[row] for row in chosen),
            sorep=None if self.sorep is None else self.sorep[chosen],
            failures=(),
        )

    def batch(self, rows: NDArray[np.intp]) -> Batch:
        """Tensors of these rows, for an encoder."""
        import torch

        graphs = None if self.graphs is None else collate([self.graphs[row] for row in rows.tolist()])
        sorep = None if self.sorep is None else torch.tensor(self.sorep[rows], dtype=torch.get_default_dtype())
        return Batch(graphs, sorep)


@dataclass(frozen=True, eq=False)
class SpectrumData:
    """Crystals and their spectra.

    Attributes
    ----------
    inputs : Inputs
    spectra : (n, n_bins) float array
    energies : (n_bins,) float array
    unit : str
    """

    inputs: Inputs
    spectra: NDArray[np.float64]
    energies: NDArray[np.float64]
    unit: str

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def ids(self) -> NDArray[np.str_]:
        return self.inputs.ids

    @property
    def formulas(self) -> NDArray[np.str_]:
        return self.inputs.formulas

    @property
    def bin_width(self) -> float:
        return bin_width(self.energies)

    def take(self, rows: NDArray[Any]) -> SpectrumData:
        """Crystals and spectra of these rows (indices or a mask), in their order."""
        return replace(self, inputs=self.inputs.take(rows), spectra=self.spectra[rows])


def load_inputs(
    kind: EncoderKind,
    *,
    store: FeatureStore | None = None,
    structures: Mapping[str, Structure] | None = None,
    feature: str = "",
    ids: Sequence[str] | None = None,
    skip_missing: bool = False,
) -> Inputs:
    """Crystals for an encoder.

    Parameters
    ----------
    kind : {"graph", "sorep", "both"}
    store : FeatureStore or None
        Holds the SOREPs, and the structures unless these are given.
    structures : mapping of str to Structure, or None
        By id.
    feature : str
        Of the SOREPs: ``NAME[+NAME...]``, each NAME ``feature``, ``operator/feature`` or ``feature@identity``.
    ids : sequence of str or None
        Only these; None means all structures.
    skip_missing : bool
        Leave out what has no structure, no graph or no SOREP, and keep it as a failure; without it that is an error.

    Raises
    ------
    Mat2SpecError
        ``missing-structure``, ``missing-sorep``, and those of `sorep.mat2spec.graph.build_graph`, which name the first
        such crystal; ``no-structures`` where none is left, ``no-store`` where SOREPs are asked for without one,
        ``no-feature`` where none is named.
    SorepError
        As `sorep.screening.dataset.load_dataset`.
    """
    if structures is None:
        if store is None:
            raise Mat2SpecError("no structures", code="no-store", remedy="give a store, or structures")
        structures = store.structures_of(store.content_keys() if ids is None else ids)
    wanted = sorted(structures if ids is None else set(ids))
    dataset = None if kind == "graph" else _soreps(store, feature)
    row_of = {} if dataset is None else {id: row for row, id in enumerate(dataset.ids.tolist())}
    graphs: dict[str, CrystalGraph | None] = {}
    failures = []
    for id in wanted:
        try:
            if id not in structures:
                raise _missing("structure", "give it, or leave out its target")
            if dataset is not None and id not in row_of:
                raise _missing("sorep", "compute it: `sorep failures` tells of those that failed")
            graphs[id] = None if kind == "sorep" else build_graph(structures[id])
        except Mat2SpecError as error:
            source = structures[id].source if id in structures else ""
            failures.append(Failure.from_error(error, id=id, source=source))
    if failures and not skip_missing:
        raise _cannot_be_read(failures, len(wanted))
    if not graphs:
        raise Mat2SpecError(
            "no structure has all that the model reads",
            code="no-structures",
            remedy="check that ids of structures, features and targets are the same",
        )
    kept = list(graphs)
    return Inputs(
        ids=np.array(kept, dtype=str),
        structures=tuple(structures[id] for id in kept),
        graphs=None if kind == "sorep" else tuple(graph for graph in graphs.values() if graph is not None),
        sorep=None if dataset is None else dataset.values[[row_of[id] for id in kept]],
        parts=() if dataset is None else dataset.parts,
        failures=tuple(failures),
    )


def load_data(
    targets: Targets,
    kind: EncoderKind,
    *,
    store: FeatureStore | None = None,
    structures: Mapping[str, Structure] | None = None,
    feature: str = "",
    skip_missing: bool = False,
) -> SpectrumData:
    """Crystals with a target, joined by id; the other arguments and the errors are those of `load_inputs`.

    Structures without a target are left out.
    """
    inputs = load_inputs(
        kind,
        store=store,
        structures=structures,
        feature=feature,
        ids=targets.ids.tolist(),
        skip_missing=skip_missing,
    )
    rows = np.searchsorted(targets.ids, inputs.ids)
    return SpectrumData(inputs, targets.spectra[rows], targets.energies, targets.unit)


def read_structures(
    paths: Iterable[Path],
    id_column: str | None = None,
    structure_column: str | None = None,
    on_read: Callable[[int], None] = lambda _: None,
) -> tuple[dict[str, Structure], list[Failure]]:
    """Validated structures by id below files and folders, and those that cannot be used.

    ``on_read`` is told how many there are so far.

    Raises
    ------
    UsageError
        Those of `sorep.sources.find_items`.
    Mat2SpecError
        ``duplicate-id``.
    """
    found: dict[str, Structure] = {}
    failures = []
    entries = structures_from(list(paths), id_column=id_column, structure_column=structure_column)
    for n, entry in enumerate(entries, start=1):
        on_read(n)
        if isinstance(entry, Failure):
            failures.append(entry)
            continue
        try:
            entry.validate()
        except SorepError as error:
            failures.append(Failure.from_error(error, id=entry.id, source=entry.source))
            continue
        if entry.id in found:
            raise Mat2SpecError(
                f"{found[entry.id].source} and {entry.source} are both called {entry.id!r}",
                code="duplicate-id",
                remedy="give every structure a name of its own, or name another column of ids (--structure-id-column)",
            )
        found[entry.id] = entry
    return found, failures


def _soreps(store: FeatureStore | None, feature: str) -> Dataset:
    if store is None:
        raise Mat2SpecError("SOREPs are read from a store", code="no-store", remedy="give one with --store")
    if not feature:
        raise Mat2SpecError(
            "no SOREP is named", code="no-feature", remedy="name one with --feature; `sorep list` shows them"
        )
    return load_dataset(store, feature)


def _missing(what: str, remedy: str) -> Mat2SpecError:
    return Mat2SpecError(f"no {what}", code=f"missing-{what}", remedy=remedy)


def _cannot_be_read(failures: Sequence[Failure], n: int) -> Mat2SpecError:
    """The error of the first of them, by name."""
    first = failures[0]
    return Mat2SpecError(
        f"{first.id}: {first.message}; {len(failures)} of {n} crystals lack something",
        code=first.code,
        remedy=f"{first.remedy}; or leave such crystals out with --missing skip",
    )

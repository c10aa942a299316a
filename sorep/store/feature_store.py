"""Reading a store: one call from folder to matrix.

Two processes that computed the same structure at once, or a batch that was cut between two tables, leave duplicate
rows; every read keeps the earliest row of each key, so no reader ever sees them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sorep.bands import BandStructure
from sorep.descriptors import descriptor_from_words
from sorep.errors import FeatureError, IdentityError, StoreError, UsageError
from sorep.features import FeatureSpec
from sorep.identity import Identity
from sorep.spectrum import Spectrum
from sorep.store.schema import (
    DUPLICATE_ID,
    RULE_COLUMNS,
    SEVERAL_CALCULATIONS,
    SPECTRUM_COLUMNS,
    row_band_structure,
    row_spectrum,
    row_structure,
)
from sorep.store.tables import Tables
from sorep.structure import Structure

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_STORE = "sorep-store"


@dataclass(frozen=True, eq=False)
class FeatureMatrix:
    """Feature vectors of one identity.

    Attributes
    ----------
    values : (n, n_features) float array
    ids : (n,) array of str
        Sorted.
    identity : Identity
        What the numbers depend on, in words and as a hash.
    name : str
        Of the feature.
    """

    values: NDArray[np.float64]
    ids: NDArray[np.str_]
    identity: Identity
    name: str

    @property
    def grid(self) -> FeatureSpec | None:
        """Grid, smearing and normalisation of a density of states and nothing else; None for other features."""
        spec = self._made_from_spectra
        return None if spec is None or spec.band_edges else spec

    @property
    def spec(self) -> FeatureSpec:
        """The grid, where there must be one.

        Raises
        ------
        FeatureError
            ``no-grid``.
        """
        if self.grid is None:
            raise FeatureError(
                f"{self.name!r} is not a density of states on a grid",
                code="no-grid",
                remedy="choose one that is; `sorep list` and `sorep features` show them",
            )
        return self.grid

    @property
    def feature_names(self) -> list[str]:
        """Of the columns."""
        words = self.identity.words
        if "predicted" in words:
            start, stop, points = words["predicted"]["grid"]
            return [f"{energy:+.6g} {words['predicted']['unit']}" for energy in np.linspace(start, stop, points)]
        return (self._made_from_spectra or descriptor_from_words(words)).feature_names

    @property
    def _made_from_spectra(self) -> FeatureSpec | None:
        words = self.identity.words
        return FeatureSpec(name=self.name, **words["feature"]) if "feature" in words else None

    def frame(self) -> pd.DataFrame:
        """As a DataFrame indexed by id, with the identity in ``attrs``."""
        import pandas as pd

        frame = pd.DataFrame(self.values, index=pd.Index(self.ids, name="id"), columns=self.feature_names)
        frame.attrs = {"identity": self.identity.hash, "identity_words": self.identity.words, "feature": self.name}
        return frame


class FeatureStore:
    """The store of a folder, for reading.

    Parameters
    ----------
    path : str or Path
        The folder; default ``./sorep-store``.

    Raises
    ------
    StoreError
        ``no-store`` where the folder holds none.
    """

    def __init__(self, path: str | Path = DEFAULT_STORE) -> None:
        self.path = Path(path)
        self.tables = Tables(self.path)

    # -- features -----------------------------------------------------------------------------------------------

    def matrix(
        self,
        feature: str,
        *,
        operator: str | None = None,
        identity: str | None = None,
        ids: Sequence[str] | None = None,
    ) -> FeatureMatrix:
        """All vectors of one feature as a matrix, one row for each id.

        Parameters
        ----------
        feature : str
            Its name, e.g. ``"kinetic"`` or ``"vbm-fermi-cbm"``.
        operator : str or None
            ``"kinetic"``, ``"overlap"``, ``"single-shot"``; needed where several have this feature. That of a
            descriptor is ``""``.
        identity : str or None
            First digits of the hash; needed where one name stands for several identities.
        ids : sequence of str or None
            Only these, in this order; None means all, sorted.

        Raises
        ------
        StoreError
            ``no-such-feature``, or ``no-such-id`` where an asked-for id has no such feature.
        IdentityError
            ``mixed-identity`` where the choice is not unique; the message tells the differences.
        """
        chosen = self._resolve(feature, operator, identity)
        where = (pc.field("identity") == chosen.hash) & (pc.field("name") == feature)
        rows = _first_of_each(self.tables.read("features", ["content_key", "values"], where), "content_key")
        names = self.content_keys()
        row_of_key = {key: row for row, key in enumerate(rows["content_key"].to_pylist())}
        if ids is None:
            ids = sorted(name for name, key in names.items() if key in row_of_key)
        missing = [name for name in ids if names.get(name) not in row_of_key]
        if missing:
            raise StoreError(
                f"{len(missing)} ids have no feature {feature!r}, the first of them {missing[0]!r}",
                code="no-such-id",
                remedy="see `sorep failures`; leave them out, or ask for all ids",
            )
        values = rows["values"].combine_chunks().flatten().to_numpy().reshape(len(rows), -1)
        take = np.array([row_of_key[names[name]] for name in ids], dtype=np.intp)
        return FeatureMatrix(values[take], np.array(ids, dtype=str), chosen, feature)

    def frame(self, feature: str, **choice) -> pd.DataFrame:
        """`matrix` as a DataFrame indexed by id."""
        return self.matrix(feature, **choice).frame()

    def features(self) -> pd.DataFrame:
        """What the store offers: name, operator, identity and number of vectors of every feature."""
        table = self.tables.read("features", ["content_key", "identity", "name", "operator"])
        keys = ["name", "operator", "identity"]
        counts = table.group_by(keys).aggregate([("content_key", "count_distinct")])
        frame = counts.to_pandas().rename(columns={"content_key_count_distinct": "n"})
        return frame.sort_values(keys, ignore_index=True)

    def identities(self) -> dict[str, Identity]:
        """Every identity that a run of this store computed, by hash."""
        recorded = self.tables.read("runs", ["identities"])["identities"].to_pylist()
        return {key: Identity(text) for run in recorded for key, text in run or ()}

    def spectrum_identities(self, operator: str | None = None) -> list[Identity]:
        """Identities of the stored spectra, of one operator or of all."""
        table = self.tables.read("spectra", ["identity", "operator"])
        known = self.identities()
        pairs = dict.fromkeys(zip(table["identity"].to_pylist(), table["operator"].to_pylist(), strict=True))
        return [known[hash] for hash, of_operator in pairs if operator in (None, of_operator)]

    def spectrum_flags(self) -> dict[tuple[str, str], Counter[str]]:
        """How many spectra of each (operator, identity) carry a flag; under ``""`` how many there are."""
        counts: dict[tuple[str, str], Counter[str]] = {}
        seen = set()
        for row in self.tables.read("spectra", ["content_key", "identity", "operator", "flags"]).to_pylist():
            if (row["content_key"], row["identity"]) not in seen:  # a kill can leave one twice
                seen.add((row["content_key"], row["identity"]))
                counts.setdefault((row["operator"], row["identity"]), Counter()).update(["", *row["flags"]])
        return counts

    def spectrum_identity(self, feature: Identity) -> Identity:
        """Identity of the spectra that a feature was made from.

        Raises
        ------
        FeatureError
            ``no-spectra`` for a descriptor.
        """
        where = pc.field("identity") == feature.hash
        hash = self.tables.read("features", ["spectrum_identity"], where)["spectrum_identity"][0].as_py()
        if not hash:
            raise FeatureError(
                f"{feature.words.get('descriptor', 'a predicted spectrum')!r} comes without any stored spectra",
                code="no-spectra",
                remedy="choose a feature that was made from spectra; `sorep list` shows them",
            )
        return self.identities()[hash]

    def _resolve(self, feature: str, operator: str | None, identity: str | None) -> Identity:
        offers = self.features().to_dict("records")
        chosen = [
            offer["identity"]
            for offer in offers
            if offer["name"] == feature
            and operator in (None, offer["operator"])
            and offer["identity"].startswith(identity or "")
        ]
        if not chosen:
            there = ", ".join(f"{o['name']} ({o['operator']}, {o['identity']})" for o in offers)
            raise StoreError(
                f"{self.path} holds no feature {feature!r}"
                + (f" of operator {operator!r}" if operator else "")
                + (f" with identity {identity}" if identity else ""),
                code="no-such-feature",
                remedy=f"it holds {there or 'none'}; `sorep refeaturize` makes others from stored spectra",
            )
        known = self.identities()
        hashes = list(dict.fromkeys(chosen))
        if len(hashes) > 1:
            first, second = known[hashes[0]], known[hashes[1]]
            raise IdentityError(
                f"feature {feature!r} has {len(hashes)} identities in {self.path} ({', '.join(hashes)}); "
                f"the first two differ in {'; '.join(first.differences(second))}",
                remedy="choose one with identity= (or operator=)",
            )
        return known[hashes[0]]

    # -- everything else ----------------------------------------------------------------------------------------

    def content_keys(self) -> dict[str, str]:
        """Content key of every id; the first commit of an id counts."""
        table = _first_of_each(self.tables.read("structures", ["id", "content_key"]), "id")
        return dict(zip(table["id"].to_pylist(), table["content_key"].to_pylist(), strict=True))

    def ids_of(self, content_key: str) -> list[str]:
        """All names of one crystal."""
        table = self.tables.read("structures", ["id"], pc.field("content_key") == content_key)
        return sorted(set(table["id"].to_pylist()))

    def structure(self, id: str) -> Structure:
        """One structure as it was given."""
        table = self.tables.read("structures", where=pc.field("id") == id)
        if len(table) == 0:
            raise _no_such_id(id)
        return row_structure(_first_of_each(table, "id").to_pylist()[0])

    def structures(self) -> pd.DataFrame:
        """Id, content key, source, formula and number of atoms of every structure with a result."""
        columns = ["id", "content_key", "source", "formula", "n_atoms"]
        table = _first_of_each(self.tables.read("structures", columns), "id")
        return table.to_pandas().sort_values("id", ignore_index=True)

    def structures_of(self, ids: Collection[str]) -> dict[str, Structure]:
        """Several structures as they were given, by id; ids that the store does not have are left out."""
        table = self.tables.read("structures", where=pc.field("id").isin(list(ids)))
        return {row["id"]: row_structure(row) for row in _first_of_each(table, "id").to_pylist()}

    def groups(self, **rule: str | float | bool) -> pd.DataFrame:
        """Groups of equivalent structures, as `sorep unique` found them last.

        Parameters
        ----------
        **rule
            Only those found by a rule with these values: metric, epsilon, n_min, across_compositions, feature,
            identity.

        Returns
        -------
        DataFrame
            One row for each structure, sorted by id: id, group, representative, distance to it, nearest other
            structure, distance to that, reduced formula, and whether a structure matcher confirmed it. The whole rule
            is in ``attrs``; `sorep.similarity.Groups.from_frame` takes it.

        Raises
        ------
        StoreError
            ``no-groups`` where none were found, or none by this rule.
        """
        unknown = rule.keys() - set(RULE_COLUMNS)
        if unknown:
            raise UsageError(
                f"groups have no {min(unknown)!r}", code="bad-option", remedy=f"choose from {', '.join(RULE_COLUMNS)}"
            )
        where = None
        for name, value in rule.items():
            is_so = pc.field(name) == value
            where = is_so if where is None else where & is_so
        table = self.tables.read("groups", where=where)
        if not len(table):
            words = ", ".join(f"{name} {value}" for name, value in rule.items())
            raise StoreError(
                f"{self.path} holds no groups" + (f" with {words}" if rule else ""),
                code="no-groups",
                remedy="`sorep unique` finds groups of equivalent structures",
            )
        newest = table["run_id"][0].as_py()
        frame = table.filter(pc.field("run_id") == newest).drop_columns("run_id").to_pandas()
        first = {name: frame[name].tolist()[0] for name in RULE_COLUMNS}
        frame = frame.drop(columns=RULE_COLUMNS).astype({"confirmed": "boolean"}).sort_values("id", ignore_index=True)
        frame.attrs = first
        return frame

    def spectrum(self, id: str, *, operator: str | None = None, identity: str | None = None) -> Spectrum:
        """The stored spectrum of one structure; ``identity`` is that of the spectrum."""
        return row_spectrum(self._row_of("spectra", SPECTRUM_COLUMNS, id, operator, identity))

    def band_structure(self, id: str, *, operator: str | None = None, identity: str | None = None) -> BandStructure:
        """The stored bands of one structure along lines; ``identity`` is that of its spectrum.

        Raises
        ------
        StoreError
            ``no-such-id``; a metal has no band structure.
        IdentityError
            ``mixed-identity`` where there are several and none is chosen.
        """
        row = self._row_of("band_structures", None, id, operator, identity)
        return row_band_structure(row, id, self.identities()[row["identity"]], self.structure(id).source)

    def band_structures(self) -> pd.DataFrame:
        """What band structures there are: id, operator, identity, vbm and cbm on the mesh (eV), flags."""
        columns = ["content_key", "operator", "identity", "vbm", "cbm", "flags"]
        frame = self.tables.read("band_structures", columns).to_pandas()[::-1]  # the first commit counts
        frame = frame.drop_duplicates(["content_key", "identity"])
        names = self.structures()[["id", "content_key"]]
        return names.merge(frame, on="content_key").drop(columns="content_key").sort_values("id", ignore_index=True)

    def bands_of(self, identity: str) -> Iterator[tuple[str, BandStructure]]:
        """Content key and bands of every band structure of an identity, each once, in bounded memory."""
        seen: set[str] = set()
        names = {key: id for id, key in self.content_keys().items()}
        known = self.identities()
        for batch in self.tables.batches("band_structures", None, pc.field("identity") == identity):
            for row in batch.to_pylist():
                key = row["content_key"]
                if key in names and key not in seen:
                    seen.add(key)
                    yield key, row_band_structure(row, names[key], known[identity])

    def _row_of(
        self, table: str, columns: Sequence[str] | None, id: str, operator: str | None, identity: str | None
    ) -> dict[str, Any]:
        """The row of one structure in a table of results."""
        key = self.content_keys().get(id)
        where = pc.field("content_key") == key
        if operator is not None:
            where &= pc.field("operator") == operator
        found = self.tables.read(table, None if columns is None else [*columns, "identity"], where)
        rows = [r for r in _first_of_each(found, "identity").to_pylist() if r["identity"].startswith(identity or "")]
        what = table.replace("_", " ")
        if key is None or not rows:
            raise _no_such_id(id, what)
        if len(rows) > 1:
            raise IdentityError(
                f"{id} has {what} of {len(rows)} identities: {', '.join(r['identity'] for r in rows)}",
                remedy="choose one with identity=",
            )
        return rows[0]

    def spectra(self, identity: str, skip: set[str]) -> Iterator[tuple[str, str, Spectrum]]:
        """Content key, operator and spectrum of every spectrum of an identity, each once, in bounded memory.

        ``skip`` holds content keys to leave out; those that were yielded are added to it.
        """
        columns = ["content_key", "operator", *SPECTRUM_COLUMNS]
        for batch in self.tables.batches("spectra", columns, pc.field("identity") == identity):
            for row in batch.to_pylist():
                if row["content_key"] not in skip:
                    skip.add(row["content_key"])
                    yield row["content_key"], row["operator"], row_spectrum(row)

    def failures(self) -> pd.DataFrame:
        """Structures without a result: id, source, stage, code, message, remedy; later successes are left out."""
        failures = self.tables.read("failures").to_pandas()
        columns = ["content_key", "identity"]
        descriptors = self.tables.read("features", columns, pc.field("spectrum_identity") == "")
        results = pa.concat_tables([self.tables.read("spectra", columns), descriptors])
        done = set(zip(*(results[name].to_pylist() for name in columns), strict=True))
        keys_of_source: dict[str, set[str]] = {}
        for row in self.tables.read("structures", ["source", "content_key"]).to_pylist():
            keys_of_source.setdefault(row["source"], set()).add(row["content_key"])

        def is_open(failure: dict[str, str]) -> bool:
            keys, own = keys_of_source.get(failure["source"], set()), {failure["content_key"]}
            # What was taken is settled by another name for the same place, not by the content's other names.
            keys = keys & own if failure["code"] in (DUPLICATE_ID, SEVERAL_CALCULATIONS) else keys | own
            return not any((key, failure["identity"]) in done for key in keys)

        open_ = [is_open(failure) for failure in failures.to_dict("records")]
        unique = failures[np.array(open_, dtype=bool)].drop_duplicates(["id", "source", "identity", "code"])
        return unique.drop(columns="run_id").sort_values(["id", "source"], ignore_index=True)

    def runs(self) -> pd.DataFrame:
        """Start and end of every run, with its command, versions and counts."""
        return self.tables.read("runs").to_pandas().sort_values("time", ignore_index=True)

    def data_references(self) -> list[str]:
        """BibTeX entries of the data that users handed to the store's runs, each once."""
        recorded = self.tables.read("runs", ["references"])["references"].to_pylist()
        return list(dict.fromkeys(entry for run in recorded for entry in run or ()))

    def elements(self) -> list[int]:
        """Atomic numbers that occur in the store, ascending."""
        numbers = self.tables.read("structures", ["numbers"])["numbers"].combine_chunks()
        return np.unique(numbers.flatten().to_numpy(zero_copy_only=False)).astype(int).tolist()


def _first_of_each(table: pa.Table, key: str) -> pa.Table:
    """The row of each key that was committed first; tables are read newest commit first."""
    values = table[key].to_numpy(zero_copy_only=False).astype(str)
    newest_last = np.unique(values[::-1], return_index=True)[1]
    return table.take(np.sort(len(values) - 1 - newest_last))


def _no_such_id(id: str, what: str = "spectrum") -> StoreError:
    return StoreError(
        f"the store has no {what} of {id!r}",
        code="no-such-id",
        remedy="see `sorep list` for what it holds and `sorep failures` for what failed",
    )

"""A store that tests fill row by row, with made-up spectra: no physics, real tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from sorep.cells import canonical_cell
from sorep.features import FeatureSpec, Window, compute_feature
from sorep.featurize import feature_identity
from sorep.identity import Identity
from sorep.spectrum import Spectrum
from sorep.store import FeatureStore, StoreWriter
from sorep.store.runs import RunRecord
from sorep.store.schema import feature_row, spectrum_row, structure_row
from sorep.store.tables import Tables
from sorep.structure import Structure

SPEC = FeatureSpec(name="few", windows=(Window(start=0.0, stop=10.0, points=5),), width=1.0)
KINETIC = Identity.of({"operator": "kinetic", "k_spacing": 0.2})


class FillableStore:
    """A folder of tables, and short ways to commit to them and to read from them."""

    spec = SPEC
    spectra = KINETIC

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tables = Tables(path, create=True)

    @property
    def reader(self) -> FeatureStore:
        return FeatureStore(self.path)

    @staticmethod
    def structure(id: str, a: float = 5.43, source: str = "") -> Structure:
        return Structure.from_ase(bulk("Si", a=a), id=id, source=source or f"/data/{id}.cif")

    @staticmethod
    def spectrum(structure: Structure, band_counts=((4, 4, 4),), **others) -> Spectrum:
        """Random levels, the same for the same structure."""
        counts = np.array(band_counts)
        random = np.random.default_rng(int(structure.content_key[:8], 16))
        weights = random.uniform(0.1, 1.0, counts.shape[1])
        return Spectrum(
            energies=random.uniform(0.0, 10.0, counts.sum()),
            band_counts=counts,
            kpoints=random.uniform(-0.5, 0.5, (counts.shape[1], 3)),
            weights=weights / weights.sum(),
            volume=structure.volume,
            n_atoms=structure.n_atoms,
            **others,
        )

    def run(self, spectra: Identity = KINETIC, spec: FeatureSpec = SPEC) -> RunRecord:
        identities = (spectra, feature_identity(spectra, spec))
        return RunRecord.start(self.tables, "a test", {identity.hash: identity for identity in identities})

    def commit(
        self,
        *structures: Structure,
        spectra: Identity = KINETIC,
        spec: FeatureSpec = SPEC,
        spectrum: Spectrum | None = None,
    ) -> list[np.ndarray]:
        """One run with one commit; returns the feature vectors, in the order of the structures."""
        record, writer = self.run(spectra, spec), StoreWriter(self.tables)
        operator, vectors = spectra.words["operator"], []
        for structure in structures:
            levels = spectrum or self.spectrum(structure)
            vectors.append(compute_feature(levels, spec))
            key, feature = structure.content_key, feature_identity(spectra, spec).hash
            columns = {"content_key": key, "identity": spectra.hash, "operator": operator, "run_id": record.run_id}
            row = spectrum_row(levels, canonical_cell(structure), cpu_seconds=0.5, **columns)
            writer.add("structures", [structure_row(structure, record.run_id)])
            writer.add("spectra", [row])
            writer.add(
                "features",
                [feature_row(key, feature, spectra.hash, spec.name, operator, vectors[-1], record.run_id)],
            )
        writer.flush()
        record.end("finished", len(structures), 0)
        return vectors


@pytest.fixture
def filled(tmp_path: Path) -> FillableStore:
    """Empty as yet."""
    return FillableStore(tmp_path / "store")

"""Structures, spectra, features, failures and runs in one folder of transactional tables.

>>> from sorep.store import FeatureStore
>>> store = FeatureStore("sorep-store")                       # doctest: +SKIP
>>> matrix = store.matrix("kinetic")                          # doctest: +SKIP
>>> matrix.values.shape, matrix.ids[:2], matrix.identity.hash # doctest: +SKIP
"""

from sorep.store.feature_store import FeatureMatrix, FeatureStore
from sorep.store.writer import StoreWriter

__all__ = ["FeatureMatrix", "FeatureStore", "StoreWriter"]

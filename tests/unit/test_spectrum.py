"""The spectrum record: ragged or not, never padded, never non-finite."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from sorep.errors import SpectrumError
from sorep.spectrum import Spectrum

FIELDS: dict[str, Any] = {
    "energies": np.arange(12.0),
    "band_counts": [[2, 2, 2], [2, 2, 2]],
    "kpoints": [[0, 0, 0], [0, 0, 0.25], [0, 0, 0.5]],
    "weights": [0.25, 0.5, 0.25],
    "volume": 10.0,
    "n_atoms": 1,
}
OTHERS = {key: FIELDS[key] for key in ("kpoints", "weights", "volume", "n_atoms")}


def test_shapes() -> None:
    spectrum = Spectrum(**FIELDS)
    assert spectrum.n_spin == 2
    assert not spectrum.is_ragged
    assert spectrum.eigenvalues.shape == (2, 3, 2)
    np.testing.assert_array_equal(spectrum.eigenvalues[1, 0], [6, 7])
    np.testing.assert_array_equal(spectrum.state_weights, [0.25, 0.25, 0.5, 0.5, 0.25, 0.25] * 2)
    assert (spectrum.degeneracy, spectrum.n_electrons, spectrum.n_removed, spectrum.flags) == (1.0, None, 0, ())


def test_each_spin_channel_weighs_its_mean_number_of_bands() -> None:
    spectrum = Spectrum(**{**FIELDS, "band_counts": [[3, 2, 2], [1, 2, 2]]})
    up, down = np.split(spectrum.state_weights, [7])
    assert up.sum() == pytest.approx(0.25 * 3 + 0.5 * 2 + 0.25 * 2)
    assert down.sum() == pytest.approx(0.25 * 1 + 0.5 * 2 + 0.25 * 2)


def test_a_ragged_spectrum_says_so() -> None:
    bands = [np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0]), np.array([1.0, 2.5, 3.5])]
    spectrum = Spectrum.from_eigenvalues(bands, n_functions=3, flags=("remark",), **OTHERS)
    assert spectrum.is_ragged
    assert (spectrum.n_removed, spectrum.flags) == (1, ("remark", "linear-dependence"))
    np.testing.assert_array_equal(spectrum.energies, [1, 2, 3, 1, 2, 1, 2.5, 3.5])
    np.testing.assert_array_equal(spectrum.band_counts, [[3, 2, 3]])
    with pytest.raises(SpectrumError, match="between 2 and 3") as caught:
        _ = spectrum.eigenvalues
    assert caught.value.code == "ragged-spectrum"


def test_a_complete_spectrum_has_no_flag() -> None:
    spectrum = Spectrum.from_eigenvalues([np.arange(3.0)] * 3, n_functions=3, **OTHERS)
    assert (spectrum.n_removed, spectrum.flags, spectrum.is_ragged) == (0, (), False)
    # Evenly reduced: flagged, yet not ragged.
    reduced = Spectrum.from_eigenvalues([np.arange(3.0)] * 3, n_functions=4, **OTHERS)
    assert (reduced.n_removed, reduced.flags, reduced.is_ragged) == (3, ("linear-dependence",), False)
    assert reduced.eigenvalues.shape == (1, 3, 3)


def test_it_travels_between_processes() -> None:
    again = pickle.loads(pickle.dumps(Spectrum(**FIELDS)))
    np.testing.assert_array_equal(again.energies, FIELDS["energies"])
    assert again.n_atoms == 1


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        pytest.param({"energies": np.arange(11.0)}, "malformed-spectrum", id="an eigenvalue missing"),
        pytest.param({"band_counts": [2, 2, 2]}, "malformed-spectrum", id="no spin axis"),
        pytest.param({"band_counts": [[3, 3], [3, 3]]}, "malformed-spectrum", id="counts for fewer k points"),
        pytest.param({"kpoints": np.zeros((2, 3))}, "malformed-spectrum", id="k points missing"),
        pytest.param({"kpoints": np.zeros((3, 2))}, "malformed-spectrum", id="k points of two dimensions"),
        pytest.param({"weights": [0.25, 0.5, 0.5]}, "malformed-spectrum", id="weights above one"),
        pytest.param({"weights": [0.5, 0.5, 0.0]}, "malformed-spectrum", id="no weight"),
        pytest.param({"weights": [0.75, 0.5, -0.25]}, "malformed-spectrum", id="negative weight"),
        pytest.param({"weights": [np.nan, 0.5, 0.5]}, "non-finite-eigenvalues", id="weight is no number"),
        pytest.param({"energies": [np.nan, *range(11)]}, "non-finite-eigenvalues", id="eigenvalue is no number"),
        pytest.param({"energies": [*range(11), np.inf]}, "non-finite-eigenvalues", id="infinite eigenvalue"),
        pytest.param({"energies": [], "band_counts": [[0, 0, 0]]}, "malformed-spectrum", id="empty"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(SpectrumError) as caught:
        Spectrum(**{**FIELDS, **changes})
    assert caught.value.code == code

"""Pictures: the right panels with the right numbers in them, and files that are pictures."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from sorep.band_path import BandPath, Segment
from sorep.bands import BandStructure
from sorep.errors import FeatureError, LevelsError
from sorep.features import FeatureSpec, Window, compute_feature, get_feature
from sorep.featurize import feature_identity
from sorep.identity import Identity
from sorep.levels import Levels
from sorep.plotting import plot_bands, plot_features
from sorep.spectrum import Spectrum
from sorep.store import FeatureMatrix
from sorep.structure import Structure

OPERATOR = Identity.of({"operator": "single-shot"})
TWO_WINDOWS = FeatureSpec(
    name="edges",
    windows=(Window(anchor="vbm", start=-2, stop=1, points=50), Window(anchor="cbm", start=-1, stop=2, points=70)),
    width=0.1,
)


def bands(shift: float = 0.0, n_electrons: float | None = 4.0) -> Spectrum:
    """Two full and two empty bands of a Kohn-Sham spectrum on four k points: an insulator."""
    k = np.linspace(0, 0.5, 4)
    levels = np.array([-6 + np.cos(k * 6), -1 - k**2, 1.5 + k**2, 4 - np.cos(k * 6)]).T + shift
    return Spectrum(
        energies=levels.ravel(),
        band_counts=np.full((1, 4), 4),
        kpoints=np.stack([k, 0 * k, 0 * k], axis=1),
        weights=np.array([0.1, 0.2, 0.3, 0.4]),
        volume=40.0,
        n_atoms=2,
        degeneracy=2.0,
        n_electrons=n_electrons,
    )


def matrix_of(spec: FeatureSpec, spectra: dict[str, Spectrum]) -> FeatureMatrix:
    values = np.array([compute_feature(spectrum, spec) for spectrum in spectra.values()])
    return FeatureMatrix(values, np.array(list(spectra)), feature_identity(OPERATOR, spec), spec.name)


@pytest.fixture
def spectra() -> dict[str, Spectrum]:
    return {"a": bands(), "b": bands(0.3), "c": bands(-5.0)}


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved, which still are; so that tests can look at what was drawn."""
    saved, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (saved.append(self), save(self, *a, **k))[1])
    return saved


@pytest.mark.parametrize(
    ("name", "with_levels"),
    [("kinetic", False), ("kinetic", True), ("vbm-fermi-cbm", True), ("mat2spec-edos", False), ("edges", True)],
)
def test_a_picture_is_written(spectra, tmp_path, name, with_levels):
    spec = TWO_WINDOWS if name == "edges" else get_feature(name)
    path = tmp_path / "out.png"
    plot_features(matrix_of(spec, spectra), ["a", "b"], path, spectra=spectra if with_levels else None)
    picture = matplotlib.image.imread(path)
    assert min(picture.shape[:2]) > 200
    assert len(np.unique(picture[..., :3].reshape(-1, 3), axis=0)) > 10  # lines and letters, not a blank page


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".svg", b"<?xml")])
def test_the_suffix_chooses_the_format(spectra, tmp_path, suffix, start):
    path = tmp_path / f"out{suffix}"
    plot_features(matrix_of(TWO_WINDOWS, spectra), ["a"], str(path))
    assert path.read_bytes().startswith(start)


def test_every_panel_shows_its_window_of_its_structure(spectra, tmp_path, figures):
    matrix = matrix_of(TWO_WINDOWS, spectra)
    plot_features(matrix, ["c", "a"], tmp_path / "out.png")
    (figure,) = figures
    panels = np.array(figure.axes).reshape(2, 2)
    for line, row in enumerate((2, 0)):
        for column, part in enumerate((slice(0, 50), slice(50, 120))):
            (curve,) = panels[line, column].lines
            np.testing.assert_array_equal(curve.get_xdata(), TWO_WINDOWS.energies[part])
            np.testing.assert_array_equal(curve.get_ydata(), matrix.values[row, part])
        assert panels[line, 0].get_ylabel() == ("c", "a")[line]
    assert [panel.get_xlabel() for panel in panels[1]] == ["energy - VBM (eV)", "energy - CBM (eV)"]
    assert panels[0, 0].get_xlim() == (-2, 1)
    title = figure.get_suptitle()
    assert "single-shot" in title
    assert "states / (eV Å³)" in title


def test_levels_are_drawn_relative_to_the_anchor(spectra, tmp_path, figures):
    plot_features(matrix_of(TWO_WINDOWS, spectra), ["a", "c"], tmp_path / "out.png", spectra=spectra)
    (figure,) = figures
    panels = np.array(figure.axes).reshape(2, 2)
    drawn = [
        [ticks.get_segments() for ticks in panel.collections if hasattr(ticks, "get_segments")]
        for panel in panels.ravel()
    ]
    positions = [sorted(float(segment[0][0]) for segment in ticks[0]) for ticks in drawn]
    vbm, cbm = -1.0, 1.5
    expected = np.sort(spectra["a"].energies)
    np.testing.assert_allclose(positions[0], expected - vbm, atol=1e-12)
    np.testing.assert_allclose(positions[1], expected - cbm, atol=1e-12)
    np.testing.assert_allclose(positions[2:], positions[:2], atol=1e-12)  # a rigid shift is not seen
    curve_bottom = panels[0, 0].lines[0].get_ydata().min()
    assert all(segment[:, 1].max() <= curve_bottom for segment in drawn[0][0])


def test_levels_need_electrons_only_where_the_grid_does(spectra, tmp_path):
    plain = {"k": bands(n_electrons=None)}
    path = tmp_path / "out.png"
    plot_features(matrix_of(get_feature("kinetic"), plain), ["k"], path, spectra=plain)
    assert path.exists()
    with pytest.raises(LevelsError, match="no electrons"):
        plot_features(matrix_of(TWO_WINDOWS, spectra), ["a"], path, spectra={"a": plain["k"]})


@pytest.mark.parametrize("name", ["out.xyz", "no folder/out.png"])
def test_a_picture_that_cannot_be_written_is_an_error(spectra, tmp_path, name):
    path = tmp_path / name
    with pytest.raises(FeatureError) as caught:
        plot_features(matrix_of(TWO_WINDOWS, spectra), ["a"], path)
    assert caught.value.code == "unwritable-picture"
    assert str(path) in caught.value.message
    assert ".png" in caught.value.remedy
    assert not Path(path).exists()


# Bands


PATH = BandPath(  # two lines that meet and, after a break, one that does not; the second label stands close by
    2 * np.pi * np.eye(3),
    np.array([[0, 0, 0], [0.5, 0, 0], [1, 0, 0], [1, 0.01, 0], [0, 0, 1], [0, 0, 0.5], [0, 0, 0]]),
    (Segment(("GAMMA", "X"), 0, 3), Segment(("X", "SIGMA_0"), 2, 4), Segment(("Z", "GAMMA"), 4, 7)),
)
INSULATOR = Levels(-1.0, 2.0, 0.5, False)


def band_structure(levels: Levels | None = INSULATOR, n_spin: int = 1, **words) -> BandStructure:
    lower = np.array([-1.0, -2, -3, -3.5, -2.5, -2, -1])
    upper = np.array([4.0, 3, 2.5, 2, 3, 3.5, 4])
    energies = np.array([np.array([lower, upper]).T + 0.5 * spin for spin in range(n_spin)])
    structure = Structure("made-up", PATH.lattice, [3], [[0, 0, 0]])
    return BandStructure(structure, Identity.of({"operator": "single-shot", **words}), PATH, energies, levels=levels)


def test_bands_are_drawn_line_by_line_from_the_valence_band_maximum(tmp_path, figures):
    bands = band_structure()
    plot_bands(bands, tmp_path / "out.png")
    (figure,) = figures
    (axis,) = figure.axes
    curves = [line for line in axis.lines if line.get_marker() != "o" and line.get_linestyle() == "-"]
    assert len(curves) == 3 * 2  # segments and bands
    for number, segment in enumerate(PATH.segments):
        for band in range(2):
            curve = curves[2 * number + band]
            np.testing.assert_array_equal(curve.get_xdata(), PATH.distances[segment.slice])
            np.testing.assert_allclose(curve.get_ydata(), bands.energies[0, segment.slice, band] + 1.0)
    assert axis.get_ylabel() == "energy - VBM (eV)"
    assert "made-up (Li), single-shot" in axis.get_title()
    assert axis.get_title(loc="right") == "gap 3.00 eV"
    assert axis.get_legend() is None
    assert axis.get_ylim() == (-10, 10)


def test_labels_stand_at_their_points(tmp_path, figures):
    plot_bands(band_structure(), tmp_path / "out.svg")
    axis = figures[0].axes[0]
    np.testing.assert_allclose(axis.get_xticks(), PATH.distances[[0, 2, 3, 6]])
    texts = [label.get_text() for label in axis.get_xticklabels()]
    gamma, x, sigma, z = r"$\mathrm{\Gamma}$", r"$\mathrm{X}$", r"$\mathrm{\Sigma}_{0}$", r"$\mathrm{Z}$"
    assert texts == [gamma, x, f"\n{sigma}|{z}", gamma]  # too close to X to stand beside it
    assert (tmp_path / "out.svg").read_bytes().startswith(b"<?xml")


def test_edges_of_the_path_are_marked(tmp_path, figures):
    plot_bands(band_structure(), tmp_path / "out.pdf")
    axis = figures[0].axes[0]
    dots = [line for line in axis.lines if line.get_marker() == "o"]
    top, bottom = ((list(dot.get_xdata()), list(dot.get_ydata())) for dot in dots)
    assert top == ([PATH.distances[0], PATH.distances[6]], [0.0, 0.0])  # Gamma, twice
    assert bottom == ([PATH.distances[3]], [3.0])
    dashed = [line.get_ydata()[0] for line in axis.lines if line.get_linestyle() == "--"]
    assert dashed == [0.0, 3.0]


def test_two_spins_have_two_colours(tmp_path, figures):
    plot_bands(band_structure(n_spin=2), tmp_path / "out.png", window=(-4.0, 5.0))
    axis = figures[0].axes[0]
    up, down = (handle.get_color() for handle in axis.get_legend().legend_handles)
    assert up != down
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["spin up", "spin down"]
    curves = [line for line in axis.lines if line.get_linestyle() == "-"]
    assert [curve.get_color() for curve in curves] == [up] * 6 + [down] * 6
    assert axis.get_ylim() == (-4, 5)


@pytest.mark.parametrize(
    ("levels", "words", "label"),
    [
        (Levels(1.0, 1.0, 1.0, True), {}, "energy - Fermi energy (eV)"),
        (Levels(-1.0, None, None, False), {}, "energy - VBM (eV)"),
        (None, {"operator": "kinetic"}, "energy (eV)"),
        (None, {"operator": "overlap"}, "overlap"),
    ],
)
def test_the_zero_of_energy_is_named(tmp_path, figures, levels, words, label):
    bands = band_structure(levels, **words)
    plot_bands(bands, tmp_path / "out.png")
    axis = figures[0].axes[0]
    assert axis.get_ylabel() == label
    assert axis.get_title(loc="right") == ""
    np.testing.assert_allclose(axis.lines[0].get_ydata(), bands.energies[0, :3, 0] - bands.reference)
    if levels is None:
        assert axis.get_ylim()[0] < -3.5
        assert axis.get_ylim()[1] > 4.0


def test_bands_that_cannot_be_written_are_an_error(tmp_path):
    with pytest.raises(FeatureError) as caught:
        plot_bands(band_structure(), tmp_path / "no folder" / "out.png")
    assert caught.value.code == "unwritable-picture"

"""Sizes of training sets, and what pictures show of feature sets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sorep.errors import UsageError
from sorep.features import FEATURES
from sorep.identity import Identity
from sorep.screening.dataset import Part
from sorep.screening.protocol import BLOCKS_OF_MANY, BLOCKS_PER_WINDOW, PAPER, Panel, Protocol, panels_of


def test_the_published_protocol() -> None:
    assert len(PAPER.sizes) == 28
    assert (min(PAPER.sizes), max(PAPER.sizes)) == (0.001, 0.8)
    assert {0.01, 0.5} <= set(PAPER.sizes)  # Table 1 and Figure 8
    assert (PAPER.splits, PAPER.split, PAPER.models, PAPER.holdout) == (30, "random", ("published",), 0.1)
    assert PAPER.n_rows(21_691, 19_522)[:3] == [22, 27, 35]
    assert 217 in PAPER.n_rows(21_691, 19_522)


def test_sizes_are_fractions_of_all_rows_or_numbers() -> None:
    assert Protocol(sizes=(0.5, 0.01, 30)).n_rows(1000, 900) == [10, 30, 500]
    assert Protocol(sizes=(0.001, 0.002, 0.02)).n_rows(100, 90) == [1, 2]  # each once, and at least one row


@pytest.mark.parametrize("sizes", [(0.9,), (90,), (0.1, 200)])
def test_something_must_be_left_to_predict(sizes) -> None:
    with pytest.raises(UsageError, match="90 of 100 are not held out") as caught:
        Protocol(sizes=sizes).n_rows(100, 90)
    assert caught.value.code == "bad-size"


def test_permutation_is_at_one_of_the_sizes() -> None:
    protocol = Protocol(sizes=(0.1, 0.5), permutation=0.5)
    assert protocol.permuted_rows(100, [10, 50]) == 50
    with pytest.raises(UsageError, match="none of the sizes"):
        Protocol(sizes=(0.1, 0.5), permutation=0.3).permuted_rows(100, [10, 50])


@pytest.mark.parametrize(
    "options",
    [
        {"sizes": ()},
        {"sizes": (0.0,)},
        {"sizes": (-0.1,)},
        {"sizes": (1.5,)},
        {"splits": 0},
        {"split": "shuffled"},
        {"holdout": 1.0},
        {"models": ("default", "default")},
        {"seed": -1},
        {"folds": 3},
    ],
)
def test_bad_options_are_named(options) -> None:
    with pytest.raises(UsageError) as caught:
        Protocol.checked(**options)
    assert caught.value.code == "bad-option"
    assert next(iter(options)) in caught.value.message


def test_a_panel_for_each_window_and_for_each_part_without_energies(toy) -> None:
    spec = FEATURES["vbm-fermi-cbm"]
    data = toy(20, 513 + 6)
    parts = (
        Part("vbm-fermi-cbm", Identity.of({"operator": "single-shot", "feature": spec.words()}), 513),
        Part("composition", Identity.of({"descriptor": "composition"}), 6),
    )
    panels = panels_of(replace(data, parts=parts))
    assert [(panel.start, panel.stop) for panel in panels] == [(0, 171), (171, 342), (342, 513), (513, 519)]
    assert [panel.axis for panel in panels] == [
        "energy - VBM (eV)",
        "energy - Fermi energy (eV)",
        "energy - CBM (eV)",
        "",
    ]
    assert np.concatenate([panel.energies for panel in panels]) == pytest.approx(spec.energies)
    assert panels[-1].names == tuple(data.feature_names[513:])


@pytest.mark.parametrize(
    ("n_features", "energies", "n_blocks"),
    [(6, False, 6), (550, False, BLOCKS_OF_MANY), (171, True, BLOCKS_PER_WINDOW), (7, True, 7)],
)
def test_blocks_cover_every_feature_once(n_features, energies, n_blocks) -> None:
    axis = tuple(np.linspace(-1, 1, n_features)) if energies else ()
    blocks = Panel(title="x", start=10, stop=10 + n_features, energies=axis).blocks
    assert len(blocks) == n_blocks
    assert [i for start, stop in blocks for i in range(start, stop)] == list(range(10, 10 + n_features))

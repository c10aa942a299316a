"""Losses by hand and against torch.distributions and SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

pytest.importorskip("torch")

import torch
from torch.distributions import Categorical, kl_divergence

from sorep.mat2spec.losses import TEMPERATURE, activate, cosine_loss, infonce_loss, spectrum_loss

RAW = torch.tensor([[0.3, -1.2, 2.0, 0.0], [1.0, 1.5, -0.7, 0.2]], dtype=torch.float64)
Y = torch.tensor([[0.0, 0.25, 0.5, 0.25], [0.7, 0.1, 0.1, 0.1]], dtype=torch.float64)


def test_spectra_of_the_last_layer() -> None:
    torch.testing.assert_close(activate(RAW, "sumnorm"), torch.exp(RAW) / torch.exp(RAW).sum(dim=1, keepdim=True))
    expected = torch.tensor([[0.15, 0, 1, 0], [1 / 1.5, 1, 0, 0.2 / 1.5]], dtype=torch.float64)
    torch.testing.assert_close(activate(RAW, "maxnorm"), expected)
    assert activate(RAW, "standard") is RAW
    assert activate(-RAW.abs() - 1, "maxnorm").tolist() == [[0.0] * 4] * 2  # zeros and not NaN


def test_kl_is_that_of_the_spectrum_from_the_prediction() -> None:
    expected = kl_divergence(Categorical(probs=Y), Categorical(logits=RAW)).mean()
    torch.testing.assert_close(spectrum_loss(RAW, Y, "kl", "sumnorm"), expected)


def test_kl_of_a_prediction_that_underflows_is_finite_and_has_a_gradient() -> None:
    raw = torch.tensor([[0.0, 500.0]], requires_grad=True)
    loss = spectrum_loss(raw, torch.tensor([[0.5, 0.5]]), "kl", "sumnorm")
    loss.backward()
    assert loss.item() == pytest.approx(250 - math.log(2))
    assert raw.grad is not None
    assert raw.grad[0].tolist() == pytest.approx([-0.5, 0.5])


def test_wd_is_the_earth_movers_distance_in_bins() -> None:
    p = activate(RAW, "sumnorm").numpy()
    bins = np.arange(4)
    expected = np.mean([wasserstein_distance(bins, bins, p[row], Y[row].numpy()) for row in range(2)])
    assert spectrum_loss(RAW, Y, "wd", "sumnorm").item() == pytest.approx(expected)


@pytest.mark.parametrize("scaling", ["sumnorm", "maxnorm", "standard"])
def test_mae_and_mse(scaling) -> None:
    difference = (activate(RAW, scaling) - Y).numpy()
    assert spectrum_loss(RAW, Y, "mae", scaling).item() == pytest.approx(np.abs(difference).mean())
    assert spectrum_loss(RAW, Y, "mse", scaling).item() == pytest.approx((difference**2).mean())


def test_cosine_by_hand() -> None:
    a = torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    b = torch.tensor([[2.0, 0.0], [4.0, 3.0]])
    assert cosine_loss(a, b).item() == pytest.approx(-(1 + 24 / 25) / 2)


def test_infonce_by_hand() -> None:
    a = torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    b = torch.tensor([[2.0, 0.0], [4.0, 3.0]])
    s = np.exp(np.array([[1.0, 0.8], [0.6, 0.96]]) / TEMPERATURE)
    rows = [-math.log(s[i, i] / s[i].sum()) for i in range(2)]
    columns = [-math.log(s[i, i] / s[:, i].sum()) for i in range(2)]
    assert infonce_loss(a, b).item() == pytest.approx(np.mean(rows + columns), rel=1e-5)
    assert infonce_loss(a[:1], b[:1]).item() == 0  # finite for a batch of one

"""Losses of spectra and of pairs of projections, and what makes a spectrum of a network's last layer.

A network ends in numbers without bounds, `raw`. The scaling says how they become a spectrum: softmax (sumnorm), ReLU
divided by the maximum (maxnorm), or as they are (standard). Losses, each a mean over materials, of scaled spectra:

    kl     sum_b y_b ln(y_b / p_b)                            wd     sum_b |P_b - Y_b|, cumulated sums
    mae    mean_b |p_b - y_b|                                 mse    mean_b (p_b - y_b)^2

kl and wd compare distributions and go with sumnorm only; wd is in bins.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sorep.mat2spec.config import LossKind
from sorep.mat2spec.scaling import ScalingKind

TEMPERATURE = 0.1
"""Of InfoNCE."""


def activate(raw: Tensor, scaling: ScalingKind) -> Tensor:
    """Scaled spectra (n, n_bins) of the last layer; zeros of maxnorm where no bin is positive."""
    if scaling == "sumnorm":
        return torch.softmax(raw, dim=1)
    if scaling == "maxnorm":
        positive = F.relu(raw)
        return positive / positive.amax(dim=1, keepdim=True).clamp(min=torch.finfo(raw.dtype).tiny)
    return raw


def spectrum_loss(raw: Tensor, y: Tensor, loss: LossKind, scaling: ScalingKind) -> Tensor:
    """Loss of the last layer against scaled spectra, both (n, n_bins); a scalar."""
    if loss == "kl":
        return F.kl_div(torch.log_softmax(raw, dim=1), y, reduction="batchmean")
    p = activate(raw, scaling)
    if loss == "wd":
        return torch.cumsum(p - y, dim=1).abs().sum(dim=1).mean()
    return F.l1_loss(p, y) if loss == "mae" else F.mse_loss(p, y)


def cosine_loss(a: Tensor, b: Tensor) -> Tensor:
    """Minus the mean cosine between rows of equal index (Mat2Spec, eq. 8)."""
    return -F.cosine_similarity(a, b, dim=1).mean()


def infonce_loss(a: Tensor, b: Tensor) -> Tensor:
    """Cross entropy of finding the row of equal index among all, by cosines over `TEMPERATURE`, both ways round."""
    logits = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / TEMPERATURE
    target = torch.arange(len(a), device=a.device)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))

"""Mixtures of Gaussians with diagonal covariance: the latent space of Mat2Spec.

With weights p_k, means mu_k and variances s_k of K components in D dimensions, the latent vector of a material is

    Z = sum_k p_k (mu_k + sqrt(s_k) eps_k)          eps_k standard normal

that is, a normal vector of mean sum_k p_k mu_k and variance sum_k p_k^2 s_k, and is drawn as such.

The KL divergence between two mixtures has the upper bound sum_ij p_i q_j KL(N_i, N'_j) (Mat2Spec, eq. 7). With

    2 KL(N_i, N'_j) = sum_d [ln s'_jd - ln s_id - 1 + (s_id + mu_id^2 - 2 mu_id mu'_jd + mu'_jd^2) / s'_jd]

every term is a product of something of i and something of j, and the weighted sums over i and over j are taken apart:
the bound costs K + K' operations a dimension instead of K K'.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Mixture:
    """Mixtures of several materials.

    Attributes
    ----------
    weights : (n, K) tensor
        They sum to one.
    mean, log_variance : (n, K, D) or (K, D) tensor
        The latter where all materials share the components.
    """

    weights: Tensor
    mean: Tensor
    log_variance: Tensor

    def average(self, of_components: Tensor) -> Tensor:
        """Weighted sum of something of the components, (n, D)."""
        return average(self.weights, of_components)

    def centre(self) -> Tensor:
        """Mean of Z, (n, D)."""
        return self.average(self.mean)

    def sample(self) -> Tensor:
        """One Z of each material, (n, D)."""
        variance = average(self.weights**2, self.log_variance.exp())
        centre = self.centre()
        return centre + variance.sqrt() * torch.randn_like(centre)


def average(weights: Tensor, of_components: Tensor) -> Tensor:
    """Sum over components, weighted by (n, K), of (n, K, D) or (K, D): (n, D)."""
    if of_components.ndim == 2:
        return weights @ of_components
    return (weights[:, None, :] @ of_components)[:, 0]


def kl_bound(p: Mixture, q: Mixture) -> Tensor:
    """Upper bound of KL(p || q) of each material, (n,)."""
    precision = torch.exp(-q.log_variance)
    second_moment = p.average(p.log_variance.exp() + p.mean**2)
    squares = (
        second_moment * q.average(precision)
        - 2 * p.centre() * q.average(q.mean * precision)
        + q.average(q.mean**2 * precision)
    )
    return 0.5 * (q.average(q.log_variance) - p.average(p.log_variance) - 1 + squares).sum(dim=1)

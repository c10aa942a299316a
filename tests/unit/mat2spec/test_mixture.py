"""Mixtures of Gaussians against torch.distributions."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
from torch.distributions import Normal, kl_divergence

from sorep.mat2spec.mixture import Mixture, kl_bound

N, K, L, D = 3, 4, 7, 5


def random_mixture(seed: int, n_components: int, *, shared: bool) -> Mixture:
    generator = torch.Generator().manual_seed(seed)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    shape = (n_components, D) if shared else (N, n_components, D)
    return Mixture(torch.softmax(numbers(N, n_components), dim=1), numbers(*shape) * 2, numbers(*shape))


def pairs(p: Mixture, q: Mixture) -> torch.Tensor:
    """The bound as it is written, pair by pair of components."""

    def normal(mixture: Mixture, component: int, material: int) -> Normal:
        mean, log_variance = (
            of[component] if of.ndim == 2 else of[material, component] for of in (mixture.mean, mixture.log_variance)
        )
        return Normal(mean, torch.exp(log_variance / 2))

    bounds = torch.zeros(N, dtype=torch.float64)
    for n in range(N):
        for i in range(p.weights.shape[1]):
            for j in range(q.weights.shape[1]):
                divergence = kl_divergence(normal(p, i, n), normal(q, j, n)).sum()
                bounds[n] += p.weights[n, i] * q.weights[n, j] * divergence
    return bounds


@pytest.mark.parametrize("shared", [(False, True), (True, False), (False, False), (True, True)])
def test_bound_is_the_weighted_sum_over_all_pairs(shared: tuple[bool, bool]) -> None:
    p, q = random_mixture(0, K, shared=shared[0]), random_mixture(1, L, shared=shared[1])
    torch.testing.assert_close(kl_bound(p, q), pairs(p, q), rtol=1e-12, atol=0)


def test_gradients_of_the_bound() -> None:
    mixtures = random_mixture(0, K, shared=False), random_mixture(1, L, shared=True)
    leaves = [tensor for m in mixtures for tensor in (m.weights.log(), m.mean, m.log_variance)]
    for leaf in leaves:
        leaf.requires_grad_()
    # Weights by softmax, as in the model: the bound uses that they sum to one.
    p, q = (Mixture(torch.softmax(a, dim=1), b, c) for a, b, c in (leaves[:3], leaves[3:]))
    ours = torch.autograd.grad(kl_bound(p, q).sum(), leaves, retain_graph=True)
    theirs = torch.autograd.grad(pairs(p, q).sum(), leaves)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_bound_of_one_gaussian_and_itself_is_zero() -> None:
    p = random_mixture(0, 1, shared=False)
    torch.testing.assert_close(kl_bound(p, p), torch.zeros(N, dtype=torch.float64), rtol=0, atol=1e-13)


def test_single_precision_at_the_bounds_of_the_variances() -> None:
    p, q = random_mixture(0, K, shared=False), random_mixture(1, L, shared=True)
    p, q = Mixture(p.weights, p.mean, p.log_variance * 0 + 5), Mixture(q.weights, q.mean, q.log_variance * 0 - 5)
    single = kl_bound(*(Mixture(*(tensor.float() for tensor in vars(mixture).values())) for mixture in (p, q)))
    torch.testing.assert_close(single.double(), kl_bound(p, q), rtol=1e-5, atol=0)


@pytest.mark.parametrize("shared", [False, True])
def test_samples_have_the_distribution_of_the_weighted_sum_of_components(shared: bool) -> None:
    mixture = random_mixture(2, K, shared=shared)
    n = 40_000
    torch.manual_seed(0)
    ours = torch.stack([mixture.sample() for _ in range(n // 10)])
    deviation = torch.exp(mixture.log_variance / 2)
    noise = torch.randn(n, N, K, D, dtype=torch.float64)
    direct = (mixture.weights[:, :, None] * (mixture.mean + deviation * noise)).sum(dim=2)
    scale = direct.std(dim=0)
    assert ((ours.mean(dim=0) - direct.mean(dim=0)).abs() < 5 * scale / (n / 10) ** 0.5).all()
    torch.testing.assert_close(ours.std(dim=0), scale, rtol=0.06, atol=0)
    torch.testing.assert_close(direct.mean(dim=0), mixture.centre(), rtol=0, atol=5 * float(scale.max()) / n**0.5)
    # no correlation between dimensions or materials
    correlation = torch.corrcoef(ours.flatten(1).T) - torch.eye(N * D)
    assert correlation.abs().max() < 5 / (n / 10) ** 0.5


def test_samples_follow_the_seed() -> None:
    mixture = random_mixture(2, K, shared=False)
    first, second, third = (torch.manual_seed(seed) and mixture.sample() for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)

"""Whether the latent space of a trained model does anything.

Mat2Spec can reach a low loss with a latent space that has collapsed: all components alike and equally mixed, the two
mixtures equal whatever the material, and a translator that reads the encoding and not Z. Three numbers tell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sorep.mat2spec.encoders import Batch
from sorep.mat2spec.losses import activate
from sorep.mat2spec.mixture import kl_bound
from sorep.mat2spec.model import Mat2Spec

_UNIFORM = 0.99  # of the largest entropy
_NO_DIVERGENCE = 1e-3
_NO_EFFECT = 0.01


@dataclass(frozen=True)
class LatentDiagnostics:
    """Means over materials.

    Attributes
    ----------
    mixing_entropy : float
        - sum_k p_k ln p_k of the feature branch, from 0 (one component) to ``largest_entropy`` (all alike).
    largest_entropy : float
        ln K.
    z_sensitivity : float
        How much predicted spectra change where every material takes the Z of another one, in units of their spread:
        mean |p(Z') - p(Z)| / mean |p(Z) - mean over materials of p(Z)|. NaN where predictions have no spread.
    kl : float or None
        Bound of the divergence between the mixtures; None without a label branch.
    """

    mixing_entropy: float
    largest_entropy: float
    z_sensitivity: float
    kl: float | None

    def warnings(self) -> list[str]:
        """What has collapsed, in words; empty if nothing has."""
        found = []
        if self.largest_entropy > 0 and self.mixing_entropy > _UNIFORM * self.largest_entropy:
            found.append(
                f"all components are mixed equally (entropy {self.mixing_entropy:.3f} of {self.largest_entropy:.3f}): "
                "the mixture does the work of one Gaussian"
            )
        if self.kl is not None and self.kl < _NO_DIVERGENCE:
            found.append(f"crystals and spectra have the same mixtures (KL {self.kl:.1e}): they carry no information")
        if not self.z_sensitivity > _NO_EFFECT:
            found.append(
                f"the latent vector of another material changes predictions by {self.z_sensitivity:.1%} of their "
                "spread: the model works without it"
            )
        return found


@torch.no_grad()
def latent_diagnostics(model: Mat2Spec, batch: Batch, y: Tensor) -> LatentDiagnostics:
    """Of at least two materials and their scaled spectra, without dropout or sampling."""
    was_training = model.training
    model.eval()
    try:
        h = model.encoder(batch)
        mixture = model.head(h)
        z = mixture.centre()
        spectra, others = (
            activate(model.predictor(model.translate(h, latent)), model.config.scaling) for latent in (z, z.roll(1, 0))
        )
        spread = (spectra - spectra.mean(dim=0)).abs().mean()
        kl = kl_bound(mixture, model.label_encoder(y)).mean().item() if model.config.has_label_branch else None
        return LatentDiagnostics(
            mixing_entropy=torch.special.entr(mixture.weights).sum(dim=1).mean().item(),
            largest_entropy=math.log(mixture.weights.shape[1]),
            z_sensitivity=((others - spectra).abs().mean() / spread).item() if spread > 0 else math.nan,
            kl=kl,
        )
    finally:
        model.train(was_training)

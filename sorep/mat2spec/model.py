"""Mat2Spec: a spectrum from the encoding of a crystal (Kong et al., Nat. Commun. 13, 949, 2022).

    crystal --encoder--> h --head--> mixture of Gaussians --> Z --translator--> --predictor--> spectrum      (features)
    spectrum --label encoder--> mixture of Gaussians -------> Z --translator--> --predictor--> spectrum      (labels)

Prediction uses the first line alone, with the mean of Z. The second line exists in training: it pulls the latent space
of the crystals towards that of the spectra, by the KL divergence between the mixtures and by a contrast between
projections of what the translator made of either Z. `sorep.mat2spec.config` lists the options.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sorep.mat2spec.config import ModelConfig
from sorep.mat2spec.encoders import Batch, Encoder
from sorep.mat2spec.losses import activate, cosine_loss, infonce_loss, spectrum_loss
from sorep.mat2spec.mixture import Mixture, average, kl_bound

TRAINING_ONLY = ("label_encoder", "projector", "head.log_variance")
"""Parts that no prediction uses: those of the second line, of the contrast, and the variances of Z."""

_HEAD = (256, 512, 256)
_LABEL_EMBEDDING = 512
_LABEL_HIDDEN = 256
_LABEL_WEIGHTS_HIDDEN = 128
_TRANSLATOR = (512, 512)
_PROJECTION = 1024
_LARGEST_LOG_VARIANCE = 5.0


@dataclass(frozen=True, eq=False)
class Outputs:
    """What training needs of a batch.

    Attributes
    ----------
    raw : (n, n_bins) tensor
        Last layer of the feature branch, before `sorep.mat2spec.losses.activate`.
    mixture : Mixture
    projection : (n, 1024) tensor or None
        Where there is a contrast.
    label_raw, label_mixture, label_projection
        The same of the label branch; None without one.
    """

    raw: Tensor
    mixture: Mixture
    projection: Tensor | None = None
    label_raw: Tensor | None = None
    label_mixture: Mixture | None = None
    label_projection: Tensor | None = None


class SpectrumRegressor(Protocol):
    """What the training loop asks of a model; calling it gives scaled spectra (n, n_bins) of a `Batch`."""

    def training_outputs(self, batch: Batch, y: Tensor) -> Any:
        """Whatever `loss` needs, for scaled spectra ``y``, (n, n_bins)."""
        ...

    def loss(self, outputs: Any, y: Tensor) -> dict[str, Tensor]:
        """Terms of the loss, among them ``feature``, that of the spectra, and ``total``, which is minimised."""
        ...


class Mat2Spec(nn.Module):
    """The model of a configuration.

    Parameters
    ----------
    config : ModelConfig
    n_bins : int
        Length of a spectrum.
    encoder : Encoder
        Usually `sorep.mat2spec.encoders.make_encoder` of the same configuration.
    """

    def __init__(self, config: ModelConfig, n_bins: int, encoder: Encoder) -> None:
        super().__init__()
        self.config = config
        self.n_bins = n_bins
        self.encoder = encoder
        self.head = MixtureHead(encoder.out_dim, config)
        seen = encoder.out_dim if config.see_graph else 0
        self.translator = _with_activation(seen + config.latent_dim, *_TRANSLATOR, dropout=config.translator_dropout)
        self.predictor = mlp(_TRANSLATOR[-1], *config.predictor_hidden, n_bins)
        if config.has_label_branch:
            self.label_encoder = LabelEncoder(n_bins, config.latent_dim)
        if config.contrast_weight > 0:
            self.projector = mlp(_TRANSLATOR[-1], *config.projector_hidden, _PROJECTION)

    def forward(self, batch: Batch) -> Tensor:
        """Scaled spectra, (n, n_bins)."""
        h = self.encoder(batch)
        raw = self.predictor(self.translate(h, self.head.centre(h)))
        return activate(raw, self.config.scaling)

    def translate(self, h: Tensor, z: Tensor) -> Tensor:
        """Representation (n, 512) of encodings and latent vectors."""
        return self.translator(torch.cat([h, z], dim=1) if self.config.see_graph else z)

    def training_outputs(self, batch: Batch, y: Tensor) -> Outputs:
        """Both branches for scaled spectra ``y``, (n, n_bins); Z is sampled in training mode, else its mean."""
        config = self.config
        h = self.encoder(batch)
        mixture = self.head(h)
        representation = self.translate(h, self._latent(mixture))
        raw = self.predictor(representation)
        if not config.has_label_branch:
            return Outputs(raw, mixture)
        label_mixture = self.label_encoder(y)
        label_representation = self.translate(h, self._latent(label_mixture))
        has_contrast = config.contrast_weight > 0
        return Outputs(
            raw,
            mixture,
            self.projector(representation) if has_contrast else None,
            self.predictor(label_representation),
            label_mixture,
            self.projector(label_representation) if has_contrast else None,
        )

    def loss(self, outputs: Outputs, y: Tensor) -> dict[str, Tensor]:
        """Terms of the loss, unweighted, and their weighted sum ``total``; terms of weight zero are left out.

        ``feature`` and ``label`` are the losses of the spectra of the two branches, ``kl`` is the bound of the
        divergence between their mixtures and ``contrast`` that of their projections.
        """
        config = self.config
        terms = {"feature": spectrum_loss(outputs.raw, y, config.loss, config.scaling)}
        weights = {"feature": config.feature_weight}
        if config.label_weight > 0 and outputs.label_raw is not None:
            terms["label"] = spectrum_loss(outputs.label_raw, y, config.loss, config.scaling)
            weights["label"] = config.label_weight
        if config.kl_weight > 0 and outputs.label_mixture is not None:
            terms["kl"] = kl_bound(outputs.mixture, outputs.label_mixture).mean()
            if config.kl == "symmetric":
                terms["kl"] = 0.5 * (terms["kl"] + kl_bound(outputs.label_mixture, outputs.mixture).mean())
            weights["kl"] = config.kl_weight
        if outputs.projection is not None and outputs.label_projection is not None:
            contrast = cosine_loss if config.contrast == "cosine" else infonce_loss
            terms["contrast"] = contrast(outputs.projection, outputs.label_projection)
            weights["contrast"] = config.contrast_weight
        return {**terms, "total": torch.stack([weights[name] * term for name, term in terms.items()]).sum()}

    def _latent(self, mixture: Mixture) -> Tensor:
        return mixture.sample() if self.training else mixture.centre()


class MixtureHead(nn.Module):
    """From an encoding to a mixture of its own components."""

    def __init__(self, n_in: int, config: ModelConfig) -> None:
        super().__init__()
        self.shape = (config.n_components, config.latent_dim)
        n_numbers = config.n_components * config.latent_dim
        self.body = _with_activation(n_in, *_HEAD, dropout=config.dropout)
        self.mean = nn.Linear(_HEAD[-1], n_numbers)
        self.log_variance = nn.Linear(_HEAD[-1], n_numbers)
        self.weights = nn.Linear(_HEAD[-1], config.n_components)

    def forward(self, h: Tensor) -> Mixture:
        body = self.body(h)
        return Mixture(*self._weights_and_mean(body), clamped(self.log_variance(body)).unflatten(1, self.shape))

    def centre(self, h: Tensor) -> Tensor:
        """Mean of Z, (n, latent_dim)."""
        weights, mean = self._weights_and_mean(self.body(h))
        return average(weights, mean)

    def _weights_and_mean(self, body: Tensor) -> tuple[Tensor, Tensor]:
        return torch.softmax(self.weights(body), dim=1), self.mean(body).unflatten(1, self.shape)


class LabelEncoder(nn.Module):
    """From a scaled spectrum to a mixture of one component a bin; all spectra share the components."""

    def __init__(self, n_bins: int, latent_dim: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(n_bins, _LABEL_EMBEDDING))
        self.body = _with_activation(_LABEL_EMBEDDING, _LABEL_HIDDEN)
        self.mean = nn.Linear(_LABEL_HIDDEN, latent_dim)
        self.log_variance = nn.Linear(_LABEL_HIDDEN, latent_dim)
        self.weights = mlp(n_bins, _LABEL_WEIGHTS_HIDDEN, n_bins)

    def forward(self, y: Tensor) -> Mixture:
        body = self.body(self.embedding)
        return Mixture(torch.softmax(self.weights(y), dim=1), self.mean(body), clamped(self.log_variance(body)))


def mlp(*sizes: int, dropout: float = 0.0) -> nn.Sequential:
    """Linear layers of these sizes, ReLU (and dropout) between them."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [*(_activation(dropout) if layers else ()), nn.Linear(n_in, n_out)]
    return nn.Sequential(*layers)


def _with_activation(*sizes: int, dropout: float = 0.0) -> nn.Sequential:
    """The same, and what stands between the layers after the last one too."""
    return nn.Sequential(mlp(*sizes, dropout=dropout), *_activation(dropout))


def _activation(dropout: float) -> Sequence[nn.Module]:
    return (nn.ReLU(), nn.Dropout(dropout)) if dropout else (nn.ReLU(),)


def clamped(log_variance: Tensor) -> Tensor:
    """Within bounds between which neither a variance nor its inverse overflows a loss."""
    return log_variance.clamp(-_LARGEST_LOG_VARIANCE, _LARGEST_LOG_VARIANCE)

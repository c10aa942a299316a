"""Networks that a Mat2Spec model is measured against: an encoder and a perceptron, without latent mixtures.

They are trained by the same loop on the same loss and scaling, so what differs is the encoder: `CompositionEncoder`,
the graph attention of Mat2Spec itself (as in GATGNN, adapted to spectra), or `sorep.mat2spec.equivariant`.
"""

from __future__ import annotations

from torch import Tensor, nn

from sorep.errors import Mat2SpecError
from sorep.mat2spec.config import ModelConfig
from sorep.mat2spec.encoders import Batch, Encoder
from sorep.mat2spec.graph import N_FRACTIONS
from sorep.mat2spec.losses import activate, spectrum_loss
from sorep.mat2spec.model import mlp

_HIDDEN = (512, 512)
_COMPOSITION = (256, 128)


class CompositionEncoder(Encoder):
    """Sees element fractions and nothing of the structure."""

    def __init__(self) -> None:
        super().__init__()
        self.out_dim = _COMPOSITION[-1]
        self.layers = nn.Sequential(mlp(N_FRACTIONS, *_COMPOSITION), nn.ReLU())

    def forward(self, batch: Batch) -> Tensor:
        if batch.graphs is None:
            raise Mat2SpecError(
                "a batch without compositions", code="missing-input", remedy="build the graphs of the crystals"
            )
        return self.layers(batch.graphs.compositions)


class Perceptron(nn.Module):
    """A spectrum from an encoding, by a perceptron.

    Parameters
    ----------
    config : ModelConfig
        Of which loss, scaling and dropout are used.
    n_bins : int
    encoder : Encoder
    """

    def __init__(self, config: ModelConfig, n_bins: int, encoder: Encoder) -> None:
        super().__init__()
        self.config = config
        self.n_bins = n_bins
        self.encoder = encoder
        self.predictor = mlp(encoder.out_dim, *_HIDDEN, n_bins, dropout=config.dropout)

    def forward(self, batch: Batch) -> Tensor:
        """Scaled spectra, (n, n_bins)."""
        return activate(self.predictor(self.encoder(batch)), self.config.scaling)

    def training_outputs(self, batch: Batch, y: Tensor) -> Tensor:
        """The last layer; targets ``y`` are not looked at."""
        del y
        return self.predictor(self.encoder(batch))

    def loss(self, outputs: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The loss of the spectra, as ``feature`` and ``total``."""
        loss = spectrum_loss(outputs, y, self.config.loss, self.config.scaling)
        return {"feature": loss, "total": loss}

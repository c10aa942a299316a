"""What a model is, how it is trained, and the presets.

`default` is the model of the paper's code with its defects repaired; `published` goes further towards that code, and
`paper` follows the text where the two differ:

    option              default       published     paper
    layers              3             3             2
    translator sees     Z and graph   Z and graph   Z
    its dropout         0.5           0             0
    KL                  one-way       symmetric     one-way
    contrast            cosine        InfoNCE       cosine
    weights             1 1 1.1 0.1   1 1 1.1 0.1   1/2 1/2 1.1 1   of feature, label, KL, contrast
    predictor           one layer     one layer     256 neurons between
    projector           one layer     one layer     512 neurons between
    batch               64            8             128

The dropout of the translator is our own. It sees the encoding, so the dropout of the head, behind which Z is made,
keeps no model of some thousand crystals from learning them by heart.

No preset brings back what made a prediction depend on more than the crystal: neighbour lists cut through a shell and
filled up with dummies (the order of atoms), the division of a pooled state by the number of atoms (the choice of cell),
latent vectors sampled at evaluation (chance). Nor what only weakened the training: the KL divergence of half of the
pairs of Gaussians, an InfoNCE loss that is infinite for a batch of one, a label encoder on unscaled spectra.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sorep.errors import UsageError
from sorep.mat2spec.scaling import ScalingKind
from sorep.settings import Settings

EncoderKind = Literal["graph", "sorep", "both"]
LossKind = Literal["kl", "wd", "mae", "mse"]

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
Size = Annotated[int, Field(ge=1)]


class ModelConfig(Settings):
    """A Mat2Spec model, but for the lengths of spectra and SOREPs.

    A weight of zero leaves out its term of the loss. Without the label, KL and contrast terms there is no label branch.
    """

    encoder: EncoderKind = "graph"
    loss: LossKind = "kl"
    scaling: ScalingKind = "sumnorm"

    n_layers: Size = 3
    n_heads: Size = 4
    channels: Size = 128

    n_components: Size = 10
    latent_dim: Size = 128
    dropout: Share = 0.5
    """Of the head that makes Z."""
    see_graph: bool = True
    """Whether the translator sees the encoder's vector beside the latent one."""
    translator_dropout: Share = 0.5
    predictor_hidden: tuple[Size, ...] = ()
    projector_hidden: tuple[Size, ...] = ()

    kl: Literal["one-way", "symmetric"] = "one-way"
    contrast: Literal["cosine", "infonce"] = "cosine"
    feature_weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    label_weight: Weight = 1.0
    kl_weight: Weight = 1.1
    contrast_weight: Weight = 0.1

    @property
    def has_label_branch(self) -> bool:
        return self.label_weight > 0 or self.kl_weight > 0 or self.contrast_weight > 0

    @model_validator(mode="after")
    def _loss_fits_scaling(self) -> Self:
        if self.loss in ("kl", "wd") and self.scaling != "sumnorm":
            raise ValueError(f"loss {self.loss} compares distributions and needs scaling sumnorm, not {self.scaling}")
        return self


class TrainingConfig(Settings):
    """AdamW; the learning rate is halved after each quarter of the epochs."""

    epochs: Size = 200
    batch_size: Annotated[int, Field(ge=2)] = 64
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    weight_decay: Weight = 1e-2
    patience: Size = 50
    """Epochs without a lower validation loss of the feature branch after which training ends."""
    seed: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True)
class Preset:
    """A model and its training."""

    model: ModelConfig
    training: TrainingConfig


PRESETS: dict[str, Preset] = {
    "default": Preset(ModelConfig(), TrainingConfig()),
    "published": Preset(
        ModelConfig(kl="symmetric", contrast="infonce", translator_dropout=0.0), TrainingConfig(batch_size=8)
    ),
    "paper": Preset(
        ModelConfig(
            n_layers=2,
            see_graph=False,
            translator_dropout=0.0,
            feature_weight=0.5,
            label_weight=0.5,
            contrast_weight=1.0,
            predictor_hidden=(256,),
            projector_hidden=(512,),
        ),
        TrainingConfig(batch_size=128),
    ),
}


def preset(name: str) -> Preset:
    """By name.

    Raises
    ------
    UsageError
        ``unknown-preset``.
    """
    if name not in PRESETS:
        raise UsageError(f"unknown preset {name!r}", code="unknown-preset", remedy=f"choose from {', '.join(PRESETS)}")
    return PRESETS[name]

"""The card of a model: its layers, how many parameters each has, and which of them a prediction uses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from sorep.mat2spec.encoders import GraphAttention
from sorep.mat2spec.model import TRAINING_ONLY, Mat2Spec


@dataclass(frozen=True)
class CardRow:
    """One layer, or several in a row.

    ``name`` is the attribute that holds it, ``layers`` says what it is, ``parameters`` counts trainable numbers.
    """

    name: str
    layers: str
    parameters: int
    at_inference: bool


def card_rows(model: nn.Module) -> list[CardRow]:
    """Every parameter of the model is counted in one row."""
    return [
        CardRow(name, layers, parameters, not f"{name}.".startswith(tuple(f"{part}." for part in TRAINING_ONLY)))
        for name, layers, parameters in _rows(model, "")
    ]


def card_text(model: nn.Module) -> str:
    """The card as plain text, with its totals."""
    rows = card_rows(model)
    total, used = (sum(row.parameters for row in part) for part in (rows, [row for row in rows if row.at_inference]))
    width = max(len(row.name) for row in rows)
    depth = max(len(row.layers) for row in rows)
    lines = []
    if isinstance(model, Mat2Spec):
        config = model.config
        lines += [
            f"Mat2Spec: spectra of {model.n_bins} bins from {_INPUTS[config.encoder]}",
            f"scaling {config.scaling}, loss {config.loss}; {config.n_components} Gaussians in {config.latent_dim} "
            f"dimensions; the translator sees Z{' and the encoding' if config.see_graph else ''}",
            f"loss = {' + '.join(_loss_terms(model))}",
            "",
        ]
    lines.append(f"{'layer':{width}}  {'':{depth}}  {'parameters':>10}  used by")
    lines += [
        f"{row.name:{width}}  {row.layers:{depth}}  {row.parameters:>10,}  "
        f"{'prediction' if row.at_inference else 'training only'}"
        for row in rows
    ]
    return "\n".join([*lines, "", f"{total:,} parameters; {used:,} used by a prediction"])


_INPUTS = {"graph": "crystal graphs", "sorep": "SOREPs", "both": "crystal graphs and SOREPs"}


def _loss_terms(model: Mat2Spec) -> Iterator[str]:
    config = model.config
    for name, weight in (
        ("feature", config.feature_weight),
        ("label", config.label_weight),
        (f"KL ({config.kl})", config.kl_weight),
        (f"contrast ({config.contrast})", config.contrast_weight),
    ):
        if weight > 0:
            yield f"{weight:g} {name}"


def _rows(module: nn.Module, prefix: str) -> Iterator[tuple[str, str, int]]:
    """Name, words and size below a module, down to what `_words` can say in one line."""
    for name, parameter in module.named_parameters(prefix.rstrip("."), recurse=False):
        yield name, " x ".join(map(str, parameter.shape)), parameter.numel()
    for name, child in module.named_children():
        parameters = sum(parameter.numel() for parameter in child.parameters())
        if words := _words(child):
            yield f"{prefix}{name}", words, parameters
        elif parameters:
            yield from _rows(child, f"{prefix}{name}.")


def _words(module: nn.Module) -> str:
    """What a module is in one line; empty where its parts have to be listed."""
    if isinstance(module, GraphAttention):
        return f"attention, {module.n_heads} heads, {module.of_atom.in_features} -> {module.of_atom.out_features}"
    if isinstance(module, nn.BatchNorm1d):
        return f"normalisation, {module.num_features}"
    if isinstance(module, nn.ModuleList) and len(module):
        words = _words(module[0])
        return f"{len(module)} x {words}" if words else ""
    linear = [part for part in module.modules() if isinstance(part, nn.Linear)]
    if isinstance(module, nn.Linear | nn.Sequential) and linear:
        return " -> ".join(map(str, [linear[0].in_features, *(layer.out_features for layer in linear)]))
    return ""

"""Change a model between stages: trainable parameters, dense FFNs to experts, and the router's weights."""

import re
from collections.abc import Sequence

import torch
from torch import nn

from medmoe.model.checkpoint.io import model_tensors
from medmoe.model.config import MedMoEConfig
from medmoe.model.language_model import upcycle
from medmoe.model.medmoe import MedMoE
from medmoe.model.moe import MoE


def dense(config: MedMoEConfig) -> MedMoEConfig:
    """Return the same architecture before stage 3: no MoE layers."""
    text = config.text_config.model_copy(update={"moe_layers": ()})
    return config.model_copy(update={"text_config": text})


def set_trainable(model: MedMoE, patterns: Sequence[str]) -> list[str]:
    """Unfreeze the parameters whose names a pattern matches from the start, freeze all others; returns their names.

    Raises ValueError for a pattern that matches nothing: a stage that silently trains nothing looks like a bad result.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(re.match(pattern, name) for name in names):
            raise ValueError(f"trainable pattern {pattern!r} matches no parameter")
    chosen = [name for name in names if any(re.match(pattern, name) for pattern in patterns)]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)
    return chosen


def to_experts(model: MedMoE, config: MedMoEConfig, *, function_preserving: bool = False) -> None:
    """Turn a dense model into `config`'s MoE in place: experts and meta expert start as the layer's trained FFN.

    `function_preserving` is `upcycle`'s, as is the ConfigError where the architecture has no such start.
    """
    upcycle(model.language_model, config.text_config, function_preserving=function_preserving)
    model.config = config


def average_weights(models: Sequence[MedMoE]) -> MedMoE:
    """Return the first model with the mean of all models' weights (model soup, Wortsman et al. 2022).

    Float64 sums keep what all models share, such as the vision tower, bit for bit.
    """
    tensors = [model_tensors(model) for model in models]
    with torch.no_grad():
        for name, tensor in tensors[0].items():
            tensor.copy_(torch.stack([each[name].double() for each in tensors]).mean(dim=0))
    return models[0]


def set_router(model: MedMoE, *, weight: torch.Tensor, bias: torch.Tensor) -> None:
    """Copy one trained router ([E, D], [E]) into the gate of every MoE layer, as upstream does.

    Raises ValueError when a gate has another shape.
    """
    for module in model.modules():
        if isinstance(module, MoE):
            if module.gate.weight.shape != weight.shape or module.gate.bias is None:
                raise ValueError(f"a router of {tuple(weight.shape)} with bias does not fit this gate")
            with torch.no_grad():
                module.gate.weight.copy_(weight)
                module.gate.bias.copy_(bias)


def initialize_gates(model: MedMoE) -> None:
    """Initialize the gates of learned routing: uniform within 1/sqrt(D), as torch's linear layers start."""
    for module in model.modules():
        if isinstance(module, MoE):
            bound = module.gate.weight.shape[1] ** -0.5
            nn.init.uniform_(module.gate.weight, -bound, bound)
            if module.gate.bias is not None:
                nn.init.zeros_(module.gate.bias)

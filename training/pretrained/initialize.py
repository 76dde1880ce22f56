"""Initialize the model that a run begins with: pretrained parts are filled in, the rest is random."""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn

from medmoe.model.config import MedMoEConfig
from medmoe.model.errors import ConfigError
from medmoe.model.medmoe import MedMoE
from medmoe.training.config import RunConfig
from medmoe.training.pretrained.language_model import load_pretrained_language_model, read_language_model
from medmoe.training.pretrained.tower import load_pretrained_tower
from medmoe.training.pretrained.word_vectors import initialize_from_word_vectors
from medmoe.training.stage_transition import dense

# Fields of TextConfig that say nothing about a model without MoE layers.
_MOE_FIELDS = {
    "moe_layers", "num_experts", "num_experts_per_tok", "gate_bias", "renormalize", "shared_expert", "residual"
}  # fmt: skip


def initial_model(
    config: RunConfig, *, tower: Path | None, language_model: Path | None
) -> tuple[MedMoE, Tokenizer | None, dict[str, str]]:
    """Return the dense model, the tokenizer where one came with it, and in whole sentences where each part comes from.

    `tower` and `language_model` are what `load_pretrained_tower` and `load_pretrained_language_model` read; without
    them the part is random, which for the tower is of use in tests only. Raises as they do.
    """
    model = MedMoE(dense(config.architecture)).eval()
    origins: dict[str, str] = {}
    _initialize_randomly(model.projector, depth=None)
    if tower is not None:
        origins["tower"] = load_pretrained_tower(model.vision_tower, tower, config=model.config.vision_config)
    if language_model is None:
        _initialize_randomly(model.language_model, depth=model.config.text_config.num_hidden_layers)
        return model, None, origins
    tokenizer, origins["language_model"] = load_pretrained_language_model(model, language_model)
    return model, tokenizer, origins


def initialize_words(model: MedMoE, *, tokenizer: Tokenizer, language_model: Path) -> str:
    """Take the words of a pretrained model into the random embedding of `model`; returns where they come from.

    Raises as `read_language_model` and `initialize_from_word_vectors` do.
    """
    source = read_language_model(language_model)
    share = initialize_from_word_vectors(
        model.language_model.get_input_embeddings(), tokenizer=tokenizer, source=source
    )
    return (
        f"The token embeddings start as the leading {model.config.text_config.hidden_size} principal components "
        f"({share:.0%} of the variance) of another model's. {source.origin}"
    )


def check_sources(config: RunConfig, *, language_model: Path | None, base: Path | None) -> None:
    """Raise ConfigError when the recipe needs a pretrained language model that is not given, or has no use for one."""
    if base is not None:
        if language_model is not None:
            raise ConfigError("a base brings its language model: give one of the two")
    elif (config.tokenizer_size is None or config.word_vectors) != (language_model is not None):
        need = (
            "starts from a pretrained language model" if language_model is None else "trains its decoder from scratch"
        )
        raise ConfigError(f"{config.name} {need}")


def check_base(architecture: MedMoEConfig, base: MedMoEConfig) -> None:
    """Check that a checkpoint of `base` can be where stage 3 of `architecture` begins.

    Raises ConfigError naming every field that differs; the name, the stored precision and the experts' labels may.
    """
    if base.text_config.moe_layers:
        raise ConfigError(
            "the base has MoE layers; stage 3 starts from a dense checkpoint, such as 2-instruction_tuning"
        )
    wanted, found = (
        config.model_dump(exclude={"name": True, "dtype": True, "expert_domains": True, "text_config": _MOE_FIELDS})
        for config in (architecture, base)
    )
    if differing := sorted(_differing(wanted, found)):
        raise ConfigError(f"the base is another model than the recipe's: {', '.join(differing)}")


def _differing(wanted: dict[str, object], found: dict[str, object]) -> list[str]:
    names = []
    for name, value in wanted.items():
        other = found[name]
        if isinstance(value, dict) and isinstance(other, dict):
            names += [f"{name}.{inner}" for inner in _differing(value, other)]
        elif value != other:
            names.append(name)
    return names


def _initialize_randomly(part: nn.Module, *, depth: int | None) -> None:
    """Draw weights with a standard deviation of 0.02; with `depth`, scale residual branches down by it (GPT-2)."""
    for name, parameter in part.named_parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.02)
            if depth is not None and name.endswith(("o_proj.weight", "dense.weight", "down_proj.weight", "fc2.weight")):
                with torch.no_grad():
                    parameter.mul_((2 * depth) ** -0.5)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)

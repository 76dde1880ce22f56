"""Read a pretrained vision tower from a transformers directory: CLIP, SigLIP or DINOv2, alone or in a whole CLIP."""

import re
from pathlib import Path

import torch

from medmoe.model.config import CONFIG_FILE, VisionConfig
from medmoe.model.conversion.tower_directory import open_tower, tower_config
from medmoe.model.errors import CheckpointError, ConfigError
from medmoe.model.files.digest import file_sha256
from medmoe.model.files.terminal_safe import listed, terminal_safe

_MODEL_TYPES = {
    "clip": ("clip", "clip_vision_model"),
    "siglip": ("siglip", "siglip_vision_model"),
    "dinov2": ("dinov2",),
}
_BLOCK = re.compile(r"encoder\.layers?\.(\d{1,4})\.")
# After the last used block, or no parameters at all.
_UNUSED = re.compile(r"(post_layernorm|layernorm|head)\..+|embeddings\.(position_ids|mask_token)")
# DINOv2's names in published files, and transformers' of today.
_RENAMED = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}


def read_tower_directory(directory: Path, *, config: VisionConfig) -> tuple[dict[str, torch.Tensor], str]:
    """Return the tower's used tensors by our backbone's names, and where they come from as a whole sentence.

    Blocks after the recipe's last are left out. Raises ConfigError when config.json is another tower's, CheckpointError
    for a tensor that is unknown.
    """
    _compare(directory, config)
    tower = open_tower(directory)
    tensors, unknown = {}, []
    for name in tower.source.tensors:
        if not name.startswith(tower.prefix):
            continue
        ours = name.removeprefix(tower.prefix)
        block = _BLOCK.match(ours)
        if _UNUSED.fullmatch(ours) or (block and int(block[1]) >= config.num_hidden_layers):
            continue
        if block is None and not ours.startswith(("embeddings.", "pre_layrnorm.")):
            unknown.append(name)
            continue
        tensors[renamed(ours)] = tower.source.read(name)
    # A whole CLIP keeps its text model beside the tower; a tower alone has nothing beside it.
    if unknown:
        raise CheckpointError(f"{directory} holds tensors that this build does not know: {listed(sorted(unknown))}")
    digests = ", ".join(
        f"{path.name} `{file_sha256(path)}`" for path in sorted({info.file for info in tower.source.tensors.values()})
    )
    return tensors, f"The vision tower comes from {terminal_safe(directory.name)} (SHA-256 of {digests})."


def renamed(name: str) -> str:
    """Return today's name of a DINOv2 tensor."""
    for old, new in _RENAMED.items():
        name = name.replace(old, new)
    return name


def _compare(directory: Path, config: VisionConfig) -> None:
    """Raise ConfigError naming every field that config.json says otherwise; what it leaves out shapes must tell."""
    said = tower_config(directory)
    wrong = []
    if (kind := said.text("model_type")) is not None and kind not in _MODEL_TYPES[config.model_type]:
        wrong.append(f"model_type is {terminal_safe(repr(kind))}, the recipe's {config.model_type}")
    # DINOv2's table of positions is resampled, so that its image size is free.
    sizes = ["hidden_size", "num_attention_heads", "patch_size"]
    sizes += ["image_size", "intermediate_size"] if config.model_type != "dinov2" else []
    for name in sizes:
        found = said.integer(name)
        if found is not None and found != getattr(config, name):
            wrong.append(f"{name} is {found}, the recipe's {getattr(config, name)}")
    if (activation := said.text("hidden_act")) is not None and activation != config.hidden_act:
        wrong.append(f"hidden_act is {terminal_safe(repr(activation))}, the recipe's {config.hidden_act}")
    if "layer_norm_eps" in said and (eps := said.number("layer_norm_eps", below=1)) != config.layer_norm_eps:
        wrong.append(f"layer_norm_eps is {eps:g}, the recipe's {config.layer_norm_eps:g}")
    if wrong:
        raise ConfigError(f"{directory / CONFIG_FILE} is not the tower of this recipe: {'; '.join(wrong)}")

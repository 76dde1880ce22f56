"""Compute patch features by a vision transformer of transformers', cut after its last used block.

Shape letters: N images, S side of an image in pixels, P patches, C width of the tower.
"""

from typing import Any

import torch
from torch import nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    PreTrainedModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from medmoe.model.config import VisionConfig

# CLIP and DINOv2 put one class token in front of the patches.
_CLASS_TOKENS = {"dinov2": 1, "clip": 1, "siglip": 0}


def _dinov2(config: VisionConfig) -> PreTrainedModel:
    backbone = Dinov2Model(
        Dinov2Config(
            hidden_size=config.hidden_size,
            mlp_ratio=config.intermediate_size // config.hidden_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            image_size=config.image_size,
            patch_size=config.patch_size,
            layer_norm_eps=config.layer_norm_eps,
            hidden_act=config.hidden_act,
            use_mask_token=False,
        )
    )
    backbone.layernorm = nn.Identity()
    return backbone


def _clip(config: VisionConfig) -> PreTrainedModel:
    backbone = CLIPVisionModel(CLIPVisionConfig(**_sizes(config)))
    backbone.post_layernorm = nn.Identity()
    return backbone


def _siglip(config: VisionConfig) -> PreTrainedModel:
    backbone = SiglipVisionModel(SiglipVisionConfig(**_sizes(config), vision_use_head=False))
    backbone.post_layernorm = nn.Identity()
    return backbone


def _sizes(config: VisionConfig) -> dict[str, Any]:
    """Return the fields whose names CLIP's and SigLIP's configurations share with ours."""
    return config.model_dump(exclude={"model_type", "drop_first_patch"})


_BUILDERS = {"dinov2": _dinov2, "clip": _clip, "siglip": _siglip}


class VisionTower(nn.Module):
    """A vision transformer without gradients: every training stage freezes it."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.backbone = _BUILDERS[config.model_type](config)
        self._skipped = _CLASS_TOKENS[config.model_type] + config.drop_first_patch
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Map normalised pixels [N, 3, S, S] to features [N, P, C] of the last used block."""
        weight = next(self.backbone.parameters())
        hidden_NPC: torch.Tensor = self.backbone(pixel_values.to(weight.dtype)).last_hidden_state
        return hidden_NPC[:, self._skipped :]

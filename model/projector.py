"""The projector: patch features to token embeddings (LLaVA's `mlp2x_gelu`)."""

import torch
from torch import nn
from torch.nn import functional as F

from medmoe.model.config import MedMoEConfig


def fold_patches(features: torch.Tensor, *, factor: int) -> torch.Tensor:
    """[N, g*g, D] -> [N, (g/f)*(g/f), D*f*f]: each f x f square of neighbouring patches becomes one long vector.

    Row-major on both sides; within a square the patches are concatenated row by row.
    """
    if factor == 1:
        return features
    n, patches, depth = features.shape
    grid = int(patches**0.5)
    squares = features.view(n, grid // factor, factor, grid // factor, factor, depth)
    return squares.permute(0, 1, 3, 2, 4, 5).reshape(n, patches // factor**2, depth * factor**2)


class Projector(nn.Module):
    """Linear - exact GELU - Linear, both with bias (upstream `build_projector`), where asked for after a LayerNorm."""

    def __init__(self, config: MedMoEConfig) -> None:
        super().__init__()
        self.factor = config.projector_config.downsample_factor
        hidden, width = config.text_config.hidden_size, config.vision_config.hidden_size
        if config.projector_config.input_norm == "layer_norm":
            self.input_norm: nn.Module = nn.LayerNorm(width, eps=config.vision_config.layer_norm_eps)
        else:
            self.input_norm = nn.Identity()
        self.linear_1 = nn.Linear(width * self.factor**2, hidden)
        self.linear_2 = nn.Linear(hidden, hidden)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[N, patches, vision hidden] -> [N, num_image_tokens, text hidden]."""
        normed = self.input_norm(features.to(self.linear_1.weight.dtype))
        projected: torch.Tensor = self.linear_2(F.gelu(self.linear_1(fold_patches(normed, factor=self.factor))))
        return projected

"""Project patch features to token embeddings (LLaVA's `mlp2x_gelu`).

Shape letters: N images, P patches, C width of the vision tower, I tokens of an image, F width of a folded square of
patches, D hidden size.
"""

import torch
from torch import nn
from torch.nn import functional as F

from medmoe.model.config import MedMoEConfig


def fold_patches(features_NPC: torch.Tensor, *, factor: int) -> torch.Tensor:
    """Concatenate each f x f square of neighbouring patches: [N, g*g, C] to [N, (g/f)*(g/f), C*f*f].

    Row-major on both sides; within a square the patches are concatenated row by row.
    """
    if factor == 1:
        return features_NPC
    n, patches, width = features_NPC.shape
    grid = int(patches**0.5)
    squares = features_NPC.view(n, grid // factor, factor, grid // factor, factor, width)
    return squares.permute(0, 1, 3, 2, 4, 5).reshape(n, patches // factor**2, width * factor**2)


class Projector(nn.Module):
    """Linear, exact GELU, Linear, both with bias (upstream `build_projector`), after an optional LayerNorm."""

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

    def forward(self, features_NPC: torch.Tensor) -> torch.Tensor:
        """Map [N, P, C] to [N, I, D]."""
        normed_NPC = self.input_norm(features_NPC.to(self.linear_1.weight.dtype))
        folded_NIF = fold_patches(normed_NPC, factor=self.factor)
        projected_NID: torch.Tensor = self.linear_2(F.gelu(self.linear_1(folded_NIF)))
        return projected_NID

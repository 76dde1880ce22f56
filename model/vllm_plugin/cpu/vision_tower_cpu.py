"""Speed up the vision tower on a CPU: replace attention and FFN of each block by oneDNN products.

Query, key and value become one product, weights are packed once into oneDNN's layout, and GELU is fused into its
product. Shape letters: B images, N positions, D width, H heads.
"""

import platform
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from medmoe.model.config import VisionConfig
from medmoe.model.vision_tower import VisionTower

# Images that go through the tower at once. More are not faster (measured up to 32), and activations grow with them: by
# 9 MB an image in CLIP's large tower (577 x 4,096 numbers of float32).
AT_ONCE = 16

# oneDNN's names of activations that it fuses into a product. It has no quick_gelu.
_FUSED = {"gelu": ("gelu", "none"), "gelu_pytorch_tanh": ("gelu", "tanh")}


class _Names(NamedTuple):
    """Attribute names of a block's parts in transformers."""

    blocks: str
    attention: str
    exit: str


_CLIP = _Names("layers", "self_attn", "out_proj")
_NAMES = {"dinov2": _Names("layer", "attention", "o_proj"), "clip": _CLIP, "siglip": _CLIP}


class PackedLinear:
    """Several linears of one input as one product, with an optional activation.

    It is no nn.Module and has no parameters, because weights in oneDNN's layout must not be loaded or cast.
    """

    def __init__(self, *linears: nn.Linear, activation: tuple[str, str] | None = None) -> None:
        self._bias = torch.cat([linear.bias for linear in linears])
        self._weight = torch.cat([linear.weight for linear in linears])
        self._activation, self._algorithm = activation or ("none", "")
        # torch's float32 product is as fast, and 1.2 times faster for CLIP's 577 rows; only a fused activation helps.
        self._is_packed = self._weight.dtype != torch.float32 or activation is not None
        if self._is_packed:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(self._weight)

    def __call__(self, x_BND: torch.Tensor) -> torch.Tensor:
        """Map [B, N, D] to [B, N, O], O the sum of the linears' widths."""
        if not self._is_packed:
            return F.linear(x_BND, self._weight, self._bias)
        y_BNO: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            x_BND, self._weight, self._bias, self._activation, [], self._algorithm
        )
        return y_BNO


class PackedAttention(nn.Module):
    """Replaces a block's attention: full attention without dropout."""

    def __init__(self, attention: Any, names: _Names, *, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self._qkv = PackedLinear(attention.q_proj, attention.k_proj, attention.v_proj)
        self._exit = PackedLinear(getattr(attention, names.exit))

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: Any
    ) -> tuple[torch.Tensor, None]:
        """Map [B, N, D] to [B, N, D], and no attention weights."""
        # [3, B, H, N, D / H], views into one product.
        q, k, v = self._qkv(hidden_states).unflatten(-1, (3, self._heads, -1)).permute(2, 0, 3, 1, 4)
        mixed_BHNd = F.scaled_dot_product_attention(q, k, v, attn_mask=attention_mask)
        return self._exit(mixed_BHNd.transpose(1, 2).flatten(2)), None


class PackedFFN(nn.Module):
    """Replaces a block's FFN: two linears with an activation between them."""

    def __init__(self, ffn: Any, *, hidden_act: str) -> None:
        super().__init__()
        fused = _FUSED.get(hidden_act)
        self._entry = PackedLinear(ffn.fc1, activation=fused)
        self._act = nn.Identity() if fused else ffn.activation_fn
        self._exit = PackedLinear(ffn.fc2)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map [B, N, D] to [B, N, D]."""
        return self._exit(self._act(self._entry(hidden_states)))


@torch.no_grad()
def pack_vision_tower(tower: nn.Module, config: VisionConfig) -> bool:
    """Pack a loaded tower in place and free its linears; weights cannot be loaded into it afterwards.

    Returns False and leaves the tower unchanged where packing is not known to be right and faster.
    """
    if not _applies(tower):
        return False
    names = _NAMES[config.model_type]
    encoder: Any = tower.get_submodule("backbone.encoder")
    for block in getattr(encoder, names.blocks):
        attention = getattr(block, names.attention)
        setattr(block, names.attention, PackedAttention(attention, names, heads=config.num_attention_heads))
        block.mlp = PackedFFN(block.mlp, hidden_act=config.hidden_act)
    return True


def _applies(tower: nn.Module) -> bool:
    # vLLM puts a placeholder here when no images are served.
    if not isinstance(tower, VisionTower):
        return False
    weight = next(tower.parameters())
    # First: torch builds for other devices may lack these operators.
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    # On ARM another library implements these operators; untested.
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32


def tower_features(tower: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """Return the tower's features of pixels [B, 3, size, size]; on a CPU in parts of `AT_ONCE` images."""
    if pixels.device.type != "cpu":
        return tower(pixels)  # type: ignore[no-any-return]
    return torch.cat([tower(few) for few in pixels.split(AT_ONCE)])

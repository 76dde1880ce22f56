"""The vision tower on a CPU: attention and FFN of each block as oneDNN computes them best.

The blocks stay their owner's; these two parts of each are replaced. Query, key and value become one product, weights
are brought once into the layout that oneDNN multiplies in, and GELU is computed while its argument is still at hand.
tests/unit/model/vllm_plugin/test_vision_tower_cpu.py compares with the blocks as they were.
"""

import platform
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from medmoe.model.config import VisionConfig
from medmoe.model.vision_tower import VisionTower

# Of the pictures of one call, how many the tower sees at once: more are not faster (measured up to 32), and what one
# layer hands to the next grows with them, in CLIP's large tower by 9 MB a picture (577 x 4,096 numbers of float32).
AT_ONCE = 16

# oneDNN's names of what it can compute inside a product; CLIP's quick_gelu is none of them.
_FUSED = {"gelu": ("gelu", "none"), "gelu_pytorch_tanh": ("gelu", "tanh")}


class _Names(NamedTuple):
    """Where transformers keeps the parts of a block."""

    blocks: str
    attention: str
    exit: str


_CLIP = _Names("layers", "self_attn", "out_proj")
_NAMES = {"dinov2": _Names("layer", "attention", "o_proj"), "clip": _CLIP, "siglip": _CLIP}


class PackedLinear:
    """Linears of the same input, side by side, with an activation.

    No module, and its tensors are no parameters: nobody copies numbers into a layout that only oneDNN knows.
    """

    def __init__(self, *linears: nn.Linear, activation: tuple[str, str] | None = None) -> None:
        self._bias = torch.cat([linear.bias for linear in linears])
        self._weight = torch.cat([linear.weight for linear in linears])
        self._activation, self._algorithm = activation or ("none", "")
        # torch's own float32 product is as fast, and faster for some numbers of rows (CLIP's 577 of 336 pixels: 1.2
        # times). What is left to win there is the activation.
        self._is_packed = self._weight.dtype != torch.float32 or activation is not None
        if self._is_packed:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(self._weight)

    def __call__(self, x_BND: torch.Tensor) -> torch.Tensor:
        """[B, N, D] -> [B, N, sum of the linears' widths]."""
        if not self._is_packed:
            return F.linear(x_BND, self._weight, self._bias)
        y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            x_BND, self._weight, self._bias, self._activation, [], self._algorithm
        )
        return y


class PackedAttention(nn.Module):
    """In place of a block's attention: every head looks everywhere, without dropout."""

    def __init__(self, attention: Any, names: _Names, *, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self._qkv = PackedLinear(attention.q_proj, attention.k_proj, attention.v_proj)
        self._exit = PackedLinear(getattr(attention, names.exit))

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: Any
    ) -> tuple[torch.Tensor, None]:
        """[B, N, D] -> [B, N, D], and no attention weights."""
        # [3, B, H, N, D / H]: views into one product, which the attention reads where they are.
        q, k, v = self._qkv(hidden_states).unflatten(-1, (3, self._heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=attention_mask)
        return self._exit(mixed.transpose(1, 2).flatten(2)), None


class PackedFFN(nn.Module):
    """In place of a block's two linears with an activation between."""

    def __init__(self, ffn: Any, *, hidden_act: str) -> None:
        super().__init__()
        fused = _FUSED.get(hidden_act)
        self._entry = PackedLinear(ffn.fc1, activation=fused)
        self._act = nn.Identity() if fused else ffn.activation_fn
        self._exit = PackedLinear(ffn.fc2)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """[B, N, D] -> [B, N, D]."""
        return self._exit(self._act(self._entry(hidden_states)))


@torch.no_grad()
def pack(tower: nn.Module, config: VisionConfig) -> bool:
    """Replace the parts of a loaded tower, whose linears are then freed: no other weights can be loaded into it.

    Where that is not known to be right and faster, the tower stays as it is, and the answer is False.
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
    # Where no pictures are served, vLLM has put a placeholder there.
    if not isinstance(tower, VisionTower):
        return False
    weight = next(tower.parameters())
    # Asked first: elsewhere torch may have been built without these operators.
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    # On ARM the same operators are another library's, which nobody has tried here.
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32


def features(tower: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """What `tower` says of [N, 3, size, size] pixels; on a CPU a few pictures at a time, which gives the same."""
    if pixels.device.type != "cpu":
        return tower(pixels)  # type: ignore[no-any-return]
    return torch.cat([tower(few) for few in pixels.split(AT_ONCE)])

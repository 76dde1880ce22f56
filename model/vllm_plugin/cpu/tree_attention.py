"""Compute attention over a tree of tokens: each token sees its ancestors and itself.

Shape letters: T tokens of the tree, H heads, K key and value heads, C channels of a head.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from vllm.model_executor.layers.attention import Attention


def ancestors(parents: Sequence[int]) -> np.ndarray:
    """Return which tokens each token sees, bool [T, T]. A parent comes before its children; -1 is none."""
    seen_TT = np.eye(len(parents), dtype=bool)
    for row, parent in enumerate(parents):
        if parent >= 0:
            seen_TT[row] |= seen_TT[parent]
    return seen_TT


@contextmanager
def tree_attention(decoder: nn.Module, seen_TT: torch.Tensor) -> Iterator[None]:
    """Let each token of `decoder`'s batch see those of `seen_TT`, bool [T, T], inside the block.

    Keys and values come from the batch alone. The KV cache is neither read nor written.
    """
    layers: list[Any] = [module for module in decoder.modules() if isinstance(module, Attention)]
    usual = [layer.impl for layer in layers]
    try:
        for layer in layers:
            layer.impl = _TreeAttention(seen_TT, scale=layer.impl.scale)
        yield
    finally:
        for layer, impl in zip(layers, usual, strict=True):
            layer.impl = impl


class _TreeAttention:
    """Stand for vLLM's implementation in one attention layer."""

    def __init__(self, seen_TT: torch.Tensor, *, scale: float) -> None:
        self._seen_TT = seen_TT
        self._scale = scale

    def forward(
        self,
        layer: nn.Module,
        query_THC: torch.Tensor,
        key_TKC: torch.Tensor,
        value_TKC: torch.Tensor,
        kv_cache: torch.Tensor,
        attn_metadata: None,
        *,
        output: torch.Tensor,
        **_: None,
    ) -> None:
        """Fill `output`, [T, H, C], as vLLM's implementations do."""
        # PyTorch's fused kernel is for four dimensions.
        query_HTC, key_KTC, value_KTC = (x.transpose(0, 1)[None] for x in (query_THC, key_TKC, value_TKC))
        attended_HTC = scaled_dot_product_attention(
            query_HTC,
            key_KTC,
            value_KTC,
            attn_mask=self._seen_TT,
            scale=self._scale,
            enable_gqa=True,
        )[0]
        output.copy_(attended_HTC.transpose(0, 1))

"""Med-MoE-LoRA in vLLM: the decoder's own linears, untouched, and beside them what the adapters add to each.

An adapted block takes over its original's children under their own names, so that the base loads as it always does,
quantised or not. Whether there are adapters is said by adapter_config.json in the checkpoint's directory; how they
compute, by medmoe.model.lora.served_adapter.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from vllm.distributed import (
    get_tensor_model_parallel_rank,
    get_tensor_model_parallel_world_size,
    tensor_model_parallel_all_reduce,
)

from medmoe.model.config import MedMoEConfig
from medmoe.model.lora.adapter_config import AdapterConfig
from medmoe.model.lora.checkpoint import has_adapter, read_adapter
from medmoe.model.lora.export import export_block, shard
from medmoe.model.lora.layout import BlockShape, adapted_blocks
from medmoe.model.lora.served_adapter import GatedLowRank
from medmoe.model.vllm_plugin.layers.tp_shard import TPShard


class AdaptedFFN(nn.Module):
    """vLLM's FFN of any of the backbones, with adapters."""

    def __init__(self, ffn: nn.Module, low_rank: GatedLowRank) -> None:
        super().__init__()
        _adopt(self, ffn)
        self.low_rank = low_rank
        phi = hasattr(ffn, "fc1")
        self._entry, self._exit, self._act = ("fc1", "fc2", "act") if phi else ("gate_up_proj", "down_proj", "act_fn")
        # The adapters' part is added before the sum over ranks.
        getattr(self, self._exit).reduce_results = False

    def forward(self, x_TD: torch.Tensor) -> torch.Tensor:
        """[T, D] -> [T, D]."""
        u, gates = self.low_rank.enter(x_TD)
        y, _ = getattr(self, self._entry)(x_TD)
        hidden = getattr(self, self._act)(self.low_rank.add_packed_entry(y, u))
        out, _ = getattr(self, self._exit)(hidden)
        reduced: torch.Tensor = tensor_model_parallel_all_reduce(self.low_rank.add_exit(out, hidden, gates))
        return reduced


class AdaptedAttention(nn.Module):
    """vLLM's attention of any of the backbones, with adapters; what lies between the linears is called, not copied."""

    def __init__(self, attention: nn.Module, low_rank: GatedLowRank) -> None:
        super().__init__()
        _adopt(self, attention)
        self.low_rank = low_rank
        self._sizes = [len(low_rank.expand[name]) for name in ("q_proj", "k_proj", "v_proj")]
        self._exit = "dense" if hasattr(attention, "dense") else "o_proj"
        getattr(self, self._exit).reduce_results = False

    def forward(self, *, positions: torch.Tensor, hidden_states: torch.Tensor) -> torch.Tensor:
        """Positions [T] and hidden states [T, D] to [T, D]."""
        u, gates = self.low_rank.enter(hidden_states)
        qkv, _ = self.qkv_proj(hidden_states)
        q, k, v = self.low_rank.add_packed_entry(qkv, u).split(self._sizes, dim=-1)
        q, k = self.rotary_emb(positions, q, k)
        mixed = self.attn(q, k, v)
        out, _ = getattr(self, self._exit)(mixed)
        reduced: torch.Tensor = tensor_model_parallel_all_reduce(self.low_rank.add_exit(out, mixed, gates))
        return reduced


class Adapters:
    """All adapters of one checkpoint on one rank's layers."""

    def __init__(self, decoder: Any, directory: Path, config: AdapterConfig, base: MedMoEConfig) -> None:
        """Replaces the adapted blocks of `decoder`'s layers. Raises ConfigError when the adapter does not fit."""
        self._directory = directory
        self._share = TPShard(
            text=base.text_config,
            rank=get_tensor_model_parallel_rank(),
            ranks=get_tensor_model_parallel_world_size(),
        )
        self._blocks: dict[tuple[int, BlockShape], GatedLowRank] = {}
        for block in adapted_blocks(config, base):
            for index in range(decoder.start_layer, decoder.end_layer):
                low_rank = self._empty(config, block, layer=index)
                layer = decoder.layers[index]
                wrap: Any = AdaptedAttention if block.name == "attn" else AdaptedFFN
                setattr(layer, block.place, wrap(getattr(layer, block.place), low_rank))
                self._blocks[index, block] = low_rank

    def parameters(self) -> set[int]:
        """The identity of every parameter that `load` fills."""
        return {id(parameter) for low_rank in self._blocks.values() for parameter in low_rank.parameters()}

    def load(self) -> None:
        """Fill all of them. Raises CheckpointError when the files are malformed or belong to another base."""
        config, tensors = read_adapter(self._directory)
        for (layer, block), low_rank in self._blocks.items():
            low_rank.load(self._own_part(export_block(config, tensors, layer=layer, block=block), block))

    def _empty(self, config: AdapterConfig, block: BlockShape, *, layer: int) -> GatedLowRank:
        split = self._share.ranks > 1
        rows, columns = self._share.slices(block)
        return GatedLowRank(
            block,
            config.layers[layer],
            router_scope=config.router_scope,
            rows={name: part.stop - part.start for name, part in rows.items()} if split else None,
            columns=columns.stop - columns.start if split else None,
            reduce=tensor_model_parallel_all_reduce if split else None,
        )

    def _own_part(self, exported: Mapping[str, torch.Tensor], block: BlockShape) -> Mapping[str, torch.Tensor]:
        if self._share.ranks == 1:
            return exported
        rows, columns = self._share.slices(block)
        return shard(exported, rows=rows, columns=columns)


def attach_adapters(decoder: nn.Module, directory: Path, base: MedMoEConfig) -> Adapters | None:
    """Adapters on `decoder`, whose weights `Adapters.load` brings; None where the directory holds none."""
    if not has_adapter(directory):
        return None
    return Adapters(decoder, directory, AdapterConfig.from_directory(directory), base)


def _adopt(block: nn.Module, original: nn.Module) -> None:
    for name, child in original.named_children():
        block.add_module(name, child)

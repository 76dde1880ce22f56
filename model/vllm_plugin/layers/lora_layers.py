"""Apply Med-MoE-LoRA adapters in vLLM beside the decoder's own linears.

An adapted block adopts its original's children under their names, so that the base loads unchanged, quantised or not.
The arithmetic is in medmoe.model.lora.served_adapter. Shape letters: T tokens, D hidden size, I width of the exit
linear's input, P packed output width of the entry linears, M entry linears, R sum of the ranks.
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
from medmoe.model.lora.served_adapter import GatedLoRA
from medmoe.model.vllm_plugin.layers.tp_shard import TPShard


class AdaptedFFN(nn.Module):
    """vLLM's FFN of any backbone, with adapters."""

    def __init__(self, ffn: nn.Module, lora: GatedLoRA) -> None:
        super().__init__()
        _adopt(self, ffn)
        self.lora = lora
        phi = hasattr(ffn, "fc1")
        self._entry, self._exit, self._act = ("fc1", "fc2", "act") if phi else ("gate_up_proj", "down_proj", "act_fn")
        # The adapters are added before the sum over ranks.
        getattr(self, self._exit).reduce_results = False

    def forward(self, x_TD: torch.Tensor) -> torch.Tensor:
        """Map [T, D] to [T, D]."""
        u_TMR, gates_TR = self.lora.enter(x_TD)
        y_TP, _ = getattr(self, self._entry)(x_TD)
        hidden_TI = getattr(self, self._act)(self.lora.add_packed_entry(y_TP, u_TMR))
        out_TD, _ = getattr(self, self._exit)(hidden_TI)
        reduced_TD: torch.Tensor = tensor_model_parallel_all_reduce(self.lora.add_exit(out_TD, hidden_TI, gates_TR))
        return reduced_TD


class AdaptedAttention(nn.Module):
    """vLLM's attention of any backbone, with adapters."""

    def __init__(self, attention: nn.Module, lora: GatedLoRA) -> None:
        super().__init__()
        _adopt(self, attention)
        self.lora = lora
        self._sizes = [len(lora.expand[name]) for name in ("q_proj", "k_proj", "v_proj")]
        self._exit = "dense" if hasattr(attention, "dense") else "o_proj"
        getattr(self, self._exit).reduce_results = False

    def forward(self, *, positions: torch.Tensor, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map positions [T] and hidden states [T, D] to [T, D]."""
        u_TMR, gates_TR = self.lora.enter(hidden_states)
        qkv_TP, _ = self.qkv_proj(hidden_states)
        q, k, v = self.lora.add_packed_entry(qkv_TP, u_TMR).split(self._sizes, dim=-1)
        q, k = self.rotary_emb(positions, q, k)
        mixed_TI = self.attn(q, k, v)
        out_TD, _ = getattr(self, self._exit)(mixed_TI)
        reduced_TD: torch.Tensor = tensor_model_parallel_all_reduce(self.lora.add_exit(out_TD, mixed_TI, gates_TR))
        return reduced_TD


class Adapters:
    """Hold all adapters of one checkpoint on one rank's layers."""

    def __init__(self, decoder: Any, directory: Path, config: AdapterConfig, base: MedMoEConfig) -> None:
        """Replace the adapted blocks of `decoder`'s layers. Raises ConfigError when the adapter does not fit."""
        self._directory = directory
        self._shard = TPShard(
            text=base.text_config,
            rank=get_tensor_model_parallel_rank(),
            ranks=get_tensor_model_parallel_world_size(),
        )
        self._blocks: dict[tuple[int, BlockShape], GatedLoRA] = {}
        for block in adapted_blocks(config, base):
            for index in range(decoder.start_layer, decoder.end_layer):
                lora = self._empty(config, block, layer=index)
                layer = decoder.layers[index]
                wrap: Any = AdaptedAttention if block.name == "attn" else AdaptedFFN
                setattr(layer, block.place, wrap(getattr(layer, block.place), lora))
                self._blocks[index, block] = lora

    def parameters(self) -> set[int]:
        """Return the `id` of every parameter that `load` fills."""
        return {id(parameter) for lora in self._blocks.values() for parameter in lora.parameters()}

    def load(self) -> None:
        """Fill every parameter. Raises CheckpointError when the files are malformed or belong to another base."""
        config, tensors = read_adapter(self._directory)
        for (layer, block), lora in self._blocks.items():
            lora.load(self._part(export_block(config, tensors, layer=layer, block=block), block))

    def _empty(self, config: AdapterConfig, block: BlockShape, *, layer: int) -> GatedLoRA:
        split = self._shard.ranks > 1
        rows, columns = self._shard.slices(block)
        return GatedLoRA(
            block,
            config.layers[layer],
            router_scope=config.router_scope,
            rows={name: part.stop - part.start for name, part in rows.items()} if split else None,
            columns=columns.stop - columns.start if split else None,
            reduce=tensor_model_parallel_all_reduce if split else None,
        )

    def _part(self, exported: Mapping[str, torch.Tensor], block: BlockShape) -> Mapping[str, torch.Tensor]:
        if self._shard.ranks == 1:
            return exported
        rows, columns = self._shard.slices(block)
        return shard(exported, rows=rows, columns=columns)


def attach_adapters(decoder: nn.Module, directory: Path, base: MedMoEConfig) -> Adapters | None:
    """Attach empty adapters to `decoder`, to be filled by `Adapters.load`; None when the directory holds none."""
    if not has_adapter(directory):
        return None
    return Adapters(decoder, directory, AdapterConfig.from_directory(directory), base)


def _adopt(block: nn.Module, original: nn.Module) -> None:
    for name, child in original.named_children():
        block.add_module(name, child)

"""Attach adapters to a built model: freeze the base and replace each adapted block in place."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from medmoe.model.lora.adapted_block import AdaptedBlock, ServedAdapter, TokenTags, TrainableAdapter
from medmoe.model.lora.adapter_config import AdapterConfig, Isolation
from medmoe.model.lora.experts import LoRAExperts
from medmoe.model.lora.export import export_block
from medmoe.model.lora.layout import BlockShape, adapted_blocks
from medmoe.model.lora.router import GateRouter
from medmoe.model.lora.served_adapter import GatedLoRA
from medmoe.model.medmoe import MedMoE


@dataclass(frozen=True, kw_only=True, slots=True)
class RouterState:
    """Hold one router and the gates of its last forward."""

    router: GateRouter
    n_anchor: int
    gates: torch.Tensor | None
    """[B, L, N], before expert dropout; None before the first forward."""


class TrainableAdapters:
    """Hold a model's adapters while they are trained."""

    def __init__(self, config: AdapterConfig, *, tags: TokenTags) -> None:
        self.config = config
        self._tags = tags
        self._blocks: dict[tuple[int, str], TrainableAdapter] = {}

    def add(self, adapter: TrainableAdapter, *, layer: int, block: BlockShape) -> None:
        self._blocks[layer, block.name] = adapter

    @contextmanager
    def tagged(self, general: torch.Tensor) -> Iterator[None]:
        """Mark the tokens (bool [B, L]) of the general domain for the batch inside the context.

        Outside the context nothing is isolated. A forward that gradient checkpointing repeats in the backward pass must
        lie inside too.
        """
        self._tags.general = general
        try:
            yield
        finally:
            self._tags.general = None

    @contextmanager
    def off(self) -> Iterator[None]:
        """Switch the adapters off inside the context: the outputs are the base model's, bit for bit."""
        self._tags.enabled = False
        try:
            yield
        finally:
            self._tags.enabled = True

    def routers(self) -> dict[str, RouterState]:
        """Return every router by its prefix on disk."""
        states = {}
        for (layer, block), adapter in self._blocks.items():
            for name, router in adapter.routers.items():
                assert isinstance(router, GateRouter)
                states[f"layers.{layer}.{block if name == 'block' else name}.router"] = RouterState(
                    router=router, n_anchor=self.config.layers[layer].n_anchor, gates=adapter.gates.get(name)
                )
        return states

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the tensors of adapter_model.safetensors in its dtypes, on the CPU."""
        dtype = getattr(torch, self.config.dtype)
        tensors = {}
        for name, state in self.routers().items():
            tensors[f"{name}.weight"] = state.router.weight.detach().float().cpu()
            tensors[f"{name}.log_tau"] = state.router.log_tau.detach().float().cpu()
        for prefix, experts in self._linears():
            lora_a, lora_b = experts.stored()
            tensors[f"{prefix}.lora_A"] = lora_a.detach().to(dtype).cpu()
            tensors[f"{prefix}.lora_B"] = lora_b.detach().to(dtype).cpu()
        return tensors

    @torch.no_grad()
    def fill(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Copy `tensors`, which medmoe.model.lora.checkpoint.read_adapter has checked."""
        for name, state in self.routers().items():
            state.router.weight.copy_(tensors[f"{name}.weight"])
            state.router.log_tau.copy_(tensors[f"{name}.log_tau"])
        for prefix, experts in self._linears():
            experts.fill(tensors[f"{prefix}.lora_A"], tensors[f"{prefix}.lora_B"])

    def _linears(self) -> Iterator[tuple[str, LoRAExperts]]:
        for (layer, _), adapter in self._blocks.items():
            for name, experts in adapter.experts.items():
                assert isinstance(experts, LoRAExperts)
                yield f"layers.{layer}.{name}", experts


def attach_trainable(
    model: MedMoE,
    config: AdapterConfig,
    *,
    isolate: Isolation = "anchors",
    dropout: float = 0.05,
    expert_dropout: float = 0.1,
) -> TrainableAdapters:
    """Freeze `model` and put fresh adapters on it, in place; its outputs are the base model's, bit for bit.

    Dropout and expert dropout act in training mode only. Raises ConfigError when the adapter does not fit the model.
    """
    blocks = adapted_blocks(config, model.config)
    tags = TokenTags()
    adapters = TrainableAdapters(config, tags=tags)
    model.requires_grad_(False)
    for index, layer in enumerate(model.language_model.model.layers):
        for block in blocks:
            adapter = TrainableAdapter(
                config,
                block,
                layer=index,
                tags=tags,
                isolate=isolate,
                dropout=dropout,
                expert_dropout=expert_dropout,
            )
            _replace(layer, adapter, block=block)
            adapters.add(adapter, layer=index, block=block)
    return adapters


def attach_served(model: MedMoE, config: AdapterConfig, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put trained adapters on `model`, in place, in the form in which they are served.

    Raises ConfigError when the adapter does not fit the model.
    """
    blocks = adapted_blocks(config, model.config)
    model.requires_grad_(False)
    dtype = next(model.language_model.parameters()).dtype
    for index, layer in enumerate(model.language_model.model.layers):
        for block in blocks:
            lora = GatedLoRA(
                block,
                config.layers[index],
                router_scope=config.router_scope,
                dtype=dtype,
            )
            lora.load(export_block(config, tensors, layer=index, block=block))
            _replace(layer, ServedAdapter(lora), block=block)


def _replace(layer: nn.Module, adapter: TrainableAdapter | ServedAdapter, *, block: BlockShape) -> None:
    inner = getattr(layer, block.place)
    adapter.to(next(inner.parameters()).device)
    setattr(layer, block.place, AdaptedBlock(inner, adapter, shape=block).train(layer.training))

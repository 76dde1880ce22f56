"""A decoder's own FFN or attention with adapters on its linears: somebody else's block, we add to what its linears say.

The block's forward is not rewritten. It calls its linears as ever; each of them is wrapped and asks the block's adapter
what to add. What the adapter learnt from the block's input (the gates) it keeps between those calls.
"""

from typing import Protocol

import torch
from torch import nn

from medmoe.model.lora.adapter_config import AdapterConfig, Isolation
from medmoe.model.lora.experts import LoRAExperts
from medmoe.model.lora.layout import BlockShape
from medmoe.model.lora.router import GateRouter, drop_experts
from medmoe.model.lora.served_adapter import GatedLowRank


class Adapter(Protocol):
    """What a wrapped block needs: told its input first, then asked once for every linear."""

    def begin(self, x: torch.Tensor) -> None: ...

    def add(self, name: str, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor: ...


class TokenTags:
    """What the adapters of a model are told about the batch, shared by all of them."""

    def __init__(self) -> None:
        self.general: torch.Tensor | None = None
        """Bool [B, L]: tokens of general-domain samples; None isolates nothing."""
        self.enabled = True
        """False leaves the base model as it was."""


class TrainableAdapter(nn.Module):
    """One block's routers and experts, with gradients; keeps the gates of its last call for the losses."""

    def __init__(
        self,
        config: AdapterConfig,
        block: BlockShape,
        *,
        layer: int,
        tags: TokenTags,
        isolate: Isolation = "anchors",
        dropout: float = 0.0,
        expert_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        experts = config.layers[layer]
        per_linear = config.router_scope == "module"
        owners = {linear.name: linear.in_features for linear in block.linears} if per_linear else {"": block.width}
        self.experts = nn.ModuleDict(
            {
                linear.name: LoRAExperts(
                    linear, experts, anchor_mode=config.anchor_mode, isolate=isolate, dropout=dropout
                )
                for linear in block.linears
            }
        )
        self.routers = nn.ModuleDict()
        if experts.n_experts > 1:
            for name, width in owners.items():
                self.routers[name or "block"] = GateRouter(
                    width=width, n_experts=experts.n_experts, tau_clamp=config.tau_clamp
                )
        self.gates: dict[str, torch.Tensor] = {}
        """By router: gates [..., N] before expert dropout."""
        self._mixed: torch.Tensor | None = None
        self._tags = tags
        self._expert_dropout = expert_dropout

    def begin(self, x: torch.Tensor) -> None:
        if self._tags.enabled and "block" in self.routers:
            self._mixed = self._route("block", x)

    def add(self, name: str, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if not self._tags.enabled:
            return y
        mixed = self._route(name, x) if name in self.routers else self._mixed
        delta: torch.Tensor = self.experts[name](x, mixed, general=self._tags.general)
        return y + delta.to(y.dtype)

    def _route(self, name: str, x: torch.Tensor) -> torch.Tensor:
        gates: torch.Tensor = self.routers[name](x)
        self.gates[name] = gates
        if self.training and self._expert_dropout:
            return drop_experts(gates, probability=self._expert_dropout)
        return gates


class ServedAdapter(nn.Module):
    """One block's adapters in the served form, asked one linear at a time."""

    def __init__(self, low_rank: GatedLowRank) -> None:
        super().__init__()
        self.low_rank = low_rank
        self._u: torch.Tensor | None = None
        self._gates: torch.Tensor | None = None

    def begin(self, x: torch.Tensor) -> None:
        self._u, self._gates = self.low_rank.enter(x.reshape(-1, x.shape[-1]))

    def add(self, name: str, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        flat = y.reshape(-1, y.shape[-1])
        if name == self.low_rank.exit_name:
            added = self.low_rank.add_exit(flat, x.reshape(-1, x.shape[-1]), self._gates)
        else:
            assert self._u is not None, "begin() comes first"
            added = self.low_rank.add_entry(flat, self._u, name)
        return added.view_as(y)


class AdaptedLinear(nn.Module):
    """A linear of the block, and what the adapter adds to its output."""

    def __init__(self, linear: nn.Module, *, name: str, adapter: Adapter) -> None:
        super().__init__()
        self.linear = linear
        self._name = name
        # Not a submodule: its parameters belong to the block, and are listed once.
        self._adapter = (adapter,)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._adapter[0].add(self._name, x, self.linear(x))


class AdaptedBlock(nn.Module):
    """Takes the place of a decoder layer's `mlp` or `self_attn`."""

    def __init__(self, block: nn.Module, adapter: TrainableAdapter | ServedAdapter, *, shape: BlockShape) -> None:
        super().__init__()
        self.block = block
        self.adapter = adapter
        for linear in shape.linears:
            setattr(block, linear.name, AdaptedLinear(getattr(block, linear.name), name=linear.name, adapter=adapter))

    def forward(self, hidden_states: torch.Tensor, *args: object, **kwargs: object) -> object:
        """Whatever the block returns; `hidden_states` is its normed input [..., D]."""
        self.adapter.begin(hidden_states)
        return self.block(hidden_states, *args, **kwargs)

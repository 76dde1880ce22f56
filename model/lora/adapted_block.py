"""Wrap a decoder's FFN or attention so that adapters add to the outputs of its linears.

The block's own forward is called unchanged. Each of its linears is wrapped and asks the block's adapter what to add.
Between those calls the adapter keeps the gates that it computed from the block's input. Shape letters: T tokens (any
number of leading dimensions), D width of the block's input, I input and O output width of a linear, N experts,
M entry linears, R sum of the ranks.
"""

from typing import Protocol

import torch
from torch import nn

from medmoe.model.lora.adapter_config import AdapterConfig, Isolation
from medmoe.model.lora.experts import LoRAExperts
from medmoe.model.lora.layout import BlockShape
from medmoe.model.lora.router import GateRouter, drop_experts
from medmoe.model.lora.served_adapter import GatedLoRA


class Adapter(Protocol):
    """Interface that a wrapped block calls: `begin` with its input, then `add` once for every linear."""

    def begin(self, x_TD: torch.Tensor) -> None: ...

    def add(self, name: str, x_TI: torch.Tensor, y_TO: torch.Tensor) -> torch.Tensor: ...


class TokenTags:
    """Hold facts about the current batch that all adapters of a model share."""

    def __init__(self) -> None:
        self.general: torch.Tensor | None = None
        """Bool [B, L]: tokens of general-domain samples; None isolates nothing."""
        self.enabled = True
        """False leaves the base model as it was."""


class TrainableAdapter(nn.Module):
    """Hold one block's routers and experts with gradients, and the gates of its last call for the losses."""

    def __init__(
        self,
        config: AdapterConfig,
        block: BlockShape,
        *,
        layer: int,
        tags: TokenTags,
        isolate: Isolation,
        dropout: float,
        expert_dropout: float,
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
        """Gates [..., N] by router, before expert dropout."""
        self._gates_TN: torch.Tensor | None = None
        self._tags = tags
        self._expert_dropout = expert_dropout

    def begin(self, x_TD: torch.Tensor) -> None:
        """Compute the block's gates from its input [..., D]."""
        if self._tags.enabled and "block" in self.routers:
            self._gates_TN = self._route("block", x_TD)

    def add(self, name: str, x_TI: torch.Tensor, y_TO: torch.Tensor) -> torch.Tensor:
        """Return the output [..., O] of linear `name` plus its experts' on its input [..., I]."""
        if not self._tags.enabled:
            return y_TO
        gates_TN = self._route(name, x_TI) if name in self.routers else self._gates_TN
        delta_TO: torch.Tensor = self.experts[name](x_TI, gates_TN, general=self._tags.general)
        return y_TO + delta_TO.to(y_TO.dtype)

    def _route(self, name: str, x_TD: torch.Tensor) -> torch.Tensor:
        gates_TN: torch.Tensor = self.routers[name](x_TD)
        self.gates[name] = gates_TN
        if self.training and self._expert_dropout:
            return drop_experts(gates_TN, probability=self._expert_dropout)
        return gates_TN


class ServedAdapter(nn.Module):
    """Apply one block's adapters in the served form, one linear at a time."""

    def __init__(self, lora: GatedLoRA) -> None:
        super().__init__()
        self.lora = lora
        self._u_TMR: torch.Tensor | None = None
        self._gates_TR: torch.Tensor | None = None

    def begin(self, x_TD: torch.Tensor) -> None:
        """Compute the entry linears' low-rank states and the gates from the block's input [..., D]."""
        self._u_TMR, self._gates_TR = self.lora.enter(x_TD.flatten(0, -2))

    def add(self, name: str, x_TI: torch.Tensor, y_TO: torch.Tensor) -> torch.Tensor:
        """Return the output [..., O] of linear `name` plus its experts' on its input [..., I]."""
        flat_TO = y_TO.flatten(0, -2)
        if name == self.lora.exit_name:
            added_TO = self.lora.add_exit(flat_TO, x_TI.flatten(0, -2), self._gates_TR)
        else:
            assert self._u_TMR is not None, "begin() comes first"
            added_TO = self.lora.add_entry(flat_TO, self._u_TMR, name)
        return added_TO.view_as(y_TO)


class AdaptedLinear(nn.Module):
    """Add an adapter's output to that of a linear of the block."""

    def __init__(self, linear: nn.Module, *, name: str, adapter: Adapter) -> None:
        super().__init__()
        self.linear = linear
        self._name = name
        # Not a submodule: its parameters belong to the block, and are listed once.
        self._adapter = (adapter,)

    def forward(self, x_TI: torch.Tensor) -> torch.Tensor:
        """Map inputs [..., I] to outputs [..., O]."""
        return self._adapter[0].add(self._name, x_TI, self.linear(x_TI))


class AdaptedBlock(nn.Module):
    """Replace a decoder layer's `mlp` or `self_attn`."""

    def __init__(self, block: nn.Module, adapter: TrainableAdapter | ServedAdapter, *, shape: BlockShape) -> None:
        super().__init__()
        self.block = block
        self.adapter = adapter
        for linear in shape.linears:
            setattr(block, linear.name, AdaptedLinear(getattr(block, linear.name), name=linear.name, adapter=adapter))

    def forward(self, hidden_states: torch.Tensor, *args: object, **kwargs: object) -> object:
        """Return what the block returns for its normed input `hidden_states` [..., D]."""
        self.adapter.begin(hidden_states)
        return self.block(hidden_states, *args, **kwargs)

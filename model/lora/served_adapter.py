"""Compute one block's adapters for serving: one concatenated shrink product, per-rank gates, one expand per linear.

Shape letters: T tokens, D width of the block's input, I width of the exit linear's input, O output width of a linear,
M entry linears, N experts, R sum of the ranks, G routers of the entry (1, or M when every linear has its own),
S rows of a shrink product.

    h = x shrink^T                              shrink [M R + padding, D]: A_1 .. A_M
    u_m = h[mR : (m+1)R] * softmax(x router^T)[segment]
    y_m += u_m expand_m^T                       expand_m [out_m, R] = B_m diag(alpha / rank)

All shapes are independent of the data, so the module compiles and its CUDA graph is captured once. The base linears are
called by the block and may be quantised.
"""

from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.nn import functional as F

from medmoe.model.lora.adapter_config import LayerExperts, RouterScope
from medmoe.model.lora.layout import BlockShape

Reduce = Callable[[torch.Tensor], torch.Tensor]


class GatedLoRA(nn.Module):
    """Hold and apply the adapters of one block; `load` fills the parameters from `medmoe.model.lora.export`."""

    segment: torch.Tensor

    def __init__(
        self,
        block: BlockShape,
        layer: LayerExperts,
        *,
        router_scope: RouterScope,
        rows: Mapping[str, int] | None = None,
        columns: int | None = None,
        reduce: Reduce | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Allocate in `dtype` (torch's default if None) on the default device; routers are float32.

        `rows`, `columns`: this rank's part of each entry linear's output and of the exit linear's input under tensor
        parallelism (whole by default). `reduce` sums over ranks, needed by a router of the exit linear's own, whose
        input is split.
        """
        super().__init__()
        rows = rows or {}
        self.names = tuple(linear.name for linear in block.entry)
        self.exit_name = block.exit.name
        self.total_rank, self.n_experts = layer.total_rank, layer.n_experts
        self.per_linear = router_scope == "module"
        self.routed = layer.n_experts > 1
        self._reduce = reduce
        inner = block.exit.in_features if columns is None else columns
        self.routers = len(self.names) if self.per_linear else 1
        self.shrink = _weight(shrink_rows(len(self.names) * self.total_rank), block.width, dtype)
        self.expand = nn.ParameterDict(
            {
                linear.name: _weight(rows.get(linear.name, linear.out_features), self.total_rank, dtype)
                for linear in block.entry
            }
        )
        self.exit_shrink = _weight(shrink_rows(self.total_rank), inner, dtype)
        self.exit_expand = _weight(block.exit.out_features, self.total_rank, dtype)
        self.router = _weight(self.routers * self.n_experts, block.width, torch.float32) if self.routed else None
        own_exit = self.routed and self.per_linear
        self.exit_router = _weight(self.n_experts, inner, torch.float32) if own_exit else None
        self.register_buffer("segment", torch.tensor(layer.segment, dtype=torch.long), persistent=False)

    def enter(self, x_TD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return gated low-rank states [T, M, R] of the block input [T, D], and the gates [T, R] that the exit reuses.

        The gates are None for a single expert, or when the exit linear has its own router.
        """
        h_TS = F.linear(x_TD, self.shrink)
        u_TMR = h_TS[:, : len(self.names) * self.total_rank].unflatten(-1, (len(self.names), self.total_rank))
        if self.router is None:
            return u_TMR, None
        logits = F.linear(x_TD.to(self.router.dtype), self.router)
        gates_TGR = self._per_rank(logits.unflatten(-1, (self.routers, self.n_experts)))
        return (u_TMR * gates_TGR).to(u_TMR.dtype), None if self.per_linear else gates_TGR[:, 0]

    def add_entry(self, y_TO: torch.Tensor, u_TMR: torch.Tensor, name: str) -> torch.Tensor:
        """Return the output [T, O] of the entry linear `name` plus its experts' for the states of `enter`."""
        return torch.addmm(y_TO, u_TMR[:, self.names.index(name)], self.expand[name].t())

    def add_packed_entry(self, y_TO: torch.Tensor, u_TMR: torch.Tensor) -> torch.Tensor:
        """Add to the packed output of all entry linears ([q; k; v] or [gate; up]) in place, and return it."""
        start = 0
        for index, name in enumerate(self.names):
            expand_OR = self.expand[name]
            y_TO[:, start : start + len(expand_OR)].addmm_(u_TMR[:, index], expand_OR.t())
            start += len(expand_OR)
        return y_TO

    def add_exit(self, y_TD: torch.Tensor, x_TI: torch.Tensor, gates_TR: torch.Tensor | None) -> torch.Tensor:
        """Return the exit linear's output [T, D] plus its experts' on its input [T, I], with the gates of `enter`.

        Under tensor parallelism `y_TD` and the result are this rank's partial sums, before the all-reduce.
        """
        u_TR = F.linear(x_TI, self.exit_shrink)[:, : self.total_rank]
        if self.exit_router is not None:
            logits_TN = F.linear(x_TI.to(self.exit_router.dtype), self.exit_router)
            # Logits of a split input are partial sums: the softmax of a part is not a part of the softmax.
            gates_TR = self._per_rank(logits_TN if self._reduce is None else self._reduce(logits_TN))
        if gates_TR is not None:
            u_TR = (u_TR * gates_TR).to(u_TR.dtype)
        return torch.addmm(y_TD, u_TR, self.exit_expand.t())

    @torch.no_grad()
    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Copy the tensors of one block. Raises ValueError naming what is missing, unknown or misshapen."""
        own = dict(self.named_parameters())
        problems = sorted(own.keys() ^ tensors.keys()) + [
            f"{name} {tuple(tensors[name].shape)} for {tuple(parameter.shape)}"
            for name, parameter in own.items()
            if name in tensors and tensors[name].shape != parameter.shape
        ]
        if problems:
            raise ValueError(f"these tensors do not fit the block: {', '.join(problems)}")
        for name, parameter in own.items():
            parameter.copy_(tensors[name])

    def _per_rank(self, logits: torch.Tensor) -> torch.Tensor:
        """Map router logits [..., N] to the gate of each rank [..., R], in at least float32."""
        dtype = torch.promote_types(logits.dtype, torch.float32)
        return logits.to(dtype).softmax(dim=-1)[..., self.segment]


def shrink_rows(rows: int) -> int:
    """Round up to a multiple of 16, which GEMM kernels prefer."""
    return -(-rows // 16) * 16


def _weight(rows: int, columns: int, dtype: torch.dtype | None) -> nn.Parameter:
    return nn.Parameter(torch.zeros(rows, columns, dtype=dtype), requires_grad=False)

"""The adapters of one block as they are served: one concatenated shrink product, per-rank gates, one expand per linear.

Shape letters: T tokens, D width of the block's input, I width of the exit linear's input, M entry linears, N experts,
R sum of the ranks, G routers of the entry (1, or M when every linear has its own).

    h = x shrink^T                              shrink [M R (+ G N) + padding, D]: A_1 .. A_M, router rows W / tau
    u_m = h[mR : (m+1)R] * softmax(logits)[segment]
    y_m += u_m expand_m^T                       expand_m [out_m, R] = B_m diag(alpha / rank)

Plain matrix products: no sort, no scatter, no shape that depends on data, so that it compiles and its graph is captured
once. The base linears are called elsewhere and stay as they are, quantised or not.
"""

from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.nn import functional as F

from medmoe.model.lora.adapter_config import LayerExperts, RouterScope
from medmoe.model.lora.layout import BlockShape

Reduce = Callable[[torch.Tensor], torch.Tensor]


class GatedLowRank(nn.Module):
    """One block's adapters; parameters are filled by `load`, from what medmoe.model.lora.export gives."""

    segment: torch.Tensor

    def __init__(
        self,
        block: BlockShape,
        layer: LayerExperts,
        *,
        router_scope: RouterScope,
        router_in_shrink: bool = False,
        rows: Mapping[str, int] | None = None,
        columns: int | None = None,
        reduce: Reduce | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Allocates in `dtype` (torch's default if None) on the default device; a separate router is float32.

        `router_in_shrink`: the router's rows ride in the shrink product and are rounded with it; otherwise they are a
        product of their own in float32. `rows`, `columns`: this rank's part of each entry linear's output and of the
        exit linear's input under tensor parallelism (whole by default). `reduce` sums over ranks, needed by a router of
        the exit linear's own, whose input is split.
        """
        super().__init__()
        rows = rows or {}
        self.names = tuple(linear.name for linear in block.entry)
        self.exit_name = block.exit.name
        self.total_rank, self.n_experts = layer.total_rank, layer.n_experts
        self.per_linear = router_scope == "module"
        self.routed = layer.n_experts > 1
        self.in_shrink = router_in_shrink and self.routed
        self._reduce = reduce
        inner = block.exit.in_features if columns is None else columns
        self.routers = len(self.names) if self.per_linear else 1
        self.shrink = _weight(self._shrink_rows(len(self.names), self.routers), block.width, dtype)
        self.expand = nn.ParameterDict(
            {
                linear.name: _weight(rows.get(linear.name, linear.out_features), self.total_rank, dtype)
                for linear in block.entry
            }
        )
        self.exit_shrink = _weight(self._shrink_rows(1, 1 if self.per_linear else 0), inner, dtype)
        self.exit_expand = _weight(block.exit.out_features, self.total_rank, dtype)
        separate = self.routed and not self.in_shrink
        self.router = _weight(self.routers * self.n_experts, block.width, torch.float32) if separate else None
        self.exit_router = _weight(self.n_experts, inner, torch.float32) if separate and self.per_linear else None
        self.register_buffer("segment", torch.tensor(layer.segment, dtype=torch.long), persistent=False)

    def enter(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Block input [T, D] to gated low-rank states [T, M, R] and the gates per rank [T, R] that the exit reuses.

        The second is None when the exit needs none: a single expert, or a router of its own.
        """
        h = F.linear(x, self.shrink)
        u = h[:, : len(self.names) * self.total_rank].unflatten(-1, (len(self.names), self.total_rank))
        if not self.routed:
            return u, None
        if self.router is None:
            start = len(self.names) * self.total_rank
            logits = h[:, start : start + self.routers * self.n_experts]
        else:
            logits = F.linear(x.to(self.router.dtype), self.router)
        gates = self._per_rank(logits.unflatten(-1, (self.routers, self.n_experts)))
        return (u * gates).to(u.dtype), None if self.per_linear else gates[:, 0]

    def add_entry(self, y: torch.Tensor, u: torch.Tensor, name: str) -> torch.Tensor:
        """The output [T, out] of the entry linear `name` plus its experts; `u` is what `enter` gave."""
        return torch.addmm(y, u[:, self.names.index(name)], self.expand[name].t())

    def add_packed_entry(self, y: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        """The same for all entry linears packed side by side ([q; k; v], [gate; up]); writes into `y`, returns it."""
        start = 0
        for index, name in enumerate(self.names):
            expand = self.expand[name]
            y[:, start : start + len(expand)].addmm_(u[:, index], expand.t())
            start += len(expand)
        return y

    def add_exit(self, y: torch.Tensor, x: torch.Tensor, gates: torch.Tensor | None) -> torch.Tensor:
        """The exit linear's output [T, D] plus its experts on its input [T, I]; `gates` is what `enter` gave.

        Under tensor parallelism `y` is this rank's partial sum, before the base linear's all-reduce, and so is the
        result.
        """
        h = F.linear(x, self.exit_shrink)
        u = h[:, : self.total_rank]
        if self.routed and self.per_linear:
            if self.exit_router is None:
                logits = h[:, self.total_rank : self.total_rank + self.n_experts]
            else:
                logits = F.linear(x.to(self.exit_router.dtype), self.exit_router)
            # Logits of a split input are partial sums: the softmax of a part is not a part of the softmax.
            gates = self._per_rank(logits if self._reduce is None else self._reduce(logits))
        if gates is not None:
            u = (u * gates).to(u.dtype)
        return torch.addmm(y, u, self.exit_expand.t())

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
        dtype = torch.promote_types(logits.dtype, torch.float32)
        return logits.to(dtype).softmax(dim=-1)[..., self.segment]

    def _shrink_rows(self, linears: int, routers: int) -> int:
        return shrink_rows(linears * self.total_rank + (routers * self.n_experts if self.in_shrink else 0))


def shrink_rows(rows: int) -> int:
    """Rounded up to a multiple of 16, which GEMM kernels want."""
    return -(-rows // 16) * 16


def _weight(rows: int, columns: int, dtype: torch.dtype | None) -> nn.Parameter:
    return nn.Parameter(torch.zeros(rows, columns, dtype=dtype), requires_grad=False)

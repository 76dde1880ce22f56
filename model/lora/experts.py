"""The experts of one adapted linear, as they are trained: concatenated along the rank, each rank under its gate.

Shape letters: T tokens, N experts, R sum of the ranks.

    z = drop(x) A^T                     A [R, in]: the experts' A one below the other
    y = (g[segment] * c * z) B^T        B [out, R]; c = alpha / rank, g [N] the gates, segment maps a rank to its expert

This equals sum_i g_i c_i B_i A_i x of the paper's equations 1 and 4, unequal ranks included, but keeps T x R instead of
N tensors of T x out for the backward pass.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from medmoe.model.lora.adapter_config import AnchorMode, Isolation, LayerExperts
from medmoe.model.lora.layout import LinearShape


class ExpertGroup(nn.Module):
    """Some consecutive experts of a linear: all of its anchors, or all of its specialists."""

    segment: torch.Tensor
    scale: torch.Tensor

    def __init__(self, linear: LinearShape, *, ranks: Sequence[int], scales: Sequence[float], first: int) -> None:
        """`first`: the group's first expert among the layer's. A is random, B zero: the sum starts as nothing."""
        super().__init__()
        self.A = nn.Parameter(torch.empty(sum(ranks), linear.in_features))
        self.B = nn.Parameter(torch.zeros(linear.out_features, sum(ranks)))
        for rows in self.A.detach().split(list(ranks)):
            if len(rows):
                nn.init.kaiming_uniform_(rows, a=math.sqrt(5))
        counts = torch.tensor(ranks)
        self.register_buffer("segment", first + torch.arange(len(ranks)).repeat_interleave(counts), persistent=False)
        self.register_buffer("scale", torch.tensor(scales).repeat_interleave(counts), persistent=False)

    def forward(
        self, x: torch.Tensor, gates: torch.Tensor | None, *, learns: torch.Tensor | None = None
    ) -> torch.Tensor:
        """[..., in] and gates [..., N] (None: all 1) to [..., out].

        `learns` (bool [...]): only these tokens give A and B a gradient. Values, and the gradients of gates and input,
        are the same with and without it.
        """
        y = self._product(x, gates, self.A, self.B)
        if learns is None:
            return y
        held = self._product(x, gates, self.A.detach(), self.B.detach())
        return torch.where(learns[..., None], y, held)

    def _product(self, x: torch.Tensor, gates: torch.Tensor | None, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        weight = self.scale if gates is None else gates[..., self.segment] * self.scale
        z = F.linear(x.to(a.dtype), a)
        return F.linear(z * weight.to(z.dtype), b)


class LoRAExperts(nn.Module):
    """All experts of one linear; what is added to its output."""

    def __init__(
        self,
        linear: LinearShape,
        layer: LayerExperts,
        *,
        anchor_mode: AnchorMode,
        isolate: Isolation = "anchors",
        dropout: float = 0.0,
    ) -> None:
        """`isolate`: which group learns from its own kind of token only; specialists' kind is medical."""
        super().__init__()
        cut = layer.n_anchor
        ranks, scales = layer.ranks, layer.scales
        self.anchors = None
        if any(ranks[:cut]):
            self.anchors = ExpertGroup(linear, ranks=ranks[:cut], scales=scales[:cut], first=0)
            self.anchors.requires_grad_(anchor_mode != "frozen")
        self.specialists = ExpertGroup(linear, ranks=ranks[cut:], scales=scales[cut:], first=cut)
        # One mask for all experts: independent masks would make their mixture noisier than any of them.
        self.dropout = nn.Dropout(dropout)
        self._isolate_anchors = isolate != "none" and anchor_mode == "replay"
        self._isolate_specialists = isolate == "both"

    def forward(
        self, x: torch.Tensor, gates: torch.Tensor | None, *, general: torch.Tensor | None = None
    ) -> torch.Tensor:
        """[..., in] and gates [..., N] to [..., out].

        `general` (bool [...]): tokens of general-domain samples; None isolates nothing.
        """
        x = self.dropout(x)
        medical = ~general if general is not None and self._isolate_specialists else None
        y: torch.Tensor = self.specialists(x, gates, learns=medical)
        if self.anchors is not None:
            y = y + self.anchors(x, gates, learns=general if self._isolate_anchors else None)
        return y

    def stored(self) -> tuple[torch.Tensor, torch.Tensor]:
        """lora_A [R, in] and lora_B [out, R] as they lie on disk: anchors first, unscaled."""
        groups = [group for group in (self.anchors, self.specialists) if group is not None]
        return torch.cat([group.A for group in groups]), torch.cat([group.B for group in groups], dim=1)

    @torch.no_grad()
    def fill(self, lora_a: torch.Tensor, lora_b: torch.Tensor) -> None:
        """Copy tensors as `stored` returns them."""
        start = 0
        for group in (self.anchors, self.specialists):
            if group is not None:
                end = start + len(group.A)
                group.A.copy_(lora_a[start:end])
                group.B.copy_(lora_b[:, start:end])
                start = end

"""Compute the experts of one adapted linear in training, concatenated along the rank, each rank times its gate.

Shape letters: T tokens (any number of leading dimensions), I input width, O output width, N experts, R sum of the
ranks.

    z = drop(x) A^T                     A [R, I]: the experts' A one below the other
    y = (g[segment] * c * z) B^T        B [O, R]; c = alpha / rank, g [N] the gates, segment maps a rank to its expert

This equals sum_i g_i c_i B_i A_i x of the paper's equations 1 and 4, unequal ranks included, but keeps T x R instead of
N tensors of T x O for the backward pass.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from medmoe.model.lora.adapter_config import AnchorMode, Isolation, LayerExperts
from medmoe.model.lora.layout import LinearShape


class ExpertGroup(nn.Module):
    """Hold consecutive experts of a linear: all of its anchors, or all of its specialists."""

    segment: torch.Tensor
    scale: torch.Tensor

    def __init__(self, linear: LinearShape, *, ranks: Sequence[int], scales: Sequence[float], first: int) -> None:
        """Draw A at random and set B to zero, so that the sum starts at zero.

        `first`: index of the group's first expert in the layer.
        """
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
        self, x_TI: torch.Tensor, gates_TN: torch.Tensor | None, *, learns: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Map inputs [..., I] and gates [..., N] (None: all 1) to [..., O].

        `learns` (bool [...]): only these tokens give A and B a gradient. Values, and the gradients of gates and input,
        are the same with and without it.
        """
        y_TO = self._product(x_TI, gates_TN, self.A, self.B)
        if learns is None:
            return y_TO
        held_TO = self._product(x_TI, gates_TN, self.A.detach(), self.B.detach())
        return torch.where(learns[..., None], y_TO, held_TO)

    def _product(
        self, x_TI: torch.Tensor, gates_TN: torch.Tensor | None, a_RI: torch.Tensor, b_OR: torch.Tensor
    ) -> torch.Tensor:
        weight_TR = self.scale if gates_TN is None else gates_TN[..., self.segment] * self.scale
        z_TR = F.linear(x_TI.to(a_RI.dtype), a_RI)
        return F.linear(z_TR * weight_TR.to(z_TR.dtype), b_OR)


class LoRAExperts(nn.Module):
    """Hold all experts of one linear and compute what they add to its output."""

    def __init__(
        self,
        linear: LinearShape,
        layer: LayerExperts,
        *,
        anchor_mode: AnchorMode,
        isolate: Isolation = "anchors",
        dropout: float = 0.0,
    ) -> None:
        """`isolate`: the group that learns only from its own tokens, specialists from medical, anchors from general."""
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
        self, x_TI: torch.Tensor, gates_TN: torch.Tensor | None, *, general: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Map inputs [..., I] and gates [..., N] to [..., O].

        `general` (bool [...]): tokens of general-domain samples; None isolates nothing.
        """
        x_TI = self.dropout(x_TI)
        medical = ~general if general is not None and self._isolate_specialists else None
        y_TO: torch.Tensor = self.specialists(x_TI, gates_TN, learns=medical)
        if self.anchors is not None:
            y_TO = y_TO + self.anchors(x_TI, gates_TN, learns=general if self._isolate_anchors else None)
        return y_TO

    def stored(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return lora_A [R, I] and lora_B [O, R] as on disk: anchors first, unscaled."""
        groups = [group for group in (self.anchors, self.specialists) if group is not None]
        return torch.cat([group.A for group in groups]), torch.cat([group.B for group in groups], dim=1)

    @torch.no_grad()
    def fill(self, lora_a_RI: torch.Tensor, lora_b_OR: torch.Tensor) -> None:
        """Copy tensors as `stored` returns them."""
        start = 0
        for group in (self.anchors, self.specialists):
            if group is not None:
                end = start + len(group.A)
                group.A.copy_(lora_a_RI[start:end])
                group.B.copy_(lora_b_OR[:, start:end])
                start = end

"""Compute the Med-MoE layer as the paper writes it, the reference for the fused and the grouped form.

Shape letters: T tokens, D hidden size, E experts, K experts chosen per token.

    p = softmax(W x + b)            in float32, over all E experts
    top-1: the chosen expert is weighted by its own p, not renormalised; top-2 (renormalize): by its share of the two
    y = sum_k w_k * Expert_k(x) + SharedExpert(x)       (arXiv 2404.10237, eq. 4; the meta expert has weight 1)

With `residual` (upstream's use_residual) the meta expert is also mixed with the routed output:

    c = softmax(W_c x + b_c)        y = c_0 * routed + (1 + c_1) * SharedExpert(x)

No token is ever dropped: upstream hard-codes a capacity that always suffices.

In training mode the routed sum is computed by `grouped_experts`, which a test holds to the loop here.
"""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.nn import functional as F

from medmoe.model.config import TextConfig
from medmoe.model.grouped_experts import grouped_experts


class Router(nn.Module):
    """A linear gate. Its weights may be stored in 16 bit; it always computes in float32."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.top_k = config.num_experts_per_tok
        self.renormalize = config.renormalize
        self.weight = nn.Parameter(torch.zeros(config.num_experts, config.hidden_size))
        self.bias = nn.Parameter(torch.zeros(config.num_experts)) if config.gate_bias else None
        self.on_logits: Callable[[torch.Tensor], None] | None = None
        """Called with the logits [T, E] of every forward, with their graph, if set."""

    def logits(self, x_TD: torch.Tensor) -> torch.Tensor:
        """Return router logits [T, E] in float32."""
        return F.linear(x_TD.float(), self.weight.float(), None if self.bias is None else self.bias.float())

    def forward(self, x_TD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return weights [T, K] (float32) and expert indices [T, K] of each token's choice, best first."""
        with _own_precision(x_TD):
            logits_TE = self.logits(x_TD)
        if self.on_logits is not None:
            self.on_logits(logits_TE)
        weights_TK, experts_TK = logits_TE.softmax(dim=-1).topk(self.top_k, dim=-1)
        if self.renormalize:
            total_T1 = weights_TK.sum(dim=-1, keepdim=True)
            weights_TK = weights_TK / total_T1.clamp(min=torch.finfo(torch.float32).eps)
        return weights_TK, experts_TK


class MoE(nn.Module):
    """Replaces a decoder layer's FFN; the experts start as copies of it, and it becomes the shared expert."""

    def __init__(self, ffn: nn.Module, *, config: TextConfig) -> None:
        super().__init__()
        self.gate = Router(config)
        self.experts = nn.ModuleList(copy.deepcopy(ffn) for _ in range(config.num_experts))
        self.shared_expert = ffn if config.shared_expert else None
        self.coefficient = Coefficient(config.hidden_size) if config.residual else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [..., D] to [..., D]."""
        x_TD = x.reshape(-1, x.shape[-1])
        weights_TK, experts_TK = self.gate(x_TD)
        # Both are the same sum with the same gradients. The loop asks the device once per expert how many tokens came;
        # evaluation keeps it all the same, because the served model's parity was measured against its very bits.
        if self.training:
            y_TD = grouped_experts(x_TD, weights_TK, experts_TK, self.experts)
        else:
            y_TD = self._one_expert_at_a_time(x_TD, weights_TK, experts_TK)
        if self.shared_expert is not None:
            shared_TD = self.shared_expert(x_TD)
            if self.coefficient is not None:
                routed_T1, shared_T1 = self.coefficient(x_TD)
                y_TD, shared_TD = y_TD * routed_T1, shared_TD * shared_T1
            y_TD = y_TD + shared_TD
        return y_TD.view_as(x)

    def _one_expert_at_a_time(
        self, x_TD: torch.Tensor, weights_TK: torch.Tensor, experts_TK: torch.Tensor
    ) -> torch.Tensor:
        y_TD = torch.zeros_like(x_TD)
        for index, expert in enumerate(self.experts):
            token, rank = torch.where(experts_TK == index)
            if len(token):
                routed = expert(x_TD[token]) * weights_TK[token, rank, None].to(x_TD.dtype)
                y_TD.index_add_(0, token, routed)
        return y_TD


class Coefficient(nn.Linear):
    """How much of the routed and of the shared output the residual form takes (upstream's `coefficient`, with bias)."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__(hidden_size, 2)

    def forward(self, x_TD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        """Return factors [T, 1] of the routed and of the shared output, in x's dtype; the softmax is in float32."""
        with _own_precision(x_TD):
            c_T2 = F.linear(x_TD.float(), self.weight.float(), self.bias.float()).softmax(dim=-1).to(x_TD.dtype)
        # The shared expert is mixed in, and then added once more.
        return c_T2[:, :1], c_T2[:, 1:] + 1


def _own_precision(x: torch.Tensor) -> AbstractContextManager[None]:
    """Switch autocast off: it would compute in 16 bit whatever dtype its inputs have."""
    device = x.device.type
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()

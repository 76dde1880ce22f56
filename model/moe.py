"""The Med-MoE layer as the paper writes it: slow, obvious, and the yardstick for the fused one.

Shape letters: T tokens, D hidden size, E experts, K experts chosen per token.

    p = softmax(W x + b)            in float32, over all E experts
    top-1: the chosen expert is weighted by its own p, not renormalised
    y = sum_k p_k * Expert_k(x) + SharedExpert(x)       (arXiv 2404.10237, eq. 4; the meta expert has weight 1)

No token is ever dropped: upstream hard-codes a capacity that always suffices.
"""

import copy

import torch
from torch import nn
from torch.nn import functional as F

from medmoe.model.config import TextConfig


class Router(nn.Module):
    """A linear gate with bias. Its weights may be stored in 16 bit; it always computes in float32."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.top_k = config.num_experts_per_tok
        self.renormalize = config.renormalize
        self.weight = nn.Parameter(torch.zeros(config.num_experts, config.hidden_size))
        self.bias = nn.Parameter(torch.zeros(config.num_experts)) if config.gate_bias else None

    def logits(self, x_TD: torch.Tensor) -> torch.Tensor:
        """Router logits [T, E] in float32."""
        return F.linear(x_TD.float(), self.weight.float(), None if self.bias is None else self.bias.float())

    def forward(self, x_TD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights [T, K] (float32) and expert indices [T, K] of each token's choice, best first."""
        weights_TK, experts_TK = self.logits(x_TD).softmax(dim=-1).topk(self.top_k, dim=-1)
        if self.renormalize:
            weights_TK = weights_TK / weights_TK.sum(dim=-1, keepdim=True)
        return weights_TK, experts_TK


class MoE(nn.Module):
    """Replaces a decoder layer's FFN; the experts start as copies of it, and it becomes the shared expert."""

    def __init__(self, ffn: nn.Module, *, config: TextConfig) -> None:
        super().__init__()
        self.gate = Router(config)
        self.experts = nn.ModuleList(copy.deepcopy(ffn) for _ in range(config.num_experts))
        self.shared_expert = ffn if config.shared_expert else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., D] -> [..., D]."""
        x_TD = x.reshape(-1, x.shape[-1])
        weights_TK, experts_TK = self.gate(x_TD)
        y_TD = torch.zeros_like(x_TD)
        for index, expert in enumerate(self.experts):
            token, rank = torch.where(experts_TK == index)
            if len(token):
                routed = expert(x_TD[token]) * weights_TK[token, rank, None].to(x_TD.dtype)
                y_TD.index_add_(0, token, routed)
        if self.shared_expert is not None:
            y_TD = y_TD + self.shared_expert(x_TD)
        return y_TD.view_as(x)

"""Compute soft gates over a layer's experts (arXiv 2601.07935, equation 3) with a learnable temperature.

Shape letters: T tokens (any number of leading dimensions), D width of the router's input, N experts.

    g = softmax(W x / tau)      over all N experts, anchors among them; tau = exp(rho), clamped

No bias, no noise, no top-k: every expert contributes to every token. tau is one number per router; it only scales W,
so it is folded into W for serving.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

_INIT_STD = 0.01  # gates start almost equal


class GateRouter(nn.Module):
    """A gate with W [N, D] and rho [1]; both are float32 and compute in float32 whatever the model's dtype is."""

    def __init__(self, *, width: int, n_experts: int, tau_clamp: tuple[float, float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_experts, width, dtype=torch.float32).normal_(std=_INIT_STD))
        self.log_tau = nn.Parameter(torch.zeros(1, dtype=torch.float32))
        self._bounds = (math.log(tau_clamp[0]), math.log(tau_clamp[1]))

    def temperature(self) -> torch.Tensor:
        """Return tau, [1]."""
        return self.log_tau.clamp(*self._bounds).exp()

    def forward(self, x_TD: torch.Tensor) -> torch.Tensor:
        """Map inputs [..., D] to gates [..., N]; each row sums to 1."""
        with torch.autocast(x_TD.device.type, enabled=False):
            dtype = torch.promote_types(x_TD.dtype, self.weight.dtype)
            return (F.linear(x_TD.to(dtype), self.weight.to(dtype)) / self.temperature()).softmax(dim=-1)


def drop_experts(gates_TN: torch.Tensor, *, probability: float) -> torch.Tensor:
    """Set each gate [..., N] to zero with `probability`, and renormalise; a token that would lose all keeps all.

    Without it soft gates may settle on one expert early (SMEAR drops experts for the same reason).
    """
    kept_TN = torch.rand_like(gates_TN) >= probability
    kept_TN = kept_TN | ~kept_TN.any(dim=-1, keepdim=True)
    left_TN = gates_TN * kept_TN
    return left_TN / left_TN.sum(dim=-1, keepdim=True)

"""The Med-MoE layer on vLLM's fused kernels; medmoe.model.moe.MoE is what it must equal."""

import torch
from torch import nn
from vllm.model_executor.layers.fused_moe import FusedMoEFactory

from medmoe.model.config import TextConfig
from medmoe.model.moe import Router


class FusedMoE(nn.Module):
    """Gate, fused experts, and the layer's own dense FFN as the shared expert, added with weight 1."""

    def __init__(self, ffn: nn.Module, *, config: TextConfig, prefix: str) -> None:
        super().__init__()
        # The same gate as in training, kept in float32 whatever the model's dtype is.
        self.gate = Router(config).float()
        if config.shared_expert:
            # The fused layer adds routed and shared output before its one all-reduce.
            ffn.down_proj.reduce_results = False
            self.shared_expert = ffn
        self.experts = FusedMoEFactory(
            num_experts=config.num_experts,
            top_k=config.num_experts_per_tok,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            renormalize=config.renormalize,
            shared_experts=ffn if config.shared_expert else None,
            prefix=f"{prefix}.experts",
        )

    def forward(self, x_TD: torch.Tensor) -> torch.Tensor:
        """[T, D] -> [T, D]."""
        y_TD: torch.Tensor = self.experts(hidden_states=x_TD, router_logits=self.gate.logits(x_TD))
        return y_TD

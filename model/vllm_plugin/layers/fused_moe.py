"""Compute the Med-MoE layer with vLLM's fused kernels, equal to medmoe.model.moe.MoE.

Routing, kernels, capture of routed experts and the sum over tensor-parallel ranks are vLLM's. Shape letters: T tokens,
D hidden size, E experts.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from vllm.config import get_current_vllm_config
from vllm.model_executor.layers.fused_moe import FusedMoEFactory
from vllm.platforms import current_platform

from medmoe.model.config import TextConfig
from medmoe.model.moe import Coefficient, Router


class FusedMoE(nn.Module):
    """Gate, fused experts, and the layer's dense FFN as the shared expert, added with weight 1 or mixed in."""

    def __init__(self, ffn: nn.Module, *, config: TextConfig, prefix: str) -> None:
        super().__init__()
        # The same gate as in training, kept in float32 whatever the model's dtype is.
        self.gate = Router(config).float()
        self.shared_expert = ffn if config.shared_expert else None
        self.coefficient = Coefficient(config.hidden_size).float() if config.residual else None
        added_inside = self.shared_expert if self.coefficient is None else None
        if added_inside is not None:
            # The fused layer adds routed and shared output before its one all-reduce.
            _output_projection(added_inside).reduce_results = False
        self.experts = FusedMoEFactory(
            num_experts=config.num_experts,
            top_k=config.num_experts_per_tok,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            renormalize=config.renormalize,
            shared_experts=added_inside,
            # The routed experts are all that the service asks vLLM to quantise.
            quant_config=get_current_vllm_config().quant_config,
            prefix=f"{prefix}.experts",
            **_expert_form(config),
        )

    def forward(self, x_TD: torch.Tensor) -> torch.Tensor:
        """Map [T, D] to [T, D]."""
        logits_TE = self.gate.logits(x_TD)
        if self.coefficient is None or self.shared_expert is None:
            y_TD: torch.Tensor = self.experts(hidden_states=x_TD, router_logits=logits_TE)
            return y_TD
        # Before the experts, which may write their result over x.
        routed_T1, shared_T1 = self.coefficient(x_TD)
        shared_TD = self.shared_expert(x_TD) * shared_T1
        routed_TD: torch.Tensor = self.experts(hidden_states=x_TD, router_logits=logits_TE)
        mixed_TD: torch.Tensor = routed_TD * routed_T1 + shared_TD
        return mixed_TD


def replace_ffns(decoder: Any, config: TextConfig, *, prefix: str, new: Callable[..., nn.Module]) -> None:
    """Replace each FFN of `moe_layers` on this pipeline stage by `new(ffn, config=, prefix=)`."""
    for index in config.moe_layers:
        if decoder.start_layer <= index < decoder.end_layer:
            layer = decoder.layers[index]
            layer.mlp = new(layer.mlp, config=config, prefix=f"{prefix}.layers.{index}.mlp")


def _output_projection(ffn: nn.Module) -> Any:
    return ffn.fc2 if hasattr(ffn, "fc2") else ffn.down_proj


def _expert_form(config: TextConfig) -> dict[str, Any]:
    """Return the factory's arguments for experts that are not SwiGLU."""
    if config.model_type != "phi":
        return {}
    if current_platform.is_cpu():
        from medmoe.model.vllm_plugin.cpu.ungated_experts_cpu import UngatedExperts

        return {"activation": "gelu_tanh", "has_bias": True, "routed_experts_cls": UngatedExperts}
    return {"activation": "gelu_tanh_no_mul", "has_bias": True}

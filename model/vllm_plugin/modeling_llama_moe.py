"""Adapt vLLM's Llama decoder: replace the FFNs of `moe_layers` by fused Med-MoE layers."""

from typing import Any

from vllm.config import VllmConfig
from vllm.model_executor.models.llama import LlamaForCausalLM
from vllm.model_executor.models.utils import maybe_prefix

from medmoe.model.config import TextConfig
from medmoe.model.vllm_plugin.layers.fused_moe import FusedMoE, replace_ffns
from medmoe.model.vllm_plugin.weight_names import SWIGLU_NAMES


class MedMoELlamaForCausalLM(LlamaForCausalLM):
    """vLLM's LlamaForCausalLM with fused Med-MoE layers."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "", **kwargs: Any) -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix, **kwargs)
        # Loading uses the inner model's mapper.
        self.model.hf_to_vllm_mapper = SWIGLU_NAMES
        text = TextConfig.model_validate(self.config.medmoe_text, strict=False)
        replace_ffns(self.model, text, prefix=maybe_prefix(prefix, "model"), new=FusedMoE)

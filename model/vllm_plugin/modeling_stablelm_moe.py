"""Adapt vLLM's StableLM decoder: replace the FFNs of `moe_layers` by fused Med-MoE layers."""

from vllm.config import VllmConfig
from vllm.model_executor.models.stablelm import StablelmForCausalLM
from vllm.model_executor.models.utils import maybe_prefix

from medmoe.model.config import TextConfig
from medmoe.model.vllm_plugin.layers.fused_moe import FusedMoE, replace_ffns
from medmoe.model.vllm_plugin.weight_names import SWIGLU_NAMES


class MedMoEStableLmForCausalLM(StablelmForCausalLM):
    """vLLM's StablelmForCausalLM with fused Med-MoE layers."""

    hf_to_vllm_mapper = SWIGLU_NAMES

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        text = TextConfig.model_validate(self.config.medmoe_text, strict=False)
        replace_ffns(self.model, text, prefix=maybe_prefix(prefix, "model"), new=FusedMoE)

"""The Llama-family decoder in vLLM: vLLM's own, whose FFNs in `moe_layers` we replace."""

from typing import Any

from vllm.config import VllmConfig
from vllm.model_executor.models.llama import LlamaForCausalLM
from vllm.model_executor.models.utils import WeightsMapper, maybe_prefix

from medmoe.model.config import TextConfig
from medmoe.model.vllm_plugin.fused_moe import FusedMoE

# vLLM's Llama renames every `.gate_proj` and `.up_proj`, those of single experts too, which would then load into the
# wrong place without an error. This table names only the dense FFN and the shared expert.
_STACKED = {
    ".q_proj": (".qkv_proj", "q"),
    ".k_proj": (".qkv_proj", "k"),
    ".v_proj": (".qkv_proj", "v"),
    ".mlp.gate_proj": (".mlp.gate_up_proj", 0),
    ".mlp.up_proj": (".mlp.gate_up_proj", 1),
    ".shared_expert.gate_proj": (".shared_expert.gate_up_proj", 0),
    ".shared_expert.up_proj": (".shared_expert.gate_up_proj", 1),
}


class MedMoELlamaForCausalLM(LlamaForCausalLM):
    """vLLM's LlamaForCausalLM with fused Med-MoE layers."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "", **kwargs: Any) -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix, **kwargs)
        # It is the inner model's mapper that loading consults.
        self.model.hf_to_vllm_mapper = WeightsMapper(orig_to_new_stacked=_STACKED)
        text = TextConfig.model_validate(self.config.medmoe_text, strict=False)
        for index in text.moe_layers:
            if self.model.start_layer <= index < self.model.end_layer:
                layer = self.model.layers[index]
                layer.mlp = FusedMoE(layer.mlp, config=text, prefix=maybe_prefix(prefix, f"model.layers.{index}.mlp"))

"""Register Med-MoE with vLLM through the `vllm.general_plugins` entry point.

vLLM calls `register` in each of its processes, possibly twice. Heavy imports happen inside the call.
"""

import logging

_ARCHITECTURES = {
    "MedMoEForConditionalGeneration": "medmoe.model.vllm_plugin.modeling_medmoe:MedMoEForConditionalGeneration",
    "MedMoELlamaForCausalLM": "medmoe.model.vllm_plugin.modeling_llama_moe:MedMoELlamaForCausalLM",
    "MedMoEPhiForCausalLM": "medmoe.model.vllm_plugin.modeling_phi_moe:MedMoEPhiForCausalLM",
    "MedMoEStableLmForCausalLM": "medmoe.model.vllm_plugin.modeling_stablelm_moe:MedMoEStableLmForCausalLM",
}


# When a step fails, vLLM logs its whole input here: clients' image hashes, token ids and sampling settings.
_INPUT_DUMP_LOGGER = "vllm.logging_utils.dump_input"


def register() -> None:
    """Register the configuration with transformers and the architectures with vLLM.

    Also drops vLLM's dumps of failed inputs from the log, and ends an engine process together with its parent.
    """
    from transformers import AutoConfig
    from vllm import ModelRegistry

    from medmoe.model.vllm_plugin.hf_config import MedMoEHFConfig
    from medmoe.model.vllm_plugin.process.parent_death_watch import end_with_parent

    end_with_parent()
    logging.getLogger(_INPUT_DUMP_LOGGER).addFilter(_drop_record)
    AutoConfig.register("medmoe", MedMoEHFConfig, exist_ok=True)
    known = ModelRegistry.get_supported_archs()
    for name, path in _ARCHITECTURES.items():
        if name not in known:
            ModelRegistry.register_model(name, path)


def _drop_record(_: logging.LogRecord) -> bool:
    """Return False, which tells `logging` to drop the record."""
    return False

"""The door through which vLLM finds the model: the `vllm.general_plugins` entry point calls `register`.

vLLM calls it in each of its processes, so it may run twice, and it imports nothing heavy before it is called.
"""

import logging

_ARCHITECTURES = {
    "MedMoEForConditionalGeneration": "medmoe.model.vllm_plugin.modeling_medmoe:MedMoEForConditionalGeneration",
    "MedMoELlamaForCausalLM": "medmoe.model.vllm_plugin.modeling_llama_moe:MedMoELlamaForCausalLM",
    "MedMoEPhiForCausalLM": "medmoe.model.vllm_plugin.modeling_phi_moe:MedMoEPhiForCausalLM",
    "MedMoEStableLmForCausalLM": "medmoe.model.vllm_plugin.modeling_stablelm_moe:MedMoEStableLmForCausalLM",
}


# When a step fails, vLLM logs what it was about to compute: pixels, hashes and sampling settings of its clients.
_DUMP_LOGGER = "vllm.logging_utils.dump_input"


def register() -> None:
    """Tell transformers about our config and vLLM about our architectures; keep clients' data out of its log.

    In a process that vLLM has started, see also that it ends with the one that started it.
    """
    from transformers import AutoConfig
    from vllm import ModelRegistry

    from medmoe.model.vllm_plugin.hf_config import MedMoEHFConfig
    from medmoe.model.vllm_plugin.process.parent_death_watch import end_with_parent

    end_with_parent()
    logging.getLogger(_DUMP_LOGGER).addFilter(_say_nothing)
    AutoConfig.register("medmoe", MedMoEHFConfig, exist_ok=True)
    known = ModelRegistry.get_supported_archs()
    for name, path in _ARCHITECTURES.items():
        if name not in known:
            ModelRegistry.register_model(name, path)


def _say_nothing(_: logging.LogRecord) -> bool:
    return False

"""The door through which vLLM finds the model: the `vllm.general_plugins` entry point calls `register`.

vLLM calls it in each of its processes, so it may run twice, and it imports nothing heavy before it is called.
"""

_ARCHITECTURES = {
    "MedMoEForConditionalGeneration": "medmoe.model.vllm_plugin.modeling_medmoe:MedMoEForConditionalGeneration",
    "MedMoELlamaForCausalLM": "medmoe.model.vllm_plugin.modeling_llama_moe:MedMoELlamaForCausalLM",
}


def register() -> None:
    """Tell transformers about our config and vLLM about our architectures."""
    from transformers import AutoConfig
    from vllm import ModelRegistry

    from medmoe.model.vllm_plugin.hf_config import MedMoEHFConfig

    AutoConfig.register("medmoe", MedMoEHFConfig, exist_ok=True)
    known = ModelRegistry.get_supported_archs()
    for name, path in _ARCHITECTURES.items():
        if name not in known:
            ModelRegistry.register_model(name, path)

"""Everything that an engine's process imports sooner or later; for the process that engines are forked from."""

import medmoe.model.vllm_plugin.modeling_llama_moe
import medmoe.model.vllm_plugin.modeling_medmoe
import medmoe.model.vllm_plugin.modeling_phi_moe
import medmoe.model.vllm_plugin.modeling_stablelm_moe
import medmoe.model.vllm_plugin.process.uniproc_executor  # noqa: F401

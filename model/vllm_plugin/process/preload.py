"""Import all modules of an engine process, for the process from which engines are forked."""

import medmoe.model.vllm_plugin.modeling_llama_moe
import medmoe.model.vllm_plugin.modeling_medmoe
import medmoe.model.vllm_plugin.modeling_phi_moe
import medmoe.model.vllm_plugin.modeling_stablelm_moe
import medmoe.model.vllm_plugin.process.branch_scoring
import medmoe.model.vllm_plugin.process.uniproc_executor  # noqa: F401

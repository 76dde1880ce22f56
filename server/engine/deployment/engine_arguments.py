"""Derive vLLM's engine arguments from settings and checkpoint, without importing vLLM."""

from typing import Any

from medmoe.model.config import MedMoEConfig
from medmoe.model.files.calibration_binding import Dtype
from medmoe.server.engine.deployment.number_format import engine_dtype
from medmoe.server.engine.deployment.quantization import NATIVE_FP8, Capability, quantization_arguments
from medmoe.server.settings import Settings

_CPU_BATCHED_TOKENS = 2048
_GPU_BATCHED_TOKENS = 8192
"""As in `vllm serve`; an engine made without its server gets 2,048, three images of 576 tokens."""
_CPU_BLOCK = 32
"""The smallest that the CPU attention kernel takes."""
_BRANCH_SCORING = "medmoe.model.vllm_plugin.process.branch_scoring.BranchScoring"
_BYTES: dict[Dtype, int] = {"float32": 4, "bfloat16": 2, "float16": 2}


def engine_arguments(
    settings: Settings, config: MedMoEConfig, *, on_cpu: bool, capability: Capability | None = None
) -> dict[str, Any]:
    """Return the keyword arguments of vLLM's EngineArgs. `capability` is the GPU's compute capability, if known."""
    context = config.text_config.max_position_embeddings
    return {
        "model": str(settings.model),
        "served_model_name": [config.name],
        "dtype": engine_dtype(settings, config, on_cpu=on_cpu),
        "max_model_len": context,
        "max_num_seqs": settings.max_num_seqs,
        # Compiling costs a minute at start and has not been measured to pay on CPU.
        "enforce_eager": on_cpu or settings.enforce_eager,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "enable_expert_parallel": settings.expert_parallel,
        **quantization_arguments(settings),
        "enable_prefix_caching": True,
        # On CPU the default of 128 tokens is longer than a usual prompt, so that nothing would ever be cached.
        "block_size": _CPU_BLOCK if on_cpu else None,
        "load_format": "safetensors",
        "enable_return_routed_experts": bool(config.text_config.moe_layers),
        # vLLM cannot rewind a CPU generator: a seeded prompt that is prefilled in two steps would end the worker.
        "enable_chunked_prefill": False if on_cpu else None,
        "max_num_batched_tokens": _batched_tokens(config, on_cpu=on_cpu),
        "limit_mm_per_prompt": {"image": 1},
        # Images come made, and seldom twice; the cache costs gigabytes, and drifts when a request is aborted.
        "mm_processor_cache_gb": 0,
        # What a client must never reach, also where a later vLLM should turn it on by itself.
        "mm_processor_cache_type": "lru",
        "enable_prompt_embeds": False,
        "enable_mm_embeds": False,
        "trust_remote_code": False,
        "worker_extension_cls": _BRANCH_SCORING if branch_tokens(settings, config, on_cpu=on_cpu) else "",
        **({} if on_cpu else _gpu_arguments(settings, capability)),
    }


def branch_tokens(settings: Settings, config: MedMoEConfig, *, on_cpu: bool) -> int:
    """Return how many tokens the worker takes at most to score branches; 0 on GPUs and with tensor parallelism."""
    return _batched_tokens(config, on_cpu=on_cpu) if on_cpu and settings.tensor_parallel_size == 1 else 0


def _batched_tokens(config: MedMoEConfig, *, on_cpu: bool) -> int:
    return max(_CPU_BATCHED_TOKENS if on_cpu else _GPU_BATCHED_TOKENS, config.text_config.max_position_embeddings)


def encoder_cache_embeddings(settings: Settings, config: MedMoEConfig, *, on_cpu: bool) -> int:
    """Return how many embeddings fit into `Settings.encoder_cache_mib`."""
    vector = config.text_config.hidden_size * _BYTES[engine_dtype(settings, config, on_cpu=on_cpu)]
    return settings.encoder_cache_mib * 2**20 // vector


def _gpu_arguments(settings: Settings, capability: Capability | None) -> dict[str, Any]:
    marlin = settings.quantization.startswith("fp8") and capability is not None and capability < NATIVE_FP8
    return {
        # vLLM's own choice on Blackwell rounds float16 and float32 to bfloat16; Triton's kernel is the one that is
        # compared with the reference. Below 8.9 only Marlin has fp8.
        "moe_backend": "auto" if marlin else "triton",
        "gpu_memory_utilization": settings.gpu_memory_utilization,
        "kv_cache_memory_bytes": None if settings.kv_cache_gib is None else settings.kv_cache_gib * 2**30,
    }

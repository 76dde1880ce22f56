"""From deployment settings and checkpoint to vLLM's engine arguments. Does not import vLLM.

Apart from vllm_engine.py because parity tests and benchmarks start engines of their own with the same arguments.
"""

from typing import Any

from medmoe.model.config import MedMoEConfig
from medmoe.server.engine.deployment.quantization import cpu_kernel, quantization_arguments
from medmoe.server.schemas.inference import Dtype
from medmoe.server.settings import Settings

_CPU_BATCHED_TOKENS = 2048
_CPU_BLOCK = 32
"""The smallest that the CPU attention kernel takes."""
_BYTES: dict[Dtype, int] = {"float32": 4, "bfloat16": 2, "float16": 2}


def engine_arguments(settings: Settings, config: MedMoEConfig, *, on_cpu: bool) -> dict[str, Any]:
    """What decides the engine's numbers and sizes, for EngineArgs; the parity tests start engines with it too."""
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
        "max_num_batched_tokens": max(_CPU_BATCHED_TOKENS, context) if on_cpu else None,
        "limit_mm_per_prompt": {"image": 1},
        # Images come made, and seldom twice; the cache costs gigabytes, and drifts when a request is aborted.
        "mm_processor_cache_gb": 0,
        # What a client must never reach, also where a later vLLM should turn it on by itself.
        "mm_processor_cache_type": "lru",
        "enable_prompt_embeds": False,
        "enable_mm_embeds": False,
        "trust_remote_code": False,
    }


def engine_dtype(settings: Settings, config: MedMoEConfig, *, on_cpu: bool) -> Dtype:
    """The number format that the engine computes in, whatever `settings` leave open."""
    if settings.dtype != "auto":
        return settings.dtype
    if not on_cpu:
        return config.dtype
    # int8 kernels take no float32. Elsewhere bfloat16 pays only where the processor multiplies it in tiles.
    return "bfloat16" if settings.quantization != "none" or cpu_kernel() == "amx" else "float32"


def encoder_cache_embeddings(settings: Settings, config: MedMoEConfig, *, on_cpu: bool) -> int:
    """How many of the decoder's input vectors fit into `Settings.encoder_cache_mib`."""
    vector = config.text_config.hidden_size * _BYTES[engine_dtype(settings, config, on_cpu=on_cpu)]
    return settings.encoder_cache_mib * 2**20 // vector

"""Check that a second engine fits into memory before it starts."""

from pathlib import Path

from medmoe.server.engine.deployment.rollout_errors import InsufficientMemory
from medmoe.server.engine.deployment.vllm_environment import CPU_KV_CACHE_GIB, built_for_cpu
from medmoe.server.lifecycle.preflight import free_memory
from medmoe.server.settings import Settings

_GIB = 2**30
_MIB = 2**20
_PROCESS = _GIB
"""Bytes of an engine's processes beside weights and caches: interpreter, libraries, activations."""
_WEIGHTS = "*.safetensors"


def check_second_engine(settings: Settings, *, free: int | None = None) -> None:
    """Compare the needs of an engine for the checkpoint `settings.model` with the `free` bytes of memory.

    On a GPU, where vLLM takes a share of all memory, the shares of two engines are compared. Reads no file's content.
    Raises InsufficientMemory.
    """
    if not built_for_cpu():
        if 2 * settings.gpu_memory_utilization > 1:
            raise InsufficientMemory.on_gpu(settings.gpu_memory_utilization)
        return
    free = free_memory() if free is None else free
    weights = _weights(settings.model)
    caches = (settings.kv_cache_gib or CPU_KV_CACHE_GIB) * settings.tensor_parallel_size * _GIB
    needed = weights + caches + settings.encoder_cache_mib * _MIB + settings.tensor_parallel_size * _PROCESS
    if needed > free:
        raise InsufficientMemory.on_host(needed=needed, weights=weights, free=free)


def _weights(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.glob(_WEIGHTS))

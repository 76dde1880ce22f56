"""What vLLM reads from the environment when it is imported, and what kind of build it is.

Apart from vllm_engine.py, which imports vLLM: these things must be settled before that.
"""

import os
from importlib.metadata import PackageNotFoundError, version

from medmoe.server.settings import Settings

_ENVIRONMENT = {
    # Only our plugin, no network, no statistics sent home, nothing unpickled that came over a socket.
    "VLLM_PLUGINS": "medmoe",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_ALLOW_INSECURE_SERIALIZATION": "0",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    # As vLLM's own server has it: a fork would take this process's threads' locks and the decoders' sockets along.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}


def prepare_environment(settings: Settings) -> None:
    """vLLM reads these when it is imported; what an operator has set already stays, except for what keeps it safe."""
    os.environ.update(_ENVIRONMENT)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "DEBUG" if settings.log_level == "debug" else "WARNING")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(settings.kv_cache_gib))
    if built_for_cpu():
        # vLLM compiles a function or two of its sampler even so, and ends the worker at the first answer where there is
        # no C++ compiler; a container has none, and a machine need not have one.
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")


def built_for_cpu() -> bool:
    """Whether the installed vLLM drives CPUs: as it decides itself, without the seconds that importing it takes."""
    if os.environ.get("VLLM_TARGET_DEVICE", "").lower() == "cpu":
        return True
    try:
        return "cpu" in version("vllm")
    except PackageNotFoundError:
        # The distribution for CPU has another name, vllm-cpu.
        return True

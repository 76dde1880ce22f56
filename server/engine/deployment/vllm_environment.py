"""Set the environment variables that vLLM reads when it is imported, and tell which build is installed."""

import os
import sys
from importlib.metadata import PackageNotFoundError, version

from medmoe.model.files.calibration_binding import Dtype
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
    # Ranks are on one machine. By its own rule Gloo listens where the machine's name leads: in the network.
    **({"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}),
}


CPU_KV_CACHE_GIB = 1
"""Size of the key-value cache on a CPU where the settings name none."""


def prepare_environment(settings: Settings, *, dtype: Dtype) -> None:
    """Set vLLM's variables; one that is set already stays, unless safety or the number format needs another value."""
    os.environ.update(_ENVIRONMENT)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "DEBUG" if settings.log_level == "debug" else "WARNING")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(settings.kv_cache_gib or CPU_KV_CACHE_GIB))
    if dtype == "float32":
        # Triton's default for float32 is TF32, which has ten bits of mantissa.
        os.environ["TRITON_F32_DEFAULT"] = "ieee"
    if built_for_cpu():
        # vLLM compiles a function or two of its sampler even so, and ends the worker at the first answer where there is
        # no C++ compiler; a container has none, and a machine need not have one.
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")


def built_for_cpu() -> bool:
    """Return whether the installed vLLM is built for CPUs, by vLLM's own rule but without importing it."""
    if os.environ.get("VLLM_TARGET_DEVICE", "").lower() == "cpu":
        return True
    try:
        return "cpu" in version("vllm")
    except PackageNotFoundError:
        # The distribution for CPU has another name, vllm-cpu.
        return True

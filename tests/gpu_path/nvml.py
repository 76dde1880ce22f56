"""Stand in for NVIDIA's management library, so that vLLM chooses its CUDA platform."""

import importlib.metadata
import importlib.util
import os
import sys
from types import ModuleType, SimpleNamespace

CAPABILITY = (9, 0)
_MEMORY = 64 << 30
_NATIVE = (
    "vllm._C_stable_libtorch",
    "vllm._moe_C_stable_libtorch",
    "vllm.vllm_flash_attn._vllm_fa2_C",
    "vllm.vllm_flash_attn._vllm_fa3_C",
)
"""Extension modules of the build for GPUs, which vLLM imports for their side effects."""


class NVMLError(Exception):
    """The management library's error."""


def install() -> None:
    """Pretend one GPU and the build for GPUs. Call before vLLM is imported."""
    os.environ |= {
        "TRITON_INTERPRET": "1",
        "TORCHDYNAMO_DISABLE": "1",
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
        "VLLM_DISABLE_SHARED_EXPERTS_STREAM": "1",
    }
    installed = importlib.metadata.version
    importlib.metadata.version = lambda name: "0.30.0" if name == "vllm" else installed(name)
    nvml = ModuleType("vllm.third_party.pynvml")
    memory = SimpleNamespace(total=_MEMORY, free=_MEMORY, used=0)
    vars(nvml).update(
        NVMLError=NVMLError,
        NVML_P2P_CAPS_INDEX_NVLINK=2,
        NVML_P2P_STATUS_OK=0,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetIndex=lambda handle: handle,
        nvmlDeviceGetCudaComputeCapability=lambda _handle: CAPABILITY,
        nvmlDeviceGetName=lambda _handle: "pretended GPU",
        nvmlDeviceGetMemoryInfo=lambda _handle: memory,
    )
    spec = importlib.util.find_spec("vllm")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    package = ModuleType("vllm.third_party")
    package.__path__ = [f"{spec.submodule_search_locations[0]}/third_party"]
    package.pynvml = nvml  # type: ignore[attr-defined]
    sys.modules |= {package.__name__: package, nvml.__name__: nvml} | {name: ModuleType(name) for name in _NATIVE}

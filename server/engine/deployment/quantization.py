"""Choose and check the number format of the routed experts, before vLLM is imported.

vLLM quantises while it loads. Only the routed experts change; gate, meta expert, attention, vision tower and projector
keep the checkpoint's numbers. vLLM itself refuses late, from inside its worker, or not at all.
"""

import importlib.util
from pathlib import Path
from typing import Any, Literal

from medmoe.model.config import TextConfig
from medmoe.model.files.calibration_binding import Dtype
from medmoe.server.errors import DeploymentError
from medmoe.server.settings import Settings

_ONLINE = {
    "int8_per_channel": "int8_per_channel_weight_only",
    "fp8_per_tensor": "fp8_per_tensor",
    "fp8_per_channel": "fp8_per_channel",
    "fp8_per_block": "fp8_per_block",
}
"""Our name of a format: vLLM's name of the method that makes it (vllm/config/quantization.py)."""
_CPU_ALIGNMENT = 32

Capability = tuple[int, int]
"""A GPU's compute capability, major and minor."""
NATIVE_FP8: Capability = (8, 9)
_SMALL_SHARED_MEMORY: frozenset[Capability] = frozenset({(8, 6), (8, 9), (12, 0), (12, 1)})
"""GPUs with 99 KiB of shared memory a block (CUDA C++ Programming Guide, table of compute capabilities); vLLM's Triton
kernel takes 120 to 128 KiB in float32."""

CpuKernel = Literal["zentorch", "amx"]
"""Who can multiply int8 experts on a CPU: AMD's zentorch, or vLLM itself where the processor has Intel's AMX tiles.

zentorch keeps a second, reordered copy of what it multiplies: int8 takes half of what bfloat16 takes with it, and as
much as bfloat16 takes without it."""


def quantization_arguments(settings: Settings) -> dict[str, Any]:
    """Return vLLM's engine arguments of the quantisation; nothing when none is asked for.

    vLLM's shorthands would quantise linear layers too; the section `moe` alone leaves them as they are.
    """
    if settings.quantization == "none":
        return {}
    return {"quantization": "online", "quantization_config": {"moe": _ONLINE[settings.quantization]}}


def check_quantization(settings: Settings, text: TextConfig, *, on_cpu: bool, kernel: CpuKernel | None) -> None:
    """Raise DeploymentError when the experts of this decoder cannot be held in `settings.quantization` here."""
    if kernel == "zentorch" and text.moe_layers and text.num_experts_per_tok == 1:
        # vLLM takes this kernel wherever the package is installed, for float experts too.
        raise DeploymentError(
            "the package zentorch cannot serve this checkpoint: its kernel fails when all tokens of a step go to one"
            " expert, which a single token with num_experts_per_tok 1 always does; uninstall it"
        )
    if settings.quantization == "none":
        return
    asked = f"MEDMOE_QUANTIZATION={settings.quantization}"
    if not text.moe_layers:
        raise DeploymentError(f"{asked} quantises experts, and this checkpoint has none: its moe_layers are empty")
    if settings.dtype == "float32":
        raise DeploymentError(
            f"{asked} needs 16-bit activations and MEDMOE_DTYPE is float32; use MEDMOE_DTYPE=bfloat16 or auto"
        )
    if on_cpu:
        _check_on_cpu(settings, text, kernel=kernel, asked=asked)


def check_accelerator(settings: Settings, text: TextConfig, *, dtype: Dtype, capability: Capability) -> None:
    """Raise DeploymentError for a format that this GPU cannot compute, or would compute wrongly."""
    if not text.moe_layers:
        return
    name = f"compute capability {capability[0]}.{capability[1]}"
    if dtype == "float32" and (capability in _SMALL_SHARED_MEMORY or capability < (8, 0)):
        raise DeploymentError(
            f"experts in float32 do not fit in the shared memory of this GPU ({name}); use MEDMOE_DTYPE=bfloat16 or"
            " float16"
        )
    if capability >= NATIVE_FP8 or not settings.quantization.startswith("fp8"):
        return
    asked = f"MEDMOE_QUANTIZATION={settings.quantization}"
    wanted = f"a GPU that multiplies fp8 itself (compute capability 8.9 or later, not {name[-3:]})"
    if text.model_type == "phi":
        # There vLLM takes its Marlin kernel and, with fp8, does not bring the experts' biases into that kernel's order.
        raise DeploymentError(
            f"{asked} with the experts of phi, which have biases, needs {wanted}; use int8_per_channel"
        )
    if settings.quantization == "fp8_per_channel":
        raise DeploymentError(f"{asked} needs {wanted}; use fp8_per_tensor, fp8_per_block or int8_per_channel")


def cpu_kernel(cpuinfo: Path = Path("/proc/cpuinfo")) -> CpuKernel | None:
    """Return the kernel that vLLM would choose here, as its platforms/__init__.py and experts/cpu_moe.py do."""
    try:
        text = cpuinfo.read_text()
    except OSError:
        return None
    if "AuthenticAMD" in text and "avx512" in text and importlib.util.find_spec("zentorch") is not None:
        return "zentorch"
    return "amx" if "amx_tile" in text.split() else None


def _check_on_cpu(settings: Settings, text: TextConfig, *, kernel: CpuKernel | None, asked: str) -> None:
    if settings.quantization != "int8_per_channel":
        raise DeploymentError(f"{asked} needs a GPU; on CPU only int8_per_channel has a kernel")
    if settings.dtype == "float16":
        raise DeploymentError(f"{asked} on CPU needs MEDMOE_DTYPE=bfloat16 or auto, not float16")
    if text.model_type == "phi":
        raise DeploymentError(
            f"{asked} on CPU knows only gated experts, and those of phi are not; serve it without quantisation"
        )
    if kernel is None:
        raise DeploymentError(
            f"{asked} on CPU needs a processor with Intel's AMX tiles or, for a checkpoint with num_experts_per_tok 2"
            " or more, an AMD processor with AVX-512 and the package zentorch; without, vLLM has no kernel for it"
        )
    width = text.intermediate_size // settings.tensor_parallel_size
    if kernel == "amx" and (text.hidden_size % _CPU_ALIGNMENT or width % _CPU_ALIGNMENT):
        raise DeploymentError(
            f"{asked} on CPU needs a hidden_size and a width of the experts per rank in multiples of {_CPU_ALIGNMENT},"
            f" not {text.hidden_size} and {width}"
        )

"""Choose the number format that the engine computes in."""

from pathlib import Path

from medmoe.model.config import MedMoEConfig
from medmoe.model.files.calibration_binding import Dtype
from medmoe.server.settings import Settings

_NATIVE_BFLOAT16 = frozenset({"amx_bf16", "avx512_bf16", "bf16"})
"""Intel's AMX tiles, AVX-512 BF16 (Intel and AMD), Arm's BF16, as Linux names them in /proc/cpuinfo."""


def engine_dtype(settings: Settings, config: MedMoEConfig, *, on_cpu: bool) -> Dtype:
    """Return the number format that the engine computes in."""
    if settings.dtype != "auto":
        return settings.dtype
    if not on_cpu:
        return config.dtype
    # int8 kernels take no float32. Elsewhere bfloat16 pays only where the processor multiplies it itself.
    return "bfloat16" if settings.quantization != "none" or has_native_bfloat16() else "float32"


def has_native_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether the processor multiplies bfloat16 without converting it to float32."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return False
    named = (line.partition(":") for line in lines)
    return any(
        name.strip() in ("flags", "Features") and not _NATIVE_BFLOAT16.isdisjoint(flags.split())
        for name, _, flags in named
    )

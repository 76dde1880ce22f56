"""Read what the processor can compute from its flags."""

from pathlib import Path

_NATIVE_BFLOAT16 = frozenset({"amx_bf16", "avx512_bf16", "bf16"})
"""Intel's AMX tiles, AVX-512 BF16 (Intel and AMD), Arm's BF16, as Linux names them in /proc/cpuinfo."""


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

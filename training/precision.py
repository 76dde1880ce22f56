"""Choose the number format of matrix products for a device."""

import torch


def has_bfloat16(device: torch.device) -> bool:
    """Return true for a GPU with bfloat16 and a CPU with AMX or AVX512-BF16; elsewhere it is emulated, and slow."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def fast_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 where the device has it, else float32."""
    return torch.bfloat16 if has_bfloat16(device) else torch.float32


def fast_autocast(device: torch.device) -> torch.autocast:
    """Return the context in which matrix products are in `fast_dtype`."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=has_bfloat16(device))

"""Decide whether a device multiplies in bfloat16 itself."""

import torch


def has_bfloat16(device: torch.device) -> bool:
    """Return true for a GPU with bfloat16 and a CPU with AMX or AVX512-BF16; elsewhere it is emulated, and slow."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())

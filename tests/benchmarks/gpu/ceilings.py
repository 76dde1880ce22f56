"""Measure the machine's ceilings by torch, in the same run: bytes a second copied, operations multiplied."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

_REPEATS = 7


def device_facts(device: str) -> dict[str, Any]:
    """Its name, memory and software."""
    facts: dict[str, Any] = {"device": device, "torch": torch.__version__}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        facts |= {
            "name": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
        }
    return facts


def seconds(run: Callable[[], Any], *, device: str, calls: int, repeats: int = _REPEATS) -> float:
    """Of one call: the median over `repeats` of `calls` calls one after the other, after one for nothing."""
    run()
    found = []
    for _ in range(repeats):
        if device == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            start.record()
            for _ in range(calls):
                run()
            end.record()
            end.synchronize()
            found.append(start.elapsed_time(end) / 1e3 / calls)
        else:
            begun = time.perf_counter()
            for _ in range(calls):
                run()
            found.append((time.perf_counter() - begun) / calls)
    return statistics.median(found)


def bandwidth(*, device: str, size: int, calls: int) -> float:
    """Bytes a second, read and written, of copying `size` bytes; far more than a cache holds."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / seconds(lambda: target.copy_(source), device=device, calls=calls)


def multiplication(*, device: str, side: int, dtype: torch.dtype, calls: int) -> float:
    """Operations a second of the product of two square matrices, an addition and a multiplication counted as two."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * side**3 / seconds(lambda: torch.mm(a, b, out=out), device=device, calls=calls)


def ceilings(*, device: str, dtype: str, tiny: bool) -> dict[str, Any]:
    """All of it, as JSON values."""
    size, side, calls = (2**26, 256, 3) if tiny else (2**32, 8192, 10)
    return device_facts(device) | {
        "dtype": dtype,
        "copied_bytes": size,
        "bandwidth": bandwidth(device=device, size=size, calls=calls),
        "matrix_side": side,
        "multiplication": multiplication(device=device, side=side, dtype=getattr(torch, dtype), calls=calls),
    }

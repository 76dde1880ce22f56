"""Compute RMS normalisation on a CPU with vLLM's fused kernel.

Without a compiler vLLM would use torch's separate operations. The kernel is used for single tokens too, where it saves
nothing, so that a token's result does not depend on the batch. Shape letters: T tokens (any number of leading
dimensions), D hidden size.
"""

import functools

import torch
from vllm import ir
from vllm.platforms import current_platform

_PROVIDER = "medmoe_cpu"


def _fits(x: torch.Tensor, weight: torch.Tensor | None, variance_size: int | None) -> bool:
    return variance_size is None and weight is not None and weight.dtype == x.dtype and x.is_contiguous()


def _norm_fits(x: torch.Tensor, weight: torch.Tensor | None, epsilon: float, variance_size: int | None = None) -> bool:
    return _fits(x, weight, variance_size)


def _sum_fits(
    x: torch.Tensor,
    x_residual: torch.Tensor,
    weight: torch.Tensor | None,
    epsilon: float,
    variance_size: int | None = None,
) -> bool:
    return _fits(x, weight, variance_size) and x_residual.is_contiguous() and x_residual.dtype == x.dtype


@functools.cache
def prefer_fused_norms() -> None:
    """Use the fused kernels for all norms of this process from now on; do nothing on other devices than a CPU."""
    if not current_platform.is_cpu():
        return
    ir.ops.rms_norm.register_impl(_PROVIDER, supports_args=_norm_fits)(_norm)
    ir.ops.fused_add_rms_norm.register_impl(_PROVIDER, supports_args=_sum_fits, inplace=True)(_norm_of_sum)
    for operation in (ir.ops.rms_norm, ir.ops.fused_add_rms_norm):
        operation.set_default([_PROVIDER, "native"])


def _norm(
    x: torch.Tensor, weight: torch.Tensor | None, epsilon: float, variance_size: int | None = None
) -> torch.Tensor:
    """Normalise x [..., D] with weight [D] of the same dtype (Zhang and Sennrich 2019, equation 4)."""
    output = torch.empty_like(x)
    torch.ops._C.rms_norm(output, x, weight, epsilon)
    return output


def _norm_of_sum(
    x: torch.Tensor,
    x_residual: torch.Tensor,
    weight: torch.Tensor | None,
    epsilon: float,
    variance_size: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the normalised sum in place of x, and the sum in place of x_residual, both [..., D]."""
    torch.ops._C.fused_add_rms_norm(x, x_residual, weight, epsilon)
    return x, x_residual

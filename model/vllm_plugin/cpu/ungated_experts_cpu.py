"""Run Phi's two-matrix experts on vLLM's fused CPU kernel for gated experts.

The kernel computes act(W1 x + b1) * (W3 x + b3). With W3 = 0 and b3 = 1 that is Phi's expert, exactly. The zeros cost
neither memory nor bandwidth: they are never written, so the operating system backs them with one shared page.
tests/benchmarks/kernels/phi_experts.py compares this with torch's grouped product and with zeros that are stored.
"""

import math
import mmap
from typing import Any

import torch
from vllm._custom_ops import cpu_prepack_moe_weight
from vllm.model_executor.layers.fused_moe.config import FusedMoEConfig
from vllm.model_executor.layers.fused_moe.routed_experts import RoutedExperts
from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import UnquantizedFusedMoEMethod
from vllm.utils.math_utils import round_up

_ALIGNMENT = 32  # rows that the kernel's packed layout keeps together


class UngatedExperts(RoutedExperts):
    """vLLM's container of expert weights, with `_UngatedMethod`."""

    def _get_quant_method(self, prefix: str, quant_config: Any, moe_config: FusedMoEConfig) -> "_UngatedMethod":
        return _UngatedMethod(moe_config)


class _UngatedMethod(UnquantizedFusedMoEMethod):
    """Holds w13 [E, 2F, D], whose second half stays zero, and w2 [E, D, F]; F is this rank's width, rounded up."""

    def create_weights(
        self,
        layer: RoutedExperts,
        num_experts: int,
        hidden_size: int,
        intermediate_size_per_partition: int,
        params_dtype: torch.dtype,
        **attributes: Any,
    ) -> None:
        # Rows and columns beyond the checkpoint's stay zero and add nothing.
        width = round_up(intermediate_size_per_partition, _ALIGNMENT)
        with torch.device("meta"):
            super().create_weights(layer, num_experts, hidden_size, width, params_dtype, **attributes)
        shape = (num_experts, 2 * width, hidden_size)
        _materialise(layer, "w13_weight", untouched_zeros(shape, dtype=params_dtype))
        _materialise(layer, "w2_weight", torch.zeros(num_experts, hidden_size, width, dtype=params_dtype))
        bias = torch.zeros(num_experts, 2 * width, dtype=params_dtype)
        bias[:, width:] = 1
        _materialise(layer, "w13_bias", bias)
        _materialise(layer, "w2_bias", torch.zeros(num_experts, hidden_size, dtype=params_dtype))

    def process_weights_after_loading(self, layer: RoutedExperts) -> None:
        """Bring both matrices into the kernel's packed layout, in place: the zeros must not be written, nor copied."""
        width = layer.w13_weight.shape[1] // 2
        for expert in range(layer.w13_weight.shape[0]):
            for weight in (layer.w13_weight.data[expert, :width], layer.w2_weight.data[expert]):
                weight.copy_(cpu_prepack_moe_weight(weight[None], self.experts_cls.isa)[0])
        self._init_moe_kernel(layer)


def untouched_zeros(shape: tuple[int, ...], *, dtype: torch.dtype) -> torch.Tensor:
    """Return zeros in fresh private pages, which take memory only once they are written."""
    size = math.prod(shape) * dtype.itemsize
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(pages, dtype=dtype).view(shape)


def _materialise(layer: torch.nn.Module, name: str, value: torch.Tensor) -> None:
    placeholder = getattr(layer, name)
    parameter = torch.nn.Parameter(value, requires_grad=False)
    # vLLM attaches its weight loader to the parameter.
    parameter.__dict__.update(placeholder.__dict__)
    setattr(layer, name, parameter)

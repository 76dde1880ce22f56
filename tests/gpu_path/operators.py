"""Compute the CUDA C++ operators of vLLM's GPU path with torch, in float32 as those kernels accumulate."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CALLS: Counter[str] = Counter()
"""How often each operator was called."""
_libraries: list[torch.library.Library] = []


def topk_softmax(
    weights: Tensor,
    experts: Tensor,
    source_rows: Tensor,
    logits: Tensor,
    renormalize: bool,
    bias: Tensor | None,
    is_padding: Tensor | None,
) -> None:
    """Fill the K largest probabilities and their experts [T, K] of logits [T, E]."""
    assert bias is None
    count, k = experts.shape
    values, indices = logits.float().softmax(-1).topk(k, dim=-1)
    weights.copy_(values / values.sum(-1, keepdim=True) if renormalize else values)
    experts.copy_(indices)
    if is_padding is not None:
        weights[is_padding], experts[is_padding] = 0, -1
    source_rows.copy_(torch.arange(count * k).view(k, count).T)


def moe_align_block_size(
    experts: Tensor,
    num_experts: int,
    block: int,
    sorted_slots: Tensor,
    block_experts: Tensor,
    num_slots: Tensor,
    expert_map: Tensor | None,
) -> None:
    """Order the slots of experts [T, K] by expert, each expert's padded to a multiple of `block`."""
    chosen = experts.reshape(-1)
    if expert_map is not None:
        chosen = torch.where(chosen < 0, chosen, expert_map[chosen.clamp(min=0)])
    sorted_slots.fill_(len(chosen))
    block_experts.zero_()
    end = 0
    for expert in range(num_experts):
        slots = (chosen == expert).nonzero().flatten()
        sorted_slots[end : end + len(slots)] = slots.to(sorted_slots.dtype)
        start, end = end, end + -(-len(slots) // block) * block
        block_experts[start // block : end // block] = expert
    num_slots.fill_(end)


def moe_sum(
    expert_outputs: Tensor, out: Tensor, experts: Tensor | None = None, expert_map: Tensor | None = None
) -> None:
    """Sum the experts' outputs [T, K, D] over K."""
    out.copy_(expert_outputs.float().sum(1))


def silu_and_mul(out: Tensor, gate_up: Tensor) -> None:
    """Multiply the SiLU of the first half of the last axis by the second half."""
    gate, up = gate_up.float().chunk(2, -1)
    out.copy_(F.silu(gate) * up)


def gelu_tanh_and_mul(out: Tensor, gate_up: Tensor) -> None:
    """Multiply the tanh GELU of the first half of the last axis by the second half."""
    gate, up = gate_up.float().chunk(2, -1)
    out.copy_(F.gelu(gate, approximate="tanh") * up)


def gelu_new(out: Tensor, x: Tensor) -> None:
    """Compute GELU's tanh approximation."""
    out.copy_(F.gelu(x.float(), approximate="tanh"))


def rms_norm(out: Tensor, x: Tensor, weight: Tensor | None, epsilon: float) -> None:
    """Normalise the last axis by its root mean square (Zhang and Sennrich 2019, equation 4)."""
    wide = x.float()
    normalised = (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)).to(x.dtype)
    out.copy_(normalised if weight is None else normalised * weight)


def fused_add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor | None, epsilon: float) -> None:
    """Add x to `residual` and leave the normalised sum in x."""
    residual.copy_(x.float() + residual.float())
    rms_norm(x, residual.clone(), weight, epsilon)


def rotary_embedding(
    positions: Tensor,
    query: Tensor,
    key: Tensor | None,
    head_size: int,
    cos_sin_cache: Tensor,
    is_neox: bool,
    rope_dim_offset: int = 0,
    inverse: bool = False,
) -> None:
    """Rotate the leading dimensions of each head in place (Su et al. 2021, equation 34, in GPT-NeoX's order)."""
    assert is_neox
    assert not rope_dim_offset
    assert not inverse
    cos, sin = (half[:, None] for half in cos_sin_cache[positions.flatten()].float().chunk(2, -1))
    for states in (query, key):
        if states is not None:
            heads = states.view(positions.numel(), -1, head_size)[..., : cos_sin_cache.shape[-1]]
            first, second = heads.float().chunk(2, -1)
            heads.copy_(torch.cat([first * cos - second * sin, second * cos + first * sin], -1))


_OPERATORS: dict[str, tuple[str, Callable[..., Any]]] = {
    "_moe_C::topk_softmax": (
        "(Tensor! topk_weights, Tensor! topk_indices, Tensor! token_expert_indices, Tensor gating_output,"
        " bool renormalize, Tensor? bias, Tensor? is_padding) -> ()",
        topk_softmax,
    ),
    "_moe_C::moe_align_block_size": (
        "(Tensor topk_ids, int num_experts, int block_size, Tensor! sorted_token_ids, Tensor! experts_ids,"
        " Tensor! num_tokens_post_pad, Tensor? maybe_expert_map) -> ()",
        moe_align_block_size,
    ),
    "_moe_C::moe_sum": (
        "(Tensor input, Tensor! output, Tensor? topk_ids=None, Tensor? expert_map=None) -> ()",
        moe_sum,
    ),
    "_C::silu_and_mul": ("(Tensor! result, Tensor input) -> ()", silu_and_mul),
    "_C::gelu_tanh_and_mul": ("(Tensor! result, Tensor input) -> ()", gelu_tanh_and_mul),
    "_C::gelu_new": ("(Tensor! out, Tensor input) -> ()", gelu_new),
    "_C::rms_norm": ("(Tensor! result, Tensor input, Tensor? weight, float epsilon) -> ()", rms_norm),
    "_C::fused_add_rms_norm": (
        "(Tensor! input, Tensor! residual, Tensor? weight, float epsilon) -> ()",
        fused_add_rms_norm,
    ),
    "_C::rotary_embedding": (
        "(Tensor positions, Tensor! query, Tensor!? key, int head_size, Tensor cos_sin_cache, bool is_neox,"
        " int rope_dim_offset=0, bool inverse=False) -> ()",
        rotary_embedding,
    ),
    "_C::weak_ref_tensor": ("(Tensor input) -> Tensor", lambda tensor: tensor),
}
_QUESTIONS = (
    "cutlass_scaled_mm_supports_block_fp8",
    "cutlass_scaled_mm_supports_fp8",
    "cutlass_group_gemm_supported",
    "cutlass_scaled_mm_supports_fp4",
)
"""Operators by which vLLM asks what was compiled."""


def define() -> None:
    """Define every operator's schema. Call before vLLM is imported, which looks them up."""
    for name, (schema, _) in _OPERATORS.items():
        space, operator = name.split("::")
        _library(space, "FRAGMENT").define(operator + schema)
    for operator in _QUESTIONS:
        library = _library("_C", "FRAGMENT")
        library.define(f"{operator}(int capability) -> bool")
        library.impl(operator, lambda _capability: False, "CompositeExplicitAutograd")


def implement() -> None:
    """Register every operator's function. Call after vLLM is imported."""
    for name, (_, function) in _OPERATORS.items():
        space, operator = name.split("::")
        _library(space, "IMPL").impl(operator, _counted(name, function), "CPU")


def _library(space: str, kind: str) -> torch.library.Library:
    _libraries.append(torch.library.Library(space, kind))
    return _libraries[-1]


def _counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        CALLS[name] += 1
        return function(*arguments, **named)

    return call

"""Compute the routed experts of an MoE layer for training: sort tokens by expert, one product per matrix.

The loop in `moe.py` is the reference; this computes the same with gradients, fast. No token is dropped and none is
computed by an expert that it did not choose.

Shape letters: T tokens, D hidden size, E experts, K experts chosen per token, N = T * K rows (a token and one choice).

Two forms do the products; parameters stay where they are in both, so that names in a checkpoint, frozen experts and
adapters work as in the loop:

- `grouped_products`, on CUDA: `torch.nn.functional.grouped_mm` per matrix, the experts' matrices stacked for it, which
  the graph keeps until the backward. The group boundaries stay on the device. torch's kernel reads them there for
  bfloat16 on compute capability 9 and 10; otherwise torch itself copies the E boundaries to the host once per product,
  and its loop over experts is in C++.
- `segments`, elsewhere and for what a grouped product cannot take: each expert called on its own contiguous rows. The E
  boundaries are copied to the host once for the layer, which on CPU is no wait.

An expert without tokens gets gradients of zero in both, not None: DistributedDataParallel waits for every parameter,
and the update of an expert must not depend on how the batch was shared out between processes.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

Form = Callable[[torch.Tensor, torch.Tensor, nn.ModuleList], torch.Tensor]
"""Rows [N, D] sorted by expert, the index after each expert's last row [E] (int32), the experts -> [N, D]."""
# Meta tensors stand for an accelerator's in tests.
_DEVICES = ("cuda", "meta")
# What torch's grouped product takes; its rows must also be a multiple of this many bytes long.
_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
_ROW_BYTES = 16


def grouped_experts(
    x_TD: torch.Tensor,
    weights_TK: torch.Tensor,
    experts_TK: torch.Tensor,
    experts: nn.ModuleList,
    *,
    form: Form | None = None,
) -> torch.Tensor:
    """Return the weighted sum [T, D] of each token's chosen experts, differentiable in x, weights and experts.

    `experts_TK` holds indices into `experts`, `weights_TK` their weights (any floating dtype, rounded to x's). `form`
    is by default what suits the device and the experts.
    """
    tokens, choices = experts_TK.shape
    # Stable, so that each expert sees its tokens in their order, as in the loop.
    expert_N, order_N = experts_TK.reshape(-1).sort(stable=True)
    # Not bincount: on a GPU it waits for the largest index.
    first_to_last_E = torch.arange(len(experts), device=expert_N.device)
    ends_E = torch.searchsorted(expert_N, first_to_last_E, right=True, out_int32=True)
    rows_ND = x_TD.index_select(0, order_N.div(choices, rounding_mode="floor"))
    if form is None:
        form = grouped_products if takes_grouped_products(experts, rows_ND) else segments
    routed_ND = form(rows_ND, ends_E, experts)
    routed_ND = routed_ND * weights_TK.reshape(-1).index_select(0, order_N)[:, None].to(x_TD.dtype)
    # Every row has a place of its own: nothing is added up by atomic operations.
    placed_ND = torch.empty_like(routed_ND).index_copy(0, order_N, routed_ND)
    return placed_ND.view(tokens, choices, -1).sum(dim=1) if choices > 1 else placed_ND


def segments(rows_ND: torch.Tensor, ends_E: torch.Tensor, experts: nn.ModuleList) -> torch.Tensor:
    """Call each expert, any module, once on its rows, even on none; arguments and result are those of `Form`."""
    sizes = ends_E.diff(prepend=ends_E.new_zeros(1)).tolist()
    return torch.cat([expert(rows) for expert, rows in zip(experts, rows_ND.split(sizes), strict=True)])


def grouped_products(rows_ND: torch.Tensor, ends_E: torch.Tensor, experts: nn.ModuleList) -> torch.Tensor:
    """Compute gated (Llama, StableLM) or plain (Phi) FFNs of nn.Linear, one grouped product per matrix, as `Form` says.

    `ends_E` stays on the device.
    """
    if hasattr(experts[0], "down_proj"):
        inner_NF = _activation(experts, "act_fn")(_linear(rows_ND, ends_E, experts, "gate_proj"))
        return _linear(inner_NF * _linear(rows_ND, ends_E, experts, "up_proj"), ends_E, experts, "down_proj")
    inner_NF = _activation(experts, "activation_fn")(_linear(rows_ND, ends_E, experts, "fc1"))
    return _linear(inner_NF, ends_E, experts, "fc2")


def _activation(experts: nn.ModuleList, name: str) -> nn.Module:
    activation = getattr(experts[0], name)
    assert isinstance(activation, nn.Module)
    return activation


def _linear(rows_NI: torch.Tensor, ends_E: torch.Tensor, experts: nn.ModuleList, name: str) -> torch.Tensor:
    """Apply to each row of [N, I] its expert's layer of that name; returns [N, O]."""
    layers: list[nn.Linear] = [getattr(expert, name) for expert in experts]
    # Autocast does for nn.Linear what is done by hand here: it knows nothing of stacked parameters.
    dtype = _compute_dtype(rows_NI)
    weight_EOI = torch.stack([layer.weight.to(dtype) for layer in layers])
    out_NO = F.grouped_mm(rows_NI.to(dtype), weight_EOI.transpose(1, 2), offs=ends_E)
    if layers[0].bias is None:
        return out_NO
    bias_EO = torch.stack([layer.bias.to(dtype) for layer in layers])
    # A product with each row's membership, not bias_EO[expert]: the backward of indexing adds thousands of rows one
    # after another in 16 bit, a product's in float32.
    row_N1 = torch.arange(len(rows_NI), device=ends_E.device)[:, None]
    member_NE = (row_N1 < ends_E) & (row_N1 >= F.pad(ends_E[:-1], (1, 0)))
    return out_NO + member_NE.to(dtype) @ bias_EO


def _compute_dtype(rows: torch.Tensor) -> torch.dtype:
    return torch.get_autocast_dtype(rows.device.type) if _is_autocast(rows) else rows.dtype


def _is_autocast(rows: torch.Tensor) -> bool:
    device = rows.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def takes_grouped_products(experts: nn.ModuleList, rows_ND: torch.Tensor) -> bool:
    """Return whether `grouped_products` supports these experts on these rows and is faster."""
    # On CPU a grouped product is a loop over experts inside torch, for which every matrix was copied: segments are as
    # fast or faster at all sizes measured (tests/benchmarks/kernels/grouped_experts.py).
    if rows_ND.device.type not in _DEVICES:
        return False
    dtype = _compute_dtype(rows_ND)
    autocast = _is_autocast(rows_ND)
    layers = [_layers(expert) for expert in experts]
    return (
        dtype in _DTYPES
        and all(layers)
        and all(
            (layer.weight.dtype == dtype or autocast)
            and layer.in_features * dtype.itemsize % _ROW_BYTES == 0
            and layer.out_features * dtype.itemsize % _ROW_BYTES == 0
            for expert_layers in layers
            for layer in expert_layers
        )
    )


def _layers(expert: nn.Module) -> list[nn.Linear]:
    """Return the matrices of a known FFN, which can be used without calling it; none for any other module.

    An adapter, a quantised or parametrised layer is another class than nn.Linear; sharding and offloading gather
    parameters in hooks. Such a module must be called.
    """
    names = ("gate_proj", "up_proj", "down_proj") if hasattr(expert, "down_proj") else ("fc1", "fc2")
    layers = [getattr(expert, name, None) for name in names]
    plain = [layer for layer in layers if type(layer) is nn.Linear]
    hooked = any(module._forward_hooks or module._forward_pre_hooks for module in (expert, *plain))
    return plain if len(plain) == len(names) and not hooked else []

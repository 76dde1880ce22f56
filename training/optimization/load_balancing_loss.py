"""Compute the load-balancing loss of a learned router's logits.

Med-MoE's own router is trained before and frozen; only the baseline with a learned router needs this loss. The sum
over the MoE layers, times a coefficient (0.01 upstream), is added to the loss:

    with collect_router_logits(model) as logits:
        hidden = model.hidden_states(...)
    balance = sum(load_balancing_loss(layer, mask=attention_mask) for layer in logits.values())
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from medmoe.model.moe import Router


def load_balancing_loss(logits_TE: torch.Tensor, *, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Return E * sum over experts of (mean probability) * (share of tokens that choose it first), a float32 scalar.

    It is 1 when the load and the probabilities are even, and E when one expert takes everything with certainty; only
    the probabilities carry gradients. `mask` has one entry per token in any shape, zero for tokens that must not count
    (padding); with none left the loss is 0. Means are over this process's tokens.

    Source: DeepSpeed 0.9.5, `sharded_moe.py: top1gating`, `top2gating` (Switch Transformers, arXiv 2101.03961, eq. 4);
    there padding counts. Raises ValueError when the mask has another number of tokens.
    """
    tokens, experts = logits_TE.shape
    if mask is not None and mask.numel() != tokens:
        raise ValueError(f"a mask of {mask.numel()} tokens does not fit the logits of {tokens}")
    p_TE = logits_TE.float().softmax(dim=-1)
    first_T = logits_TE.argmax(dim=-1)
    counted_T = p_TE.new_ones(tokens) if mask is None else (mask.reshape(-1) != 0).to(p_TE.dtype)
    total = counted_T.sum().clamp(min=1)
    # Not a product of matrices, which autocast would take in 16 bit.
    mean_E = (counted_T[:, None] * p_TE).sum(dim=0) / total
    share_E = torch.zeros_like(mean_E).index_add(0, first_T, counted_T) / total
    return experts * (mean_E * share_E).sum()


@contextmanager
def collect_router_logits(model: nn.Module) -> Iterator[dict[str, torch.Tensor]]:
    """Collect each router's float32 logits [T, E] of its last forward, with their graph, in a dictionary.

    Keys are the routers' names in `model`, in its order (`….layers.N.mlp.gate`); T counts every token of the batch,
    padding too, row by row. Routers keep nothing after the block. Under gradient checkpointing take the non-reentrant
    kind: the other computes its forward without a graph.
    """
    collected: dict[str, torch.Tensor] = {}
    routers = {name: module for name, module in model.named_modules() if isinstance(module, Router)}
    before = {name: router.on_logits for name, router in routers.items()}
    for name, router in routers.items():
        router.on_logits = _put(collected, name)
    try:
        yield collected
    finally:
        for name, router in routers.items():
            router.on_logits = before[name]


def _put(collected: dict[str, torch.Tensor], name: str) -> Callable[[torch.Tensor], None]:
    def put(logits_TE: torch.Tensor) -> None:
        collected[name] = logits_TE

    return put

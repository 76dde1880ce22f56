"""Expand the schedule of Med-MoE-LoRA's paper to lists of experts and ranks for each layer. Torch-free.

The schedule is the text's (arXiv 2601.07935, section 4.1). The paper's equation 2 contradicts it: for every gamma it
reaches 8 experts in the last layer alone, where the text has them from layer 20 of 32 on.
"""

from collections.abc import Sequence

from medmoe.model.lora.adapter_config import AnchorMode, LayerExperts

_LADDER = (32, 16, 8)
_ANCHOR_RANK = 8


def expert_counts(num_layers: int) -> tuple[int, ...]:
    """Return the number of experts of every layer: 2 up to 10/32 of the depth, 4 up to 19/32, 8 above.

    The text says nothing of the layers between its two ranges; they have 4.
    """
    return tuple(
        2 if 32 * layer <= 10 * num_layers else 4 if 32 * layer <= 19 * num_layers else 8
        for layer in range(1, num_layers + 1)
    )


def anchor_count(n_experts: int) -> int:
    """Return k_l, a quarter of the experts, at least one."""
    return max(1, n_experts // 4)


def rank_ladder(n_specialists: int, *, ladder: tuple[int, int, int] = _LADDER) -> tuple[int, ...]:
    """Return ranks of the specialists: the first third gets the highest, half of the rest the middle one (both rounded
    up).
    """
    high = -(-n_specialists // 3)
    middle = -(-(n_specialists - high) // 2)
    return (ladder[0],) * high + (ladder[1],) * middle + (ladder[2],) * (n_specialists - high - middle)


def layer_experts(
    n_experts: int, *, anchor_mode: AnchorMode, ladder: tuple[int, int, int] = _LADDER, anchor_rank: int = _ANCHOR_RANK
) -> LayerExperts:
    """Return anchors and specialists of a layer with `n_experts` experts (two at least), all scaled by 2."""
    anchors = anchor_count(n_experts)
    ranks = (0 if anchor_mode == "null" else anchor_rank,) * anchors + rank_ladder(n_experts - anchors, ladder=ladder)
    return layer_of_ranks(ranks, n_anchor=anchors)


def layer_of_ranks(ranks: Sequence[int], *, n_anchor: int) -> LayerExperts:
    """Return a layer with just these ranks, anchors first, and alpha = 2 rank."""
    return LayerExperts(n_anchor=n_anchor, ranks=tuple(ranks), alphas=tuple(2.0 * rank for rank in ranks))


def ordinary_lora(rank: int, *, num_layers: int) -> tuple[LayerExperts, ...]:
    """Return one expert of this rank in each layer, without routers."""
    return (layer_of_ranks((rank,), n_anchor=0),) * num_layers


def scheduled_layers(
    num_layers: int,
    *,
    anchor_mode: AnchorMode,
    ladder: tuple[int, int, int] = _LADDER,
    anchor_rank: int = _ANCHOR_RANK,
) -> tuple[LayerExperts, ...]:
    """Return the experts of each layer, first layer first."""
    return tuple(
        layer_experts(n, anchor_mode=anchor_mode, ladder=ladder, anchor_rank=anchor_rank)
        for n in expert_counts(num_layers)
    )

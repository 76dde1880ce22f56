"""Expand presets to explicit lists of experts and ranks for each layer. Torch-free.

Layers are counted as the paper counts them, l = 1..L. Its equation 2 and its implementation section contradict each
other for every gamma (8 experts are reached at l = L only, but the text wants them from l = 20 of 32), so both exist.
"""

from collections.abc import Sequence
from typing import Literal

from medmoe.model.lora.adapter_config import AnchorMode, LayerExperts

Preset = Literal["paper", "power", "mola"]

_MOLA = (2, 4, 6, 8)
_LADDER = (32, 16, 8)
_ANCHOR_RANK = 8


def expert_counts(preset: Preset, *, num_layers: int, gamma: float = 1.55) -> tuple[int, ...]:
    """Return n_l, the number of experts of every layer.

    paper: 2 up to 10/32 of the depth, 4 up to 19/32, 8 above (arXiv 2601.07935, section 4.1, the gap filled with 4).
    power: 2 + floor(6 (l/L)^gamma), its equation 2; gamma 1.55 spends as many experts as a uniform 4 does at 32 layers.
    mola: 2, 4, 6, 8 by quarters (MoLA's inverted triangle).
    """
    depth = range(1, num_layers + 1)
    if preset == "paper":
        return tuple(2 if 32 * l <= 10 * num_layers else 4 if 32 * l <= 19 * num_layers else 8 for l in depth)  # noqa: E741
    if preset == "power":
        return tuple(2 + int(6 * (l / num_layers) ** gamma) for l in depth)  # noqa: E741
    return tuple(_MOLA[4 * index // num_layers] for index in range(num_layers))


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


def expand_preset(
    preset: Preset,
    *,
    num_layers: int,
    anchor_mode: AnchorMode,
    gamma: float = 1.55,
    ladder: tuple[int, int, int] = _LADDER,
    anchor_rank: int = _ANCHOR_RANK,
) -> tuple[LayerExperts, ...]:
    """Return the experts of each layer, first layer first."""
    return tuple(
        layer_experts(n, anchor_mode=anchor_mode, ladder=ladder, anchor_rank=anchor_rank)
        for n in expert_counts(preset, num_layers=num_layers, gamma=gamma)
    )

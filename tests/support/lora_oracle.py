"""Compute Med-MoE-LoRA's equations 1, 3 and 4 as a loop over experts, the slow reference for the tests.

Shape letters: T tokens, D input width, N experts, R sum of the ranks, O output width. Float32 or float64.
"""

import math
from collections.abc import Sequence

import torch


def oracle_gates(
    x: torch.Tensor, weight: torch.Tensor, log_tau: float, *, tau_clamp: tuple[float, float] = (0.25, 4.0)
) -> torch.Tensor:
    """Return gates [T, N] of inputs [T, D], one token at a time."""
    tau = min(max(math.exp(log_tau), tau_clamp[0]), tau_clamp[1])
    rows = []
    for token in x:
        scores = [float(row @ token) / tau for row in weight]
        highest = max(scores)
        exponentials = [math.exp(score - highest) for score in scores]
        rows.append([value / sum(exponentials) for value in exponentials])
    return torch.tensor(rows, dtype=x.dtype)


def oracle_delta(
    x: torch.Tensor,
    gates: torch.Tensor,
    lora_a: torch.Tensor,
    lora_b: torch.Tensor,
    *,
    ranks: Sequence[int],
    alphas: Sequence[float],
) -> torch.Tensor:
    """Return sum_i g_i (alpha_i / r_i) B_i A_i x, [T, out], from A [R, in] and B [out, R]; a rank-0 expert adds 0."""
    total = torch.zeros(len(x), len(lora_b), dtype=x.dtype)
    start = 0
    for expert, (rank, alpha) in enumerate(zip(ranks, alphas, strict=True)):
        if rank:
            a, b = lora_a[start : start + rank], lora_b[:, start : start + rank]
            total += gates[:, expert, None] * (alpha / rank) * (x @ a.T @ b.T)
        start += rank
    return total

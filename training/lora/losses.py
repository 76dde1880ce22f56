"""Define the losses on the gates of Med-MoE-LoRA.

Shape letters: B samples, L positions, N experts, K anchors (the first K of them), S = N - K specialists.

The paper (arXiv 2601.07935) names a balancing term and gives no formula, and describes knowledge preservation without a
loss. The forms here are importance CV^2 (Shazeer et al. 2017) over the specialists, and LoRAMoE's localized balancing
constraint (arXiv 2312.09979) restated as a target for the anchors' share.
"""

import torch
from torch.nn import functional as F

_EPS = 1e-6


def balance_loss(
    gates: torch.Tensor, *, n_anchor: int, mask: torch.Tensor, image: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the CV^2 over specialists of the batch's mean gate, renormalised among specialists for each token.

    Gates [B, L, N]; `mask` (bool [B, L]): tokens that are no padding; `image` (bool [B, L]): image tokens, whose mean
    counts as much as that of all text tokens, though they are a hundred times as many. The variance of single tokens'
    gates is not penalised: that would forbid routing.
    """
    specialists = gates[..., n_anchor:]
    shares = specialists / specialists.sum(dim=-1, keepdim=True).clamp_min(_EPS)
    kinds = (mask,) if image is None else (mask & image, mask & ~image)
    means = torch.stack([_mean(shares, kind) for kind in kinds])
    present = torch.stack([kind.any() for kind in kinds]).to(means.dtype)
    importance = (means * present[:, None]).sum(dim=0) / present.sum().clamp_min(1)
    return importance.var(unbiased=False) / importance.mean().clamp_min(_EPS).square()


def anchor_target(*, n_experts: int, n_anchor: int, general: torch.Tensor, delta: float) -> torch.Tensor:
    """Return the share of the gate that anchors should take, [B]: the odds of K / N, times or divided by kappa.

    kappa = (1 + delta) / (1 - delta), the ratio to which LoRAMoE's constraint drives two groups of equal size.
    `general`: bool [B]. With delta 0.5: .75 and .25 for one anchor of two, .5 and .1 for a quarter of anchors.
    """
    odds = n_anchor / (n_experts - n_anchor)
    kappa = (1 + delta) / (1 - delta)
    wanted = torch.where(general, odds * kappa, odds / kappa)
    return wanted / (1 + wanted)


def preservation_loss(
    gates: torch.Tensor, *, n_anchor: int, mask: torch.Tensor, general: torch.Tensor, delta: float = 0.5
) -> torch.Tensor:
    """Return the cross-entropy between each sample's mean anchor share and its target, averaged over samples.

    Gates [B, L, N], `mask` bool [B, L], `general` bool [B]. Its optimum is exact for groups of unequal size and for any
    mixture of samples, and how specialists share the rest is left free. A sample without tokens does not count.
    """
    mean, counted = _sample_mean(gates, mask)
    share = mean[:, :n_anchor].sum(dim=-1)
    target = anchor_target(n_experts=gates.shape[-1], n_anchor=n_anchor, general=general, delta=delta).to(share)
    share = share.clamp(_EPS, 1 - _EPS)
    loss = -(target * share.log() + (1 - target) * (1 - share).log())
    return (loss * counted).sum() / counted.sum().clamp_min(1)


def localized_balancing_loss(
    gates: torch.Tensor, *, n_anchor: int, mask: torch.Tensor, general: torch.Tensor, delta: float = 0.5
) -> torch.Tensor:
    """Return LoRAMoE's own form, Var(I * Q) / Mean(I * Q)^2 over experts and samples, with its sign put right.

    Q is a sample's mean gate. A minimum makes I * Q constant, so the group that matches the sample must get the smaller
    I, 1 - delta; LoRAMoE gives it 1 + delta. It also asks for equal use of every expert of a group in each sample.
    """
    q, counted = _sample_mean(gates, mask)
    anchor = torch.arange(gates.shape[-1], device=gates.device) < n_anchor
    matches = general[:, None] == anchor
    z = (torch.where(matches, 1 - delta, 1 + delta).to(q.dtype) * q)[counted.bool()]
    if not len(z):
        return gates.sum() * 0
    return z.var(unbiased=False) / z.mean().clamp_min(_EPS).square()


def base_divergence(logits: torch.Tensor, base_logits: torch.Tensor) -> torch.Tensor:
    """Return the divergence KL(base || adapted), the mean over positions of [T, V] logits; 0 without positions."""
    if not len(logits):
        return logits.sum() * 0
    return F.kl_div(logits.log_softmax(-1), base_logits.log_softmax(-1), log_target=True, reduction="batchmean")


def _sample_mean(gates: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean gate of each sample [B, N], and 1 for each sample that has tokens [B]."""
    weight = mask[..., None].to(gates.dtype)
    tokens = weight.sum(dim=1)
    return (gates * weight).sum(dim=1) / tokens.clamp_min(1), (tokens[:, 0] > 0).to(gates.dtype)


def _mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean over the marked positions, [N]."""
    weight = mask[..., None].to(values.dtype)
    return (values * weight).sum(dim=(0, 1)) / weight.sum().clamp_min(1)

"""Compute statistics of a router's gates while it learns."""

from dataclasses import dataclass

import torch

COLLAPSED = 0.95
"""A mean gate above this means that one expert does all the work."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GateStatistics:
    """Hold statistics of one router over one batch."""

    mean_gate: tuple[float, ...]
    """By expert, anchors first; sums to 1."""
    max_share: float
    entropy: float
    """Mean over tokens, in nats: log N is uniform, 0 is a hard choice."""
    anchor_mass_general: float | None
    """The anchors' mean share on general samples; None where the batch has none."""
    anchor_mass_medical: float | None
    temperature: float

    @property
    def collapsed(self) -> bool:
        return self.max_share > COLLAPSED


@torch.no_grad()
def gate_statistics(
    gates: torch.Tensor, *, n_anchor: int, mask: torch.Tensor, general: torch.Tensor, temperature: float
) -> GateStatistics:
    """Return the statistics of gates [B, L, N] over the tokens of `mask` (bool [B, L]); `general`: bool [B].

    Raises ValueError for a batch without tokens.
    """
    tokens = gates[mask]
    if not len(tokens):
        raise ValueError("no tokens: the mask marks none")
    mean = tokens.mean(dim=0)
    is_general = general[:, None].expand_as(mask)[mask]
    anchor = tokens[:, :n_anchor].sum(dim=-1)
    return GateStatistics(
        mean_gate=tuple(mean.tolist()),
        max_share=float(mean.max()),
        entropy=float(-torch.special.xlogy(tokens, tokens).sum(dim=-1).mean()),
        anchor_mass_general=_mean(anchor[is_general]),
        anchor_mass_medical=_mean(anchor[~is_general]),
        temperature=temperature,
    )


def _mean(values: torch.Tensor) -> float | None:
    return float(values.mean()) if len(values) else None

"""Define the answer of `/v1/router/stats`; /docs explains each field."""

from collections.abc import Mapping

from medmoe.client.answers.base import Message


class ExpertLoad(Message):
    expert: int
    domain: str | None
    tokens: int
    load_share: float


class LayerLoad(Message):
    layer: int
    tokens: int
    entropy: float | None
    """Normalised entropy: 0 if one expert takes all tokens, 1 if all take the same."""
    cv: float | None
    dead_experts: tuple[int, ...]
    experts: tuple[ExpertLoad, ...]


class Divergence(Message):
    tokens: int
    divergence: float | None
    """Jensen-Shannon divergence in bits."""


class LayerDrift(Divergence):
    layer: int
    by_kind: Mapping[str, Divergence]
    by_modality: Mapping[str, Divergence]


class RoutingDrift(Message):
    datasets: tuple[str, ...]
    split: str
    reference_samples: int
    reference_tokens: int
    layers: tuple[LayerDrift, ...]


class RouterStats(Message):
    model: str
    since: str
    """Start of the counts, ISO 8601 in UTC."""
    window_seconds: int | None
    requests: int
    expert_domains: tuple[str, ...]
    overall: tuple[LayerLoad, ...]
    by_kind: Mapping[str, tuple[LayerLoad, ...]]
    by_route: Mapping[str, tuple[LayerLoad, ...]]
    by_modality: Mapping[str, tuple[LayerLoad, ...]]
    drift: RoutingDrift | None

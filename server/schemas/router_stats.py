"""Define the response of `GET /v1/router/stats`."""

from medmoe.server.schemas.base import ApiModel


class ExpertLoad(ApiModel):
    expert: int
    domain: str | None
    tokens: int
    load_share: float


class LayerLoad(ApiModel):
    """How one MoE layer spread its tokens; entropy and cv are null before the first token."""

    layer: int
    tokens: int
    entropy: float | None
    """0: one expert takes all; 1: perfectly even."""
    cv: float | None
    """Standard deviation of the experts' tokens over their mean."""
    dead_experts: tuple[int, ...]
    experts: tuple[ExpertLoad, ...]


class Divergence(ApiModel):
    """Divergence of the observed routing from the reference."""

    tokens: int
    """Tokens observed. A hundred differ from any reference by chance; the divergence of thousands is meaningful."""
    divergence: float | None
    """Jensen-Shannon, in bits: 0 is as expected, 1 is nothing in common. Null without tokens on either side."""


class LayerDrift(Divergence):
    layer: int
    by_kind: dict[str, Divergence]
    by_modality: dict[str, Divergence]
    """For modalities that requests have stated and that the reference contains."""


class RoutingDrift(ApiModel):
    """Divergence of prompt tokens from the checkpoint's routing_reference.json."""

    datasets: tuple[str, ...]
    """Datasets that the reference was counted on."""
    split: str
    reference_samples: int
    reference_tokens: int
    """Number of tokens of the reference in each layer."""
    layers: tuple[LayerDrift, ...]


class RouterStatsResponse(ApiModel):
    model: str
    since: str
    """Start of counting, or of the window, ISO 8601, UTC."""
    window_seconds: int | None
    """As asked for; counts come in steps of ten seconds. Null: everything since the start."""
    requests: int
    """Answers counted; of a series, each slice is one."""
    expert_domains: tuple[str, ...]
    overall: tuple[LayerLoad, ...]
    by_kind: dict[str, tuple[LayerLoad, ...]]
    by_route: dict[str, tuple[LayerLoad, ...]]
    """`vqa`, `classify`, `series`, `explain`, `chat` or `decisions`: what was asked."""
    by_modality: dict[str, tuple[LayerLoad, ...]]
    """By the requests' `modality`; `unstated` for requests without one."""
    drift: RoutingDrift | None
    """Null where the checkpoint has no routing_reference.json."""

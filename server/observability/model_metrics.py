"""Export the series of the models that are served, with the label `model`.

They are read when they are scraped, so a retired model has none: their number does not grow with changes of the
checkpoint.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from medmoe.server.schemas.router_stats import RoutingDrift

ExpertTokens = tuple[int, int, str, int]
"""Layer, expert, kind of token or modality, count."""


class ModelCounts(Protocol):
    """The counts of one model that are exported."""

    def tokens(self) -> Iterable[ExpertTokens]:
        """Return the counts by kind of token."""

    def tokens_by_modality(self) -> Iterable[ExpertTokens]:
        """Return the counts by modality."""

    def recent_drift(self) -> RoutingDrift | None:
        """Return the drift of the last hour; None without a reference."""


ReadModels = Callable[[], Mapping[str, ModelCounts]]
"""Returns the models that answer, by their pinned names."""


@dataclass(kw_only=True, slots=True)
class EngineEvents:
    """Count the replacements and hangs of one model's engines."""

    restarted: int = 0
    """Engines that replaced a dead one."""
    failed: int = 0
    """Attempts to replace a dead engine that failed."""
    hangs: int = 0
    """Engines that were killed because they hung."""


ReadEngineEvents = Callable[[], Mapping[str, EngineEvents]]
"""Returns those of the models that have started, by their pinned names."""


class ExpertTokensCollector(Collector):
    """Export the tokens of each expert, by a further label."""

    def __init__(
        self,
        name: str,
        documentation: str,
        *,
        by: str,
        models: ReadModels,
        read: Callable[[ModelCounts], Iterable[ExpertTokens]],
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._labels = ("model", "layer", "expert", by)
        self._models = models
        self._read = read

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labels)
        for model, counts in self._models().items():
            for layer, expert, part, tokens in self._read(counts):
                family.add_metric([model, str(layer), str(expert), part], tokens)
        yield family


class DriftCollector(Collector):
    """Export how far the last hour's routing is from the reference."""

    def __init__(self, models: ReadModels) -> None:
        self._models = models

    def collect(self) -> Iterator[GaugeMetricFamily]:
        drifts = {model: drift for model, counts in self._models().items() if (drift := counts.recent_drift())}
        if not drifts:
            return
        divergence = GaugeMetricFamily(
            "medmoe_routing_drift",
            "Jensen-Shannon divergence (bits) of the last hour's routing from the checkpoint's reference",
            labels=["model", "layer"],
        )
        tokens = GaugeMetricFamily(
            "medmoe_routing_drift_tokens", "Prompt tokens behind medmoe_routing_drift", labels=["model", "layer"]
        )
        for model, drift in drifts.items():
            for layer in drift.layers:
                tokens.add_metric([model, str(layer.layer)], layer.tokens)
                if layer.divergence is not None:
                    divergence.add_metric([model, str(layer.layer)], layer.divergence)
        yield divergence
        yield tokens


class EngineEventsCollector(Collector):
    """Export how often engines were replaced and killed, from 0 on: an alert cannot see a series' first step."""

    def __init__(self, engines: ReadEngineEvents) -> None:
        self._engines = engines

    def collect(self) -> Iterator[CounterMetricFamily]:
        restarts = CounterMetricFamily(
            "medmoe_engine_restarts",
            "Attempts to replace an engine that had died: restarted (it answers), failed (it does not)",
            labels=["model", "outcome"],
        )
        hangs = CounterMetricFamily(
            "medmoe_engine_hangs",
            "Engines killed because they answered no ping for MEDMOE_ENGINE_HANG_SECONDS",
            labels=["model"],
        )
        for model, events in self._engines().items():
            restarts.add_metric([model, "restarted"], events.restarted)
            restarts.add_metric([model, "failed"], events.failed)
            hangs.add_metric([model], events.hangs)
        yield restarts
        yield hangs

"""Define the Prometheus series of this service: names, labels and buckets.

Each app has its own registry. Gauges and expert counts are read from their owners when they are scraped.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from http import HTTPStatus
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from medmoe.server.auth.api_keys import WatchedKeys
from medmoe.server.auth.oidc.provider import Provider
from medmoe.server.engine.quarantine import Quarantine
from medmoe.server.observability.model_metrics import (
    DriftCollector,
    EngineEventsCollector,
    ExpertTokensCollector,
    ReadEngineEvents,
    ReadModels,
)
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.schemas.openai.batch import BatchStatus

# An answer takes from tens of milliseconds (GPU, short) to most of a minute (CPU, long); doubling steps keep every
# decade equally sharp. Stages reach down to a millisecond.
_REQUEST_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 60.0)
_STAGE_BUCKETS = (0.001, 0.0025, 0.005, *_REQUEST_BUCKETS)
_REJECTIONS = frozenset({401, 413, 415, 429, 503, 504})
_COSTLY = frozenset({"quarantined", "decoder_died", "image_too_costly"})
"""Codes of 422 that count as refusals to protect the service."""
_WATCHED = (*sorted(_COSTLY), "decoder_unavailable", "overloaded", "rate_limited")
"""Reasons that are exported from 0 on: a rate, and an alert on it, cannot see a series' first step."""
_SOURCES = {True: "kept", False: "decoded"}

Counts = Mapping[BatchStatus, int]
"""Number of batches by status."""


class RequestSeries:
    """The series of finished requests, of the lines of batches, and of the images in them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = partial(Counter, registry=registry)
        histogram = partial(Histogram, registry=registry)
        self._requests = counter("medmoe_requests_total", "Requests by route template and status", ["route", "status"])
        self._duration = histogram(
            "medmoe_request_duration_seconds",
            "Time from a request's arrival to the end of its answer",
            ["route"],
            buckets=_REQUEST_BUCKETS,
        )
        self._stages = histogram(
            "medmoe_stage_duration_seconds",
            "Time of one request in one stage: fetch (from a URL or a source), image (decode, resize), queue (for a "
            "slot), engine (generation)",
            ["stage"],
            buckets=_STAGE_BUCKETS,
        )
        self._batch_lines = counter(
            "medmoe_batch_lines_total",
            "Lines of batches that were answered or interrupted (499), by route template and status",
            ["route", "status"],
        )
        self._rejections = counter("medmoe_rejections_total", "Requests refused to protect the service", ["reason"])
        self._broken = counter(
            "medmoe_broken_answers_total",
            "Answers that ended early, after their status was sent, by route template and error code",
            ["route", "reason"],
        )
        self._images = counter(
            "medmoe_images_total",
            "Images that requests asked about: decoded, or kept from a request shortly before",
            ["source"],
        )
        self._unlike_training = counter(
            "medmoe_unlike_training_total",
            "Answers by whether their image was flagged as unlike the training images",
            ["flagged"],
        )
        for reason in _WATCHED:
            self._rejections.labels(reason=reason)
        for source in _SOURCES.values():
            self._images.labels(source=source)
        for flagged in (True, False):
            self._unlike_training.labels(flagged=str(flagged).lower())

    def record(self, record: RequestRecord) -> None:
        """Count a finished request, or a line of a batch, which no client waits for."""
        if record.unlike_training is not None:
            self._unlike_training.labels(str(record.unlike_training).lower()).inc()
        if record.batch is not None:
            self._batch_lines.labels(record.route, record.status).inc()
            return
        self._requests.labels(record.route, record.status).inc()
        if record.error_code and record.status == HTTPStatus.OK:
            self._broken.labels(record.route, record.error_code).inc()
        self._duration.labels(record.route).observe(record.duration)
        for stage, seconds in record.stages.items():
            self._stages.labels(stage).observe(seconds)
        if record.error_code and (record.status in _REJECTIONS or record.error_code in _COSTLY):
            self._rejections.labels(record.error_code).inc()

    def image(self, kept: bool) -> None:
        """Count an image as `kept` from an earlier request, or as decoded."""
        self._images.labels(source=_SOURCES[kept]).inc()


class BatchesCollector(Collector):
    """Export the number of batches by status, which are counted once for each scrape: there may be many."""

    def __init__(self, count: Callable[[], Counts]) -> None:
        self._count = count

    def collect(self) -> Iterator[GaugeMetricFamily]:
        counts = self._count()
        family = GaugeMetricFamily("medmoe_batches", "Batches that are kept, by status", labels=["status"])
        for status in get_args(BatchStatus):
            family.add_metric([status], counts.get(status, 0))
        yield family


class Metrics:
    """The series of one app."""

    def __init__(
        self,
        *,
        ready: Callable[[], bool],
        in_flight: Callable[[], int],
        places: int,
        models: ReadModels,
        engines: ReadEngineEvents,
        quarantines: Callable[[], Iterable[Quarantine]],
        keys: WatchedKeys | None,
        provider: Provider | None,
    ) -> None:
        self.registry = CollectorRegistry()
        self.requests = RequestSeries(self.registry)
        self._audit_failures = Counter(
            "medmoe_audit_failures_total",
            "Records that could not be written to the audit trail, or not be synced",
            registry=self.registry,
        )
        self._export_load(ready, in_flight, places=places)
        self._export_models(models, engines)
        self._export_quarantine(quarantines)
        self._export_stale_keys(keys, provider)

    def audit_failures(self, count: int) -> None:
        """Count records that the audit trail lacks, or that may not be on its disk."""
        self._audit_failures.inc(count)

    def watch_batches(self, *, count: Callable[[], Counts], paused: Callable[[], bool]) -> None:
        """Export the number of batches by status, and whether their storage cannot be written."""
        self.registry.register(BatchesCollector(count))
        self._gauge(
            "medmoe_batch_storage_failing", "1 while batches wait because MEDMOE_BATCH_DIR fails or hangs", paused
        )

    def exposition(self) -> bytes:
        """Return all series in Prometheus' text format."""
        return generate_latest(self.registry)

    def _export_load(self, ready: Callable[[], bool], in_flight: Callable[[], int], *, places: int) -> None:
        self._gauge("medmoe_requests_in_flight", "Inference requests running or waiting for a slot", in_flight)
        self._gauge(
            "medmoe_requests_in_flight_limit",
            "medmoe_requests_in_flight at which the next one is refused",
            lambda: places,
        )
        self._gauge("medmoe_ready", "1 when requests can be answered", ready)

    def _export_models(self, models: ReadModels, engines: ReadEngineEvents) -> None:
        # Not one series for each kind and modality: their product would be most of what a scrape reads.
        for collector in (
            ExpertTokensCollector(
                "medmoe_expert_tokens",
                "Tokens routed to an expert",
                by="kind",
                models=models,
                read=lambda counts: counts.tokens(),
            ),
            ExpertTokensCollector(
                "medmoe_expert_tokens_by_modality",
                "Tokens routed to an expert, by the modality that their request states",
                by="modality",
                models=models,
                read=lambda counts: counts.tokens_by_modality(),
            ),
            DriftCollector(models),
            EngineEventsCollector(engines),
        ):
            self.registry.register(collector)

    def _export_quarantine(self, quarantines: Callable[[], Iterable[Quarantine]]) -> None:
        remembered = Gauge(
            "medmoe_quarantine_requests",
            "Requests remembered from dead engines: suspect (runs alone), refused (does not run)",
            ["kind"],
            registry=self.registry,
        )
        remembered.labels(kind="suspect").set_function(lambda: sum(one.suspects for one in quarantines()))
        remembered.labels(kind="refused").set_function(lambda: sum(one.refused for one in quarantines()))

    def _export_stale_keys(self, keys: WatchedKeys | None, provider: Provider | None) -> None:
        if keys is not None:
            self._gauge(
                "medmoe_api_keys_stale",
                "1 while the key file cannot be used, so that the keys read before it are still valid",
                lambda: keys.is_stale,
            )
        if provider is not None:
            self._gauge(
                "medmoe_oidc_keys_stale",
                "1 while the identity provider's keys cannot be fetched, so that those known are still valid",
                lambda: provider.is_stale,
            )

    def _gauge(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """Export what `read` returns at each scrape."""
        Gauge(name, documentation, registry=self.registry).set_function(read)

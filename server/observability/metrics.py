"""Define the Prometheus series of this service: names, labels and buckets.

Each app has its own registry. Gauges and expert counts are read from their owners when they are scraped.
"""

from collections.abc import Callable, Iterable
from functools import partial
from http import HTTPStatus
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from medmoe.server.auth.api_keys import WatchedKeys
from medmoe.server.auth.oidc.provider import Provider
from medmoe.server.engine.quarantine import Quarantine
from medmoe.server.observability.model_series import (
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
        self._requests = Counter(
            "medmoe_requests_total",
            "Requests by route template and status",
            ["route", "status"],
            registry=self.registry,
        )
        self._duration = Histogram(
            "medmoe_request_duration_seconds",
            "Time from a request's arrival to the end of its answer",
            ["route"],
            buckets=_REQUEST_BUCKETS,
            registry=self.registry,
        )
        self._stages = Histogram(
            "medmoe_stage_duration_seconds",
            "Time of one request in one stage: fetch (of an image's URL), image (decode, resize), queue (for a slot), "
            "engine (generation)",
            ["stage"],
            buckets=_STAGE_BUCKETS,
            registry=self.registry,
        )
        self._batch_lines = Counter(
            "medmoe_batch_lines_total",
            "Lines of batches that were answered or interrupted (499), by route template and status",
            ["route", "status"],
            registry=self.registry,
        )
        self._rejections = Counter(
            "medmoe_rejections_total", "Requests refused to protect the service", ["reason"], registry=self.registry
        )
        for reason in _WATCHED:
            self._rejections.labels(reason=reason)
        self._broken = Counter(
            "medmoe_broken_answers_total",
            "Answers that ended early, after their status was sent, by route template and error code",
            ["route", "reason"],
            registry=self.registry,
        )
        self._images = Counter(
            "medmoe_images_total",
            "Images that requests brought: decoded, or kept from a request shortly before",
            ["source"],
            registry=self.registry,
        )
        for kept in (True, False):
            self._images.labels(source=_SOURCES[kept])
        self._unlike_training = Counter(
            "medmoe_unlike_training_total",
            "Answers by whether their image was flagged as unlike the training images",
            ["flagged"],
            registry=self.registry,
        )
        for flagged in (True, False):
            self._unlike_training.labels(flagged=str(flagged).lower())
        Gauge(
            "medmoe_requests_in_flight", "Inference requests running or waiting for a slot", registry=self.registry
        ).set_function(lambda: float(in_flight()))
        Gauge(
            "medmoe_requests_in_flight_limit",
            "medmoe_requests_in_flight at which the next one is refused",
            registry=self.registry,
        ).set(places)
        Gauge("medmoe_ready", "1 when requests can be answered", registry=self.registry).set_function(
            lambda: float(ready())
        )
        self.registry.register(
            ExpertTokensCollector(
                "medmoe_expert_tokens",
                "Tokens routed to an expert",
                by="kind",
                models=models,
                read=lambda counts: counts.tokens(),
            )
        )
        # Not one series for each kind and modality: their product would be most of what a scrape reads.
        self.registry.register(
            ExpertTokensCollector(
                "medmoe_expert_tokens_by_modality",
                "Tokens routed to an expert, by the modality that their request states",
                by="modality",
                models=models,
                read=lambda counts: counts.tokens_by_modality(),
            )
        )
        self.registry.register(DriftCollector(models))
        self.registry.register(EngineEventsCollector(engines))
        self._audit_failures = Counter(
            "medmoe_audit_failures_total",
            "Records that could not be written to the audit trail",
            registry=self.registry,
        )
        remembered = Gauge(
            "medmoe_quarantine_requests",
            "Requests remembered from dead engines: suspect (runs alone), refused (does not run)",
            ["kind"],
            registry=self.registry,
        )
        remembered.labels(kind="suspect").set_function(
            lambda: float(sum(quarantine.suspects for quarantine in quarantines()))
        )
        remembered.labels(kind="refused").set_function(
            lambda: float(sum(quarantine.refused for quarantine in quarantines()))
        )
        if keys is not None:
            Gauge(
                "medmoe_api_keys_stale",
                "1 while the key file cannot be used, so that the keys read before it are still valid",
                registry=self.registry,
            ).set_function(lambda: float(keys.is_stale))
        if provider is not None:
            Gauge(
                "medmoe_oidc_keys_stale",
                "1 while the identity provider's keys cannot be fetched, so that those known are still valid",
                registry=self.registry,
            ).set_function(lambda: float(provider.is_stale))

    def record(self, record: RequestRecord) -> None:
        """Count a finished request, or a line of a batch, which no client waits for."""
        if record.unlike_training is not None:
            self._unlike_training.labels(flagged=str(record.unlike_training).lower()).inc()
        if record.batch is not None:
            self._batch_lines.labels(route=record.route, status=str(record.status)).inc()
            return
        self._requests.labels(route=record.route, status=str(record.status)).inc()
        if record.error_code and record.status == HTTPStatus.OK:
            self._broken.labels(route=record.route, reason=record.error_code).inc()
        self._duration.labels(route=record.route).observe(record.duration)
        for stage, seconds in record.stages.items():
            self._stages.labels(stage=stage).observe(seconds)
        if record.error_code and (record.status in _REJECTIONS or record.error_code in _COSTLY):
            self._rejections.labels(reason=record.error_code).inc()

    def image(self, kept: bool) -> None:
        """Count an image as `kept` from an earlier request, or as decoded."""
        self._images.labels(source=_SOURCES[kept]).inc()

    def audit_failures(self, count: int) -> None:
        """Count records that the audit trail lacks."""
        self._audit_failures.inc(count)

    def watch_batches(self, *, count: Callable[[BatchStatus], int], paused: Callable[[], bool]) -> None:
        """Export the number of batches by status, and whether their storage cannot be written."""
        batches = Gauge("medmoe_batches", "Batches that are kept, by status", ["status"], registry=self.registry)
        for status in get_args(BatchStatus):
            batches.labels(status=status).set_function(partial(_as_float, count, status))
        Gauge(
            "medmoe_batch_storage_failing",
            "1 while batches wait because MEDMOE_BATCH_DIR cannot be written",
            registry=self.registry,
        ).set_function(lambda: float(paused()))

    def exposition(self) -> bytes:
        """Return all series in Prometheus' text format."""
        return generate_latest(self.registry)


def _as_float(count: Callable[[BatchStatus], int], status: BatchStatus) -> float:
    return float(count(status))

"""Export finished requests as OpenTelemetry spans over OTLP/HTTP. The only file that imports opentelemetry.

A span is made of the request's record when the request is over, so that it says what metrics and log line say, and
nothing else: no content, no raw path, no address.
"""

import threading
from importlib.metadata import version
from typing import TYPE_CHECKING

from medmoe.model.errors import ConfigError
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.observability.trace_context import TraceContext

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.util.types import AttributeValue

_PATH = "/v1/traces"
_TIMEOUT_SECONDS = 5.0
_SERVER_FAILED = 500


class TraceExport:
    """Sends in batches from a thread of its own. A collector that is slow or gone costs spans, never an answer."""

    def __init__(self, endpoint: str) -> None:
        """`endpoint` is the collector's base address. Raises ConfigError where OpenTelemetry is not installed."""
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
        except ImportError as error:
            raise ConfigError("MEDMOE_OTLP_ENDPOINT needs opentelemetry-exporter-otlp-proto-http") from error

        class Ids(RandomIdGenerator):
            """The ids that the request was answered with, then random ones for its stages."""

            upcoming: TraceContext | None = None

            def generate_trace_id(self) -> int:
                return int(self.upcoming.trace_id, 16) if self.upcoming else super().generate_trace_id()

            def generate_span_id(self) -> int:
                upcoming, self.upcoming = self.upcoming, None
                return int(upcoming.span_id, 16) if upcoming else super().generate_span_id()

        self._api = trace
        self._ids = Ids()
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": "medmoe", "service.version": version("medmoe")}),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        url = endpoint.rstrip("/")
        exporter = OTLPSpanExporter(url if url.endswith(_PATH) else url + _PATH, timeout=_TIMEOUT_SECONDS)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("medmoe.server", version("medmoe"))

    def export(self, record: RequestRecord) -> None:
        """Queue the span of a finished request with one child for each stage; drop it when the queue is full."""
        trace, context = self._api, record.trace
        if context is None or not context.sampled or record.is_quiet_probe:
            return
        # The SDK asks for the trace id first only where there is no parent, and for the span id last.
        self._ids.upcoming = context
        span = self._tracer.start_span(
            f"{record.method} {record.route}",
            context=self._parent(context),
            kind=trace.SpanKind.SERVER,
            attributes=_attributes(record),
            start_time=record.wall_ns(record.started),
        )
        if (record.status or 0) >= _SERVER_FAILED:
            span.set_status(trace.StatusCode.ERROR)
        inside = trace.set_span_in_context(span)
        for stage, begun, ended in record.spans:
            child = self._tracer.start_span(stage, context=inside, start_time=record.wall_ns(begun))
            child.end(record.wall_ns(ended))
        span.end(record.wall_ns(record.started + record.duration))

    def close(self) -> None:
        """Send what is queued, for some seconds at most. Blocks."""
        # A daemon: the SDK tries again and again, and the process must not wait for that.
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(_TIMEOUT_SECONDS)

    def _parent(self, context: TraceContext) -> "Context":
        trace = self._api
        span = trace.INVALID_SPAN
        if context.parent_id is not None:
            parent = trace.SpanContext(
                trace_id=int(context.trace_id, 16),
                span_id=int(context.parent_id, 16),
                is_remote=True,
                trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
            )
            span = trace.NonRecordingSpan(parent)
        found: Context = trace.set_span_in_context(span)
        return found


def _attributes(record: RequestRecord) -> "dict[str, AttributeValue]":
    """Return the span's attributes, under OpenTelemetry's own names where it has one."""
    found: dict[str, AttributeValue] = {
        "http.request.method": record.method,
        "http.route": record.route,
        "http.response.status_code": record.status or 0,
        "medmoe.request_id": record.request_id,
    }
    if record.error_code is not None:
        found["error.type"] = record.error_code
    if record.tenant is not None and record.tenant.log_id is not None:
        found["medmoe.tenant"] = record.tenant.log_id
    found.update({f"medmoe.tokens.{kind}": count for kind, count in record.tokens.items()})
    found.update({f"medmoe.stage.{stage}_seconds": seconds for stage, seconds in record.stages.items()})
    return found

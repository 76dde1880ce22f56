"""Give every request an id and a record, log it, and answer exceptions that nothing else has caught.

Without the last, the web framework would write the text of such an exception to the log.
"""

import logging
import re
import secrets
from collections.abc import Callable, Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medmoe.server.audit.request_auditor import RequestAuditor
from medmoe.server.errors import AuditUnavailable
from medmoe.server.http.error_responses import error_response, log_failure
from medmoe.server.observability.request_record import CLIENT_GONE, BatchLine, RequestRecord
from medmoe.server.observability.trace_context import REQUEST_HEADER, RESPONSE_HEADER, TraceContext

log = logging.getLogger("medmoe.request")

REQUEST_ID_HEADER = "X-Request-Id"
_REQUEST_ID, _TRACE = REQUEST_ID_HEADER.lower().encode(), RESPONSE_HEADER.encode()
_SAFE_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestMiddleware:
    """ASGI middleware that opens a record for each request, and publishes it when the request ends."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        on_finish: Callable[[RequestRecord], None],
        paths: Collection[str] = (),
        sample: bool = False,
        auditor: RequestAuditor | None = None,
    ) -> None:
        """Pass the `paths` of routes without parameters, to name the route of what is refused before one is found.

        With `sample` the traces that begin here are recorded too, not only those that the caller samples.
        """
        self.app = app
        self.on_finish = on_finish
        self.paths = frozenset(paths)
        self.sample = sample
        self.auditor = auditor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        record = begin(Headers(scope=scope), method=scope["method"], sample=self.sample)
        if scope["path"] in self.paths:
            record.route = scope["path"]
        line = BatchLine.of(scope)
        if line is not None:
            record.batch, record.grant = line.batch, line.grant
        record.attach(scope)

        withheld = False

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                message["headers"] = [*message["headers"], *identification(record)]
            await send(message)

        async def send_audited(message: Message) -> None:
            nonlocal withheld
            if withheld:
                return
            if message["type"] != "http.response.start":
                await send(message)
                return
            if self.auditor is not None:
                try:
                    await self.auditor.before_answer(record, scope, message)
                except AuditUnavailable as error:
                    withheld = True
                    await error_response(error, record=record)(scope, receive, send_with_id)
                    return
            await send_with_id(message)

        try:
            await self.app(scope, receive, send_audited)
        except Exception as error:
            log_failure(error, record=record)
            if record.status is None:
                await error_response(error, record=record)(scope, receive, send_with_id)
            else:
                # The status has been sent; breaking off the body is all that is left.
                record.error_code = "internal_error"
        finally:
            # Also on cancellation, so that every request is counted.
            record.status = record.status or CLIENT_GONE
            record.route = getattr(scope.get("route"), "path", record.route)
            finish(record, publish=self.on_finish)


def begin(headers: Headers, *, method: str, sample: bool) -> RequestRecord:
    """Return the record of a request with these headers."""
    inbound = headers.get(REQUEST_ID_HEADER, "")
    return RequestRecord(
        request_id=inbound if _SAFE_ID.fullmatch(inbound) else secrets.token_hex(16),
        method=method if method in _METHODS else "other",
        trace=TraceContext.of_request(headers.getlist(REQUEST_HEADER), sample=sample),
    )


def identification(record: RequestRecord) -> list[tuple[bytes, bytes]]:
    """Return the response headers that carry the request id, the timings and the trace, as ASGI has them."""
    headers = [(_REQUEST_ID, record.request_id.encode()), (b"server-timing", record.server_timing().encode())]
    if record.trace is not None:
        headers.append((_TRACE, record.trace.response_header().encode()))
    return headers


def finish(record: RequestRecord, *, publish: Callable[[RequestRecord], None]) -> None:
    """Publish and log the record of a request that has ended."""
    record.duration = record.elapsed()
    publish(record)
    _log_finished(record)


def _log_finished(record: RequestRecord) -> None:
    details = {
        "request_id": record.request_id,
        "trace_id": record.trace.trace_id if record.trace else None,
        "method": record.method,
        "route": record.route,
        "tenant": record.tenant.log_id if record.tenant else None,
        "status": record.status,
        "error": record.error_code,
        "duration_seconds": round(record.duration, 6),
        "stages_seconds": {stage: round(seconds, 6) for stage, seconds in record.stages.items()},
        "tokens": record.tokens,
    }
    if record.batch is not None:
        details["batch"] = record.batch
    log.log(logging.DEBUG if record.is_quiet_probe else logging.INFO, "request", extra={"fields": details})

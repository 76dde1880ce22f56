"""One request, one record, one log line: the outermost layer that knows about requests.

Pure ASGI, so that streaming and disconnects pass through untouched. It also catches what nobody else caught: the web
framework would hand such an exception, text included, to the server's log.
"""

import logging
import re
import secrets
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medmoe.server.http.error_responses import error_response, log_failure
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.observability.trace_context import REQUEST_HEADER, RESPONSE_HEADER, TraceContext

log = logging.getLogger("medmoe.request")

REQUEST_ID_HEADER = "X-Request-Id"
_SAFE_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
CLIENT_GONE = 499
"""Status of a request whose client left before an answer began; nginx's number, never sent."""


class RequestMiddleware:
    """Gives each request its id and record, and publishes the record when the request is over."""

    def __init__(self, app: ASGIApp, *, on_finish: Callable[[RequestRecord], None], sample: bool = False) -> None:
        """`sample`: record the traces that begin here, not only those whose caller asks for it."""
        self.app = app
        self.on_finish = on_finish
        self.sample = sample

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        record = begin(Headers(scope=scope), method=scope["method"], sample=self.sample)
        record.attach(scope)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                MutableHeaders(scope=message).update(identification(record))
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception as error:
            log_failure(error, record=record)
            if record.status is None:
                await error_response(error, record=record)(scope, receive, send_with_id)
            else:
                # The status is out; a broken-off body is all that can still be said.
                record.error_code = "internal_error"
        finally:
            # Also on cancellation, so that no request vanishes from the counts.
            record.status = record.status or CLIENT_GONE
            record.route = getattr(scope.get("route"), "path", record.route)
            finish(record, publish=self.on_finish)


def begin(sent: Headers, *, method: str, sample: bool) -> RequestRecord:
    """The record of a request that came with the headers `sent`."""
    inbound = sent.get(REQUEST_ID_HEADER, "")
    return RequestRecord(
        request_id=inbound if _SAFE_ID.fullmatch(inbound) else secrets.token_hex(16),
        method=method if method in _METHODS else "other",
        trace=TraceContext.of_request(sent.getlist(REQUEST_HEADER), sample=sample),
    )


def identification(record: RequestRecord) -> dict[str, str]:
    """The headers by which an answer names its request and says how long it took."""
    headers = {REQUEST_ID_HEADER: record.request_id, "Server-Timing": record.server_timing()}
    if record.trace is not None:
        headers[RESPONSE_HEADER] = record.trace.response_header()
    return headers


def finish(record: RequestRecord, *, publish: Callable[[RequestRecord], None]) -> None:
    """The request is over: publish its record, and write its line."""
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
    log.log(logging.DEBUG if record.is_quiet_probe else logging.INFO, "request", extra={"fields": details})

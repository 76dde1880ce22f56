"""Turn an error response of the service, or of a proxy before it, into an exception."""

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from medmoe.client.errors import (
    BadRequest,
    Overloaded,
    ServiceError,
    ServiceFailed,
    ServiceTimeout,
    ServiceUnavailable,
    Unauthorized,
)

BY_TYPE: Mapping[str, type[ServiceError]] = {
    "invalid_request_error": BadRequest,
    "authentication_error": Unauthorized,
    "overloaded_error": Overloaded,
    "unavailable_error": ServiceUnavailable,
    "timeout_error": ServiceTimeout,
    "server_error": ServiceFailed,
}
_BY_STATUS: Mapping[int, type[ServiceError]] = {
    # Of a proxy, for example, which answers with 502 while the service restarts.
    401: Unauthorized,
    403: Unauthorized,
    429: Overloaded,
    502: ServiceUnavailable,
    503: ServiceUnavailable,
    504: ServiceTimeout,
    507: ServiceUnavailable,
}

_SPEAKS_TLS = re.compile("plain HTTP|HTTP request to an HTTPS")
"""Words of nginx, Apache and Go."""


def check(response: httpx.Response) -> None:
    """Raise the ServiceError of a response whose body has been read; return for a success."""
    if response.is_success:
        return
    try:
        document = response.json()
    except (ValueError, RecursionError):
        document = None
    raise service_error(document, response=response)


def service_error(document: Any, *, response: httpx.Response | None = None) -> ServiceError:
    """Return the exception for an error body; without `response`, for that of an event in a stream."""
    status = None if response is None else response.status_code
    body = document.get("error") if isinstance(document, dict) else None
    if not isinstance(body, dict) or not isinstance(body.get("code"), str):
        # A proxy's own page, for example: only its status has a meaning.
        reason = "the stream ended with an error" if response is None else _reason(response)
        body = {"code": "stream_error" if status is None else f"http_{status}", "message": reason}
    type_ = str(body.get("type", "unknown_error"))
    kind = _by_status(status) if status is not None and type_ not in BY_TYPE else BY_TYPE.get(type_, ServiceFailed)
    return kind(
        str(body.get("message", "")),
        status=status,
        type_=type_,
        code=body["code"],
        param=_text(body.get("param")),
        request_id=_text(body.get("request_id")) or (response.headers.get("X-Request-Id") if response else None),
        retry_after=None if response is None else retry_after(response.headers),
    )


def _reason(response: httpx.Response) -> str:
    """Return what a foreign answer says; a server that speaks TLS may answer plain HTTP with a page of its own."""
    reason = response.reason_phrase or "refused"
    if response.next_request is not None:
        url = response.next_request.url
        place = f"{url.scheme}://{url.netloc.decode('ascii')}"
        return f"{reason}; redirects are not followed: set MEDMOE_URL to the service's address, {place} perhaps"
    speaks_tls = response.status_code == httpx.codes.BAD_REQUEST and _SPEAKS_TLS.search(response.text)
    return f"{reason}; the service speaks TLS: begin its address with https://" if speaks_tls else reason


def retry_after(headers: httpx.Headers) -> float | None:
    """Return the seconds that `Retry-After` asks to wait, from a number or a date; None if it is absent or invalid.

    A date is compared with the response's own Date, because the two clocks may differ.
    """
    asked = headers.get("Retry-After", "").strip()
    if asked.isascii() and asked.isdigit():
        return float(asked)
    until = _moment(asked)
    if until is None:
        return None
    return max(0.0, until - (_moment(headers.get("Date", "")) or time.time()))


def _moment(text: str) -> float | None:
    try:
        moment: datetime = parsedate_to_datetime(text)
        # HTTP dates are GMT; "-0000" gives a date without a zone, which must not become this machine's.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _by_status(status: int) -> type[ServiceError]:
    return _BY_STATUS.get(status, BadRequest if 400 <= status < 500 else ServiceFailed)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None

"""Parse and write W3C Trace Context: the trace that a request belongs to.

Logs and answers have the ids even if no spans are exported. Only the hexadecimal ids of a client are used; `tracestate`
is ignored, since the service calls no other.
"""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

REQUEST_HEADER = "traceparent"
RESPONSE_HEADER = "traceresponse"

_PARENT = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<parent>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
)
_SAMPLED = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class TraceContext:
    """Ids in lower-case hexadecimal, as the standard writes them."""

    trace_id: str
    span_id: str
    """Identifies the span of this request in this service."""
    parent_id: str | None
    """The caller's span; None where the trace begins here."""
    sampled: bool
    """Whether spans are recorded: as the caller decided, or as this service does for its own traces."""

    @classmethod
    def of_request(cls, headers: Sequence[str], *, sample: bool) -> Self:
        """Parse the request's traceparent headers; `sample` decides on traces that begin here.

        Anything but one valid header begins a new trace, as the standard wants it.
        """
        drawn = secrets.token_hex(24)
        span_id, trace_id = drawn[:16], drawn[16:]
        parent = _parse(headers[0]) if len(headers) == 1 else None
        if parent is None:
            return cls(trace_id=trace_id, span_id=span_id, parent_id=None, sampled=sample)
        return cls(
            trace_id=parent["trace"],
            span_id=span_id,
            parent_id=parent["parent"],
            sampled=bool(int(parent["flags"], 16) & _SAMPLED),
        )

    def response_header(self) -> str:
        """Return the value of `traceresponse`."""
        return f"00-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}"


def _parse(header: str) -> re.Match[str] | None:
    match = _PARENT.match(header.strip(" \t"))
    if match is None or match["version"] == "ff" or set(match["trace"]) == {"0"} or set(match["parent"]) == {"0"}:
        return None
    rest = match.string[match.end() :]
    # A later version may say more, after another hyphen.
    return match if not rest or (match["version"] != "00" and rest.startswith("-")) else None

"""Parse HTTP/1.1 with h11, and refuse what a proxy in front may read differently.

RFC 9112: an ambiguous length closes the connection (6.1), line ends are CRLF (2.2), a field is one line (5.2), and a
target may be in absolute form (3.2.2).
"""

import re
from collections.abc import Iterable

import h11

_FRAMING_BYTES = 16 * 1024
"""Bytes of chunk heads that any body may have; beyond them at most as many as an eighth of its content."""
_FRAMING_SHARE = 8
_FOLDED = re.compile(rb"\r?\n[ \t]")
_ABSOLUTE = re.compile(rb"https?://[^/?#]+", re.IGNORECASE)


class StrictConnection(h11.Connection):
    """The server's side of one connection. Raises h11.RemoteProtocolError for more than h11 does."""

    is_chunked = False
    """Whether a chunked body is under way."""
    must_close = False
    """Whether the present request had an ambiguous length."""
    remaining: int | None = 0
    """Bytes of the body that have not been parsed; None for a chunked body that goes on."""
    _framing = _content = 0
    """Bytes of the present chunked body that are heads and ends of its chunks, and those that are content."""
    _cut = b""
    """The first half of a line end."""

    def __init__(self, *, max_head_bytes: int) -> None:
        super().__init__(h11.SERVER, max_head_bytes)
        self._max_head_bytes = max_head_bytes

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """See h11.Connection.next_event."""
        before = self.trailing_data[0] if self.their_state is h11.IDLE or self.is_chunked else b""
        event = super().next_event()
        if isinstance(event, h11.Request):
            head = before[: len(before) - len(self.trailing_data[0])]
            if len(head) > self._max_head_bytes:
                # h11 takes one whose end comes with what exceeds the limit.
                raise h11.RemoteProtocolError("the head is too long", error_status_hint=431)
            _check_lines(head)
            self._begin_body(event.headers)
            return _in_origin_form(event)
        size = len(event.data) if isinstance(event, h11.Data) else 0
        if self.is_chunked:
            self._check_framing(before[: len(before) - len(self.trailing_data[0]) - size], content=size)
        elif self.remaining is not None:
            self.remaining -= size
        if isinstance(event, h11.EndOfMessage):
            self.remaining = 0
            self.is_chunked = False
        return event

    def _check_framing(self, framing: bytes, *, content: int) -> None:
        """Check what was parsed in front of `content` bytes of a chunk, or as the end of the body."""
        self._framing += len(framing)
        self._content += content
        if self._framing > _FRAMING_BYTES + self._content // _FRAMING_SHARE:
            raise h11.RemoteProtocolError("too many small chunks")
        lines = self._cut + framing
        self._cut = b"\r" if lines.endswith(b"\r") else b""
        _check_lines(lines.removesuffix(b"\r"))

    def _begin_body(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        told = dict(headers)
        self.is_chunked = b"transfer-encoding" in told
        self.must_close = self.is_chunked and b"content-length" in told
        self.remaining = None if self.is_chunked else int(told.get(b"content-length", b"0"))
        self._framing, self._content, self._cut = 0, 0, b""


def _check_lines(lines: bytes) -> None:
    if not lines.count(b"\r") == lines.count(b"\n") == lines.count(b"\r\n") or _FOLDED.search(lines):
        raise h11.RemoteProtocolError("a line does not end with CRLF, or continues the line before")


def _in_origin_form(request: h11.Request) -> h11.Request:
    """Return the request with a target of path and query. Raises h11.RemoteProtocolError for other versions of HTTP."""
    if request.http_version not in (b"1.0", b"1.1"):
        raise h11.RemoteProtocolError("neither HTTP/1.0 nor HTTP/1.1", error_status_hint=505)
    match = _ABSOLUTE.match(request.target)
    if match is None:
        return request
    target = request.target[match.end() :]
    return h11.Request(
        method=request.method,
        headers=request.headers,
        target=target if target.startswith(b"/") else b"/" + target,
        http_version=request.http_version,
    )

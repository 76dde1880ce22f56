"""Read the head of a request in its plainest form, without a parser.

Everything unusual or malformed is left to h11, so that two readings of one request never differ.
"""

import re
from dataclasses import dataclass
from typing import Self

from starlette.datastructures import Headers

_END = b"\r\n\r\n"
MAX_HEAD_BYTES = 8 * 1024
"""Far more than clients send."""
_REQUEST_LINE = re.compile(rb"POST (/[A-Za-z0-9/_-]+) HTTP/1\.([01])")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\x20-\x7e\t]*)")
_LENGTH = re.compile("[0-9]{1,15}")
_UNUSUAL = frozenset({"transfer-encoding", "expect", "upgrade"})
"""Fields that change the length of the body, or what has to be sent first."""
_ONCE = frozenset({"host", "content-length", "connection"})


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestHead:
    """A POST whose body is as long as Content-Length says."""

    path: str
    headers: Headers
    size: int
    """Bytes of the head itself."""
    body_size: int
    """Bytes that follow it."""
    keep: bool
    """Whether another request may follow on the connection."""

    @classmethod
    def read(cls, data: bytes) -> Self | None:
        """Return the head at the beginning of `data`; None when it is incomplete or unusual."""
        end = data.find(_END, 0, MAX_HEAD_BYTES)
        if end < 0:
            return None
        first, *lines = data[:end].split(b"\r\n")
        asked = _REQUEST_LINE.fullmatch(first)
        if asked is None:
            return None
        raw: list[tuple[bytes, bytes]] = []
        told: dict[str, str] = {}
        for line in lines:
            field = _FIELD.fullmatch(line)
            if field is None:
                return None
            name, value = field[1].lower(), field[2].strip(b" \t")
            raw.append((name, value))
            key = name.decode("ascii")
            if key in _UNUSUAL or (key in _ONCE and key in told):
                return None
            told[key] = value.decode("ascii")
        connection = told.get("connection", "keep-alive").lower()
        length = told.get("content-length", "")
        if "host" not in told or connection not in ("keep-alive", "close") or not _LENGTH.fullmatch(length):
            return None
        return cls(
            path=asked[1].decode("ascii"),
            headers=Headers(raw=raw),
            size=end + len(_END),
            body_size=int(length),
            # Like h11, which keeps no connection of HTTP/1.0.
            keep=connection == "keep-alive" and asked[2] == b"1",
        )

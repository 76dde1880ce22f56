"""Encode and check the lines of an audit trail.

A line is a JSON object. Its last three fields are `prev`, the hash of the line before; `mac`, the HMAC-SHA-256 of the
text before it; and `hash`, the SHA-256 of the text before it. Both texts begin with the line.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GENESIS = "0" * 64
"""`prev` of the first line of a trail."""
MAX_LINE_BYTES = 2**20
"""Far more than the record of a request about the most slices of a series."""
_DIGITS = 64
_MAC, _HASH = b',"mac":"', b',"hash":"'
_END = b'"}'


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """Position of the end of a trail, which its next line follows."""

    n: int = 0
    """Number of the next line, from 0."""
    head: str = GENESIS
    """Hash of the last line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditRecord:
    """One line of a trail, whose hash is right."""

    fields: Mapping[str, Any]
    n: int
    prev: str
    hash: str
    signed: bytes
    """The text that `mac` is of."""
    mac: str

    def is_signed_with(self, key: bytes) -> bool:
        """Return whether `mac` was made with the trail's chain key."""
        return hmac.compare_digest(hmac.new(key, self.signed, "sha256").hexdigest(), self.mac)

    @property
    def after(self) -> Position:
        """Return the position behind this record."""
        return Position(n=self.n + 1, head=self.hash)


def encode(fields: Mapping[str, Any], position: Position, *, key: bytes) -> tuple[bytes, Position]:
    """Return the line of a record at `position`, with its newline, and the position behind it."""
    text = json.dumps({"n": position.n, **fields, "prev": position.head}, separators=(",", ":"))
    signed = text[:-1].encode()
    mac = hmac.new(key, signed, "sha256").hexdigest()
    hashed = signed + _MAC + mac.encode() + b'"'
    digest = hashlib.sha256(hashed).hexdigest()
    line = hashed + _HASH + digest.encode() + _END
    return line + b"\n", Position(n=position.n + 1, head=digest)


def decode(line: bytes) -> AuditRecord:
    """Return the record of a line without its newline. Raises ValueError with the reason for a line that is none."""
    hashed, digest = _split(line, _HASH, _END)
    if hashlib.sha256(hashed).hexdigest() != digest:
        raise ValueError("its bytes do not have its hash")
    signed, mac = _split(hashed, _MAC, b'"')
    try:
        fields = json.loads(line)
    except RecursionError as error:
        raise ValueError("it is not a record") from error
    n, prev = fields.get("n"), fields.get("prev")
    if not isinstance(n, int) or not isinstance(prev, str):
        raise ValueError("it has no place in a chain")
    return AuditRecord(fields=fields, n=n, prev=prev, hash=digest, signed=signed, mac=mac)


def _split(text: bytes, name: bytes, end: bytes) -> tuple[bytes, str]:
    """Return what comes before a last field of hexadecimal digits, and the digits."""
    cut = len(text) - len(name) - _DIGITS - len(end)
    digits = text[cut + len(name) : len(text) - len(end)]
    if cut < 0 or text[cut : cut + len(name)] != name or not text.endswith(end) or not digits.isalnum():
        raise ValueError("it is not a record")
    return text[:cut], digits.decode()

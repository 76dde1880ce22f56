"""Store one object by STOW-RS (PS3.18 section 10.5)."""

import secrets

from pydantic_core import from_json

from medmoe.server.dicomweb.connection import SourceConnections, read
from medmoe.server.dicomweb.errors import InvalidSourceAnswer, StoreFailed
from medmoe.server.dicomweb.multipart import DICOM, MULTIPART
from medmoe.server.dicomweb.sources import Source

_ACCEPT = "application/dicom+json"
_MAX_BYTES = 2**20
_STORED, _FAILED = "00081199", "00081198"
"""Referenced SOP Sequence and Failed SOP Sequence."""
_OK, _ACCEPTED = 200, 202


async def store(connections: SourceConnections, source: Source, study: str, data: bytes) -> None:
    """Store a DICOM file in a study of `source`. Storing it again changes nothing.

    Raises StoreFailed where the source does not take it, and what SourceConnections.request raises.
    """
    boundary = secrets.token_hex(16)
    kind = f'{MULTIPART}; type="{DICOM}"; boundary={boundary}'
    head, end = f"--{boundary}\r\nContent-Type: {DICOM}\r\n\r\n".encode(), f"\r\n--{boundary}--\r\n".encode()
    content = (kind, head + data + end)
    async with connections.request(source, "POST", f"/studies/{study}", accept=_ACCEPT, content=content) as response:
        body = await read(response, max_bytes=_MAX_BYTES)
    answer = _parsed(body) if body else {}
    # Accepted: stored with a warning, or not stored.
    is_stored = response.status == _OK or (response.status == _ACCEPTED and _has_items(answer, _STORED))
    if not is_stored or _has_items(answer, _FAILED):
        raise StoreFailed()


def _parsed(body: bytes) -> object:
    try:
        return from_json(body)
    except ValueError as error:
        raise InvalidSourceAnswer() from error


def _has_items(answer: object, tag: str) -> bool:
    sequence = answer.get(tag) if isinstance(answer, dict) else None
    return isinstance(sequence, dict) and bool(sequence.get("Value"))

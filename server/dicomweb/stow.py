"""Store one object by STOW-RS (PS3.18 section 10.5)."""

import secrets
from typing import Any

from pydantic_core import from_json

from medmoe.server.dicomweb.connection import SourceConnections, read
from medmoe.server.dicomweb.errors import InvalidSourceAnswer, StoreFailed
from medmoe.server.dicomweb.multipart import DICOM, MULTIPART
from medmoe.server.dicomweb.sources import Source

_ACCEPT = "application/dicom+json"
_MAX_BYTES = 2**20
_FAILED = "00081198"
_OK = 200


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
        if response.status != _OK:
            raise StoreFailed()
    if body and _failures(body):
        raise StoreFailed()


def _failures(body: bytes) -> list[Any]:
    try:
        answer = from_json(body)
    except ValueError as error:
        raise InvalidSourceAnswer() from error
    failed = answer.get(_FAILED, {}) if isinstance(answer, dict) else {}
    values = failed.get("Value") if isinstance(failed, dict) else None
    return values if isinstance(values, list) else []

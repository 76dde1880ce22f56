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
_REASON = "00081197"
_DUPLICATE = frozenset({0x0111, 0xB00E})
"""Failure reasons of an instance that the source has already: DICOM's, and one that a cloud's service has instead."""
_OK, _ACCEPTED, _CONFLICT = 200, 202, 409
_NO_STOW = (404, 405)


async def store(connections: SourceConnections, source: Source, study: str, data: bytes) -> None:
    """Store a DICOM file in a study of `source`. Storing it again changes nothing.

    Raises StoreFailed where the source does not take it, and what SourceConnections.request raises.
    """
    boundary = secrets.token_hex(16)
    kind = f'{MULTIPART}; type="{DICOM}"; boundary={boundary}'
    head, end = f"--{boundary}\r\nContent-Type: {DICOM}\r\n\r\n".encode(), f"\r\n--{boundary}--\r\n".encode()
    content = (kind, head + data + end)
    async with connections.request(
        source, "POST", f"/studies/{study}", accept=_ACCEPT, content=content, failures=(*_NO_STOW, _CONFLICT)
    ) as response:
        status = response.status
        body = await read(response, max_bytes=_MAX_BYTES)
    if status in _NO_STOW:
        raise StoreFailed(f"the source takes no reports at its address: it answers with status {status}")
    answer = _parsed(body, is_stored=status != _CONFLICT)
    reasons = [_reason(item) for item in _items(answer, _FAILED)]
    # The UIDs follow from the answer, so what the source has already is this report.
    is_duplicate = bool(reasons) and all(reason in _DUPLICATE for reason in reasons)
    # Accepted: stored with a warning, or not stored.
    is_stored = status == _OK or (status == _ACCEPTED and _items(answer, _STORED))
    if not is_duplicate and (reasons or not is_stored):
        raise StoreFailed(_message(reasons))


def _parsed(body: bytes, *, is_stored: bool) -> object:
    """Return the document of a response. Raises InvalidSourceAnswer, or StoreFailed, where it is no JSON."""
    try:
        return from_json(body) if body else {}
    except ValueError as error:
        raise InvalidSourceAnswer() if is_stored else StoreFailed() from error


def _items(answer: object, tag: str) -> list[object]:
    sequence = answer.get(tag) if isinstance(answer, dict) else None
    items = sequence.get("Value") if isinstance(sequence, dict) else None
    return items if isinstance(items, list) else []


def _reason(item: object) -> int | None:
    reason = next(iter(_items(item, _REASON)), None)
    return reason if isinstance(reason, int) else None


def _message(reasons: list[int | None]) -> str | None:
    """Return why the source did not store the report, as far as it says so by numbers."""
    named = ", ".join(f"{reason & 0xFFFF:04X}H" for reason in reasons if reason is not None)
    return f"the source did not store the report: failure reason {named}" if named else None

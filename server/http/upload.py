"""Read an uploaded file and the fields beside it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from pydantic import ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from medmoe.server.errors import (
    BodyTooLarge,
    InvalidField,
    UnsupportedContentType,
    UnsupportedParameter,
)
from medmoe.server.http.error_responses import invalid
from medmoe.server.http.form import received_form
from medmoe.server.http.json_body import check_known
from medmoe.server.schemas.openai.file import ExpiresAfter

_FILE, _PURPOSE, _EXPIRY = "file", "purpose", "expires_after"
_PARTS = {f"{_EXPIRY}[{name}]": name for name in ExpiresAfter.model_fields}
"""Fields of `expires_after` as forms spell them."""
_KNOWN = frozenset({_FILE, _PURPOSE, *_PARTS})
_MAX_PARTS = 16
_MAX_FIELD_BYTES = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Upload:
    """An uploaded input of a batch."""

    content: BinaryIO
    size: int
    filename: str
    keep: int | None
    """Seconds for which the caller wants it kept."""


@asynccontextmanager
async def received_upload(request: Request, *, max_bytes: int) -> AsyncIterator[Upload]:
    """Parse the form of `POST /v1/files`, and hold the file in memory for the block.

    Raises MalformedBody, InvalidField, UnsupportedParameter, UnsupportedContentType, BodyTooLarge, ClientDisconnected.
    """
    content_type, _ = parse_options_header(request.headers.get("content-type"))
    if content_type.lower() != b"multipart/form-data":
        raise UnsupportedContentType("send multipart/form-data")
    async with received_form(
        request, max_files=_MAX_PARTS, max_fields=_MAX_PARTS, max_field_bytes=_MAX_FIELD_BYTES
    ) as form:
        yield _upload(form, max_bytes=max_bytes)


def _upload(form: FormData, *, max_bytes: int) -> Upload:
    check_known([name for name, _ in form.multi_items()], known=_KNOWN, offered=_KNOWN)
    files = [value for value in form.getlist(_FILE) if isinstance(value, UploadFile)]
    if len(files) != 1 or len(form.multi_items()) != len(form):
        raise InvalidField("send exactly one file part, and every field once", param=_FILE)
    if _PURPOSE not in form:
        raise InvalidField("Field required", param=_PURPOSE)
    if form[_PURPOSE] != "batch":
        raise UnsupportedParameter("only files with the purpose batch are kept", param=_PURPOSE)
    size = files[0].size or 0
    if size > max_bytes:
        raise BodyTooLarge.over(max_bytes, setting="MEDMOE_BATCH_MAX_BYTES")
    expiry = {part: form[name] for name, part in _PARTS.items() if name in form}
    return Upload(
        content=files[0].file,
        size=size,
        filename=files[0].filename or "",
        keep=_seconds(expiry) if expiry else None,
    )


def _seconds(expiry: dict[str, Any]) -> int:
    try:
        return ExpiresAfter.model_validate(expiry).seconds
    except ValidationError as error:
        raise invalid(error, fields=frozenset(ExpiresAfter.model_fields), within=_EXPIRY) from error

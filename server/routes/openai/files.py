"""Serve /v1/files, in OpenAI's format: the inputs and the results of batches."""

import os
import re
from collections.abc import AsyncIterator
from typing import Annotated, BinaryIO, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.responses import FileResponse

from medmoe.server.auth.tenants import Grant
from medmoe.server.batches.errors import FileInUse, FileNotFound, RangeNotSatisfiable, StorageLimit
from medmoe.server.batches.storage import written
from medmoe.server.errors import (
    BodyTooLarge,
    MalformedBody,
    Overloaded,
    RateLimited,
    RequestTimeout,
    UnsupportedContentType,
    UnsupportedParameter,
)
from medmoe.server.http.upload import received_upload
from medmoe.server.openapi.refusals import missing, refusals
from medmoe.server.openapi.requests import named
from medmoe.server.openapi.responses import Responses, examples
from medmoe.server.routes.dependencies import audited, may_ask
from medmoe.server.routes.openai.storage import (
    DESCRIPTIONS,
    FILE_ID,
    LISTING,
    NO_RECORD,
    NO_ROOM,
    NO_STORE,
    TAG,
    After,
    batch_service,
    page,
)
from medmoe.server.schemas.openai.file import MAX_FILES_LISTED, FileDeleted, FileList, FileObject, FilePurpose
from medmoe.server.state import State

PATH = "/v1/files"
_RANGE = re.compile("bytes=(?:([0-9]{1,15})-([0-9]{1,15})?|-([0-9]{1,15}))")

router = APIRouter(tags=[TAG])

_FILE = {
    "id": FILE_ID,
    "object": "file",
    "bytes": 184_320,
    "created_at": 1_779_700_000,
    "expires_at": 1_782_292_000,
    "filename": "questions.jsonl",
    "purpose": "batch",
    "status": "processed",
}
_LIST = {"object": "list", "data": [_FILE], "first_id": FILE_ID, "last_id": FILE_ID, "has_more": False}
_RESULT = (
    '{"id":"batch_req_5f0c3b8e9d1a4c27b6e4a1d2c3f40516","custom_id":"image-1","response":{"status_code":200,'
    '"request_id":"9d1a4c27b6e4a1d2c3f405165f0c3b8e","body":{"answer":"CT"}},"error":null}\n'
)
_LINES = {"application/jsonl": {"schema": {"type": "string"}, "example": _RESULT}}
_CONTENT: Responses = {
    200: {"content": _LINES},
    206: {"description": "The part that a Range header names", "content": _LINES},
}
_FORM = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "Lines of JSON, a request each."},
        "purpose": {"const": "batch", "examples": ["batch"]},
        "expires_after[anchor]": {"const": "created_at", "examples": ["created_at"]},
        "expires_after[seconds]": {"type": "integer", "minimum": 3600, "maximum": 2_592_000, "examples": [86_400]},
    },
}
_UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": _FORM,
                "examples": named({"input_of_a_batch": {"file": "@questions.jsonl", "purpose": "batch"}}),
            }
        },
    }
}
FileId = Annotated[str, Path(max_length=64, openapi_examples=named({"a_file": FILE_ID}))]


async def _opened(
    request: Request, file_id: FileId, grant: Annotated[Grant, Depends(may_ask)]
) -> AsyncIterator[BinaryIO]:
    """Hold a file's content open until it is sent."""
    with await batch_service(request).files.opened(file_id, grant.tenant.owner) as file:
        yield file


def _is_one_range(asked: str, *, size: int) -> bool:
    """Return whether a Range header names one range of bytes that does not end before it begins.

    Raises RangeNotSatisfiable for one without any of the `size` bytes of the file.
    """
    match = _RANGE.fullmatch(asked)
    if match is None or (match[2] is not None and int(match[1]) > int(match[2])):
        return False
    if size == 0 or (int(match[1]) >= size if match[3] is None else int(match[3]) == 0):
        raise RangeNotSatisfiable(size=size)
    return True


def _answer(example: object) -> Responses:
    return examples({"a_file": example})


@router.post(
    PATH,
    responses=_answer(_FILE)
    | refusals(
        *NO_STORE,
        *NO_RECORD,
        *NO_ROOM,
        MalformedBody("the body is not valid multipart/form-data, or has too many or too long parts"),
        RequestTimeout(),
        UnsupportedParameter("only files with the purpose batch are kept", param="purpose"),
        BodyTooLarge.over(209_715_200, setting="MEDMOE_BATCH_MAX_BYTES"),
        StorageLimit.over(4_294_967_296),
        UnsupportedContentType("send multipart/form-data"),
        missing("purpose"),
        Overloaded(retry_after=1),
        RateLimited(retry_after=1),
        descriptions=DESCRIPTIONS,
    ),
    dependencies=[Depends(audited)],
    openapi_extra=_UPLOAD,
)
async def upload(request: Request, grant: Annotated[Grant, Depends(may_ask)]) -> FileObject:
    """Store the input of a batch: a line of JSON with `custom_id`, `method`, `url` and `body` for each request."""
    service = batch_service(request)
    # Before the body is read, which would wait in memory.
    service.threads.require()
    async with received_upload(request, max_bytes=State.of(request).settings.batch_max_bytes) as sent:
        return await service.files.upload(
            sent.content, size=sent.size, filename=sent.filename, owner=grant.tenant.owner, keep=sent.keep
        )


@router.get(PATH, responses=_answer(_LIST) | refusals(*NO_STORE, *LISTING, descriptions=DESCRIPTIONS))
async def files(
    request: Request,
    grant: Annotated[Grant, Depends(may_ask)],
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=MAX_FILES_LISTED, openapi_examples=named({"ten": 10}))] = MAX_FILES_LISTED,
    order: Annotated[
        Literal["asc", "desc"], Query(description="By time of creation.", openapi_examples=named({"newest": "desc"}))
    ] = "desc",
    purpose: Annotated[FilePurpose | None, Query(openapi_examples=named({"results": "batch_output"}))] = None,
) -> FileList:
    """List the caller's files."""
    found = [
        file for file in batch_service(request).files.of_owner(grant.tenant.owner) if purpose in (None, file.purpose)
    ]
    return FileList(**page(found[::-1] if order == "desc" else found, after=after, limit=limit))


@router.get(
    f"{PATH}/{{file_id}}",
    responses=_answer(_FILE) | refusals(*NO_STORE, FileNotFound(), *LISTING, descriptions=DESCRIPTIONS),
)
async def file(request: Request, file_id: FileId, grant: Annotated[Grant, Depends(may_ask)]) -> FileObject:
    """Describe a file."""
    return batch_service(request).files.find(file_id, grant.tenant.owner)


@router.get(
    f"{PATH}/{{file_id}}/content",
    response_class=FileResponse,
    responses=_CONTENT
    | refusals(
        *NO_STORE,
        *NO_RECORD,
        FileNotFound(),
        RangeNotSatisfiable(),
        *LISTING,
        RateLimited(retry_after=1),
        descriptions=DESCRIPTIONS,
    ),
    dependencies=[Depends(audited)],
)
async def content(request: Request, opened: Annotated[BinaryIO, Depends(_opened)]) -> FileResponse:
    """Return a file's content."""
    size = os.fstat(opened.fileno()).st_size
    if not _is_one_range(request.headers.get("range", ""), size=size):
        # RFC 9110 (14.2) wants ignored what is not understood, which the response refuses.
        request.scope["headers"] = [header for header in request.scope["headers"] if header[0] != b"range"]
    # By its descriptor, because it may lose its name while it is sent.
    return FileResponse(f"/dev/fd/{opened.fileno()}", media_type="application/jsonl")


@router.delete(
    f"{PATH}/{{file_id}}",
    responses=_answer({"id": FILE_ID, "object": "file", "deleted": True})
    | refusals(
        *NO_STORE,
        *NO_RECORD,
        *NO_ROOM,
        FileNotFound(),
        FileInUse(),
        *LISTING,
        RateLimited(retry_after=1),
        descriptions=DESCRIPTIONS,
    ),
    dependencies=[Depends(audited)],
)
async def delete(request: Request, file_id: FileId, grant: Annotated[Grant, Depends(may_ask)]) -> FileDeleted:
    """Delete a file now."""
    with written():
        await batch_service(request).delete_file(file_id, grant.tenant.owner)
    return FileDeleted(id=file_id)

"""Serve /v1/batches, in OpenAI's format: many requests, answered while no other request waits."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request

from medmoe.server.auth.tenants import Grant
from medmoe.server.batches.errors import BatchEnded, BatchNotFound, FileNotFound, StorageLimit
from medmoe.server.errors import RateLimited, UnsupportedContentType
from medmoe.server.http.json_body import read_json_object
from medmoe.server.http.request_body import validated
from medmoe.server.openapi.refusals import BODY, missing, refusals
from medmoe.server.openapi.requests import accepts_json, named
from medmoe.server.openapi.responses import Responses, examples
from medmoe.server.routes.dependencies import audited, may_ask
from medmoe.server.routes.openai.storage import (
    BATCH_ID,
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
from medmoe.server.schemas.openai.batch import MAX_BATCHES_LISTED, Batch, BatchList, BatchRequest, RequestCounts

PATH = "/v1/batches"

router = APIRouter(tags=[TAG])

_REQUEST = {
    "input_file_id": FILE_ID,
    "endpoint": "/v1/vqa",
    "completion_window": "24h",
    "metadata": {"study": "chest-ct-2026"},
}
_BATCH = Batch(
    id=BATCH_ID,
    endpoint="/v1/vqa",
    input_file_id=FILE_ID,
    status="in_progress",
    created_at=1_779_700_000,
    in_progress_at=1_779_700_001,
    expires_at=1_779_786_400,
    request_counts=RequestCounts(total=500, completed=120, failed=1),
    metadata={"study": "chest-ct-2026"},
).model_dump()
_LIST = {"object": "list", "data": [_BATCH], "first_id": BATCH_ID, "last_id": BATCH_ID, "has_more": False}
BatchId = Annotated[str, Path(max_length=64, openapi_examples=named({"a_batch": BATCH_ID}))]


def _answer(example: object) -> Responses:
    return examples({"a_batch": example})


@router.post(
    PATH,
    responses=_answer(_BATCH)
    | refusals(
        *NO_STORE,
        *NO_RECORD,
        *NO_ROOM,
        FileNotFound(),
        StorageLimit.over(4_294_967_296),
        *BODY,
        UnsupportedContentType("send application/json"),
        missing("input_file_id"),
        RateLimited(retry_after=1),
        descriptions=DESCRIPTIONS | {415: "Not JSON"},
    ),
    dependencies=[Depends(audited)],
    openapi_extra=accepts_json(BatchRequest, examples={"many_questions": _REQUEST}),
)
async def create(request: Request, grant: Annotated[Grant, Depends(may_ask)]) -> Batch:
    """Answer every line of an uploaded file as its route would, while no other request waits."""
    service = batch_service(request)
    document = await read_json_object(request, known=BatchRequest.model_fields.keys())
    return (await service.create(validated(document, BatchRequest), grant)).batch


@router.get(PATH, responses=_answer(_LIST) | refusals(*NO_STORE, *LISTING, descriptions=DESCRIPTIONS))
async def batches(
    request: Request,
    grant: Annotated[Grant, Depends(may_ask)],
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=MAX_BATCHES_LISTED, openapi_examples=named({"ten": 10}))] = 20,
) -> BatchList:
    """List the caller's batches, the newest first."""
    found = [job for job in batch_service(request).jobs if job.owner == grant.tenant.owner]
    listed = page(found[::-1], after=after, limit=limit)
    return BatchList(**listed | {"data": [job.batch for job in listed["data"]]})


@router.get(
    f"{PATH}/{{batch_id}}",
    responses=_answer(_BATCH) | refusals(*NO_STORE, BatchNotFound(), *LISTING, descriptions=DESCRIPTIONS),
)
async def batch(request: Request, batch_id: BatchId, grant: Annotated[Grant, Depends(may_ask)]) -> Batch:
    """Describe a batch."""
    return batch_service(request).jobs.find(batch_id, grant.tenant.owner).batch


@router.post(
    f"{PATH}/{{batch_id}}/cancel",
    responses=_answer(_BATCH | {"status": "cancelling", "cancelling_at": 1_779_700_060})
    | refusals(
        *NO_STORE,
        *NO_RECORD,
        BatchNotFound(),
        BatchEnded(),
        *LISTING,
        RateLimited(retry_after=1),
        descriptions=DESCRIPTIONS,
    ),
    dependencies=[Depends(audited)],
)
async def cancel(request: Request, batch_id: BatchId, grant: Annotated[Grant, Depends(may_ask)]) -> Batch:
    """End a batch; its files then hold the results so far."""
    return (await batch_service(request).cancel(batch_id, grant.tenant.owner)).batch

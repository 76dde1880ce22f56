"""Find the batch service of a request, and page through lists as OpenAI does."""

from collections.abc import Sequence
from typing import Annotated, Any, Protocol

from fastapi import Query, Request

from medmoe.server.batches.errors import BatchesDisabled, StorageFull, StorageUnavailable
from medmoe.server.batches.service import BatchService
from medmoe.server.errors import AuditUnavailable
from medmoe.server.http.error_responses import invalid_parameter
from medmoe.server.openapi.refusals import MAY_NOT_ASK
from medmoe.server.openapi.requests import named
from medmoe.server.state import State

TAG = "batches"
NO_STORE = (*MAY_NOT_ASK, BatchesDisabled())
NO_ROOM = (StorageFull(), StorageUnavailable())
NO_RECORD = (AuditUnavailable(retry_after=5),)
LISTING = (invalid_parameter("limit"),)
DESCRIPTIONS = {
    404: "No such file or batch of this caller, or a deployment without them",
    409: "The file is in use, or the batch has ended",
    413: "The file is too large, or the caller's files together are",
    415: "Not multipart/form-data",
    416: "The file holds no byte of the range",
    422: "A field is missing, unknown or out of range",
    429: "This key has asked too often, or too many bodies are read; see Retry-After",
    503: "Files and batches or the audit trail cannot be written, or the identity provider cannot be reached",
    507: "The disk for files and batches is full",
}

FILE_ID = "file-18b2c4d6e8f01234a1b2c3d4e5f60718293a4b5c"
BATCH_ID = "batch_18b2c4d6e8f01234a1b2c3d4e5f60718293a4b5d"
After = Annotated[
    str | None,
    Query(
        max_length=64, description="The last id of the page before.", openapi_examples=named({"the_last_id": FILE_ID})
    ),
]


class Listed(Protocol):
    """What a list consists of."""

    @property
    def id(self) -> str: ...


def batch_service(request: Request) -> BatchService:
    """Return the service of files and batches. Raises BatchesDisabled where the deployment has none."""
    service = State.of(request).batches
    if service is None:
        raise BatchesDisabled
    return service


def page(items: Sequence[Listed], *, after: str | None, limit: int) -> dict[str, Any]:
    """Return a list's fields for at most `limit` items behind the id `after`; none behind an unknown id."""
    if after is not None:
        places = [place for place, item in enumerate(items) if item.id == after]
        items = items[places[0] + 1 :] if places else ()
    shown = tuple(items[:limit])
    ends = (shown[0].id, shown[-1].id) if shown else (None, None)
    return {"data": shown, "first_id": ends[0], "last_id": ends[1], "has_more": len(items) > limit}

"""Define batches in OpenAI's format."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from medmoe.server.schemas.base import ApiModel
from medmoe.server.schemas.openai.file import ExpiresAfter

BatchEndpoint = Literal["/v1/vqa", "/v1/classify", "/v1/chat/completions", "/v1/decisions"]
BatchStatus = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]
ENDED: frozenset[BatchStatus] = frozenset({"failed", "completed", "expired", "cancelled"})
MAX_BATCHES_LISTED = 100
Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(max_length=64)],
        Annotated[str, StringConstraints(max_length=512)],
    ],
    Field(max_length=16),
]


class BatchRequest(ApiModel):
    """What `POST /v1/batches` takes."""

    input_file_id: str = Field(min_length=1, max_length=64)
    """A file with the purpose `batch`: a request a line."""
    endpoint: BatchEndpoint
    """The route of every line."""
    completion_window: Literal["24h"]
    """Lines that have no answer by then are not asked any more."""
    metadata: Metadata | None = None
    output_expires_after: ExpiresAfter | None = None


class BatchError(ApiModel):
    """Why a batch failed."""

    code: str
    line: int | None = None
    """Line of the input file, counted from 1."""
    message: str
    param: str | None = None


class BatchErrors(ApiModel):
    """Why a batch failed; of very many errors the first."""

    object: Literal["list"] = "list"
    data: tuple[BatchError, ...]


class RequestCounts(ApiModel):
    """Lines of a batch."""

    total: int = 0
    completed: int = 0
    """Lines of the output file."""
    failed: int = 0
    """Lines of the error file."""


class Batch(ApiModel):
    """A batch."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: BatchEndpoint
    errors: BatchErrors | None = None
    input_file_id: str
    completion_window: Literal["24h"] = "24h"
    status: BatchStatus
    output_file_id: str | None = None
    """Answers; null until the batch has ended, and without any."""
    error_file_id: str | None = None
    """Refusals and failures; null until the batch has ended, and without any."""
    created_at: int
    in_progress_at: int | None = None
    expires_at: int
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: RequestCounts = RequestCounts()
    metadata: Metadata | None = None
    paused: Literal["storage"] | None = None
    """`storage` while the batch waits for room on the service's disk; an addition to OpenAI's fields."""


class BatchList(ApiModel):
    """Batches of one owner."""

    object: Literal["list"] = "list"
    data: tuple[Batch, ...]
    first_id: str | None
    last_id: str | None
    has_more: bool

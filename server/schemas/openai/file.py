"""Define stored files in OpenAI's format."""

from typing import Literal

from pydantic import Field

from medmoe.server.schemas.base import ApiModel

FilePurpose = Literal["batch", "batch_output"]
MAX_FILES_LISTED = 10_000


class ExpiresAfter(ApiModel):
    """How long a file is kept; never longer than the deployment keeps files."""

    anchor: Literal["created_at"]
    seconds: int = Field(ge=3600, le=2_592_000)


class FileObject(ApiModel):
    """A stored file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    """Seconds since 1970, as every time here."""
    expires_at: int
    """When the file is deleted."""
    filename: str
    purpose: FilePurpose
    status: Literal["processed"] = "processed"


class FileList(ApiModel):
    """Files of one owner."""

    object: Literal["list"] = "list"
    data: tuple[FileObject, ...]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(ApiModel):
    """A file that is gone."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True

"""Define the error body of the HTTP API."""

from medmoe.server.schemas.base import ApiModel


class ErrorBody(ApiModel):
    type: str
    code: str
    message: str
    param: str | None
    request_id: str


class ErrorResponse(ApiModel):
    """The one body of every failure."""

    error: ErrorBody

"""From any failure to the one error body; the only place where an exception becomes bytes.

Apart from medmoe.server.errors, which must stay free of the web framework. Foreign exceptions never contribute a
word: their text may hold memory addresses, paths, or what the client sent.
"""

import logging
import traceback

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from medmoe.model.errors import MedMoEError
from medmoe.server.errors import (
    BodyTooLarge,
    InvalidField,
    MalformedBody,
    RequestError,
    ServerError,
    TryLater,
    Unauthenticated,
)
from medmoe.server.http.error_table import INTERNAL, ErrorSpec, error_spec, error_spec_of_status
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.schemas.vqa import ErrorBody, ErrorResponse

log = logging.getLogger("medmoe.request")


def error_body(error: Exception, *, record: RequestRecord) -> ErrorResponse:
    """The body for `error`; notes its code on the record."""
    meaning = error_spec_of_status(error.status_code) if isinstance(error, HTTPException) else error_spec(error)
    record.error_code = meaning.code
    return ErrorResponse(
        error=ErrorBody(
            type=meaning.type,
            code=meaning.code,
            message=meaning.message or _sentence(str(error)),
            param=_param(error, meaning, record=record),
            request_id=record.request_id,
        )
    )


def error_response(error: Exception, *, record: RequestRecord) -> Response:
    """The whole response for `error`, status and headers included."""
    headers: dict[str, str] = {}
    if isinstance(error, HTTPException):
        status = error.status_code
        headers.update(error.headers or {})
    else:
        status = error_spec(error).status
    if isinstance(error, TryLater):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, BodyTooLarge):
        # The rest of the body is still on its way; only closing the connection spares us from reading it.
        headers["Connection"] = "close"
    body = error_body(error, record=record).model_dump_json()
    return Response(body, status_code=status, headers=headers, media_type="application/json")


def log_failure(error: Exception, *, record: RequestRecord) -> None:
    """One line for what an operator must look into: classes and places, nothing that an exception says.

    The engine's failures and strangers; what a client did wrong is told by the status in the request's own line.
    """
    if isinstance(error, ServerError | HTTPException) or error_spec(error).status < INTERNAL.status:
        return
    root = error.__cause__ or error
    frames = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(root.__traceback__)]
    details = {
        "request_id": record.request_id,
        "exception": type(error).__name__,
        "cause": type(root).__name__,
        "frames": frames,
    }
    log.error("failure", extra={"fields": details})


def install(app: FastAPI) -> None:
    """Answer our family and the framework's own refusals; strangers are left to medmoe.server.http.middleware."""

    async def answer(request: Request, error: Exception) -> Response:
        record = RequestRecord.of(request.scope)
        log_failure(error, record=record)
        return error_response(error, record=record)

    async def refuse(request: Request, error: Exception) -> Response:
        # The framework's own words quote the value; only query parameters get there, bodies are read elsewhere.
        assert isinstance(error, RequestValidationError)
        name = error.errors()[0]["loc"][-1]
        return await answer(
            request, InvalidField("the parameter is out of range or of the wrong type", param=str(name))
        )

    app.add_exception_handler(MedMoEError, answer)
    app.add_exception_handler(RequestValidationError, refuse)
    app.add_exception_handler(HTTPException, answer)


def invalid(error: ValidationError, *, fields: frozenset[str]) -> RequestError:
    """Our words for the first problem pydantic found; never the input, not even the name of an unknown field."""
    problem = error.errors(include_input=False, include_url=False, include_context=False)[0]
    if problem["type"] == "json_invalid":
        return MalformedBody()
    if problem["type"] == "extra_forbidden":
        # A misplaced key may be a patient's name: say what is known instead of what was sent.
        return InvalidField(f"unknown field; this route takes {', '.join(sorted(fields))}")
    param = ".".join(str(part) for part in problem["loc"]) or None
    return InvalidField(problem["msg"].removeprefix("Value error, "), param=param)


def _param(error: Exception, meaning: ErrorSpec, *, record: RequestRecord) -> str | None:
    named = error.param if isinstance(error, RequestError) else None
    param = named or meaning.param
    return None if param is None else record.names.get(param, param)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")

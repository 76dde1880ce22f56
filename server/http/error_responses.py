"""Turn any failure into the one error body.

The text of a foreign exception is never sent: it may contain memory addresses, paths, or what the client sent.
"""

import logging
import re
import traceback
from http import HTTPStatus

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from medmoe.model.errors import MedMoEError
from medmoe.server.auth.errors import InsufficientScope, InvalidToken
from medmoe.server.batches.errors import RangeNotSatisfiable
from medmoe.server.errors import (
    BodyTooLarge,
    InvalidField,
    MalformedBody,
    RequestError,
    ServerError,
    TryLater,
    Unauthenticated,
    UnsupportedContentType,
)
from medmoe.server.http.error_table import INTERNAL, ErrorSpec, error_spec, error_spec_of_status
from medmoe.server.http.json_body import unknown_field
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.schemas.errors import ErrorBody, ErrorResponse

log = logging.getLogger("medmoe.request")


def error_body(error: Exception, *, record: RequestRecord) -> ErrorResponse:
    """Return the body for `error`, and note its code on the record."""
    spec = error_spec_of_status(error.status_code) if isinstance(error, HTTPException) else error_spec(error)
    record.error_code = spec.code
    param = _param(error, spec, record=record)
    # Some clients show nothing but the message. Those of images speak of the image anyway.
    named = param if isinstance(error, RequestError) and error.param else None
    return ErrorResponse(
        error=ErrorBody(
            type=spec.type,
            code=spec.code,
            message=spec.message or _sentence(str(error), param=named),
            param=param,
            request_id=record.request_id,
        )
    )


def error_response(error: Exception, *, record: RequestRecord) -> Response:
    """Return the response for `error`: status, headers and body."""
    headers: dict[str, str] = {}
    if isinstance(error, HTTPException):
        status = error.status_code
        headers.update(error.headers or {})
    else:
        status = error_spec(error).status
    if isinstance(error, TryLater):
        headers["Retry-After"] = str(error.retry_after)
    if status in (HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.GATEWAY_TIMEOUT):
        # Else OpenAI's clients repeat what has just cost the whole time, or killed a process.
        headers["X-Should-Retry"] = "false"
    if isinstance(error, Unauthenticated | InsufficientScope):
        headers["WWW-Authenticate"] = _challenge(error)
    if isinstance(error, UnsupportedContentType) and error.accept_encoding is not None:
        headers["Accept-Encoding"] = error.accept_encoding
    if isinstance(error, RangeNotSatisfiable):
        headers["Content-Range"] = f"bytes */{error.size}"
    if isinstance(error, BodyTooLarge):
        # The client is still sending the body; closing the connection avoids reading the rest.
        headers["Connection"] = "close"
    body = error_body(error, record=record).model_dump_json()
    return Response(body, status_code=status, headers=headers, media_type="application/json")


def _challenge(error: Unauthenticated | InsufficientScope) -> str:
    """Return the value of WWW-Authenticate (RFC 6750)."""
    if isinstance(error, InsufficientScope):
        return f'Bearer error="insufficient_scope", scope="{error.scope}"'
    return f'Bearer error="invalid_token", error_description="{error}"' if isinstance(error, InvalidToken) else "Bearer"


def log_failure(error: Exception, *, record: RequestRecord) -> None:
    """Log classes and source lines, never messages, of the engine's failures and of foreign exceptions.

    A client's mistake appears only as the status in the request's own line.
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
    """Answer MedMoEError and the framework's refusals; medmoe.server.http.middleware answers other exceptions."""

    async def answer(request: Request, error: Exception) -> Response:
        record = RequestRecord.of(request.scope)
        log_failure(error, record=record)
        response = error_response(error, record=record)
        if "allow" in response.headers:
            # The framework names the methods of one route, also where several have the path.
            response.headers["Allow"] = ", ".join(sorted(_methods(app, request.scope)))
        return response

    async def refuse(request: Request, error: Exception) -> Response:
        # The framework's message quotes the value. Only query parameters arrive here; routes read bodies themselves.
        assert isinstance(error, RequestValidationError)
        return await answer(request, invalid_parameter(str(error.errors()[0]["loc"][-1])))

    app.add_exception_handler(MedMoEError, answer)
    app.add_exception_handler(RequestValidationError, refuse)
    app.add_exception_handler(HTTPException, answer)


def invalid_parameter(name: str) -> InvalidField:
    """Return the error for a parameter of the address."""
    return InvalidField("the parameter is out of range or of the wrong type", param=name)


def _methods(app: FastAPI, scope: Scope) -> set[str]:
    """Return the methods of all routes with the path of `scope`."""
    routes = (route for route in app.routes if isinstance(route, Route) and route.matches(scope)[0] is not Match.NONE)
    return {method for route in routes for method in route.methods or ()}


def invalid(error: ValidationError, *, fields: frozenset[str], within: str | None = None) -> RequestError:
    """Return the error for the first problem that pydantic found, without the input or the name of an unknown field.

    `within` names the field that holds the validated object, None for the body itself.
    """
    problem = error.errors(include_input=False, include_url=False, include_context=False)[0]
    if problem["type"] == "json_invalid":
        return MalformedBody()
    if problem["type"] == "extra_forbidden":
        return unknown_field(str(problem["loc"][-1]), offered=fields, within=within)
    param = ".".join(str(part) for part in (*([within] if within else []), *problem["loc"])) or None
    return InvalidField(problem["msg"].removeprefix("Value error, "), param=param)


def _param(error: Exception, spec: ErrorSpec, *, record: RequestRecord) -> str | None:
    named = error.param if isinstance(error, RequestError) else None
    param = named or spec.param
    return None if param is None else record.names.get(param, param)


def _sentence(text: str, *, param: str | None) -> str:
    """Return `text` as a sentence that names the field `param`."""
    first = text.partition(" ")[0]
    if param is not None and not re.search(rf"\b{re.escape(param.rpartition('.')[2])}\b", text):
        text = f"{param}: {text if first[1:].lower() != first[1:] else text[:1].lower() + text[1:]}"
    elif first != param and "_" not in first:
        text = text[:1].upper() + text[1:]
    return text + ("" if text.endswith((".", "?")) else ".")

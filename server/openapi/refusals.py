"""Describe the errors of each route in OpenAPI, from the exceptions that the route raises.

Status, code and message come from the error classes and medmoe.server.http.error_table.
"""

from collections.abc import Mapping
from typing import Any

from medmoe.model.errors import MedMoEError, PromptError
from medmoe.server.auth.errors import InsufficientScope, InvalidToken, ProviderUnavailable
from medmoe.server.dicomweb.errors import (
    InstanceNotFound,
    InstanceTooLarge,
    InvalidSourceAnswer,
    SourceNotFound,
    SourceRefused,
    SourceTimeout,
    SourceUnavailable,
    StoreFailed,
    WrongInstance,
)
from medmoe.server.engine.deployment.rollout_errors import RolloutDisabled
from medmoe.server.errors import (
    AuditUnavailable,
    BodyTooLarge,
    BurnedInAnnotation,
    DeadlineExceeded,
    DecoderDied,
    DecoderUnavailable,
    Draining,
    EngineDeadError,
    EngineRestarting,
    ForbiddenOrigin,
    GenerationError,
    ImageTooCostly,
    ImageTooLarge,
    ImageURLNotAllowed,
    ImageURLTimeout,
    ImageURLTooLarge,
    ImageURLUnreachable,
    InvalidField,
    MalformedBody,
    MalformedImage,
    NotReady,
    Overloaded,
    Quarantined,
    RateLimited,
    RequestTimeout,
    ServerError,
    Unauthenticated,
    UniformImage,
    UnknownModel,
    UnreadableImage,
    UnsupportedContentType,
    UnsupportedImage,
)
from medmoe.server.http.error_responses import error_body
from medmoe.server.http.error_table import error_spec
from medmoe.server.imaging.series.errors import (
    DuplicateSlices,
    InvalidArchive,
    MissingSlices,
    MixedOrientation,
    MixedSeries,
    NotAVolume,
    SeriesTooLarge,
    TiltedGantry,
)
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.openapi.requests import named
from medmoe.server.openapi.responses import Responses
from medmoe.server.schemas.errors import ErrorResponse

_DESCRIPTIONS = {
    400: "The body or the image string cannot be parsed, or the image URL is not allowed",
    401: "No valid API key or token, where the deployment has either",
    403: "A key or token without the scope that the route needs, or a page of another site sent the request",
    404: "Not a model that is served, no such source, or not in that source",
    408: "The body came too slowly",
    409: "The standby is not in the state that this needs, or a second engine does not fit into memory",
    413: "The body or the image is too large",
    415: "Neither JSON nor multipart, or not an accepted image format",
    422: "A field or the image cannot be used or fetched, or the engine has died of this request twice",
    429: "The service is full, or this key has asked too often; see Retry-After",
    500: "The service failed",
    502: "The source of the image refuses the service or sends something else",
    503: "Still loading, shutting down, the engine has stopped, the audit trail cannot be written, or the image's "
    "source or the identity provider cannot be reached; see Retry-After where there is one",
    504: "Not finished in time",
}
NOT_JSON = {415: "Not JSON, or not an accepted image format"}
"""Description for routes that take no forms."""
_REQUEST_ID = "5f0c3b8e9d1a4c27b6e4a1d2c3f40516"

FOREIGN_PAGE = (ForbiddenOrigin(),)
NO_KEY = (
    Unauthenticated(),
    InvalidToken("the token has expired"),
    *FOREIGN_PAGE,
    ProviderUnavailable(retry_after=10),
)
MAY_NOT_ASK = (*NO_KEY, InsufficientScope("ask"))
MAY_NOT_READ_STATS = (*NO_KEY, InsufficientScope("stats"))
MAY_NOT_ADMINISTER = (*NO_KEY, InsufficientScope("admin"), RolloutDisabled())
ENGINE_DEAD = (EngineDeadError(),)
NOT_READY = (NotReady(), Draining(), *ENGINE_DEAD, EngineRestarting(retry_after=30))
NOT_A_FORM = (UnsupportedContentType(),)
NO_MODEL = (UnknownModel(param="model"),)
BODY = (MalformedBody(), RequestTimeout(), BodyTooLarge.over(67_108_864), Overloaded(retry_after=1))
"""Errors of every route that takes a body."""
QUESTION = (
    PromptError("the question, the image and max_tokens together are 12 tokens over the model's context"),
    Quarantined(),
    GenerationError(),
)
IMAGE = (
    *BODY,
    MalformedImage(),
    ImageURLNotAllowed(),
    *MAY_NOT_ASK,
    ImageTooLarge.over(40_000_000),
    ImageURLTooLarge.over(67_108_864),
    UnsupportedImage(),
    UnreadableImage(),
    UniformImage(),
    ImageTooCostly(),
    DecoderDied(),
    BurnedInAnnotation(),
    ImageURLUnreachable(),
    ImageURLTimeout(),
    RateLimited(retry_after=1),
    ServerError(),
    DecoderUnavailable(),
    AuditUnavailable(retry_after=5),
    *NOT_READY,
    DeadlineExceeded(),
)
"""Errors of every route that takes an image."""


SOURCE = (
    SourceNotFound(),
    InstanceNotFound(),
    InstanceTooLarge.over(67_108_864),
    SourceRefused(),
    InvalidSourceAnswer(),
    WrongInstance(),
    SourceUnavailable(),
    SourceTimeout(),
)
"""Errors of every route that takes an image of a DICOMweb source."""

SERIES = (
    MixedSeries(),
    MixedOrientation(),
    DuplicateSlices(),
    MissingSlices(),
    TiltedGantry(),
    NotAVolume(),
    SeriesTooLarge.over_files(1000),
    InvalidArchive(),
)
"""Errors of the route that takes a series."""

REPORT = (StoreFailed(),)
"""Errors of every route that writes reports."""


def missing(field: str) -> InvalidField:
    """Return the error of a body without `field`."""
    return InvalidField("Field required", param=field)


def refusals(
    *errors: MedMoEError, names: Mapping[str, str] | None = None, descriptions: Mapping[int, str] | None = None
) -> Responses:
    """Return OpenAPI's responses for `errors`, by status; `names` maps the fields of errors to those of the route."""
    by_status: dict[int, dict[str, Any]] = {}
    for error in errors:
        record = RequestRecord(request_id=_REQUEST_ID, method="POST", names=names or {})
        spec = error_spec(error)
        by_status.setdefault(spec.status, {})[spec.code] = error_body(error, record=record).model_dump()
    described = _DESCRIPTIONS | dict(descriptions or {})
    return {
        status: {
            "model": ErrorResponse,
            "description": described[status],
            "content": {"application/json": {"examples": named(bodies)}},
        }
        for status, bodies in sorted(by_status.items())
    }

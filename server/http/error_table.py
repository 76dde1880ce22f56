"""Map every error class to its HTTP status, error type, code and message."""

from dataclasses import dataclass
from http import HTTPStatus

from medmoe.model.errors import (
    CheckpointError,
    ConfigError,
    DamagedImageError,
    ImageError,
    ImageFormatError,
    ImageFrameError,
    MedMoEError,
    PromptError,
)
from medmoe.server.audit.errors import AuditError
from medmoe.server.auth.errors import InsufficientScope, InvalidToken, ProviderUnavailable, UnknownSigningKey
from medmoe.server.batches.errors import (
    BatchEnded,
    BatchesDisabled,
    BatchNotFound,
    FileInUse,
    FileNotFound,
    RangeNotSatisfiable,
    StorageFull,
    StorageLimit,
    StorageUnavailable,
)
from medmoe.server.dicomweb.errors import (
    InstanceNotFound,
    InstanceTooLarge,
    InvalidSourceAnswer,
    SourceError,
    SourceNotFound,
    SourceRefused,
    SourceTimeout,
    SourceUnavailable,
    StoreFailed,
    WrongInstance,
)
from medmoe.server.engine.deployment import rollout_errors
from medmoe.server.errors import (
    AuditUnavailable,
    BodyTooLarge,
    BurnedInAnnotation,
    ClientDisconnected,
    DeadlineExceeded,
    DecoderDied,
    DecoderUnavailable,
    DeploymentError,
    Draining,
    EngineDeadError,
    EngineError,
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
    MalformedRequest,
    NoModelCard,
    NotReady,
    Overloaded,
    Quarantined,
    RateLimited,
    RequestError,
    RequestTimeout,
    ServerError,
    TryLater,
    Unauthenticated,
    UniformImage,
    UnknownModel,
    UnreadableImage,
    UnsupportedContentType,
    UnsupportedImage,
    UnsupportedParameter,
)
from medmoe.server.imaging.series.errors import (
    DuplicateSlices,
    InvalidArchive,
    MissingSlices,
    MixedOrientation,
    MixedSeries,
    NotAVolume,
    SeriesError,
    SeriesTooLarge,
    TiltedGantry,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorSpec:
    """The HTTP status and the error body of one error class."""

    status: int
    type: str
    code: str
    message: str | None = None
    """Sent instead of the exception's own message; None only where that message is written for the client."""
    param: str | None = None


_REQUEST, _LOAD = "invalid_request_error", "overloaded_error"
_AVAILABILITY, _SERVER = "unavailable_error", "server_error"

INTERNAL = ErrorSpec(
    status=500, type=_SERVER, code="internal_error", message="The service failed; the request id finds it in the log."
)

HTTP_MEANING: dict[type[MedMoEError], ErrorSpec] = {
    MedMoEError: INTERNAL,
    ConfigError: INTERNAL,
    CheckpointError: INTERNAL,
    ServerError: INTERNAL,
    EngineError: INTERNAL,
    DeploymentError: INTERNAL,
    AuditError: INTERNAL,
    PromptError: ErrorSpec(status=422, type=_REQUEST, code="invalid_prompt", param="question"),
    ImageError: ErrorSpec(status=422, type=_REQUEST, code="invalid_image", param="image"),
    DamagedImageError: ErrorSpec(status=422, type=_REQUEST, code="invalid_image", param="image"),
    ImageFormatError: ErrorSpec(status=422, type=_REQUEST, code="invalid_image", param="image"),
    ImageFrameError: ErrorSpec(status=422, type=_REQUEST, code="invalid_image", param="image"),
    RequestError: ErrorSpec(status=422, type=_REQUEST, code="invalid_request"),
    MalformedRequest: ErrorSpec(status=400, type=_REQUEST, code="malformed_request"),
    RequestTimeout: ErrorSpec(status=408, type=_REQUEST, code="request_timeout"),
    MalformedBody: ErrorSpec(status=400, type=_REQUEST, code="malformed_body"),
    MalformedImage: ErrorSpec(status=400, type=_REQUEST, code="malformed_image", param="image"),
    InvalidField: ErrorSpec(status=422, type=_REQUEST, code="invalid_field"),
    UnsupportedParameter: ErrorSpec(status=400, type=_REQUEST, code="unsupported_parameter"),
    UnknownModel: ErrorSpec(status=404, type=_REQUEST, code="model_not_found"),
    UnsupportedContentType: ErrorSpec(status=415, type=_REQUEST, code="unsupported_content_type"),
    ForbiddenOrigin: ErrorSpec(status=403, type="authentication_error", code="forbidden_origin"),
    UnsupportedImage: ErrorSpec(status=415, type=_REQUEST, code="unsupported_image", param="image"),
    UnreadableImage: ErrorSpec(status=422, type=_REQUEST, code="unreadable_image", param="image"),
    UniformImage: ErrorSpec(status=422, type=_REQUEST, code="uniform_image", param="image"),
    ImageTooLarge: ErrorSpec(status=413, type=_REQUEST, code="image_too_large", param="image"),
    ImageTooCostly: ErrorSpec(status=422, type=_REQUEST, code="image_too_costly", param="image"),
    DecoderDied: ErrorSpec(status=422, type=_REQUEST, code="decoder_died", param="image"),
    BurnedInAnnotation: ErrorSpec(status=422, type=_REQUEST, code="burned_in_annotation", param="image"),
    ImageURLNotAllowed: ErrorSpec(status=400, type=_REQUEST, code="image_url_not_allowed", param="image"),
    ImageURLUnreachable: ErrorSpec(status=422, type=_REQUEST, code="image_url_unreachable", param="image"),
    ImageURLTooLarge: ErrorSpec(status=413, type=_REQUEST, code="image_url_too_large", param="image"),
    ImageURLTimeout: ErrorSpec(status=422, type=_REQUEST, code="image_url_timeout", param="image"),
    rollout_errors.CheckpointNotFound: ErrorSpec(status=404, type=_REQUEST, code="checkpoint_not_found", param="name"),
    rollout_errors.RolloutDisabled: ErrorSpec(status=404, type=_REQUEST, code="rollout_disabled"),
    rollout_errors.StandbyConflict: ErrorSpec(status=409, type=_REQUEST, code="standby_conflict"),
    rollout_errors.InsufficientMemory: ErrorSpec(status=409, type=_REQUEST, code="insufficient_memory"),
    SourceNotFound: ErrorSpec(status=404, type=_REQUEST, code="source_not_found", param="source"),
    InstanceNotFound: ErrorSpec(status=404, type=_REQUEST, code="instance_not_found"),
    InstanceTooLarge: ErrorSpec(status=413, type=_REQUEST, code="instance_too_large"),
    SourceError: ErrorSpec(status=502, type=_SERVER, code="source_failed"),
    SourceUnavailable: ErrorSpec(status=503, type=_AVAILABILITY, code="source_unavailable"),
    SourceTimeout: ErrorSpec(status=504, type="timeout_error", code="source_timeout"),
    SourceRefused: ErrorSpec(status=502, type=_SERVER, code="source_refused"),
    InvalidSourceAnswer: ErrorSpec(status=502, type=_SERVER, code="invalid_source_answer"),
    StoreFailed: ErrorSpec(status=502, type=_SERVER, code="store_failed"),
    WrongInstance: ErrorSpec(status=502, type=_SERVER, code="wrong_instance"),
    SeriesError: ErrorSpec(status=422, type=_REQUEST, code="invalid_series", param="series"),
    MixedSeries: ErrorSpec(status=422, type=_REQUEST, code="mixed_series", param="series"),
    MixedOrientation: ErrorSpec(status=422, type=_REQUEST, code="mixed_orientation", param="series"),
    DuplicateSlices: ErrorSpec(status=422, type=_REQUEST, code="duplicate_slices", param="series"),
    MissingSlices: ErrorSpec(status=422, type=_REQUEST, code="missing_slices", param="series"),
    TiltedGantry: ErrorSpec(status=422, type=_REQUEST, code="tilted_gantry", param="series"),
    NotAVolume: ErrorSpec(status=422, type=_REQUEST, code="not_a_volume", param="series"),
    SeriesTooLarge: ErrorSpec(status=413, type=_REQUEST, code="series_too_large", param="series"),
    InvalidArchive: ErrorSpec(status=422, type=_REQUEST, code="invalid_archive", param="series"),
    BatchesDisabled: ErrorSpec(status=404, type=_REQUEST, code="batches_disabled"),
    FileNotFound: ErrorSpec(status=404, type=_REQUEST, code="file_not_found"),
    BatchNotFound: ErrorSpec(status=404, type=_REQUEST, code="batch_not_found"),
    FileInUse: ErrorSpec(status=409, type=_REQUEST, code="file_in_use"),
    RangeNotSatisfiable: ErrorSpec(status=416, type=_REQUEST, code="range_not_satisfiable"),
    BatchEnded: ErrorSpec(status=409, type=_REQUEST, code="batch_ended"),
    StorageLimit: ErrorSpec(status=413, type=_REQUEST, code="storage_limit"),
    StorageFull: ErrorSpec(
        status=507,
        type=_AVAILABILITY,
        code="storage_full",
        message="The disk for files and batches is full; delete files, or ask the operator for room.",
    ),
    StorageUnavailable: ErrorSpec(
        status=503,
        type=_AVAILABILITY,
        code="storage_unavailable",
        message="Files and batches cannot be written at the moment; the log of the service tells why.",
    ),
    BodyTooLarge: ErrorSpec(status=413, type=_REQUEST, code="body_too_large"),
    Unauthenticated: ErrorSpec(
        status=401,
        type="authentication_error",
        code="invalid_api_key",
        message="Send a valid API key as Authorization: Bearer.",
    ),
    InvalidToken: ErrorSpec(status=401, type="authentication_error", code="invalid_token"),
    UnknownSigningKey: ErrorSpec(status=401, type="authentication_error", code="invalid_token"),
    InsufficientScope: ErrorSpec(status=403, type="authentication_error", code="insufficient_scope"),
    ProviderUnavailable: ErrorSpec(
        status=503,
        type=_AVAILABILITY,
        code="identity_provider_unavailable",
        message="Tokens cannot be checked, because the identity provider cannot be reached; try again.",
    ),
    DecoderUnavailable: ErrorSpec(
        status=503,
        type=_AVAILABILITY,
        code="decoder_unavailable",
        message="Images cannot be decoded at the moment; try again.",
    ),
    NoModelCard: ErrorSpec(
        status=404, type=_REQUEST, code="no_model_card", message="This checkpoint came without a model card."
    ),
    TryLater: INTERNAL,
    RateLimited: ErrorSpec(
        status=429,
        type=_LOAD,
        code="rate_limited",
        message="This caller has asked too often; try again after Retry-After seconds.",
    ),
    Overloaded: ErrorSpec(
        status=429, type=_LOAD, code="overloaded", message="The service is full; try again after Retry-After seconds."
    ),
    NotReady: ErrorSpec(
        status=503,
        type=_AVAILABILITY,
        code="not_ready",
        message="The model is still loading; /health/ready tells when.",
    ),
    Draining: ErrorSpec(
        status=503, type=_AVAILABILITY, code="draining", message="The service is shutting down; ask another instance."
    ),
    EngineDeadError: ErrorSpec(
        status=503,
        type=_AVAILABILITY,
        code="engine_dead",
        message="The engine has stopped, and this request with it; /health/ready tells when it answers again.",
    ),
    EngineRestarting: ErrorSpec(
        status=503,
        type=_AVAILABILITY,
        code="engine_restarting",
        message="The engine has stopped and is being restarted; try again after Retry-After seconds.",
    ),
    AuditUnavailable: ErrorSpec(
        status=503,
        type=_AVAILABILITY,
        code="audit_unavailable",
        message="The service cannot write its audit trail and answers nothing meanwhile; try again after Retry-After "
        "seconds.",
    ),
    Quarantined: ErrorSpec(
        status=422,
        type=_REQUEST,
        code="quarantined",
        message="The engine has died of this request, and then again of it alone; it is not tried a third time.",
    ),
    DeadlineExceeded: ErrorSpec(
        status=504,
        type="timeout_error",
        code="deadline_exceeded",
        message="The answer took too long; ask for less, or send a longer timeout_ms (at most MEDMOE_TIMEOUT_MS).",
    ),
    ClientDisconnected: ErrorSpec(
        status=499, type=_REQUEST, code="client_disconnected", message="The client closed the connection."
    ),
    GenerationError: ErrorSpec(
        status=500, type=_SERVER, code="generation_failed", message="The engine failed on this request."
    ),
}

_FRAMEWORK = {
    400: ErrorSpec(status=400, type=_REQUEST, code="malformed_body", message="The body cannot be parsed."),
    404: ErrorSpec(status=404, type=_REQUEST, code="not_found", message="There is no such route; see /docs."),
    405: ErrorSpec(
        status=405, type=_REQUEST, code="method_not_allowed", message="The route does not take this method; see Allow."
    ),
}


def error_spec(error: BaseException) -> ErrorSpec:
    """Return the entry of the most specific class of `error` in the table; INTERNAL for foreign exceptions."""
    for kind in type(error).__mro__:
        if kind in HTTP_MEANING:
            return HTTP_MEANING[kind]
    return INTERNAL


def error_spec_of_status(status: int) -> ErrorSpec:
    """Return the entry of a status that the web framework raised; its own text is never sent."""
    if status in _FRAMEWORK:
        return _FRAMEWORK[status]
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return INTERNAL
    return ErrorSpec(status=status, type=_REQUEST, code="refused", message="The request was refused.")

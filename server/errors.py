"""Define every failure that the server names; medmoe.server.http.error_table maps each to a status and a code.

MedMoEError (medmoe.model.errors)
|-- ConfigError, CheckpointError, PromptError             (medmoe.model.errors)
|-- ImageError                                            (medmoe.model.errors)
|   `-- DamagedImageError, ImageFormatError, ImageFrameError
|-- AuditError                      an audit trail is damaged (medmoe.server.audit.errors)
|-- ServerError
|   |-- RequestError                the client can correct it
|   |   |-- MalformedRequest, RequestTimeout, MalformedBody, MalformedImage, InvalidField, UnsupportedParameter
|   |   |-- UnknownModel, UnsupportedContentType, ForbiddenOrigin
|   |   |-- UnsupportedImage, UnreadableImage, UniformImage, ImageTooLarge, ImageTooCostly, DecoderDied
|   |   |-- BurnedInAnnotation, ImageURLNotAllowed, ImageURLUnreachable, ImageURLTooLarge, ImageURLTimeout
|   |   |-- SourceNotFound, InstanceNotFound, InstanceTooLarge, CheckpointNotFound
|   |   |-- SeriesError
|   |   |   |-- MixedSeries, MixedOrientation, DuplicateSlices, MissingSlices, TiltedGantry
|   |   |   `-- NotAVolume, SeriesTooLarge, InvalidArchive
|   |   |-- FileNotFound, BatchNotFound, FileInUse, RangeNotSatisfiable, BatchEnded, StorageLimit
|   |   `-- BodyTooLarge
|   |-- TryLater                    the client can repeat it after `retry_after` seconds
|   |   `-- RateLimited, Overloaded, EngineRestarting, ProviderUnavailable, AuditUnavailable
|   |-- SourceError                 a DICOMweb source of the deployment fails
|   |   `-- SourceUnavailable, SourceTimeout, SourceRefused, InvalidSourceAnswer, WrongInstance, StoreFailed
|   |-- Unauthenticated             no valid API key or token
|   |   `-- InvalidToken
|   |       `-- UnknownSigningKey
|   |-- StorageUnavailable          files and batches cannot be written (medmoe.server.batches.errors)
|   |   `-- StorageFull
|   |-- InsufficientScope, NoModelCard, Quarantined, BatchesDisabled
|   |-- RolloutDisabled, StandbyConflict, InsufficientMemory   (medmoe.server.engine.deployment.rollout_errors)
|   |-- NotReady, Draining, DecoderUnavailable, DeadlineExceeded
|   `-- ClientDisconnected
`-- EngineError
    `-- DeploymentError, EngineDeadError, GenerationError
"""

from typing import ClassVar, Self

from medmoe.model.errors import MedMoEError


class ServerError(MedMoEError):
    """Base of the failures that begin in the server."""

    default_message: ClassVar[str] = ""

    def __init__(self, message: str | None = None) -> None:
        """Use `default_message` unless there is a `message`."""
        super().__init__(self.default_message if message is None else message)


class RequestError(ServerError):
    """The request cannot be served as sent; the message says what to change and never quotes the request."""

    default_message = "the request cannot be served as it was sent"

    def __init__(self, message: str | None = None, *, param: str | None = None) -> None:
        """Use `default_message` unless there is a `message`; `param` names the field to correct."""
        super().__init__(message)
        self.param = param


class MalformedRequest(RequestError):
    """The bytes on the connection are not an HTTP/1.1 request, or one that proxies may read differently."""

    default_message = "the bytes on the connection are not a valid HTTP/1.1 request"


class RequestTimeout(RequestError):
    """The head or the body of the request comes too slowly."""

    default_message = "the request did not come in time; send it faster"


class MalformedBody(RequestError):
    """The body is not the JSON or multipart document that its Content-Type promises."""

    default_message = "the body is not valid JSON"


class MalformedImage(RequestError):
    """The image string is neither base64 nor a base64 data URL."""

    default_message = "the image is neither base64 nor a base64 data URL"


class InvalidField(RequestError):
    """A field is missing, unknown, of the wrong type, or out of range."""


class UnsupportedParameter(RequestError):
    """The service does not offer this field or value of OpenAI's API; ignoring it would change the answer."""

    default_message = "the field is not offered; leave it out"


class UnknownModel(RequestError):
    """The request names a model that this process does not serve."""

    default_message = "this model is not served; GET /v1/models names those that are"


class UnsupportedContentType(RequestError):
    """The Content-Type is none that the route reads."""

    default_message = "send application/json or multipart/form-data"

    def __init__(self, message: str | None = None, *, accept_encoding: str | None = None) -> None:
        """Pass `accept_encoding` when the body's encoding is refused and not its type."""
        super().__init__(message)
        self.accept_encoding = accept_encoding


class ForbiddenOrigin(RequestError):
    """A web page of another site sent the request, or it was sent to a name that is not this service's."""

    default_message = "requests from web pages of other sites are not answered"


class UnsupportedImage(RequestError):
    """The first bytes are those of no accepted image format."""

    default_message = "the image is none of PNG, JPEG, WebP, TIFF, BMP, DICOM"


class UnreadableImage(RequestError):
    """The image is damaged, truncated, too small, or too elongated."""

    default_message = "the image is damaged or truncated"


class UniformImage(RequestError):
    """The image comes out as one shade, and the request does not allow that."""

    default_message = (
        "the image comes out as one shade; send allow_uniform=true, or choose another window or frame of a DICOM file"
    )


class ImageTooLarge(RequestError):
    """The image's header announces more pixels than the service decodes."""

    @classmethod
    def over(cls, max_pixels: int) -> Self:
        """Return the error of an image over `max_pixels`."""
        return cls(f"the image's longer side, squared, is over {max_pixels} pixels (MEDMOE_MAX_IMAGE_PIXELS)")


class ImageTooCostly(RequestError):
    """Decoding takes more memory, processor time or time than one image may take."""

    default_message = "decoding the image takes more memory than the service grants (MEDMOE_IMAGE_MEMORY_MIB)"


class DecoderDied(RequestError):
    """The process that decoded this image ended without an answer; other images are not affected."""

    default_message = "the process that decoded the image ended"


class BurnedInAnnotation(RequestError):
    """The image of a DICOM file contains text, or may contain it, and the deployment refuses such images."""

    default_message = (
        "the DICOM file says that text is burned into its image, which may name the patient (MEDMOE_DICOM_BURNED_IN)"
    )


class ImageURLNotAllowed(RequestError):
    """The deployment fetches no images, none from this host, or none by a URL of this form."""

    default_message = "this service fetches no image URLs (MEDMOE_IMAGE_URL_HOSTS); send the image itself as base64"


class ImageURLUnreachable(RequestError):
    """The URL's host has no address or no valid certificate, or does not answer with a file.

    An error of the request, because its URL must change: status 502 would report a broken service.
    """

    default_message = "the host of the image URL cannot be reached, or breaks off"


class ImageURLTooLarge(RequestError):
    """The file behind the URL has more bytes than the service reads."""

    @classmethod
    def over(cls, max_bytes: int) -> Self:
        """Return the error of a file over `max_bytes`."""
        return cls(f"the image behind the URL is larger than {max_bytes} bytes (MEDMOE_MAX_BODY_BYTES)")


class ImageURLTimeout(RequestError):
    """The URL's host did not send the file within the time of one fetch."""

    default_message = "the image did not come from its URL in time (MEDMOE_IMAGE_URL_SECONDS)"


class BodyTooLarge(RequestError):
    """The body has more bytes than the service reads."""

    @classmethod
    def over(cls, max_bytes: int, *, setting: str = "MEDMOE_MAX_BODY_BYTES") -> Self:
        """Return the error of a body over `max_bytes`, a limit that `setting` chooses."""
        return cls(f"the body is larger than {max_bytes} bytes ({setting})")


class Unauthenticated(ServerError):
    """The request carries no API key, or an unknown one."""

    default_message = "send a valid API key"


class DecoderUnavailable(ServerError):
    """No decoder process can be started."""


class NoModelCard(ServerError):
    """The checkpoint directory contains no model card that can be read."""


class TryLater(ServerError):
    """The client can repeat the request after `retry_after` seconds."""

    default_message: ClassVar[str] = "the request can be repeated later"

    def __init__(self, *, retry_after: int) -> None:
        super().__init__(self.default_message)
        self.retry_after = retry_after


class RateLimited(TryLater):
    """The caller has no permit left; the next comes after `retry_after` seconds."""

    default_message = "too many requests"


class Overloaded(TryLater):
    """Every slot and every place in the queue is taken."""

    default_message = "the service is full"


class EngineRestarting(TryLater):
    """The engine has died and another one is starting; `retry_after` is how long earlier starts have taken."""

    default_message = "the engine is being restarted"


class AuditUnavailable(TryLater):
    """The audit trail cannot be written, and the deployment answers nothing without it."""

    default_message = "the audit trail cannot be written"


class Quarantined(ServerError):
    """An engine died while it worked on this request alone, after another one had died with it."""


class NotReady(ServerError):
    """The model is still loading or warming up."""


class Draining(ServerError):
    """The service is shutting down and takes no new requests."""


class DeadlineExceeded(ServerError):
    """The answer was not finished within the request's time."""


class ClientDisconnected(ServerError):
    """The client closed the connection before the answer was finished."""


class EngineError(MedMoEError):
    """The engine failed; medmoe.server.engine.base exports this class and its subclasses for engines."""


class DeploymentError(EngineError):
    """The settings ask for ranks or a number format that the checkpoint or the machine cannot give."""


class EngineDeadError(EngineError):
    """The engine has died, and with it every request that it was working on."""


class GenerationError(EngineError):
    """The engine failed on this request; other requests are not affected."""

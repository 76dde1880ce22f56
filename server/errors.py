"""Every failure the server can name; medmoe.server.http.error_table says what each looks like from outside.

MedMoEError (medmoe.model.errors)
|-- ConfigError, CheckpointError    the checkpoint is unusable: refused at start-up
|-- PromptError, ImageError         the model room refuses this text or this picture
|-- ServerError                     born in this room
|   |-- RequestError                the client can fix it; `param` names the offending field
|   |   |-- MalformedBody           not JSON, not multipart, or not what its Content-Type says
|   |   |-- MalformedImage          the image string is not base64
|   |   |-- InvalidField            a field is missing, unknown, or holds a value out of range
|   |   |-- UnsupportedParameter    a field or a value of OpenAI's API that is not offered here
|   |   |-- UnknownModel            another model than the one that is served
|   |   |-- UnsupportedContentType  neither JSON nor multipart
|   |   |-- UnsupportedImage        the bytes are not one of the accepted picture formats
|   |   |-- UnreadableImage         the picture is damaged, too small or too elongated
|   |   |-- ImageTooLarge           more pixels than this service decodes
|   |   |-- ImageTooCostly          decoding took more memory or time than this service grants one picture
|   |   |-- DecoderDied             the process that decoded the picture ended; the next picture gets another
|   |   |-- BurnedInAnnotation      this deployment takes no picture with text burned in
|   |   |-- ImageURLNotAllowed      this deployment fetches no pictures, or none from there
|   |   |-- ImageURLUnreachable     the URL's host does not give the picture
|   |   |-- ImageURLTooLarge        the URL leads to more bytes than this service reads
|   |   |-- ImageURLTimeout         the URL's host takes more time than this service grants
|   |   `-- BodyTooLarge            more bytes than this service reads
|   |-- DecoderUnavailable          no process can be had that decodes pictures
|   |-- NoModelCard                 the checkpoint directory has no README.md
|   |-- Unauthenticated             no API key, or none that this service knows
|   |-- TryLater                    `retry_after` says when
|   |   |-- RateLimited             this caller has asked too often
|   |   |-- Overloaded              every slot and every place in the queue is taken
|   |   `-- EngineRestarting        the engine has died and another one is being started
|   |-- Quarantined                 an engine died twice over this very request
|   |-- NotReady                    the model is still loading
|   |-- Draining                    the service is shutting down
|   |-- DeadlineExceeded            the answer did not come within the request's time
|   `-- ClientDisconnected          nobody is left to read the answer (never seen by a client)
`-- EngineError                     the engine could not start
    |-- DeploymentError             the settings ask for what this checkpoint or this machine cannot give
    |-- EngineDeadError             this engine is gone, and every request that was in it
    `-- GenerationError             this request failed; the engine lives on

The engine's errors are drawn here so that the family is in one place; medmoe.server.engine.base exports them.
"""

from medmoe.model.errors import MedMoEError


class ServerError(MedMoEError):
    """A failure born in the server room."""


class RequestError(ServerError):
    """The request cannot be served as sent; the message says what to change and never quotes the request."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class MalformedBody(RequestError):
    """The body is not the JSON or multipart document that its Content-Type promises."""


class MalformedImage(RequestError):
    """The image string is neither base64 nor a base64 data URL."""


class InvalidField(RequestError):
    """A field is missing, unknown, of the wrong type, or out of range."""


class UnsupportedParameter(RequestError):
    """OpenAI's API has this field or value; ignoring it would give another answer than was asked for."""


class UnknownModel(RequestError):
    """The request names another model than the one this process serves."""

    def __init__(self, *, param: str | None = None) -> None:
        super().__init__("this model is not served; GET /v1/models names the one that is", param=param)


class UnsupportedContentType(RequestError):
    """The Content-Type is neither application/json nor multipart/form-data."""


class UnsupportedImage(RequestError):
    """The bytes do not begin like any accepted picture format."""


class UnreadableImage(RequestError):
    """The picture is damaged, truncated, too small, or too elongated."""


class ImageTooLarge(RequestError):
    """The picture's header announces more pixels than the service decodes."""


class ImageTooCostly(RequestError):
    """Decoding the picture took more memory, processor time or time than one picture may take."""


class DecoderDied(RequestError):
    """The process that decoded this picture ended without an answer; others are not affected."""


class BurnedInAnnotation(RequestError):
    """A DICOM file whose picture holds text, or may hold it, where the deployment takes none such."""


class ImageURLNotAllowed(RequestError):
    """The deployment fetches no pictures, or none from this host; or the URL is not of the one form that is fetched."""


class ImageURLUnreachable(RequestError):
    """The URL's host has no address, no valid certificate, or answers with something else than a file.

    Like all errors of this family the request's: its URL is what has to change. A status of 502 would say that the
    service is broken, to whoever counts those, each time that a caller misspells a path.
    """


class ImageURLTooLarge(RequestError):
    """The URL leads to a file of more bytes than the service reads."""


class ImageURLTimeout(RequestError):
    """The URL's host did not give the file within the time of one fetch; the request's own had not yet ended."""


class BodyTooLarge(RequestError):
    """The body has more bytes than the service reads."""


class Unauthenticated(ServerError):
    """The request carries no API key, or one that this service does not know."""


class DecoderUnavailable(ServerError):
    """No decoding process could be started."""


class NoModelCard(ServerError):
    """The checkpoint directory holds no model card that can be read."""


class TryLater(ServerError):
    """What a client should repeat after `retry_after` seconds."""

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RateLimited(TryLater):
    """This caller has used up its permits; after `retry_after` seconds there is one."""

    def __init__(self, *, retry_after: int) -> None:
        super().__init__("too many requests", retry_after=retry_after)


class Overloaded(TryLater):
    """Every slot and every place in the queue is taken; `retry_after` seconds is a fair time to wait."""

    def __init__(self, *, retry_after: int) -> None:
        super().__init__("the service is full", retry_after=retry_after)


class EngineRestarting(TryLater):
    """The engine has died and another one is being started; `retry_after` is what starts have taken."""

    def __init__(self, *, retry_after: int) -> None:
        super().__init__("the engine is being restarted", retry_after=retry_after)


class Quarantined(ServerError):
    """An engine died while it worked on this request and on nothing else, and had died over it before."""


class NotReady(ServerError):
    """The model is still being loaded or warmed up."""


class Draining(ServerError):
    """The service is shutting down and takes no new requests."""


class DeadlineExceeded(ServerError):
    """The answer was not finished within the request's time."""


class ClientDisconnected(ServerError):
    """The client closed the connection before the answer was finished."""


class EngineError(MedMoEError):
    """The engine could not do what it was asked."""


class DeploymentError(EngineError):
    """The settings ask for ranks or a number format that this checkpoint or this machine cannot give."""


class EngineDeadError(EngineError):
    """The engine is gone, and with it every request that was in it."""


class GenerationError(EngineError):
    """This one request failed in the engine; others are not affected."""

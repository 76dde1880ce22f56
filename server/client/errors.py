"""Every failure a caller of the service can meet.

MedMoEError (medmoe.model.errors)
`-- ClientError
    |-- InvalidInput         what was given cannot be sent: no readable file, no picture, no text
    |-- NoConnection         nobody was reached, or the connection broke; tried again
    |-- OutOfTime            no answer within the client's own time
    |-- UnexpectedAnswer     an answer came, and it is not what /docs promises
    |   `-- Untrusted            it came with a certificate that this machine does not trust
    `-- ServiceError         the service said no, in its one error body
        |-- RequestRefused       400, 404, 413, 415, 422: the request must change
        |-- Unauthorized         401: no API key, or none that the service knows
        |-- ServiceFull          429: full, or asked too often; tried again
        |-- ServiceUnavailable   503: loading, stopping, or its engine has died; tried again
        |-- ServiceTimeout       504: not finished within the request's time
        `-- ServiceFailed        500 and whatever else

Answers are deterministic, so that asking again does no harm: what is "tried again" is raised only when the attempts or
the time are used up.
"""

from typing import ClassVar

from medmoe.model.errors import MedMoEError


class ClientError(MedMoEError):
    """Asking the service failed."""

    again: ClassVar[bool] = False
    """Whether the same request may succeed a moment later."""
    retry_after: float | None = None
    """Seconds after which the service wants to be asked again, where it has said so."""


class InvalidInput(ClientError):
    """A file that cannot be read, a picture that cannot be encoded, or text that is no Unicode."""


class NoConnection(ClientError):
    """The service was not reached, or left in the middle of an answer."""

    again = True


class OutOfTime(ClientError):
    """The client's `timeout`, over all attempts and the pauses between them, has passed."""


class UnexpectedAnswer(ClientError):
    """The answer is not what the service's /docs promise, or a stream ended before its answer."""


class Untrusted(UnexpectedAnswer):
    """Whoever answers has no certificate that this machine trusts; nothing that a second attempt would change."""


class ServiceError(ClientError):
    """What the service said, field by field."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None,
        type_: str,
        code: str,
        param: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        """`status` is None for an error event in a stream, whose status went out before."""
        super().__init__(message)
        self.message = message
        self.status = status
        self.type = type_
        self.code = code
        self.param = param
        self.request_id = request_id
        self.retry_after = retry_after

    def __str__(self) -> str:
        where = "" if self.param is None else f" ({self.param})"
        request = "" if self.request_id is None else f" [request {self.request_id}]"
        return f"{self.code}{where}: {self.message}{request}"


class RequestRefused(ServiceError):
    """The service cannot answer this request as it is; `param` names the field where there is one."""


class Unauthorized(ServiceError):
    """No API key, or one that the service does not know."""


class ServiceFull(ServiceError):
    """Every place is taken, or this key has asked too often."""

    again = True


class ServiceUnavailable(ServiceError):
    """The model is loading, the service is stopping, or its engine has died."""

    again = True


class ServiceTimeout(ServiceError):
    """The service did not finish within the request's time; more of it would only take longer."""


class ServiceFailed(ServiceError):
    """A failure inside the service; its log has the request id."""

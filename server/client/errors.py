"""Define the errors that the client raises.

MedMoEError (medmoe.model.errors)
└── ClientError
    ├── InvalidInput              the input cannot be sent: unreadable file, no image, no Unicode text
    ├── ConnectionFailed          no connection, or it broke; retried
    ├── Timeout                   no answer within the client's own timeout
    ├── UnexpectedAnswer          the answer is not what /docs promises
    │   └── CertificateError      this machine does not trust the service's certificate
    └── ServiceError              the service answered with its error body
        ├── BadRequest            every other 4xx: the request must change
        ├── Unauthorized          401, 403: no valid API key or token, or not the scope
        ├── Overloaded            429: the service is full, or this key asked too often; retried
        ├── ServiceUnavailable    503: loading, stopping, or without an engine; 502 of a proxy before it; retried
        ├── ServiceTimeout        504: not finished within the request's time
        └── ServiceFailed         500 and every other status

Repeating a question does no harm. What changes the service is sent again only where it has surely not been done. A
retried error is raised once its attempts or the time are used up.
"""

from typing import ClassVar

from medmoe.model.errors import MedMoEError


class ClientError(MedMoEError):
    """Asking the service failed."""

    retryable: ClassVar[bool] = False
    """Whether the same request may succeed a moment later."""
    retry_after: float | None = None
    """Seconds that the service asks to wait before the next attempt, if it named any."""


class InvalidInput(ClientError):
    """A file cannot be read, an image cannot be encoded, or a text is no Unicode."""


class ConnectionFailed(ClientError):
    """No connection to the service could be made, or it broke before the answer was complete."""

    retryable = True

    def __init__(self, message: str, *, unreachable: bool = False) -> None:
        """`unreachable`: no connection could be made at all."""
        super().__init__(message)
        self.unreachable = unreachable


class Timeout(ClientError):
    """The client's `timeout` passed, which covers all attempts and the pauses between them."""


class UnexpectedAnswer(ClientError):
    """The answer does not follow the service's /docs, or a stream ended early."""


class CertificateError(UnexpectedAnswer):
    """This machine does not trust the service's certificate. A second attempt would not change that."""


class ServiceError(ClientError):
    """The service answered with an error; the attributes are the fields of its error body."""

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
        """`status` is None for an error event in a stream, which began with status 200."""
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
        request = "" if self.request_id is None else f", request {self.request_id}"
        return f"{self.message} [{self.code}{where}{request}]"


class BadRequest(ServiceError):
    """The service cannot answer this request as it is; `param` names the field, if one is to blame."""


class Unauthorized(ServiceError):
    """The API key or token is missing, unknown to the service, or lacks a scope."""


class Overloaded(ServiceError):
    """The service is full, or this key asked too often."""

    retryable = True


class ServiceUnavailable(ServiceError):
    """The model is loading, the service is stopping, or its engine has died."""

    retryable = True


class ServiceTimeout(ServiceError):
    """The service did not finish within the request's time."""


class ServiceFailed(ServiceError):
    """The service failed; its log has the request id."""


ENDS_A_RUN = (ConnectionFailed, Overloaded, ServiceUnavailable, Unauthorized, CertificateError)
"""Errors about one image that would fail every other image too, so they end a run after all attempts."""

"""Translate httpx's exceptions into the client's errors."""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx

from medmoe.client.errors import CertificateError, ClientError, ConnectionFailed, Timeout, UnexpectedAnswer
from medmoe.client.transport.tls import CA_VARIABLE, CERTIFICATE_VARIABLE

TABLE: Mapping[type[httpx.RequestError], type[ClientError]] = {
    httpx.TimeoutException: Timeout,
    # Connecting has a shorter time limit of its own, so another attempt is possible.
    httpx.ConnectTimeout: ConnectionFailed,
    httpx.TransportError: ConnectionFailed,
    httpx.DecodingError: UnexpectedAnswer,
    httpx.TooManyRedirects: UnexpectedAnswer,
}

_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"})
"""Reasons that OpenSSL gives, by its version, for an answer in plain HTTP."""
_CUT = "complete message body"
"""Words of httpx for an answer that has begun."""


@contextmanager
def translated(service: str) -> Iterator[None]:
    """Raise ConnectionFailed, Timeout or UnexpectedAnswer for an httpx error inside; `service` is the address."""
    try:
        yield
    except TimeoutError as error:
        raise Timeout(f"{service} has not answered in time") from error
    except httpx.RequestError as error:
        raise _translation(error, service) from error


def _translation(error: httpx.RequestError, service: str) -> ClientError:
    kind = next(TABLE[known] for known in type(error).__mro__ if known in TABLE)
    if kind is Timeout:
        return Timeout(f"{service} has not answered in time")
    if kind is UnexpectedAnswer:
        return UnexpectedAnswer(f"the answer of {service} cannot be read ({type(error).__name__})")
    tls = _tls_error(error)
    if isinstance(tls, ssl.SSLCertVerificationError):
        return CertificateError(
            f"{service} has no certificate that this machine trusts; for a private authority set {CA_VARIABLE}"
        )
    if tls is not None and tls.reason in _NO_TLS:
        return UnexpectedAnswer(f"{service} does not speak TLS; if that is right, begin its address with http://")
    reason = (str(error) or type(error).__name__).removesuffix(".")
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        hint = "is the service running? Start it with `make serve`, or set MEDMOE_URL to its address"
        return ConnectionFailed(f"no connection to {service}: {reason}; {hint}", unreachable=True)
    return ConnectionFailed(f"no connection to {service}: {reason}{_hint(reason, service)}")


def _hint(reason: str, service: str) -> str:
    """Return what may have made the service close the connection, unless in the middle of an answer."""
    if _CUT in reason:
        return ""
    if service.startswith("http:"):
        return "; if it speaks TLS, begin its address with https://"
    # The alert that would say so is lost: the service closes the connection at once.
    return f"; if it requires a certificate of its clients, set {CERTIFICATE_VARIABLE}"


def _tls_error(error: BaseException | None) -> ssl.SSLError | None:
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error

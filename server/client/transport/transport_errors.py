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
    if _is_certificate_error(error):
        return CertificateError(
            f"{service} has no certificate that this machine trusts; for a private authority set {CA_VARIABLE}"
        )
    reason = str(error) or type(error).__name__
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        hint = "is the service running? Start it with `make serve`, or set MEDMOE_URL to its address"
        return ConnectionFailed(f"no connection to {service}: {reason}; {hint}", unreachable=True)
    # The alert that would say so is lost: the service closes the connection at once.
    hint = f"; if it requires a certificate of its clients, set {CERTIFICATE_VARIABLE}" if _is_https(service) else ""
    return ConnectionFailed(f"no connection to {service}: {reason}{hint}")


def _is_https(service: str) -> bool:
    return service.startswith("https:")


def _is_certificate_error(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False

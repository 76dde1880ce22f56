"""What httpx raises, in this package's words; the only place that knows its exceptions."""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx

from medmoe.client.errors import ClientError, NoConnection, OutOfTime, UnexpectedAnswer, Untrusted

TABLE: Mapping[type[httpx.RequestError], type[ClientError]] = {
    httpx.TimeoutException: OutOfTime,
    # Connecting has a time of its own, shorter than the whole: another attempt may find somebody.
    httpx.ConnectTimeout: NoConnection,
    httpx.TransportError: NoConnection,
    httpx.DecodingError: UnexpectedAnswer,
    httpx.TooManyRedirects: UnexpectedAnswer,
}


@contextmanager
def translated(service: str) -> Iterator[None]:
    """Raises NoConnection, OutOfTime or UnexpectedAnswer for what httpx raises inside; `service` is its address."""
    try:
        yield
    except TimeoutError as error:
        raise OutOfTime(f"{service} has not answered in time") from error
    except httpx.RequestError as error:
        raise _translation(error, service) from error


def _translation(error: httpx.RequestError, service: str) -> ClientError:
    kind = next(TABLE[known] for known in type(error).__mro__ if known in TABLE)
    if kind is OutOfTime:
        return OutOfTime(f"{service} has not answered in time")
    if kind is UnexpectedAnswer:
        return UnexpectedAnswer(f"the answer of {service} cannot be read ({type(error).__name__})")
    if _is_about_certificates(error):
        return Untrusted(f"{service} has no certificate that this machine trusts")
    reason = str(error) or type(error).__name__
    return NoConnection(f"no connection to {service}: {reason}")


def _is_about_certificates(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False

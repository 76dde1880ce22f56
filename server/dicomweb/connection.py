"""Send one request to a source and read its answer within limits.

No redirect is followed, no proxy used, no cookie kept and no encoding undone. Nothing of the request or of the answer
is logged or quoted in an error.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import aclosing, asynccontextmanager
from functools import cached_property, partial

import httpcore

from medmoe.server.dicomweb.errors import (
    InstanceNotFound,
    InvalidSourceAnswer,
    SourceRefused,
    SourceTimeout,
    SourceUnavailable,
)
from medmoe.server.dicomweb.sources import Source
from medmoe.server.errors import Overloaded, ServerError
from medmoe.server.tasks import DaemonThreads

_CONNECT_SECONDS = 5.0
"""Time limit of connecting, for each address of the source."""
_RETRY = 1
"""Seconds until a refused caller should try again."""
_GONE = (404, 410)
_FORBIDDEN = (401, 403, 407)
_NOT_FOR_THIS_HOST = (62, 64)
"""OpenSSL's codes of a certificate for another name or address."""
_EXPIRED = 10


class ClosingNetwork(httpcore.AnyIOBackend):
    """Closes the connection that it opened: httpcore leaves one open that is cancelled during its TLS handshake.

    One instance serves one connection.
    """

    _opened: httpcore.AsyncNetworkStream | None = None

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self._opened = await super().connect_tcp(host, port, timeout, local_address, socket_options)
        return self._opened

    async def aclose(self) -> None:
        if self._opened is not None:
            await self._opened.aclose()


class SourceConnections:
    """Sends requests to sources: each within `seconds`, `at_once` at a time."""

    def __init__(self, *, seconds: float, at_once: int) -> None:
        self._seconds = seconds
        self._at_once = at_once
        self._open = 0

    @cached_property
    def _threads(self) -> DaemonThreads:
        """Return threads for what may be silent: it must not block a shared pool, nor the end of the process."""
        return DaemonThreads("sources", count=self._at_once)

    @asynccontextmanager
    async def request(
        self,
        source: Source,
        method: str,
        target: str,
        *,
        accept: str,
        content: tuple[str, bytes] | None = None,
        failures: Collection[int] = (),
    ) -> AsyncIterator[httpcore.Response]:
        """Yield the successful response to a request, unread; `target` follows the source's base URL.

        `content` is a body with its Content-Type. Responses with a status of `failures` are yielded, too. Raises
        InstanceNotFound, InvalidSourceAnswer, Overloaded, SourceRefused, SourceTimeout, SourceUnavailable, also while
        the block reads the response. Cancelling the block closes the connection.
        """
        if self._open >= self._at_once:
            raise Overloaded(retry_after=_RETRY)
        self._open += 1
        try:
            async with asyncio.timeout(self._seconds):
                headers = await self._threads.do(partial(_headers, source, accept, content))
                async with (
                    aclosing(ClosingNetwork()) as network,
                    httpcore.AsyncHTTPConnection(
                        source.origin, ssl_context=source.tls, network_backend=network
                    ) as connection,
                    connection.stream(
                        method,
                        httpcore.URL(
                            scheme=source.origin.scheme,
                            host=source.origin.host,
                            port=source.origin.port,
                            target=(source.path + target).encode("ascii"),
                        ),
                        headers=headers,
                        content=content[1] if content else None,
                        extensions={"timeout": {"connect": _CONNECT_SECONDS}},
                    ) as response,
                ):
                    if response.status not in failures:
                        _check(response)
                    yield response
        except (TimeoutError, httpcore.TimeoutException) as error:
            raise SourceTimeout() from error
        except ServerError:
            raise
        except httpcore.ProtocolError as error:
            raise InvalidSourceAnswer() from error
        except (httpcore.NetworkError, ssl.SSLError, OSError) as error:
            raise SourceUnavailable(_untrusted(error)) from error
        finally:
            self._open -= 1


async def read(response: httpcore.Response, *, max_bytes: int) -> bytes:
    """Return the body. Raises InvalidSourceAnswer for one over `max_bytes`."""
    body = bytearray()
    async for chunk in response.aiter_stream():
        body += chunk
        if len(body) > max_bytes:
            raise InvalidSourceAnswer("the source sends more than was asked for")
    return bytes(body)


def header(response: httpcore.Response, name: bytes) -> bytes:
    """Return the value of a header, empty where it is absent or comes more than once."""
    values = [value for key, value in response.headers if key.lower() == name]
    return values[0] if len(values) == 1 else b""


def _headers(source: Source, accept: str, content: tuple[str, bytes] | None) -> list[tuple[bytes, bytes]]:
    """Return the headers of a request. Raises OSError for a source without an address.

    Blocks: a file holds the credential, and the name is looked up here first, so that the event loop's own threads
    look up none that has no answer.
    """
    socket.getaddrinfo(source.origin.host, source.origin.port, type=socket.SOCK_STREAM)
    headers = [
        (b"Host", source.authority),
        (b"User-Agent", b"medmoe"),
        (b"Accept", accept.encode("ascii")),
        # Undoing an encoding would make many bytes of few, after they were counted.
        (b"Accept-Encoding", b"identity"),
        (b"Connection", b"close"),
    ]
    if content is not None:
        headers += [(b"Content-Type", content[0].encode("ascii")), (b"Content-Length", b"%d" % len(content[1]))]
    authorization = source.authorization
    if authorization is not None:
        headers.append((b"Authorization", authorization))
    return headers


def _untrusted(error: BaseException) -> str | None:
    """Return what is wrong with the source's certificate, without its host; None where it is something else."""
    cause = error.__cause__
    if not isinstance(cause, ssl.SSLCertVerificationError):
        return None
    if cause.verify_code in _NOT_FOR_THIS_HOST:
        return "the source's certificate is for another host than the one in its url"
    if cause.verify_code == _EXPIRED:
        return "the source's certificate has expired"
    return "the source's certificate is of no authority that is trusted; its operator may name one as ca_file"


def _check(response: httpcore.Response) -> None:
    status = response.status
    if status in _GONE:
        raise InstanceNotFound()
    if status in _FORBIDDEN:
        raise SourceRefused()
    if 300 <= status < 400:
        raise InvalidSourceAnswer("the source leads to another address, which is not followed")
    if status in (408, 425, 429) or status >= 500:
        raise SourceUnavailable(f"the source answers with status {status}")
    if not 200 <= status < 300:
        raise InvalidSourceAnswer(f"the source answers with status {status}")
    if header(response, b"content-encoding").strip().lower() not in (b"", b"identity"):
        raise InvalidSourceAnswer("the source encodes its answer, which was not asked for")

"""Fetch images by URL, from public addresses and allowed hosts only.

The service sends the request from inside its network, so a caller may choose little:

1. The URL has one form, and its host is one that the deployment names (image_url.py).
2. The host's name is resolved once, and every one of its addresses must be public (addresses.py).
3. The connection goes to these addresses, while certificate and request are those of the name (addresses.py).
4. One GET: no redirect is followed, no proxy used, no cookie or credential sent, no encoding undone.
5. Bytes are counted as they come, time runs from the first step, and the number of fetches at once is bounded.

No error holds a word of the URL or of the answer, and nothing is logged.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import aclosing

import httpcore

from medmoe.server.errors import (
    ImageURLNotAllowed,
    ImageURLTimeout,
    ImageURLTooLarge,
    ImageURLUnreachable,
    Overloaded,
    ServerError,
)
from medmoe.server.imaging.fetch.addresses import (
    HTTPS_PORT,
    Address,
    Endpoint,
    PinnedNetwork,
    SystemResolver,
    is_public,
)
from medmoe.server.schemas.image_url import AllowedURL, allowed_url
from medmoe.server.settings import Settings

Resolver = Callable[[str], Awaitable[Sequence[Endpoint]]]
"""Maps a host name to its endpoints. Raises OSError."""

_HEADERS = (
    (b"User-Agent", b"medmoe"),
    (b"Accept", b"*/*"),
    # Undoing an encoding would make many bytes of few, after they were counted.
    (b"Accept-Encoding", b"identity"),
    (b"Connection", b"close"),
)
_SILENCE_SECONDS = 5.0
"""Time limit of a connection, its TLS handshake and each read: a silent address leaves time for the next."""
_RETRY = 1
"""Seconds until a refused caller should try again."""
_OK = 200


class ImageFetcher:
    """Fetches images from `hosts`: at most `max_bytes` each, within `seconds`, `at_once` at a time."""

    def __init__(
        self,
        *,
        hosts: Collection[str],
        max_bytes: int,
        seconds: float,
        at_once: int,
        tls: ssl.SSLContext,
        resolve: Resolver,
        may_connect: Callable[[Address], bool],
    ) -> None:
        self._hosts = frozenset(hosts)
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._at_once = at_once
        self._tls = tls
        self._resolve = resolve
        self._may_connect = may_connect
        self._fetching = 0

    @classmethod
    def of(cls, settings: Settings) -> "ImageFetcher | None":
        """Return a fetcher, None where the deployment names no host."""
        if not settings.image_url_hosts:
            return None
        return cls(
            hosts=settings.image_url_hosts,
            max_bytes=settings.max_body_bytes,
            seconds=settings.image_url_seconds,
            at_once=settings.image_url_fetches,
            # The system's certificate authorities, a hospital's own among them, and Mozilla's.
            tls=httpcore.default_ssl_context(),
            resolve=SystemResolver(threads=settings.image_url_fetches),
            may_connect=is_public,
        )

    async def fetch(self, url: str) -> bytes:
        """Return the bytes behind `url`. Cancelling it closes the connection.

        Raises ImageURLNotAllowed, ImageURLUnreachable, ImageURLTooLarge, ImageURLTimeout, Overloaded.
        """
        allowed = allowed_url(url, hosts=self._hosts)
        if self._fetching >= self._at_once:
            raise Overloaded(retry_after=_RETRY)
        self._fetching += 1
        try:
            async with asyncio.timeout(self._seconds):
                return await self._get(allowed, await self._endpoints(allowed.host))
        except (TimeoutError, httpcore.TimeoutException) as error:
            raise ImageURLTimeout() from error
        finally:
            self._fetching -= 1

    async def _endpoints(self, host: str) -> Sequence[Endpoint]:
        try:
            endpoints = await self._resolve(host)
        except OSError as error:
            raise ImageURLUnreachable("the host of the image URL has no address") from error
        # One is enough to refuse all: who can add an answer chooses which one is taken.
        if not all(self._may_connect(address) for address, _ in endpoints):
            raise ImageURLNotAllowed("the host of the image URL has an address that is not public")
        return endpoints

    async def _get(self, url: AllowedURL, endpoints: Sequence[Endpoint]) -> bytes:
        host = url.host.encode()
        try:
            async with (
                aclosing(PinnedNetwork(endpoints)) as network,
                httpcore.AsyncHTTPConnection(
                    httpcore.Origin(b"https", host, HTTPS_PORT), ssl_context=self._tls, network_backend=network
                ) as connection,
                connection.stream(
                    "GET",
                    httpcore.URL(scheme=b"https", host=host, port=HTTPS_PORT, target=url.target.encode()),
                    headers=_HEADERS,
                    extensions={"timeout": dict.fromkeys(("connect", "read", "write"), _SILENCE_SECONDS)},
                ) as response,
            ):
                return await self._body(response)
        except (ServerError, httpcore.TimeoutException):
            raise
        except Exception as error:
            # httpcore lets some exceptions of ssl and anyio pass; a fault of the host is not the service's.
            raise ImageURLUnreachable() from error

    async def _body(self, response: httpcore.Response) -> bytes:
        if 300 <= response.status < 400:
            raise ImageURLUnreachable("the image URL leads to another, which is not followed")
        if response.status != _OK:
            raise ImageURLUnreachable(f"the host of the image URL answers with status {response.status}")
        encodings = [value for name, value in response.headers if name.lower() == b"content-encoding"]
        if any(value.strip().lower() != b"identity" for value in encodings):
            raise ImageURLUnreachable("the host of the image URL encodes its answer, which was not asked for")
        body = bytearray()
        async for chunk in response.aiter_stream():
            body += chunk
            if len(body) > self._max_bytes:
                raise ImageURLTooLarge.over(self._max_bytes)
        return bytes(body)

"""The latest pictures as the model sees them: who asks several questions about one has it decoded once.

Decoding a radiograph can take longer than answering. Kept are few, in memory only, and apart for each tenant.
"""

import asyncio
import hashlib
from collections.abc import Callable

from medmoe.server.imaging.image import Picture
from medmoe.server.imaging.sandbox.pool import DecoderPool
from medmoe.server.lru import Recent
from medmoe.server.schemas.images import ImageFields

_AT_ONCE = 2**20
"""Bytes that are hashed on the event loop: a millisecond or two on a slow processor."""


class ImageCache:
    """Asks the decoders for what it does not have."""

    def __init__(self, decoders: DecoderPool, *, most: int, count: Callable[[bool], None]) -> None:
        """`most`: pictures; `count` is told of each that came of it whether it was there."""
        self._decoders = decoders
        self._most = most
        self._count = count
        self._kept: Recent[bytes, Picture] = Recent(most)

    async def decode(self, sent: str | bytes, fields: ImageFields, *, salt: str | None) -> Picture:
        """As DecoderPool.decode, whose refusals are not kept. `salt` keeps tenants apart: speed is an answer too."""
        if not self._most:
            return await self._decoders.decode(sent, fields)
        key = await _key(sent, fields, salt)
        picture = self._kept.get(key)
        was_kept = picture is not None
        if picture is None:
            picture = await self._decoders.decode(sent, fields)
        self._count(was_kept)
        self._kept.keep(key, picture)
        return picture


async def _key(sent: str | bytes, fields: ImageFields, salt: str | None) -> bytes:
    """Of everything that decides what the picture looks like, and who asks."""
    head = repr((salt, isinstance(sent, str), fields.window, fields.frame)).encode()
    # As to the decoders: a character that is no base64 becomes another that is none.
    data = sent.encode(errors="replace") if isinstance(sent, str) else sent
    if len(data) <= _AT_ONCE:
        return _digest(head, data)
    return await asyncio.to_thread(_digest, head, data)


def _digest(head: bytes, data: bytes) -> bytes:
    # Of the head first, whose end nobody can then move into the picture.
    digest = hashlib.sha256(hashlib.sha256(head).digest())
    digest.update(data)
    return digest.digest()

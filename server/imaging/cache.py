"""Keep the latest decoded images in memory, separately for each tenant.

Several questions about one image then decode it once; decoding a radiograph can take longer than answering.
"""

import asyncio
import hashlib
from collections.abc import Callable

from cachetools import LRUCache

from medmoe.server.imaging.image import DecodedImage
from medmoe.server.imaging.sandbox.pool import DecoderPool
from medmoe.server.schemas.images import ImageFields

_HASH_INLINE_BYTES = 2**20
"""Larger images are hashed in a thread: this many bytes take a millisecond or two on a slow processor."""


class ImageCache:
    """Returns cached images and decodes the others."""

    def __init__(self, decoders: DecoderPool, *, most: int, count: Callable[[bool], None]) -> None:
        """Keep `most` images; call `count` with whether an image was cached."""
        self._decoders = decoders
        self._most = most
        self._count = count
        self._kept: LRUCache[bytes, DecodedImage] = LRUCache(most)

    async def decode(self, sent: str | bytes, fields: ImageFields, *, salt: str | None) -> DecodedImage:
        """Return the image as DecoderPool.decode does; its refusals are neither cached nor counted.

        Requests share an image only under the same `salt`: an answer's speed would tell one tenant of another's.
        """
        if not self._most:
            decoded = await self._decoders.decode(sent, fields, tenant=salt)
            self._count(False)
            return decoded
        key = await _key(sent, fields, salt)
        image = self._kept.get(key)
        was_cached = image is not None
        if image is None:
            image = self._kept[key] = await self._decoders.decode(sent, fields, tenant=salt)
        self._count(was_cached)
        return image


async def _key(sent: str | bytes, fields: ImageFields, salt: str | None) -> bytes:
    """Return a digest of everything that decides how the image looks, and of the tenant."""
    shown = [getattr(fields, name) for name in ImageFields.model_fields]
    head = repr((salt, isinstance(sent, str), shown)).encode()
    # As to the decoders: a character that is no base64 becomes another that is none.
    data = sent.encode(errors="replace") if isinstance(sent, str) else sent
    if len(data) <= _HASH_INLINE_BYTES:
        return _digest(head, data)
    return await asyncio.to_thread(_digest, head, data)


def _digest(head: bytes, data: bytes) -> bytes:
    # The head is hashed first, so that its end cannot be moved into the image.
    digest = hashlib.sha256(hashlib.sha256(head).digest())
    digest.update(data)
    return digest.digest()

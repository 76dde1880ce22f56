"""Read the image of a request: fetch it when it came as a URL, then take it from the cache or decode it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from medmoe.server.admission.slots import Deadline
from medmoe.server.errors import ImageURLNotAllowed
from medmoe.server.imaging.cache import ImageCache
from medmoe.server.imaging.fetch.fetcher import ImageFetcher
from medmoe.server.imaging.image import DecodedImage
from medmoe.server.imaging.sandbox.pool import DecoderPool
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.schemas.image_url import is_url
from medmoe.server.schemas.images import ImageFields, View


class ImageIntake:
    """Reads images as the model gets them, or renders them for people to look at."""

    def __init__(self, decoders: DecoderPool, *, cache: ImageCache, fetcher: ImageFetcher | None) -> None:
        """Pass None as `fetcher` where the deployment fetches no images."""
        self._decoders = decoders
        self._cache = cache
        self.fetcher = fetcher

    async def read(
        self, image: str | bytes, fields: ImageFields, *, deadline: Deadline, record: RequestRecord
    ) -> DecodedImage:
        """Return the decoded `image` (base64, URL or file) at the model's size; record the stages `fetch` and `image`.

        Raises what ImageFetcher.fetch and DecoderPool.decode raise, DeadlineExceeded.
        """
        async with self._fetched(image, deadline=deadline, record=record) as encoded:
            return await self._cache.decode(encoded, fields, salt=record.cache_salt)

    async def render(
        self, image: str | bytes, fields: ImageFields, *, view: View, deadline: Deadline, record: RequestRecord
    ) -> DecodedImage:
        """Return `image` as `view` shows it. Otherwise as `read`, without the cache."""
        async with self._fetched(image, deadline=deadline, record=record) as encoded:
            return await self._decoders.decode(encoded, fields, view=view)

    @asynccontextmanager
    async def _fetched(
        self, image: str | bytes, *, deadline: Deadline, record: RequestRecord
    ) -> AsyncIterator[str | bytes]:
        """Yield base64 or the file's bytes; the block is the stage `image`, under the deadline."""
        if isinstance(image, str) and is_url(image):
            if self.fetcher is None:
                raise ImageURLNotAllowed()
            with record.stage("fetch"):
                async with deadline.guard():
                    image = await self.fetcher.fetch(image)
        with record.stage("image"):
            async with deadline.guard():
                yield image

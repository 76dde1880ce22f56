"""Read the image of a request: fetch it when it was only named, then take it from the cache or decode it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from medmoe.server.admission.deadline import Deadline
from medmoe.server.audit.keys import AuditKeys
from medmoe.server.dicomweb.client import DICOMwebClient
from medmoe.server.dicomweb.errors import SourceNotFound, WrongInstance
from medmoe.server.errors import ImageURLNotAllowed, MalformedImage
from medmoe.server.imaging.cache import ImageCache
from medmoe.server.imaging.fetch.fetcher import ImageFetcher
from medmoe.server.imaging.formats.sniff import from_text
from medmoe.server.imaging.image import DecodedImage, InstanceUIDs
from medmoe.server.imaging.reports.content import ReportContent, ReportFormat
from medmoe.server.imaging.sandbox.pool import DecoderPool
from medmoe.server.imaging.series.geometry import Survey
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.schemas.image_url import is_url
from medmoe.server.schemas.images import ImageFields, View
from medmoe.server.schemas.inference import InstanceReference, SentImage, SeriesReference

_HASH_INLINE_BYTES = 2**20
"""Larger files are hashed in a thread."""


class ImageIntake:
    """Reads images as the model gets them, or renders them for people to look at."""

    def __init__(
        self,
        decoders: DecoderPool,
        *,
        cache: ImageCache,
        fetcher: ImageFetcher | None = None,
        dicomweb: DICOMwebClient | None = None,
        digests: AuditKeys | None = None,
    ) -> None:
        """Pass None as `fetcher` where no images are fetched by URL, as `dicomweb` where there are no sources.

        With `digests` requests note the keyed digests of their images.
        """
        self._decoders = decoders
        self._cache = cache
        self._dicomweb = dicomweb
        self._digests = digests
        self.fetcher = fetcher

    async def read(
        self, image: SentImage, fields: ImageFields, *, deadline: Deadline, record: RequestRecord
    ) -> DecodedImage:
        """Return the decoded `image` at the model's size; record the stages `fetch` and `image`.

        Raises what `fetch` and DecoderPool.decode raise.
        """
        async with self._fetched(image, deadline=deadline, record=record) as (encoded, digests):
            decoded = await self._cache.decode(encoded, fields, salt=record.cache_salt)
        self._note_uids(decoded, digests)
        return decoded

    async def render(
        self, image: SentImage, fields: ImageFields, *, view: View, deadline: Deadline, record: RequestRecord
    ) -> DecodedImage:
        """Return `image` as `view` shows it. Otherwise as `read`, without the cache."""
        async with self._fetched(image, deadline=deadline, record=record) as (encoded, digests):
            rendered = await self._decoders.decode(encoded, fields, view=view, tenant=record.cache_salt)
        self._note_uids(rendered, digests)
        return rendered

    async def read_and_render(
        self, image: SentImage, fields: ImageFields, *, deadline: Deadline, record: RequestRecord
    ) -> tuple[DecodedImage, DecodedImage]:
        """Return what `read` returns, and what `render` returns as people see it, of one file."""
        async with self._fetched(image, deadline=deadline, record=record) as (encoded, digests):
            decoded = await self._cache.decode(encoded, fields, salt=record.cache_salt)
            frame = await self._decoders.decode(encoded, fields, view="frame", tenant=record.cache_salt)
        self._note_uids(decoded, digests)
        return decoded, frame

    async def fetch(self, image: SentImage, *, deadline: Deadline, record: RequestRecord) -> str | bytes:
        """Return base64 or the file's bytes, from the host or the source of `image` where it only names one.

        Raises what ImageFetcher.fetch, DICOMwebClient.retrieve and DecoderPool.identify raise, WrongInstance,
        DeadlineExceeded.
        """
        if isinstance(image, InstanceReference):
            return await self._retrieve(image, deadline=deadline, record=record)
        if isinstance(image, str) and is_url(image):
            if self.fetcher is None:
                raise ImageURLNotAllowed()
            with record.stage("fetch"):
                async with deadline.guard():
                    return await self.fetcher.fetch(image)
        return image

    async def _retrieve(self, reference: InstanceReference, *, deadline: Deadline, record: RequestRecord) -> bytes:
        """Return the file that `reference` names, whatever the source sent being checked for it."""
        if self._dicomweb is None:
            raise SourceNotFound()
        with record.stage("fetch"):
            async with deadline.guard():
                data = await self._dicomweb.retrieve(reference)
        with record.stage("image"):
            sent = await self.identify(data, deadline=deadline, record=record)
        if (sent.study, sent.series, sent.instance) != (reference.study, reference.series, reference.instance):
            raise WrongInstance()
        return data

    async def identify(self, file: str | bytes, *, deadline: Deadline, record: RequestRecord) -> InstanceUIDs:
        """Return the UIDs of a DICOM file. Raises what DecoderPool.identify raises, DeadlineExceeded."""
        async with deadline.guard():
            return await self._decoders.identify(file, tenant=record.cache_salt)

    async def survey(
        self, data: bytes, *, metadata: bool = False, max_slices: int, deadline: Deadline, record: RequestRecord
    ) -> Survey:
        """Return where slices lie. Raises what DecoderPool.survey raises, DeadlineExceeded."""
        async with deadline.guard():
            return await self._decoders.survey(data, metadata=metadata, max_slices=max_slices, tenant=record.cache_salt)

    async def unpack(
        self, archive: str | bytes, *, max_files: int, max_bytes: int, deadline: Deadline, record: RequestRecord
    ) -> tuple[bytes, ...]:
        """Return the files of an archive. Raises what DecoderPool.unpack raises, DeadlineExceeded."""
        async with deadline.guard():
            return await self._decoders.unpack(
                archive, max_files=max_files, max_bytes=max_bytes, tenant=record.cache_salt
            )

    async def metadata(self, series: SeriesReference, *, deadline: Deadline) -> bytes:
        """Return the metadata of a series. Raises what DICOMwebClient.metadata raises, DeadlineExceeded."""
        if self._dicomweb is None:
            raise SourceNotFound()
        async with deadline.guard():
            return await self._dicomweb.metadata(series)

    async def report(
        self,
        file: str | bytes,
        content: ReportContent,
        format_: ReportFormat,
        *,
        deadline: Deadline,
        record: RequestRecord,
    ) -> bytes:
        """Return the report on an image of a DICOM file. Raises what DecoderPool.report raises, DeadlineExceeded."""
        async with deadline.guard():
            return await self._decoders.report(file, content, format_, tenant=record.cache_salt)

    @asynccontextmanager
    async def _fetched(
        self, image: SentImage, *, deadline: Deadline, record: RequestRecord
    ) -> AsyncIterator[tuple[str | bytes, dict[str, str]]]:
        """Yield base64 or the file's bytes, and the digests that the record holds of the file.

        The block is the stage `image`, under the deadline.
        """
        digests = self.note_named(image, record=record) if isinstance(image, InstanceReference) else {}
        encoded = await self.fetch(image, deadline=deadline, record=record)
        with record.stage("image"):
            async with deadline.guard():
                await self._note_image(encoded, digests, record=record)
                yield encoded, digests

    def note_named(self, reference: SeriesReference, *, record: RequestRecord) -> dict[str, str]:
        """Note the keyed digests of the UIDs that a request names, and return the entry."""
        digests: dict[str, str] = {}
        if self._digests is not None:
            named = reference.model_dump(exclude={"source"})
            digests |= {name: self._digests.uid_digest(uid) for name, uid in named.items()}
            record.images.append(digests)
        return digests

    async def _note_image(self, encoded: str | bytes, digests: dict[str, str], *, record: RequestRecord) -> None:
        """Add the keyed digest of the file to its entry, which is noted on the record unless it was."""
        if self._digests is None:
            return
        digest = partial(_file_digest, self._digests, encoded)
        found = digest() if len(encoded) <= _HASH_INLINE_BYTES else await asyncio.to_thread(digest)
        if not digests:
            record.images.append(digests)
        if found is not None:
            digests["image"] = found

    def _note_uids(self, decoded: DecodedImage, digests: dict[str, str]) -> None:
        """Add the keyed digests of the file's UIDs to its entry."""
        if self._digests is not None and decoded.uids is not None:
            digest = self._digests.uid_digest
            digests |= {name: digest(uid) for name, uid in decoded.uids.model_dump().items()}


def _file_digest(keys: AuditKeys, encoded: str | bytes) -> str | None:
    """Return the digest of a file's bytes, None for text that is no base64."""
    try:
        return keys.image_digest(from_text(encoded) if isinstance(encoded, str) else encoded)
    except MalformedImage:
        return None

"""Open the files of a series: look where their slices lie, and keep those that are asked about."""

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from medmoe.model.errors import ImageError
from medmoe.server.admission.deadline import Deadline
from medmoe.server.dicomweb.errors import InvalidSourceAnswer, WrongInstance
from medmoe.server.errors import RequestError, UnreadableImage
from medmoe.server.imaging.formats.archive import is_archive
from medmoe.server.imaging.intake import ImageIntake
from medmoe.server.imaging.series.errors import InvalidArchive, NotAVolume, SeriesTooLarge
from medmoe.server.imaging.series.geometry import FileGeometry
from medmoe.server.observability.request_record import RequestRecord
from medmoe.server.schemas.inference import InstanceReference, SentSeries, SeriesReference
from medmoe.server.settings import Settings
from medmoe.server.tasks import run_all

_SURVEYS = 4
"""Files that are looked at once; the decoder processes are the limit."""


@contextmanager
def numbered(index: int) -> Iterator[None]:
    """Add the number of a file, from 1, to an error of the block that blames its image."""
    try:
        yield
    except RequestError as error:
        raise type(error)(f"file {index + 1}: {error}", param=error.param) from error
    except ImageError as error:
        raise ImageError(f"file {index + 1}: {error}") from error


@dataclass(kw_only=True, slots=True)
class OpenSeries:
    """The files of a series with an image in them."""

    files: tuple[FileGeometry, ...]
    places: tuple[int, ...]
    """Place of each of `files` among the DICOM files that were sent; of a source, among its images."""
    ignored: int
    """Files without an image."""
    source: str | None
    """The source that still has the files; None where they were sent."""
    contents: dict[int, bytes] = field(repr=False)
    """Sent files by their index in `files`."""

    def keep(self, indices: Collection[int]) -> None:
        """Forget all files but those at `indices`."""
        self.contents = {index: data for index, data in self.contents.items() if index in indices}


class SeriesIntake:
    """Opens series that were sent, or that are named in a DICOMweb source."""

    def __init__(self, images: ImageIntake, settings: Settings) -> None:
        self._images = images
        self._max_files = settings.max_series_files
        self._max_bytes = settings.max_series_bytes
        self._fetching = asyncio.Semaphore(max(1, settings.dicomweb_requests // 2))

    async def open(self, sent: SentSeries, *, deadline: Deadline, record: RequestRecord) -> OpenSeries:
        """Return the files of a series, unpacked.

        Raises the series errors, what ImageIntake.metadata, unpack and survey raise, DeadlineExceeded.
        """
        if isinstance(sent, SeriesReference):
            return await self._named(sent, deadline=deadline, record=record)
        with record.stage("image"):
            contents, packed = await self._unpacked(sent, deadline=deadline, record=record)
            if len(contents) > self._max_files:
                raise SeriesTooLarge.over_files(self._max_files)
            found = await self._surveyed(contents, packed=packed, deadline=deadline, record=record)
        places = [place for place, geometry in enumerate(found) if geometry is not None]
        if not places:
            raise NotAVolume("no file holds an image")
        return OpenSeries(
            files=tuple(geometry for geometry in found if geometry is not None),
            places=tuple(places),
            ignored=len(contents) - len(places),
            source=None,
            contents={index: contents[place] for index, place in enumerate(places)},
        )

    async def read(self, series: OpenSeries, index: int, *, deadline: Deadline, record: RequestRecord) -> bytes:
        """Return the file at `index`, from its source where it was not sent.

        Raises what ImageIntake.fetch raises, and WrongInstance where the file is not what the metadata say.
        """
        if series.source is None:
            return series.contents[index]
        expected = series.files[index]
        reference = InstanceReference(source=series.source, **expected.uids.model_dump())
        async with deadline.guard():
            await self._fetching.acquire()
        try:
            data = await self._images.fetch(reference, deadline=deadline, record=record)
        finally:
            self._fetching.release()
        assert isinstance(data, bytes)
        with record.stage("image"):
            survey = await self._images.survey(data, max_slices=self._max_files, deadline=deadline, record=record)
        if not survey.files or not expected.agrees_with(survey.files[0]):
            raise WrongInstance("the source sent an instance that is not what its metadata say")
        return data

    async def _named(self, sent: SeriesReference, *, deadline: Deadline, record: RequestRecord) -> OpenSeries:
        self._images.note_named(sent, record=record)
        with record.stage("fetch"):
            metadata = await self._images.metadata(sent, deadline=deadline)
        with record.stage("image"):
            try:
                survey = await self._images.survey(
                    metadata, metadata=True, max_slices=self._max_files, deadline=deadline, record=record
                )
            except UnreadableImage as error:
                raise InvalidSourceAnswer("the source's metadata are not DICOM JSON of a series") from error
        if not survey.files:
            raise NotAVolume("the series in the source holds no image")
        if any((file.uids.study, file.uids.series) != (sent.study, sent.series) for file in survey.files):
            raise InvalidSourceAnswer("the source lists what was not asked for")
        return OpenSeries(
            files=survey.files,
            places=tuple(range(len(survey.files))),
            ignored=survey.ignored,
            source=sent.source,
            contents={},
        )

    async def _unpacked(
        self, sent: str | tuple[bytes, ...], *, deadline: Deadline, record: RequestRecord
    ) -> tuple[tuple[bytes, ...], bool]:
        """Return the files, and whether they were packed. Raises InvalidArchive, SeriesTooLarge."""
        packed = isinstance(sent, str) or any(map(is_archive, sent))
        if not packed:
            assert not isinstance(sent, str)
            return sent, False
        if not isinstance(sent, str) and len(sent) > 1:
            raise InvalidArchive("send one archive alone, or the files without one")
        archive = sent if isinstance(sent, str) else sent[0]
        contents = await self._images.unpack(
            archive, max_files=self._max_files, max_bytes=self._max_bytes, deadline=deadline, record=record
        )
        return contents, True

    async def _surveyed(
        self, contents: tuple[bytes, ...], *, packed: bool, deadline: Deadline, record: RequestRecord
    ) -> list[FileGeometry | None]:
        """Return the geometry of each file, None for one without an image, which only an archive may hold."""
        found: list[FileGeometry | None] = [None] * len(contents)
        waiting = iter(range(len(contents)))

        async def work() -> None:
            for index in waiting:
                with numbered(index):
                    survey = await self._images.survey(
                        contents[index], max_slices=self._max_files, deadline=deadline, record=record
                    )
                    if not survey.files and not packed:
                        raise UnreadableImage("the DICOM file holds no image")
                found[index] = survey.files[0] if survey.files else None

        await run_all(work() for _ in range(min(_SURVEYS, len(contents))))
        return found

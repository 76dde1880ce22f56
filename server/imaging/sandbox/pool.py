"""Decode images in a bounded number of worker processes.

A worker that died, hung, ran out of memory or was interrupted is stopped; the next request gets a new one.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable
from itertools import accumulate
from typing import TypeVar

from medmoe.model.config import MedMoEConfig
from medmoe.server.admission.fair_slots import FairSlots
from medmoe.server.errors import DecoderDied, DecoderUnavailable, ImageTooCostly
from medmoe.server.imaging.decoder_config import FRAME_SIDE, DecoderConfig, ImageLimits, Message
from medmoe.server.imaging.image import DecodedImage, InstanceUIDs
from medmoe.server.imaging.reports.content import ReportContent, ReportFormat
from medmoe.server.imaging.sandbox.protocol import (
    LENGTHS,
    MAX_HEAD,
    DecodeRequest,
    Document,
    IdentifyRequest,
    Refusal,
    ReportRequest,
    SurveyRequest,
    Unpacked,
    UnpackRequest,
    pack,
)
from medmoe.server.imaging.sandbox.spawner import WORKER_SPAWNER, Worker
from medmoe.server.imaging.series.geometry import Survey
from medmoe.server.schemas.images import ImageFields, View
from medmoe.server.settings import Settings

Answer = TypeVar("Answer")

_MAX_REPORT = 4 * 2**20
"""Bytes: of a series each slice has its part."""
_MAX_SURVEY = 8 * 2**20
"""Bytes: 5000 slices, with 20 digits a number."""
_GRACE = 5.0
"""Seconds beyond a worker's own time limit until the service stops it."""
_LIFETIME = 500
"""Images per worker: memory that a library leaks, or that a bad image corrupts, does not stay for ever."""
_OUT_OF_TIME = (signal.SIGALRM, signal.SIGPROF)


class DecoderPool:
    """Decodes images for one checkpoint, `workers` at a time; starts workers when they are needed."""

    def __init__(self, config: DecoderConfig, *, workers: int) -> None:
        self._config = config
        self._workers = workers
        self._slots = FairSlots(workers)
        self._idle: list[Worker] = []
        self._closed = False

    @classmethod
    def of(cls, settings: Settings, config: MedMoEConfig) -> "DecoderPool":
        limits = ImageLimits(
            max_pixels=settings.max_image_pixels,
            min_side=settings.min_image_side,
            max_aspect_ratio=settings.max_image_aspect_ratio,
            max_frames=settings.max_image_frames,
        )
        return cls(
            DecoderConfig(
                processor=config.image_processor,
                size=config.vision_config.image_size,
                limits=limits,
                burned_in=settings.dicom_burned_in,
                reads_uids=settings.audit_dir is not None,
                memory_bytes=settings.image_memory_mib * 2**20,
                cpu_seconds=settings.image_cpu_seconds,
                wall_seconds=settings.image_seconds,
            ),
            workers=settings.image_workers,
        )

    async def start(self) -> None:
        """Start one worker before the first image comes: the process that forks workers takes a second to begin."""
        # The first request with an image gets the error.
        with contextlib.suppress(DecoderUnavailable):
            self._keep(await self._spawn(), worn=False)

    @property
    def pids(self) -> tuple[int, ...]:
        """Return the process ids of the idle workers."""
        return tuple(worker.pid for worker in self._idle)

    async def decode(
        self, sent: str | bytes, fields: ImageFields, *, view: View = "model", tenant: str | None = None
    ) -> DecodedImage:
        """Decode base64 text or file bytes to the size of `view`; tenants take turns.

        Raises what ImageReader.read raises, DecoderDied, DecoderUnavailable. Cancelling it stops the worker.
        """
        largest = self._config.size if view == "model" else FRAME_SIDE

        def parse(head: bytes, pixels: bytes) -> DecodedImage:
            answer = DecodedImage.model_validate_json(head).model_copy(update={"pixels": pixels})
            if not _fits(answer, largest=largest, exactly=view == "model"):
                raise ValueError("not an image of the size that was asked for")
            return answer

        shown = ImageFields(**{name: getattr(fields, name) for name in ImageFields.model_fields})
        request = DecodeRequest(text=isinstance(sent, str), fields=shown, view=view)
        return await self._ask(request, sent, parse, most=3 * largest**2, tenant=tenant)

    async def identify(self, sent: str | bytes, *, tenant: str | None) -> InstanceUIDs:
        """Return the UIDs of a DICOM file. Raises what reports.document.identify raises, and otherwise as `decode`."""
        request = IdentifyRequest(text=isinstance(sent, str))
        return await self._ask(request, sent, _document(InstanceUIDs.model_validate_json), most=MAX_HEAD, tenant=tenant)

    async def report(
        self, sent: str | bytes, content: ReportContent, format_: ReportFormat, *, tenant: str | None
    ) -> bytes:
        """Return the report on an image of a DICOM file. Raises as `identify`."""
        request = ReportRequest(text=isinstance(sent, str), content=content, format=format_)
        return await self._ask(request, sent, _document(bytes), most=_MAX_REPORT, tenant=tenant)

    async def survey(self, sent: bytes, *, metadata: bool = False, max_slices: int, tenant: str | None) -> Survey:
        """Return where the slices of a DICOM file lie, or those in a source's `metadata`.

        Raises what slice_geometry.survey_file and survey_metadata raise, and otherwise as `decode`.
        """
        request = SurveyRequest(text=False, metadata=metadata, max_slices=max_slices)
        return await self._ask(request, sent, _document(Survey.model_validate_json), most=_MAX_SURVEY, tenant=tenant)

    async def unpack(
        self, sent: str | bytes, *, max_files: int, max_bytes: int, tenant: str | None
    ) -> tuple[bytes, ...]:
        """Return the DICOM files of an archive, or a file that is none. Raises what archive.unpack raises."""

        def parse(head: bytes, payload: bytes) -> tuple[bytes, ...]:
            sizes = Unpacked.model_validate_json(head).sizes
            if len(sizes) > max_files or sum(sizes) != len(payload):
                raise ValueError("not the files of an archive")
            ends = tuple(accumulate(sizes))
            return tuple(payload[end - size : end] for end, size in zip(ends, sizes, strict=True))

        request = UnpackRequest(text=isinstance(sent, str), max_files=max_files, max_bytes=max_bytes)
        return await self._ask(request, sent, parse, most=max_bytes, tenant=tenant)

    async def _ask(
        self,
        request: Message,
        sent: str | bytes,
        parse: Callable[[bytes, bytes], Answer],
        *,
        most: int,
        tenant: str | None,
    ) -> Answer:
        """Return what `parse` makes of a worker's answer, of at most `most` bytes beside its head."""
        async with self._slots.slot(tenant):
            worker = self._waiting() or await self._spawn()
            try:
                async with asyncio.timeout(self._config.wall_seconds + _GRACE):
                    answer = await _exchange(worker, request, sent, parse, most=most)
            except TimeoutError as error:
                await asyncio.to_thread(WORKER_SPAWNER.stop, worker)
                raise _out_of_time() from error
            except (OSError, EOFError, ValueError, LookupError) as error:
                # The last two: it answered something that no worker of ours does.
                ended_by = await asyncio.to_thread(WORKER_SPAWNER.stop, worker)
                if ended_by is None:
                    raise DecoderUnavailable("the decoder processes had to be replaced") from error
                if ended_by in _OUT_OF_TIME:
                    raise _out_of_time() from error
                raise DecoderDied() from error
            except BaseException:
                self._discard(worker)
                raise
            worker.served += 1
            self._keep(worker, worn=isinstance(answer, Refusal) and answer.is_costly)
        if isinstance(answer, Refusal):
            raise answer.exception()
        return answer

    def close(self) -> None:
        """Stop all idle workers; a busy one is stopped when its request ends."""
        self._closed = True
        while self._idle:
            WORKER_SPAWNER.stop(self._idle.pop())

    def _waiting(self) -> Worker | None:
        """Return an idle worker that still lives, None where there is none."""
        while self._idle:
            worker = self._idle.pop()
            try:
                worker.connection.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                return worker
            except OSError:
                pass
            self._discard(worker)
        return None

    async def _spawn(self) -> Worker:
        spawning = asyncio.ensure_future(asyncio.to_thread(WORKER_SPAWNER.spawn, self._config))
        try:
            return await asyncio.shield(spawning)
        except RuntimeError as error:
            # No thread is left to ask from.
            raise DecoderUnavailable("the system has no thread left to start a decoder") from error
        except asyncio.CancelledError:
            spawning.add_done_callback(self._adopt)
            raise

    def _adopt(self, spawned: asyncio.Future[Worker]) -> None:
        """Keep a worker whose request was cancelled while it was started."""
        if not spawned.cancelled() and spawned.exception() is None:
            self._keep(spawned.result(), worn=False)

    def _keep(self, worker: Worker, *, worn: bool) -> None:
        if worn or self._closed or worker.served >= _LIFETIME or len(self._idle) >= self._workers:
            self._discard(worker)
        else:
            self._idle.append(worker)

    def _discard(self, worker: Worker) -> None:
        if self._closed:
            WORKER_SPAWNER.stop(worker)
        else:
            asyncio.get_running_loop().run_in_executor(None, WORKER_SPAWNER.stop, worker)


def _document(read: Callable[[bytes], Answer]) -> Callable[[bytes, bytes], Answer]:
    """Return a parser of answers that announce a document, which `read` reads."""

    def parse(head: bytes, document: bytes) -> Answer:
        Document.model_validate_json(head)
        return read(document)

    return parse


async def _exchange(
    worker: Worker, request: Message, sent: str | bytes, parse: Callable[[bytes, bytes], Answer], *, most: int
) -> Answer | Refusal:
    loop, connection = asyncio.get_running_loop(), worker.connection
    data = sent.encode(errors="replace") if isinstance(sent, str) else sent
    await loop.sock_sendall(connection, pack(request, size=len(data)))
    await loop.sock_sendall(connection, data)
    head_size, size = LENGTHS.unpack(await _exactly(worker, LENGTHS.size))
    # A worker that an image has taken over may answer anything: no length is believed.
    if head_size > MAX_HEAD or size > most:
        raise ValueError("not an answer")
    head, payload = await _exactly(worker, head_size), await _exactly(worker, size)
    if not size:
        refusal = Refusal.model_validate_json(head)
        # Raises for an error that no worker of ours sends, while the worker can still be blamed.
        refusal.exception()
        return refusal
    return parse(head, payload)


def _fits(answer: DecodedImage, *, largest: int, exactly: bool) -> bool:
    width, height = answer.size
    if exactly and not width == height == largest:
        return False
    return 0 < width <= largest and 0 < height <= largest and len(answer.pixels) == 3 * width * height


async def _exactly(worker: Worker, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    pieces = []
    while size:
        piece = await loop.sock_recv(worker.connection, size)
        if not piece:
            raise EOFError
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _out_of_time() -> ImageTooCostly:
    return ImageTooCostly(
        "decoding the image takes more time than the service grants (MEDMOE_IMAGE_CPU_SECONDS, MEDMOE_IMAGE_SECONDS)"
    )

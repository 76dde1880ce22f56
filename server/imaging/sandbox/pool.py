"""A bounded number of decoding children, and what becomes of a request whose child does not answer.

A child that died, hung, ran out of memory or was interrupted is ended; whoever comes next gets a new one.
"""

import asyncio
import contextlib
import signal
import socket

from PIL import Image

from medmoe.model.config import MedMoEConfig
from medmoe.server.errors import DecoderDied, DecoderUnavailable, ImageTooCostly
from medmoe.server.imaging.config import FRAME_SIDE, DecoderConfig, ImageLimits
from medmoe.server.imaging.image import Picture, RenderedPicture, identify
from medmoe.server.imaging.sandbox.protocol import LENGTHS, MAX_HEAD, Done, Order, Refused, pack
from medmoe.server.imaging.sandbox.spawner import NURSERY, Child
from medmoe.server.schemas.images import ImageFields, View
from medmoe.server.settings import Settings

_GRACE = 5.0
"""Seconds beyond a child's own limit until it is taken to be unable to end itself."""
_LIFETIME = 500
"""Pictures: memory that a library leaks, or what a bad picture left behind, does not stay for ever."""
_OUT_OF_TIME = (signal.SIGALRM, signal.SIGPROF)


class DecoderPool:
    """Decodes pictures for one checkpoint, `workers` at a time; children are made when they are needed."""

    def __init__(self, config: DecoderConfig, *, workers: int) -> None:
        self._config = config
        self._workers = workers
        self._slots = asyncio.Semaphore(workers)
        self._idle: list[Child] = []
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
                memory_bytes=settings.image_memory_mib * 2**20,
                cpu_seconds=settings.image_cpu_seconds,
                wall_seconds=settings.image_seconds,
            ),
            workers=settings.image_workers,
        )

    async def start(self) -> None:
        """Have a child before the first picture comes: the process that makes them takes a second to begin."""
        # Whoever brings the first picture is told.
        with contextlib.suppress(DecoderUnavailable):
            self._keep(await self._fork(), worn=False)

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the children that are waiting for work."""
        return tuple(child.pid for child in self._idle)

    async def decode(self, sent: str | bytes, fields: ImageFields) -> Picture:
        """The picture in base64 text or file bytes, at the model's size.

        Raises what medmoe.server.imaging.formats.reader raises, DecoderDied, DecoderUnavailable. Cancelling it ends
        the child.
        """
        done, pixels = await self._read(sent, fields, "model")
        return Picture(
            image=Image.frombytes("RGB", done.size, pixels),
            image_id=identify(done.size, pixels),
            sha256=done.sha256,
            width=done.width,
            height=done.height,
            rendering=done.rendering,
        )

    async def render(self, sent: str | bytes, fields: ImageFields, *, view: View) -> RenderedPicture:
        """The same picture for people. Raises what `decode` raises."""
        done, pixels = await self._read(sent, fields, view)
        return RenderedPicture(
            image=Image.frombytes("RGB", done.size, pixels),
            width=done.width,
            height=done.height,
            rendering=done.rendering,
            windowing=done.windowing,
        )

    def close(self) -> None:
        """End all children that are waiting for work; a busy one is ended when its request is."""
        self._closed = True
        while self._idle:
            NURSERY.end(self._idle.pop())

    async def _read(self, sent: str | bytes, fields: ImageFields, view: View) -> tuple[Done, bytearray]:
        async with self._slots:
            child = self._waiting() or await self._fork()
            try:
                async with asyncio.timeout(self._config.wall_seconds + _GRACE):
                    answer, pixels = await self._ask(child, sent, fields, view)
            except TimeoutError as error:
                await asyncio.to_thread(NURSERY.end, child)
                raise _out_of_time() from error
            except (OSError, EOFError, ValueError, LookupError) as error:
                # The last two: it answered something that no child of ours does.
                ended_by = await asyncio.to_thread(NURSERY.end, child)
                if ended_by in _OUT_OF_TIME:
                    raise _out_of_time() from error
                raise DecoderDied("the process that decoded the picture ended") from error
            except BaseException:
                self._discard(child)
                raise
            child.served += 1
            self._keep(child, worn=isinstance(answer, Refused) and answer.error == ImageTooCostly.__name__)
        if isinstance(answer, Refused):
            raise answer.exception()
        return answer, pixels

    def _waiting(self) -> Child | None:
        """One that still lives: a request should not pay for what happened before it."""
        while self._idle:
            child = self._idle.pop()
            try:
                child.connection.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                return child
            except OSError:
                pass
            self._discard(child)
        return None

    async def _fork(self) -> Child:
        forking = asyncio.ensure_future(asyncio.to_thread(NURSERY.fork, self._config))
        try:
            return await asyncio.shield(forking)
        except asyncio.CancelledError:
            forking.add_done_callback(self._adopt)
            raise

    def _adopt(self, forked: asyncio.Future[Child]) -> None:
        """A child whose request has gone meanwhile."""
        if not forked.cancelled() and forked.exception() is None:
            self._keep(forked.result(), worn=False)

    def _keep(self, child: Child, *, worn: bool) -> None:
        if worn or self._closed or child.served >= _LIFETIME or len(self._idle) >= self._workers:
            self._discard(child)
        else:
            self._idle.append(child)

    def _discard(self, child: Child) -> None:
        if self._closed:
            NURSERY.end(child)
        else:
            asyncio.get_running_loop().run_in_executor(None, NURSERY.end, child)

    async def _ask(
        self, child: Child, sent: str | bytes, fields: ImageFields, view: View
    ) -> tuple[Done | Refused, bytearray]:
        loop, connection = asyncio.get_running_loop(), child.connection
        data = sent.encode(errors="replace") if isinstance(sent, str) else sent
        order = Order(
            text=isinstance(sent, str), fields=ImageFields(window=fields.window, frame=fields.frame), view=view
        )
        await loop.sock_sendall(connection, pack(order, size=len(data)))
        await loop.sock_sendall(connection, data)
        head_size, size = LENGTHS.unpack(await _exactly(child, LENGTHS.size))
        # What broke a child may speak through it: believe no length.
        largest = self._config.size if view == "model" else FRAME_SIDE
        if head_size > MAX_HEAD or size > 3 * largest**2:
            raise ValueError("not an answer")
        head, pixels = await _exactly(child, head_size), await _exactly(child, size)
        answer: Done | Refused = (Done if size else Refused).model_validate_json(head)
        if isinstance(answer, Refused):
            answer.exception()
        elif not _fits(answer.size, pixels, largest=largest, exactly=view == "model"):
            raise ValueError("not a picture of the size that was asked for")
        return answer, pixels


def _fits(size: tuple[int, int], pixels: bytearray, *, largest: int, exactly: bool) -> bool:
    width, height = size
    if exactly and not width == height == largest:
        return False
    return 0 < width <= largest and 0 < height <= largest and len(pixels) == 3 * width * height


async def _exactly(child: Child, size: int) -> bytearray:
    data = bytearray(size)
    view, position = memoryview(data), 0
    while position < size:
        count = await asyncio.get_running_loop().sock_recv_into(child.connection, view[position:])
        if not count:
            raise EOFError
        position += count
    return data


def _out_of_time() -> ImageTooCostly:
    return ImageTooCostly("decoding the picture takes more time than the service grants")

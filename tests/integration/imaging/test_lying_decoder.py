"""A decoding child that an image has taken over can say what it likes: the service believes none of it."""

import asyncio
import signal
import socket
import struct

import pytest

from medmoe.model.config import MedMoEConfig
from medmoe.server.errors import DecoderDied
from medmoe.server.imaging.decoder_config import FRAME_SIDE
from medmoe.server.imaging.image import DecodedImage
from medmoe.server.imaging.sandbox.pool import DecoderPool
from medmoe.server.imaging.sandbox.protocol import LENGTHS, pack
from medmoe.server.imaging.sandbox.spawner import WORKER_SPAWNER, Worker
from medmoe.server.schemas.images import ImageFields, Rendering, View
from medmoe.server.settings import Settings
from tests.integration.conftest import image_bytes

MODEL = 32
"""Side of the tiny model's images."""


def answer(size: tuple[int, int], *, pixels: int) -> bytes:
    rendering = Rendering(format="PNG", colour="L", frame=0, frames=1, steps=(), windows=())
    done = DecodedImage(sha256="0" * 64, width=1, height=1, rendering=rendering, size=size)
    return pack(done, size=pixels) + bytes(pixels)


async def told(config: MedMoEConfig, text: bytes, *, view: View, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Size of the image that comes of a child which says `text`, whatever it is asked."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    pool = DecoderPool.of(Settings(), config)

    async def spawn() -> Worker:
        return Worker(pid=2**30, connection=ours)

    monkeypatch.setattr(pool, "_spawn", spawn)
    # The spawner started no such process; one that lies is ended by it.
    monkeypatch.setattr(WORKER_SPAWNER, "stop", lambda _worker: signal.SIGTERM)
    with theirs:
        speaking = asyncio.create_task(asyncio.to_thread(theirs.sendall, text))
        try:
            return (await pool.decode(image_bytes(), ImageFields(), view=view)).image.size
        finally:
            theirs.shutdown(socket.SHUT_RDWR)
            await asyncio.gather(speaking, return_exceptions=True)
            pool.close()


@pytest.mark.parametrize(
    ("view", "size", "pixels"),
    [
        ("frame", (FRAME_SIDE + 1, 1), 3 * (FRAME_SIDE + 1)),
        ("frame", (1, FRAME_SIDE + 1), 3 * (FRAME_SIDE + 1)),
        ("frame", (20, 20), 3 * 20 * 19),
        ("frame", (-20, -20), 3 * 20 * 20),
        ("frame", (2**40, 1), 3),
        ("model", (MODEL, MODEL - 1), 3 * MODEL * (MODEL - 1)),
        ("model", (1, 1), 3),
    ],
    ids=str,
)
async def test_a_size_that_was_not_asked_for_is_no_answer(
    config: MedMoEConfig, view: View, size: tuple[int, int], pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DecoderDied):
        await told(config, answer(size, pixels=pixels), view=view, monkeypatch=monkeypatch)


@pytest.mark.parametrize(
    "text",
    [
        LENGTHS.pack(2**31, 12),
        LENGTHS.pack(2, 3 * FRAME_SIDE**2 + 1),
        LENGTHS.pack(2, 3) + b"{}" + bytes(3),
        LENGTHS.pack(2, 0) + b"{}",
        struct.pack("!IQ", 4, 3) + b"\xff\xff\xff\xff" + bytes(3),
    ],
    ids=["endless head", "too many pixels", "no answer", "no refusal", "no text"],
)
async def test_what_is_no_answer_is_not_waited_for(
    config: MedMoEConfig, text: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DecoderDied):
        await told(config, text, view="frame", monkeypatch=monkeypatch)


@pytest.mark.parametrize(("view", "size"), [("frame", (FRAME_SIDE, 3)), ("frame", (1, 1)), ("model", (MODEL, MODEL))])
async def test_a_true_answer_is_believed(
    config: MedMoEConfig, view: View, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = answer(size, pixels=3 * size[0] * size[1])
    assert await told(config, text, view=view, monkeypatch=monkeypatch) == size

"""Clients that end their side of the connection after a request: answered while they wait, abandoned when they left."""

import asyncio
import io
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from PIL import Image

from medmoe.server.engine.base import GenerationChunk, GenerationRequest
from medmoe.server.http import body_limit
from tests.integration.conftest import until
from tests.support.service.listening import LIVE, Connection, Listen, Listening, post


def half_closed(connection: Connection, request: bytes) -> None:
    connection.writer.write(request)
    connection.writer.write_eof()


def ask(body: dict[str, Any]) -> bytes:
    return post("Content-Type: application/json", body=json.dumps(body).encode())


async def leave_half_closed(found: Listening, request: bytes) -> None:
    """Send a request, end the sending side, and close without reading."""
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", found.port))
        await loop.sock_sendall(client, request)
        client.shutdown(socket.SHUT_WR)


async def test_requests_whose_client_sends_no_more_are_answered(listening: Listen, vqa_body: dict[str, Any]) -> None:
    async with listening() as found:
        for requests, statuses in (
            (LIVE, [200]),
            (post(path="/nowhere"), [404]),
            (ask(vqa_body) + LIVE + ask(vqa_body), [200, 200, 200]),
        ):
            async with found.connected() as connection:
                half_closed(connection, requests)
                assert [(await connection.answer()).status for _ in statuses] == statuses
                assert await connection.ended()


def chunked(request: bytes, *, size: int) -> bytes:
    """The same request with a body in chunks of `size` bytes."""
    head, _, body = request.partition(b"\r\n\r\n")
    parts = (body[start : start + size] for start in range(0, len(body), size))
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"Content-Length")]
    return b"\r\n".join((*lines, b"Transfer-Encoding: chunked", b"", chunks)) + b"0\r\n\r\n"


def form(image: bytes) -> bytes:
    part = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n%b\r\n--x--\r\n' % image
    return post("Content-Type: multipart/form-data; boundary=x", path="/v1/render", body=part)


@pytest.mark.parametrize("size", [64, 300, 1000], ids=lambda kib: f"{kib} KiB")
@pytest.mark.parametrize("in_chunks", [False, True], ids=["length", "chunked"])
async def test_a_body_that_waits_for_the_application_is_read(
    listening: Listen, monkeypatch: pytest.MonkeyPatch, in_chunks: bool, size: int
) -> None:
    real = body_limit._in_time

    async def late(*given: Any) -> Any:
        await asyncio.sleep(0.3)
        return await real(*given)

    monkeypatch.setattr(body_limit, "_in_time", late)
    image = Image.effect_noise((64, 64), 90)
    file = io.BytesIO()
    image.save(file, "PNG")
    request = form(file.getvalue() + bytes(size * 1024))
    if in_chunks:
        request = chunked(request, size=16 * 1024)
    async with listening() as found, found.connected() as connection:
        half_closed(connection, request + LIVE)
        for _ in range(2):
            assert (await connection.answer(informed=True)).status == 200
        assert await connection.ended()


async def test_a_client_that_waits_long_is_told_to_continue(
    listening: Listen, vqa_body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = asyncio.Event()
    async with listening() as found, found.connected() as connection:
        tokens = found.service.engine._tokens

        async def waiting(request: GenerationRequest) -> AsyncIterator[GenerationChunk]:
            await go_on.wait()
            async for chunk in tokens(request):
                yield chunk

        monkeypatch.setattr(found.service.engine, "_tokens", waiting)
        half_closed(connection, ask(vqa_body))
        async with asyncio.timeout(60):
            assert await connection.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        go_on.set()
        assert (await connection.answer()).status == 200
        assert await connection.ended()


@pytest.mark.parametrize("stream", [False, True])
async def test_the_answer_to_a_client_that_left_is_cancelled(
    listening: Listen, vqa_body: dict[str, Any], stream: bool
) -> None:
    async with listening() as found:
        found.service.engine.delay = 3600
        await leave_half_closed(found, ask(vqa_body | {"stream": stream}))
        await until(lambda: found.service.engine.aborted == 1)
        await until(lambda: found.service.state.admission.in_flight == 0)


async def test_what_cannot_be_answered_is_closed_at_once(listening: Listen, vqa_body: dict[str, Any]) -> None:
    incomplete = post("Content-Type: application/json", length=3)
    # A client of HTTP/1.0 takes no interim response, so whether it has left cannot be told.
    old = ask(vqa_body).replace(b"HTTP/1.1", b"HTTP/1.0")
    async with listening() as found:
        found.service.engine.delay = 3600
        for request in (incomplete, LIVE[:-2], b"", old):
            async with found.connected() as connection:
                half_closed(connection, request)
                assert await connection.ended()

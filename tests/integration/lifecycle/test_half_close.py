"""Clients that end their side of the connection after a request: answered while they wait, abandoned when they left."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from medmoe.server.engine.base import GenerationChunk, GenerationRequest
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

"""What one connection can cost: bodies after a refusal, silence, unread responses, malformed heads."""

import asyncio
import http.client
import io
import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import h11
import httpx
import pytest
import requests
from PIL import Image

from medmoe.server.auth.key_file import new_key
from medmoe.server.edge.limits import ConnectionLimits
from medmoe.server.engine.base import GenerationChunk, GenerationRequest
from tests.integration.conftest import until
from tests.support.service.listening import LIVE, Connection, Listen, Listening, post

CHUNKED = "Host: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
KEY, KEY_LINE = new_key("ward-7")


async def flood(connection: Connection, block: bytes, *, most: int = 512 * 2**20) -> int:
    """Send until the service closes the connection; return how many bytes were sent."""
    sent = 0
    try:
        while sent < most:
            connection.writer.write(block)
            await asyncio.wait_for(connection.writer.drain(), 5)
            sent += len(block)
    except (ConnectionError, TimeoutError):
        return sent
    raise AssertionError("the service reads on")


@pytest.mark.parametrize("asked", ["POST /v1/vqa", "GET /health/live", "GET /nowhere"])
@pytest.mark.parametrize("chunk", [b"1\r\na\r\n" * 20_000, b"10000\r\n" + b"a" * 65_536 + b"\r\n"], ids=["tiny", "64K"])
async def test_no_more_is_read_of_a_body_whose_request_is_answered(
    listening: Listen, tmp_path: Path, asked: str, chunk: bytes
) -> None:
    (tmp_path / "keys").write_text(KEY_LINE + "\n")
    limits = ConnectionLimits(linger_bytes=2**20)
    async with listening(api_keys=tmp_path / "keys", limits=limits) as found, found.connected() as connection:
        connection.writer.write(f"{asked} HTTP/1.1\r\n{CHUNKED}".encode())
        answer = await connection.answer()
        assert answer.headers["connection"] == "close"
        assert answer.status in (200, 401, 404)
        # The kernel's buffers take the rest.
        assert await flood(connection, chunk) < 32 * 2**20


async def test_tiny_chunks_of_an_accepted_body_are_refused(listening: Listen) -> None:
    async with listening() as found, found.connected() as connection:
        connection.writer.write(f"POST /v1/vqa HTTP/1.1\r\n{CHUNKED}".encode() + b"1\r\na\r\n" * 30_000)
        assert (await connection.answer()).code == "malformed_request"
        assert await connection.ended()


async def test_chunks_of_ordinary_size_are_a_body(listening: Listen, vqa_body: dict[str, Any]) -> None:
    body = json.dumps(vqa_body | {"question": "Is there a fracture?" * 100}).encode()
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(part), part) for part in (body[i : i + 64] for i in range(0, len(body), 64))
    )
    async with listening() as found:
        answer = await found.ask(f"POST /v1/vqa HTTP/1.1\r\n{CHUNKED}".encode() + chunks + b"0\r\n\r\n")
    assert answer.status == 200


async def test_others_are_answered_while_bytes_are_parsed(listening: Listen) -> None:
    block = f"POST /v1/vqa HTTP/1.1\r\n{CHUNKED}".encode() + b"1\r\na\r\n" * 20_000
    async with listening() as found:
        floods = [asyncio.create_task(found.ask(block)) for _ in range(8)]
        worst = 0.0
        for _ in range(10):
            # Of this process alone: its time does not depend on others of a busy machine.
            begun = time.process_time()
            assert (await found.ask(LIVE)).status == 200
            worst = max(worst, time.process_time() - begun)
        await asyncio.gather(*floods, return_exceptions=True)
    # 18 s when one connection may hold the event loop.
    assert worst < 2


@pytest.mark.parametrize("sent", [b"", b"PO", b"POST /v1/vqa HTTP/1.1\r\nHost: a\r\nX: "], ids=["none", "line", "head"])
async def test_a_connection_without_a_whole_head_is_closed(listening: Listen, sent: bytes) -> None:
    async with listening(limits=ConnectionLimits(head_seconds=0.3)) as found, found.connected() as connection:
        connection.writer.write(sent)
        if sent:
            assert (await connection.answer()).code == "request_timeout"
        assert await connection.ended()


async def test_a_head_that_drips_is_not_waited_for(listening: Listen) -> None:
    async with listening(limits=ConnectionLimits(head_seconds=0.3)) as found, found.connected() as connection:
        connection.writer.write(LIVE + b"GET /health/live HTTP/1.1\r\n")
        assert (await connection.answer()).status == 200
        dripping = asyncio.create_task(drip(connection))
        assert (await connection.answer()).code == "request_timeout"
        dripping.cancel()


async def drip(connection: Connection) -> None:
    while True:
        connection.writer.write(b"x: y\r\n")
        await asyncio.sleep(0.05)


async def test_a_kept_connection_waits_longer_than_a_head(listening: Listen) -> None:
    async with listening(limits=ConnectionLimits(head_seconds=0.2)) as found, found.connected() as connection:
        for _ in range(2):
            connection.writer.write(LIVE)
            assert (await connection.answer()).status == 200
            await asyncio.sleep(0.5)
        connection.writer.write(LIVE)
        assert (await connection.answer()).status == 200


async def test_the_longest_idle_connection_makes_room(listening: Listen) -> None:
    async with listening(limits=ConnectionLimits(max_connections=4)) as found:
        opened = [await asyncio.open_connection("127.0.0.1", found.port) for _ in range(4)]
        await asyncio.sleep(0.1)
        for _ in range(3):
            assert (await found.ask(LIVE)).status == 200
        assert await asyncio.wait_for(opened[0][0].read(), 60) == b""
        opened[3][1].write(LIVE)
        assert b"200 OK" in await asyncio.wait_for(opened[3][0].readline(), 60)
        for _, writer in opened:
            writer.close()


async def unread(found: Listening, asked: bytes, *, buffer: int = 4096) -> socket.socket:
    """Send a request, and read nothing of its response."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", found.port))
    await loop.sock_sendall(client, asked)
    return client


@pytest.fixture(scope="module")
def rendering() -> bytes:
    """A request whose response, of over 1 MB, is longer than the kernel's buffers."""
    file = io.BytesIO()
    Image.merge("RGB", [Image.effect_noise((600, 600), 90) for _ in range(3)]).save(file, "JPEG", quality=40)
    parts = (
        b'--x\r\nContent-Disposition: form-data; name="view"\r\n\r\nframe\r\n'
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n%s\r\n--x--\r\n' % file.getvalue()
    )
    return post("Content-Type: multipart/form-data; boundary=x", path="/v1/render", body=parts)


def _is_whole(response: bytearray) -> bool:
    head, _, body = response.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    return length is not None and len(body) == int(length[1])


async def breaks_off(client: socket.socket, start: bytes = b"") -> bool:
    """Read to the end of a response that began with `start`; return whether its end is missing."""
    loop = asyncio.get_running_loop()
    response = bytearray(start)
    with client:
        try:
            while not _is_whole(response) and (got := await asyncio.wait_for(loop.sock_recv(client, 2**20), 60)):
                response += got
        except ConnectionError:
            pass
    return not _is_whole(response)


async def test_a_response_that_is_not_read_is_dropped(listening: Listen, rendering: bytes) -> None:
    limits = ConnectionLimits(stall_seconds=0.3)
    async with listening(limits=limits) as found:
        client = await unread(found, rendering)
        await until(lambda: found.service.state.admission.in_flight == 1)
        await until(lambda: found.service.state.admission.in_flight == 0)
        await asyncio.sleep(1)
        assert await breaks_off(client)


async def endless(request: GenerationRequest) -> AsyncIterator[GenerationChunk]:
    while True:
        # The loop must get its turn, for the edge's timer as well.
        await asyncio.sleep(0)
        yield GenerationChunk(text="no acute finding " * 200, token_ids=(1,), logprobs=(-0.1,))


async def test_a_stream_whose_client_stops_reading_frees_engine_and_slot(
    listening: Listen, vqa_body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(limits=ConnectionLimits(stall_seconds=0.3)) as found:
        engine, metrics = found.service.engine, found.service.state.metrics
        monkeypatch.setattr(engine, "_tokens", endless)
        body = json.dumps(vqa_body | {"stream": True}).encode()
        client = await unread(found, post("Content-Type: application/json", body=body))
        begun = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 1024), 60)
        assert engine.aborted == 0
        assert begun.startswith(b"HTTP/1.1 200 OK")
        await until(lambda: engine.aborted == 1)
        await until(lambda: found.service.state.admission.in_flight == 0)
        counted = b'medmoe_broken_answers_total{reason="client_disconnected",route="/v1/vqa"} 1.0'
        await until(lambda: counted in metrics.exposition())
        assert await breaks_off(client, begun)


async def test_a_response_that_is_read_slowly_arrives(listening: Listen, rendering: bytes) -> None:
    limits = ConnectionLimits(stall_seconds=0.5, stall_bytes=1024)
    async with listening(limits=limits) as found:
        client = await unread(found, rendering, buffer=2**16)
        loop = asyncio.get_running_loop()
        start = b""
        for _ in range(10):
            start += await asyncio.wait_for(loop.sock_recv(client, 20_000), 60)
            await asyncio.sleep(0.1)
        assert not await breaks_off(client, start)


async def test_unread_responses_have_a_limit_in_all(listening: Listen, rendering: bytes) -> None:
    limits = ConnectionLimits(unsent_bytes=2 * 2**20)
    async with listening(limits=limits) as found:
        clients = [await unread(found, rendering) for _ in range(3)]
        await until(lambda: b'"/v1/render",status="200"} 3.0' in found.service.state.metrics.exposition())
        await asyncio.sleep(0.5)
        assert [await breaks_off(client) for client in clients].count(True) >= 1


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /health/live HTTP/1.1\nHost: a\n\n",
        b"GET /health/live HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
        b"POST /v1/vqa HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        b"GET /health/live HTTP/2.0\r\nHost: a\r\n\r\n",
        b"GET /health/live HTTP/1.2\r\nHost: a\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: a\r\nX y: a\r\n\r\n",
        bytes.fromhex("16030100a5010000a10303") + bytes(150),
        b"garbage\r\n\r\n",
        # In one piece: it is over the limit before its end is seen, or after.
        b"GET /health/live HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    ],
    ids=["LF", "folded", "folded chunked", "2.0", "1.2", "no host", "name", "TLS", "garbage", "long", "longer"],
)
async def test_a_malformed_head_gets_the_error_body_that_every_failure_has(listening: Listen, sent: bytes) -> None:
    async with listening() as found, found.connected() as connection:
        connection.writer.write(sent)
        answer = await connection.answer()
        assert (answer.status, answer.code) == (400, "malformed_request")
        assert json.loads(answer.body)["error"]["request_id"] == answer.headers["x-request-id"]
        assert answer.headers["content-security-policy"]
        assert await connection.ended()
        metrics = (await found.service.client.get("/metrics")).text
    assert 'medmoe_requests_total{route="unmatched",status="400"} 1.0' in metrics


@pytest.mark.parametrize("pipelined", [False, True])
async def test_a_malformed_head_behind_a_request_takes_no_response_away(listening: Listen, pipelined: bool) -> None:
    async with listening() as found, found.connected() as connection:
        connection.writer.write(LIVE + b"garbage\r\n\r\n" if pipelined else LIVE)
        assert (await connection.answer()).status == 200
        if not pipelined:
            connection.writer.write(b"garbage\r\n\r\n")
        answer = await connection.answer()
        assert (answer.status, answer.code) == (400, "malformed_request")
        assert await connection.ended()


CHUNKS = f"POST /v1/vqa HTTP/1.1\r\n{CHUNKED}".encode()


@pytest.mark.parametrize(
    "end",
    [
        b"0\r\n\n",
        b"0\r\nX: a\n\n",
        b"0\r\nX: a\n\r\n",
        b"0\r\nX: a\r\n\n",
        b"0\r\nX: a\r\n b\r\n\r\n",
        b"2;a\rb\r\n{}\r\n0\r\n\r\n",
        b"0;\r\r\n\r\n",
    ],
    ids=["LF", "LF LF", "LF CRLF", "CRLF LF", "folded", "CR", "CR of the last"],
)
@pytest.mark.parametrize("size", [1, 1000])
async def test_what_ends_a_chunked_body_for_some_is_refused(listening: Listen, end: bytes, size: int) -> None:
    async with listening() as found, found.connected() as connection:
        sent = CHUNKS + end + LIVE
        for place in range(0, len(sent), size):
            connection.writer.write(sent[place : place + size])
            await asyncio.sleep(0)
        assert (await connection.answer()).code == "malformed_request"
        assert await connection.ended()


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
async def test_a_chunked_body_with_extensions_and_trailers_is_read(
    listening: Listen, vqa_body: dict[str, Any], size: int
) -> None:
    body = json.dumps(vqa_body).encode()
    chunks = b"%x;a=b\r\n%s\r\n0;a\r\nX: a\r\nY: b\r\n\r\n" % (len(body), body)
    async with listening() as found, found.connected() as connection:
        for place in range(0, len(chunks), size):
            connection.writer.write((b"" if place else CHUNKS) + chunks[place : place + size])
            await asyncio.sleep(0)
        assert (await connection.answer()).status == 200
        connection.writer.write(LIVE)
        assert (await connection.answer()).status == 200


@pytest.mark.parametrize(
    "before",
    [
        [b"POST /health/live HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n", b"x" * 9 + CHUNKS],
        [CHUNKS[:-1], b"\n"],
    ],
    ids=["behind a body", "behind a part of a head"],
)
async def test_tiny_chunks_are_refused_before_many_are_parsed(
    listening: Listen, before: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = 0
    next_event = h11.Connection.next_event

    def counted(self: h11.Connection) -> Any:
        nonlocal parsed
        parsed += 1
        return next_event(self)

    monkeypatch.setattr(h11.Connection, "next_event", counted)
    async with listening() as found, found.connected() as connection:
        *first, last = before
        for part in first:
            connection.writer.write(part)
            await connection.writer.drain()
            await asyncio.sleep(0.2)
        connection.writer.write(last + b"1\r\na\r\n" * 40_000)
        answer = await connection.answer()
        if answer.status == 405:
            answer = await connection.answer()
        assert answer.code == "malformed_request"
        assert await connection.ended()
    # 16 KiB of heads; 40,000 where they are counted once all have been parsed.
    assert parsed < 6000


@pytest.mark.parametrize("path", ["/health/live", "/v1/vqa", "/nowhere"])
async def test_a_body_that_was_not_asked_for_does_not_swallow_the_next_request(listening: Listen, path: str) -> None:
    async with listening() as found, found.connected() as connection:
        connection.writer.write(post("Expect: 100-continue", path=path, body=b"", length=40))
        answer = await connection.answer()
        assert answer.status in (404, 405, 415)
        assert answer.headers["connection"] == "close"
        connection.writer.write(LIVE)
        assert await connection.ended()


async def test_a_body_that_was_sent_in_spite_of_an_expectation_keeps_the_connection(listening: Listen) -> None:
    async with listening() as found, found.connected() as connection:
        connection.writer.write(post("Expect: 100-continue", path="/health/live") + LIVE)
        assert [(await connection.answer()).status for _ in range(2)] == [405, 200]


async def test_a_kept_connection_without_a_request_is_closed_without_a_response(listening: Listen) -> None:
    async with listening(limits=ConnectionLimits(head_seconds=1)) as found, found.connected() as connection:
        connection.writer.write(post(path="/health/live", body=b"", length=9))
        assert (await connection.answer()).status == 405
        # What is left of the body, which makes the connection idle.
        connection.writer.write(bytes(9))
        assert await connection.ended()


async def test_a_length_given_twice_closes_the_connection(listening: Listen) -> None:
    both = b"POST /health/live HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with listening() as found, found.connected() as connection:
        connection.writer.write(both + b"0\r\n\r\n" + LIVE)
        assert (await connection.answer()).headers["connection"] == "close"
        assert await connection.ended()


@pytest.mark.parametrize("target", ["http://a/health/live", "HTTP://a:8000/health/live?x=1"])
async def test_a_target_in_absolute_form_is_taken(listening: Listen, target: str) -> None:
    async with listening() as found:
        assert (await found.ask(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())).status == 200


async def test_a_client_that_leaves_after_more_bytes_is_noticed(listening: Listen, vqa_body: dict[str, Any]) -> None:
    async with listening() as found:
        found.service.engine.delay = 3600
        for aborted, more in enumerate((b"\r\n", LIVE), start=1):
            started = found.service.engine.started
            async with found.connected() as connection:
                body = json.dumps(vqa_body).encode()
                connection.writer.write(post("Content-Type: application/json", body=body))
                await until(lambda started=started: found.service.engine.started > started)  # type: ignore[misc]
                connection.writer.write(more)
                await connection.writer.drain()
            await until(lambda: found.service.state.admission.in_flight == 0)
            assert found.service.engine.aborted == aborted


BODY = 40 * 2**20
"""Bytes, more than the service reads here and than the kernel's buffers hold."""


def by_http_client(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/v1/vqa", body=bytes(BODY), headers={"Content-Type": "application/json"})
    return connection.getresponse().status


def by_requests(port: int) -> int:
    return requests.post(f"http://127.0.0.1:{port}/v1/vqa", data=bytes(BODY), timeout=60).status_code


def by_httpx(port: int) -> int:
    return httpx.post(f"http://127.0.0.1:{port}/v1/vqa", content=bytes(BODY), timeout=60).status_code


def by_curl(port: int) -> int:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("there is no curl")
    command = [curl, "-s", "-o", "/dev/null", "-w", "%{http_code}", "--data-binary", "@-", "-H", "Expect:"]
    done = subprocess.run([*command, f"http://127.0.0.1:{port}/v1/vqa"], input=bytes(BODY), capture_output=True)
    return int(done.stdout)


@pytest.mark.parametrize("send", [by_http_client, by_requests, by_httpx, by_curl])
async def test_a_client_that_is_still_sending_reads_the_refusal(listening: Listen, send: Callable[[int], int]) -> None:
    async with listening(max_body_bytes=2**20) as found:
        assert await asyncio.to_thread(send, found.port) == 413

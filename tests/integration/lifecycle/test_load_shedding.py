"""Refusals before the framework: over real sockets, and word for word what the routes say."""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from uvicorn.server import ServerState

from medmoe.server.__main__ import server_config
from medmoe.server.auth.key_file import new_key
from medmoe.server.edge.connection import EdgeProtocol
from medmoe.server.edge.limits import ConnectionLimits
from medmoe.server.edge.load_shedding import LoadShedder
from medmoe.server.observability.json_log import JsonFormatter
from tests.integration.conftest import SECRET, Service, until
from tests.support.service.listening import Listen, Listening, post

WARD, WARD_LINE = new_key("ward-7")
LARGE = 8 * 2**20
COSTLY = ("/v1/vqa", "/v1/classify", "/v1/chat/completions", "/v1/render")
LONG_WAY = "Expect: nothing"
"""With such a header a request is not plain, and refused by its route."""


@pytest.fixture
def full(listening: Listen, vqa_body: dict[str, Any]) -> Listen:
    """Likewise, with the only place taken."""

    @asynccontextmanager
    async def factory(**settings: Any) -> AsyncIterator[Listening]:
        async with listening(max_concurrent=1, max_queued=0, **settings) as found:
            found.service.engine.delay = 3600
            headers = {"Authorization": f"Bearer {WARD}"}
            inside = asyncio.create_task(found.service.client.post("/v1/vqa", json=vqa_body, headers=headers))
            await until(lambda: found.service.state.admission.is_full)
            try:
                yield found
            finally:
                inside.cancel()
                await asyncio.gather(inside, return_exceptions=True)

    return factory


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"{WARD_LINE}\n")
    return path


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    """The requests' lines so far."""
    caplog.set_level(logging.INFO, logger="medmoe")
    return lambda: [
        json.loads(JsonFormatter().format(record)) for record in caplog.records if record.name == "medmoe.request"
    ]


async def series(service: Service) -> dict[tuple[str, str], float]:
    """By name and labels; of refusals only what they count."""
    text = (await service.client.get("/metrics")).text
    return {
        (sample.name, str(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name in ("medmoe_requests_total", "medmoe_rejections_total", "medmoe_request_duration_seconds_count")
        and "/metrics" not in str(sample.labels)
    }


@pytest.mark.parametrize("path", COSTLY)
@pytest.mark.parametrize("headers", [(), ("Connection: close",)], ids=["kept", "closed"])
async def test_both_ways_of_refusing_are_one(
    full: Listen, lines: Callable[[], list[dict[str, Any]]], path: str, headers: tuple[str, ...]
) -> None:
    async with full() as listening:
        counted = [await series(listening.service)]
        answers = []
        for more in ((), (LONG_WAY,)):
            answers.append(await listening.ask(post(*headers, *more, path=path)))
            counted.append(await series(listening.service))
    early, routed = answers
    assert early.common() == routed.common()
    assert (early.status, early.code) == (429, "overloaded")
    steps = [
        {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)}
        for before, after in pairwise(counted)
    ]
    assert steps[0] == steps[1]
    assert len(steps[0]) == 3
    told = [line for line in lines() if line["route"] == path and line["status"] == 429]
    for line, answer in zip(told, answers, strict=True):
        assert line.pop("request_id") == answer.headers["x-request-id"]
        assert line.pop("trace_id") == answer.headers["traceresponse"].split("-")[1]
        assert 0 < line.pop("duration_seconds") < 10
        del line["time"]
    assert told[0] == told[1]


async def test_only_what_is_not_plain_reaches_the_framework(full: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0
    async with full() as listening:
        stack = listening.service.app.middleware_stack
        assert stack is not None

        async def counted(*arguments: Any) -> None:
            nonlocal asked
            asked += 1
            await stack(*arguments)

        monkeypatch.setattr(listening.service.app, "middleware_stack", counted)
        for path in COSTLY:
            assert (await listening.ask(post(path=path))).status == 429
        assert asked == 0
        assert (await listening.ask(post(LONG_WAY))).status == 429
        assert asked == 1


async def test_the_callers_ids_are_kept(full: Listen) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    async with full() as listening:
        answer = await listening.ask(post("X-Request-Id: r-1", f"traceparent: 00-{trace}-00f067aa0ba902b7-01"))
        other = await listening.ask(post(f"X-Request-Id: {SECRET} {SECRET}", f"X-Other: {SECRET}"))
    assert answer.headers["x-request-id"] == json.loads(answer.body)["error"]["request_id"] == "r-1"
    assert answer.headers["traceresponse"].split("-")[1] == trace
    assert SECRET not in str(other)


@pytest.mark.parametrize("phase", ["starting", "restarting", "draining", "failed"])
async def test_whoever_cannot_be_answered_at_all_is_told_so_alike(listening: Listen, phase: str) -> None:
    async with listening() as found:
        found.service.state.readiness.phase = type(found.service.state.readiness.phase)(phase)
        early, routed = [await found.ask(post(*more)) for more in ((), (LONG_WAY,))]
    assert early.common() == routed.common()
    assert early.status == 503


async def test_who_is_asking_comes_first(full: Listen, keys: Path, lines: Callable[[], list[dict[str, Any]]]) -> None:
    async with full(api_keys=keys) as listening:
        for headers in ((), ("Authorization: Bearer mm-wrong",), (f"Authorization: Basic {WARD}",)):
            early, routed = [await listening.ask(post(*headers, *more)) for more in ((), (LONG_WAY,))]
            assert early.common() == routed.common()
            assert (early.status, early.headers["www-authenticate"]) == (401, "Bearer")
        for scheme in ("Bearer", "bearer", "BEARER "):
            assert (await listening.ask(post(f"Authorization: {scheme} {WARD}"))).status == 429
    tenants = [line["tenant"] for line in lines() if line["status"] in (401, 429)]
    assert tenants[:6] == [None] * 6
    assert len(set(tenants[6:])) == 1
    assert tenants[6] is not None


async def test_a_refusal_counts_against_the_callers_rate(full: Listen, keys: Path) -> None:
    # One permit has been spent on the question that is inside.
    async with full(api_keys=keys, requests_per_minute=3) as listening:
        asked = post(f"Authorization: Bearer {WARD}")
        assert [(await listening.ask(asked)).code for _ in range(3)] == ["overloaded", "overloaded", "rate_limited"]
        early, routed = [
            await listening.ask(post(f"Authorization: Bearer {WARD}", *more)) for more in ((), (LONG_WAY,))
        ]
        assert early.common() == routed.common()


async def test_nobody_pays_twice_where_there_is_room(listening: Listen, keys: Path) -> None:
    async with listening(api_keys=keys, requests_per_minute=2) as found:
        codes = [(await found.ask(post(f"Authorization: Bearer {WARD}"))).code for _ in range(3)]
    assert codes == ["unsupported_content_type", "unsupported_content_type", "rate_limited"]


@pytest.mark.parametrize(
    ("length", "status"), [("99999999999", 413), ("x", 400), ("-1", 400), ("5, 6", 400), ("9" * 30, 400)]
)
async def test_a_senseless_length_is_what_it_was(full: Listen, length: str, status: int) -> None:
    data = b"POST /v1/vqa HTTP/1.1\r\nHost: a\r\nContent-Length: " + length.encode() + b"\r\n\r\n"
    async with full() as listening, listening.connected() as connection:
        connection.writer.write(data)
        async with asyncio.timeout(60):
            assert int((await connection.reader.readline()).split()[1]) == status


@pytest.mark.parametrize("headers", [(), ("Connection: close",)], ids=["kept", "closed"])
async def test_whoever_is_in_the_middle_of_sending_can_read_the_refusal(full: Listen, headers: tuple[str, ...]) -> None:
    body = bytes(LARGE)
    async with full() as listening, listening.connected() as connection:
        connection.writer.write(post(*headers, body=body[:1000], length=LARGE))
        await asyncio.sleep(0.1)
        # Answered before the rest was sent; all of it may be sent before anything is read.
        connection.writer.write(body[1000:])
        await connection.writer.drain()
        await asyncio.sleep(0.1)
        answer = await connection.answer()
        assert (answer.status, answer.code) == (429, "overloaded")
        if headers:
            assert await connection.ended()
        else:
            connection.writer.write(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await connection.answer()).status == 200


async def test_requests_on_one_connection_stay_apart(full: Listen) -> None:
    live = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"
    many = post(body=b"GET ") + live + post() * 3 + post(LONG_WAY) + live + post(body=b"")
    expected = [429, 200, 429, 429, 429, 429, 200, 429]
    async with full() as listening:
        for size in (len(many), 7, 1):
            async with listening.connected() as connection:
                for place in range(0, len(many), size):
                    connection.writer.write(many[place : place + size])
                    await asyncio.sleep(0)
                assert [(await connection.answer()).status for _ in expected] == expected


async def test_a_client_that_reads_nothing_does_not_fill_the_memory(full: Listen) -> None:
    async with full() as listening:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, ("127.0.0.1", listening.port))
            with suppress(TimeoutError):
                # Their answers would be 70 MB.
                async with asyncio.timeout(5):
                    await loop.sock_sendall(client, post() * 100_000)
            answered = [-1, await refusals(listening.service)]
            while answered[-1] > answered[-2]:
                await asyncio.sleep(1)
                answered.append(await refusals(listening.service))
    # As many as the kernel's buffers take.
    assert answered[-1] < 50_000


class _Pipe(asyncio.Transport):
    """To a client that is slow to read."""

    def __init__(self) -> None:
        super().__init__({"sockname": ("127.0.0.1", 1), "peername": ("127.0.0.1", 2)})
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    # On a machine that stands still meanwhile, a connection gives others their turn.
    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def abort(self) -> None:
        pass


async def test_nothing_more_is_written_to_who_does_not_read(full: Listen) -> None:
    async with full() as listening:
        config = server_config(listening.service.app, listening.service.state.settings)
        config.load()
        door, pipe = (
            EdgeProtocol.of(LoadShedder(listening.service.state, paths=COSTLY))(config, ServerState(), {}),
            _Pipe(),
        )
        door.connection_made(pipe)
        door.pause_writing()
        door.data_received(post())
        await asyncio.sleep(0.1)
        assert pipe.written == b""
        door.resume_writing()
        await until(lambda: pipe.written.startswith(b"HTTP/1.1 429 "))


async def refusals(service: Service) -> float:
    return sum(value for (name, _), value in (await series(service)).items() if name == "medmoe_rejections_total")


async def test_a_body_that_does_not_come_is_not_waited_for(full: Listen) -> None:
    async with full(patience=1) as listening:
        for headers in ((), ("Connection: close",)):
            async with listening.connected() as connection:
                connection.writer.write(post(*headers, length=LARGE))
                assert (await connection.answer()).status == 429
                assert await connection.ended()


async def test_whoever_is_let_in_is_not_timed_by_an_earlier_refusal(full: Listen) -> None:
    async with full(patience=1) as listening, listening.connected() as connection:
        connection.writer.write(post() + b"GET /health/live HTTP/1.1\r\nHost: a\r\n")
        assert (await connection.answer()).status == 429
        await asyncio.sleep(1.5)
        connection.writer.write(b"\r\n")
        assert (await connection.answer()).status == 200


async def test_whoever_is_refused_is_not_the_longest_idle(full: Listen) -> None:
    async with full(limits=ConnectionLimits(max_connections=3)) as listening, listening.connected() as asking:
        asking.writer.write(post())
        assert (await asking.answer()).status == 429
        silent = [await asyncio.open_connection("127.0.0.1", listening.port) for _ in range(2)]
        await asyncio.sleep(0.1)
        for _ in range(2):
            asking.writer.write(post())
            assert (await asking.answer()).status == 429
            # Takes the place of one that is silent.
            assert (await listening.ask(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")).status == 200
        asking.writer.write(post())
        assert (await asking.answer()).status == 429
        for _, writer in silent:
            writer.close()


async def test_there_is_room_again(full: Listen, vqa_body: dict[str, Any]) -> None:
    body = json.dumps(vqa_body).encode()
    async with full() as listening, listening.connected() as connection:
        connection.writer.write(post("Content-Type: application/json", body=body))
        assert (await connection.answer()).status == 429
        listening.service.engine.delay = 0
        listening.service.state.admission.cut_short()
        await until(lambda: not listening.service.state.admission.is_full)
        connection.writer.write(post("Content-Type: application/json", body=body))
        assert (await connection.answer()).status == 200

"""What clients send is never found in logs, metrics, traces, error bodies, headers or files, however a request ends."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import PngImagePlugin

from medmoe.server.engine.base import EngineDeadError, GenerationError
from medmoe.server.imaging.fetch.addresses import Endpoint
from medmoe.server.observability.json_log import JsonFormatter
from tests.integration.conftest import Service, ServiceFactory, until
from tests.support.images.image_host import Answer, endless, image_host, raw, whole
from tests.support.images.tagged_images import png
from tests.support.service.canaries import CANARY, Probe, canary, probes, valid
from tests.support.service.otlp_collector import Collector, collecting

_opened: list[str] | None = None


def _watch_files(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _opened is not None:
        path, mode, flags = arguments
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes or (isinstance(mode, str) and set(mode) & set("wax+")):
            _opened.append(str(path))


@pytest.fixture(scope="module", autouse=True)
def _hooked() -> None:
    """A hook of the interpreter cannot be taken back; it does nothing between tests."""
    sys.addaudithook(_watch_files)


@dataclass(kw_only=True, slots=True)
class Watched:
    """A service, and everything that comes out of it."""

    service: Service
    collector: Collector
    log: list[logging.LogRecord]
    seen: dict[int, int] = field(default_factory=dict)
    """Requests by status."""
    written: Sequence[str] = ()

    async def send(self, probe: Probe) -> httpx.Response:
        response = await self.service.client.request(
            probe.method, probe.path, content=probe.content, headers=probe.headers
        )
        self.seen[response.status_code] = self.seen.get(response.status_code, 0) + 1
        assert CANARY not in str(response.headers).lower(), probe.name
        # Only answers to questions may say what was asked: labels come back.
        if response.status_code >= 400 or probe.method == "GET":
            assert CANARY not in response.text.lower(), (probe.name, response.text)
        if response.status_code >= 400:
            assert set(response.json()) == {"error"}, probe.name
        return response

    def statuses(self) -> set[int]:
        return {line["status"] for line in map(json.loads, self.lines()) if line["message"] == "request"}

    def lines(self) -> list[str]:
        return [JsonFormatter().format(record) for record in self.log]


class _Everything(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def all_loggers(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Everything]:
    """Every logger of the process at debug, those that were silenced too."""
    handler, root = _Everything(), logging.getLogger()
    level = root.level
    with monkeypatch.context() as patch:
        for logger in [one for one in logging.root.manager.loggerDict.values() if isinstance(one, logging.Logger)]:
            patch.setattr(logger, "level", logging.NOTSET)
            patch.setattr(logger, "propagate", True)
            patch.setattr(logger, "disabled", False)
        # Not a plain assignment: loggers remember what they were told, and this makes all of them ask again.
        root.setLevel(logging.DEBUG)
        root.addHandler(handler)
        yield handler
        root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture
def watching(
    running: ServiceFactory,
    all_loggers: _Everything,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Any:
    """`async with watching(setting=...) as watched:`; everything is looked through on leaving."""

    @asynccontextmanager
    async def factory(**settings: Any) -> AsyncIterator[Watched]:
        global _opened
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        with collecting() as collector:
            async with running(otlp_endpoint=collector.endpoint, **settings) as service:
                watched = Watched(service=service, collector=collector, log=all_loggers.records)
                _opened = []
                try:
                    yield watched
                finally:
                    watched.written, _opened = _opened, None
                pages = [
                    (await service.client.get(path)).text for path in ("/metrics", "/v1/router/stats", "/openapi.json")
                ]
        _look_through(watched, pages)
        out, err = capfd.readouterr()
        assert CANARY not in (out + err).lower()
        assert not _files(tmp_path)

    return factory


def _files(directory: Path) -> list[Path]:
    return list(directory.rglob("*"))


def _look_through(watched: Watched, pages: Sequence[str]) -> None:
    assert any(record.name == "medmoe.request" for record in watched.log)
    for record in watched.log:
        assert CANARY not in JsonFormatter().format(record).lower(), record.name
        # Libraries say what they like at debug (Pillow the value of every tag); the formatter withholds their texts.
        if record.name.startswith(("medmoe", "uvicorn")):
            assert CANARY not in f"{record.__dict__} {record.getMessage()}".lower(), record.name
    for page in pages:
        assert CANARY not in page.lower()
    assert watched.collector.spans(), "no span arrived, so none was looked at"
    for sent in watched.collector.bodies:
        assert CANARY.encode() not in sent.lower()
    written = [
        path for path in watched.written if not path.endswith((".pyc", os.devnull)) and "__pycache__" not in path
    ]
    assert not written, "a request was written to a file"


async def document(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = (await service.client.get("/openapi.json")).json()
    return found


async def test_answers_and_refusals(watching: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The audit trail included: the one file that requests are written to."""
    key = tmp_path_factory.mktemp("key") / "key"
    key.write_text("3d" * 32)
    trail = tmp_path_factory.mktemp("trail")
    async with watching(audit_dir=trail, audit_key=key) as watched:
        described = await document(watched.service)
        for probe in (*probes(described), *valid(described), *valid(described, stream=True)):
            await watched.send(probe)
    answered = sum(count for status, count in watched.seen.items() if status == 200)
    assert answered > 30
    assert {400, 404, 405, 415, 422} <= watched.seen.keys()
    assert not [status for status in watched.seen if status >= 500]
    recorded = (trail / "audit-000001.jsonl").read_text()
    assert recorded.count('"event":"request"') > 100
    assert CANARY not in recorded.lower()


async def test_large_bodies_and_a_full_house(watching: Any) -> None:
    async with watching(max_body_bytes=2048, max_series_bytes=2**16, max_concurrent=1, max_queued=0) as watched:
        service = watched.service
        for probe in valid(await document(service)):
            large = Probe(**{name: getattr(probe, name) for name in ("name", "method", "path", "headers")}, content=(
                canary("large").encode() * 8000
            ))  # fmt: skip
            assert (await watched.send(large)).status_code == 413
            service.engine.delay = 3600
            inside = asyncio.create_task(watched.send(probe))
            await until(lambda asked=inside: service.state.admission.in_flight > 0 or asked.done())
            assert not inside.done(), (probe.name, inside.result().text)
            assert (await watched.send(probe)).status_code == 429
            inside.cancel()
            await asyncio.gather(inside, return_exceptions=True)
            # The service notices that the client has left, and frees the slot, a little later.
            await until(lambda: service.state.admission.in_flight == 0)
            service.engine.delay = 0


@pytest.mark.parametrize("failure", [RuntimeError, GenerationError, MemoryError, KeyError])
async def test_failures_in_the_engine(watching: Any, failure: type[Exception]) -> None:
    async with watching() as watched:
        service = watched.service
        described = await document(service)
        for probe in (*valid(described), *valid(described, stream=True)):
            service.engine.fail_next = failure(canary("exception"))
            # The first event of a series comes before the engine works.
            begun = probe.path == "/v1/series" and b'"stream": true' in probe.content
            assert (await watched.send(probe)).status_code == (200 if begun else 500)


async def test_failures_in_the_middle_of_a_stream(watching: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with watching() as watched:
        engine = watched.service.engine
        real = engine.log_probabilities

        def fail_later(image_id: str, ids: Any) -> Any:
            if engine.last_request is not None and len(ids) > len(engine.last_request.prompt_ids):
                raise RuntimeError(canary("exception"))
            return real(image_id, ids)

        described = await document(watched.service)
        monkeypatch.setattr(engine, "log_probabilities", fail_later)
        for probe in valid(described, stream=True):
            response = await watched.send(probe)
            assert "internal_error" in response.text
            assert CANARY not in response.text


async def test_deadlines(watching: Any) -> None:
    async with watching(timeout_ms=200) as watched:
        described = await document(watched.service)
        watched.service.engine.delay = 3600
        for probe in valid(described):
            assert (await watched.send(probe)).status_code == 504


async def test_clients_that_leave(watching: Any) -> None:
    async with watching() as watched:
        service = watched.service
        described = await document(service)
        service.engine.delay = 3600
        for probe in (*valid(described), *valid(described, stream=True)):
            for leave_early in (False, True):
                await _leave(service, probe, early=leave_early)
        assert service.state.admission.in_flight == 0
        assert 499 in watched.statuses()


async def test_images_by_url(watching: Any) -> None:
    name, secret = f"{canary('host')}.example.org", canary("host")
    url = f"https://{name}/{canary('path')}.png?{canary('query')}={canary('value')}"
    image = png(canary("png"))

    async def no_address(_: str) -> tuple[Endpoint, ...]:
        raise socket.gaierror(socket.EAI_NONAME, secret)

    async def private(_: str) -> tuple[Endpoint, ...]:
        return ((ip_address("10.0.0.1"), 443),)

    cases: list[tuple[int, Answer, dict[str, Any]]] = [
        (200, whole(image), {}),
        (200, whole(image, content_type=secret, set_cookie=f"{secret}={secret}"), {}),
        (415, whole(secret.encode()), {}),
        (422, whole(secret.encode(), status=f"404 {secret}"), {}),
        (422, whole(b"", status="302 Found", location=url), {}),
        (422, whole(image, content_encoding=secret), {}),
        (422, raw(f"{secret}\r\n\r\n".encode()), {}),
        (422, endless(f"HTTP/1.1 200 {secret}\r\n".encode()), {"seconds": 0.1}),
        (422, whole(image), {"resolve": no_address}),
        (422, whole(image), {"tls": ssl.create_default_context()}),
        (413, whole(secret.encode() * 100), {"max_bytes": 1000}),
        (400, whole(image), {"resolve": private}),
        (400, whole(image), {"hosts": {"other.example.org"}}),
    ]
    async with image_host(whole(image), certified=name) as host, watching(image_url_hosts=name) as watched:
        described = await document(watched.service)
        for status, answer, changes in cases:
            host.answer = answer
            watched.service.state.active.images.fetcher = host.fetcher(**{"hosts": {name}} | changes)
            sent = (*valid(described, image=url), *valid(described, stream=True, image=url))
            for probe in sent:
                response = await watched.send(probe)
                assert response.status_code == status, (probe.name, response.text)
                assert name not in response.text
        watched.service.state.active.images.fetcher = host.fetcher(hosts={name})
        host.answer = endless(b"HTTP/1.1 200 OK\r\n")
        for probe in sent:
            before = len(host.heads)
            await _leave(watched.service, probe, once=lambda before=before: len(host.heads) > before)
        assert 499 in watched.statuses()


async def _leave(
    service: Service, probe: Probe, *, early: bool = False, once: Callable[[], bool] | None = None
) -> None:
    """Half of the body and gone, or gone `once` something happens, by default that the engine works."""
    working = once or (lambda: service.engine.started > service.engine.finished + service.engine.aborted)
    request = httpx.Request(probe.method, f"http://service{probe.path}", content=probe.content, headers=probe.headers)
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": probe.method,
        "scheme": "http",
        "path": request.url.path,
        "raw_path": request.url.raw_path,
        "query_string": request.url.query,
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "server": ("service", 80),
        "client": ("127.0.0.1", 1),
    }
    body = probe.content[: len(probe.content) // 2] if early else probe.content
    messages = [{"type": "http.request", "body": body, "more_body": early}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        if not early:
            await until(working)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        assert CANARY.encode() not in message.get("body", b"").lower()

    async with asyncio.timeout(60):
        await service.app(scope, receive, send)


async def test_an_engine_that_dies(watching: Any) -> None:
    async with watching() as watched:
        described = await document(watched.service)
        for probe in valid(described):
            watched.service.engine.fail_next = EngineDeadError(canary("exception"))
            assert (await watched.send(probe)).status_code == 503


async def test_the_keys_of_a_service_with_keys(watching: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"{canary('tenant')[:60]} {'0' * 64}\n")
    async with watching(api_keys=keys) as watched:
        for path in ("/v1/vqa", "/v1/models", "/metrics", "/openapi.json"):
            probe = Probe(name=path, method="GET", path=path, headers={"Authorization": f"Bearer {canary('key')}"})
            assert (await watched.send(probe)).status_code in (401, 405)


def test_a_canary_would_be_found(all_loggers: _Everything, tmp_path: Path) -> None:
    """The nets have no holes: a library's debug line, an exception's text, a file."""
    global _opened
    logging.getLogger(PngImagePlugin.__name__).debug("chunk %s", canary("log"))
    assert any(CANARY in record.getMessage() for record in all_loggers.records)
    _opened = []
    (tmp_path / "a").write_text(canary("file"))
    found, _opened = _opened, None
    assert found == [str(tmp_path / "a")]


@pytest.mark.timeout(600)
def test_the_real_process_at_its_most_talkative(checkpoint: Path, tmp_path: Path) -> None:
    """Over real sockets, what never becomes a request included; nothing on stdout, stderr, or in a temporary file."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = os.environ | {
        "MEDMOE_MODEL": str(checkpoint),
        "MEDMOE_ENGINE": "fake",
        "MEDMOE_PORT": "0",
        "MEDMOE_LOG_LEVEL": "debug",
        # Its address is not public, on every machine and without a network.
        "MEDMOE_IMAGE_URL_HOSTS": "localhost",
        "PYTHONDEVMODE": "1",
        "TMPDIR": str(temporary),
    }
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        process = subprocess.Popen([sys.executable, "-m", "medmoe.server"], env=environment, stdout=out, stderr=err)
    try:
        port = _port(tmp_path / "err", process)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            described = client.get("/openapi.json").json()
            by_url = valid(described, image=f"https://localhost/{canary('path')}?{canary('query')}")
            sent = [*probes(described), *valid(described), *valid(described, stream=True), *by_url]
            for probe in sent:
                response = client.request(probe.method, probe.path, content=probe.content, headers=probe.headers)
                assert response.status_code < 500, probe.name
                assert response.status_code < 400 or CANARY not in response.text.lower(), probe.name
        for raw in _no_requests():
            # A server may close on garbage before it has read the last of it.
            with (
                socket.create_connection(("127.0.0.1", port), timeout=60) as connection,
                contextlib.suppress(ConnectionError),
            ):
                connection.sendall(raw)
                connection.shutdown(socket.SHUT_WR)
                while answer := connection.recv(65536):
                    assert CANARY.encode() not in answer.lower()
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.wait()
    written = (tmp_path / "out").read_bytes() + (tmp_path / "err").read_bytes()
    assert written.count(b'"message": "request"') >= len(sent)
    assert CANARY.encode() not in written.lower()
    assert not _files(temporary)


def _no_requests() -> Iterator[bytes]:
    """What a server answers or drops before any of our code sees it."""
    text = canary("raw").encode()
    yield text
    yield b"GET /" + text + b" HTTP/9.9\r\n\r\n"
    yield b"GET /health/live HTTP/1.1\r\n" + text + b"\r\n\r\n"
    yield b"GET /health/live HTTP/1.1\r\nHost: a\r\nX-" + text + b": \x00\x01\r\n\r\n"
    yield b"GET /" + text * 10_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    yield b"POST /v1/vqa HTTP/1.1\r\nHost: a\r\nContent-Length: " + text + b"\r\n\r\n"
    yield b"POST /v1/vqa HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n{" + text
    yield b"POST /v1/vqa HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + text + b"\r\n"
    yield b"GET /health/live HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade, " + text + b"\r\n\r\n"


def _port(log: Path, process: "subprocess.Popen[bytes]") -> int:
    """Waits until the service is ready."""
    port, ready = None, False
    while process.poll() is None:
        for line in log.read_text().splitlines():
            message = json.loads(line)["message"] if line.startswith("{") and line.endswith("}") else ""
            ready = ready or message == "ready"
            if "running on" in message:
                address = next(word for word in message.split() if word.startswith("http"))
                port = httpx.URL(address).port
        if port is not None and ready:
            return port
    raise AssertionError(log.read_text())

"""Fetching over real TLS, from a host on this machine."""

import asyncio
import logging
import socket
import ssl
from ipaddress import ip_address

import pytest

from medmoe.server.errors import (
    ImageURLNotAllowed,
    ImageURLTimeout,
    ImageURLTooLarge,
    ImageURLUnreachable,
    Overloaded,
)
from medmoe.server.imaging.fetch.addresses import Endpoint, is_public
from medmoe.server.imaging.fetch.fetcher import ImageFetcher
from medmoe.server.settings import Settings
from tests.support.images.image_host import HERE, NAME, Answer, ImageHost, endless, flood, image_host, raw, whole

SECRET = "q7secret"
URL = f"https://{NAME}/{SECRET}.png?token={SECRET}"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"


async def refused(host: ImageHost, kind: type[Exception], *, url: str = URL, **changes: object) -> str:
    """The error's message, which holds nothing of the URL."""
    with pytest.raises(kind) as raised:
        await host.fetcher(**changes).fetch(url)
    assert SECRET not in str(raised.value)
    assert NAME not in str(raised.value)
    return str(raised.value)


async def test_the_bytes_come_and_the_request_says_nothing_but_what_is_wanted() -> None:
    async with image_host(whole(b"content")) as host:
        assert await host.fetcher().fetch(URL) == b"content"
    line, *headers = host.heads[0].decode().strip().split("\r\n")
    assert line == f"GET /{SECRET}.png?token={SECRET} HTTP/1.1"
    assert headers == [
        f"Host: {NAME}", "User-Agent: medmoe", "Accept: */*", "Accept-Encoding: identity", "Connection: close",
    ]  # fmt: skip
    assert (host.names, host.asked) == ([NAME], [NAME])


@pytest.mark.parametrize(
    "answer",
    [
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ncon\r\n4\r\ntent\r\n0\r\n\r\n"),
        raw(b"HTTP/1.0 200 OK\r\n\r\ncontent"),
        raw(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\ncontent"),
        whole(b"content", content_encoding="identity", content_type="text/html"),
    ],
    ids=["chunked", "until the end", "after a hint", "headers that do not matter"],
)
async def test_every_way_of_sending_a_body_is_read(answer: Answer) -> None:
    async with image_host(answer) as host:
        assert await host.fetcher().fetch(URL) == b"content"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (whole(b"", status="301 Moved", location=f"https://{NAME}/b"), "not followed"),
        (whole(b"", status="302 Found", location="http://169.254.169.254/"), "not followed"),
        (whole(b"", status="304 Not Modified"), "not followed"),
        (whole(b"content", status="201 Created"), "status 201"),
        (whole(b"content", status="206 Partial Content"), "status 206"),
        (whole(b"content", status=f"404 {SECRET}"), "status 404"),
        (whole(b"content", status="500 No"), "status 500"),
        (raw(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: a\r\nConnection: upgrade\r\n\r\n"), "breaks off"),
        (whole(b"content", content_encoding="gzip"), "encodes"),
        (whole(b"content", content_encoding="br"), "encodes"),
        (raw(HEAD + b"short"), "breaks off"),
        (raw(b""), "breaks off"),
        (raw(SECRET.encode() + b"\r\n\r\n"), "breaks off"),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"), "breaks off"),
        (raw(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 300_000 + b"\r\n\r\n"), "breaks off"),
        (raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nab"), "breaks off"),
    ],
    ids=[
        "301", "302", "304", "201", "206", "404", "500", "101", "gzip", "brotli", "cut off", "nothing", "not HTTP",
        "two lengths", "endless headers", "another transfer encoding",
    ],
)  # fmt: skip
async def test_anything_but_a_plain_answer_is_unreachable(answer: Answer, reason: str) -> None:
    async with image_host(answer) as host:
        assert reason in await refused(host, ImageURLUnreachable)
    assert len(host.heads) == 1


@pytest.mark.parametrize("answer", [flood, whole(bytes(4097))], ids=["without a length", "with a length"])
async def test_a_body_is_cut_off_while_it_comes(answer: Answer) -> None:
    async with image_host(answer) as host:
        assert "4096 bytes" in await refused(host, ImageURLTooLarge, max_bytes=4096)
        host.answer = whole(bytes(4096))
        assert await host.fetcher(max_bytes=4096).fetch(URL) == bytes(4096)


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\n", HEAD + b"slow"], ids=["nothing", "half a head", "body"])
async def test_a_slow_host_has_its_time_and_no_more(data: bytes) -> None:
    async with image_host(endless(data)) as host:
        await refused(host, ImageURLTimeout, seconds=0.1)


async def test_the_certificate_must_be_the_names() -> None:
    async with image_host(whole(b"content"), certified="other.example.org") as host:
        await refused(host, ImageURLUnreachable)
    assert not host.heads


async def test_the_certificate_must_be_of_a_known_authority() -> None:
    async with image_host(whole(b"content")) as host:
        await refused(host, ImageURLUnreachable, tls=ssl.create_default_context())
    assert not host.heads


async def test_nobody_listens() -> None:
    async with image_host(whole(b"content")) as host:
        pass
    await refused(host, ImageURLUnreachable)


@pytest.mark.parametrize(
    "url",
    [
        f"http://{NAME}/", f"https://{NAME}:8443/", f"https://user@{NAME}/", f"https://{NAME}/#a", "file:///etc/passwd",
        "https://127.0.0.1/", "https://[::1]/", "https://other.example.org/", f"https://{NAME}%2f/",
    ],
)  # fmt: skip
async def test_a_url_that_is_not_allowed_is_not_even_resolved(url: str) -> None:
    async with image_host(whole(b"content")) as host:
        with pytest.raises(ImageURLNotAllowed):
            await host.fetcher().fetch(url)
    assert not host.asked


@pytest.mark.parametrize(
    "answers",
    [["10.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["127.0.0.1", "8.8.8.8"], ["::ffff:127.0.0.1"], ["64:ff9b::7f00:1"]],
    ids=["private", "private last", "private first", "mapped", "NAT64"],
)
async def test_one_address_that_is_not_public_refuses_all(answers: list[str]) -> None:
    async def resolve(_: str) -> tuple[Endpoint, ...]:
        return tuple((ip_address(answer), host.port) for answer in answers)

    async with image_host(whole(b"content")) as host:
        assert "not public" in await refused(host, ImageURLNotAllowed, resolve=resolve, may_connect=is_public)
    assert not host.names


async def test_a_name_without_an_address_is_unreachable() -> None:
    async def fail(_: str) -> tuple[Endpoint, ...]:
        raise socket.gaierror(socket.EAI_NONAME, SECRET)

    async def nothing(_: str) -> tuple[Endpoint, ...]:
        return ()

    async with image_host(whole(b"content")) as host:
        await refused(host, ImageURLUnreachable, resolve=fail)
        await refused(host, ImageURLUnreachable, resolve=nothing)


async def test_a_name_that_changes_its_address_is_asked_once_and_the_first_answer_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """DNS rebinding."""
    asked: list[str] = []

    async def resolve(name: str) -> tuple[Endpoint, ...]:
        asked.append(name)
        return ((HERE, host.port),) if len(asked) == 1 else ((ip_address("169.254.169.254"), 80),)

    def resolve_again(*_: object, **__: object) -> None:
        raise AssertionError("a name was resolved behind the fetcher's back")

    async with image_host(whole(b"content")) as host:
        monkeypatch.setattr(socket, "getaddrinfo", resolve_again)
        assert await host.fetcher(resolve=resolve).fetch(URL) == b"content"
    assert asked == [NAME]
    assert host.names == [NAME]


async def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    async with image_host(whole(b"")) as gone:
        pass

    async def resolve(_: str) -> tuple[Endpoint, ...]:
        return (HERE, gone.port), (HERE, host.port)

    async with image_host(whole(b"content")) as host:
        assert await host.fetcher(resolve=resolve).fetch(URL) == b"content"


async def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with image_host(whole(b"content")) as host, image_host(whole(b"proxy")) as proxy:
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert await host.fetcher().fetch(URL) == b"content"
    assert not proxy.names


async def test_every_fetch_is_a_connection_of_its_own_without_memory() -> None:
    async with image_host(whole(b"content", set_cookie=f"a={SECRET}")) as host:
        fetcher = host.fetcher()
        assert [await fetcher.fetch(URL) for _ in range(2)] == [b"content"] * 2
    assert len(host.names) == len(host.asked) == 2
    assert host.heads[0] == host.heads[1]
    assert b"cookie" not in host.heads[1].lower()


async def test_so_many_at_once_and_the_next_is_told_to_come_again() -> None:
    async with image_host(endless(HEAD)) as host:
        fetcher = host.fetcher(at_once=1)
        first = asyncio.create_task(fetcher.fetch(URL))
        while not host.heads:
            await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await fetcher.fetch(URL)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await asyncio.wait_for(host.left.wait(), 60)
        host.answer = whole(b"content")
        assert await fetcher.fetch(URL) == b"content"


async def test_a_fetch_that_is_cancelled_in_its_handshake_leaves_no_connection() -> None:
    opened, closed = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.set()
        await reader.read()
        closed.set()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server, image_host(whole(b"")) as host:
        host.port = server.sockets[0].getsockname()[1]
        fetch = asyncio.create_task(host.fetcher().fetch(URL))
        await asyncio.wait_for(opened.wait(), 60)
        fetch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetch
        await asyncio.wait_for(closed.wait(), 60)


async def test_our_own_loggers_are_silent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with image_host(whole(b"content")) as host:
        await host.fetcher().fetch(URL)
        host.answer = raw(b"")
        await refused(host, ImageURLUnreachable)
    assert not [record for record in caplog.records if record.name.startswith("medmoe")]
    # Of the library's own words at debug none is about the path.
    assert not [record for record in caplog.records if SECRET in record.getMessage()]


def test_a_deployment_that_names_no_host_has_no_fetcher() -> None:
    assert ImageFetcher.of(Settings()) is None
    assert ImageFetcher.of(Settings(image_url_hosts=frozenset({NAME}))) is not None

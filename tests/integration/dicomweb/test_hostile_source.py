"""A source that is dead, slow or lying: each is refused by name, and none of it is an image."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from medmoe.server.dicomweb.errors import StoreFailed
from tests.integration.conftest import Service, ServiceFactory, check
from tests.integration.dicomweb.conftest import CT, REFERENCE, SERIES, STUDY, SourcesFile
from tests.support.images.image_host import Answer, endless, flood, raw, whole
from tests.support.images.phantom import chest_ct_file

BOUNDARY = "b0undary"
RELATED = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
ELSEWHERE = "http://169.254.169.254/latest/meta-data"


def part(data: bytes, *, headers: str = "Content-Type: application/dicom\r\n") -> bytes:
    return b"--%b\r\n%b\r\n%b\r\n" % (BOUNDARY.encode(), headers.encode(), data)


END = f"--{BOUNDARY}--\r\n".encode()


def related(*parts: bytes, kind: str = RELATED, end: bytes = END) -> Answer:
    return whole(b"".join(parts) + end, content_type=kind)


@dataclass(slots=True)
class Host:
    """A server over plain HTTP that gives `answer` to every request."""

    answer: Answer
    url: str = ""


@asynccontextmanager
async def hostile(answer: Answer) -> AsyncIterator[Host]:
    host = Host(answer)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            answering = asyncio.ensure_future(host.answer(writer))
            gone = asyncio.ensure_future(reader.read())
            await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
            for task in (answering, gone):
                task.cancel()
            await asyncio.gather(answering, gone, return_exceptions=True)
        except (OSError, EOFError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        host.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/dicom-web"
        yield host


async def render(service: Service, **fields: Any) -> httpx.Response:
    return await service.client.post("/v1/render", json={"image": REFERENCE, **fields})


GOOD = [
    related(part(CT)),
    related(
        b"\r\n" + part(CT, headers="content-type: APPLICATION/DICOM; transfer-syntax=1.2\r\nContent-Location: a\r\n")
    ),
    related(part(CT, headers="")),
    whole(CT, content_type="application/dicom"),
    related(part(CT, headers=f"Content-Length: {len(CT)}\r\n"), kind=RELATED.replace(BOUNDARY, f'"{BOUNDARY}"')),
]
LIES: dict[str, tuple[Answer, int, str]] = {
    "HTML": (whole(b"<html>log in</html>", content_type="text/html"), 502, "invalid_source_answer"),
    "HTML that is called DICOM": (related(part(b"<html>log in</html>")), 502, "invalid_source_answer"),
    "HTML part": (related(part(CT, headers="Content-Type: text/html\r\n")), 502, "invalid_source_answer"),
    "no content type": (whole(CT), 502, "invalid_source_answer"),
    "metadata": (whole(b"[]", content_type="application/dicom+json"), 502, "invalid_source_answer"),
    "nothing": (whole(b"", status="204 No Content"), 502, "invalid_source_answer"),
    "no part": (related(), 502, "invalid_source_answer"),
    "empty part": (related(part(b"")), 502, "invalid_source_answer"),
    "no boundary": (related(part(CT), kind="multipart/related"), 502, "invalid_source_answer"),
    "another boundary": (related(part(CT), kind=RELATED + "x"), 502, "invalid_source_answer"),
    "an endless boundary": (related(part(CT), kind=RELATED + "x" * 400), 502, "invalid_source_answer"),
    "no end": (related(part(CT), end=b""), 502, "invalid_source_answer"),
    "two objects": (related(part(CT), part(CT)), 502, "invalid_source_answer"),
    "wrong length of the part": (related(part(CT, headers="Content-Length: 4\r\n")), 502, "invalid_source_answer"),
    "base64": (related(part(CT, headers="Content-Transfer-Encoding: base64\r\n")), 502, "invalid_source_answer"),
    "endless headers": (related(part(CT, headers="a: b\r\n" * 400)), 502, "invalid_source_answer"),
    "compressed": (whole(CT, content_type=RELATED, content_encoding="gzip"), 502, "invalid_source_answer"),
    "not HTTP": (raw(b"\x00\x01DICOM association\r\n\r\n"), 502, "invalid_source_answer"),
    "shorter than announced": (
        raw(f"HTTP/1.1 200 OK\r\nContent-Type: {RELATED}\r\nContent-Length: 9999999\r\n\r\n".encode() + part(CT)),
        502,
        "invalid_source_answer",
    ),
    "redirect": (whole(b"", status="302 Found", location=ELSEWHERE), 502, "invalid_source_answer"),
    "permanent redirect": (
        whole(b"", status="308 Permanent Redirect", location=ELSEWHERE),
        502,
        "invalid_source_answer",
    ),
    "closes at once": (raw(b""), 502, "invalid_source_answer"),
    "failure": (whole(b"patient", status="500 Oh"), 503, "source_unavailable"),
    "overload": (whole(b"", status="503 Busy"), 503, "source_unavailable"),
    "no credentials": (whole(b"", status="401 Unauthorized"), 502, "source_refused"),
    "forbidden": (whole(b"", status="403 Forbidden"), 502, "source_refused"),
    "unknown": (whole(b"", status="404 Not Found"), 404, "instance_not_found"),
    "another instance": (related(part(chest_ct_file(64, SOPInstanceUID="1.2.3"))), 502, "wrong_instance"),
    "another series": (related(part(chest_ct_file(64, SeriesInstanceUID="1.2.3"))), 502, "wrong_instance"),
    "another study": (related(part(chest_ct_file(64, StudyInstanceUID="1.2.3"))), 502, "wrong_instance"),
    "no study": (related(part(chest_ct_file(64, StudyInstanceUID=None))), 422, "unreadable_image"),
    "a damaged object": (related(part(CT[:400])), 422, "unreadable_image"),
}


async def test_what_sources_may_send(running: ServiceFactory, sources_file: SourcesFile) -> None:
    async with hostile(GOOD[0]) as host, running(dicomweb_sources=sources_file(host.url)) as service:
        for answer in GOOD:
            host.answer = answer
            assert (await render(service)).status_code == 200


async def test_lies(running: ServiceFactory, sources_file: SourcesFile, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with hostile(raw(b"")) as host, running(dicomweb_sources=sources_file(host.url)) as service:
        for name, (host.answer, status, code) in LIES.items():
            response = await render(service)
            assert (response.status_code, response.json()["error"]["code"]) == (status, code), name
            assert service.state.admission.in_flight == 0
            for uid in (STUDY, SERIES, "1.2.3", "PHANTOM"):
                assert uid not in response.text
    for text in (STUDY, "PHANTOM", "not-a-secret", "patient"):
        assert text not in caplog.text


async def test_slow_dead_and_endless_sources(running: ServiceFactory, sources_file: SourcesFile) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {RELATED}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()

    async def endless_parts(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            for piece in (part(b"")[:-2], bytes(0x4000)):
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()

    async with hostile(endless(b"")) as host:
        settings = {"dicomweb_sources": sources_file(host.url), "dicomweb_seconds": 0.2, "max_body_bytes": 2**16}
        async with running(**settings) as service:
            check(await render(service), 504, "source_timeout")
            check(await render(service, timeout_ms=50), 504, "deadline_exceeded")
            host.answer = endless(head + b"10\r\n")
            check(await render(service), 504, "source_timeout")
        del settings["dicomweb_seconds"]
        async with running(**settings) as service:
            host.answer = endless_parts
            check(await render(service), 413, "instance_too_large")
            host.answer = flood
            check(await render(service), 502, "invalid_source_answer")
    for url in ("http://127.0.0.1:9/dicom-web", "https://127.0.0.1:9"):
        async with running(dicomweb_sources=sources_file(url)) as service:
            check(await render(service), 503, "source_unavailable")


async def test_a_list_that_is_none(running: ServiceFactory, sources_file: SourcesFile) -> None:
    path = f"/v1/sources/pacs/studies/{STUDY}/series"
    other = b'[{"0020000D": {"Value": ["1.2.3"]}, "0020000E": {"Value": ["1.2.4"]}}]'
    no_uid = b'[{"0020000E": {"Value": ["../../etc"]}}]'
    async with hostile(raw(b"")) as host, running(dicomweb_sources=sources_file(host.url)) as service:
        for body in (b"<html>", b"{}", b'["a"]', b"[{}]", no_uid, b"[" * 100_000, other):
            host.answer = whole(body, content_type="application/dicom+json")
            check(await service.client.get(path), 502, "invalid_source_answer")
        host.answer = whole(b"", status="204 No Content")
        assert (await service.client.get(path)).json() == {"data": []}
        empty = b'[{"0020000D": {"Value": ["1.2.3"]}, "00080061": {"vr": "CS", "Value": ["CT", null, {}]}}]'
        host.answer = whole(empty, content_type="application/dicom+json")
        (listed,) = (await service.client.get("/v1/sources/pacs/studies")).json()["data"]
        assert listed["modalities"] == ["CT"]
        # Forbidden by the standard, and written by devices.
        zeros = b'[{"0020000E": {"Value": ["1.02.003"]}}]'
        host.answer = whole(zeros, content_type="application/dicom+json")
        (listed,) = (await service.client.get(path)).json()["data"]
        assert listed["series"] == "1.02.003"


STORED = b'{"00081199": {"vr": "SQ", "Value": [{"00081196": {"vr": "US", "Value": [45056]}}]}}'
FAILED = b'{"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [272]}}]}}'
DUPLICATE = FAILED.replace(b"272", b"273")
DUPLICATE_AND_FAILED = b'{"00081198": {"Value": [{"00081197": {"Value": [273]}}, {"00081197": {"Value": [{}]}}]}}'


@pytest.mark.parametrize(
    ("status", "body", "is_stored"),
    [
        ("200 OK", STORED, True),
        ("200 OK", b"", True),
        ("200 OK", FAILED, False),
        # Stored, with a warning that it was changed.
        ("202 Accepted", STORED, True),
        ("202 Accepted", FAILED, False),
        ("202 Accepted", b"", False),
        ("204 No Content", b"", False),
        ("409 Conflict", FAILED, False),
        ("409 Conflict", b"<html>", False),
        ("409 Conflict", b"", False),
        # The source has this report already, and takes nothing twice.
        ("409 Conflict", DUPLICATE, True),
        ("200 OK", DUPLICATE, True),
        ("409 Conflict", DUPLICATE_AND_FAILED, False),
        ("404 Not Found", b"", False),
        ("405 Method Not Allowed", b"", False),
    ],
)
async def test_what_a_source_says_of_a_report(
    running: ServiceFactory, sources_file: SourcesFile, status: str, body: bytes, is_stored: bool
) -> None:
    answer = whole(body, status=status, content_type="application/dicom+json")
    async with (
        hostile(answer) as host,
        running(dicomweb_sources=sources_file(host.url, store=True)) as service,
    ):
        with contextlib.nullcontext() if is_stored else pytest.raises(StoreFailed):
            await service.state.dicomweb.store("pacs", STUDY, CT)


async def test_why_a_source_does_not_store_a_report(running: ServiceFactory, sources_file: SourcesFile) -> None:
    answer = whole(FAILED, status="409 Conflict", content_type="application/dicom+json")
    async with hostile(answer) as host, running(dicomweb_sources=sources_file(host.url, store=True)) as service:
        with pytest.raises(StoreFailed, match="failure reason 0110H"):
            await service.state.dicomweb.store("pacs", STUDY, CT)
        host.answer = whole(b"", status="404 Not Found")
        with pytest.raises(StoreFailed, match="status 404"):
            await service.state.dicomweb.store("pacs", STUDY, CT)


@pytest.mark.parametrize("date", ["\u0662" * 8, "2026-01-01", "20260101-20260102-", ""])
async def test_dates_that_are_none(service: Service, date: str) -> None:
    check(await service.client.get("/v1/sources/pacs/studies", params={"date": date}), 422, "invalid_field", "date")


@pytest.mark.parametrize(
    ("image", "param"),
    [
        ({**REFERENCE, "study": "1.2.3/../../instances"}, "image.study"),
        ({**REFERENCE, "study": "1." + "2" * 70}, "image.study"),
        ({**REFERENCE, "series": "1..2"}, "image.series"),
        ({**REFERENCE, "instance": "1.2."}, "image.instance"),
        ({**REFERENCE, "source": "http://127.0.0.1"}, "image.source"),
        ({**REFERENCE, "instance": 5}, "image.instance"),
        ({"source": "pacs"}, "image.study"),
        ({"source": "pacs", "SECRET-at-0x7f2a": "a"}, "image.study"),
        ({**REFERENCE, "frame": 1}, "image"),
        ([REFERENCE], "image"),
        (5, "image"),
        (None, "image"),
    ],
    ids=str,
)
async def test_references_that_name_no_instance(service: Service, image: Any, param: str) -> None:
    check(await service.client.post("/v1/render", json={"image": image}), 422, "invalid_field", param)


async def test_where_there_is_no_source(service: Service) -> None:
    check(await render(service), 404, "source_not_found", "source")
    assert (await service.client.get("/v1/sources")).json() == {"data": []}
    check(await service.client.get("/v1/sources/pacs/studies"), 404, "source_not_found", "source")
    check(await service.client.get("/v1/sources/pacs/studies/1.2.x/series"), 422, "invalid_field", "study")

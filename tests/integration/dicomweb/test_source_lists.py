"""Lists of sources that send them in pages, or with padding, and sources whose certificate is not accepted."""

import asyncio
import json
import ssl
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.integration.conftest import Medmoe, ServiceFactory, check
from tests.integration.dicomweb.conftest import SourcesFile
from tests.support.service.certificates import DAY, Authority, Pair
from tests.support.service.scripted_service import Reply, scripted_service

MORE = "299 pacs: There are 7 additional results that can be requested"


def archive(studies: list[str], *, page: int, pages: bool = True) -> Callable[..., Reply]:
    """Return a source that lists at most `page` studies, and with `pages` goes on at the offset that is asked for."""

    def answer(path: str, headers: object, body: bytes) -> Reply:
        asked = parse_qs(urlsplit(path).query)
        first = int(asked.get("offset", ["0"])[0]) if pages else 0
        last = first + min(page, int(asked["limit"][0]))
        items = [{"0020000D": {"vr": "UI", "Value": [study]}} for study in studies[first:last]]
        said = {"Warning": MORE} if last < len(studies) else {}
        return Reply(headers={"Content-Type": "application/dicom+json", **said}, body=json.dumps(items).encode())

    return answer


@pytest.mark.parametrize("pages", [True, False])
async def test_a_source_that_lists_in_pages_is_asked_for_all(
    running: ServiceFactory, sources_file: SourcesFile, pages: bool
) -> None:
    studies = [f"1.2.{number}" for number in range(25)]
    with scripted_service(archive(studies, page=10, pages=pages)) as source:
        async with running(dicomweb_sources=sources_file(source.url)) as service:
            for limit, expected in ((1000, 25), (12, 12), (10, 10)):
                source.asked.clear()
                response = await service.client.get("/v1/sources/pacs/studies", params={"limit": limit})
                listed = [one["study"] for one in response.json()["data"]]
                assert listed == studies[: expected if pages else min(expected, 10)]
                assert len(source.asked) <= 3


async def test_an_empty_list_with_a_warning_is_whole(running: ServiceFactory, sources_file: SourcesFile) -> None:
    headers = {"Content-Type": "application/dicom+json", "Warning": MORE}
    with scripted_service(Reply(headers=headers, body=b"[]")) as source:
        async with running(dicomweb_sources=sources_file(source.url)) as service:
            assert (await service.client.get("/v1/sources/pacs/studies")).json()["data"] == []
        assert len(source.asked) == 1


async def test_padded_uids_are_those_without_padding(running: ServiceFactory, sources_file: SourcesFile) -> None:
    with scripted_service(archive(["1.2.3\0", "1.2.4 "], page=10)) as source:
        async with running(dicomweb_sources=sources_file(source.url)) as service:
            listed = (await service.client.get("/v1/sources/pacs/studies")).json()["data"]
    assert [one["study"] for one in listed] == ["1.2.3", "1.2.4"]


def test_the_command_says_that_a_list_may_go_on(medmoe: Medmoe) -> None:
    study = {"date": None, "time": None, "description": None, "modalities": []}
    counts = {"series_count": None, "instance_count": None}
    body = json.dumps({"data": [{"study": f"1.2.{number}", **study, **counts} for number in range(2)]}).encode()
    with scripted_service(Reply(headers={"Content-Type": "application/json"}, body=body)) as service:
        whole = medmoe("query", "pacs", url=service.url)
        cut = medmoe("query", "pacs", "--limit", 2, "--json", url=service.url)
    assert (whole.returncode, whole.stderr, cut.returncode, cut.stdout.count("\n")) == (0, "", 0, 2)
    assert "the first 2; there may be more" in cut.stderr


async def tls_server(pair: Pair, host: str) -> asyncio.Server:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)
    return await asyncio.start_server(lambda _, writer: writer.close(), host, 0, ssl=context)


@pytest.mark.parametrize(
    ("trusted", "host", "end", "why"),
    [
        (False, "localhost", DAY, "no authority that is trusted"),
        (True, "127.0.0.2", DAY, "another host"),
        (True, "localhost", -DAY / 2, "expired"),
    ],
)
async def test_a_certificate_is_refused_by_its_cause(
    running: ServiceFactory,
    sources_file: SourcesFile,
    tmp_path: Path,
    trusted: bool,
    host: str,
    end: timedelta,
    why: str,
) -> None:
    authority, other = Authority(folder=tmp_path), Authority(folder=tmp_path, name="other")
    server = await tls_server(authority.issue("pacs", end=end), host)
    port = server.sockets[0].getsockname()[1]
    ca_file = (authority if trusted else other).certificate
    sources = sources_file(f"https://{host}:{port}", ca_file=str(ca_file))
    async with server, running(dicomweb_sources=sources) as service:
        response = await service.client.get("/v1/sources/pacs/studies")
    check(response, 503, "source_unavailable")
    assert why in response.json()["error"]["message"]
    assert host not in response.text

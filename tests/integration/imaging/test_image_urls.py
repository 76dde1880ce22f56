"""Images by URL, on every route that takes one: off by default, and where it is on as good as an upload."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any

import httpx
import pytest

from medmoe.server.imaging.fetch.addresses import Endpoint, is_public
from tests.integration.conftest import Service, ServiceFactory, base64_image, check, image_bytes, until
from tests.support.images.image_host import NAME, Answer, ImageHost, endless, flood, image_host, raw, whole
from tests.support.images.tagged_images import dicom

URL = f"https://{NAME}/ct.png"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
QUESTION = "Is there a fracture?"
DATA_URL = f"data:image/png;base64,{base64_image()}"
PARAM = {
    "/v1/vqa": "image",
    "/v1/classify": "image",
    "/v1/chat/completions": "messages.0.content.0.image_url.url",
}
"""Each route, and what it calls the image."""
every_route = pytest.mark.parametrize("route", PARAM)


def body(route: str, image: str, **fields: Any) -> dict[str, Any]:
    match route:
        case "/v1/vqa":
            return {"image": image, "question": QUESTION, **fields}
        case "/v1/classify":
            return {"image": image, "labels": ["CT", "MRI", "X-ray"], **fields}
    parts = [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": QUESTION}]
    return {"messages": [{"role": "user", "content": parts}], **fields}


async def post(service: Service, route: str, image: str = URL, **fields: Any) -> httpx.Response:
    return await service.client.post(route, json=body(route, image, **fields))


@asynccontextmanager
async def fetching(
    running: ServiceFactory, answer: Answer, *, fetch: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[tuple[Service, ImageHost]]:
    """A service that fetches from a host which gives `answer`; `fetch` are arguments of ImageFetcher."""
    async with image_host(answer) as host, running(image_url_hosts=NAME, **settings) as service:
        service.state.active.images.fetcher = host.fetcher(**(fetch or {}))
        yield service, host


def without_clock(answer: dict[str, Any]) -> str:
    answer["medmoe"] = {name: value for name, value in answer.get("medmoe", {}).items() if name != "timings"}
    return json.dumps({name: value for name, value in answer.items() if name not in ("id", "created", "timings")})


@every_route
async def test_the_answer_is_that_to_the_same_bytes_sent(running: ServiceFactory, route: str) -> None:
    async with fetching(running, whole(image_bytes())) as (service, host):
        by_url = await post(service, route)
        sent = await post(service, route, DATA_URL)
        assert (by_url.status_code, sent.status_code) == (200, 200), by_url.text
        assert without_clock(by_url.json()) == without_clock(sent.json())
        assert (host.asked, len(host.heads)) == ([NAME], 1)


@pytest.mark.parametrize("route", ["/v1/vqa", "/v1/chat/completions"])
async def test_a_stream_too(running: ServiceFactory, route: str) -> None:
    async with fetching(running, whole(image_bytes())) as (service, _):
        response = await post(service, route, stream=True)
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.text.endswith("data: [DONE]\n\n")


async def test_what_is_fetched_goes_through_the_same_limits(running: ServiceFactory) -> None:
    async with fetching(running, whole(dicom()), max_image_pixels=2**16) as (service, host):
        shown = (await post(service, "/v1/vqa", window="full")).json()["provenance"]["rendering"]
        assert (shown["format"], shown["windows"][0]["source"]) == ("DICOM", "full")
        for data, status, code in (
            (b"", 415, "unsupported_image"),
            (b"GIF89a", 415, "unsupported_image"),
            (DATA_URL.encode(), 415, "unsupported_image"),
            (image_bytes()[:60], 422, "unreadable_image"),
            (image_bytes((300, 300)), 413, "image_too_large"),
            (dicom(BurnedInAnnotation="YES"), 422, "burned_in_annotation"),
        ):
            host.answer = whole(data, content_type="image/png")
            check(await post(service, "/v1/vqa"), status, code, "image")


async def test_a_deployment_that_names_no_host_says_so(service: Service) -> None:
    for route, param in PARAM.items():
        for url in (URL, URL.upper(), "http://intra.net/a.png", "file:///etc/passwd", "ftp:a"):
            response = await post(service, route, url)
            check(response, 400, "image_url_not_allowed", param)
            assert "MEDMOE_IMAGE_URL_HOSTS" in response.json()["error"]["message"]
    assert 'stage="fetch"' not in (await service.client.get("/metrics")).text


async def test_other_urls_are_not_allowed_where_some_are(running: ServiceFactory) -> None:
    urls = ("https://other.example.org/a.png", URL.replace("https", "http"), f"{URL}#a", "file:///etc/passwd")
    async with fetching(running, whole(image_bytes())) as (service, host):
        for route, param in PARAM.items():
            for url in urls:
                check(await post(service, route, url), 400, "image_url_not_allowed", param)
        assert not host.asked


@pytest.mark.parametrize(
    ("answer", "fetch", "status", "code"),
    [
        (whole(b"", status="302 Found", location=URL), {}, 422, "image_url_unreachable"),
        (whole(b"no", status="404 Not Found"), {}, 422, "image_url_unreachable"),
        (raw(b""), {}, 422, "image_url_unreachable"),
        (flood, {"max_bytes": 4096}, 413, "image_url_too_large"),
        (endless(HEAD), {"seconds": 0.1}, 422, "image_url_timeout"),
        (whole(image_bytes()), {"at_once": 0}, 429, "overloaded"),
    ],
    ids=["redirect", "not found", "nothing", "too large", "too slow", "too many at once"],
)
async def test_failures_have_codes_of_their_own(
    running: ServiceFactory, answer: Answer, fetch: dict[str, Any], status: int, code: str
) -> None:
    async with fetching(running, answer, fetch=fetch) as (service, _):
        for route, param in PARAM.items():
            response = await post(service, route)
            check(response, status, code, None if status == 429 else param)
            assert NAME not in response.text
            assert response.headers.get("retry-after") == ("1" if status == 429 else None)
        assert service.state.admission.in_flight == 0
        assert service.engine.started == 1, "only the warm-up"


async def test_a_host_with_a_private_address_is_not_allowed(running: ServiceFactory) -> None:
    async def resolve(_: str) -> tuple[Endpoint, ...]:
        return ((ip_address("10.0.0.1"), 443),)

    async with fetching(running, whole(image_bytes()), fetch={"resolve": resolve, "may_connect": is_public}) as (
        service,
        _,
    ):
        check(await post(service, "/v1/vqa"), 400, "image_url_not_allowed", "image")


async def test_the_requests_own_deadline_holds_for_fetching(running: ServiceFactory) -> None:
    async with fetching(running, endless(HEAD), timeout_ms=500) as (service, _):
        for route in ("/v1/vqa", "/v1/classify"):
            check(await post(service, route, timeout_ms=100), 504, "deadline_exceeded")
        check(await post(service, "/v1/chat/completions"), 504, "deadline_exceeded")


@every_route
async def test_a_client_that_leaves_stops_the_fetch(running: ServiceFactory, route: str) -> None:
    async with fetching(running, endless(HEAD)) as (service, host):
        messages = [{"type": "http.request", "body": json.dumps(body(route, URL)).encode()}]

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            await until(lambda: bool(host.heads))
            return {"type": "http.disconnect"}

        async def send(_: Any) -> None:
            """Nobody is left to read."""

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": route, "raw_path": route.encode(), "query_string": b"", "root_path": "",
            "headers": [(b"content-type", b"application/json")], "client": ("test", 1), "server": ("service", 80),
        }  # fmt: skip
        await asyncio.wait_for(service.app(scope, receive, send), 60)
        await asyncio.wait_for(host.left.wait(), 60)
        assert service.state.admission.in_flight == 0
        assert service.engine.started == 1, "only the warm-up"


async def test_fetches_that_hang_leave_room_for_uploads(running: ServiceFactory) -> None:
    async with fetching(running, endless(HEAD), fetch={"at_once": 1}, max_concurrent=2) as (service, host):
        hanging = asyncio.create_task(post(service, "/v1/vqa"))
        await until(lambda: bool(host.heads))
        check(await post(service, "/v1/vqa"), 429, "overloaded")
        assert (await post(service, "/v1/vqa", DATA_URL)).status_code == 200
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)
        host.answer = whole(image_bytes())
        assert (await post(service, "/v1/vqa")).status_code == 200


async def test_fetching_is_a_stage_of_its_own(running: ServiceFactory) -> None:
    async with fetching(running, whole(image_bytes())) as (service, _):
        by_url, sent = await post(service, "/v1/vqa"), await post(service, "/v1/vqa", DATA_URL)
        assert "fetch;dur=" in by_url.headers["server-timing"]
        assert "fetch;dur=" not in sent.headers["server-timing"]
        assert by_url.json()["timings"]["fetch"] > 0
        assert sent.json()["timings"]["fetch"] == 0
        assert 'medmoe_stage_duration_seconds_count{stage="fetch"} 1.0' in (await service.client.get("/metrics")).text


async def test_the_document_says_where_urls_are_taken(service: Service) -> None:
    paths = (await service.client.get("/openapi.json")).json()["paths"]
    for route in PARAM:
        content = paths[route]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert "MEDMOE_IMAGE_URL_HOSTS" in json.dumps(content)

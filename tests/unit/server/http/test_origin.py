"""Which names a service without keys answers to, and which pages may call it."""

from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from medmoe.server.errors import ForbiddenOrigin
from medmoe.server.http.origin import OriginCheck
from medmoe.server.settings import Settings

FOREIGN = [
    "evil.example",
    "evil.example:8000",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "[::2]",
    "",
    "10.0.0.7",
]


async def answers(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body"})


async def ask(method: str = "GET", *, settings: dict[str, Any] | None = None, **headers: str) -> int:
    app = OriginCheck(answers, settings=Settings(**(settings or {})))
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return (
            await client.request(method, "/", headers={k.replace("_", "-"): v for k, v in headers.items()})
        ).status_code


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000"])
async def test_this_machine_is_answered(host: str) -> None:
    assert await ask(host=host) == 200


@pytest.mark.parametrize("host", FOREIGN)
async def test_a_name_that_was_made_to_lead_here_is_refused(host: str) -> None:
    with pytest.raises(ForbiddenOrigin):
        await ask(host=host)


@pytest.mark.parametrize("settings", [{"insecure": True}, {"insecure": True, "host": "0.0.0.0"}, {"api_keys": "keys"}])
async def test_other_deployments_are_called_by_any_name(settings: dict[str, Any]) -> None:
    assert await ask(settings=settings, host="medmoe.hospital.example") == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", ""]
)
async def test_only_the_names_of_the_deployment_are_answered_where_it_lists_them(host: str) -> None:
    listed = {"insecure": True, "host": "0.0.0.0", "allowed_hosts": "localhost,Medmoe"}
    with pytest.raises(ForbiddenOrigin):
        await ask(settings=listed, host=host)
    for own in ("localhost:8000", "medmoe:8000", "127.0.0.1:8000", "[::1]:8000", "10.0.0.7:8000"):
        assert await ask(settings=listed, host=own) == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_other_pages_may_only_link_here(site: str) -> None:
    for method, mode in (("POST", "no-cors"), ("POST", "navigate"), ("GET", "cors"), ("GET", "no-cors")):
        with pytest.raises(ForbiddenOrigin):
            await ask(method, sec_fetch_mode=mode, sec_fetch_site=site)
    assert await ask(sec_fetch_mode="navigate", sec_fetch_site=site) == 200
    assert await ask("POST", sec_fetch_mode="cors", sec_fetch_site="same-origin") == 200


@pytest.mark.parametrize("settings", [{}, {"insecure": True, "host": "0.0.0.0"}, {"api_keys": "keys"}])
@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://localhost:3000", "http://localhost.evil.example:8000", "null", ""]
)
async def test_without_fetch_metadata_the_origin_tells_of_another_page(settings: dict[str, Any], origin: str) -> None:
    with pytest.raises(ForbiddenOrigin):
        await ask("POST", settings=settings, host="localhost:8000", origin=origin)


@pytest.mark.parametrize(
    ("host", "origin"), [("localhost:8000", "http://LOCALHOST:8000"), ("[::1]:8000", "http://[::1]:8000")]
)
async def test_the_services_own_page_may_ask(host: str, origin: str) -> None:
    assert await ask("POST", host=host, origin=origin) == 200


async def test_a_proxy_may_ask_by_another_name_than_the_pages() -> None:
    headers = {"origin": "https://medmoe.hospital.example", "host": "10.0.0.7:8000", "sec_fetch_site": "same-origin"}
    assert await ask("POST", settings={"insecure": True}, **headers) == 200

"""API keys over HTTP: who is let in, how often, and that one tenant's cache is not another's."""

import asyncio
import json
import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute

from medmoe.model.errors import ConfigError
from medmoe.server.auth import api_keys
from medmoe.server.auth.key_file import new_key
from medmoe.server.observability.json_log import JsonFormatter
from medmoe.server.routes.dependencies import authenticated, may_administer, may_read_stats, within_rate
from tests.integration.conftest import Service, ServiceFactory, check, until

WARD, WARD_LINE = new_key("ward-7")
LAB, LAB_LINE = new_key("lab")
OPEN = {"/health/live", "/health/ready", "/", "/page/{name:path}", "/docs", "/docs/{name}"}
"""The two pages are files, the same for everybody; what they ask for needs the key."""


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"{WARD_LINE}\n{LAB_LINE}\n")
    return path


def rewrite(path: Path, text: str | None) -> None:
    """Put another file with `text` in the place of `path`, as an orchestrator does; None leaves no file."""
    if text is None:
        path.unlink()
        return
    (path.parent / "next").write_text(text)
    (path.parent / "next").replace(path)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    "path",
    [
        "/v1/vqa",
        "/v1/classify",
        "/v1/chat/completions",
        "/v1/explain",
        "/v1/render",
        "/v1/router/stats",
        "/v1/models",
        "/v1/models/tiny",
        "/v1/metadata",
        "/v1/model-card",
        "/metrics",
    ],
)
@pytest.mark.parametrize(
    "headers",
    [{}, bearer("mm-wrong"), {"Authorization": WARD}, {"Authorization": f"Basic {WARD}"}, {"X-Api-Key": WARD}],
)
async def test_without_a_key_nothing_is_said(
    running: ServiceFactory, keys: Path, path: str, headers: dict[str, str]
) -> None:
    async with running(api_keys=keys) as service:
        method = (
            "POST"
            if path in {"/v1/vqa", "/v1/classify", "/v1/chat/completions", "/v1/explain", "/v1/render"}
            else "GET"
        )
        # A body that would be refused: what is asked first is who is asking.
        refused = await service.client.request(
            method, path, headers=headers, content=b"{" if method == "POST" else None
        )
        check(refused, 401, "invalid_api_key")
        assert refused.headers["www-authenticate"] == "Bearer"


async def test_every_route_but_health_and_the_page_asks_for_the_key(service: Service) -> None:
    routes = [route for route in service.app.routes if isinstance(route, APIRoute)]
    asked = {route.path for route in routes if authenticated in _calls(route)}
    assert {route.path for route in routes} - asked == OPEN
    costly = {route.path for route in routes if within_rate in _calls(route)}
    # Each list of a source, download and deletion leaves a record in an audit trail.
    recorded = {path for path in asked if path.startswith("/v1/sources") or path.endswith("/content")}
    assert len(recorded) == 5
    recorded |= {route.path for route in routes if "DELETE" in route.methods}
    changes = {path for path in asked if path.startswith("/admin/")}
    assert costly == ({route.path for route in routes if "POST" in route.methods} | recorded) - changes
    assert {route.path for route in routes if may_administer in _calls(route)} == changes
    assert {route.path for route in routes if may_read_stats in _calls(route)} == {"/v1/router/stats", "/metrics"}


def _calls(route: APIRoute) -> set[Any]:
    found, waiting = set(), [route.dependant]
    while waiting:
        dependant = waiting.pop()
        found.add(dependant.call)
        waiting.extend(dependant.dependencies)
    return found


async def test_a_key_lets_in(running: ServiceFactory, keys: Path, vqa_body: dict[str, Any]) -> None:
    async with running(api_keys=keys) as service:
        assert (await service.client.post("/v1/vqa", json=vqa_body, headers=bearer(WARD))).status_code == 200
        assert (await service.client.get("/v1/models", headers=bearer(LAB))).status_code == 200
        assert (await service.client.get("/health/ready")).status_code == 200


async def test_tenants_share_no_cache(
    running: ServiceFactory, keys: Path, vqa_body: dict[str, Any], classify_body: dict[str, Any]
) -> None:
    async with running(api_keys=keys) as service:
        for path, body in (("/v1/vqa", vqa_body), ("/v1/classify", classify_body)):
            salts = []
            for key in (WARD, LAB, WARD):
                await service.client.post(path, json=body, headers=bearer(key))
                assert service.engine.last_request is not None
                salts.append(service.engine.last_request.cache_salt)
            assert salts[0] == salts[2] != salts[1]
            assert None not in salts
        metrics = (await service.client.get("/metrics", headers=bearer(WARD))).text
        # Both bodies show the same image: one for each tenant was decoded.
        counted = {line for line in metrics.splitlines() if line.startswith("medmoe_images_total")}
        assert counted == {'medmoe_images_total{source="decoded"} 2.0', 'medmoe_images_total{source="kept"} 4.0'}


async def test_each_tenant_has_its_own_rate(running: ServiceFactory, keys: Path, vqa_body: dict[str, Any]) -> None:
    async with running(api_keys=keys, requests_per_minute=2) as service:
        for _ in range(2):
            assert (await service.client.post("/v1/vqa", json=vqa_body, headers=bearer(WARD))).status_code == 200
        refused = await service.client.post("/v1/vqa", json=vqa_body, headers=bearer(WARD))
        check(refused, 429, "rate_limited")
        assert 1 <= int(refused.headers["retry-after"]) <= 30
        assert (await service.client.post("/v1/vqa", json=vqa_body, headers=bearer(LAB))).status_code == 200
        # Looking costs the engine nothing.
        assert (await service.client.get("/metrics", headers=bearer(WARD))).status_code == 200


async def test_the_log_tells_tenants_apart_without_names_or_keys(
    running: ServiceFactory, keys: Path, vqa_body: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with running(api_keys=keys) as service:
        caplog.clear()
        for key in (WARD, LAB, "mm-wrong"):
            await service.client.post("/v1/vqa", json=vqa_body, headers=bearer(key))
        lines = [JsonFormatter().format(record) for record in caplog.records if record.name == "medmoe.request"]
        tenants = [json.loads(line)["tenant"] for line in lines]
        assert len(set(tenants)) == 3
        assert tenants[2] is None
        metrics = (await service.client.get("/metrics", headers=bearer(WARD))).text
    for secret in (WARD, LAB, "mm-wrong", "ward-7", WARD_LINE.split()[1]):
        assert all(secret not in text for text in (caplog.text, *lines, metrics))


async def test_a_key_file_that_cannot_be_read_stops_the_start(running: ServiceFactory, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="key file"):
        async with running(api_keys=tmp_path / "nowhere"):
            pass


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [
        ("ask", {"/v1/vqa", "/v1/sources", "/v1/models"}),
        ("stats", {"/v1/router/stats", "/metrics", "/v1/models"}),
        ("admin", {"/v1/vqa", "/v1/sources", "/v1/router/stats", "/metrics", "/v1/models"}),
    ],
)
async def test_a_key_does_what_its_scopes_say(
    running: ServiceFactory, keys: Path, vqa_body: dict[str, Any], scopes: str, allowed: set[str]
) -> None:
    rewrite(keys, f"{WARD_LINE} scopes={scopes}\n")
    async with running(api_keys=keys) as service:
        answers = {"/v1/vqa": await service.client.post("/v1/vqa", json=vqa_body, headers=bearer(WARD))}
        for path in ("/v1/sources", "/v1/router/stats", "/metrics", "/v1/models"):
            answers[path] = await service.client.get(path, headers=bearer(WARD))
    assert {path for path, answer in answers.items() if answer.status_code == 200} == allowed
    for path in answers.keys() - allowed:
        check(answers[path], 403, "insufficient_scope")
        needed = "ask" if path in ("/v1/vqa", "/v1/sources") else "stats"
        assert answers[path].headers["www-authenticate"] == f'Bearer error="insufficient_scope", scope="{needed}"'


async def test_a_revoked_key_is_dead_within_two_seconds_and_so_is_its_stream(
    running: ServiceFactory, keys: Path, vqa_body: dict[str, Any]
) -> None:
    async with running(api_keys=keys) as service:
        service.engine.delay = 3600
        before = service.engine.started
        asking = [
            asyncio.create_task(service.client.post("/v1/vqa", json=vqa_body | more, headers=bearer(key)))
            for key, more in ((WARD, {"stream": True}), (WARD, {}), (LAB, {}))
        ]
        await until(lambda: service.engine.started == before + 3 or any(task.done() for task in asking))
        assert [task.result().text for task in asking if task.done()] == []
        new, line = new_key("ward-7")
        begun = time.monotonic()
        rewrite(keys, f"{line}\n{LAB_LINE}\n")
        streamed, whole = await asyncio.gather(*asking[:2])
        assert time.monotonic() - begun < 2
        assert not asking[2].done()
        asking[2].cancel()
        assert '"code":"invalid_api_key"' in streamed.text
        check(whole, 401, "invalid_api_key")
        service.engine.delay = 0
        check(await service.client.get("/v1/models", headers=bearer(WARD)), 401, "invalid_api_key")
        for key in (new, LAB):
            assert (await service.client.post("/v1/vqa", json=vqa_body, headers=bearer(key))).status_code == 200


async def test_a_key_dies_although_the_file_could_not_be_read_for_a_while(
    running: ServiceFactory, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_keys, "_SECONDS", 0.01)

    def no_thread(_: Path) -> bytes:
        raise RuntimeError("can't start new thread")

    async with running(api_keys=keys) as service:
        watched = service.state.authenticator.keys
        assert watched is not None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(api_keys, "read_key_file", no_thread)
            async with asyncio.timeout(60):
                while not watched.is_stale:
                    await asyncio.sleep(0.01)
        rewrite(keys, LAB_LINE)
        async with asyncio.timeout(60):
            while (await service.client.get("/v1/models", headers=bearer(WARD))).status_code != 401:
                await asyncio.sleep(0.01)


async def test_a_key_file_whose_disk_hangs_is_told_and_read_once_it_answers(
    running: ServiceFactory, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_keys, "_SECONDS", 0.01)
    monkeypatch.setattr("medmoe.server.tasks._PATIENCE", 0.1)
    ended, read = threading.Event(), api_keys.read_key_file

    def hang(path: Path) -> bytes:
        ended.wait(60)
        return read(path)

    async with running(api_keys=keys) as service:
        try:
            monkeypatch.setattr(api_keys, "read_key_file", hang)
            async with asyncio.timeout(30):
                while "medmoe_api_keys_stale 1.0" not in (await _metrics(service)):
                    await asyncio.sleep(0.01)
            rewrite(keys, LAB_LINE)
        finally:
            ended.set()
        async with asyncio.timeout(60):
            while (await service.client.get("/v1/models", headers=bearer(WARD))).status_code != 401:
                await asyncio.sleep(0.01)
        assert "medmoe_api_keys_stale 0.0" in (await _metrics(service))


async def _metrics(service: Service) -> str:
    return (await service.client.get("/metrics", headers=bearer(LAB))).text


async def test_a_damaged_key_file_keeps_the_keys_and_says_so_once(
    running: ServiceFactory, keys: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(api_keys, "_SECONDS", 0.01)

    def complaints() -> list[str]:
        return [JsonFormatter().format(record) for record in caplog.records if "cannot be used" in record.message]

    async with running(api_keys=keys) as service:
        watched = service.state.authenticator.keys
        assert watched is not None
        for number, damaged in enumerate((f"ward-7 {WARD}\n", "", None), start=1):
            rewrite(keys, damaged)
            async with asyncio.timeout(60):
                while len(complaints()) < number:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            assert len(complaints()) == number
            metrics = await service.client.get("/metrics", headers=bearer(WARD))
            assert "medmoe_api_keys_stale 1.0" in metrics.text
        assert WARD not in "".join(complaints())
        rewrite(keys, f"{WARD_LINE}\n{LAB_LINE}\n")
        async with asyncio.timeout(60):
            while watched.is_stale:
                await asyncio.sleep(0.01)
        assert "medmoe_api_keys_stale 0.0" in (await service.client.get("/metrics", headers=bearer(WARD))).text

"""What every answer tells a browser, and who may read the documentation."""

from pathlib import Path

import pytest

from medmoe.server.auth.key_file import new_key
from tests.integration.conftest import Service, ServiceFactory, check

EXPECTED = {
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}


@pytest.mark.parametrize(
    "path", ["/health/live", "/metrics", "/v1/router/stats", "/v1/vqa", "/nowhere", "/openapi.json"]
)
async def test_every_answer_carries_them(service: Service, path: str) -> None:
    headers = (await service.client.get(path)).headers
    assert {name: headers.get(name) for name in EXPECTED} == EXPECTED
    assert not {"server", "x-powered-by", "access-control-allow-origin"} & set(headers)


async def test_the_documentations_script_may_talk_to_this_service_only(service: Service) -> None:
    page = await service.client.get("/docs")
    assert page.status_code == 200
    script = await service.client.get("/docs/docs.js")
    assert '"openapi.json"' in script.text
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["connect-src"] == "'self'"
    assert policy["form-action"] == policy["frame-ancestors"] == "'none'"


async def test_with_keys_strangers_see_health_and_nothing_else(running: ServiceFactory, tmp_path: Path) -> None:
    key, line = new_key("ward")
    (tmp_path / "keys").write_text(line)
    async with running(api_keys=tmp_path / "keys") as service:
        paths = set((await _document(service, key))["paths"]) | {"/openapi.json"}
        for path in sorted(paths - {"/health/live", "/health/ready"}):
            for method in ("GET", "POST"):
                response = await service.client.request(method, path)
                if response.status_code != 405:
                    check(response, 401, "invalid_api_key")
        assert (await service.client.get("/health/live")).status_code == 200
        assert (await service.client.get("/health/ready")).status_code == 200


async def _document(service: Service, key: str) -> dict[str, dict[str, object]]:
    response = await service.client.get("/openapi.json", headers={"Authorization": f"Bearer {key}"})
    assert response.status_code == 200
    found: dict[str, dict[str, object]] = response.json()
    return found

"""/docs without the Internet, below a path prefix."""

import re
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

import medmoe.server
from tests.integration.conftest import Service, check

FOLDER = Path(medmoe.server.__path__[0]) / "openapi" / "docs_page"


@pytest.mark.parametrize("prefix", ["", "/hospital/medmoe"])
async def test_all_that_the_page_loads_comes_from_below_its_own_prefix(service: Service, prefix: str) -> None:
    proxy = Starlette(routes=[Mount(prefix, service.app)])
    transport = httpx.ASGITransport(app=proxy)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        address = f"{prefix}/docs"
        page = await client.get(address)
        assert page.status_code == 200
        loaded = re.findall(r'(?:src|href)="(?!data:)([^"]+)"', page.text)
        assert {"docs/swagger-ui-bundle.js", "docs/swagger-ui.css", "docs/docs.js", "openapi.json"} <= set(loaded)
        for relative in loaded:
            response = await client.get(urljoin(address, relative))
            assert response.status_code == 200, relative
            assert response.content


@pytest.mark.parametrize("path", ["/docs/", "/docs/nothing.js", "/docs/..%2fapp.py", "/docs/a/b.js"])
async def test_there_are_no_other_files(service: Service, path: str) -> None:
    check(await service.client.get(path), 404, "not_found")


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.iterdir()))
def test_no_file_names_another_host(name: str) -> None:
    assert not re.findall(r"(?:https?:)?//[\w.-]+\.\w+", (FOLDER / name).read_text())

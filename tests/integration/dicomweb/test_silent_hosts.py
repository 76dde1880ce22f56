"""Disks and name servers that do not answer hold what needs them, and nothing else."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from medmoe.server.dicomweb import sources
from tests.integration.conftest import ServiceFactory, check, image_bytes
from tests.integration.dicomweb.conftest import SourcesFile
from tests.support.service.server_process import server_process

THREADS = 32
"""As many as asyncio's own pool ever has."""


@pytest.fixture
def silence() -> Iterator[threading.Event]:
    """Lasts until the event is set, and not longer than the test."""
    ended = threading.Event()
    yield ended
    ended.set()


@pytest.fixture(params=["name server", "disk"])
def silent(request: pytest.FixtureRequest, silence: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look up no name, or read no file of a credential, while `silence` lasts."""

    def wait(*_: Any, **__: Any) -> Any:
        silence.wait(60)
        raise OSError

    if request.param == "disk":
        monkeypatch.setattr(sources.Credential, "header", wait)
    else:
        monkeypatch.setattr(socket, "getaddrinfo", wait)


@pytest.mark.usefixtures("silent")
async def test_a_source_that_is_not_found_holds_no_image_of_others(
    running: ServiceFactory, sources_file: SourcesFile
) -> None:
    path = sources_file("http://localhost:9")
    async with running(dicomweb_sources=path, dicomweb_requests=THREADS, dicomweb_seconds=0.5) as service:

        async def listed() -> None:
            check(await service.client.get("/v1/sources/pacs/studies"), 504, "source_timeout")

        await asyncio.gather(*(listed() for _ in range(THREADS)))
        # Large enough to be hashed in a thread.
        large = image_bytes((1200, 1200)) + bytes(2**20)
        form: dict[str, Any] = {"data": {"question": "Is it?"}, "files": {"image": ("x.png", large, "image/png")}}
        async with asyncio.timeout(10):
            assert (await service.client.post("/v1/vqa", **form)).status_code == 200


_WITH_SILENCE = """
import time
from medmoe.server import __main__ as server
from medmoe.server.dicomweb import sources
from medmoe.server.imaging.fetch import addresses

sources.Credential.header = addresses._ask = lambda *_: time.sleep(3600)
raise SystemExit(server.main())
"""
URL = "https://images.hospital.example/a.png"


def test_a_service_ends_while_what_it_asked_is_silent(checkpoint: Path, sources_file: SourcesFile) -> None:
    settings = {"MODEL": checkpoint, "ENGINE": "fake", "DICOMWEB_SOURCES": sources_file("http://localhost:9")}
    settings |= {"DICOMWEB_SECONDS": 0.5, "IMAGE_URL_SECONDS": 0.5, "IMAGE_URL_HOSTS": "images.hospital.example"}
    with server_process(
        arguments=("-c", _WITH_SILENCE), settings={f"MEDMOE_{name}": str(value) for name, value in settings.items()}
    ) as server:
        server.wait_ready(300)
        asked = httpx.get(f"{server.url}/v1/sources/pacs/studies", timeout=60)
        assert asked.json()["error"]["code"] == "source_timeout"
        content = [{"type": "image_url", "image_url": {"url": URL}}, {"type": "text", "text": "Is it?"}]
        chat = {"messages": [{"role": "user", "content": content}]}
        asked = httpx.post(f"{server.url}/v1/chat/completions", json=chat, timeout=60)
        assert asked.json()["error"]["code"] == "image_url_timeout"
        server.stop()
    assert server.process.returncode == 0

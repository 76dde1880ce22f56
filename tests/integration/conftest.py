"""One tiny checkpoint on disk, without weights, and the whole service over it with the fake engine."""

import asyncio
import base64
import io
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from asgi_lifespan import LifespanManager
from fastapi import FastAPI
from PIL import Image

from medmoe.model.cli import main
from medmoe.model.config import MedMoEConfig
from medmoe.model.prompt import Prompt
from medmoe.server.admission.readiness import Phase
from medmoe.server.app import create_app
from medmoe.server.engine.base import Engine
from medmoe.server.engine.fake_engine import FakeEngine
from medmoe.server.settings import Settings
from medmoe.server.state import State
from tests.support.checkpoints.tiny import tiny_config, tiny_tokenizer
from tests.support.service.server_process import ServerProcess, server_process

SECRET = "SECRET-at-0x7f2a"
"""What tests hide in exceptions and field names; no answer may repeat it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """A running app and everything a test may want to look at."""

    app: FastAPI
    client: httpx.AsyncClient
    engine: FakeEngine
    state: State
    fatal: list[str]
    """One entry for each time the app asked for the process to end."""


ServiceFactory = Callable[..., AbstractAsyncContextManager[Service]]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("MEDMOE_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("checkpoint")
    (directory / "config.json").write_text(tiny_config().to_json())
    tiny_tokenizer().save(str(directory / "tokenizer.json"))
    return directory


@pytest.fixture(scope="session")
def config(checkpoint: Path) -> MedMoEConfig:
    return MedMoEConfig.from_directory(checkpoint)


@pytest.fixture(scope="session")
def prompt(checkpoint: Path, config: MedMoEConfig) -> Prompt:
    return Prompt.from_directory(checkpoint, config)


@pytest.fixture
def engine(config: MedMoEConfig, prompt: Prompt) -> FakeEngine:
    return FakeEngine(config, prompt)


@pytest.fixture
def running(checkpoint: Path, engine: FakeEngine) -> ServiceFactory:
    """`async with running(max_queued=0) as service:`, any setting by name; ready unless `wait=False`.

    With `rebuild`, an engine that dies is replaced by what it returns; `build` gets the settings.
    """

    @asynccontextmanager
    async def factory(
        *,
        wait: bool = True,
        rebuild: Callable[[], Engine] | None = None,
        build: Callable[[Settings], Engine] | None = None,
        **settings: Any,
    ) -> AsyncIterator[Service]:
        fatal: list[str] = []
        if rebuild is not None:
            build = lambda _: rebuild()  # noqa: E731
        app = create_app(
            # The fake engine spreads its probability over the whole vocabulary; the test client has its own name for
            # the service.
            Settings(**{"model": checkpoint, "min_label_mass": 0.0, "insecure": True} | settings),
            engine,
            on_failure=lambda: fatal.append("failed"),
            build=build,
        )
        state: State = app.state.medmoe
        async with LifespanManager(app):
            if wait:
                assert state.starting is not None
                await state.starting
                assert state.readiness.phase is Phase.READY
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
                yield Service(app=app, client=client, engine=engine, state=state, fatal=fatal)

    return factory


@pytest.fixture
async def service(running: ServiceFactory) -> AsyncIterator[Service]:
    async with running() as service:
        yield service


async def until(condition: Callable[[], bool]) -> None:
    """Let the other tasks run until `condition` holds; a minute is a hang, also on a busy machine."""
    async with asyncio.timeout(60):
        # The watched counts belong to the product, which has no event to wait for.
        while not condition():
            await asyncio.sleep(0.001)


async def gives_up(service: Service, asking: Coroutine[Any, Any, Any]) -> None:
    """A client that leaves while the engine works on what it is `asking` stops the engine, and holds no slot."""
    service.engine.delay = 3600
    before = service.engine.started
    client = asyncio.create_task(asking)
    await until(lambda: service.engine.started > before)
    client.cancel()
    with pytest.raises(asyncio.CancelledError):
        await client
    assert service.engine.aborted == 1
    assert service.state.admission.in_flight == 0


def check(response: httpx.Response, status: int, code: str, param: str | None = None) -> None:
    """The one error body, with nothing of SECRET in it."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error"}
    error = body["error"]
    assert set(error) == {"type", "code", "message", "param", "request_id"}
    assert (error["code"], error["param"]) == (code, param)
    assert error["message"]
    assert error["request_id"] == response.headers["x-request-id"]
    assert SECRET not in response.text


def image_bytes(size: tuple[int, int] = (48, 40), *, kind: str = "PNG", shade: int = 90) -> bytes:
    """A gradient, so that cutting the file short really loses something."""
    image = Image.linear_gradient("L").resize(size).point(lambda value: (value + shade) % 256).convert("RGB")
    file = io.BytesIO()
    image.save(file, format=kind)
    return file.getvalue()


def base64_image(**options: Any) -> str:
    return base64.b64encode(image_bytes(**options)).decode()


Medmoe = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def medmoe(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Medmoe:
    """Run the program in this process, against the service at `url`, with a `key` in its environment."""

    def run(
        *arguments: object, url: str | None = None, key: str | None = None, given: bytes = b""
    ) -> subprocess.CompletedProcess[str]:
        command = ["medmoe", *map(str, arguments), *(["--url", url] if url else [])]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", command)
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
            if key is not None:
                patch.setenv("MEDMOE_API_KEY", key)
            with pytest.raises(SystemExit) as ended:
                main()
        return subprocess.CompletedProcess(command, int(ended.value.code or 0), *capfd.readouterr())

    return run


@pytest.fixture
def vqa_body() -> dict[str, Any]:
    return {"image": base64_image(), "question": "Is there a fracture?"}


@pytest.fixture
def classify_body() -> dict[str, Any]:
    return {"image": base64_image(), "labels": ["CT", "MRI", "X-ray"]}


@pytest.fixture(scope="module")
def server(checkpoint: Path) -> Iterator[ServerProcess]:
    """The tiny checkpoint over the fake engine, as a process with a socket."""
    with server_process(settings={"MEDMOE_MODEL": str(checkpoint), "MEDMOE_ENGINE": "fake"}) as server:
        server.wait_ready(300)
        yield server

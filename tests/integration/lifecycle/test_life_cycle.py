"""Starting, ready, draining, failed: what an orchestrator sees."""

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
from asgi_lifespan import LifespanManager

from medmoe.model.config import MedMoEConfig
from medmoe.model.prompt import Prompt
from medmoe.server.app import create_app
from medmoe.server.engine.base import EngineError, GenerationChunk, GenerationRequest
from medmoe.server.engine.fake_engine import FakeEngine
from medmoe.server.lifecycle.draining import drain
from medmoe.server.settings import Settings
from tests.integration.conftest import Service, ServiceFactory, check, until


class SlowStart(FakeEngine):
    """Starts when told to."""

    def __init__(self, config: MedMoEConfig, prompt: Prompt) -> None:
        super().__init__(config, prompt)
        self.may_start = asyncio.Event()

    async def start(self) -> None:
        await self.may_start.wait()


class FailedStart(FakeEngine):
    async def start(self) -> None:
        raise EngineError("out of memory")


class Babbler(FakeEngine):
    """Starts, but cannot answer."""

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
        raise RuntimeError("out of memory")
        yield


async def status(service: Service, path: str) -> int:
    return (await service.client.get(path)).status_code


@pytest.fixture
def engine(request: pytest.FixtureRequest, config: MedMoEConfig, prompt: Prompt) -> FakeEngine:
    kind: type[FakeEngine] = getattr(request, "param", FakeEngine)
    return kind(config, prompt)


@pytest.mark.parametrize("engine", [SlowStart], indirect=True)
async def test_a_loading_service_is_alive_but_not_ready(running: ServiceFactory, vqa_body: dict[str, Any]) -> None:
    async with running(wait=False) as service:
        assert await status(service, "/health/live") == 200
        assert await status(service, "/health/ready") == 503
        response = await service.client.post("/v1/vqa", json=vqa_body)
        assert (response.status_code, response.json()["error"]["code"]) == (503, "not_ready")
        assert "medmoe_ready 0.0" in (await service.client.get("/metrics")).text
        assert isinstance(service.engine, SlowStart)
        service.engine.may_start.set()
        assert service.state.starting is not None
        await service.state.starting
        assert await status(service, "/health/ready") == 200
        assert "medmoe_ready 1.0" in (await service.client.get("/metrics")).text


async def test_ready_means_that_a_question_was_answered(service: Service) -> None:
    assert (service.engine.started, service.engine.finished) == (1, 1)


async def test_the_warm_up_is_not_counted_among_the_experts(service: Service) -> None:
    assert (await service.client.get("/v1/router/stats")).json()["requests"] == 0


@pytest.mark.parametrize("engine", [FailedStart, Babbler], indirect=True)
async def test_a_start_that_fails_is_final_and_explained_to_the_operator_only(
    running: ServiceFactory, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(wait=False) as service:
        assert service.state.starting is not None
        await service.state.starting
        for path in ("/health/live", "/health/ready"):
            response = await service.client.get(path)
            assert response.status_code == 503
            assert "memory" not in response.text
        assert service.fatal == ["failed"]
    reasons = [getattr(record, "fields", {}).get("reason") for record in caplog.records]
    assert "out of memory" in reasons


async def test_shutting_down_refuses_what_comes_and_finishes_what_is_inside(
    checkpoint: Path, config: MedMoEConfig, prompt: Prompt, vqa_body: dict[str, Any]
) -> None:
    closed_with: list[int] = []
    may_continue = asyncio.Event()

    class Closing(FakeEngine):
        async def close(self) -> None:
            closed_with.append(app.state.medmoe.admission.in_flight)

        async def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationChunk, None]:
            if app.state.medmoe.readiness.phase == "ready":
                await may_continue.wait()
            async for chunk in super().generate(request):
                yield chunk

    app = create_app(Settings(model=checkpoint, insecure=True), Closing(config, prompt))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://service") as client:
        manager = LifespanManager(app)
        async with manager:
            await app.state.medmoe.starting
            inside = asyncio.create_task(client.post("/v1/vqa", json=vqa_body))
            await until(lambda: app.state.medmoe.admission.in_flight > 0)
            leaving = asyncio.create_task(_refused_then_released(client, vqa_body, app, may_continue))
        codes = await leaving
        assert codes == {"/v1/vqa": "draining", "/health/ready": "draining"}
        assert (await inside).status_code == 200
    assert closed_with == [0]


async def _refused_then_released(
    client: httpx.AsyncClient, body: dict[str, Any], app: Any, may_continue: asyncio.Event
) -> dict[str, str]:
    await until(lambda: app.state.medmoe.readiness.phase == "draining")
    refused = {
        "/v1/vqa": await client.post("/v1/vqa", json=body),
        "/health/ready": await client.get("/health/ready"),
    }
    assert (await client.get("/health/live")).status_code == 200
    may_continue.set()
    assert {response.status_code for response in refused.values()} == {503}
    return {path: response.json()["error"]["code"] for path, response in refused.items()}


async def test_new_requests_are_answered_until_load_balancers_have_noticed_the_stop(
    running: ServiceFactory, vqa_body: dict[str, Any]
) -> None:
    async with running(drain_lag_seconds=3600) as service:
        hurry = asyncio.Event()
        draining = asyncio.create_task(drain(service.state, hurry=hurry))
        await until(lambda: service.state.readiness.leaving)
        check(await service.client.get("/health/ready"), 503, "draining")
        assert "medmoe_ready 0.0" in (await service.client.get("/metrics")).text
        assert (await service.client.post("/v1/vqa", json=vqa_body)).status_code == 200
        hurry.set()
        await draining
        check(await service.client.post("/v1/vqa", json=vqa_body), 503, "draining")


@pytest.mark.parametrize("engine", [SlowStart], indirect=True)
async def test_a_service_can_be_stopped_while_it_loads(running: ServiceFactory) -> None:
    async with running(wait=False) as service:
        assert service.fatal == []
    assert service.fatal == []


async def test_an_engine_that_dies_while_nobody_asks_is_noticed(
    running: ServiceFactory, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medmoe.server.lifecycle.supervisor._WATCH_SECONDS", 0.01)
    async with running() as service:
        engine.dead = True
        async with asyncio.timeout(60):
            while (await service.client.get("/health/live")).status_code == 200:
                await asyncio.sleep(0.01)
        assert service.fatal == ["failed"]


async def test_what_is_not_finished_when_the_service_stops_is_told_so(
    running: ServiceFactory, engine: FakeEngine, vqa_body: dict[str, Any]
) -> None:
    real = engine.log_probabilities

    def slow_later(image_id: str, ids: Any) -> Any:
        engine.delay = 3600
        return real(image_id, ids)

    async with running(drain_seconds=0.05, max_concurrent=2) as service:
        engine.log_probabilities = slow_later  # type: ignore[method-assign]
        post = service.client.post
        stream = asyncio.create_task(post("/v1/vqa", json=vqa_body | {"stream": True, "question": "Which lobe?"}))
        await until(lambda: engine.delay > 0)
        whole, queued = (asyncio.create_task(post("/v1/vqa", json=vqa_body)) for _ in range(2))
        await until(lambda: service.state.admission.in_flight == 3)
    assert (await stream).status_code == 200
    assert (
        json.loads((await stream).text.strip().split("\n\n")[-1].removeprefix("data: "))["error"]["code"] == "draining"
    )
    for refused in (await whole, await queued):
        check(refused, 503, "draining")
    assert engine.started == engine.finished + engine.aborted

"""An engine whose process is killed: what clients see, and how the service comes back."""

import asyncio
import errno
import json
import logging
import shutil
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from medmoe.model.config import MedMoEConfig
from medmoe.model.prompt import Prompt
from medmoe.server.admission.readiness import Phase
from medmoe.server.engine.base import GenerationRequest
from medmoe.server.engine.fake_engine import FakeEngine
from medmoe.server.engine.restartable_engine import RestartableEngine
from medmoe.server.errors import EngineDeadError, EngineRestarting
from medmoe.server.lifecycle import supervisor
from medmoe.server.observability.json_log import JsonFormatter
from tests.integration.conftest import Service, ServiceFactory, base64_image, check, until
from tests.support.service.mortal_engine import MortalEngine

POISON = "fracture"
HARMLESS = "Is it normal?"


@dataclass(kw_only=True, slots=True)
class Engines:
    """Every engine the service has had, the newest last; what the next one will be like."""

    config: MedMoEConfig
    prompt: Prompt
    made: list[MortalEngine] = field(default_factory=list)
    prepare: Callable[[MortalEngine], None] = lambda engine: None
    wanted: threading.Event = field(default_factory=threading.Event)
    """No engine is built while it is clear."""

    def __post_init__(self) -> None:
        self.wanted.set()

    def build(self) -> MortalEngine:
        assert self.wanted.wait(120)
        engine = MortalEngine(self.config, self.prompt, poison=POISON)
        self.prepare(engine)
        self.made.append(engine)
        return engine

    def kill(self) -> None:
        psutil.Process(self.made[-1].pid).kill()


@pytest.fixture
def engines(config: MedMoEConfig, prompt: Prompt) -> Engines:
    return Engines(config=config, prompt=prompt)


@pytest.fixture
def engine(engines: Engines) -> MortalEngine:
    return engines.build()


@pytest.fixture
def mortal(running: ServiceFactory, engines: Engines) -> ServiceFactory:
    """`running`, with engines that can be killed and are replaced."""

    @asynccontextmanager
    async def factory(**settings: Any) -> AsyncIterator[Service]:
        options = {"rebuild": engines.build, "engine_restart_delay_seconds": 0.0} | settings
        async with running(**options) as service:
            yield service

    return factory


async def ask(service: Service, question: str = HARMLESS, **fields: Any) -> httpx.Response:
    return await service.client.post("/v1/vqa", json={"image": base64_image(), "question": question} | fields)


async def ready_again(service: Service) -> None:
    async with asyncio.timeout(120):
        while service.state.readiness.phase is not Phase.READY:
            await asyncio.sleep(0.01)


async def sample(service: Service, name: str, **labels: str) -> float:
    text = (await service.client.get("/metrics")).text
    (value,) = (
        one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
        if one.name == name and one.labels == labels
    )
    return value


def pinned(service: Service) -> str:
    return service.state.active.pinned_name


def hang_after_the_first_token(engine: MortalEngine) -> None:
    real = engine.log_probabilities

    def slow_later(image_id: str, ids: Any) -> Any:
        engine.delay = 3600
        return real(image_id, ids)

    engine.log_probabilities = slow_later  # type: ignore[method-assign]


async def test_what_is_in_flight_gets_503_and_the_next_engine_answers(
    mortal: ServiceFactory, engines: Engines, engine: MortalEngine, classify_body: dict[str, Any]
) -> None:
    async with mortal(max_concurrent=2, max_queued=4) as service:
        engine.delay = 3600
        # Two in the engine, two in the queue.
        inside = [asyncio.create_task(ask(service)) for _ in range(3)]
        inside.append(asyncio.create_task(service.client.post("/v1/classify", json=classify_body)))
        await until(lambda: service.state.admission.in_flight == 4 and engine.running == 2)
        # The queue must not be quicker than the next engine, which could answer it.
        engines.wanted.clear()
        engines.kill()
        for response in await asyncio.gather(*inside):
            check(response, 503, "engine_dead")
        engines.wanted.set()
        await ready_again(service)
        assert len(engines.made) == 2
        assert engine.closed
        assert (await service.client.get("/health/ready")).status_code == 200
        assert (await ask(service)).status_code == 200
        assert service.fatal == []
        assert engines.made[-1].running == 0


async def test_a_stream_in_flight_ends_with_an_error_event(
    mortal: ServiceFactory, engines: Engines, engine: MortalEngine
) -> None:
    async with mortal() as service:
        hang_after_the_first_token(engine)
        stream = asyncio.create_task(ask(service, "Which lobe?", stream=True))
        await until(lambda: engine.delay > 0)
        # The first token is on its way, the second will never come.
        await asyncio.sleep(0.05)
        engines.kill()
        response = await stream
        assert response.status_code == 200
        *_, last = response.text.strip().split("\n\n")
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "engine_dead"


async def test_while_it_restarts_the_service_is_alive_not_ready_and_says_when_to_come_back(
    mortal: ServiceFactory, engines: Engines
) -> None:
    may_start = asyncio.Event()

    def slow(engine: MortalEngine) -> None:
        start = engine.start

        async def start_later() -> None:
            await may_start.wait()
            await start()

        engine.start = start_later  # type: ignore[method-assign]

    async with mortal() as service:
        engines.prepare = slow
        engines.kill()
        # Nobody asks anything: the service finds out by itself.
        await until_not(service, Phase.READY)
        await until(lambda: len(engines.made) == 2)
        for response in (await service.client.get("/health/ready"), await ask(service)):
            check(response, 503, "engine_restarting")
            assert int(response.headers["retry-after"]) >= 1
        live = await service.client.get("/health/live")
        assert (live.status_code, live.json()["status"]) == (200, "restarting")
        assert await sample(service, "medmoe_ready") == 0
        may_start.set()
        await ready_again(service)
        assert await sample(service, "medmoe_ready") == 1


async def until_not(service: Service, phase: Phase) -> None:
    async with asyncio.timeout(120):
        while service.state.readiness.phase is phase:
            await asyncio.sleep(0.01)


async def test_statistics_and_metrics_survive_and_the_second_warm_up_is_not_in_them(
    mortal: ServiceFactory, engines: Engines
) -> None:
    async with mortal() as service:
        assert (await ask(service)).status_code == 200
        before = (await service.client.get("/v1/router/stats")).json()
        engines.kill()
        await until_not(service, Phase.READY)
        await ready_again(service)
        assert (await service.client.get("/v1/router/stats")).json() == before
        assert engines.made[-1].finished == 1
        assert await sample(service, "medmoe_requests_total", route="/v1/vqa", status="200") == 1
        assert await sample(service, "medmoe_engine_restarts_total", model=pinned(service), outcome="restarted") == 1
        assert await sample(service, "medmoe_engine_restarts_total", model=pinned(service), outcome="failed") == 0


async def test_every_death_is_survived_while_there_are_not_too_many(mortal: ServiceFactory, engines: Engines) -> None:
    async with mortal(engine_restarts=3) as service:
        for _ in range(3):
            engines.kill()
            await until_not(service, Phase.READY)
            await ready_again(service)
            assert (await ask(service)).status_code == 200
        engines.kill()
        await until_not(service, Phase.READY)
        await until(lambda: service.fatal == ["failed"])
        check(await service.client.get("/health/live"), 503, "engine_dead")
        check(await ask(service), 503, "engine_dead")
        assert len(engines.made) == 4


async def test_an_engine_that_does_not_start_again_is_tried_a_few_times(
    mortal: ServiceFactory, engines: Engines
) -> None:
    async with mortal(engine_restarts=4) as service:
        engines.prepare = lambda engine: setattr(engine, "fail_start", len(engines.made) < 3)
        engines.kill()
        await until_not(service, Phase.READY)
        await ready_again(service)
        assert await sample(service, "medmoe_engine_restarts_total", model=pinned(service), outcome="failed") == 2
        assert await sample(service, "medmoe_engine_restarts_total", model=pinned(service), outcome="restarted") == 1
        assert all(engine.closed for engine in engines.made[:-1])
        engines.prepare = lambda engine: setattr(engine, "fail_start", True)
        engines.kill()
        await until(lambda: service.fatal == ["failed"])


async def test_an_engine_that_starts_but_cannot_answer_does_not_make_the_service_ready(
    mortal: ServiceFactory, engines: Engines
) -> None:
    async with mortal(engine_restarts=2) as service:
        engines.prepare = lambda engine: setattr(engine, "fail_next", RuntimeError("no"))
        engines.kill()
        await until_not(service, Phase.READY)
        await until(lambda: service.fatal == ["failed"])
        assert all(engine.closed for engine in engines.made)


async def test_exit_instead_of_restart(mortal: ServiceFactory, engines: Engines) -> None:
    async with mortal(on_engine_death="exit") as service:
        engines.kill()
        await until(lambda: service.fatal == ["failed"])
        check(await service.client.get("/health/live"), 503, "engine_dead")
        assert len(engines.made) == 1


async def test_other_weights_on_disk_end_the_service_instead_of_being_served_under_the_old_hash(
    mortal: ServiceFactory, engines: Engines, checkpoint: Path, tmp_path: Path
) -> None:
    copied = shutil.copytree(checkpoint, tmp_path / "copied")
    async with mortal(model=copied) as service:
        (copied / "model.safetensors").write_bytes(b"other weights")
        engines.kill()
        await until_not(service, Phase.READY)
        await until(lambda: service.fatal == ["failed"])
        assert all(engine.closed for engine in engines.made)


@pytest.mark.parametrize("name", ["tokenizer.json", "adapter_config.json"])
async def test_other_files_beside_the_weights_end_the_service_too(
    mortal: ServiceFactory, engines: Engines, checkpoint: Path, tmp_path: Path, name: str
) -> None:
    """The next engine would decode, or scale its adapters, by another file than the service has read."""
    copied = shutil.copytree(checkpoint, tmp_path / "copied")
    async with mortal(model=copied) as service:
        with (copied / name).open("a") as file:
            file.write(" ")
        engines.kill()
        await until_not(service, Phase.READY)
        await until(lambda: service.fatal == ["failed"] or service.state.readiness.phase is Phase.READY)
        assert service.fatal == ["failed"]


async def test_weights_that_change_while_the_next_engine_starts_are_not_served_under_the_old_hash(
    mortal: ServiceFactory, engines: Engines, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = shutil.copytree(checkpoint, tmp_path / "copied")
    async with mortal(model=copied) as service:
        start = MortalEngine.start

        async def start_over_others(engine: MortalEngine) -> None:
            # Whatever read the old file at the same time has had time for it.
            await asyncio.sleep(0.2)
            (copied / "model.safetensors").write_bytes(b"other weights")
            await start(engine)

        monkeypatch.setattr(MortalEngine, "start", start_over_others)
        engines.kill()
        await until_not(service, Phase.READY)
        await until(lambda: service.fatal == ["failed"] or service.state.readiness.phase is Phase.READY)
        assert service.fatal == ["failed"]
        assert all(engine.closed for engine in engines.made)


async def test_an_engine_that_cannot_be_watched_for_a_while_is_watched_again(
    mortal: ServiceFactory, engines: Engines, engine: MortalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As without a file descriptor left."""
    looks = 0
    real = engine.check_health

    async def blind() -> None:
        nonlocal looks
        looks += 1
        raise OSError(errno.EMFILE, "Too many open files")

    async with mortal() as service:
        monkeypatch.setattr(engine, "check_health", blind)
        await until(lambda: looks > 0)
        monkeypatch.setattr(engine, "check_health", real)
        engines.kill()
        await until_not(service, Phase.READY)
        await ready_again(service)
        assert (await ask(service)).status_code == 200


async def test_a_hanging_engine_that_cannot_be_killed_is_replaced(
    mortal: ServiceFactory, engines: Engines, engine: MortalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused() -> None:
        raise psutil.AccessDenied(engine.pid)

    monkeypatch.setattr(engine, "kill", refused)
    async with mortal(engine_hang_seconds=0.5) as service:
        psutil.Process(engine.pid).suspend()
        await until_not(service, Phase.READY)
        await ready_again(service)
        assert await sample(service, "medmoe_engine_hangs_total", model=pinned(service)) == 1


async def test_a_restart_that_fails_by_itself_ends_the_service(
    mortal: ServiceFactory, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(supervisor, "_give_way", broken)
    async with mortal() as service:
        engines.kill()
        await until_not(service, Phase.READY)
        await until(lambda: service.fatal == ["failed"])


async def test_a_service_can_be_stopped_while_it_restarts(mortal: ServiceFactory, engines: Engines) -> None:
    async with mortal() as service:
        engines.prepare = lambda engine: setattr(engine, "delay", 3600)
        engines.kill()
        await until(lambda: len(engines.made) == 2 and engines.made[-1].running == 1)
    assert service.fatal == []
    assert engines.made[-1].closed


async def test_a_request_that_kills_engines_is_refused_after_the_second_and_nobody_else_is(
    mortal: ServiceFactory, engines: Engines, engine: MortalEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    bad = "Is there a fracture?"
    async with mortal() as service:
        engine.delay = 3600
        bystander = asyncio.create_task(ask(service))
        await until(lambda: engine.running == 1)
        check(await ask(service, bad), 503, "engine_dead")
        check(await bystander, 503, "engine_dead")
        await ready_again(service)
        assert await sample(service, "medmoe_quarantine_requests", kind="suspect") == 2
        # The bystander may come again, and is cleared by that; the other kills one more, alone.
        assert (await ask(service)).status_code == 200
        check(await ask(service, bad), 503, "engine_dead")
        await ready_again(service)
        for _ in range(2):
            check(await ask(service, bad), 422, "quarantined")
        assert (await ask(service)).status_code == 200
        assert len(engines.made) == 3
        assert await sample(service, "medmoe_quarantine_requests", kind="suspect") == 0
        assert await sample(service, "medmoe_quarantine_requests", kind="refused") == 1
        assert await sample(service, "medmoe_rejections_total", reason="quarantined") == 2
        text = (await service.client.get("/metrics")).text
    lines = [JsonFormatter().format(record) for record in caplog.records if record.name.startswith("medmoe")]
    assert any("engine died" in line for line in lines)
    assert not any(POISON in line for line in (*lines, text))


async def test_a_classification_that_kills_engines_is_refused_too(mortal: ServiceFactory) -> None:
    async with mortal() as service:
        body = {"image": base64_image(), "labels": ["CT", "MRI"], "question": f"Which {POISON}?"}
        for status, code in ((503, "engine_dead"), (503, "engine_dead"), (422, "quarantined")):
            check(await service.client.post("/v1/classify", json=body), status, code)
            await ready_again(service)


async def test_a_laggard_of_a_dead_engine_does_not_bring_down_the_next(config: MedMoEConfig, prompt: Prompt) -> None:
    first, second = FakeEngine(config, prompt), FakeEngine(config, prompt)
    engine = RestartableEngine(first)
    request = GenerationRequest(
        request_id="slow reader",
        prompt_ids=tuple(prompt.question("What is shown?")),
        image=np.zeros((32, 32, 3), np.uint8),
        image_id="an image",
        max_tokens=8,
    )
    async with aclosing(engine.generate(request)) as chunks:
        await anext(chunks)
        first.dead = True
        with pytest.raises(EngineDeadError):
            await engine.check_health()
        engine.replace(second)
        real = first.log_probabilities

        def die(image_id: str, ids: Any) -> Any:
            real(image_id, ids)
            raise EngineDeadError("late")

        first.log_probabilities = die  # type: ignore[method-assign]
        with pytest.raises(EngineRestarting):
            async for _ in chunks:
                pass
    await engine.check_health()
    async with aclosing(engine.generate(request)) as chunks:
        assert [chunk async for chunk in chunks][-1].finish_reason is not None


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGUSR1], ids=["stopped", "endless loop"])
async def test_an_engine_that_hangs_is_killed_and_replaced(
    mortal: ServiceFactory,
    engines: Engines,
    engine: MortalEngine,
    how: signal.Signals,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with mortal(engine_hang_seconds=1) as service:
        engines.wanted.clear()
        hanging = psutil.Process(engine.pid)
        hanging.send_signal(how)
        check(await ask(service), 503, "engine_dead")
        check(await service.client.get("/health/ready"), 503, "engine_restarting")
        engines.wanted.set()
        await ready_again(service)
        assert not hanging.is_running()
        assert await sample(service, "medmoe_engine_hangs_total", model=pinned(service)) == 1
        assert await sample(service, "medmoe_quarantine_requests", kind="suspect") == 1
        assert (await ask(service)).status_code == 200
        assert await sample(service, "medmoe_quarantine_requests", kind="suspect") == 0
        assert service.fatal == []
    assert "engine hangs" in caplog.text


async def test_an_idle_engine_that_hangs_is_noticed_without_a_request(mortal: ServiceFactory, engines: Engines) -> None:
    async with mortal(engine_hang_seconds=0.5) as service:
        psutil.Process(engines.made[-1].pid).suspend()
        await until_not(service, Phase.READY)
        await ready_again(service)
        assert await sample(service, "medmoe_engine_hangs_total", model=pinned(service)) == 1


async def test_an_engine_that_is_stopped_for_a_while_answers_later(
    mortal: ServiceFactory, engines: Engines, engine: MortalEngine
) -> None:
    async with mortal(engine_hang_seconds=60) as service:
        stopped = psutil.Process(engine.pid)
        stopped.suspend()
        asking = asyncio.create_task(ask(service))
        await until(lambda: engine.running == 1)
        await asyncio.sleep(0.5)
        assert not asking.done()
        stopped.resume()
        assert (await asking).status_code == 200
        assert len(engines.made) == 1

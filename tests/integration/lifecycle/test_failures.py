"""What can go wrong inside: full, dead, late, broken. One error body, and not a word that was thrown."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from medmoe.server.engine.base import EngineDeadError, GenerationError
from tests.integration.conftest import SECRET, Service, ServiceFactory, base64_image, check, until


async def post(service: Service, body: dict[str, Any], path: str = "/v1/vqa") -> httpx.Response:
    return await service.client.post(path, json=body)


async def test_a_full_house_is_refused_with_429(running: ServiceFactory, vqa_body: dict[str, Any]) -> None:
    async with running(max_concurrent=1, max_queued=1) as service:
        service.engine.delay = 3600
        inside = [asyncio.create_task(post(service, vqa_body)) for _ in range(2)]
        await until(lambda: service.state.admission.in_flight == 2)
        response = await post(service, vqa_body)
        check(response, 429, "overloaded")
        assert int(response.headers["retry-after"]) >= 1
        check(await post(service, {"image": "", "labels": []}, "/v1/classify"), 429, "overloaded")
        for task in inside:
            task.cancel()
        await asyncio.gather(*inside, return_exceptions=True)
        assert service.state.admission.in_flight == 0
        service.engine.delay = 0
        assert (await post(service, vqa_body)).status_code == 200


async def test_slow_senders_are_only_so_many(running: ServiceFactory, vqa_body: dict[str, Any]) -> None:
    may_continue = asyncio.Event()
    body = json.dumps(vqa_body).encode()

    async def slowly() -> AsyncIterator[bytes]:
        yield body[:10]
        await may_continue.wait()
        yield body[10:]

    async with running(max_uploads=2) as service:
        client, headers = service.client, {"content-type": "application/json"}
        slow = [asyncio.create_task(client.post("/v1/vqa", content=slowly(), headers=headers)) for _ in range(3)]
        (refused,), waiting = await asyncio.wait(slow, return_when=asyncio.FIRST_COMPLETED)
        check(refused.result(), 429, "overloaded")
        assert service.state.admission.in_flight == 0
        # One of them gives up, and makes room.
        gone = waiting.pop()
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert (await post(service, vqa_body)).status_code == 200
        may_continue.set()
        assert (await waiting.pop()).status_code == 200


async def test_the_longest_time_a_request_may_ask_for_is_the_services_own(
    running: ServiceFactory, vqa_body: dict[str, Any]
) -> None:
    async with running(timeout_ms=20) as service:
        service.engine.delay = 3600
        check(await post(service, vqa_body | {"timeout_ms": 10**30}), 504, "deadline_exceeded")


@pytest.mark.parametrize("failure", [RuntimeError(SECRET), KeyError(SECRET), ValueError(SECRET)], ids=repr)
@pytest.mark.parametrize("path", ["/v1/vqa", "/v1/classify"])
async def test_an_unforeseen_failure_is_500_and_says_nothing(
    service: Service, path: str, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    service.engine.fail_next = failure
    extra = {"question": "What?"} if path == "/v1/vqa" else {"labels": ["CT", "MRI"]}
    check(await post(service, {"image": base64_image(), **extra}, path), 500, "internal_error")
    assert SECRET not in caplog.text
    assert service.state.admission.in_flight == 0
    assert (await service.client.get("/health/ready")).status_code == 200


async def test_a_failed_generation_is_500_and_the_next_one_works(service: Service, vqa_body: dict[str, Any]) -> None:
    service.engine.fail_next = GenerationError(SECRET)
    check(await post(service, vqa_body), 500, "generation_failed")
    assert (await post(service, vqa_body)).status_code == 200


async def test_a_dead_engine_is_503_everywhere_and_asks_for_a_restart(
    service: Service, vqa_body: dict[str, Any]
) -> None:
    service.engine.fail_next = EngineDeadError(SECRET)
    check(await post(service, vqa_body), 503, "engine_dead")
    check(await post(service, vqa_body), 503, "engine_dead")
    check(await service.client.get("/health/ready"), 503, "engine_dead")
    check(await service.client.get("/health/live"), 503, "engine_dead")
    assert service.fatal == ["failed"]


async def test_readiness_notices_a_dead_engine_by_itself(service: Service) -> None:
    service.engine.dead = True
    check(await service.client.get("/health/ready"), 503, "engine_dead")
    assert service.fatal == ["failed"]


@pytest.mark.parametrize("stage", ["queue", "engine"])
async def test_the_deadline_is_504(running: ServiceFactory, vqa_body: dict[str, Any], stage: str) -> None:
    async with running(max_concurrent=1) as service:
        service.engine.delay = 3600
        holder = asyncio.create_task(post(service, vqa_body)) if stage == "queue" else None
        await until(lambda: holder is None or service.state.admission.in_flight > 0)
        check(await post(service, vqa_body | {"timeout_ms": 20}), 504, "deadline_exceeded")
        labels = {"image": vqa_body["image"], "labels": ["CT", "MRI"], "timeout_ms": 20}
        check(await post(service, labels, "/v1/classify"), 504, "deadline_exceeded")
        if holder:
            holder.cancel()
            await asyncio.gather(holder, return_exceptions=True)
        assert service.state.admission.in_flight == 0
        assert service.engine.started == service.engine.finished + service.engine.aborted


async def test_a_stream_that_fails_early_has_its_own_status(service: Service, vqa_body: dict[str, Any]) -> None:
    service.engine.fail_next = GenerationError(SECRET)
    check(await post(service, vqa_body | {"stream": True}), 500, "generation_failed")
    assert service.state.admission.in_flight == 0


@pytest.mark.parametrize(
    ("failure", "code"), [(GenerationError(SECRET), "generation_failed"), (RuntimeError(SECRET), "internal_error")]
)
async def test_a_stream_that_fails_late_ends_with_the_error_body(
    service: Service, vqa_body: dict[str, Any], failure: Exception, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = service.engine.log_probabilities

    def fail_later(image_id: str, ids: Any) -> Any:
        if service.engine.last_request is not None and len(ids) > len(service.engine.last_request.prompt_ids):
            raise failure
        return real(image_id, ids)

    monkeypatch.setattr(service.engine, "log_probabilities", fail_later)
    response = await post(service, vqa_body | {"stream": True, "question": "Which lobe?"})
    assert response.status_code == 200
    assert '"delta"' in response.text
    assert code in response.text.strip().split("\n\n")[-1]
    assert SECRET not in response.text
    assert "[DONE]" not in response.text
    assert service.state.admission.in_flight == 0


async def test_a_stream_past_its_deadline_says_so(service: Service, vqa_body: dict[str, Any]) -> None:
    real = service.engine.log_probabilities

    def slow_later(image_id: str, ids: Any) -> Any:
        service.engine.delay = 3600
        return real(image_id, ids)

    service.engine.log_probabilities = slow_later  # type: ignore[method-assign]
    response = await post(service, vqa_body | {"stream": True, "timeout_ms": 1000})
    assert response.status_code == 200
    assert "deadline_exceeded" in response.text
    assert service.engine.aborted == 1

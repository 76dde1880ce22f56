"""Asking a service: the real app over its fake engine, and a scripted one for what goes wrong."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from asgi_lifespan import LifespanManager
from PIL import Image

from medmoe.client import AsyncClient, Retry
from medmoe.model.config import MedMoEConfig
from medmoe.model.prompt import Prompt
from medmoe.server.app import create_app
from medmoe.server.engine.fake_engine import FakeEngine
from medmoe.server.settings import Settings
from medmoe.training.data.errors import DataError
from medmoe.training.data.sample import Sample
from medmoe.training.evaluation.predict.server_predictor import (
    ServerPredictor,
    ServicePredictionError,
    blocking,
)
from medmoe.training.evaluation.prediction import Prediction
from tests.support.checkpoints.tiny import tiny_config, tiny_tokenizer
from tests.support.service.client_answer import ANSWER

LABELS = ("X-ray", "CT", "MRI")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    folder = tmp_path_factory.mktemp("images")
    found = []
    for number in range(6):
        image = folder / f"{number}.png"
        Image.new("L", (40, 24), 30 * number).save(image)
        given: dict[str, Any] = {"question": f"What is {number}?"} if number % 2 else {"labels": LABELS}
        found.append(Sample(id=f"s{number}", dataset="d", image=image, split="test", answer="CT", **given))
    return found


@pytest_asyncio.fixture
async def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AsyncClient]:
    for name in [name for name in os.environ if name.upper().startswith("MEDMOE_")]:
        monkeypatch.delenv(name)
    (tmp_path / "config.json").write_text(tiny_config().to_json())
    tiny_tokenizer().save(str(tmp_path / "tokenizer.json"))
    config = MedMoEConfig.from_directory(tmp_path)
    app = create_app(
        Settings(model=tmp_path, insecure=True), FakeEngine(config, Prompt.from_directory(tmp_path, config))
    )
    async with LifespanManager(app):
        await app.state.medmoe.starting
        transport = httpx.ASGITransport(app=app)
        async with AsyncClient("http://service", transport=transport) as client:
            yield client


async def collect(predictor: ServerPredictor, samples: list[Sample]) -> list[Prediction]:
    return [prediction async for prediction in predictor.stream(samples)]


async def test_every_sample_is_answered_by_the_service(client: AsyncClient, samples: list[Sample]) -> None:
    predictor = ServerPredictor(client, max_tokens=8, concurrency=3)
    found = {prediction.id: prediction for prediction in await collect(predictor, samples)}
    assert found.keys() == {sample.id for sample in samples}
    for sample in samples:
        prediction = found[sample.id]
        assert prediction.text
        assert prediction.confidence is not None
        assert 0 < prediction.confidence <= 1
        assert prediction.routing is not None
        assert set(prediction.routing.layers) == {0, 2}
        if sample.labels:
            assert prediction.probabilities is not None
            assert tuple(prediction.probabilities) == LABELS
            assert prediction.text == max(prediction.probabilities, key=lambda p: prediction.probabilities[p])  # type: ignore[index]
    assert predictor.identity == {"model": "tiny", "weights_sha256": None, "confidences": "the model's"}


async def test_the_image_is_sent_as_it_lies_on_disk(client: AsyncClient, samples: list[Sample]) -> None:
    predictor = ServerPredictor(client, max_tokens=8)
    first, again = (await collect(predictor, samples[:1]))[0], (await collect(predictor, samples[:1]))[0]
    other = replace(samples[0], image=samples[2].image)
    assert first == again
    assert (await collect(predictor, [other]))[0].probabilities != first.probabilities


async def test_what_the_service_refuses_ends_the_evaluation_with_its_reason(
    client: AsyncClient, samples: list[Sample]
) -> None:
    with pytest.raises(ServicePredictionError, match=r"s1: .*1024.*invalid_field"):
        await collect(ServerPredictor(client, max_tokens=10**6), samples[1:2])


def answer(text: str = "yes", **changes: Any) -> dict[str, Any]:
    confidence = {"value": 0.5, "calibrated": False}
    provenance = {**ANSWER["provenance"], "weights_sha256": "a" * 64}
    return ANSWER | {"answer": text, "confidence": confidence, "provenance": provenance} | changes


def scripted(reply: Callable[[httpx.Request], httpx.Response], *, concurrency: int = 2) -> ServerPredictor:
    async def immediately(seconds: float) -> None:
        await asyncio.sleep(0)

    transport = httpx.MockTransport(reply)
    client = AsyncClient("http://service", transport=transport, retry=Retry(attempts=3), sleep=immediately)
    return ServerPredictor(client, concurrency=concurrency)


def in_turn(*replies: httpx.Response | Exception) -> Callable[[httpx.Request], httpx.Response]:
    waiting: Iterator[httpx.Response | Exception] = iter(replies)

    def reply(_request: httpx.Request) -> httpx.Response:
        found = next(waiting)
        if isinstance(found, Exception):
            raise found
        return found

    return reply


async def test_a_full_service_is_asked_again(samples: list[Sample]) -> None:
    full = httpx.Response(429, headers={"Retry-After": "7"})
    lost = httpx.ConnectError("gone")
    predictor = scripted(in_turn(full, lost, httpx.Response(200, json=answer())))
    assert (await collect(predictor, samples[1:2]))[0].text == "yes"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (httpx.Response(401, json={"error": {"code": "unauthorized", "message": "no key"}}), "no key .unauthorized"),
        (httpx.Response(429, json={"error": {"code": "overloaded", "message": "the service is full"}}), "is full"),
        (httpx.Response(500, text="<html>"), "500"),
        (httpx.Response(200, text="<html>"), "not what this client knows"),
        (httpx.Response(200, json={"answer": "yes"}), "not what this client knows"),
    ],
)
async def test_strange_answers_are_an_error_that_names_the_sample(
    samples: list[Sample], reply: httpx.Response, reason: str
) -> None:
    with pytest.raises(ServicePredictionError, match=reason) as caught:
        await collect(scripted(lambda _: reply), samples[1:2])
    assert "s1" in str(caught.value)


async def test_no_more_requests_at_a_time_than_allowed(samples: list[Sample]) -> None:
    inside, most = 0, 0

    async def reply(_request: httpx.Request) -> httpx.Response:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.01)
        inside -= 1
        return httpx.Response(200, json=answer())

    many = [replace(samples[1], id=f"m{number}") for number in range(9)]
    assert len(await collect(scripted(reply, concurrency=3), many)) == 9  # type: ignore[arg-type]
    assert most == 3


async def test_a_service_that_changes_its_weights_is_not_one_model(samples: list[Sample]) -> None:
    bodies = [answer(), answer(provenance={**ANSWER["provenance"], "weights_sha256": "b" * 64})]
    replies = in_turn(*(httpx.Response(200, json=body) for body in bodies))
    with pytest.raises(ServicePredictionError, match="changed its checkpoint"):
        await collect(scripted(replies, concurrency=1), [samples[1], samples[3]])


async def test_a_confidence_that_the_service_calibrated_is_told(samples: list[Sample]) -> None:
    body = answer(confidence={"value": 0.4, "calibrated": True})
    predictor = scripted(lambda _: httpx.Response(200, json=body))
    await collect(predictor, samples[1:2])
    assert predictor.identity["confidences"] == "calibrated by the service"


async def test_an_image_that_is_gone_is_named(samples: list[Sample]) -> None:
    gone = replace(samples[1], image=samples[1].image.with_name("gone.png"))
    with pytest.raises(DataError, match=r"gone\.png"):
        await collect(scripted(lambda _: httpx.Response(200, json=answer())), [gone])


def test_without_an_event_loop_predictions_come_one_by_one(samples: list[Sample]) -> None:
    def reply(request: httpx.Request) -> httpx.Response:
        question = re.search(rb'name="question"\r\n\r\n(.*?)\r\n', request.content)
        assert question is not None
        return httpx.Response(200, json=answer(question[1].decode()))

    questions = [sample for sample in samples if sample.question]
    with blocking(scripted(reply)) as predict:
        # Twice, because a baseline asks everything again.
        for _ in range(2):
            found = {prediction.id: prediction.text for prediction in predict(questions)}
            assert found == {sample.id: sample.question for sample in questions}

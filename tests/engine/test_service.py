"""The routes over the real engine, and what happens when a request or the engine ends early."""

import asyncio
import base64
import hashlib
import io
import math
import os
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from medmoe.server.engine.base import GenerationRequest
from medmoe.server.engine.deployment.engine_arguments import encoder_cache_embeddings
from tests.engine.conftest import Served
from tests.engine.reference import Reference
from tests.support.checkpoints.tiny_reference import slow_score
from tests.support.images.covered import covered

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="session")]

ENGINE_SERIES = Path(__file__).parents[1] / "support/service/engine_series.txt"


def png(number: int = 0) -> bytes:
    return _png(np.random.default_rng(number).integers(0, 255, (48, 40, 3), dtype=np.uint8))


def encoded(number: int = 0) -> str:
    return base64.b64encode(png(number)).decode()


async def test_an_answer_is_the_reference_models(served: Served) -> None:
    question = "Is there a fracture?"
    response = await served.client.post(
        "/v1/vqa", json={"image": encoded(), "question": question, "max_tokens": 8, "include_routing": True}
    )
    assert response.status_code == 200
    body = response.json()
    reference = Reference(served.checkpoint)
    image = Image.open(io.BytesIO(png()))
    (expected,) = reference.generate([question], [image], max_tokens=8)
    assert body["answer"] == reference.prompt.decode(expected)
    assert body["usage"]["completion_tokens"] == len(expected)
    assert body["routing"] is not None
    trace = reference.trace(question, image, answer=expected)
    total = sum(float(row[token]) for row, token in zip(trace.log_probs, expected, strict=True))
    assert math.isclose(body["confidence"]["value"], math.exp(total), rel_tol=1e-3)


async def test_many_images_stay_with_the_engine(served: Served) -> None:
    """vLLM's own way keeps one step's worth, and would run the vision tower again for every question."""
    config = served.engine._running().vllm_config
    wanted = encoder_cache_embeddings(served.engine._settings, served.engine._config, on_cpu=True)
    assert config.scheduler_config.encoder_cache_size == wanted > 10 * config.scheduler_config.max_num_batched_tokens


@pytest.mark.parametrize("repeated", [1, 40], ids=["one request for all labels", "a request for each node"])
async def test_class_probabilities_are_the_exact_likelihoods(served: Served, repeated: int) -> None:
    """The engine scores all labels at once, unless the prompt is much longer than the labels."""
    labels, question = ["CT", "MRI", "X-ray", "CT lung"], "Which is it? " * repeated
    before = _finished(served.engine.metrics())
    body = {"image": encoded(), "labels": labels, "question": question}
    response = await served.client.post("/v1/classify", json=body)
    assert response.status_code == 200
    body = response.json()
    reference = Reference(served.checkpoint)
    image = Image.open(io.BytesIO(png()))
    expected = {}
    for label in labels:
        ids = reference.prompt.answer(label)
        trace = reference.trace(question, image, answer=ids)
        expected[label] = sum(float(row[token]) for row, token in zip(trace.log_probs, ids, strict=True))
    for row in body["probabilities"]:
        assert math.isclose(row["log_likelihood"], expected[row["label"]], abs_tol=1e-3)
    assert math.isclose(sum(row["probability"] for row in body["probabilities"]), 1.0, abs_tol=1e-6)
    assert body["label"] == max(expected, key=lambda label: expected[label])
    assert (_finished(served.engine.metrics()) == before + 1) == (repeated == 1)


async def test_the_score_of_an_image_is_the_reference_models(served: Served) -> None:
    """Whatever asks, together with others or again, when the engine has the image in a cache."""
    bodies = [{"image": encoded(number), "question": "What?", "max_tokens": 2} for number in (101, 102, 103, 101)]
    answers = list(await asyncio.gather(*(served.client.post("/v1/vqa", json=body) for body in bodies)))
    answers.append(await served.client.post("/v1/classify", json={"image": encoded(102), "labels": ["CT", "MRI"]}))
    found = [answer.json()["unlike_training"]["score"] for answer in answers]
    images = [Image.open(io.BytesIO(png(number))) for number in (101, 102, 103)]
    features = Reference(served.checkpoint).features(images)
    first, second, third = (slow_score(served.checkpoint, image.numpy()) for image in features)
    np.testing.assert_allclose(found, [first, second, third, first, second], rtol=1e-3, atol=1e-3)
    assert len({round(score, 3) for score in found}) == 3


async def test_metrics_hold_the_engines_series_and_ours(served: Served) -> None:
    text = (await served.client.get("/metrics")).text
    for series in (
        "vllm:num_requests_running",
        "vllm:prompt_tokens_total",
        "medmoe_requests_total",
        "medmoe_expert_tokens_total",
    ):
        assert series in text


async def test_the_engine_exports_the_series_that_dashboards_may_ask_for(served: Served) -> None:
    text = (await served.client.get("/metrics")).text
    exported = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    assert {name for name in ENGINE_SERIES.read_text().split() if name.startswith("vllm:")} <= exported


async def test_a_request_that_nobody_waits_for_is_aborted(served: Served) -> None:
    reference = Reference(served.checkpoint)
    image = np.zeros((32, 32, 3), np.uint8)
    request = GenerationRequest(
        request_id="abandoned",
        prompt_ids=tuple(reference.prompt.question("Tell me everything")),
        image=image,
        image_id=hashlib.sha256(image.tobytes()).hexdigest(),
        max_tokens=400,
    )
    chunks = served.engine.generate(request)
    await anext(chunks)
    await chunks.aclose()
    async with asyncio.timeout(60):
        while _running(served.engine.metrics()):
            await asyncio.sleep(0.05)


async def test_many_sampled_answers_at_once_are_given_and_reproducible(served: Served) -> None:
    """More prompt tokens than one engine step takes, each with a seed of its own."""
    words = "Is there a fracture of the left lung or of the right one? " * 12

    async def ask(number: int) -> str:
        body = {"image": encoded(number), "question": f"{words}{number}", "temperature": 1.0, "seed": number}
        response = await served.client.post("/v1/vqa", json=body | {"max_tokens": 6})
        assert response.status_code == 200
        answer: str = response.json()["answer"]
        return answer

    first = await asyncio.gather(*map(ask, range(24)))
    assert await asyncio.gather(*map(ask, range(24))) == first
    assert len(set(first)) > 12


async def test_a_retry_after_a_timeout_is_answered(served: Served) -> None:
    for number in range(40, 50):
        body = {"image": encoded(number), "question": "Is it normal?", "max_tokens": 4}
        early = await served.client.post("/v1/vqa", json=body | {"timeout_ms": 2 + number % 5})
        assert early.status_code in (200, 504)
        assert (await served.client.post("/v1/vqa", json=body)).status_code == 200


async def test_a_map_is_what_classify_says_of_each_covered_image(served: Served) -> None:
    pixels = np.random.default_rng(7).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    labels = ["CT", "MRI", "X-ray"]

    async def scores(image: np.ndarray) -> dict[str, float]:
        response = await served.client.post("/v1/classify", json={"image": _base64_png(image), "labels": labels})
        assert response.status_code == 200
        return {row["label"]: row["log_likelihood"] for row in response.json()["probabilities"]}

    asked = {"image": _base64_png(pixels), "labels": labels, "grid": 2}
    response = await served.client.post("/v1/explain", json=asked)
    assert response.status_code == 200
    body = response.json()
    whole = await scores(pixels)
    assert body["answer"] == max(whole, key=whole.__getitem__)
    assert math.isclose(body["log_likelihood"], whole[body["answer"]], abs_tol=1e-3)
    assert np.isfinite(body["importance"]).all()
    cells = list(np.ndindex(2, 2))
    hidden = [await scores(covered(pixels, (0, 0, 32, 32), shape=(2, 2), cell=cell)) for cell in cells]
    expected = [whole[body["answer"]] - one[body["answer"]] for one in hidden]
    assert max(map(abs, expected)) > 0.01
    np.testing.assert_allclose(np.array(body["drops"]).ravel(), expected, atol=2e-3)


async def test_a_busy_engine_answers_pings(served: Served) -> None:
    body = {"image": encoded(9), "question": "Is it normal? " * 12, "max_tokens": 8}
    asking = [asyncio.create_task(served.client.post("/v1/vqa", json=body)) for _ in range(8)]
    for _ in range(5):
        async with asyncio.timeout(120):
            await served.engine.ping()
    assert {response.status_code for response in await asyncio.gather(*asking)} == {200}


async def test_a_stopped_engine_answers_no_ping_and_is_503_once_it_is_killed(served: Served) -> None:
    """Last in the session: it ends the engine."""
    waiting = asyncio.create_task(
        served.client.post("/v1/vqa", json={"image": encoded(9), "question": "Is it normal?", "max_tokens": 400})
    )
    await asyncio.sleep(0.3)
    for child in psutil.Process().children(recursive=True):
        if "EngineCore" in " ".join(child.cmdline()) or "EngineCore" in child.name():
            os.kill(child.pid, signal.SIGSTOP)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await served.engine.ping()
    # What the supervisor does with an engine that hangs.
    await served.engine.kill()
    assert (await waiting).status_code == 503
    assert (await served.client.get("/health/ready")).status_code == 503
    # Only a restart helps now, and liveness is what asks for one.
    assert (await served.client.get("/health/live")).status_code == 503
    again = await served.client.post("/v1/vqa", json={"image": encoded(), "question": "Is it normal?"})
    assert again.status_code == 503
    assert again.json()["error"]["code"] in ("engine_dead", "not_ready")


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def _base64_png(pixels: np.ndarray) -> str:
    return base64.b64encode(_png(pixels)).decode()


def _finished(metrics: bytes) -> float:
    lines = [line for line in metrics.decode().splitlines() if line.startswith("vllm:request_success_total")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def _running(metrics: bytes) -> bool:
    lines = [line for line in metrics.decode().splitlines() if line.startswith("vllm:num_requests_running")]
    return any(float(line.rsplit(" ", 1)[1]) > 0 for line in lines)

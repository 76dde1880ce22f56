"""POST /v1/classify against the fake engine's own distribution, token by token."""

import asyncio
import json
import math
from typing import Any

import pytest

from medmoe.server.engine.base import GenerationError
from tests.integration.conftest import Service, ServiceFactory, base64_image, image_bytes, until

LABELS = ["CT", "left", "left lung", "left lung normal", "X-ray", "no", "liver"]


async def ask(service: Service, body: dict[str, Any]) -> dict[str, Any]:
    response = await service.client.post("/v1/classify", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def brute_force(service: Service, labels: list[str], question: str) -> list[float]:
    """Log-likelihood of each label by walking its tokens one after the other."""
    request = service.engine.last_request
    assert request is not None
    likelihoods = []
    for label in labels:
        ids, total = service.state.active.checkpoint.prompt.question(question), 0.0
        for token in service.state.active.checkpoint.prompt.answer(label):
            total += float(service.engine.log_probabilities(request.image_id, ids)[token])
            ids.append(token)
        likelihoods.append(total)
    return likelihoods


async def test_probabilities_are_exact_for_labels_that_begin_alike(service: Service) -> None:
    answer = await ask(service, {"image": base64_image(), "labels": LABELS, "question": "Which is it?"})
    expected = brute_force(service, LABELS, "Which is it?")
    weights = [math.exp(value) for value in expected]
    probabilities = [weight / sum(weights) for weight in weights]
    got = answer["probabilities"]
    assert [item["label"] for item in got] == LABELS
    assert [item["log_likelihood"] for item in got] == pytest.approx(expected)
    assert [item["probability"] for item in got] == pytest.approx(probabilities)
    assert answer["label"] == LABELS[max(range(len(LABELS)), key=expected.__getitem__)]
    assert answer["label_mass"] == pytest.approx(sum(weights))
    assert answer["entropy"] == pytest.approx(-sum(p * math.log(p) for p in probabilities))
    best, second, *_ = sorted(probabilities, reverse=True)
    assert answer["margin"] == pytest.approx(best - second)
    assert (answer["abstained"], answer["calibration"]) == (False, None)
    assert 0 < answer["label_mass"] <= 1


async def test_an_engine_that_scores_branches_gives_the_same_answer(service: Service) -> None:
    body = {"image": base64_image(), "labels": LABELS, "include_routing": True}
    apart, started = await ask(service, body), service.engine.started
    service.engine.takes_branches = True
    together = await ask(service, body)
    assert service.engine.started == started + 1
    for field in ("probabilities", "label_mass", "routing", "unlike_training"):
        assert together[field] == apart[field], field


async def test_the_order_of_the_labels_changes_nothing_but_the_order(service: Service) -> None:
    one = await ask(service, {"image": base64_image(), "labels": LABELS})
    other = await ask(service, {"image": base64_image(), "labels": LABELS[::-1]})
    assert one["probabilities"] == other["probabilities"][::-1]
    assert one["label"] == other["label"]


async def test_the_default_question_is_the_checkpoints_own(service: Service) -> None:
    answer = await ask(service, {"image": base64_image(), "labels": ["MRI", "CT"]})
    expected = brute_force(service, ["MRI", "CT"], "Which of these is shown: CT, MRI?")
    assert [item["log_likelihood"] for item in answer["probabilities"]] == pytest.approx(expected)


@pytest.mark.parametrize("as_array", [False, True], ids=["repeated field", "JSON array"])
async def test_multipart_takes_labels_in_two_ways(service: Service, as_array: bool) -> None:
    labels = ["CT", "MRI"]
    response = await service.client.post(
        "/v1/classify",
        data={"labels": json.dumps(labels) if as_array else labels},
        files={"image": ("scan.png", image_bytes(), "image/png")},
    )
    assert response.status_code == 200, response.text
    expected = await ask(service, {"image": base64_image(), "labels": labels})
    assert response.json()["probabilities"] == expected["probabilities"]


async def test_shared_beginnings_are_asked_once(service: Service) -> None:
    before = service.engine.started
    await ask(service, {"image": base64_image(), "labels": LABELS})
    prefixes = {
        tuple(path[:depth])
        for path in (service.state.active.checkpoint.prompt.answer(label) for label in LABELS)
        for depth in range(len(path))
    }
    assert service.engine.started - before == len(prefixes)


async def test_one_failed_step_fails_the_whole_and_stops_the_rest(service: Service) -> None:
    service.engine.fail_next = GenerationError("first")
    service.engine.delay = 3600
    before = service.engine.started
    response = await service.client.post("/v1/classify", json={"image": base64_image(), "labels": LABELS})
    assert response.json()["error"]["code"] == "generation_failed"
    assert service.engine.aborted == service.engine.started - before
    assert service.state.admission.in_flight == 0


async def test_a_client_that_gives_up_stops_every_step(service: Service) -> None:
    service.engine.delay = 3600
    before = service.engine.started
    asking = asyncio.create_task(service.client.post("/v1/classify", json={"image": base64_image(), "labels": LABELS}))
    await until(lambda: service.engine.started >= before + 5)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert service.engine.aborted == service.engine.started - before
    assert service.state.admission.in_flight == 0


async def test_routing_counts_the_prompt_once_and_each_label_token_once(service: Service) -> None:
    answer = await ask(service, {"image": base64_image(), "labels": LABELS, "include_routing": True})
    nodes = {
        tuple(path[:depth])
        for path in (service.state.active.checkpoint.prompt.answer(label) for label in LABELS)
        for depth in range(1, len(path))
    }
    question = service.state.active.checkpoint.prompt.question(
        service.state.active.checkpoint.prompt.classification(LABELS)
    )
    for layer in answer["routing"]["layers"]:
        assert sum(layer["image"]) == 4
        assert sum(layer["question"]) == len(question) - 1
        assert sum(layer["answer"]) == len(nodes)


async def test_a_classification_fills_the_engine_and_no_more_and_a_later_one_takes_its_turn(
    running: ServiceFactory, classify_body: dict[str, Any]
) -> None:
    async with running(max_num_seqs=1) as service:
        service.engine.delay = 0.01
        most = 0
        wide = {"labels": [f"{first}{second} {first}" for first in "abcdefg" for second in "hijklmn"]}
        long = asyncio.create_task(service.client.post("/v1/classify", json=classify_body | wide))
        await until(lambda: service.engine.started > 2)
        short = asyncio.create_task(service.client.post("/v1/classify", json=classify_body))
        while not short.done():
            most = max(most, service.engine.started - service.engine.finished - service.engine.aborted)
            await asyncio.sleep(0)
        assert short.result().status_code == 200
        assert not long.done()
        assert (await long).status_code == 200
        assert most == 4

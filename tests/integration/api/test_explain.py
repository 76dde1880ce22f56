"""POST /v1/explain as a client sees it: the slow, obvious map, its geometry, limits, and what it does to others."""

import asyncio
import base64
import io
import math
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medmoe.server.imaging.image import image_id
from tests.integration.conftest import Service, ServiceFactory, base64_image, check, gives_up, until
from tests.support.images.covered import covered

QUESTION = {"question": "Is there a fracture?", "grid": 4}
LABELS = {"labels": ["CT", "MRI", "X-ray"], "grid": 4}


async def explain(service: Service, **fields: Any) -> dict[str, Any]:
    response = await service.client.post("/v1/explain", json={"image": base64_image()} | fields)
    assert response.status_code == 200, response.text
    return response.json()


def model_image(service: Service, data: str) -> np.ndarray:
    processor = service.state.active.explain.processor
    return np.asarray(processor.resize(Image.open(io.BytesIO(base64.b64decode(data)))))


def likelihood(service: Service, pixels: np.ndarray, question: str, answer: str) -> float:
    """Of the whole answer, one token after the other."""
    prompt = service.state.active.checkpoint.prompt
    ids, total = list(prompt.question(question)), 0.0
    key = image_id((pixels.shape[1], pixels.shape[0]), pixels.tobytes())
    for token in prompt.answer(answer):
        total += float(service.engine.log_probabilities(key, ids)[token])
        ids.append(token)
    return total


@pytest.mark.parametrize(
    ("size", "box", "shape"), [((60, 60), (0, 0, 32, 32), (4, 4)), ((64, 40), (0, 6, 32, 26), (2, 4))]
)
async def test_a_map_is_the_loop_that_covers_each_cell_and_asks_again(
    service: Service, size: tuple[int, int], box: tuple[int, int, int, int], shape: tuple[int, int]
) -> None:
    """Padding is no part of the map."""
    data, asked = base64_image(size=size), QUESTION["question"]
    body = await explain(service, image=data, answer="left lower lobe", **QUESTION)
    pixels = model_image(service, data)
    whole = likelihood(service, pixels, asked, "left lower lobe")
    assert (body["answer"], body["chosen_by"]) == ("left lower lobe", "request")
    assert body["log_likelihood"] == pytest.approx(whole, abs=1e-9)
    assert (body["rows"], body["columns"]) == shape
    assert body["region"] == {"left": 0, "top": 0, "right": 1, "bottom": 1}
    for row, drops in enumerate(body["drops"]):
        for column, drop in enumerate(drops):
            patched = covered(pixels, box, shape=shape, cell=(row, column))
            assert drop == pytest.approx(whole - likelihood(service, patched, asked, "left lower lobe"), abs=1e-9)
    assert body["engine_requests"] == service.engine.finished - 1
    assert body["overlay"] is None
    drops, (rows, columns) = body["drops"], shape
    for row, column in np.ndindex(shape):
        around = [(y, x) for y, x in np.ndindex(rows, columns) if max(abs(y - row), abs(x - column)) < 2]
        shares = [0.5 ** (abs(y - row) + abs(x - column)) for y, x in around]
        mean = sum(share * drops[y][x] for share, (y, x) in zip(shares, around, strict=True)) / sum(shares)
        assert body["importance"][row][column] == pytest.approx(mean)


async def test_without_an_answer_the_models_own_is_explained(service: Service) -> None:
    asked = {"image": base64_image(), "question": QUESTION["question"], "max_tokens": 5}
    said = (await service.client.post("/v1/vqa", json=asked)).json()
    body = await explain(service, max_tokens=5, **QUESTION)
    assert (body["answer"], body["chosen_by"]) == (said["answer"], "model")
    assert math.exp(body["log_likelihood"]) == pytest.approx(said["confidence"]["value"])
    provenance = dict(body["provenance"])
    assert (provenance.pop("grid"), provenance.pop("patch"), provenance.pop("fill")) == (4, 2, "blur")
    assert provenance.items() <= said["provenance"].items()
    assert body["unlike_training"] == said["unlike_training"]


async def test_a_label_is_scored_as_classify_scores_it(service: Service) -> None:
    found = (
        await service.client.post("/v1/classify", json={"image": base64_image(), "labels": LABELS["labels"]})
    ).json()
    best, own = await explain(service, **LABELS), await explain(service, label="MRI", **LABELS)
    scores = {one["label"]: one["log_likelihood"] for one in found["probabilities"]}
    assert (best["answer"], best["chosen_by"]) == (found["label"], "model")
    assert (own["answer"], own["chosen_by"]) == ("MRI", "request")
    for body in (best, own):
        assert body["log_likelihood"] == scores[body["answer"]]
    again = await explain(service, label="MRI", **LABELS)
    assert again["drops"] == own["drops"]


async def test_a_form_gives_the_same_map_and_routing_of_the_whole_image(service: Service) -> None:
    whole = await explain(service, include_routing=True, **LABELS)
    form = {"labels": LABELS["labels"], "grid": "4"}
    image = {"image": base64.b64decode(base64_image())}
    response = await service.client.post("/v1/explain", data=form, files=image)
    assert response.json()["drops"] == whole["drops"]
    classified = await service.client.post(
        "/v1/classify", json={"image": base64_image(), "labels": LABELS["labels"], "include_routing": True}
    )
    assert whole["routing"] == classified.json()["routing"]


def opened(url: str) -> np.ndarray:
    kind, _, data = url.partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


async def test_an_overlay_has_the_size_of_the_rendered_image_and_shows_the_largest_drop(service: Service) -> None:
    data = base64_image(size=(96, 64))
    rendered = (await service.client.post("/v1/render", json={"image": data})).json()["image"]
    layer = await explain(service, image=data, overlay="layer", answer="yes", **QUESTION)
    shown = opened(layer["overlay"])
    assert shown.shape == (*opened(rendered).shape[:2], 4)
    drops = np.array(layer["importance"])
    assert layer["scale"] == pytest.approx(np.abs(drops).max())
    row, column = np.unravel_index(np.abs(drops).argmax(), drops.shape)
    middle = shown[int((row + 0.5) * 64 / layer["rows"]), int((column + 0.5) * 96 / layer["columns"])]
    assert middle[3] == shown[..., 3].max() > 150
    red, _, blue, _ = middle
    assert (red > blue) == (drops[row, column] > 0)
    over = opened((await explain(service, image=data, overlay="image", answer="yes", **QUESTION))["overlay"])
    alpha = shown[..., 3:] / 255
    blended = shown[..., :3] * alpha + opened(rendered)[..., :3] * (1 - alpha)
    assert np.abs(over - blended).max() < 2


async def test_fields_that_do_not_fit_are_refused(running: ServiceFactory) -> None:
    async with running(max_explain_steps=40, max_label_chars=50) as service:
        for fields, param in (
            ({}, None),
            ({"question": "q", "label": "CT"}, None),
            (LABELS | {"answer": "CT"}, None),
            (LABELS | {"max_tokens": 3}, None),
            (LABELS | {"label": "PET"}, None),
            (QUESTION | {"answer": "yes", "max_tokens": 3}, None),
            ({"labels": ["one"]}, "labels"),
            (QUESTION | {"grid": 1}, "grid"),
            (QUESTION | {"grid": 33}, "grid"),
            (QUESTION | {"overlay": "both"}, "overlay"),
            (QUESTION | {"answer": " "}, "answer"),
            (QUESTION | {"answer": "a" * 51}, "answer"),
            (QUESTION | {"answer": "yes", "grid": 16}, "grid"),
            (QUESTION | {"max_tokens": 100_000}, "max_tokens"),
            (QUESTION | {"window": "lung"}, "window"),
            (QUESTION | {"modality": "smell"}, "modality"),
        ):
            response = await service.client.post("/v1/explain", json={"image": base64_image()} | fields)
            check(response, 422, "invalid_field", param)
        check(await service.client.post("/v1/explain", json=QUESTION), 422, "invalid_field", "image")
        message = (
            await service.client.post("/v1/explain", json={"image": base64_image()} | QUESTION | {"grid": 16})
        ).json()["error"]["message"]
        assert "MEDMOE_MAX_EXPLAIN_STEPS" in message
        assert service.engine.started < 16 * 16


async def test_a_client_that_leaves_stops_the_whole_map(service: Service) -> None:
    await gives_up(service, explain(service, **QUESTION))
    await until(lambda: service.state.active.explain.places.in_flight == 0)
    service.engine.delay = 0
    await explain(service, **QUESTION)


async def test_one_deadline_holds_for_the_whole_map(service: Service) -> None:
    await explain(service, answer="yes", **QUESTION)
    service.engine.delay = 3600
    response = await service.client.post(
        "/v1/explain", json={"image": base64_image(), "answer": "yes", "timeout_ms": 300} | QUESTION
    )
    check(response, 504, "deadline_exceeded")
    assert service.state.admission.in_flight == 0


async def test_maps_leave_the_engine_to_other_requests(running: ServiceFactory) -> None:
    async with running(max_explains=2) as service:
        service.engine.delay = 3600
        before = service.engine.started
        asked = {"image": base64_image(), "answer": "yes", "grid": 8} | QUESTION
        maps = [asyncio.create_task(service.client.post("/v1/explain", json=asked)) for _ in range(2)]
        await until(lambda: service.state.active.explain.places.in_flight == 2 and service.engine.started > before)
        check(await service.client.post("/v1/explain", json=asked), 429, "overloaded")
        service.engine.delay = 0
        alone = await service.client.post("/v1/vqa", json={"image": base64_image(), "question": "Is it?"})
        assert alone.status_code == 200
        for one in maps:
            one.cancel()
        await asyncio.gather(*maps, return_exceptions=True)
        assert service.state.admission.in_flight == 0

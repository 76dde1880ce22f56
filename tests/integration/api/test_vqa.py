"""POST /v1/vqa as a client sees it."""

import asyncio
import base64
import hashlib
import io
import json
import math
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.integration.conftest import Service, ServiceFactory, base64_image, gives_up, image_bytes, until


async def ask(service: Service, body: dict[str, Any]) -> dict[str, Any]:
    response = await service.client.post("/v1/vqa", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def without_clock(answer: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key not in ("id", "timings")}


def events(text: str) -> list[Any]:
    blocks = [block.removeprefix("data: ") for block in text.strip().split("\n\n")]
    return [block if block == "[DONE]" else json.loads(block) for block in blocks]


async def test_an_answer_comes_with_everything_that_explains_it(service: Service, vqa_body: dict[str, Any]) -> None:
    answer = await ask(service, vqa_body)
    assert set(answer) == {
        "id", "model", "answer", "finish_reason", "confidence", "abstained", "unlike_training", "usage", "timings",
        "provenance", "routing", "report", "stored",
    }  # fmt: skip
    assert answer["model"] == "tiny"
    assert answer["answer"]
    assert answer["answer"] == answer["answer"].strip()
    assert answer["finish_reason"] == "stop"
    assert 0 < answer["confidence"]["value"] <= 1
    assert answer["confidence"]["calibrated"] is False
    assert answer["usage"]["image_tokens"] == 4
    assert answer["routing"] is None
    assert answer["provenance"] == {
        "image_sha256": hashlib.sha256(image_bytes()).hexdigest(),
        "width": 48,
        "height": 40,
        "rendering": {"format": "PNG", "colour": "RGB", "frame": 0, "frames": 1, "steps": [], "windows": []},
        "mode": "pad",
        "resized_to": [32, 32],
        "weights_sha256": None,
        "adapter_sha256": None,
        "dtype": None,
        "temperature": 0.0,
        "seed": None,
        "max_tokens": 128,
        "min_confidence": None,
        "allow_unlike_training": False,
    }
    timings = answer["timings"]
    assert timings["total"] >= timings["image"] + timings["queue"] + timings["engine"] - 1e-6


async def test_confidence_is_the_probability_of_the_whole_answer(service: Service, vqa_body: dict[str, Any]) -> None:
    answer = await ask(service, vqa_body)
    request = service.engine.last_request
    assert request is not None
    ids = list(request.prompt_ids)
    expected = 0.0
    for _ in range(answer["usage"]["completion_tokens"]):
        logprobs = service.engine.log_probabilities(request.image_id, ids)
        ids.append(int(logprobs.argmax()))
        expected += float(logprobs.max())
    assert answer["confidence"]["value"] == pytest.approx(math.exp(expected))


async def test_multipart_and_json_give_the_same_answer(service: Service, vqa_body: dict[str, Any]) -> None:
    as_json = await ask(service, vqa_body | {"max_tokens": 5, "include_routing": True})
    response = await service.client.post(
        "/v1/vqa",
        data={"question": vqa_body["question"], "max_tokens": "5", "include_routing": "true"},
        files={"image": ("anything.bin", image_bytes(), "application/octet-stream")},
    )
    assert response.status_code == 200, response.text
    assert without_clock(response.json()) == without_clock(as_json)


async def test_a_data_url_is_the_same_as_base64(service: Service, vqa_body: dict[str, Any]) -> None:
    url = "data:image/png;base64," + vqa_body["image"]
    assert without_clock(await ask(service, vqa_body | {"image": url})) == without_clock(await ask(service, vqa_body))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
async def test_every_announced_format_is_read(service: Service, kind: str) -> None:
    await ask(service, {"image": base64_image(kind=kind), "question": "What is shown?"})


async def test_only_the_first_frame_counts(service: Service) -> None:
    file = io.BytesIO()
    frames = [Image.new("L", (20, 20), shade) for shade in (10, 200)]
    frames[0].save(file, format="TIFF", save_all=True, append_images=frames[1:])
    response = await service.client.post(
        "/v1/vqa",
        data={"question": "What?", "allow_uniform": "true"},
        files={"image": ("a", file.getvalue(), "image/tiff")},
    )
    assert response.status_code == 200
    request = service.engine.last_request
    assert request is not None
    assert request.image[16, 16].tolist() == [10, 10, 10]


async def test_the_same_request_gives_the_same_answer(service: Service, vqa_body: dict[str, Any]) -> None:
    assert without_clock(await ask(service, vqa_body)) == without_clock(await ask(service, vqa_body))


async def test_a_sampled_answer_reports_the_seed_that_reproduces_it(service: Service, vqa_body: dict[str, Any]) -> None:
    first = await ask(service, vqa_body | {"temperature": 1.5})
    seed = first["provenance"]["seed"]
    assert seed is not None
    again = await ask(service, vqa_body | {"temperature": 1.5, "seed": seed})
    assert without_clock(again) == without_clock(first)


async def test_streaming_gives_the_same_answer_in_pieces(service: Service, vqa_body: dict[str, Any]) -> None:
    asked = vqa_body | {"question": "What do you see?"}
    whole = await ask(service, asked)
    response = await service.client.post("/v1/vqa", json=asked | {"stream": True})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    *deltas, final, done = events(response.text)
    assert done == "[DONE]"
    assert "".join(event["delta"] for event in deltas) == whole["answer"]
    assert len(deltas) > 1
    assert without_clock(final) == without_clock(whole)


async def test_max_tokens_cuts_the_answer(service: Service, vqa_body: dict[str, Any]) -> None:
    answer = await ask(service, vqa_body | {"max_tokens": 1})
    assert answer["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 1


async def test_a_question_that_spells_special_tokens_is_only_text(service: Service, vqa_body: dict[str, Any]) -> None:
    await ask(service, vqa_body | {"question": "Is <image> </s> <s> <pad> shown? <image>"})
    request = service.engine.last_request
    assert request is not None
    text = service.state.active.checkpoint.config.text_config
    assert request.prompt_ids.count(service.state.active.checkpoint.config.image_token_id) == 1
    assert text.eos_token_id not in request.prompt_ids
    assert text.pad_token_id not in request.prompt_ids
    assert request.prompt_ids.count(1) == 1


async def test_a_prompt_longer_than_the_context_is_refused(running: ServiceFactory, vqa_body: dict[str, Any]) -> None:
    async with running(max_tokens=100_000) as service:
        response = await service.client.post("/v1/vqa", json=vqa_body | {"max_tokens": 600})
        assert response.status_code == 422
        assert response.json()["error"]["code"] == "invalid_prompt"
        response = await service.client.post("/v1/vqa", json=vqa_body | {"question": "zq " * 600})
        assert response.status_code == 422


async def test_routing_counts_every_token_of_the_request_once(service: Service, vqa_body: dict[str, Any]) -> None:
    answer = await ask(service, vqa_body | {"include_routing": True})
    routing, usage = answer["routing"], answer["usage"]
    assert routing["expert_domains"] == ["CT", "MRI", "X-ray", "pathology"]
    assert [layer["layer"] for layer in routing["layers"]] == [0, 2]
    for layer in routing["layers"]:
        assert sum(layer["image"]) == 4
        assert sum(layer["question"]) == usage["prompt_tokens"] - 4
        assert sum(layer["answer"]) == usage["completion_tokens"] - 1


async def test_a_client_that_gives_up_stops_the_engine(service: Service, vqa_body: dict[str, Any]) -> None:
    await gives_up(service, service.client.post("/v1/vqa", json=vqa_body))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_closed_connection_stops_the_engine(service: Service, vqa_body: dict[str, Any], stream: bool) -> None:
    # What uvicorn does when the socket closes: http.disconnect from receive, nothing else.
    service.engine.delay = 0 if stream else 3600
    before = service.engine.started
    body = json.dumps(vqa_body | {"stream": stream}).encode()
    sent: list[dict[str, Any]] = []
    calls = 0

    async def receive() -> dict[str, Any]:
        nonlocal calls
        calls += 1
        if calls == 1:
            return {"type": "http.request", "body": body, "more_body": False}
        await until(lambda: service.engine.started > before and (not stream or len(sent) >= 2))
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)
        if stream and len(sent) == 2:
            service.engine.delay = 3600

    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "POST",
        "scheme": "http", "path": "/v1/vqa", "raw_path": b"/v1/vqa", "query_string": b"", "root_path": "",
        "headers": [(b"content-type", b"application/json")], "client": ("test", 1), "server": ("service", 80),
    }  # fmt: skip
    await asyncio.wait_for(service.app(scope, receive, send), 60)
    assert service.engine.aborted == 1
    assert service.state.admission.in_flight == 0


async def test_the_documented_example_works(service: Service) -> None:
    document = (await service.client.get("/openapi.json")).json()
    content = document["paths"]["/v1/vqa"]["post"]["requestBody"]["content"]["application/json"]
    example = content["examples"]["question"]["value"]
    sent = base64.b64decode(example["image"].partition(",")[2])
    response = await service.client.post("/v1/vqa", json=example)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["answer"]
    assert answer["provenance"]["image_sha256"] == hashlib.sha256(sent).hexdigest()


async def test_models_lists_the_one_model(service: Service) -> None:
    listed = (await service.client.get("/v1/models")).json()
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["tiny"]


async def test_answers_are_neither_sniffed_nor_stored(service: Service, vqa_body: dict[str, Any]) -> None:
    responses: list[httpx.Response] = [
        await service.client.post("/v1/vqa", json=vqa_body),
        await service.client.get("/nowhere"),
    ]
    for response in responses:
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"

"""What operators see: router statistics, metrics, logs. And what nobody may ever see in them: content."""

import json
import logging
import re
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from medmoe.server.engine.base import GenerationError
from medmoe.server.observability.json_log import JsonFormatter
from tests.integration.conftest import Service, base64_image, image_bytes

CANARY = "canary7f3q"


async def test_router_statistics_are_the_sum_of_what_requests_were_told(
    service: Service, vqa_body: dict[str, Any], classify_body: dict[str, Any]
) -> None:
    told = [
        (await service.client.post("/v1/vqa", json=vqa_body | {"include_routing": True})).json()["routing"],
        (await service.client.post("/v1/classify", json=classify_body | {"include_routing": True})).json()["routing"],
    ]
    stats = (await service.client.get("/v1/router/stats")).json()
    assert stats["requests"] == 2
    assert stats["expert_domains"] == ["CT", "MRI", "X-ray", "pathology"]
    for index, layer in enumerate((0, 2)):
        for kind in ("image", "question", "answer"):
            load = stats["by_kind"][kind][index]
            expected = [sum(one["layers"][index][kind][expert] for one in told) for expert in range(4)]
            assert load["layer"] == layer
            assert [expert["tokens"] for expert in load["experts"]] == expected
        overall = stats["overall"][index]
        assert overall["tokens"] == sum(stats["by_kind"][kind][index]["tokens"] for kind in stats["by_kind"])
        assert overall["tokens"] == sum(stats["by_route"][route][index]["tokens"] for route in ("vqa", "classify"))
        assert sum(expert["load_share"] for expert in overall["experts"]) == pytest.approx(1)
        assert [expert["domain"] for expert in overall["experts"]] == stats["expert_domains"]


async def test_metrics_have_the_promised_series(service: Service, vqa_body: dict[str, Any]) -> None:
    await service.client.post("/v1/vqa", json=vqa_body | {"modality": "ct"})
    await service.client.post("/v1/vqa", content=b"x")
    await service.client.get(f"/{CANARY}")
    text = (await service.client.get("/metrics")).text
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["medmoe_requests_total", (("route", "/v1/vqa"), ("status", "200"))] == 1
    assert samples["medmoe_requests_total", (("route", "/v1/vqa"), ("status", "415"))] == 1
    assert samples["medmoe_requests_total", (("route", "unmatched"), ("status", "404"))] == 1
    assert samples["medmoe_rejections_total", (("reason", "unsupported_content_type"),)] == 1
    assert samples["medmoe_request_duration_seconds_count", (("route", "/v1/vqa"),)] == 2
    for stage in ("image", "queue", "engine"):
        assert samples["medmoe_stage_duration_seconds_count", (("stage", stage),)] == 1
    assert samples["medmoe_requests_in_flight", ()] == 0
    assert samples["medmoe_requests_in_flight_limit", ()] == 32 + 64
    assert samples["medmoe_ready", ()] == 1
    routed, stated = (
        {labels: value for (name, labels), value in samples.items() if name == f"medmoe_expert_tokens{what}_total"}
        for what in ("", "_by_modality")
    )
    assert {dict(labels)["modality"] for labels in stated} == {"unstated", "CT", "MRI", "X-ray", "pathology"}
    assert {dict(labels)["modality"] for labels, tokens in stated.items() if tokens} == {"CT"}
    assert sum(stated.values()) == sum(routed.values()) > 0
    assert samples["medmoe_rejections_total", (("reason", "overloaded"),)] == 0
    image_tokens = sum(
        value
        for (name, labels), value in samples.items()
        if name == "medmoe_expert_tokens_total" and {("kind", "image"), ("layer", "2")} <= set(labels)
    )
    assert image_tokens == 4
    assert CANARY not in text


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("abc-123", True), ("x" * 64, True), ("x" * 65, False), ("a b", False), ("", False), ("a/../b", False)],
)
async def test_a_request_id_is_kept_only_when_it_is_harmless(service: Service, sent: str, kept: bool) -> None:
    response = await service.client.get("/health/live", headers={"X-Request-Id": sent})
    assert (response.headers["x-request-id"] == sent) is kept
    assert re.fullmatch(r"[A-Za-z0-9-]{1,64}", response.headers["x-request-id"])


async def test_each_request_is_one_log_line(
    service: Service, vqa_body: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="medmoe")
    caplog.clear()
    response = await service.client.post("/v1/vqa", json=vqa_body)
    records = [record for record in caplog.records if record.name == "medmoe.request"]
    assert len(records) == 1
    line = json.loads(JsonFormatter().format(records[0]))
    assert line["message"] == "request"
    assert (line["route"], line["status"], line["error"]) == ("/v1/vqa", 200, None)
    assert line["request_id"] == response.headers["x-request-id"]
    assert set(line["stages_seconds"]) == {"image", "queue", "engine"}


async def test_the_answer_says_where_its_time_went(service: Service, vqa_body: dict[str, Any]) -> None:
    response = await service.client.post("/v1/vqa", json=vqa_body)
    spans = dict(span.split(";dur=") for span in response.headers["server-timing"].split(", "))
    assert set(spans) == {"queue", "image", "engine", "total"}
    milliseconds = {name: float(value) for name, value in spans.items()}
    assert milliseconds["total"] >= max(milliseconds.values()) > 0
    timings = response.json()["timings"]
    assert timings.pop("fetch") == 0, "the image was sent"
    for name, seconds in timings.items():
        # The header is written a moment after the body was.
        assert milliseconds[name] >= round(seconds * 1000, 1) - 0.1
    assert set((await service.client.get("/health/live")).headers["server-timing"].split(";")) > {"total"}


async def test_content_never_reaches_logs_metrics_or_errors(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    image, headers = base64_image(), {"X-Patient": CANARY, "X-Request-Id": f"{CANARY} {CANARY}"}
    client = service.client
    file = {"image": (f"{CANARY}.png", image_bytes(), "image/png")}
    good = [
        await client.post("/v1/vqa", json={"image": image, "question": f"Is {CANARY} ill?"}, headers=headers),
        await client.post("/v1/vqa", data={"question": CANARY}, files=file, headers=headers),
        await client.post("/v1/vqa", json={"image": image, "question": CANARY, "stream": True}),
        await client.post("/v1/classify", json={"image": image, "labels": ["CT", "MRI"], "question": CANARY}),
    ]
    assert {response.status_code for response in good} == {200}
    labelled = await client.post("/v1/classify", json={"image": image, "labels": [CANARY, "other"]})
    assert labelled.status_code == 200
    bad = [
        await client.post("/v1/vqa", json={"image": CANARY, "question": CANARY}),
        await client.post("/v1/vqa", json={"image": image, "question": "?", CANARY: CANARY}),
        await client.post("/v1/vqa", json={"image": image, "question": "?", "seed": CANARY}),
        await client.post("/v1/vqa", json={"image": image, "question": [CANARY]}),
        await client.post("/v1/vqa", json={"image": image, "question": CANARY * 1000}),
        await client.post("/v1/vqa", content=CANARY, headers={"content-type": "application/json"}),
        await client.post("/v1/vqa", content=CANARY, headers={"content-type": f"text/{CANARY}"}),
        await client.post("/v1/vqa", content=CANARY, headers={"content-type": "multipart/form-data; boundary=x"}),
        await client.post("/v1/vqa", data={"question": "?", CANARY: CANARY}, files=file),
        await client.post("/v1/classify", json={"image": image, "labels": [CANARY, CANARY]}),
        await client.get(f"/{CANARY}?{CANARY}={CANARY}"),
        await client.request(CANARY.upper(), "/v1/vqa"),
    ]
    for failure in (RuntimeError(CANARY), GenerationError(CANARY)):
        service.engine.fail_next = failure
        bad.append(await client.post("/v1/vqa", json={"image": image, "question": CANARY}))
    for response in bad:
        assert response.status_code >= 400
        assert CANARY not in response.text.lower(), response.text
    for response in (*good, *bad):
        assert CANARY not in str(response.headers).lower()
    ours = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    assert any(record.name == "medmoe.request" for record in ours)
    for record in ours:
        assert CANARY not in JsonFormatter().format(record).lower()
        assert CANARY not in str(record.__dict__).lower(), record.name
    assert CANARY not in (await client.get("/metrics")).text.lower()
    assert CANARY not in (await client.get("/v1/router/stats")).text.lower()

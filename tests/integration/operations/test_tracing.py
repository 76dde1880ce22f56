"""One trace from the caller through the log line, the answer and the collector."""

import json
import logging
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from medmoe.server.engine.base import GenerationError
from medmoe.server.observability.json_log import JsonFormatter
from tests.integration.conftest import ServiceFactory
from tests.support.service.otlp_collector import Collector, attributes, collecting

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


async def test_the_callers_trace_is_in_the_answer_and_in_the_log(
    running: ServiceFactory, vqa_body: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="medmoe")
    async with running() as service:
        caplog.clear()
        answer = await service.client.post("/v1/vqa", json=vqa_body, headers=TRACEPARENT)
        refused = await service.client.post("/v1/vqa", json={}, headers=TRACEPARENT)
        ignored = await service.client.get("/v1/models", headers={"traceparent": "JANE-DOE"})
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records if record.msg == "request"]
    for response in (answer, refused):
        assert response.headers["traceresponse"].split("-")[1] == TRACE
        assert response.headers["traceresponse"].split("-")[2] != PARENT
    assert [line["trace_id"] for line in lines] == [TRACE, TRACE, ignored.headers["traceresponse"].split("-")[1]]
    usage = answer.json()["usage"]
    assert lines[0]["tokens"] == {
        "prompt": usage["prompt_tokens"],
        "completion": usage["completion_tokens"],
        "cached": usage["cached_tokens"],
    }
    assert lines[1]["tokens"] == {}


async def test_a_request_is_one_span_with_its_stages_beneath(
    running: ServiceFactory, collector: Collector, vqa_body: dict[str, Any]
) -> None:
    async with running(otlp_endpoint=collector.endpoint) as service:
        answer = await service.client.post("/v1/vqa", json=vqa_body, headers=TRACEPARENT)
    assert set(collector.paths) == {"/v1/traces"}
    assert {resource["service.name"] for resource in collector.resources()} == {"medmoe"}
    (request,) = [span for span in collector.spans() if span.kind == Span.SPAN_KIND_SERVER]
    stages = {span.name: span for span in collector.spans() if span.kind != Span.SPAN_KIND_SERVER}
    assert request.name == "POST /v1/vqa"
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
    assert request.span_id.hex() == answer.headers["traceresponse"].split("-")[2]
    assert set(stages) == {"queue", "image", "engine"}
    for span in stages.values():
        assert (span.trace_id, span.parent_span_id) == (request.trace_id, request.span_id)
        assert request.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= request.end_time_unix_nano
    found, usage = attributes(request), answer.json()["usage"]
    assert found["http.request.method"] == "POST"
    assert found["http.route"] == "/v1/vqa"
    assert found["http.response.status_code"] == 200
    assert found["medmoe.request_id"] == answer.headers["x-request-id"]
    assert found["medmoe.tokens.prompt"] == usage["prompt_tokens"]
    assert found["medmoe.tokens.completion"] == usage["completion_tokens"]
    assert "error.type" not in found


async def test_failures_are_told_apart(
    running: ServiceFactory, collector: Collector, vqa_body: dict[str, Any], classify_body: dict[str, Any]
) -> None:
    async with running(otlp_endpoint=collector.endpoint) as service:
        await service.client.post("/v1/classify", json=classify_body)
        service.engine.fail_next = GenerationError("secret")
        await service.client.post("/v1/vqa", json=vqa_body)
        await service.client.get("/nowhere")
    requests = [span for span in collector.spans() if span.kind == Span.SPAN_KIND_SERVER]
    assert [span.name for span in requests] == ["POST /v1/classify", "POST /v1/vqa", "GET unmatched"]
    assert len({span.trace_id for span in requests}) == 3
    assert {span.parent_span_id for span in requests} == {b""}
    assert [attributes(span).get("error.type") for span in requests] == [None, "generation_failed", "not_found"]
    assert [span.status.code == Status.STATUS_CODE_ERROR for span in requests] == [False, True, False]


async def test_what_the_caller_does_not_record_and_good_probes_are_not_sent(
    running: ServiceFactory, collector: Collector
) -> None:
    async with running(otlp_endpoint=collector.endpoint) as service:
        await service.client.get("/v1/models", headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
        for path in ("/health/live", "/health/ready", "/metrics"):
            answer = await service.client.get(path)
            assert answer.headers["traceresponse"].endswith("-01")
        await service.client.get("/v1/metadata")
    assert [span.name for span in collector.spans()] == ["GET /v1/metadata"]


async def test_a_collector_that_is_away_costs_no_answer(running: ServiceFactory, vqa_body: dict[str, Any]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
        async with running(otlp_endpoint=endpoint) as service:
            for _ in range(3):
                assert (await service.client.post("/v1/vqa", json=vqa_body)).status_code == 200


async def test_without_an_endpoint_opentelemetry_is_not_needed(
    running: ServiceFactory, vqa_body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    async with running() as service:
        answer = await service.client.post("/v1/vqa", json=vqa_body)
        assert answer.status_code == 200
        # Nothing is recorded, and the answer does not claim it.
        assert answer.headers["traceresponse"].endswith("-00")

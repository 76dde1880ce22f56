"""POST /v1/chat/completions as OpenAI's own client sees it, and what of OpenAI's API is refused by name."""

import asyncio
import base64
import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk
from openai.types.chat.completion_create_params import CompletionCreateParamsBase
from PIL import Image

from medmoe.server.auth.key_file import new_key
from medmoe.server.engine.base import EngineDeadError, GenerationError
from medmoe.server.observability.json_log import JsonFormatter
from medmoe.server.schemas.openai.chat import ChatRequest
from tests.integration.conftest import SECRET, Service, ServiceFactory, base64_image, check, gives_up, until

PATH = "/v1/chat/completions"
QUESTION = "Is there a fracture?"
KEY, KEY_LINE = new_key("ward-7")


def client(service: Service, *, key: str = "unused") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        api_key=key, base_url="http://service/v1", http_client=service.client, max_retries=0, timeout=60
    )


def text(words: str = QUESTION) -> dict[str, Any]:
    return {"type": "text", "text": words}


def image(url: str | None = None, **options: Any) -> dict[str, Any]:
    url = f"data:image/png;base64,{base64_image()}" if url is None else url
    return {"type": "image_url", "image_url": {"url": url, **options}}


def turn(*parts: Any, **fields: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts or (text(), image())), **fields}]


async def complete(service: Service, **fields: Any) -> Any:
    return await client(service).chat.completions.create(**({"model": "tiny", "messages": turn()} | fields))


async def vqa(service: Service, **fields: Any) -> dict[str, Any]:
    body = {"image": base64_image(), "question": QUESTION, **fields}
    answer: dict[str, Any] = (await service.client.post("/v1/vqa", json=body)).json()
    return answer


async def test_the_answer_is_the_one_of_vqa(service: Service) -> None:
    completion, own = await complete(service), await vqa(service)
    (choice,) = completion.choices
    assert (choice.index, choice.finish_reason) == (0, own["finish_reason"])
    assert (choice.message.role, choice.message.content) == ("assistant", own["answer"])
    assert (completion.object, completion.model) == ("chat.completion", "tiny")
    assert completion.id.startswith("chatcmpl-")
    usage = completion.usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (
        own["usage"]["prompt_tokens"],
        own["usage"]["completion_tokens"],
    )
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details.cached_tokens == own["usage"]["cached_tokens"]
    for name in ("confidence", "abstained", "provenance"):
        assert completion.medmoe[name] == own[name]


async def test_sampling_fields_mean_what_they_mean_for_vqa(service: Service) -> None:
    fields = {"temperature": 1.5, "seed": 11}
    own = await vqa(service, **fields, max_tokens=3)
    for name in ("max_tokens", "max_completion_tokens"):
        completion = await complete(service, **fields, **{name: 3}, n=1)
        assert completion.choices[0].message.content == own["answer"]
        assert completion.choices[0].finish_reason == own["finish_reason"]
        assert completion.medmoe["provenance"] == own["provenance"]


async def test_the_image_may_stand_anywhere_and_texts_are_joined(service: Service) -> None:
    await complete(service, messages=turn(text("Is there"), image(detail="auto"), text("a fracture?")))
    assert service.engine.last_request is not None
    assert list(service.engine.last_request.prompt_ids) == service.state.active.checkpoint.prompt.question(
        "Is there\na fracture?"
    )


@pytest.mark.parametrize("usage", [False, True], ids=["without usage", "with usage"])
async def test_a_stream_gives_the_same_answer_in_chunks(service: Service, usage: bool) -> None:
    asked = {"messages": turn(text("What do you see?"), image())}
    whole = await complete(service, **asked)
    options = asked | ({"stream_options": {"include_usage": True}} if usage else {})
    chunks: list[ChatCompletionChunk] = [chunk async for chunk in await complete(service, stream=True, **options)]
    assert len({(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in chunks}) == 1
    if usage:
        *chunks, last = chunks
        assert last.choices == []
        assert last.usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks)
    first, *middle, end = chunks
    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "")
    assert len(middle) > 1
    assert "".join(chunk.choices[0].delta.content or "" for chunk in middle) == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in (first, *middle)] == [None] * (len(middle) + 1)
    assert end.choices[0].finish_reason == whole.choices[0].finish_reason
    assert end.medmoe["confidence"] == whole.medmoe["confidence"]  # type: ignore[attr-defined]


async def test_the_clients_accumulating_stream_reads_it_too(service: Service) -> None:
    whole = await complete(service)
    async with client(service).chat.completions.stream(model="tiny", messages=turn()) as stream:  # type: ignore[arg-type]
        final = await stream.get_final_completion()
    assert final.choices[0].message.content == whole.choices[0].message.content


async def test_models_are_listed_and_found_by_name(service: Service) -> None:
    models = client(service).models
    (listed,) = [model async for model in models.list()]
    assert (listed.id, listed.object) == ("tiny", "model")
    assert await models.retrieve("tiny") == listed
    with pytest.raises(openai.NotFoundError) as raised:
        await models.retrieve("gpt-4o")
    assert raised.value.code == "model_not_found"


async def test_another_model_is_not_quietly_replaced(service: Service) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        await complete(service, model=SECRET)
    assert (raised.value.code, raised.value.param) == ("model_not_found", "model")
    assert SECRET not in str(raised.value)


PARTS = "messages.0.content"
REFUSED = [
    ({"tools": [{"type": "function", "function": {"name": SECRET}}]}, "tools"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"n": 2}, "n"),
    ({"top_p": 0.5}, "top_p"),
    ({"user": 7}, "user"),
    ({"messages": [{"role": "system", "content": SECRET}, *turn()]}, "messages.0.role"),
    ({"messages": [*turn(), {"role": "developer", "content": SECRET}]}, "messages.1.role"),
    ({"messages": [*turn(), {"role": "assistant", "content": SECRET}, *turn()]}, "messages"),
    ({"messages": [{"role": "assistant", "content": [text(), image()]}]}, "messages.0.role"),
    ({"messages": [{"role": "user", "content": SECRET}]}, PARTS),
    ({"messages": turn(text(SECRET), text())}, PARTS),
    ({"messages": turn(text(), image(), image())}, PARTS),
    ({"messages": turn(text(), image(detail="huge"))}, f"{PARTS}.1.image_url.detail"),
    ({"messages": turn(text(), image(), {"type": "input_audio", "input_audio": {"data": SECRET}})}, f"{PARTS}.2.type"),
    ({"messages": turn(text(), image(), {"type": SECRET})}, f"{PARTS}.2.type"),
]


@pytest.mark.parametrize(
    ("fields", "param"), REFUSED, ids=[f"{number} {param}" for number, (_, param) in enumerate(REFUSED)]
)
async def test_what_is_not_offered_is_refused_by_name(service: Service, fields: dict[str, Any], param: str) -> None:
    before = service.engine.started
    with pytest.raises(openai.BadRequestError) as raised:
        await complete(service, **fields)
    error = raised.value
    assert (error.code, error.param, error.type) == ("unsupported_parameter", param, "invalid_request_error")
    assert ("turn tools off" in error.message) == (param in ("tools", "tool_choice", "functions", "function_call"))
    assert error.request_id == error.response.headers["x-request-id"]
    check(error.response, 400, "unsupported_parameter", param)
    assert service.engine.started == before


NEUTRAL: list[dict[str, Any]] = [
    {"user": "u-1", "metadata": {"trace": "1"}, "store": False, "chat_id": "x", "session_id": "y"},
    {"n": 1, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0.0, "top_k": 1, "repetition_penalty": 1.0},
    {"stop": [], "logprobs": False, "reasoning_effort": "none", "response_format": {"type": "text"}},
    {"tools": [], "tool_choice": "none", "parallel_tool_calls": True, "modalities": ["text"]},
    {"stream": False, "stream_options": {"include_usage": True}},
    {"max_tokens": 64, "max_completion_tokens": 64.0},
    {"messages": turn(text(), image(detail="low") | {"cache_control": {"type": "ephemeral"}}, name="alice")},
    {"messages": turn(text(), image() | {"image_url": image()["image_url"]["url"]})},
    {"messages": [{"role": "system", "content": ""}, *turn()]},
    {"messages": [*turn(image()), *turn(text())]},
    {"messages": [*turn(image()), {"role": "user", "content": QUESTION}]},
]


async def test_what_changes_nothing_is_accepted(service: Service) -> None:
    plain = (await service.client.post(PATH, json={"model": "tiny", "messages": turn()})).json()
    for fields in NEUTRAL:
        response = await service.client.post(PATH, json={"model": "tiny", "messages": turn()} | fields)
        assert response.status_code == 200, response.text
        assert response.json()["choices"] == plain["choices"], fields


@pytest.mark.parametrize("fields", [{"top_k": 5}, {"top_k": 1, "temperature": 0.5}], ids=str)
async def test_other_servers_fields_are_refused_by_name(service: Service, fields: dict[str, Any]) -> None:
    response = await service.client.post(PATH, json={"model": "tiny", "messages": turn()} | fields)
    check(response, 400, "unsupported_parameter", "top_k")
    assert "top_k" in response.json()["error"]["message"]


async def test_a_refusal_in_joined_messages_names_the_place_as_sent(service: Service) -> None:
    messages = [*turn(text()), *turn(image("data:image/png;base64,%%%"))]
    response = await service.client.post(PATH, json={"model": "tiny", "messages": messages})
    check(response, 400, "malformed_image", "messages.1.content.0.image_url.url")


WRONG = [
    ({"temperature": 3}, "temperature"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 10**6}, "max_tokens"),
    ({"max_completion_tokens": 10**6}, "max_completion_tokens"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens"),
    ({"seed": -1}, "seed"),
    ({"stop": [SECRET] * 5}, "stop"),
    ({"stop": ["end", ""]}, "stop"),
    ({"stop": {SECRET: 1}}, "stop"),
    ({"stop": "x" * 257}, "stop"),
    ({"logprobs": 5}, "logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"stream": True, "stream_options": {SECRET: True}}, "stream_options"),
    ({"messages": []}, "messages"),
    ({"messages": SECRET}, "messages"),
    ({"messages": turn(text(" "), image())}, PARTS),
    ({"messages": turn(text("\u200b"), image())}, PARTS),
    ({"messages": turn(text("x" * 5000), image())}, PARTS),
    ({"messages": turn(nome=SECRET)}, "messages.0"),
    ({"messages": turn({"type": "text", "text": 5}, image())}, f"{PARTS}.0.text"),
    ({"messages": turn(text(), {"type": "image_url", "image_url": 5})}, f"{PARTS}.1.image_url"),
    (
        {"messages": turn(text(), {"type": "image_url", "image_url": {"url": "data:", SECRET: 1}})},
        f"{PARTS}.1.image_url",
    ),
    ({"messages": turn(*[text()] * 100, image())}, "messages"),
    ({"extra_body": {SECRET: 1}}, None),
]


@pytest.mark.parametrize(
    ("fields", "param"), WRONG, ids=[f"{number} {param}" for number, (_, param) in enumerate(WRONG)]
)
async def test_a_bad_value_is_named_as_the_client_named_it(
    service: Service, fields: dict[str, Any], param: str | None
) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as raised:
        await complete(service, **fields)
    check(raised.value.response, 422, "invalid_field", param)


async def test_a_prompt_over_the_context_is_the_texts_fault(service: Service) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as raised:
        await complete(service, messages=turn(text("zq " * 600), image()))
    check(raised.value.response, 422, "invalid_prompt", PARTS)


@pytest.mark.parametrize(
    ("url", "status", "code"),
    [
        (base64_image(), 400, "malformed_image"),
        ("https://example.org/ct.png", 400, "image_url_not_allowed"),
        ("data:image/png;base64,%%%", 400, "malformed_image"),
        ("data:image/png;base64,R0lGODlh", 415, "unsupported_image"),
        ("data:image/png;base64," + base64_image(size=(1, 1)), 422, "unreadable_image"),
    ],
    ids=["bare base64", "URL", "alphabet", "gif", "one pixel"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_bad_image_is_named_by_its_place(
    service: Service, url: str, status: int, code: str, stream: bool
) -> None:
    with pytest.raises(openai.APIStatusError) as raised:
        await complete(service, messages=turn(image(url), text()), stream=stream)
    check(raised.value.response, status, code, f"{PARTS}.0.image_url.url")


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        (b"{", "application/json", 400, "malformed_body"),
        (b"[]", "application/json", 422, "invalid_field"),
        (b'{"messages": "\\ud800"}', "application/json", 400, "malformed_body"),
        (b"--x--", "multipart/form-data; boundary=x", 415, "unsupported_content_type"),
    ],
)
async def test_a_body_that_is_no_json_object_is_refused(
    service: Service, body: bytes, content_type: str, status: int, code: str
) -> None:
    check(await service.client.post(PATH, content=body, headers={"content-type": content_type}), status, code)


@pytest.mark.parametrize(
    "inside",
    [
        '[{"role": "user", "content": [' + "{}," * 3_000_000 + "{}]}]",
        '[{"role": "user", ' + '"a": [[' + "1," * 3_000_000 + "1]]}]",
    ],
    ids=["parts", "numbers"],
)
async def test_millions_of_wrong_items_are_refused_as_one(service: Service, inside: str) -> None:
    body = '{"model": "tiny", "messages": ' + inside + "}"
    check(
        await service.client.post(PATH, content=body, headers={"content-type": "application/json"}),
        422,
        "invalid_field",
        "messages",
    )


def test_every_field_of_openais_is_offered_or_refused_by_name() -> None:
    assert set(CompletionCreateParamsBase.__annotations__) <= set(ChatRequest.model_fields)


async def test_a_missing_key_is_an_authentication_error(running: ServiceFactory, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(KEY_LINE + "\n")
    async with running(api_keys=tmp_path / "keys") as service:
        for ask in (
            lambda who: who.models.list(),
            lambda who: who.chat.completions.create(model="tiny", messages=turn()),
        ):
            with pytest.raises(openai.AuthenticationError) as raised:
                await ask(client(service, key="mm-wrong"))
            assert raised.value.code == "invalid_api_key"
            await ask(client(service, key=KEY))


async def test_a_full_house_is_a_rate_limit_error(running: ServiceFactory) -> None:
    async with running(max_concurrent=1, max_queued=0) as service:
        service.engine.delay = 3600
        inside = asyncio.create_task(complete(service))
        await until(lambda: service.state.admission.in_flight == 1)
        for stream in (False, True):
            with pytest.raises(openai.RateLimitError) as raised:
                await complete(service, stream=stream)
            assert raised.value.code == "overloaded"
            assert int(raised.value.response.headers["retry-after"]) >= 1
        inside.cancel()
        await asyncio.gather(inside, return_exceptions=True)
        assert service.state.admission.in_flight == 0


async def test_the_client_waits_as_long_as_it_is_told_and_tries_again(running: ServiceFactory) -> None:
    async with running(requests_per_minute=60) as service:
        for _ in range(60):
            service.state.authenticator.find(None).tenant.spend()
        patient = client(service).with_options(max_retries=1)
        assert (await patient.chat.completions.create(model="tiny", messages=turn())).choices  # type: ignore[arg-type]


async def test_the_deadline_is_a_server_error(running: ServiceFactory) -> None:
    async with running(timeout_ms=1000) as service:
        service.engine.delay, before = 3600, service.engine.started
        with pytest.raises(openai.InternalServerError) as raised:
            await complete(service)
        assert (raised.value.status_code, raised.value.code) == (504, "deadline_exceeded")
        assert service.engine.aborted == service.engine.started - before


async def test_the_client_does_not_repeat_what_has_failed(service: Service) -> None:
    service.engine.fail_next = GenerationError(SECRET)
    with pytest.raises(openai.InternalServerError):
        await client(service).with_options(max_retries=1).chat.completions.create(model="tiny", messages=turn())  # type: ignore[arg-type]


async def test_the_client_does_not_ask_again_after_the_deadline(running: ServiceFactory) -> None:
    async with running(timeout_ms=1000) as service:
        service.engine.delay, before = 3600, service.engine.started
        with pytest.raises(openai.InternalServerError):
            await (
                client(service)
                .with_options(max_retries=1)
                .chat.completions.create(
                    model="tiny",
                    messages=turn(),  # type: ignore[arg-type]
                )
            )
        assert service.engine.started - before == 1


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (GenerationError(SECRET), 500, "generation_failed"),
        (RuntimeError(SECRET), 500, "internal_error"),
        (EngineDeadError(SECRET), 503, "engine_dead"),
    ],
)
async def test_failures_of_the_engine_are_server_errors(
    service: Service, failure: Exception, status: int, code: str
) -> None:
    service.engine.fail_next = failure
    with pytest.raises(openai.InternalServerError) as raised:
        await complete(service)
    check(raised.value.response, status, code)


@pytest.fixture
def failing_later(service: Service, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the second token on, the engine fails."""
    real = service.engine.log_probabilities

    def fail(image_id: str, ids: Any) -> Any:
        if service.engine.last_request is not None and len(ids) > len(service.engine.last_request.prompt_ids):
            raise GenerationError(SECRET)
        return real(image_id, ids)

    return lambda: monkeypatch.setattr(service.engine, "log_probabilities", fail)


async def test_a_stream_that_fails_late_raises_in_the_client(
    service: Service, failing_later: Callable[[], None]
) -> None:
    failing_later()
    chunks = await complete(service, stream=True)
    with pytest.raises(openai.APIError) as raised:
        async for _ in chunks:
            pass
    assert raised.value.code == "generation_failed"
    assert SECRET not in str(raised.value)


async def test_a_closed_connection_stops_the_engine(service: Service) -> None:
    await gives_up(service, complete(service))


async def test_the_deployments_threshold_marks_chat_answers_too(running: ServiceFactory) -> None:
    async with running(min_confidence=1.0) as service:
        assert (await complete(service)).medmoe["abstained"] is True


async def test_content_reaches_neither_logs_nor_metrics_nor_errors(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    bodies: list[dict[str, Any]] = [
        {"messages": turn(text(SECRET), image())},
        {"messages": turn(text(SECRET), image()), "stream": True},
        {"messages": turn(), "stop": [SECRET], "logprobs": True, "top_logprobs": 2},
        {"messages": turn(), "stop": [SECRET] * 5},
        {"messages": turn(text(SECRET), image(SECRET))},
        {"messages": turn(text(), image(), {"type": SECRET})},
        {"messages": turn(text(), image(), {"type": "text", SECRET: SECRET})},
        {"messages": [{"role": SECRET, "content": SECRET}]},
        {"messages": turn(), SECRET: SECRET},
        {"messages": turn(), "metadata": {SECRET: SECRET}},
        {"messages": turn(), "model": SECRET},
    ]
    answers = [await service.client.post(PATH, json=body) for body in bodies]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 422, 400, 400, 422, 400, 422, 200, 404]
    service.engine.fail_next = RuntimeError(SECRET)
    answers.append(await service.client.post(PATH, json=bodies[0]))
    assert all(SECRET not in answer.text for answer in answers)
    lines = [JsonFormatter().format(record) for record in caplog.records if record.name.startswith("medmoe")]
    assert len(lines) > len(bodies)
    assert not any(SECRET in line for line in lines)
    assert SECRET not in (await service.client.get("/metrics")).text


async def test_the_router_counts_the_route(service: Service) -> None:
    await complete(service)
    assert set((await service.client.get("/v1/router/stats")).json()["by_route"]) == {"chat"}


async def test_the_documentation_is_whole(service: Service) -> None:
    document = (await service.client.get("/openapi.json")).json()
    operation = document["paths"][PATH]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    assert "$ref" not in json.dumps(content)
    assert set(content["schema"]["properties"]) == set(ChatRequest.model_fields)
    reports = {"application/dicom", "application/fhir+json"}
    for path, more in ((PATH, set()), ("/v1/vqa", reports)):
        content = document["paths"][path]["post"]["responses"]["200"]["content"]
        assert set(content) == {"application/json", "text/event-stream"} | more


async def test_an_image_of_one_shade_is_answered_where_the_request_allows_it(service: Service) -> None:
    file = io.BytesIO()
    Image.new("RGB", (40, 40)).save(file, format="PNG")
    black = image(f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}")
    with pytest.raises(openai.UnprocessableEntityError, match="one shade"):
        await complete(service, messages=turn(text(), black))
    assert await complete(service, messages=turn(text(), black), extra_body={"allow_uniform": True})

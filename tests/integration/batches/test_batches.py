"""Files and batches through OpenAI's client: what a caller gets, and what the service refuses."""

import asyncio
import json
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import ValidationError
from starlette.responses import FileResponse

from medmoe.server.auth import api_keys
from medmoe.server.auth.key_file import new_key
from medmoe.server.settings import Settings
from tests.integration.batches.conftest import Batching, caller, ids, line, questions
from tests.integration.conftest import Service, base64_image, check, until

WARD, WARD_LINE = new_key("ward-7")
LAB, LAB_LINE = new_key("lab")
OWN = {"id", "timings", "created", "created_at", "usage", "request_id"}
"""Fields of an answer that differ from one request to the next."""


def common(answer: Any) -> Any:
    """Return an answer without what is its own."""
    if isinstance(answer, dict):
        return {name: common(value) for name, value in answer.items() if name not in OWN}
    return [common(one) for one in answer] if isinstance(answer, list) else answer


def bodies() -> dict[str, dict[str, Any]]:
    image, url = base64_image(), f"data:image/png;base64,{base64_image()}"
    text = {"type": "text", "text": "Is there a fracture?"}
    return {
        "/v1/vqa": {"image": image, "question": "Is there a fracture?", "include_routing": True},
        "/v1/classify": {"image": image, "labels": ["CT", "MRI"]},
        "/v1/chat/completions": {
            "model": "tiny",
            "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}, text]}],
        },
        "/v1/decisions": {
            "model": "tiny",
            "input": [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}],
            "questions": [{"type": "predicate", "instructions": "Is it a CT?"}],
        },
    }


@pytest.mark.parametrize("endpoint", bodies())
async def test_a_line_is_answered_as_its_route_answers(batching: Batching, endpoint: str) -> None:
    body = bodies()[endpoint]
    wrong = body | {"unknown": 1}
    async with batching() as (service, caller):
        batch = await caller.end(
            await caller.begin([line("right", body, endpoint), line("wrong", wrong, endpoint)], endpoint)
        )
        (right,), (refused,) = await caller.both(batch)
        for found, sent in ((right, body), (refused, wrong)):
            answer = await service.client.post(endpoint, json=sent)
            assert found["response"]["status_code"] == answer.status_code
            assert found["error"] is None
            assert common(found["response"]["body"]) == common(answer.json())


@pytest.mark.parametrize(
    ("asked", "status", "first", "last"),
    [
        ("bytes=2-5", 206, 2, 5),
        ("bytes=2-", 206, 2, 99),
        ("bytes=-3", 206, 97, 99),
        ("items=0-1", 200, 0, 99),
        ("bytes=abc", 200, 0, 99),
        ("bytes=-", 200, 0, 99),
        ("bytes=5-2", 200, 0, 99),
        ("bytes=0-1,4-5", 200, 0, 99),
        ("bytes", 200, 0, 99),
        ("bytes=" + "9" * 5000 + "-", 200, 0, 99),
    ],
)
async def test_a_part_of_a_file_is_read_and_what_names_none_is_ignored(
    batching: Batching, asked: str, status: int, first: int, last: int
) -> None:
    async with batching() as (service, caller):
        content = bytes(range(100))
        file = await caller.files.create(file=("in.jsonl", content), purpose="batch")
        answer = await service.client.get(f"/v1/files/{file.id}/content", headers={"Range": asked})
        paths = (await service.client.get("/openapi.json")).json()["paths"]
    assert (answer.status_code, answer.content) == (status, content[first : last + 1])
    assert str(status) in paths["/v1/files/{file_id}/content"]["get"]["responses"]


@pytest.mark.parametrize("asked", ["bytes=100-", "bytes=100-200", "bytes=-0"])
async def test_a_range_that_holds_nothing_is_refused_by_name(batching: Batching, asked: str) -> None:
    async with batching() as (service, caller):
        file = await caller.files.create(file=("in.jsonl", bytes(100)), purpose="batch")
        answer = await service.client.get(f"/v1/files/{file.id}/content", headers={"Range": asked})
    check(answer, 416, "range_not_satisfiable")
    assert answer.headers["content-range"] == "bytes */100"


async def test_a_deployment_without_batches_names_the_setting(service: Service) -> None:
    for method, path in (("GET", "/v1/files"), ("GET", "/v1/batches"), ("POST", "/v1/files"), ("POST", "/v1/batches")):
        answer = await service.client.request(method, path)
        check(answer, 404, "batches_disabled")
        assert "MEDMOE_BATCH_DIR" in answer.text


async def test_a_file_that_is_no_input_fails_its_batch_with_the_lines_that_are_wrong(batching: Batching) -> None:
    good = questions(1)[0]
    body = {"image": "AAAA", "question": "q"}
    wrong = {
        "duplicate_custom_id": good,
        "invalid_json_line": good[:-1],
        "missing_required_parameter": json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/vqa"}),
        "mismatched_url": line("b", body, "/v1/classify"),
        "unsupported_parameter": line("c", body | {"stream": True}),
        "invalid_line": json.dumps({"custom_id": "Doe", "method": "GET", "url": "/v1/vqa", "body": body}),
    }
    async with batching(batch_max_lines=100) as (service, caller):
        batch = await caller.end(await caller.begin([good, "", *wrong.values()]))
        assert batch.status == "failed"
        assert batch.errors is not None
        assert batch.errors.data is not None
        found = {error.code: error.line for error in batch.errors.data}
        assert found == {code: number for number, code in enumerate(wrong, start=3)}
        assert all("Doe" not in (error.message or "") for error in batch.errors.data)
        assert (batch.output_file_id, batch.error_file_id) == (None, None)
        assert service.engine.started == 1  # The warm-up.
        twice = good.replace('{"custom_id"', '{"custom_id": "first", "custom_id"', 1)
        assert twice != good
        quoted = line("d", {"image": "AAAA", "question": '"' + "x" * 5000, "model": '"'})
        for lines, code in (
            ([], "empty_file"), (questions(101), "too_many_lines"), ([twice], "invalid_json_line"),
            ([quoted, twice], "invalid_json_line"), ([""] * 202, "too_many_lines"),
        ):  # fmt: skip
            batch = await caller.end(await caller.begin(lines))
            assert batch.errors is not None
            assert batch.errors.data is not None
            assert [error.code for error in batch.errors.data] == [code]


async def test_uploads_and_batches_that_cannot_be_are_refused(batching: Batching) -> None:
    async with batching(batch_max_bytes=2000, batch_max_stored_bytes=3000) as (_, caller):
        with pytest.raises(openai.APIStatusError) as refused:
            await caller.upload(["x" * 2001])
        assert refused.value.code == "body_too_large"
        with pytest.raises(openai.BadRequestError) as purpose:
            await caller.files.create(file=("a", b"x"), purpose="vision")
        assert purpose.value.param == "purpose"
        first = await caller.upload(["x" * 1900])
        with pytest.raises(openai.APIStatusError) as full:
            await caller.upload(["x" * 1900])
        assert full.value.code == "storage_limit"
        with pytest.raises(openai.UnprocessableEntityError) as window:
            await caller.batches.create(input_file_id=first, endpoint="/v1/vqa", completion_window="1h")  # type: ignore[arg-type]
        assert window.value.param == "completion_window"
        with pytest.raises(openai.NotFoundError) as missing:
            await caller.batches.create(input_file_id="file-1", endpoint="/v1/vqa", completion_window="24h")  # type: ignore[arg-type]
        assert missing.value.code == "file_not_found"


async def test_a_file_that_is_deleted_while_it_is_read_is_whole_or_not_found(
    batching: Batching, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sending = FileResponse.__call__

    async def send_a_deleted_file(self: FileResponse, *arguments: Any) -> None:
        await service.state.batches.files.delete(file_id)
        await sending(self, *arguments)

    async with batching() as (service, caller):
        lines = questions(2)
        file_id = await caller.upload(lines)
        with monkeypatch.context() as patched:
            patched.setattr(FileResponse, "__call__", send_a_deleted_file)
            answer = await service.client.get(f"/v1/files/{file_id}/content")
        assert (answer.status_code, answer.text.splitlines()) == (200, lines)
        check(await service.client.get(f"/v1/files/{file_id}/content"), 404, "file_not_found")
        half_deleted = await caller.upload(lines)
        (tmp_path / "batches" / "files" / f"{half_deleted}.jsonl").unlink()
        check(await service.client.get(f"/v1/files/{half_deleted}/content"), 404, "file_not_found")


async def test_the_answers_of_a_batch_that_runs_take_room(batching: Batching) -> None:
    lines = questions(40)
    room = sum(map(len, lines)) + 3000
    async with batching(batch_max_stored_bytes=room, batch_max_bytes=room) as (service, caller):
        service.engine.delay = 0.005
        batch = await caller.begin(lines)
        await until(lambda: service.engine.finished > 15)
        service.engine.delay = 1
        with pytest.raises(openai.APIStatusError) as full:
            await caller.upload(["x"])
        assert full.value.code == "storage_limit"
        with pytest.raises(openai.APIStatusError) as full:
            await caller.begin_with(batch.input_file_id)
        assert full.value.code == "storage_limit"
        assert (await caller.batches.retrieve(batch.id)).status == "in_progress"
        service.engine.delay = 0
        assert (await caller.end(batch)).status == "completed"


def starts(**settings: Any) -> bool:
    try:
        Settings(**settings)
    except ValidationError:
        return False
    return True


async def test_the_largest_file_that_a_service_starts_with_is_taken(batching: Batching) -> None:
    memory = {"body_memory_mib": 1, "max_body_bytes": 2**20, "max_series_bytes": 2**20}
    sizes = range(2**20, 0, -(2**15))
    largest = next(size for size in sizes if starts(batch_dir="b", batch_max_bytes=size, **memory))
    async with batching(batch_max_bytes=largest, **memory) as (_, caller):
        assert await caller.upload(["x" * largest])


async def test_tenants_see_nothing_of_each_other(batching: Batching, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"{WARD_LINE}\n{LAB_LINE}\n")
    async with batching(api_keys=tmp_path / "keys") as (service, _):
        ward, lab = caller(service, WARD), caller(service, LAB)
        batch = await ward.end(await ward.begin(questions(2)))
        assert batch.output_file_id is not None
        for asking in (
            lab.batches.retrieve(batch.id),
            lab.batches.cancel(batch.id),
            lab.files.retrieve(batch.output_file_id),
            lab.files.content(batch.output_file_id),
            lab.files.delete(batch.output_file_id),
            lab.begin_with(batch.input_file_id),
        ):
            with pytest.raises(openai.NotFoundError):
                await asking
        assert not [one async for one in lab.batches.list()]
        assert not [one async for one in lab.files.list()]
        with pytest.raises(openai.AuthenticationError):
            await caller(service, "mm-guessed").files.list()
        assert len(await ward.read(batch.output_file_id)) == 2


async def test_a_revoked_key_ends_its_batch_and_not_that_of_another(
    batching: Batching, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_keys, "_SECONDS", 0.01)
    keys, (spare, spare_line) = tmp_path / "keys", new_key("ward-7")
    keys.write_text(f"{WARD_LINE}\n{LAB_LINE}\n{spare_line}\n")
    async with batching(api_keys=keys, batch_concurrency=2) as (service, _):
        service.engine.delay = 0.005
        ward, lab = caller(service, WARD), caller(service, LAB)
        begun, other = await ward.begin(questions(200)), await lab.begin(questions(4))
        await ward.until(begun, lambda now: now.request_counts is not None and now.request_counts.completed > 2)
        (tmp_path / "next").write_text(f"{LAB_LINE}\n{spare_line}\n")
        (tmp_path / "next").replace(keys)
        # The other key of the same name sees what there is.
        ward = caller(service, spare)
        await until(lambda: ward_key_is_gone(service))
        ended = await ward.end(await ward.batches.retrieve(begun.id))
        assert ended.status == "failed"
        assert ended.errors is not None
        assert ended.errors.data is not None
        assert ended.errors.data[0].code == "invalid_api_key"
        assert ended.request_counts is not None
        assert 2 < len(await ward.read(ended.output_file_id)) == ended.request_counts.completed < 180
        assert (await lab.end(other)).status == "completed"


def ward_key_is_gone(service: Service) -> bool:
    keys = service.state.authenticator.keys
    return keys is not None and keys.find(WARD) is None


async def test_a_cancelled_batch_keeps_the_results_that_it_has(batching: Batching) -> None:
    async with batching() as (service, caller):
        service.engine.delay = 0.005
        batch = await caller.begin(questions(200))
        await caller.until(batch, lambda now: now.request_counts is not None and now.request_counts.completed > 2)
        with pytest.raises(openai.ConflictError) as used:
            await caller.files.delete(batch.input_file_id)
        assert used.value.code == "file_in_use"
        batch = await caller.end(await caller.batches.cancel(batch.id))
        assert batch.status == "cancelled"
        answered, failed = await caller.both(batch)
        assert batch.request_counts is not None
        assert batch.request_counts.model_dump() == {"total": 200, "completed": len(answered), "failed": len(failed)}
        assert 2 < len(answered) < 180
        assert set(ids(answered, failed).values()) == {1}
        with pytest.raises(openai.ConflictError):
            await caller.batches.cancel(batch.id)
        await caller.files.delete(batch.input_file_id)
        assert service.state.admission.in_flight == 0


async def test_a_batch_gives_way_to_other_requests_and_ends_all_the_same(
    batching: Batching, vqa_body: dict[str, Any]
) -> None:
    async with batching() as (service, caller):
        service.engine.delay = 0.002
        batch = await caller.begin(questions(30))
        await caller.until(batch, lambda now: now.request_counts is not None and now.request_counts.completed > 2)
        before = service.engine.aborted
        answers = await asyncio.gather(*(service.client.post("/v1/vqa", json=vqa_body) for _ in range(3)))
        assert {answer.status_code for answer in answers} == {200}
        assert service.engine.aborted > before
        batch = await caller.end(batch)
        assert ids(*await caller.both(batch)) == {str(n): 1 for n in range(30)}

"""Callers with many batches: what they may have, and what others notice."""

import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from medmoe.server.auth.key_file import new_key
from medmoe.server.batches import job_store, worker
from tests.integration.batches.conftest import Batching, Caller, caller, questions
from tests.integration.conftest import until


@pytest.fixture
async def callers(batching: Batching, tmp_path: Path) -> AsyncIterator[tuple[Caller, Caller]]:
    ward, ward_line = new_key("ward-7")
    lab, lab_line = new_key("lab")
    keys = tmp_path / "keys"
    keys.write_text(f"{ward_line}\n{lab_line}\n")
    async with batching(api_keys=keys) as (service, _):
        yield caller(service, ward), caller(service, lab)


async def test_a_batch_is_validated_before_the_second_of_another_caller(
    callers: tuple[Caller, Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    go, read, reading = threading.Event(), list[str](), worker.read_lines

    def read_once_told(path: Path, **limits: Any) -> Any:
        read.append(path.stem)
        go.wait(60)
        return reading(path, **limits)

    monkeypatch.setattr(worker, "read_lines", read_once_told)
    ward, lab = callers
    theirs = await ward.upload(questions(2))
    for _ in range(4):
        await ward.begin_with(theirs)
    batch = await lab.begin(questions(1))
    go.set()
    await lab.end(batch)
    # The first of the ward's is read once more to be answered.
    assert read.index(batch.input_file_id) <= 2


async def test_a_page_of_the_list_costs_what_it_shows(
    callers: tuple[Caller, Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    ward, _ = callers
    begun = [await ward.end(await ward.begin([])) for _ in range(6)]
    described, real = list[str](), job_store.Job.batch

    def describe(job: job_store.Job) -> Any:
        described.append(job.id)
        return real.fget(job)  # type: ignore[attr-defined]

    monkeypatch.setattr(job_store.Job, "batch", property(describe))
    shown = await ward.batches.list(limit=2, after=begun[4].id)
    assert [batch.id for batch in shown.data] == described == [begun[3].id, begun[2].id]
    assert shown.has_more


async def test_a_scrape_looks_at_each_batch_once(batching: Batching, monkeypatch: pytest.MonkeyPatch) -> None:
    looks, real = list[str](), job_store.Job.status

    def status(job: job_store.Job) -> Any:
        looks.append(job.id)
        return real.fget(job)  # type: ignore[attr-defined]

    async with batching() as (service, client):
        for _ in range(3):
            await client.end(await client.begin([]))
        monkeypatch.setattr(job_store.Job, "status", property(status))
        metrics = (await service.client.get("/metrics")).text
    assert len(looks) == len(set(looks)) == 3
    assert 'medmoe_batches{status="failed"} 3.0' in metrics
    assert 'medmoe_batches{status="in_progress"} 0.0' in metrics


async def test_callers_whose_batches_have_ended_hold_no_memory(batching: Batching) -> None:
    async with batching() as (service, client):
        await client.end(await client.begin(questions(1)))
        assert service.state.batches is not None
        running = service.state.batches._worker
        await until(lambda: not running._validating_of and not running._answering_of)


async def test_a_caller_has_only_so_many_batches(
    callers: tuple[Caller, Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_store, "_MOST_BATCHES", 2)
    ward, lab = callers
    for _ in range(2):
        await ward.end(await ward.begin([]))
    with pytest.raises(openai.APIStatusError) as full:
        await ward.begin(questions(1))
    assert full.value.code == "storage_limit"
    assert (await lab.end(await lab.begin(questions(1)))).status == "completed"

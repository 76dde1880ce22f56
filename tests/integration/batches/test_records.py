"""What is on the disk, and what a caller is told of it, while a record is being written."""

import asyncio
import errno
import os
import threading
import time
from pathlib import Path
from typing import Any

import openai
import pytest

from medmoe.server.batches import file_store, job_store, storage, worker
from medmoe.server.batches.errors import StorageUnavailable
from medmoe.server.batches.result_log import ResultLog
from tests.integration.batches.conftest import Batching, ids, questions
from tests.integration.conftest import check, until


class Records:
    """The writing of batches' records, which can be held up or fail for those that have a status."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held = threading.Event()
        self.status = ""
        self.fails = False
        self.tried = 0
        self._go_on = threading.Event()
        self._replace = storage.replace
        monkeypatch.setattr(job_store, "replace", self)

    def __call__(self, path: Path, content: bytes) -> None:
        if f'"status":"{self.status}"'.encode() in content:
            self.tried += 1
            if self.fails:
                raise StorageUnavailable
            self.held.set()
            assert self._go_on.wait(30)
        self._replace(path, content)

    def go_on(self) -> None:
        self.fails = False
        self._go_on.set()


async def test_the_input_of_a_batch_that_is_being_created_is_not_deleted(
    batching: Batching, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = Records(monkeypatch)
    records.status = "validating"
    async with batching() as (_, caller):
        file_id = await caller.upload(questions(2))
        creating = asyncio.create_task(caller.begin_with(file_id))
        await until(records.held.is_set)
        try:
            with pytest.raises(openai.ConflictError) as refused:
                await caller.files.delete(file_id)
        finally:
            records.go_on()
        assert refused.value.code == "file_in_use"
        assert (await caller.end(await creating)).status == "completed"


async def test_a_batch_that_could_not_be_stored_is_none(batching: Batching, monkeypatch: pytest.MonkeyPatch) -> None:
    records = Records(monkeypatch)
    records.status, records.fails = "validating", True
    async with batching() as (_, caller):
        file_id = await caller.upload(questions(2))
        with pytest.raises(openai.InternalServerError):
            await caller.begin_with(file_id)
        assert [one async for one in caller.batches.list()] == []
        assert (await caller.files.delete(file_id)).deleted


async def test_a_result_file_that_is_out_of_reach_for_a_moment_ends_its_batch_later(
    batching: Batching, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat, size, fails = Path.stat, file_store._size, list[bool]()

    def failing_once(path: Path, **options: Any) -> os.stat_result:
        if fails and path.suffix == ".jsonl":
            fails.clear()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return stat(path, **options)

    def measured(content: Path) -> int:
        found = size(content)
        monkeypatch.setattr(file_store, "_size", size)
        # The next look is for the record of the file.
        fails.append(True)
        return found

    async with batching() as (_, caller):
        monkeypatch.setattr(Path, "stat", failing_once)
        monkeypatch.setattr(file_store, "_size", measured)
        batch = await caller.end(await caller.begin(questions(2)))
        assert batch.status == "completed"
        assert not fails
        assert ids(*await caller.both(batch)) == {"0": 1, "1": 1}


async def test_a_file_that_cannot_be_read_is_told_as_such(batching: Batching, monkeypatch: pytest.MonkeyPatch) -> None:
    async with batching() as (service, caller):
        file_id = await caller.upload(questions(1))

        def fail(*_: Any) -> Any:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", fail)
            check(await service.client.get(f"/v1/files/{file_id}/content"), 503, "storage_unavailable")
        assert await caller.read(file_id)


async def test_a_batch_has_ended_once_its_end_is_on_the_disk(
    batching: Batching, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = Records(monkeypatch)
    records.status, records.fails = "completed", True
    async with batching() as (_, caller):
        batch = await caller.begin(questions(2))
        await until(lambda: records.tried > 1)
        seen = {(await caller.batches.retrieve(batch.id)).status for _ in range(20)}
        with pytest.raises(openai.ConflictError):
            await caller.files.delete(batch.input_file_id)
        records.go_on()
        batch = await caller.end(batch)
        assert seen == {"finalizing"}
        assert batch.status == "completed"
        assert ids(*await caller.both(batch)) == {"0": 1, "1": 1}


async def test_results_that_are_opened_when_a_batch_is_cancelled_are_closed_again(
    batching: Batching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else they would be cut off at their old length later, and their descriptors stay."""
    begun, go_on = threading.Event(), threading.Event()
    opened: list[ResultLog] = []

    def slowly(*paths: Path) -> ResultLog:
        first = not begun.is_set()
        begun.set()
        assert not first or go_on.wait(30)
        opened.append(ResultLog(*paths))
        return opened[-1]

    monkeypatch.setattr(worker, "ResultLog", slowly)
    async with batching() as (_, caller):
        batch = await caller.begin(questions(2))
        await until(begun.is_set)
        await caller.batches.cancel(batch.id)
        # Time for another to open them.
        await asyncio.sleep(0.1)
        assert opened == []
        go_on.set()
        assert (await caller.end(batch)).status == "cancelled"
    assert len(opened) == 2
    for log in opened:
        with pytest.raises(StorageUnavailable):
            log.append("0", b"{}", failed=False)


def no_folder_reaches_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().is_dir():
            raise OSError(errno.EIO, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


def test_a_new_record_whose_folder_cannot_be_written_does_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its caller was told that there is none, and the next process would answer it."""
    no_folder_reaches_the_disk(monkeypatch)
    with pytest.raises(StorageUnavailable):
        storage.replace(tmp_path / "batch_1.json", b"{}")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "batch_1.json").write_bytes(b"{}")
    with pytest.raises(StorageUnavailable):
        storage.replace(tmp_path / "batch_1.json", b"{}")
    assert list(tmp_path.iterdir()) == [tmp_path / "batch_1.json"]


async def test_what_cannot_be_deleted_can_be_deleted_again_and_keeps_nothing_else(
    batching: Batching, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with batching(batch_retention_days=2) as (service, caller):
        batch = await caller.end(await caller.begin(questions(2)))
        kept, batches = batch.input_file_id, service.state.batches
        assert batches is not None
        unlink = Path.unlink

        def refused(path: Path, missing_ok: bool = False) -> None:
            if path.name == f"{kept}.json":
                raise OSError(errno.EIO, "Input/output error")
            unlink(path, missing_ok=missing_ok)

        monkeypatch.setattr(Path, "unlink", refused)
        for _ in range(2):
            with pytest.raises(openai.InternalServerError) as failed:
                await caller.files.delete(kept)
            assert failed.value.code == "storage_unavailable"
        with pytest.MonkeyPatch.context() as patch:
            now = time.time
            patch.setattr(time, "time", lambda: now() + 2 * 86_400 + 1)
            with pytest.raises(OSError, match="Input/output"):
                await batches.delete_expired()
            left = {path.stem for path in (tmp_path / "batches").rglob("*.json*")}
            assert left == {kept}
            monkeypatch.undo()
            await batches.delete_expired()
        assert list((tmp_path / "batches").rglob("*.json*")) == []

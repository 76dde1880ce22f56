"""Batches over kills, full disks, ends of their time and of what is kept."""

import asyncio
import errno
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from medmoe.model.errors import ConfigError
from medmoe.server.auth.key_file import new_key
from medmoe.server.auth.tenants import Tenant
from medmoe.server.batches import result_log, storage, worker
from medmoe.server.batches import service as batches
from medmoe.server.batches.input_lines import InputLine
from medmoe.server.batches.storage_threads import StorageThreads
from tests.integration.batches.conftest import Batching, caller, ids, questions, results
from tests.integration.conftest import Service, image_bytes
from tests.support.service.server_process import ServerProcess, server_process

COUNT = 60


def test_every_line_is_answered_once_although_the_service_is_killed(checkpoint: Path, tmp_path: Path) -> None:
    """Through OpenAI's own client, over sockets."""
    directory = tmp_path / "batches"
    settings = {"MEDMOE_MODEL": str(checkpoint), "MEDMOE_ENGINE": "fake", "MEDMOE_BATCH_DIR": str(directory)}
    vqa: Any = "/v1/vqa"
    with started(settings) as (server, client):
        content = "\n".join(questions(COUNT)).encode()
        file = client.files.create(file=("patient.jsonl", content), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id, endpoint=vqa, completion_window="24h", metadata={"study": "a"}
        )
        kill_after(20, server, client, batch.id)
    with started(settings) as (server, client):
        while batch.status != "completed":
            time.sleep(0.02)
            batch = client.batches.retrieve(batch.id)
        assert batch.output_file_id is not None
        assert batch.error_file_id is not None
        answered = results(client.files.content(batch.output_file_id).text)
        refused = results(client.files.content(batch.error_file_id).text)
        assert {one.id for one in client.files.list()} == {file.id, batch.output_file_id, batch.error_file_id}
        assert [one.id for one in client.files.list(purpose="batch", limit=1)] == [file.id]
        assert [one.metadata for one in client.batches.list()] == [{"study": "a"}]
        assert client.files.delete(file.id).deleted
        with pytest.raises(openai.NotFoundError):
            client.files.retrieve(file.id)
        server.stop()
        log = "".join(server.lines)
    assert ids(answered, refused) == {str(n): 1 for n in range(COUNT)}
    assert len(refused) == COUNT // 10
    assert batch.id in log
    assert "patient" not in log
    assert "Is it" not in log
    assert all(path.stat().st_mode & 0o077 == 0 for path in directory.rglob("*"))


@contextmanager
def started(settings: dict[str, str]) -> Iterator[tuple[ServerProcess, openai.OpenAI]]:
    with server_process(settings=settings) as server:
        server.wait_ready(300)
        yield server, openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused")


def kill_after(count: int, server: ServerProcess, client: openai.OpenAI, batch_id: str) -> None:
    """Kill the service when `count` lines have a result."""
    done = 0
    while done < count:
        time.sleep(0.02)
        counts = client.batches.retrieve(batch_id).request_counts
        assert counts is not None
        done = counts.completed + counts.failed
    server.process.kill()


async def test_an_unfinished_line_of_a_killed_process_is_written_again(batching: Batching, tmp_path: Path) -> None:
    async with batching(batch_concurrency=1) as (service, caller):
        service.engine.delay = 0.005
        batch = await caller.begin(questions(20))
        await caller.until(batch, lambda now: now.request_counts is not None and now.request_counts.completed > 2)
    (output,) = (
        path for path in (tmp_path / "batches" / "files").glob("*.jsonl") if path.read_bytes().startswith(b'{"id')
    )
    with output.open("ab") as file:
        file.write(output.read_bytes()[:100])
    async with batching() as (_, caller):
        assert ids(*await caller.both(await caller.end(batch))) == {str(n): 1 for n in range(20)}


class Disk:
    """The one write of results and files; while `is_full` it writes a part and fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        self.refused = 0
        for module in (result_log, storage):
            monkeypatch.setattr(module, "write", self.write)

    def write(self, descriptor: int, data: bytes | memoryview) -> None:
        if self.is_full:
            self.refused += 1
            os.write(descriptor, memoryview(data)[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        os.write(descriptor, data)


async def test_a_full_disk_pauses_a_batch_and_costs_and_doubles_nothing(
    batching: Batching, monkeypatch: pytest.MonkeyPatch, vqa_body: dict[str, Any]
) -> None:
    disk = Disk(monkeypatch)
    async with batching() as (service, caller):
        service.engine.delay = 0.002
        batch = await caller.begin(questions(40))
        await caller.until(batch, lambda now: now.request_counts is not None and now.request_counts.completed > 2)
        disk.is_full = True
        paused = await caller.until(batch, lambda now: getattr(now, "paused", None) == "storage")
        assert paused.status == "in_progress"
        with pytest.raises(openai.InternalServerError) as full:
            await caller.upload(questions(1))
        assert (full.value.status_code, full.value.code) == (507, "storage_full")
        with pytest.raises(openai.InternalServerError):
            await caller.batches.create(input_file_id=batch.input_file_id, endpoint="/v1/vqa", completion_window="24h")  # type: ignore[arg-type]
        assert (await service.client.post("/v1/vqa", json=vqa_body)).status_code == 200
        assert "medmoe_batch_storage_failing 1.0" in (await service.client.get("/metrics")).text
        assert disk.refused > 2
        disk.is_full = False
        batch = await caller.end(batch)
        assert batch.status == "completed"
        assert ids(*await caller.both(batch)) == {str(n): 1 for n in range(40)}
        assert len([one async for one in caller.files.list()]) == 3


class HangingDisk:
    """Writes nothing of files and results while it hangs; nobody waits long for it then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._works = threading.Event()
        self._works.set()
        self._threads: StorageThreads | None = None
        for module in (result_log, storage):
            monkeypatch.setattr(module, "write", self._write)

    def hang(self, service: Service) -> None:
        assert service.state.batches is not None
        self._threads = service.state.batches.threads
        self._set_patience(0.1)
        self._works.clear()

    def work(self) -> None:
        self._set_patience(60)
        self._works.set()

    def _set_patience(self, seconds: float) -> None:
        if self._threads is not None:
            self._threads._patience = seconds

    def _write(self, descriptor: int, data: bytes | memoryview) -> None:
        self._works.wait()
        os.write(descriptor, data)


@pytest.fixture
def hanging_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[HangingDisk]:
    disk = HangingDisk(monkeypatch)
    yield disk
    disk.work()


async def test_a_hanging_disk_holds_batches_and_nothing_else(batching: Batching, hanging_disk: HangingDisk) -> None:
    async with batching() as (service, caller):
        service.engine.delay = 0.002
        batch = await caller.begin(questions(40))
        await caller.until(batch, lambda now: now.request_counts is not None and now.request_counts.completed > 2)
        hanging_disk.hang(service)
        uploads = await asyncio.gather(*(caller.upload(questions(1)) for _ in range(40)), return_exceptions=True)
        assert {getattr(one, "code", None) for one in uploads} == {"storage_unavailable"}
        await caller.until(batch, lambda _: b"failing 1.0" in service.state.metrics.exposition())
        async with asyncio.timeout(60):
            # Larger than what is hashed on the event loop.
            large = {"image": image_bytes((700, 700), kind="BMP")}
            answer = await service.client.post("/v1/vqa", files=large, data={"question": "Is it a CT?"})
        assert answer.status_code == 200
        hanging_disk.work()
        assert ids(*await caller.both(await caller.end(batch))) == {str(n): 1 for n in range(40)}
        assert "medmoe_batch_storage_failing 0.0" in (await service.client.get("/metrics")).text


async def test_a_service_stops_while_its_disk_hangs(
    batching: Batching, hanging_disk: HangingDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "_PATIENCE", 0.2)
    async with asyncio.timeout(60):
        async with batching() as (service, caller):
            service.engine.delay = 0.002
            batch = await caller.begin(questions(20))
            await caller.until(batch, lambda now: now.request_counts is not None and now.request_counts.completed > 2)
            hanging_disk.hang(service)
            await caller.until(batch, lambda _: b"failing 1.0" in service.state.metrics.exposition())
        with pytest.raises(ConfigError, match="another process uses"):
            async with batching():
                pass


async def test_a_disk_that_cannot_be_read_for_a_while_pauses_a_batch(
    batching: Batching, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with batching() as (service, caller):
        service.engine.delay = 0.002
        batch = await caller.begin(questions(40))
        await caller.until(batch, lambda now: now.request_counts is not None and now.request_counts.completed > 2)
        fails = True
        read = worker.body_of

        def body_of(path: Path, line: InputLine) -> dict[str, Any]:
            if fails:
                raise OSError(errno.EIO, "Input/output error")
            return read(path, line)

        monkeypatch.setattr(worker, "body_of", body_of)
        await caller.until(batch, lambda now: getattr(now, "paused", None) == "storage")
        fails = False
        batch = await caller.end(batch)
        assert batch.status == "completed"
        assert ids(*await caller.both(batch)) == {str(n): 1 for n in range(40)}


async def test_lines_without_an_answer_in_time_are_errors(batching: Batching) -> None:
    async with batching() as (service, caller):
        service.engine.delay = 0.005
        batch = await caller.begin(questions(50))
        await caller.until(batch, lambda now: now.request_counts is not None and now.request_counts.completed > 2)
    # The service was away for a day.
    with pytest.MonkeyPatch.context() as patch:
        now = time.time
        patch.setattr(time, "time", lambda: now() + 86_401)
        async with batching() as (_, caller):
            batch = await caller.end(batch)
            answered, failed = await caller.both(batch)
    assert batch.status == "expired"
    assert ids(answered, failed) == {str(n): 1 for n in range(50)}
    expired = [one for one in failed if one["response"] is None]
    assert {one["error"]["code"] for one in expired} == {"batch_expired"}
    assert len(expired) > 10


async def test_files_and_batches_are_deleted_on_time(batching: Batching, tmp_path: Path) -> None:
    async with batching(batch_retention_days=2) as (service, caller):
        batch = await caller.end(await caller.begin(questions(2)))
        assert len(stored(tmp_path)) == 5
        with pytest.MonkeyPatch.context() as patch:
            now = time.time
            patch.setattr(time, "time", lambda: now() + 2 * 86_400 + 1)
            with pytest.raises(openai.NotFoundError):
                await caller.files.content(batch.input_file_id)
            assert service.state.batches is not None
            await service.state.batches.delete_expired()
        assert stored(tmp_path) == []
        with pytest.raises(openai.NotFoundError):
            await caller.batches.retrieve(batch.id)


async def test_half_written_records_of_a_killed_process_are_deleted(
    batching: Batching, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They hold the name of a file, and what a caller wrote about a batch."""

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    for folder, name in (("files", "file-1.json"), ("batches", "batch_1.json")):
        (tmp_path / "batches" / folder).mkdir(parents=True, exist_ok=True)
        monkeypatch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            storage.replace(tmp_path / "batches" / folder / name, b'{"filename": "patient.jsonl"}')
    monkeypatch.undo()
    async with batching():
        assert [path.name for path in (tmp_path / "batches").rglob("*") if path.is_file()] == ["lock"]


def stored(directory: Path) -> list[Path]:
    """Return the files of a store, without its lock and those that are being written."""
    found = [path for path in (directory / "batches").rglob("*") if path.is_file() and path.name != "lock"]
    return [path for path in found if not path.name.startswith(".")]


async def test_a_directory_has_one_process_and_records_that_can_be_read(batching: Batching, tmp_path: Path) -> None:
    async with batching():
        with pytest.raises(ConfigError, match="another process uses"):
            async with batching():
                pass
    (tmp_path / "batches" / "batches" / "batch_1.json").write_text("{")
    with pytest.raises(ConfigError, match="not a record"):
        async with batching():
            pass


async def test_a_line_is_audited_as_its_route_is(batching: Batching, tmp_path: Path) -> None:
    key, key_line = new_key("ward-7")
    (tmp_path / "keys").write_text(key_line)
    (tmp_path / "audit_key").write_text("ab" * 32)
    settings = {"audit_dir": tmp_path / "audit", "audit_key": tmp_path / "audit_key", "api_keys": tmp_path / "keys"}
    async with batching(**settings) as (service, _):
        ward = caller(service, key)
        batch = await ward.end(await ward.begin(questions(10)))
        answered, failed = await ward.both(batch)
        subject = log_id(service, key)
    trail = results("".join(path.read_text() for path in sorted((tmp_path / "audit").glob("*.jsonl"))))
    lines = {one["request_id"]: one for one in trail if one.get("batch") == batch.id}
    assert lines.keys() == {one["response"]["request_id"] for one in (*answered, *failed)}
    assert {one["subject"] for one in lines.values()} == {subject}
    assert {one["route"] for one in lines.values()} == {"/v1/vqa"}
    assert all(lines[one["response"]["request_id"]]["images"] for one in answered)
    routes = [one["route"] for one in trail if "batch" not in one and "route" in one]
    assert routes.count("/v1/files/{file_id}/content") == 2
    assert {"/v1/files", "/v1/batches"} <= set(routes)


def log_id(service: Service, key: str) -> str | None:
    keys = service.state.authenticator.keys
    assert keys is not None
    grant = keys.find(key)
    assert grant is not None
    tenant: Tenant = grant.tenant
    return tenant.log_id

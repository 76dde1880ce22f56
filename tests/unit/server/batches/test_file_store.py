"""Files count against their owner's room, uploads from their begin to their end."""

import asyncio
import errno
import io
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from medmoe.server.batches import file_store
from medmoe.server.batches.errors import StorageFull, StorageLimit
from medmoe.server.batches.file_store import FileStore
from medmoe.server.batches.storage_threads import StorageThreads
from medmoe.server.schemas.openai.file import FileObject

ROOM = 3000


class Source(io.BytesIO):
    """A file that is read once `go` is set."""

    def __init__(self, size: int, *, error: OSError | None = None) -> None:
        super().__init__(bytes(size))
        self.go = threading.Event()
        self.error = error

    def read(self, size: int | None = -1) -> bytes:
        self.go.wait(10)
        if self.error is not None:
            raise self.error
        return super().read(size)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FileStore]:
    threads = StorageThreads()
    yield FileStore(tmp_path, retention_days=1, max_stored_bytes=ROOM, unfinished=lambda _: (), threads=threads)
    await threads.end(60)


def begin(store: FileStore, source: io.BytesIO, *, owner: str = "ward") -> asyncio.Task[FileObject]:
    size = len(source.getvalue())
    return asyncio.create_task(store.upload(source, size=size, filename="in.jsonl", owner=owner, keep=None))


def small() -> io.BytesIO:
    return io.BytesIO(bytes(100))


def contents(directory: Path) -> list[int]:
    return sorted(path.stat().st_size for path in directory.glob("*.jsonl"))


async def has_room(store: FileStore) -> bool:
    try:
        await store.require_room("ward", 200)
    except StorageLimit:
        return False
    return True


async def begun(store: FileStore) -> None:
    """Wait until an upload takes its room."""
    async with asyncio.timeout(60):
        while await has_room(store):
            await asyncio.sleep(0.001)


async def test_uploads_at_once_take_no_more_than_one_owner_s_room(store: FileStore, tmp_path: Path) -> None:
    sources = [Source(1400) for _ in range(4)]
    uploads = [begin(store, source) for source in sources]
    other = begin(store, small(), owner="research")
    for source in sources:
        source.go.set()
    found = await asyncio.gather(*uploads, return_exceptions=True)
    assert [type(one) for one in found] == [FileObject, FileObject, StorageLimit, StorageLimit]
    assert contents(tmp_path) == [(await other).bytes, 1400, 1400]


async def test_files_without_content_are_limited_too(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_store, "_MOST_FILES", 3)
    found = await asyncio.gather(*(begin(store, io.BytesIO()) for _ in range(5)), return_exceptions=True)
    assert [type(one) for one in found] == [FileObject, FileObject, FileObject, StorageLimit, StorageLimit]
    assert (await begin(store, io.BytesIO(), owner="research")).bytes == 0
    await store.delete(store.of_owner("ward")[0].id)
    assert (await begin(store, io.BytesIO())).bytes == 0


async def test_an_upload_that_fails_gives_its_room_back(store: FileStore, tmp_path: Path) -> None:
    source = Source(2900, error=OSError(errno.ENOSPC, "full"))
    failing = begin(store, source)
    await begun(store)
    source.go.set()
    with pytest.raises(StorageFull):
        await failing
    assert await has_room(store)
    assert contents(tmp_path) == []


@pytest.mark.parametrize("closed", [False, True])
async def test_an_upload_that_is_cancelled_counts_until_it_is_stored_or_gone(
    store: FileStore, tmp_path: Path, closed: bool
) -> None:
    source = Source(2900)
    upload = begin(store, source)
    await begun(store)
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert not await has_room(store)
    if closed:
        # As the request closes its form.
        source.close()
    source.go.set()
    async with asyncio.timeout(60):
        while not (await has_room(store) if closed else store.of_owner("ward")):
            await asyncio.sleep(0.001)
    assert [file.bytes for file in store.of_owner("ward")] == contents(tmp_path) == ([] if closed else [2900])

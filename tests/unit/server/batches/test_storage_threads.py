"""Threads of a disk that hangs: who waits for them, and how long."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from medmoe.server.batches.errors import StorageUnavailable
from medmoe.server.batches.storage_threads import StorageThreads

PATIENCE = 0.05


@pytest.fixture
def disk() -> Iterator[threading.Event]:
    """A disk that hangs until it is set."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
async def threads(disk: threading.Event) -> AsyncIterator[StorageThreads]:
    made = StorageThreads(patience=PATIENCE)
    yield made
    disk.set()
    assert await made.end(60)


async def hanging(threads: StorageThreads) -> None:
    async with asyncio.timeout(60):
        while not threads.hang:
            await asyncio.sleep(0.001)


async def test_a_change_on_a_disk_that_hangs_is_given_up_and_still_made(
    threads: StorageThreads, disk: threading.Event
) -> None:
    changed = asyncio.Event()

    async def change() -> None:
        await threads.do(disk.wait)
        changed.set()

    with pytest.raises(StorageUnavailable):
        await threads.in_time(change())
    await hanging(threads)
    with pytest.raises(StorageUnavailable):
        threads.require()
    disk.set()
    async with asyncio.timeout(60):
        await changed.wait()
    threads.require()


async def test_work_that_nobody_waits_for_any_more_counts_as_hanging(
    threads: StorageThreads, disk: threading.Event
) -> None:
    waiting = asyncio.create_task(threads.do(disk.wait))
    await asyncio.sleep(0)
    waiting.cancel()
    await hanging(threads)
    assert not await threads.end(PATIENCE)


async def test_long_work_does_not_count_as_hanging(threads: StorageThreads, disk: threading.Event) -> None:
    reading = asyncio.create_task(threads.do(disk.wait, is_long=True))
    await asyncio.sleep(3 * PATIENCE)
    assert not threads.hang
    disk.set()
    assert await reading

"""Slots, queue and deadline."""

import asyncio

import pytest

from medmoe.server.admission.deadline import Deadline
from medmoe.server.admission.slots import Admission
from medmoe.server.errors import DeadlineExceeded, Draining, Overloaded
from medmoe.server.observability.request_record import RequestRecord

FAR = 3600.0


def record() -> RequestRecord:
    return RequestRecord(request_id="test", method="POST")


async def hold(admission: Admission, release: asyncio.Event, *, seconds: float = FAR) -> None:
    async with admission.slot(deadline=Deadline(seconds), record=record()):
        await release.wait()


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_queue_is_as_long_as_it_says() -> None:
    admission, release = Admission(max_concurrent=2, max_queued=1), asyncio.Event()
    inside = [asyncio.create_task(hold(admission, release)) for _ in range(3)]
    await turn()
    assert admission.in_flight == 3
    with pytest.raises(Overloaded) as refused:
        admission.refuse_when_full()
    assert refused.value.retry_after >= 1
    with pytest.raises(Overloaded):
        await hold(admission, release)
    release.set()
    await asyncio.gather(*inside)
    assert admission.in_flight == 0
    admission.refuse_when_full()


async def test_the_time_to_wait_is_that_of_those_in_front() -> None:
    admission, release = Admission(max_concurrent=2, max_queued=7), asyncio.Event()
    inside = [asyncio.create_task(hold(admission, release)) for _ in range(9)]
    await turn()
    # Of seven waiting and this one, two at once; a slot is held for a second until others have been timed.
    with pytest.raises(Overloaded) as refused:
        admission.refuse_when_full()
    assert refused.value.retry_after == 4
    release.set()
    await asyncio.gather(*inside)


async def test_a_failure_inside_gives_the_slot_back() -> None:
    admission = Admission(max_concurrent=1, max_queued=0)
    for _ in range(3):
        with pytest.raises(RuntimeError):
            async with admission.slot(deadline=Deadline(FAR), record=record()):
                raise RuntimeError
    assert admission.in_flight == 0


async def test_who_leaves_the_queue_frees_its_place() -> None:
    admission, release = Admission(max_concurrent=1, max_queued=1), asyncio.Event()
    first = asyncio.create_task(hold(admission, release))
    await turn()
    second = asyncio.create_task(hold(admission, release))
    await turn()
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert admission.in_flight == 1
    release.set()
    await first
    assert admission.in_flight == 0


async def test_waiting_too_long_in_the_queue_is_a_deadline() -> None:
    admission, release = Admission(max_concurrent=1, max_queued=1), asyncio.Event()
    first = asyncio.create_task(hold(admission, release))
    await turn()
    with pytest.raises(DeadlineExceeded):
        await hold(admission, release, seconds=0.001)
    assert admission.in_flight == 1
    release.set()
    await first


async def test_a_timeout_of_something_else_is_not_our_deadline() -> None:
    with pytest.raises(TimeoutError):
        async with Deadline(FAR).guard():
            raise TimeoutError


async def test_a_grace_is_given_behind_the_deadline() -> None:
    async with Deadline(0).guard(grace=FAR):
        await asyncio.sleep(0.01)


async def test_an_error_of_its_own_is_not_our_deadline_however_late() -> None:
    async def fail() -> None:
        async with Deadline(0.001).guard():
            try:
                await asyncio.sleep(FAR)
            except asyncio.CancelledError:
                raise RuntimeError from None

    with pytest.raises(RuntimeError):
        await fail()


async def test_idle_is_waited_for_only_as_long_as_asked() -> None:
    admission, release = Admission(max_concurrent=1, max_queued=0), asyncio.Event()
    assert await admission.wait_idle(0)
    inside = asyncio.create_task(hold(admission, release))
    await turn()
    assert not await admission.wait_idle(0.001)
    release.set()
    assert await admission.wait_idle(FAR)
    await inside


async def test_it_is_not_idle_while_the_last_of_the_queue_takes_its_slot() -> None:
    """Else a stop would refuse that request instead of waiting for it."""
    admission, releases = Admission(max_concurrent=1, max_queued=1), (asyncio.Event(), asyncio.Event())
    inside = [asyncio.create_task(hold(admission, release)) for release in releases]
    idle = asyncio.create_task(admission.wait_idle(FAR))
    await turn()
    releases[0].set()
    await inside[0]
    await turn()
    assert not idle.done()
    releases[1].set()
    assert await idle
    await inside[1]


async def test_who_is_inside_or_waits_can_be_told_to_go() -> None:
    admission, release = Admission(max_concurrent=1, max_queued=1), asyncio.Event()

    async def work() -> None:
        deadline = Deadline(FAR)
        async with admission.slot(deadline=deadline, record=record()), deadline.guard():
            await release.wait()

    tasks = [asyncio.create_task(work()) for _ in range(2)]
    await turn()
    assert admission.in_flight == 2
    admission.cut_short()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(result, Draining)
    assert admission.in_flight == 0
    await asyncio.gather(asyncio.create_task(hold(admission, release)), _set(release))


async def _set(event: asyncio.Event) -> None:
    event.set()


async def test_a_deadline_cut_short_gives_no_more_time() -> None:
    deadline = Deadline(FAR)
    deadline.cut_short(Draining)
    with pytest.raises(Draining):
        async with deadline.guard():
            await asyncio.sleep(FAR)


async def test_who_was_late_anyway_is_late() -> None:
    deadline = Deadline(0)
    await asyncio.sleep(0.001)
    deadline.cut_short(Draining)
    with pytest.raises(DeadlineExceeded):
        async with deadline.guard():
            await asyncio.sleep(FAR)

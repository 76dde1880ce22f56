"""Places of costly requests: one caller does not keep them from the others."""

from contextlib import AsyncExitStack

import pytest

from medmoe.server.admission.costly_places import CostlyPlaces
from medmoe.server.admission.deadline import Deadline
from medmoe.server.auth.tenants import Grant, Tenant
from medmoe.server.errors import Overloaded
from medmoe.server.observability.request_record import BatchLine, RequestRecord

WARD, LAB, CLINIC = (Grant(tenant=Tenant.of(name)) for name in ("ward-7", "lab", "clinic"))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def record(grant: Grant | None) -> RequestRecord:
    return RequestRecord(request_id="test", method="POST", grant=grant)


async def take(places: CostlyPlaces, grant: Grant | None) -> AsyncExitStack:
    stack = AsyncExitStack()
    await stack.enter_async_context(places.place(deadline=Deadline(3600), record=record(grant)))
    return stack


async def refused(places: CostlyPlaces, grant: Grant | None) -> int:
    with pytest.raises(Overloaded) as full:
        await take(places, grant)
    return full.value.retry_after


async def test_who_was_refused_comes_before_who_has_a_place_and_asks_again(clock: Clock) -> None:
    places = CostlyPlaces(2, clock=clock)
    first, second = await take(places, WARD), await take(places, WARD)
    wait = await refused(places, LAB)
    await first.aclose()
    await refused(places, WARD)
    clock.now += wait
    theirs = await take(places, LAB)
    # The claim is over.
    await theirs.aclose()
    async with await take(places, WARD), second:
        assert places.in_flight == 2
    assert places.in_flight == 0


async def test_callers_take_turns_with_a_single_place(clock: Clock) -> None:
    places = CostlyPlaces(1, clock=clock)
    held = await take(places, WARD)
    for grant in (LAB, CLINIC, WARD):
        await refused(places, grant)
    await held.aclose()
    for grant, others in ((LAB, (CLINIC, WARD)), (CLINIC, (WARD, LAB)), (WARD, (LAB,))):
        for other in others:
            await refused(places, other)
        async with await take(places, grant):
            pass


async def test_a_place_is_not_kept_for_who_does_not_ask_again(clock: Clock) -> None:
    places = CostlyPlaces(1, clock=clock)
    held = await take(places, WARD)
    wait = await refused(places, LAB)
    await held.aclose()
    await refused(places, WARD)
    clock.now += wait + 6
    async with await take(places, WARD):
        pass


async def test_alone_a_caller_has_all_places(clock: Clock) -> None:
    for grant in (WARD, None):
        places = CostlyPlaces(3, clock=clock)
        held = [await take(places, grant) for _ in range(3)]
        await refused(places, grant)
        await held.pop().aclose()
        held.append(await take(places, grant))
        for one in held:
            await one.aclose()


async def test_lines_of_batches_take_no_place(clock: Clock) -> None:
    places = CostlyPlaces(1, clock=clock)
    line = record(WARD)
    line.batch = BatchLine(batch="batch_1", grant=WARD).batch
    async with places.place(deadline=Deadline(3600), record=line), await take(places, LAB):
        assert places.in_flight == 1

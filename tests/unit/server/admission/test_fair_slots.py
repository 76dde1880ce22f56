"""Slots go to tenants in turn."""

import asyncio

from medmoe.server.admission.fair_slots import FairSlots


async def test_tenants_take_turns_whatever_one_of_them_queues() -> None:
    slots, served = FairSlots(1), []

    async def hold(tenant: str) -> None:
        async with slots.slot(tenant):
            served.append(tenant)
            await asyncio.sleep(0)

    waiting = [asyncio.create_task(hold(tenant)) for tenant in ["a"] * 5 + ["b"] * 2 + ["c"]]
    await asyncio.gather(*waiting)
    assert served == ["a", "a", "b", "c", "a", "b", "a", "a"]
    # Each slot was given back once.
    async with slots.slot("a"):
        late = asyncio.create_task(hold("b"))
        await asyncio.sleep(0)
        assert len(served) == 8
    await late


async def test_a_waiter_that_leaves_takes_no_slot_with_it() -> None:
    slots, served = FairSlots(1), []

    async def hold(name: str) -> None:
        async with slots.slot(name):
            served.append(name)
            await asyncio.sleep(0)

    async with slots.slot("first"):
        left, stays = asyncio.create_task(hold("left")), asyncio.create_task(hold("stays"))
        await asyncio.sleep(0)
        left.cancel()
    # Granted its slot and cancelled in the same turn of the loop.
    await asyncio.gather(left, stays, return_exceptions=True)
    async with asyncio.timeout(60), slots.slot("last"):
        assert served == ["stays"]


async def test_a_slot_that_comes_with_the_cancellation_is_passed_on() -> None:
    slots = FairSlots(1)
    entered = slots.slot("first")
    await entered.__aenter__()
    waiter = asyncio.create_task(slots.slot("second").__aenter__())
    await asyncio.sleep(0)
    await entered.__aexit__(None, None, None)
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    async with asyncio.timeout(60), slots.slot("third"):
        pass

"""Turns of background requests beside those that go first."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from medmoe.server.admission import background_turns
from medmoe.server.admission.background_turns import BackgroundTurns


class Clock:
    """Seconds that pass when the test says so."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(background_turns, "_LOOK", 0.001)
    return Clock()


async def is_due(turns: BackgroundTurns) -> bool:
    """Return whether a turn comes without any time passing; it is given back."""

    async def take() -> None:
        async with turns.turn():
            pass

    taking = asyncio.create_task(take())
    # Each pause is longer than that between two looks, so there are as many looks on any machine.
    for _ in range(5):
        await asyncio.sleep(0.002)
    due = taking.done()
    taking.cancel()
    await asyncio.gather(taking, return_exceptions=True)
    return due


async def test_as_many_run_at_once_as_there_are_places_while_nothing_else_does(clock: Clock) -> None:
    turns = BackgroundTurns(2, clock=clock)
    async with AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(turns.turn())
        assert not await is_due(turns)
    assert await is_due(turns)


async def test_a_request_interrupts_those_that_may_be(clock: Clock) -> None:
    turns = BackgroundTurns(2, clock=clock)
    async with turns.turn() as soft, turns.turn(may_be_interrupted=False) as firm:
        with turns.foreground():
            assert soft.interrupted.is_set()
            assert not firm.interrupted.is_set()


async def test_two_seconds_after_the_last_request_it_is_quiet(clock: Clock) -> None:
    turns = BackgroundTurns(2, clock=clock)
    async with turns.turn():
        clock.now += 1
    with turns.foreground():
        assert not await is_due(turns)
    clock.now += 1.9
    assert not await is_due(turns)
    clock.now += 0.2
    assert await is_due(turns)


async def test_beside_requests_one_runs_a_twentieth_of_the_time_and_is_not_interrupted(clock: Clock) -> None:
    turns = BackgroundTurns(2, clock=clock)
    with turns.foreground():
        async with turns.turn() as turn:
            assert not await is_due(turns)
            clock.now += 1
            with turns.foreground():
                assert not turn.interrupted.is_set()
        clock.now += 18.5
        assert not await is_due(turns)
        clock.now += 1
        assert await is_due(turns)

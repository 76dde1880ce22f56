"""Test when an unanswered ping counts as a hang."""

import asyncio

from medmoe.server.errors import EngineDeadError
from medmoe.server.lifecycle.watchdog import HangWatchdog


class Pinged:
    """An engine that answers only while `answers` is set."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.sent = 0
        self.now = 0.0

    async def ping(self) -> None:
        self.sent += 1
        await self.answers.wait()

    async def look(self, watchdog: HangWatchdog, *, seconds: float, step: float = 0.25) -> bool:
        """Look every `step` seconds of its own clock; return whether the engine was ever said to hang."""
        found = False
        end = self.now + seconds
        while self.now < end:
            found = watchdog.hangs() or found
            self.now += step
            await asyncio.sleep(0)
        return found

    def watchdog(self) -> HangWatchdog:
        return HangWatchdog(self.ping, seconds=30, clock=lambda: self.now)


async def test_an_engine_that_answers_never_hangs() -> None:
    engine = Pinged()
    engine.answers.set()
    with engine.watchdog() as watchdog:
        assert not await engine.look(watchdog, seconds=600)
    assert engine.sent > 300


async def test_an_engine_that_does_not_answer_hangs_after_the_time_and_not_before() -> None:
    engine = Pinged()
    with engine.watchdog() as watchdog:
        assert not await engine.look(watchdog, seconds=29)
        assert await engine.look(watchdog, seconds=3)
    assert engine.sent == 1


async def test_a_late_answer_begins_anew() -> None:
    engine = Pinged()
    with engine.watchdog() as watchdog:
        for _ in range(5):
            assert not await engine.look(watchdog, seconds=25)
            engine.answers.set()
            assert not await engine.look(watchdog, seconds=3)
            engine.answers.clear()


async def test_time_in_which_the_service_itself_was_suspended_does_not_count() -> None:
    engine = Pinged()
    with engine.watchdog() as watchdog:
        assert not await engine.look(watchdog, seconds=2)
        engine.now += 3600
        assert not await engine.look(watchdog, seconds=20)
        assert await engine.look(watchdog, seconds=10)


async def test_an_error_is_an_answer() -> None:
    class Failing(Pinged):
        async def ping(self) -> None:
            self.sent += 1
            raise EngineDeadError("gone")

    engine = Failing()
    with engine.watchdog() as watchdog:
        assert not await engine.look(watchdog, seconds=120)
    assert engine.sent > 1

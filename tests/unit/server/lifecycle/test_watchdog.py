"""Test when an unanswered ping counts as a hang."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from medmoe.server.errors import EngineDeadError
from medmoe.server.lifecycle.run_queue import RunQueueWait
from medmoe.server.lifecycle.watchdog import HangWatchdog, Starvation


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

    def watchdog(self, starvation: Starvation | None = None) -> HangWatchdog:
        return HangWatchdog(self.ping, seconds=30, clock=lambda: self.now, starvation=starvation)


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


class Starved:
    """An engine that gets a processor for `share` of the time."""

    def __init__(self, share: float, *, step: float = 0.25) -> None:
        self.wait = step * (1 - share)

    def reset(self) -> None: ...

    def seconds(self) -> float:
        return self.wait


async def test_time_in_which_the_engine_waits_for_a_processor_does_not_count() -> None:
    engine = Pinged()
    with engine.watchdog(Starved(0.0)) as watchdog:
        assert not await engine.look(watchdog, seconds=600)
    with engine.watchdog(Starved(0.1)) as watchdog:
        assert not await engine.look(watchdog, seconds=250)
        assert await engine.look(watchdog, seconds=100)
    with engine.watchdog(Starved(1.0)) as watchdog:
        assert await engine.look(watchdog, seconds=32)


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the kernel tells no time on the run queue")
def test_a_process_that_shares_its_processor_waits_and_a_stopped_one_does_not() -> None:
    processor = min(os.sched_getaffinity(0))
    code = f"import os\nos.sched_setaffinity(0, {{{processor}}})\nprint(flush=True)\nwhile True: pass"
    busy = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for process in busy:
            assert process.stdout is not None
            process.stdout.readline()
        queue = RunQueueWait()
        assert queue.seconds() < 0.05
        time.sleep(0.5)
        assert queue.seconds() > 0.05
        for process in busy:
            process.send_signal(signal.SIGSTOP)
            # The signal is obeyed at the process's next turn, which comes late on a busy machine.
            while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
                time.sleep(0.01)
        queue.seconds()
        time.sleep(0.2)
        assert queue.seconds() < 0.05
    finally:
        for process in busy:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


async def test_an_error_is_an_answer() -> None:
    class Failing(Pinged):
        async def ping(self) -> None:
            self.sent += 1
            raise EngineDeadError("gone")

    engine = Failing()
    with engine.watchdog() as watchdog:
        assert not await engine.look(watchdog, seconds=120)
    assert engine.sent > 1

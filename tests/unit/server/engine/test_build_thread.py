"""Test that a build of an engine can be abandoned at any moment."""

import asyncio
import multiprocessing
import subprocess
import sys
import textwrap
import threading
import time

import psutil
import pytest

from medmoe.server.engine import build_thread
from medmoe.server.engine.build_thread import BuildThread


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_thread, "_FINISHES_SECONDS", 0.2)


async def test_what_is_built_is_returned_and_what_is_raised_is_raised() -> None:
    assert await BuildThread(lambda: "engine").result() == "engine"
    with pytest.raises(ZeroDivisionError):
        await BuildThread(lambda: 1 / 0).result()


async def test_a_build_that_is_nearly_done_hands_over_its_engine() -> None:
    may_end = threading.Event()

    def build() -> str:
        assert may_end.wait(60)
        return "engine"

    building = BuildThread(build)
    waiting = asyncio.create_task(building.result())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    asyncio.get_running_loop().call_later(0.05, may_end.set)
    assert await building.abandon() == "engine"


async def test_a_build_that_waits_for_its_process_ends_with_it() -> None:
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(3600,))

    def build() -> None:
        process.start()
        process.join()
        raise RuntimeError("the engine's process has ended")

    building = BuildThread(build)
    while process.pid is None:
        await asyncio.sleep(0.01)
    assert await building.abandon() is None
    assert not psutil.pid_exists(process.pid)


def test_a_build_that_never_ends_does_not_keep_the_process() -> None:
    code = """
    import asyncio, threading
    from medmoe.server.engine import build_thread

    build_thread._FINISHES_SECONDS = build_thread._FAILS_SECONDS = 0.1

    async def main():
        assert await build_thread.BuildThread(threading.Event().wait).abandon() is None

    asyncio.run(main())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], timeout=300, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")

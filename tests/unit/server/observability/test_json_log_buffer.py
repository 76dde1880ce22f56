"""Lines that wait for each other, and when they do not."""

import asyncio
import io
import json
import logging
import os

import pytest

from medmoe.server.observability import json_log
from medmoe.server.observability.json_log import BufferedHandler


class Written(io.StringIO):
    """What was written, in how many pieces."""

    pieces = 0

    def write(self, text: str) -> int:
        self.pieces += 1
        return super().write(text)


@pytest.fixture
def written() -> Written:
    return Written()


@pytest.fixture
def log(written: Written) -> logging.Logger:
    handler = BufferedHandler()
    handler.setStream(written)
    logger = logging.Logger("test", logging.DEBUG)
    logger.addHandler(handler)
    return logger


async def test_lines_of_one_moment_are_written_together(
    log: logging.Logger, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Long beside the pauses of a busy machine.
    monkeypatch.setattr(json_log, "_SECONDS", 1.0)
    for number in range(3):
        log.info("line %d", number)
        await asyncio.sleep(0)
    assert written.getvalue() == ""
    await written_by(written, "line 2\n")
    assert (written.getvalue(), written.pieces) == ("line 0\nline 1\nline 2\n", 1)
    monkeypatch.setattr(json_log, "_SECONDS", 0.01)
    log.info("later")
    await written_by(written, "later\n")


async def written_by(written: Written, end: str) -> None:
    async with asyncio.timeout(60):
        while not written.getvalue().endswith(end):
            await asyncio.sleep(0.01)


async def test_a_warning_waits_for_nothing_and_comes_last(log: logging.Logger, written: Written) -> None:
    log.info("before")
    log.warning("now")
    assert written.getvalue() == "before\nnow\n"


async def test_only_so_many_wait(log: logging.Logger, written: Written) -> None:
    for _ in range(json_log._MOST_LINES + 1):
        log.info("x")
    assert written.getvalue().count("\n") == json_log._MOST_LINES


def test_without_an_event_loop_nothing_waits(log: logging.Logger, written: Written) -> None:
    log.info("at once")
    assert written.getvalue() == "at once\n"


def test_what_waits_when_the_loop_ends_is_written_at_the_end(log: logging.Logger, written: Written) -> None:
    async def last() -> None:
        log.info("last words")

    asyncio.run(last())
    assert written.getvalue() == ""
    log.handlers[0].flush()
    assert written.getvalue() == "last words\n"


async def test_another_threads_line_takes_along_what_waits(log: logging.Logger, written: Written) -> None:
    log.info("first")
    await asyncio.to_thread(log.info, "second")
    assert written.getvalue() == "first\nsecond\n"


async def test_a_reader_that_does_not_read_blocks_nobody_and_gets_what_it_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(json_log, "_MOST_WAITING", 300)
    reading, writing = os.pipe()
    handler = BufferedHandler()
    handler.setFormatter(json_log.JsonFormatter())
    logger = logging.Logger("medmoe.test", logging.DEBUG)
    logger.addHandler(handler)
    with os.fdopen(writing, "w") as stream, os.fdopen(reading) as reader:
        handler.setStream(stream)
        written = 3_000
        for number in range(written):
            logger.warning("line %d", number)
        received = [reader.readline()]
        while "log lines lost" not in received[-1]:
            handler.flush()
            received.append(reader.readline())
        lost = json.loads(received[-1])["count"]
        assert [json.loads(line)["message"] for line in received[:-1]] == [f"line {n}" for n in range(written - lost)]
        handler.close()


def test_a_reader_that_has_gone_costs_lines_only() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    handler = BufferedHandler()
    logger = logging.Logger("medmoe.test", logging.DEBUG)
    logger.addHandler(handler)
    with os.fdopen(writing, "w") as stream:
        handler.setStream(stream)
        for _ in range(3):
            logger.warning("gone")
        handler.close()

"""Lines that wait for each other, and when they do not."""

import asyncio
import io
import logging

import pytest

from medmoe.server.observability import log_handler
from medmoe.server.observability.log_handler import BufferedHandler


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


async def test_lines_of_one_moment_are_written_together(log: logging.Logger, written: Written) -> None:
    for number in range(3):
        log.info("line %d", number)
        await asyncio.sleep(0)
    assert written.getvalue() == ""
    await asyncio.sleep(log_handler._SECONDS * 2)
    assert (written.getvalue(), written.pieces) == ("line 0\nline 1\nline 2\n", 1)
    log.info("later")
    await asyncio.sleep(log_handler._SECONDS * 2)
    assert written.getvalue().endswith("later\n")


async def test_a_warning_waits_for_nothing_and_comes_last(log: logging.Logger, written: Written) -> None:
    log.info("before")
    log.warning("now")
    assert written.getvalue() == "before\nnow\n"


async def test_only_so_many_wait(log: logging.Logger, written: Written) -> None:
    for _ in range(log_handler._MOST_LINES + 1):
        log.info("x")
    assert written.getvalue().count("\n") == log_handler._MOST_LINES


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

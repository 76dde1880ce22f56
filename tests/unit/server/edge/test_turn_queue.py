"""Turns at the event loop: a connection that fails keeps nobody else from his turn."""

import asyncio
from typing import Any

from medmoe.server.edge.turn_queue import TurnQueue


async def test_work_that_fails_holds_up_no_other() -> None:
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    turns = TurnQueue()
    done: list[str] = []

    def fail() -> None:
        raise ZeroDivisionError

    turns.add(fail)
    turns.add(lambda: done.append("beside"))
    await asyncio.sleep(0.02)
    turns.add(lambda: done.append("later"))
    await asyncio.sleep(0.02)
    assert done == ["beside", "later"]
    assert len(failures) == 1

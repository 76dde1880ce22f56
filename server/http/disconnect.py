"""Cancel the work on a request when its client disconnects."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import Receive

from medmoe.server.errors import ClientDisconnected


@asynccontextmanager
async def abandon_on_disconnect(receive: Receive) -> AsyncIterator[None]:
    """Cancel the block when the client disconnects; enter it after the body has been read. Raises ClientDisconnected.

    Other cancellations pass. Its own is sent once, so that the engine's clean-up is not cancelled in turn.
    """
    task = asyncio.current_task()
    assert task is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if gone and task.uncancel() == 0:
            raise ClientDisconnected("the client left before the answer was finished") from None
        raise
    finally:
        watcher.cancel()

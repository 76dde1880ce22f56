"""Stop working when nobody is left to read the answer.

Apart because both ways of answering need it and it is easily done wrong: a cancellation that is not ours must pass, and
ours must arrive once, so that the engine's own clean-up is not cancelled in turn.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import Receive

from medmoe.server.errors import ClientDisconnected


@asynccontextmanager
async def abandon_on_disconnect(receive: Receive) -> AsyncIterator[None]:
    """Cancel what is inside when the client goes. Call it once the body has been read. Raises ClientDisconnected."""
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

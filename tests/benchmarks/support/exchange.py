"""Send one request on a connection of its own, for clients that share their cores with the server that they load."""

import asyncio
from collections.abc import Callable


class Exchange(asyncio.Protocol):
    """Sends what is `asked`; `answer` is all that came when the connection was closed, or why it broke.

    Not asyncio's streams: at a thousand refusals a second they take half as much again.
    """

    def __init__(self, asked: bytes) -> None:
        self._asked = asked
        self._pieces: list[bytes] = []
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol, also of the following."""
        transport.write(self._asked)

    def data_received(self, data: bytes) -> None:
        self._pieces.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.answer.done():
            return
        if exc is None:
            self.answer.set_result(b"".join(self._pieces))
        else:
            self.answer.set_exception(exc)


def request_bytes(body: bytes, *, path: str = "/v1/vqa", keep: bool = False) -> bytes:
    """One whole POST, after which the connection is to be closed unless it is to `keep`."""
    close = b"" if keep else b"Connection: close\r\n"
    head = b"POST %s HTTP/1.1\r\nHost: localhost\r\n%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (path.encode(), close, len(body)) + body


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Of the event loop that uvicorn would choose."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop

"""Limit the length of request bodies, and how many are read at once.

The length is that of Content-Length and that of the bytes received. Admission counts a request only once its body is
read, so the second limit keeps slow senders from filling the memory before that.
"""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medmoe.server.errors import BodyTooLarge, MalformedBody, Overloaded

_RETRY = 1
"""Seconds. How long the current senders will take is unknown."""


class BodyLimit:
    """ASGI middleware that limits bodies.

    Raises BodyTooLarge past `max_bytes`, MalformedBody for a Content-Length that is no number, Overloaded while
    `max_at_once` bodies are being read.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, max_at_once: int) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.max_at_once = max_at_once
        self._at_once = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length")
        if declared is not None:
            if not (declared.isascii() and declared.isdigit() and len(declared) < 20):
                raise MalformedBody("Content-Length is not a number")
            self._check(int(declared))
        read = 0
        begun = ended = False

        def end() -> None:
            nonlocal ended
            self._at_once -= begun and not ended
            ended = True

        async def counted() -> Message:
            nonlocal read, begun
            if not begun:
                if self._at_once >= self.max_at_once:
                    raise Overloaded(retry_after=_RETRY)
                self._at_once += 1
                begun = True
            message = await receive()
            if message["type"] == "http.request":
                read += len(message.get("body", b""))
                self._check(read)
            if not message.get("more_body", False):
                end()
            return message

        try:
            await self.app(scope, counted, send)
        finally:
            end()

    def _check(self, size: int) -> None:
        if size > self.max_bytes:
            raise BodyTooLarge.over(self.max_bytes)

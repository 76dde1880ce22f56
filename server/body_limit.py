"""The byte limit on request bodies, enforced before and while reading.

Apart from request parsing because it must hold for every route and before any parser allocates: by Content-Length
where there is one, by counting where there is none or where it lies.
"""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medmoe.server.errors import BodyTooLarge, MalformedBody


class BodyLimit:
    """Pure ASGI middleware. Raises BodyTooLarge past `max_bytes`, MalformedBody for a senseless Content-Length."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

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

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            if message["type"] == "http.request":
                read += len(message.get("body", b""))
                self._check(read)
            return message

        await self.app(scope, counted, send)

    def _check(self, size: int) -> None:
        if size > self.max_bytes:
            raise BodyTooLarge(f"the body is larger than {self.max_bytes} bytes (MEDMOE_MAX_BODY_BYTES)")

"""Headers that every answer carries, errors included: no sniffing, no storing, no framing.

Apart from telemetry and placed outside of it, so that the answers telemetry writes itself carry them too.
"""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # A page of somebody else's must neither frame the documentation nor read an answer.
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_OF_ANSWERS = {
    "Cache-Control": "no-store",
    # They load nothing.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
"""A page brings its own."""
ON_EVERY_REFUSAL = tuple((name.lower().encode(), value.encode()) for name, value in (_HEADERS | _OF_ANSWERS).items())
"""All of them, for answers that do not come through here."""


class ResponseHeaders:
    """Pure ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                for name, value in _OF_ANSWERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)
